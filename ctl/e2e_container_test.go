//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// zinit as the init of containers: of real ones by podman, and of pid
// namespaces, where there is no need of one.

// podman is a container engine with a storage of its own.
type podman struct{ dir string }

// image and mainImage are those of testdata/container, made from base.
const (
	base      = "localhost/zinit-base"
	image     = "localhost/zinit-test"
	mainImage = "localhost/zinit-main"
)

// newPodman builds the images.
func newPodman(t *testing.T) *podman {
	dir := shortTempDir(t)
	p := &podman{dir: dir}
	t.Cleanup(func() { p.remove(t) })
	check := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	check(os.Mkdir(dir+"/tmp", 0o700))
	// Locks in files: those in /dev/shm would be shared with other storages.
	check(os.WriteFile(dir+"/containers.conf", []byte(`[engine]
lock_type = "file"
[containers]
default_ulimits = ["nofile=10000:10000", "nproc=30000:30000", "core=0:0"]
`), 0o600))
	// What a distribution is otherwise: busybox, with a link for each applet.
	distribution := dir + "/distribution"
	rootfs := distribution + "/rootfs"
	check(os.MkdirAll(rootfs+"/bin", 0o755))
	check(os.Mkdir(rootfs+"/tmp", 0o755))
	check(os.Chmod(rootfs+"/tmp", 0o1777))
	busybox, err := os.ReadFile("/bin/busybox")
	check(err)
	check(os.WriteFile(rootfs+"/bin/busybox", busybox, 0o755))
	applets, err := exec.Command("/bin/busybox", "--list").Output()
	check(err)
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			check(os.Symlink("busybox", filepath.Join(rootfs, "bin", applet)))
		}
	}
	check(os.WriteFile(distribution+"/Dockerfile", []byte("FROM scratch\nCOPY rootfs /\nENV PATH=/usr/bin:/bin\n"), 0o644))
	p.must(t, "build", "--network=none", "-q", "-t", base, distribution)

	context := shortTempDir(t)
	check(os.CopyFS(context, os.DirFS("../testdata/container")))
	programs(t, context)
	for tag, file := range map[string]string{image: "Dockerfile", mainImage: "Dockerfile.main"} {
		p.must(t, "build", "--network=none", "-q", "--build-arg=BASE="+base, "-t", tag, "-f", context+"/"+file, context)
	}
	return p
}

// remove leaves nothing behind, and says so if there is something.
func (p *podman) remove(t *testing.T) {
	if names := p.must(t, "ps", "-aq"); names != "" {
		if !t.Failed() {
			t.Errorf("containers are left over: %s", names)
		}
		p.must(t, "rm", "-f", "-a", "-t", "0")
	}
	p.must(t, "rmi", "-f", "-a")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], p.dir+"/") {
			// podman keeps its storage mounted on itself.
			if err := syscall.Unmount(fields[4], syscall.MNT_DETACH); err != nil {
				t.Errorf("cannot unmount %s: %v", fields[4], err)
			}
		}
	}
}

// command is podman, not started.
func (p *podman) command(args ...string) *exec.Cmd {
	// crun, the default runtime, needs controllers of cgroup v2 that not every
	// host has; vfs works on every file system, also on that of a container.
	cmd := exec.Command("podman", append([]string{
		"--root=" + p.dir + "/storage", "--runroot=" + p.dir + "/runroot", "--tmpdir=" + p.dir + "/run",
		"--storage-driver=vfs", "--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=none",
	}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+p.dir+"/tmp", "CONTAINERS_CONF="+p.dir+"/containers.conf",
		"DISABLE_HC_SYSTEMD=true") // probes are run by the test
	return cmd
}

// do runs podman.
func (p *podman) do(args ...string) (r result) {
	cmd := p.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		r.code = exit.ExitCode()
	} else if err != nil {
		r.code = -1
		fmt.Fprintln(&stderr, err)
	}
	r.stdout, r.stderr = stdout.String(), stderr.String()
	return r
}

func (p *podman) must(t *testing.T, args ...string) string {
	t.Helper()
	r := p.do(args...)
	if r.code != 0 {
		t.Fatalf("podman %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return strings.TrimSpace(r.stdout)
}

// runArgs is `podman run` with what every container here has.
func runArgs(args ...string) []string {
	return append([]string{"run", "--network=none", "--log-driver=k8s-file"}, args...)
}

// run runs a container to its end.
func (p *podman) run(args ...string) result {
	return p.do(runArgs(append([]string{"--rm"}, args...)...)...)
}

// start starts a container and waits until its output matches.
func (p *podman) start(t *testing.T, ready string, args ...string) string {
	t.Helper()
	id := p.must(t, runArgs(append([]string{"-d"}, args...)...)...)
	t.Cleanup(func() { p.must(t, "rm", "-f", "-t", "0", id) })
	p.expect(t, id, ready)
	return id
}

// expect waits until what a container has printed matches.
func (p *podman) expect(t *testing.T, id, pattern string) {
	t.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	if err := eventually(patience, func() error {
		r := p.do("logs", id)
		if !re.MatchString(r.stdout) {
			return fmt.Errorf("the container does not print %q but:\n%s%s", pattern, r.stdout, r.stderr)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// stop ends a container as its user would, and returns what it took and the
// exit code.
func (p *podman) stop(t *testing.T, id string) (time.Duration, string) {
	t.Helper()
	begin := time.Now()
	p.must(t, "stop", "-t", "10", id)
	return time.Since(begin), p.must(t, "wait", id)
}

// containerTime begins each line of a service on the container's stdout.
const containerTime = `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z `

func TestContainer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: podman is run by root here")
	}
	p := newPodman(t)

	t.Run("services print on its stdout and end in order, at once", func(t *testing.T) {
		id := p.start(t, containerTime+`web \| trouble$`, image)
		took, code := p.stop(t, id)
		if took > 2*time.Second {
			t.Errorf("podman stop took %s, expected less than 2s", took)
		}
		if code != "0" {
			t.Errorf("the exit code is %s, expected 0", code)
		}
		p.expect(t, id, `(?s)`+containerTime+`db \| up$.*`+containerTime+`web \| up$.*`+
			containerTime+`web \| bye$.*`+containerTime+`db \| bye$`)
	})

	t.Run("a service that needs time gets it, and no more", func(t *testing.T) {
		slow, err := filepath.Abs("../testdata/container/slow")
		if err != nil {
			t.Fatal(err)
		}
		id := p.start(t, `slow \| up$`, "--volume="+slow+":/etc/zinit/services:ro", image)
		took, code := p.stop(t, id)
		if took < 2*time.Second || took > 4*time.Second {
			t.Errorf("podman stop took %s, expected little more than the 2s that the service takes", took)
		}
		if code != "0" {
			t.Errorf("the exit code is %s, expected 0", code)
		}
		p.expect(t, id, `slow \| saved\n\z`)
	})

	t.Run("the code of a main command that is stopped wins", func(t *testing.T) {
		id := p.start(t, `main \| up$`, image, "--", "sh", "-c", "end() { echo main ends; kill $! 2>/dev/null; exit 5; }; trap end TERM; echo up; while :; do sleep 1000 & wait $!; done")
		if _, code := p.stop(t, id); code != "5" {
			t.Errorf("the exit code is %s, expected 5", code)
		}
		p.expect(t, id, `(?s)main \| main ends$.*web \| bye$.*db \| bye$`)
	})

	t.Run("signals reach a main command", func(t *testing.T) {
		id := p.start(t, `^up$`, "-e", "ZINIT_CONFIG_DIR=/none", image, "--", "sh", "-c",
			"end() { kill $! 2>/dev/null; exit 9; }; trap 'echo usr1' USR1; trap end HUP; echo up; while :; do sleep 1000 & wait $!; done")
		p.must(t, "kill", "--signal=USR1", id)
		p.expect(t, id, `^usr1$`)
		p.must(t, "kill", "--signal=HUP", id)
		if code := p.must(t, "wait", id); code != "9" {
			t.Errorf("the exit code is %s, expected 9", code)
		}
	})

	t.Run("a main command that does not end is killed in time", func(t *testing.T) {
		id := p.start(t, `^up$`, "--entrypoint", `["zinit-pid1", "--container", "--shutdown-timeout=1s", "--"]`, mainImage,
			"sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done")
		if took, code := p.stop(t, id); code != "137" || took < time.Second {
			t.Errorf("podman stop took %s, the exit code is %s, expected 1s and 137", took, code)
		}
	})

	t.Run("a shell on a terminal", func(t *testing.T) { p.terminal(t) })
	t.Run("the pod of the manifest", func(t *testing.T) { p.pod(t) })

	ends := []struct {
		name    string
		options []string
		command []string
		code    int
	}{
		{"an exit code", nil, []string{"sh", "-c", "exit 42"}, 42},
		{"a signal", nil, []string{"sh", "-c", "kill -TERM $$"}, 128 + 15},
		{"a command that is not there", nil, []string{"/no/such/program"}, 127},
		{"a command that is no program", nil, []string{"/etc"}, 126},
		{"below another init", []string{"--init"}, []string{"sh", "-c", "test $PPID != 1 && exit 3"}, 3},
		{
			"any user, nothing to write to, no new privileges: health checks and proxies work as well",
			[]string{"--user=12345:12345", "--read-only", "--read-only-tmpfs=false", "--security-opt=no-new-privileges"},
			[]string{"sh", "-c", `zinit wait web --for healthy && wget -q -O - http://127.0.0.1:8080/web.toml | grep -q xinet && test "$(id -u)" = 12345 && ! touch /x 2>/dev/null && grep -q 'NoNewPrivs:.1' /proc/self/status && exit 3`}, 3,
		},
		{
			"nothing to write to but /run", []string{"--user=12345:12345", "--read-only"},
			[]string{"sh", "-c", "zinit wait web && ! touch /x 2>/dev/null && touch /run/x && exit 3"}, 3,
		},
		{
			"the same without capabilities, below another init",
			[]string{"--user=12345:12345", "--read-only", "--read-only-tmpfs=false", "--security-opt=no-new-privileges", "--cap-drop=all", "--init"},
			[]string{"sh", "-c", "zinit wait web && exit 3"}, 3,
		},
	}
	for _, end := range ends {
		t.Run(end.name, func(t *testing.T) {
			r := p.run(append(append(end.options, image, "--"), end.command...)...)
			if r.code != end.code {
				t.Errorf("the exit code is %d, expected %d:\n%s%s", r.code, end.code, r.stdout, r.stderr)
			}
			if warns := strings.Contains(r.stderr, "zinit-pid1 is not PID 1"); warns != slices.Contains(end.options, "--init") {
				t.Errorf("zinit-pid1 warns that it is not PID 1: %v\n%s", warns, r.stderr)
			}
		})
	}

	t.Run("no zombie is left of 10,000 orphans", func(t *testing.T) {
		// A subshell that ends at once leaves what it started to PID 1. The
		// loop at the end is endless if a zombie stays.
		r := p.run("-e", "ZINIT_CONFIG_DIR=/none", image, "--", "timeout", "60", "sh", "-c", `
			i=0; while [ $i -lt 10000 ]; do (true &); i=$((i+1)); done
			while grep -q ') Z ' /proc/[0-9]*/stat 2>/dev/null; do :; done
			echo $(ls -d /proc/[0-9]* | wc -l) $(grep VmHWM /proc/1/status)`)
		if r.code != 0 {
			t.Fatalf("the exit code is %d, expected 0:\n%s%s", r.code, r.stdout, r.stderr)
		}
		var processes, memory int
		if _, err := fmt.Sscanf(r.stdout, "%d VmHWM: %d", &processes, &memory); err != nil {
			t.Fatalf("cannot read %q: %v", r.stdout, err)
		}
		if processes > 8 {
			t.Errorf("%d processes are there, expected zinit, a shell and its tools", processes)
		}
		if memory > 16<<10 {
			t.Errorf("zinit-pid1 had %d KiB of memory, expected at most 16 MiB", memory)
		}
	})
}

// terminal has somebody work in a shell.
func (p *podman) terminal(t *testing.T) {
	master, slave, err := newTerminal()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	cmd := p.command(runArgs("--rm", "-it", "--env=PS1=$ ", mainImage)...) // its CMD is sh
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	screen := &trial{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		io.Copy(screen, master) // EIO when nobody has the terminal any more
		cmd.Wait()
	}()
	seen := 0
	// shows waits for what comes after all that has been waited for.
	shows := func(pattern string) {
		t.Helper()
		re := regexp.MustCompile(pattern)
		if err := eventually(patience, func() error {
			at := re.FindStringIndex(screen.output()[seen:])
			if at == nil {
				return fmt.Errorf("the terminal does not show %q but %q", pattern, screen.output()[seen:])
			}
			seen += at[1]
			return nil
		}); err != nil {
			cmd.Process.Kill()
			t.Fatal(err)
		}
	}
	types := func(text string) { master.WriteString(text) }
	shows(`\$ `)
	types("sh -c 'echo $((6*7)); exec sleep 999'\n")
	shows(`\n42\r\n`)
	types("\x1a")
	shows(`Stopped.*\r\n.*\$ `)
	types("jobs\n")
	shows(`Stopped.*\r\n.*\$ `)
	types("fg\n")
	shows(`exec sleep 999"\r\n`)
	types("\x03")
	shows(`\$ `)
	types("echo code $?\n")
	shows(`code 130\r\n`)
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 132}); err != nil {
		t.Fatal(err)
	}
	types("until stty size | grep '50 132'; do :; done\n") // the engine passes it on
	shows(`\r\n50 132\r\n`)
	types("sh -c 'echo $((7*9)); exec cat'; echo 'the end 'of input\n")
	shows(`\n63\r\n`)
	types("\x04")
	shows(`the end of input\r\n`)
	types("exit 5\n")
	<-ended
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("podman run -it exits with %d, expected 5: %q", code, screen.output())
	}
}

// pod plays the Kubernetes manifest.
func (p *podman) pod(t *testing.T) {
	manifest := "../testdata/container/pod.yaml"
	t.Cleanup(func() { p.must(t, "play", "kube", "--down", manifest) })
	p.must(t, "play", "kube", "--network=none", manifest)
	const name = "shop-services"
	probe := func(command ...string) int { return p.do(append([]string{"exec", name}, command...)...).code }
	if code := probe("zinit", "wait", "web", "--timeout", "30"); code != 0 {
		t.Errorf("the startup probe exits with %d", code)
	}
	if code := probe("zinit", "is-running", "web"); code != 0 {
		t.Errorf("the readiness probe exits with %d", code)
	}
	if code := probe("wget", "-q", "-O", "-", "http://127.0.0.1:9090/readyz"); code != 0 {
		t.Errorf("the probe of /readyz exits with %d", code)
	}
	p.must(t, "healthcheck", "run", name) // the liveness probe
	p.must(t, "exec", name, "zinit", "stop", "web")
	if code := probe("zinit", "is-running", "web"); code != 1 {
		t.Errorf("the readiness probe exits with %d while web is down, expected 1", code)
	}
	p.must(t, "healthcheck", "run", name)
	// It is for a zinit that does not answer.
	p.must(t, "exec", name, "sh", "-c", "kill -STOP $(pidof zinit-server)")
	if r := p.do("healthcheck", "run", name); r.code == 0 {
		t.Errorf("the liveness probe succeeds while zinit does not answer:\n%s", r.stdout)
	}
	p.must(t, "exec", name, "sh", "-c", "kill -CONT $(pidof zinit-server)")
	p.must(t, "healthcheck", "run", name)
	if _, code := p.stop(t, name); code != "0" {
		t.Errorf("the exit code is %s, expected 0", code)
	}
}

// What the pages on containers and Kubernetes show is what is tested here.
func TestContainerPagesShowTheFiles(t *testing.T) {
	for name, doc := range map[string]string{"Dockerfile": "containers.md", "Dockerfile.main": "containers.md", "pod.yaml": "kubernetes.md"} {
		page, err := os.ReadFile("../docs/" + doc)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile("../testdata/container/" + name)
		if err != nil {
			t.Fatal(err)
		}
		text := regexp.MustCompile(`(?m)\A(#.*\n)+`).ReplaceAllString(string(file), "") // what it is
		if !strings.Contains(string(page), "\n"+text+"```\n") {
			t.Errorf("docs/%s does not show %s as it is:\n%s", doc, name, text)
		}
	}
}

// As PID 1 of a pid namespace, zinit-pid1 ends as its main command does.
func TestContainerExitCodes(t *testing.T) {
	dir := shortTempDir(t)
	bin := programs(t, dir)
	flags := []string{"--mount", "--pid", "--fork", "--mount-proc"}
	if os.Getuid() != 0 {
		flags = append(flags, "--user", "--map-root-user")
	}
	var limit sync.WaitGroup
	slots := make(chan int, 4)
	for i := range cap(slots) {
		slots <- i
	}
	end := func(want int, command ...string) {
		slot := <-slots
		limit.Go(func() {
			defer func() { slots <- slot }()
			argv := append(flags[:len(flags):len(flags)], filepath.Join(bin, "zinit-pid1"), "--container",
				"--socket", filepath.Join(dir, strconv.Itoa(slot)+".sock"), "--config-dir", filepath.Join(dir, "none"), "--")
			cmd := exec.Command("unshare", append(argv, command...)...)
			out, err := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != want {
				t.Errorf("%s: exit code %d, expected %d (%v):\n%s", strings.Join(command, " "), got, want, err, out)
			}
		})
	}
	for code := range 256 {
		end(code, "sh", "-c", fmt.Sprintf("exit %d", code))
	}
	for sig := 1; sig <= 64; sig++ {
		switch syscall.Signal(sig) {
		case syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGURG, syscall.SIGWINCH: // end nothing
		case syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU: // stop
		case 32, 33: // the C library's own
		default:
			end(128+sig, "sh", "-c", fmt.Sprintf("ulimit -c 0; kill -%d $$", sig))
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	end(126, file)
	end(126, dir)
	end(127, filepath.Join(dir, "missing"))
	end(127, "no-such-program")
	limit.Wait()
}
