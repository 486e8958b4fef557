package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// live is a real zinit for tests that a story cannot tell: it has a client, and
// ends with the test as that of a story does.
type live struct {
	*stage
	t        *testing.T
	work     string // working directory of zinit, with zinit.log
	services string // its service directory
	socket   string
	env      []string
	client   *client.Client
	ctx      context.Context
}

// builtPrograms are in dir, in a directory that TestMain removes.
var builtPrograms struct {
	sync.Once
	root, dir string
}

// livePrograms builds the programs once for all tests that ask for them.
func livePrograms(t *testing.T) string {
	builtPrograms.Do(func() {
		var err error
		if builtPrograms.root, err = os.MkdirTemp("", "z"); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(builtPrograms.root, 0o755); err != nil {
			t.Fatal(err)
		}
		builtPrograms.dir = programs(t, builtPrograms.root)
	})
	if builtPrograms.dir == "" {
		t.Fatal("the programs could not be built")
	}
	return builtPrograms.dir
}

// newLive makes the place; up starts zinit there.
func newLive(t *testing.T) *live {
	t.Helper()
	bin, work := livePrograms(t), shortTempDir(t)
	l := &live{
		t: t, work: work, services: filepath.Join(work, "services"), socket: filepath.Join(work, "z.sock"),
		stage: &stage{mark: "ZINIT_STORY=" + work, work: work},
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	l.ctx = ctx
	l.env = append(os.Environ(), l.mark, "PATH="+bin+":"+os.Getenv("PATH"), "WORK="+work,
		"ZINIT_SOCKET="+l.socket, "ZINIT_CONFIG_DIR="+l.services, "GORACE=atexit_sleep_ms=0")
	if err := os.Mkdir(l.services, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.close(t, work)
		if log, _ := os.ReadFile(filepath.Join(work, "zinit.log")); strings.Contains(string(log), "DATA RACE") || strings.Contains(string(log), "panic:") {
			t.Errorf("zinit.log:\n%s", log)
		}
	})
	return l
}

// up starts zinit-server with flags and connects to it.
func (l *live) up(flags ...string) {
	l.t.Helper()
	log, err := os.OpenFile(filepath.Join(l.work, "zinit.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		l.t.Fatal(err)
	}
	defer log.Close()
	cmd := l.command("zinit-server", flags...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	k := &keeper{cmd: cmd, ended: make(chan struct{})}
	l.keepers = append(l.keepers, k)
	go func() {
		cmd.Wait()
		close(k.ended)
	}()
	if err := eventually(patience, func() (err error) {
		l.client, err = client.Dial(l.ctx, l.socket)
		return err
	}); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { l.client.Close() })
}

// pid1 is the process of the zinit that was started last.
func (l *live) pid1() int { return l.keepers[len(l.keepers)-1].cmd.Process.Pid }

// command is one of zinit's programs, not started.
func (l *live) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(livePrograms(l.t), program), args...)
	cmd.Dir, cmd.Env = l.work, l.env
	return cmd
}

// write makes files in the service directory, by name without .toml.
func (l *live) write(files map[string]string) {
	l.t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(l.services, name+".toml"), []byte(text), 0o644); err != nil {
			l.t.Fatal(err)
		}
	}
}

// list returns all services by name.
func (l *live) list() map[string]ipc.Service {
	l.t.Helper()
	list, err := l.client.List(l.ctx, client.Filter{})
	if err != nil {
		l.t.Fatal(err)
	}
	byName := map[string]ipc.Service{}
	for _, s := range list {
		byName[s.Name] = s
	}
	return byName
}

// settled waits until a condition on all services holds.
func (l *live) settled(what string, ok func(map[string]ipc.Service) error) {
	l.t.Helper()
	if err := eventually(patience, func() error { return ok(l.list()) }); err != nil {
		l.t.Fatalf("%s: %v", what, err)
	}
}

// kill ends the processes of a program by SIGKILL.
func (l *live) kill(program string) {
	for _, p := range l.own() {
		if p.name == program {
			syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
}

// residentKiB is the memory of a process (VmRSS of proc_pid_status(5)).
func residentKiB(pid int) (kib int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		fmt.Sscanf(line, "VmRSS: %d kB", &kib)
	}
	return kib
}

// log is what zinit has logged.
func (l *live) log() string {
	l.t.Helper()
	b, err := os.ReadFile(filepath.Join(l.work, "zinit.log"))
	if err != nil {
		l.t.Fatal(err)
	}
	return string(b)
}

// problems is a list of them as a user sees it, one a line.
func problems(list []ipc.Problem) string {
	var b strings.Builder
	for _, p := range list {
		fmt.Fprintln(&b, problem(p))
	}
	return b.String()
}

// pidsOf are the services that have a process, by name.
func pidsOf(services map[string]ipc.Service) map[string]int {
	pids := map[string]int{}
	for name, s := range services {
		if s.Pid != 0 {
			pids[name] = s.Pid
		}
	}
	return pids
}

// TestNoProcessHidesFromTheCleanUp has a service without the mark of its story,
// as servers are that write over their environment.
func TestNoProcessHidesFromTheCleanUp(t *testing.T) {
	l := newLive(t)
	l.write(map[string]string{
		"open":   "[service]\nexec = 'sleep 100000'\n",
		"hidden": "[service]\nexec = 'env --ignore-environment sleep 100000'\n",
	})
	l.up()
	l.settled("both sleep", func(all map[string]ipc.Service) error {
		for _, name := range []string{"open", "hidden"} {
			if p, _ := processOf(all[name].Pid); p.name != "sleep" {
				return fmt.Errorf("%s is %s", name, p)
			}
		}
		return nil
	})
	for name, pid := range pidsOf(l.list()) {
		if !slices.ContainsFunc(l.own(), func(p procEntry) bool { return p.pid == pid }) {
			t.Errorf("the process of %s is not found", name)
		}
	}
}

// port is a free one.
func (l *live) port() int {
	l.t.Helper()
	port, err := freePort()
	if err != nil {
		l.t.Fatal(err)
	}
	return port
}
