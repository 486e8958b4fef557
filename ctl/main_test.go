package main

import (
	"bytes"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
	"github.com/threefoldtech/zinit/ipc/ipctest"
)

// TestMain lets the test binary stand in for zinit, so that tests see exit
// codes, signals and pipes as a shell does.
func TestMain(m *testing.M) {
	if os.Getenv("ZINIT_TEST_MAIN") != "" {
		main()
	}
	hearSignals()
	code := m.Run()
	os.RemoveAll(builtPrograms.root)
	os.Exit(code)
}

// hearSignals undoes what a shell does to what it starts in the background: it
// has SIGINT ignored, which the programs of the tests would inherit and so never
// be interrupted. What is caught is the default again after execve(2).
func hearSignals() {
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

// result is what a command did.
type result struct {
	code           int
	stdout, stderr string
}

// option changes the world of a command.
type option func(*world, map[string]string)

func onTerminal(width int) option {
	return func(w *world, _ map[string]string) { w.terminal, w.width = true, width }
}

func withEnv(key, value string) option {
	return func(_ *world, env map[string]string) { env[key] = value }
}

// zinit runs a command in this process.
func zinit(t *testing.T, args []string, options ...option) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	env := map[string]string{}
	w := world{
		stdout: &stdout, stderr: &stderr,
		getenv: func(key string) string { return env[key] },
		now:    func() time.Time { return testNow },
		zone:   time.UTC,
	}
	for _, o := range options {
		o(&w, env)
	}
	code := run(args, w)
	r := result{code, stdout.String(), stderr.String()}
	for _, line := range strings.Split(r.stdout, "\n") {
		if !w.terminal && strings.TrimRight(line, " ") != line {
			t.Errorf("spaces at the end of line %q", line)
		}
	}
	return r
}

// TestExitCodes is the table of the specification.
func TestExitCodes(t *testing.T) {
	s := ipctest.Serve(t, func(r *ipctest.Request) {
		var p ipc.NameParams
		r.Params(&p)
		kind, isError := strings.CutPrefix(p.Name, "error-")
		switch {
		case isError:
			r.Fail(&ipc.Error{Kind: ipc.ErrorKind(kind), Message: "refused"})
		case p.Name == "slow":
			<-r.Canceled
		case p.Name == "files":
			r.Fail(&ipc.Error{Kind: ipc.ErrInvalid, Message: "refused", Problems: []ipc.Problem{{}}})
		case p.Name == "lost":
			r.Cut()
		default:
			answer(r)
		}
	})
	denied := ipctest.Serve(t, answer)
	denied.Deny(ipc.Errorf(ipc.ErrDenied, "uid 7 may not control this zinit"))
	gone := ipctest.Serve(t, nil)
	gone.End()
	for _, test := range []struct {
		args   string
		code   int
		stderr string // part of it
	}{
		{"list --json", exitDone, ""},
		{"list", exitDone, "Not loaded: /etc/zinit/services/mail.toml:3:1: unknown key"},
		{"--version", exitDone, ""},
		{"list --version", exitDone, ""},
		{"-h", exitDone, ""},
		{"help", exitDone, ""},
		{"help list", exitDone, ""},
		{"xinet -h", exitDone, ""},
		{"list --help", exitDone, ""},
		{"ctl list -q", exitDone, ""},
		{"ctl help", exitDone, ""},
		{"ctl --json list", exitDone, ""},
		{"--json ctl", exitUsage, "Usage: zinit"},
		{"is-running db", exitDone, ""},
		{"kill db", exitDone, ""},
		{"kill db SIGHUP", exitDone, ""},
		{"wait db --timeout 1m30s", exitDone, ""},

		{"is-running cache", exitFailed, ""},
		{"restart db", exitFailed, "db failed: exit code 3"},
		{"kill lost", exitFailed, "lost before it answered"},
		{"kill error-blocked", exitFailed, "refused"},
		{"kill error-conflict", exitFailed, "refused"},
		{"kill error-failed", exitFailed, "refused"},
		{"kill error-internal", exitFailed, "refused"},
		{"kill error-unavailable", exitUnreachable, "refused"},
		{"kill error-shutting_down", exitFailed, "refused"},
		{"kill files", exitFailed, "refused"},

		{"", exitUsage, "Usage: zinit"},
		{"lsit", exitUsage, `unknown command "lsit"; did you mean "list"?`},
		{"frobnicate", exitUsage, "see zinit help"},
		{"help lsit", exitUsage, `did you mean "list"?`},
		{"list --sate failed", exitUsage, "did you mean --state?"},
		{"list -x", exitUsage, "unknown shorthand flag"},
		{"--jsno list", exitUsage, "did you mean --json?"},
		{"list --state runing", exitUsage, "did you mean running?"},
		{"list --class big", exitUsage, "none of user, system"},
		{"list db", exitUsage, `unexpected argument "db"`},
		{"start", exitUsage, "it needs an argument: zinit start NAME..."},
		{"why", exitUsage, "it needs one argument: zinit why NAME"},
		{"wait db --for running --timeout soon", exitUsage, "such as 90, 2s or 1m30s"},
		{"wait db --timeout 0", exitUsage, "above 0"},
		{"wait db --timeout -5", exitUsage, "above 0"},
		{"wait db --for up", exitUsage, "none of running"},
		{"kill db SIGHUPP", exitUsage, "SIGHUPP"},
		{"kill error-invalid", exitUsage, "refused"},
		{"logs --stdout --stderr", exitUsage, "not both"},
		{"logs -f --previous", exitUsage, "cannot be followed"},
		{"logs -n few", exitUsage, `a number or "all"`},
		{"add-service --name x --exec true --max-restarts -1", exitUsage, "--max-restarts: must be between 0 and"},
		{"add-service --name x --exec true --restart-delay -1", exitUsage, "--restart-delay: must be between 0 and"},
		{"add-service --name x --exec true --restart-delay 9223372036854775807", exitUsage, "--restart-delay: must be between 0 and"},
		{"add-service --name x --exec true --restart bogus", exitUsage, "--restart: must be "},
		{"add-service --name x --exec true -e =x", exitUsage, "--env =x: want KEY=VALUE"},
		{"add-service --name x --exec true --after .y", exitUsage, "--after: \".y\" is not a valid name"},
		{"add-service --name .x --exec true", exitUsage, "--name: \".x\" is not a valid name"},
		{"add-service web.toml --after db", exitUsage, "--after belongs to those"},
		{"logs --since yesterday", exitUsage, "neither a duration"},

		{"--socket " + gone.Socket + " list", exitUnreachable, "cannot reach zinit-server at " + gone.Socket},
		{"list --socket " + gone.Socket, exitUnreachable, "Start one with: zinit-server --config-dir DIR"},
		{"start db --socket " + gone.Socket, exitUnreachable, gone.Socket},
		{"logs -f --socket " + gone.Socket, exitUnreachable, gone.Socket},

		{"status dbb", exitNotFound, "there is no service dbb; did you mean db?"},
		{"is-running dbb", exitNotFound, "did you mean db?"},
		{"start dbb", exitNotFound, "did you mean db?"},

		{"list --socket " + denied.Socket, exitDenied, "uid 7 may not"},
		{"kill error-denied", exitDenied, "refused"},

		{"kill error-timeout", exitTimeout, "refused"},
		{"kill slow --timeout 0.02", exitTimeout, "timed out after 20ms"},
	} {
		t.Run(test.args, func(t *testing.T) {
			args := append([]string{"--socket", s.Socket}, strings.Fields(test.args)...)
			r := zinit(t, args)
			if r.code != test.code {
				t.Errorf("exit code %d, want %d", r.code, test.code)
			}
			if (r.stderr == "") != (test.stderr == "") || !strings.Contains(r.stderr, test.stderr) {
				t.Errorf("stderr %q, want %q", r.stderr, test.stderr)
			}
		})
	}
}

func TestSocketThatMayNotBeUsedIsDenied(t *testing.T) {
	// Root may use every socket, so the error is given to report itself.
	var stderr bytes.Buffer
	a := &app{world: world{stderr: &stderr}}
	code := a.report(&client.Unreachable{Socket: "/run/zinit.sock", Err: syscall.EACCES})
	if code != exitDenied || !strings.Contains(stderr.String(), "permission denied") {
		t.Errorf("exit code %d, %s", code, stderr.String())
	}
}

func TestWithoutSocketItSaysWhereItLooked(t *testing.T) {
	var stderr bytes.Buffer
	a := &app{world: world{stderr: &stderr}}
	code := a.report(&noSocketError{[]string{"/run/zinit.sock", "/tmp/zinit-7/zinit.sock"}})
	want := "zinit: cannot reach zinit-server: there is no socket at /run/zinit.sock or /tmp/zinit-7/zinit.sock\nStart one with: zinit-server --config-dir DIR\n"
	if code != exitUnreachable || stderr.String() != want {
		t.Errorf("exit code %d, %s", code, stderr.String())
	}
}

func TestErrorsAsJSON(t *testing.T) {
	s := ipctest.Serve(t, answer)
	for _, test := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"status", "dbb", "--json"}, `{"error":{"kind":"not_found","message":"there is no service dbb; did you mean db?"}}`, exitNotFound},
		{[]string{"--json", "lsit"}, `{"error":{"kind":"invalid","message":"unknown command \"lsit\"; did you mean \"list\"?"}}`, exitUsage},
		{[]string{"--json", "restart", "db"}, `{"error":{"kind":"failed","message":"db failed: exit code 3"}}`, exitFailed},
	} {
		r := zinit(t, append([]string{"--socket", s.Socket}, test.args...))
		if r.stderr != test.want+"\n" || r.code != test.code {
			t.Errorf("%v: exit code %d, %s", test.args, r.code, r.stderr)
		}
	}
}

func TestParametersOfCommands(t *testing.T) {
	s := ipctest.Serve(t, answer)
	for _, test := range []struct{ args, asked string }{
		{"list --state failed --class user", "service.list map[class:user state:failed]"},
		{"list -q", "service.list map[]"},
		{"start db web --no-wait --timeout 90", "service.start map[names:[db web] no_wait:true timeout_ms:90000]"},
		{"stop db", "service.stop map[names:[db] timeout_ms:60000]"},
		{"kill db 9", "service.kill map[name:db signal:9]"},
		{"why api", "service.why map[name:api]"},
		{"tree", "service.tree map[name:]"},
		{"tree --reverse db", "service.tree map[name:db reverse:true]"},
		{"wait db", "service.wait map[for:running names:[db] timeout_ms:60000]"},
		{"wait db --for healthy --timeout 2s", "service.wait map[for:healthy names:[db] timeout_ms:2000]"},
		{"logs", "logs.get map[lines:100]"},
		{"logs db -n all --stderr", "logs.get map[lines:-1 names:[db] stream:stderr]"},
		{"logs -fn 0 --stdout", "logs.follow map[lines:0 stream:stdout]"},
		{"logs --grep a|b --previous", "logs.get map[grep:a|b lines:100 previous:true]"},
		{"logs --since 10m", "logs.get map[lines:-1 since:2026-11-22T18:20:00.000000000Z]"},
		{"logs --since 90 -n 5", "logs.get map[lines:5 since:2026-11-22T18:28:30.000000000Z]"},
		{"logs --since 2026-11-22~18:24:00", "logs.get map[lines:-1 since:2026-11-22T18:24:00.000000000Z]"},
		{"logs --since 2026-11-22T19:24:00+01:00", "logs.get map[lines:-1 since:2026-11-22T18:24:00.000000000Z]"},
	} {
		s.Asked()
		args := strings.Fields(test.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "~", " ")
		}
		r := zinit(t, append([]string{"--socket", s.Socket}, args...))
		asked := s.Asked()
		for i, a := range asked {
			// The time that is left is a little less than what was given.
			asked[i] = strings.NewReplacer("timeout_ms:59999", "timeout_ms:60000", "timeout_ms:1999", "timeout_ms:2000", "timeout_ms:89999", "timeout_ms:90000").Replace(a)
		}
		if !slices.Contains(asked, test.asked) {
			t.Errorf("%s: asked for %s, want %s; %s", test.args, asked, test.asked, r.stderr)
		}
	}
}

// process is zinit as a process of its own.
func process(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "ZINIT_TEST_MAIN=1", "GOCOVERDIR=")
	return cmd
}

func TestInterruptStopsWaitingNotTheWork(t *testing.T) {
	asked, canceled := make(chan bool, 1), make(chan bool, 1)
	s := ipctest.Serve(t, func(r *ipctest.Request) {
		r.Item(ipc.Moved{Name: "db", To: ipc.StateRunning})
		asked <- true
		<-r.Canceled
		canceled <- true
	})
	cmd := process("--socket", s.Socket, "start", "web")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-asked
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	<-canceled
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d, want %d", code, exitInterrupted)
	}
	if want := "zinit: not waiting any more; the server goes on with it, see zinit status web"; !strings.Contains(stderr.String(), want) {
		t.Errorf("stderr %q, want %q", stderr.String(), want)
	}
}

func TestClosedPipeEndsItQuietly(t *testing.T) {
	for name, more := range map[string]bool{"with the next line": true, "though nothing more comes": false} {
		t.Run(name, func(t *testing.T) {
			s := ipctest.Serve(t, func(r *ipctest.Request) {
				for {
					r.Item(ipc.LogLine{Service: "db", Text: strings.Repeat("x", 1000)})
					if !more {
						<-r.Canceled
					}
					select {
					case <-r.Canceled:
						return
					default:
					}
				}
			})
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd := process("--socket", s.Socket, "logs", "-f", "db")
			var stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = write, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			write.Close()
			read.Read(make([]byte, 100))
			read.Close()
			cmd.Wait()
			status := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !status.Signaled() || status.Signal() != syscall.SIGPIPE || stderr.Len() > 0 {
				t.Errorf("it ended with %v and said %q, want SIGPIPE and nothing", cmd.ProcessState, stderr.String())
			}
		})
	}
}

func TestFullDiskIsAnError(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	var stderr bytes.Buffer
	code := run([]string{"help"}, world{stdout: full, stderr: &stderr, getenv: func(string) string { return "" }})
	if code != exitFailed || !strings.Contains(stderr.String(), "cannot write the output") {
		t.Errorf("exit code %d, %s", code, stderr.String())
	}
}

func TestShutdownWaitsForTheEnd(t *testing.T) {
	var s *ipctest.Server
	var ready sync.WaitGroup
	ready.Add(1)
	s = ipctest.Serve(t, func(r *ipctest.Request) {
		ready.Wait()
		if r.Method == "system.shutdown" {
			s.End()
			return
		}
		answer(r)
	})
	ready.Done()
	r := zinit(t, []string{"--socket", s.Socket, "shutdown"})
	if r.code != exitDone || r.stdout != "All services are stopped and zinit has ended.\n" {
		t.Errorf("%+v", r)
	}
}

// TestEveryCommandIsExplained keeps the table in shape.
func TestEveryCommandIsExplained(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range commands() {
		if seen[c.name] {
			t.Errorf("%s is there twice", c.name)
		}
		seen[c.name] = true
		if c.summary == "" || strings.HasSuffix(c.summary, ".") || len(c.summary) > 60 {
			t.Errorf("%s: summary %q is to be a line without a full stop", c.name, c.summary)
		}
		if !strings.Contains(c.help, "Examples:\n  zinit "+c.name) {
			t.Errorf("%s: help has no example", c.name)
		}
		flags := newFlagSet()
		c.setup(flags)
		if flags.HasFlags() && !strings.Contains(c.args, "-") {
			t.Errorf("%s: its flags are not in %q", c.name, c.args)
		}
		for _, line := range strings.Split(c.help, "\n") {
			if len(line) > 80 {
				t.Errorf("%s: line of help is wider than 80 columns: %s", c.name, line)
			}
		}
	}
}
