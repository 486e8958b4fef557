package script

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
	"github.com/threefoldtech/zinit/ipc/ipctest"
)

// answer is a server with the service web, which does whatever it is asked for.
func answer(r *ipctest.Request) {
	web := ipc.Service{Name: "web", State: ipc.StateRunning, Class: "user", Pid: 12}
	moved := []ipc.Moved{{Name: "web", From: ipc.StateInactive, To: ipc.StateRunning, Pid: 12}}
	var p struct {
		Names []string `msgpack:"names"`
	}
	r.Params(&p)
	for _, name := range p.Names {
		if name != "web" {
			r.Fail(&ipc.Error{Kind: ipc.ErrNotFound, Message: "there is no service " + name, Nearest: "web"})
			return
		}
	}
	switch r.Method {
	case "service.list", "service.status", "service.wait":
		ipctest.Items(r, []ipc.Service{web})
	case "service.start", "service.stop", "service.restart", "service.add", "service.set", "service.remove",
		"service.start_all", "service.stop_all", "service.delete_all":
		ipctest.Items(r, moved)
	case "service.get":
		r.Respond(ipc.Config{Config: map[string]any{"service": map[string]any{"name": "web", "exec": "sleep 1"}}})
	case "logs.get", "logs.follow":
		at := ipc.Time(time.Unix(0, 0))
		ipctest.Items(r, []ipc.LogLine{{Time: &at, Service: "web", Text: "one"}, {Time: &at, Service: "web", Text: "two"}})
	case "events.subscribe":
		ipctest.Items(r, []ipc.Event{{Seq: 1, Service: "web", To: ipc.StateStarting}, {Seq: 2, Service: "web", From: ipc.StateStarting, To: ipc.StateRunning}})
	case "service.tree", "service.stats", "service.incidents", "xinet.list", "xinet.status":
		ipctest.Items(r, []map[string]any{{"name": "web"}})
	default:
		r.Respond(map[string]any{"name": "web"})
	}
}

// result is what a run printed and how it ended.
type result struct {
	out string
	err error
}

// run runs a script against a server.
func run(ctx context.Context, socket, name string, args ...string) result {
	var out strings.Builder
	buffer := bufio.NewWriter(&out)
	err := Run(ctx, name, Options{
		Dial: func(ctx context.Context, other string) (*client.Client, error) {
			if other == "" {
				other = socket
			}
			return client.Dial(ctx, other)
		},
		Explain: func(err error) (ipc.ErrorKind, string, int) { return ipc.ErrFailed, err.Error(), 1 },
		Timeout: time.Minute, Stdin: strings.NewReader("print('from standard input')"), Stdout: buffer,
		Clean: func(text string) string { return text }, Args: args,
	})
	return result{out.String(), err}
}

// files writes files below a new directory.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// runText runs a script that is that text.
func runText(t *testing.T, socket, text string, args ...string) result {
	t.Helper()
	r := run(t.Context(), socket, filepath.Join(files(t, map[string]string{"x.star": text}), "x.star"), args...)
	r.out = strings.TrimSuffix(r.out, "\n")
	return r
}

func TestScriptsSee(t *testing.T) {
	s := ipctest.Serve(t, answer)
	for _, test := range []struct{ name, text, want string }{
		{"fields of --json", `print(zinit.list()[0].name, zinit.list()[0].state)`, "web running"},
		{"fields that are absent", `w = zinit.status("web"); print(w.reason, w.note + "x", w.requires, w.uptime_ms)`, "None x [] 0"},
		{"fields with reserved names", `print(zinit.start("web")[0].from_, zinit.status("web").class_)`, "inactive user"},
		{"fields by subscript", `print(zinit.status("web")["class"], "class" in zinit.status("web"))`, "user True"},
		{"one name, one record", `print(type(zinit.status("web")), type(zinit.status(["web"])), type(zinit.status("web", "web")))`, "record list list"},
		{"no name, the system", `print(zinit.status().services)`, "{}"},
		{"an empty list is nothing, not all", `print(zinit.status([]), zinit.stop([]), zinit.logs([]), zinit.stats([]), zinit.wait([]))`, "[] [] [] [] []"},
		{"JSON", `print(json.decode(json.encode(zinit.status("web")))["name"])`, "web"},
		{"equal answers", `print(zinit.status("web") == zinit.list()[0], zinit.status("web") == zinit.start("web")[0])`, "True False"},
		{"their arguments", `print(args)`, `["a", "-b"]`},
		{"a line they follow to", `print(zinit.logs(follow = lambda l: l.text == "two").text)`, "two"},
		{"an event after another", `print([e.seq for e in zinit.events(after = 1)], zinit.events(after = 1, follow = lambda e: True).seq)`, "[2] 2"},
		{"the end of a stream that is not followed to the end", `print(zinit.events(follow = lambda e: False))`, "None"},
		{"questions while they follow", `print(zinit.logs(follow = lambda l: zinit.is_running("web")).text)`, "one"},
		{"a configuration to change", `c = zinit.get("web"); c["service"]["exec"] = "true"; print(c, zinit.set(c)[0].to)`,
			`{"service": {"exec": "true", "name": "web"}} running`},
		{"a service", `print(zinit.service("a", exec = ["b", "c d"], requires = ["e"], class_ = "system", dir = None, health = {"type": "exec", "command": "true"}))`,
			`{"service": {"name": "a", "exec": ["b", "c d"], "class": "system"}, "dependencies": {"requires": ["e"]}, "health": {"type": "exec", "command": "true"}}`},
		{"a target", `print(zinit.target("a", wants = ["b"]))`, `{"target": {"name": "a"}, "dependencies": {"wants": ["b"]}}`},
		{"an error they expected", `e = attempt(zinit.start, "x"); print(e.ok, e.value, e.error.message)`, "False None there is no service x"},
		{"a value they hoped for", `print(attempt(zinit.is_running, name = "web"))`, `{"ok": True, "value": True, "error": None}`},
		{"another server", `other = zinit.connect("` + s.Socket + `"); print(other.list()[0].name, other.xinet.list()[0].name)`, "web web"},
		{"recursion and top-level loops", "def f(n):\n  return n and n + f(n - 1)\nwhile True:\n  print(f(10))\n  break", "55"},
		{"bytes that are no text", `print("\0\x1b")`, "\x00\x1b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if r := runText(t, s.Socket, test.text, "a", "-b"); r.err != nil || r.out != test.want {
				t.Errorf("%s\nprinted %q, error %v; want %q", test.text, r.out, r.err, test.want)
			}
		})
	}
}

func TestScriptsFailAt(t *testing.T) {
	s := ipctest.Serve(t, answer)
	for _, test := range []struct{ name, text, want string }{
		{"a name that is not there", "\n  \nzinit.start('wbe')", "x.star:3:12: there is no service wbe"},
		{"a caller", "def f():\n  zinit.stop('wbe')\nf()", "x.star:2:13: there is no service wbe\n  called from D/x.star:3:2"},
		{"syntax", "x = 1\ny = = 2", "x.star:2:5: got '=', want primary expression"},
		{"names that nothing has", "zint.list()\nprint(y)", "x.star:1:1: undefined: zint\nD/x.star:2:7: undefined: y"},
		{"a misspelt function", "zinit.stat", "x.star:1:6: module has no .stat field or method (did you mean .start?)"},
		{"a misspelt field", "zinit.list()[0].stat", "x.star:1:16: record has no .stat field or method (did you mean .state?)"},
		{"a wrong parameter", "zinit.start('web', wait = 1)", `x.star:1:12: zinit.start: unexpected keyword argument "wait"`},
		{"no name", "zinit.start()", "x.star:1:12: zinit.start: it needs a name"},
		{"a wrong type", "zinit.stop(['web', 1])", "x.star:1:11: zinit.stop: got a list with a int, want strings"},
		{"a misspelt key of a service", "zinit.service('a', exce = 'b')", `x.star:1:14: zinit.service: unknown field "exce"; did you mean exec?`},
		{"a wrong value of a service", "zinit.service('a', exec = 'b', restart = 'alwys')", "x.star:1:14: zinit.service: "},
		{"a wrong value in a dict without a name", "zinit.add_service({'service': {'exec': 5}})",
			"x.star:1:18: zinit.add_service: service.exec: must be a string or an array of strings, not the number 5"},
		{"no duration", "sleep('soon')", `x.star:1:6: sleep: for parameter duration: "soon" is no duration: want a number of seconds, or text such as "2s" or "1m30s"`},
		{"no exit code", "exit(256)", "x.star:1:5: exit: 256 is no exit code, they are 0 to 255"},
		{"fail", "fail('the disk', 'is full')", "x.star:1:5: fail: the disk is full"},
		{"a dict in itself", "d = {}\nd['d'] = d\nzinit.set(d)", "x.star:3:10: zinit.set: d: d: "},
		{"a string beyond all bounds", "'x' * (1 << 50)", "x.star:1:5: repeat count"},
		{"a file that is not beside it", "load('../y.star', 'y')", "x.star:1:1: cannot load ../y.star: only files in the folder of the script can be loaded"},
		{"a function that follows", "def f(e):\n  zinit.start('wbe')\nzinit.events(follow = f)", "x.star:2:14: there is no service wbe\n  called from D/x.star:3:13"},
		{"a server that is not there", "zinit.connect('/none')", "x.star:1:14: cannot reach zinit-server at /none: no such file or directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := files(t, map[string]string{"x.star": test.text})
			r := run(t.Context(), s.Socket, filepath.Join(dir, "x.star"))
			if r.err == nil {
				t.Fatalf("it does not fail and prints %q", r.out)
			}
			got := strings.ReplaceAll(r.err.Error(), dir, "D")
			if !strings.HasPrefix(got, "D/"+test.want) {
				t.Errorf("got  %s\nwant D/%s", got, test.want)
			}
		})
	}
}

func TestExitCodes(t *testing.T) {
	s := ipctest.Serve(t, answer)
	for text, want := range map[string]int{
		"exit()":                          0,
		"exit(7)":                         7,
		"def f():\n  exit(9)\nattempt(f)": 9,
		"zinit.events(follow = lambda e: exit(3))": 3,
	} {
		r := runText(t, s.Socket, text+"\nprint('too far')")
		var exit *Exit
		code := 0
		if errors.As(r.err, &exit) {
			code = exit.Code
		} else if r.err != nil {
			t.Errorf("%s: %v", text, r.err)
		}
		if code != want || r.out != "" {
			t.Errorf("%s: exit code %d, want %d, printed %q", text, code, want, r.out)
		}
	}
}

func TestScriptsLoadWhatIsBesideThem(t *testing.T) {
	dir := files(t, map[string]string{
		"main.star":      "load('lib/a.star', 'a')\nload('b.star', 'b')\nprint(a, b)",
		"lib/a.star":     "load('b.star', 'b')\na = b + 1",
		"b.star":         "print('once')\nb = 1",
		"round.star":     "load('round2.star', 'x')",
		"round2.star":    "load('round.star', 'x')\nx = 1",
		"wrong.star":     "load('lib/wrong.star', 'x')",
		"lib/wrong.star": "\n1 // 0",
	})
	if r := run(t.Context(), "", filepath.Join(dir, "main.star")); r.err != nil || r.out != "once\n2 1\n" {
		t.Errorf("printed %q, %v", r.out, r.err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(dir, "main.star"), link); err != nil {
		t.Fatal(err)
	}
	if r := run(t.Context(), "", link); r.err != nil {
		t.Errorf("by a link: %v", r.err)
	}
	for name, want := range map[string]string{
		"round.star": "D/round.star:1:1: cannot load round2.star: it is being loaded already: files load each other in a circle\n  called from D/round2.star:1:1\n  called from D/round.star:1:1",
		"wrong.star": "D/lib/wrong.star:2:3: floored division by zero\n  called from D/wrong.star:1:1",
	} {
		r := run(t.Context(), "", filepath.Join(dir, name))
		if got := strings.ReplaceAll(fmt.Sprint(r.err), dir, "D"); got != want {
			t.Errorf("%s: got  %s\nwant %s", name, got, want)
		}
	}
}

func TestDirectoryRunsInOrder(t *testing.T) {
	dir := files(t, map[string]string{
		"10.star": "print('ten', args)", "20-b.star": "print('twenty'); exit()", "30.star": "print('thirty'); fail('no more')", "40.star": "print('forty')",
		".hidden.star": "print('hidden')", "readme.txt": "not a script", "sub/50.star": "print('below')",
	})
	r := run(t.Context(), "", dir, "a")
	if r.out != "ten [\"a\"]\ntwenty\nthirty\n" || !strings.HasPrefix(fmt.Sprint(r.err), filepath.Join(dir, "30.star")+":1:22: fail: no more") {
		t.Errorf("printed %q, %v", r.out, r.err)
	}
	empty := t.TempDir()
	if r := run(t.Context(), "", empty); fmt.Sprint(r.err) != "cannot run the scripts of "+empty+": no *.star file is in it" {
		t.Error("an empty directory:", r.err)
	}
}

func TestWhatIsRun(t *testing.T) {
	if r := run(t.Context(), "", "-"); r.out != "from standard input\n" || r.err != nil {
		t.Errorf("-: %+v", r)
	}
	if r := run(t.Context(), "", "faild"); !strings.HasSuffix(fmt.Sprint(r.err), "no such file or directory, and no script of that name is built in; did you mean failed?") {
		t.Error("a misspelt name:", r.err)
	}
	large := files(t, map[string]string{"large.star": strings.Repeat("#", maxSource+1)}) + "/large.star"
	if r := run(t.Context(), "", large); fmt.Sprint(r.err) != "cannot run "+large+": it is larger than 512 KiB" {
		t.Error("a large file:", r.err)
	}
	// The worst that the parser can be given.
	deep := files(t, map[string]string{"deep.star": strings.Repeat("(", maxSource)}) + "/deep.star"
	if r := run(t.Context(), "", deep); r.err == nil || !strings.HasPrefix(r.err.Error(), deep+":1:") {
		t.Error("brackets all the way:", r.err)
	}
}

// Whatever a script does, Ctrl-C ends it.
func TestInterrupted(t *testing.T) {
	asked := make(chan bool, 1)
	s := ipctest.Serve(t, func(r *ipctest.Request) {
		asked <- true
		<-r.Canceled
	})
	release := make(chan bool)
	defer close(release)
	for _, text := range []string{
		"print('go')\nwhile True: pass",
		"print('go')\nsleep('1h')",
		"print('stuck')", // a function that does not come to its end
		"zinit.start('web', timeout = '1h')",
		"zinit.events(follow = lambda e: True)",
		"attempt(zinit.wait, 'web', timeout = '1h')\nprint('too far')",
	} {
		ctx, cancel := context.WithCancel(t.Context())
		path := filepath.Join(files(t, map[string]string{"x.star": text}), "x.star")
		done := make(chan error, 1)
		go func() {
			done <- Run(ctx, path, Options{
				Dial:    func(ctx context.Context, _ string) (*client.Client, error) { return client.Dial(ctx, s.Socket) },
				Timeout: time.Minute, Stdout: bufio.NewWriter(writeFunc(func() { asked <- true })),
				Clean: func(text string) string {
					if text == "stuck" {
						asked <- true
						<-release
					}
					return text
				},
			})
		}()
		<-asked
		cancel()
		if err := <-done; !errors.Is(err, ErrInterrupted) {
			t.Errorf("%s\nended with %v", text, err)
		}
	}
}

type writeFunc func()

func (f writeFunc) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "go") {
		f()
	}
	return len(b), nil
}

// Each function takes the parameters that the docs show, and no others.
func TestFunctionsTakeTheirParameters(t *testing.T) {
	s := ipctest.Serve(t, answer)
	values := map[string]string{
		"name": "'web'", "config": "zinit.service('web', exec = 'true')", "listen": "'tcp:127.0.0.1:80'", "service": "'web'",
		"socket": "'" + s.Socket + "'", "duration": "0", "code": "0", "function": "print", "follow": "lambda item: True", "after": "0",
		"state": "'running'", "class_": "'user'", "signal": "9", "for_": "'running'", "lines": "'all'", "since": "'1h'", "grep": "'x'",
		"stream": "'stdout'", "backend": "'unix:/x'", "mode": "'proxy'", "socket_mode": "'600'", "socket_user": "'root'", "socket_group": "'root'",
	}
	parameter := regexp.MustCompile(`^([a-z_]+)(=.*)?$`)
	for _, f := range append(verbs(), globals()...) {
		if f.name == "shutdown" || f.name == "poweroff" || f.name == "reboot" || f.name == "upgrade" {
			continue // they wait for the end of the server
		}
		name := f.name
		if !isGlobal(f.name) {
			name = "zinit." + name
		}
		var given []string
		for _, p := range strings.Split(f.params, ", ") {
			m := parameter.FindStringSubmatch(p)
			switch {
			case p == "":
			case p == "*names":
				given = append(given, "'web'")
			case p == "**fields" && f.name == "service":
				given = append(given, "exec = 'true'")
			case strings.HasPrefix(p, "*"):
			case m == nil:
				t.Errorf("%s: parameter %q", name, p)
			case m[2] == "=False":
				given = append(given, m[1]+" = False")
			case m[1] == "function":
				given = append(given, "print")
			case strings.HasSuffix(m[1], "timeout"):
				given = append(given, m[1]+" = '1m'")
			case values[m[1]] == "":
				t.Errorf("%s: say in the test what %s may be", name, m[1])
			case m[2] != "":
				given = append(given, m[1]+" = "+values[m[1]])
			default:
				given = append(given, values[m[1]])
			}
		}
		text := name + "(" + strings.Join(given, ", ") + ")"
		if r := runText(t, s.Socket, text); r.err != nil {
			t.Errorf("%s: %v", text, r.err)
		}
		if f.name == "attempt" {
			continue // what it does not know is for what it calls
		}
		if r := runText(t, s.Socket, name+"("+strings.Join(append(given, "nonsense = 1"), ", ")+")"); r.err == nil {
			t.Errorf("%s takes any parameter", name)
		}
	}
}

func isGlobal(name string) bool {
	for _, f := range globals() {
		if f.name == name {
			return true
		}
	}
	return false
}
