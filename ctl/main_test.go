package main

import (
	"bytes"
	"flag"
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
	"github.com/threefoldtech/zinit/ipc/ipctest"
)

// The output of whole commands is compared with testdata/*.txt. With -update
// the files are written instead: look at each change before you keep it.
var update = flag.Bool("update", false, "rewrite testdata")

// TestMain lets the test binary stand in for zinit, so that tests see exit
// codes, signals and pipes as a shell does.
func TestMain(m *testing.M) {
	if os.Getenv("ZINIT_TEST_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
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

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs.\ngot:\n%s\nwant:\n%s", file, got, want)
	}
}

var testNow = time.Date(2026, 11, 22, 18, 30, 0, 0, time.UTC)

func ago(d time.Duration) *ipc.Time {
	at := ipc.Time(testNow.Add(-d))
	return &at
}

func ptr(n int) *int { return &n }

// services is a system with one of each kind.
func services() []ipc.Service {
	in := func(file string) ipc.Origin { return ipc.Origin{File: "/etc/zinit/services/" + file} }
	return []ipc.Service{
		{
			Name: "api", Kind: "service", State: ipc.StateBlocked, Class: "user", Status: "start", Desired: "up",
			Note: "waits for cache: failed", Requires: []string{"cache", "db"}, After: []string{"logger"},
			BlockedBy: []ipc.Block{{Kind: "requires", Name: "cache", Detail: "failed, retry in 4 s"}},
			Since:     ago(20 * time.Second), Origin: in("api.toml"),
		},
		{
			Name: "cache", Kind: "service", State: ipc.StateFailed, Class: "user", Status: "start", Desired: "up",
			Restarts: 3, RestartsTotal: 12, Since: ago(4 * time.Second), NextStart: ago(-4 * time.Second),
			Exit:   &ipc.Exit{Code: ptr(1), At: *ago(4 * time.Second)},
			Reason: &ipc.Reason{Kind: "exit_code", Message: "exit code 1", Code: ptr(1)}, Note: "exit code 1, retry in 4 s",
			Dependents: []string{"api"}, Origin: in("cache.toml"),
		},
		{
			Name: "db", Kind: "service", State: ipc.StateRunning, Class: "system", Status: "start", Desired: "up",
			Pid: 812, Since: ago(2*time.Hour + 3*time.Minute), UptimeMS: (2*time.Hour + 3*time.Minute).Milliseconds(),
			Health:     &ipc.Health{Status: "healthy", LatencyMS: 0.84, CheckedAt: ago(3 * time.Second), Message: "HTTP 200"},
			StatusText: "ready for \x1b[31mqueries", Dependents: []string{"api"}, Wants: []string{"metrics"}, Origin: in("db.toml"),
		},
		{
			Name: "logger", Kind: "service", State: ipc.StateStopping, Class: "user", Status: "start", Desired: "down",
			Pid: 901, Since: ago(time.Second), RestartsTotal: 1, Origin: in("logger.toml"),
		},
		{
			Name: "migrate", Kind: "service", State: ipc.StateExited, Class: "user", Status: "start", Desired: "up",
			Oneshot: true, Since: ago(26 * time.Hour), Exit: &ipc.Exit{Code: ptr(0), At: *ago(26 * time.Hour)}, Origin: in("migrate.toml"),
		},
		{
			Name: "multi-user", Kind: "target", State: ipc.StateRunning, Class: "user", Status: "start", Desired: "up",
			Since: ago(72 * time.Second), UptimeMS: 72_000, Requires: []string{"db"}, Origin: in("multi-user.toml"),
		},
		{
			Name: "scratch", Kind: "service", State: ipc.StateInactive, Class: "user", Status: "ignore", Desired: "down",
			Origin: ipc.Origin{Ephemeral: true},
		},
		{
			Name: "web", Kind: "service", State: ipc.StateStarting, Class: "user", Status: "start", Desired: "up",
			Pid: 20977, Since: ago(2 * time.Second), UptimeMS: 2000, Health: &ipc.Health{Status: "unknown"}, Note: "waits for its health check",
			Origin: in("web.toml"),
		},
	}
}

func info() ipc.Info {
	return ipc.Info{
		Version: "0.1.0", Pid: 43, KeeperPid: 1, Mode: "vm", UptimeMS: (50 * time.Hour).Milliseconds(),
		Socket: "/run/zinit.sock", RuntimeDir: "/run/zinit", ConfigDir: "/etc/zinit/services",
		Services: map[string]int{"running": 2, "failed": 1, "blocked": 1, "starting": 1, "stopping": 1, "exited": 1, "inactive": 1},
		ConfigErrors: []ipc.Problem{{
			File: "/etc/zinit/services/mail.toml", Line: 3, Column: 1, Message: `unknown key "exce"; did you mean "exec"?`,
		}},
		ServerRestarts: 2, LastEnd: "signal SIGKILL", DownMS: 6,
	}
}

func logLines() []ipc.LogLine {
	line := func(d time.Duration, service, stream, text string) ipc.LogLine {
		return ipc.LogLine{Time: ago(d), Service: service, Stream: stream, Text: text}
	}
	piece := line(3*time.Second, "db", "stdout", "half ")
	piece.Partial = true
	return []ipc.LogLine{
		line(9*time.Second, "cache", "stdout", "starting"),
		line(8*time.Second, "db", "stderr", "\x1b[31mred\x1b[0m and a \xff byte"),
		piece,
		line(2*time.Second, "db", "stdout", "a line"),
		line(time.Second, "cache", "stderr", "tab\tand ü"),
	}
}

// answer is a zinit-server with those services.
func answer(r *ipctest.Request) {
	var p struct {
		Names []string  `msgpack:"names"`
		Name  string    `msgpack:"name"`
		State ipc.State `msgpack:"state"`
	}
	r.Params(&p)
	byName := map[string]ipc.Service{}
	for _, s := range services() {
		byName[s.Name] = s
	}
	for _, name := range append(p.Names, p.Name) {
		if _, ok := byName[name]; name != "" && !ok {
			r.Fail(&ipc.Error{Kind: ipc.ErrNotFound, Message: fmt.Sprintf("there is no service %s", name), Service: name, Nearest: "db"})
			return
		}
	}
	switch r.Method {
	case "service.list":
		list := services()
		if p.State != "" {
			list = slices.DeleteFunc(list, func(s ipc.Service) bool { return s.State != p.State })
		}
		ipctest.Items(r, list)
	case "service.status", "service.wait":
		var list []ipc.Service
		for _, name := range p.Names {
			list = append(list, byName[name])
		}
		ipctest.Items(r, list)
	case "service.start":
		ipctest.Items(r, []ipc.Moved{
			{Name: "db", From: ipc.StateInactive, To: ipc.StateStarting},
			{Name: "db", From: ipc.StateStarting, To: ipc.StateRunning, Pid: 123},
			{Name: "web", From: ipc.StateRunning, To: ipc.StateRunning, Note: "already running"},
		})
	case "service.stop":
		ipctest.Items(r, []ipc.Moved{
			{Name: "api", From: ipc.StateRunning, To: ipc.StateExited, Note: "it requires db"},
			{Name: "db", From: ipc.StateRunning, To: ipc.StateExited},
		})
	case "service.restart":
		failed := ipc.Moved{Name: "db", From: ipc.StateStarting, To: ipc.StateFailed, Reason: &ipc.Reason{Kind: "exit_code", Message: "exit code 3"}}
		r.Item(failed)
		r.Fail(&ipc.Error{Kind: ipc.ErrFailed, Message: "db failed: exit code 3", Service: "db", Moved: []ipc.Moved{failed}})
	case "service.kill":
		r.Respond(map[string]any{})
	case "service.why":
		r.Respond(ipc.Why{
			Name: "api", State: ipc.StateBlocked, Detail: "waits for cache and db",
			BlockedBy: []ipc.Block{
				{Kind: "requires", Name: "cache", Detail: "blocked", Because: &ipc.Why{
					Name: "cache", State: ipc.StateBlocked, BlockedBy: []ipc.Block{{
						Kind: "requires", Name: "disk", Because: &ipc.Why{
							Name: "disk", State: ipc.StateFailed, Reason: &ipc.Reason{Message: "exit code 32"},
						}}, {
						Kind: "port", Name: "6379", Detail: "held by redis-server (pid 77)",
					}},
				}},
				{Kind: "after", Name: "db", State: ipc.StateStarting, Detail: "is starting"},
			},
		})
	case "service.tree":
		cache := ipc.Tree{Name: "cache", State: ipc.StateFailed}
		db := ipc.Tree{Name: "db", State: ipc.StateRunning}
		ipctest.Items(r, []ipc.Tree{
			{Name: "api", State: ipc.StateBlocked, Requires: []ipc.Tree{cache, db}},
			{Name: "multi-user", State: ipc.StateRunning, Requires: []ipc.Tree{{
				Name: "web", State: ipc.StateStarting, Requires: []ipc.Tree{db}}, {Name: "migrate", State: ipc.StateExited},
			}},
		})
	case "logs.get", "logs.follow":
		var list []ipc.LogLine
		for _, l := range logLines() {
			if len(p.Names) == 0 || slices.Contains(p.Names, l.Service) {
				list = append(list, l)
			}
		}
		if r.Method == "logs.follow" {
			list = append(list, ipc.LogLine{Service: "db", Missed: 12})
		}
		ipctest.Items(r, list)
	case "system.info":
		r.Respond(info())
	}
}

// TestOutputOfCommands shows what people see, on terminals of several widths
// and without one. A terminal is coloured; esc makes colours readable.
func TestOutputOfCommands(t *testing.T) {
	s := ipctest.Serve(t, answer)
	esc := strings.NewReplacer("\x1b[0m", "}", "\x1b[", "{")
	noColor := withEnv("NO_COLOR", "1")
	utf8 := withEnv("LANG", "de_DE.UTF-8")
	for _, test := range []struct {
		name    string
		command string
		options []option
	}{
		{"list-pipe", "list", nil},
		{"list-40", "list", []option{onTerminal(40), noColor}},
		{"list-60", "list", []option{onTerminal(60), noColor}},
		{"list-80", "list", []option{onTerminal(80), noColor}},
		{"list-120", "list", []option{onTerminal(120), noColor}},
		{"list-color", "list", []option{onTerminal(80)}},
		{"list-failed", "list --state failed", nil},
		{"list-quiet", "list -q", nil},
		{"list-json", "list --json", nil},
		{"status", "status", nil},
		{"status-80", "status", []option{onTerminal(80), noColor}},
		{"status-json", "status --json", nil},
		{"status-all", "status api cache db logger migrate multi-user scratch web", nil},
		{"status-color", "status api", []option{onTerminal(80)}},
		{"status-name-json", "status cache --json", nil},
		{"start", "start db web", nil},
		{"start-no-wait", "start db web --no-wait", nil},
		{"start-json", "start db web --json", nil},
		{"stop", "stop db", []option{onTerminal(80)}},
		{"restart", "restart db", nil},
		{"restart-json", "restart db --json", nil},
		{"kill", "kill db HUP", nil},
		{"why", "why api", nil},
		{"why-utf8", "why api", []option{onTerminal(80), utf8, noColor}},
		{"why-json", "why api --json", nil},
		{"tree", "tree", nil},
		{"tree-utf8", "tree", []option{onTerminal(80), utf8, noColor}},
		{"tree-color", "tree", []option{onTerminal(80)}},
		{"tree-json", "tree --json", nil},
		{"logs-one", "logs db", nil},
		{"logs-all", "logs", nil},
		{"logs-timestamps", "logs cache db --timestamps", nil},
		{"logs-terminal", "logs -f", []option{onTerminal(80)}},
		{"logs-json", "logs -f --json", nil},
		{"wait", "wait db", nil},
		{"wait-json", "wait migrate --for exited --json", nil},
		{"not-found", "status dbb", nil},
		{"not-found-json", "status dbb --json", nil},
		{"help", "help", nil},
		{"help-logs", "logs -h", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := append([]string{"--socket", s.Socket}, strings.Fields(test.command)...)
			r := zinit(t, args, test.options...)
			got := fmt.Sprintf("$ zinit %s\n%s", test.command, esc.Replace(r.stdout))
			if r.stderr != "" {
				got += "-- stderr --\n" + r.stderr
			}
			if r.code != 0 {
				got += fmt.Sprintf("-- exit code %d --\n", r.code)
			}
			golden(t, test.name, got)
		})
	}
}

func TestListFitsEveryWidth(t *testing.T) {
	s := ipctest.Serve(t, func(r *ipctest.Request) {
		if r.Method == "system.info" {
			r.Respond(ipc.Info{})
			return
		}
		answer(r)
	})
	for width := 8; width < 150; width++ {
		r := zinit(t, []string{"--socket", s.Socket, "list"}, onTerminal(width), withEnv("NO_COLOR", "1"))
		lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
		if len(lines) != 1+len(services()) {
			t.Fatalf("%d columns: %d lines", width, len(lines))
		}
		for _, line := range lines {
			if len([]rune(line)) > width {
				t.Errorf("%d columns: %q has %d", width, line, len(line))
			}
		}
	}
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
		{"kill error-unavailable", exitFailed, "refused"},
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
		{"logs --since 2026-11-22T19:24:00+01:00", "logs.get map[lines:-1 since:2026-11-22T18:24:00.000000000Z]"},
	} {
		s.Asked()
		r := zinit(t, append([]string{"--socket", s.Socket}, strings.Fields(test.args)...))
		asked := s.Asked()
		if len(asked) == 0 {
			t.Errorf("%s: nothing was asked, %s", test.args, r.stderr)
			continue
		}
		// The time that is left is a little less than what was given.
		got := strings.NewReplacer("timeout_ms:59999", "timeout_ms:60000", "timeout_ms:1999", "timeout_ms:2000", "timeout_ms:89999", "timeout_ms:90000").Replace(asked[0])
		if got != test.asked {
			t.Errorf("%s: asked for %s, want %s", test.args, asked[0], test.asked)
		}
	}
}

func TestColorOnlyWhereItIsWanted(t *testing.T) {
	s := ipctest.Serve(t, answer)
	tree := []string{"--socket", s.Socket, "tree"}
	for _, test := range []struct {
		name    string
		args    []string
		options []option
		want    bool
	}{
		{"pipe", tree, nil, false},
		{"terminal", tree, []option{onTerminal(80)}, true},
		{"NO_COLOR", tree, []option{onTerminal(80), withEnv("NO_COLOR", "1")}, false},
		{"empty NO_COLOR", tree, []option{onTerminal(80), withEnv("NO_COLOR", "")}, true},
		{"dumb terminal", tree, []option{onTerminal(80), withEnv("TERM", "dumb")}, false},
		{"--no-color", append(tree, "--no-color"), []option{onTerminal(80)}, false},
		{"--no-color before", append([]string{"--no-color"}, tree...), []option{onTerminal(80)}, false},
		{"--json", append(tree, "--json"), []option{onTerminal(80)}, false},
	} {
		if got := strings.Contains(zinit(t, test.args, test.options...).stdout, "\x1b["); got != test.want {
			t.Errorf("%s: coloured %v, want %v", test.name, got, test.want)
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
	s := ipctest.Serve(t, func(r *ipctest.Request) {
		for {
			select {
			case <-r.Canceled:
				return
			default:
				r.Item(ipc.LogLine{Service: "db", Text: strings.Repeat("x", 1000)})
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

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("good/web.toml", "[service]\nexec = \"/bin/web\"\n[dependencies]\nrequires = [\"db\"]\n")
	write("good/db.toml", "[service]\nexec = \"/bin/db\"\n")
	write("good/all.toml", "[target]\n[dependencies]\nrequires = [\"web\"]\n")
	bad := write("bad/web.toml", "[service]\nexce = \"/bin/web\"\n")
	cycle := write("cycle/a.toml", "[service]\nexec = \"a\"\n[dependencies]\nrequires = [\"b\"]\n")
	write("cycle/b.toml", "[service]\nexec = \"b\"\n[dependencies]\nrequires = [\"a\"]\n")
	missing := write("missing/a.toml", "[service]\nexec = \"a\"\n[dependencies]\nrequires = [\"nobody\"]\n")
	for _, test := range []struct {
		paths  []string
		code   int
		stdout []string // parts of it
	}{
		{[]string{"good"}, exitDone, []string{"2 services, 1 target: no errors"}},
		{[]string{"good/web.toml"}, exitDone, []string{"1 service: no errors"}},
		{[]string{"bad"}, exitFailed, []string{bad + ":", "exce", "error"}},
		{[]string{"good", "bad/web.toml"}, exitFailed, []string{bad + ":", "2 services, 1 target: "}},
		{[]string{"cycle"}, exitFailed, []string{cycle, "a -> b -> a", "2 services: 1 error"}},
		{[]string{"good", "cycle"}, exitFailed, []string{"4 services, 1 target: 1 error"}},
		{[]string{"good/web.toml", "good/web.toml"}, exitFailed, []string{"already a service named web"}},
		{[]string{"missing"}, exitDone, []string{missing + ": warning: ", "nobody", "1 service: no errors, 1 warning"}},
		{[]string{"missing/a.toml"}, exitDone, []string{"1 service: no errors"}},
		{[]string{"nowhere"}, exitFailed, nil},
	} {
		args := []string{"check"}
		for _, p := range test.paths {
			args = append(args, filepath.Join(dir, p))
		}
		r := zinit(t, args)
		if r.code != test.code {
			t.Errorf("%v: exit code %d, want %d: %s", test.paths, r.code, test.code, r.stderr)
		}
		for _, part := range test.stdout {
			if !strings.Contains(r.stdout, part) {
				t.Errorf("%v: %q is not in\n%s", test.paths, part, r.stdout)
			}
		}
	}
	r := zinit(t, []string{"check", "--json", filepath.Join(dir, "missing")})
	if !strings.HasPrefix(r.stdout, `{"errors":[],"warnings":[{"file":"`+missing) {
		t.Errorf("JSON: %s", r.stdout)
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

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90": 90 * time.Second, "2s": 2 * time.Second, "1m30s": 90 * time.Second, "0.5": 500 * time.Millisecond,
		"": 0, "0": 0, "-1": 0, "5x": 0,
	} {
		if got, err := parseDuration(text); got != want || (err != nil) != (want == 0) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m 1s", 2*time.Hour + 3*time.Minute: "2h 3m", 75 * time.Hour: "3d 3h",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"plain ü €\t.":      "plain ü €\t.",
		"\x1b[31m\r\n\x00":  `\x1b[31m\x0d\x0a\x00`,
		"\xff|\u009b|\x7f":  `\xff|\x9b|\x7f`,
		"a\u202eb\u2066c":   `a\u202eb\u2066c`,
		"\uFFFD is allowed": "\uFFFD is allowed",
	} {
		if got := clean(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
