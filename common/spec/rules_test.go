package spec

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// What is wrong between fields, and with the file as a whole.
func TestRules(t *testing.T) {
	const service = "[service]\nexec = \"true\"\n"
	deep := strings.Repeat("[", 100_000)
	for _, tt := range []struct{ name, src, says string }{
		{"empty", "", "0:0: a [service], [target] or [xinet] table is missing"},
		{"only other tables", "[lifecycle]\n", "0:0: a [service], [target] or [xinet] table is missing"},
		{"service and target", service + "[target]\n", "3:2: [target] and [service] cannot be in one file"},
		{"table as a value", "service = 1", "1:1: service must be a table, [service], not the number 1"},
		{"array of tables", "[[service]]\nexec = \"true\"", "1:3: service must be a table, [service], not an array of tables"},
		{"key outside of a table", "exec = \"true\"\n" + service, "1:1: unknown key exec outside of a table: it belongs under [service]"},
		{"unknown table", service + "[helth]\n", "3:2: unknown table [helth]: did you mean [health]?"},
		{"key of another table", service + "restart = \"never\"", "3:1: unknown key restart in [service]: it belongs under [lifecycle]"},
		{"far from any key", service + "zzz = 1", "3:1: unknown key zzz in [service]"},
		{"target with an exec", "[target]\nexec = \"true\"", "2:1: unknown key exec in [target]: a target has no process"},
		{"target with a lifecycle", "[target]\n[lifecycle]\n", "2:2: [lifecycle] belongs to a service: a target has no process"},

		{"oneshot ready", "[service]\nexec = \"true\"\noneshot = true\n[lifecycle]\nready = \"notify\"", "5:9: lifecycle.ready: does not apply to a oneshot, which is done when it exits"},
		{"oneshot health", "[service]\nexec = \"true\"\noneshot = true\n[health]\ntype = \"tcp\"\nendpoint = \"a:1\"", "4:2: [health] does not apply to a oneshot, which is done when it exits"},
		{"oneshot watchdog", "[service]\nexec = \"true\"\noneshot = true\n[lifecycle]\nwatchdog_ms = 5", "5:15: lifecycle.watchdog_ms: does not apply to a oneshot, which is done when it exits"},
		{"watchdog without notify", service + "[lifecycle]\nwatchdog_ms = 5", `4:15: lifecycle.watchdog_ms: needs lifecycle.ready = "notify"`},
		{"descriptor without fd", service + "[lifecycle]\nready_fd = 5", `4:12: lifecycle.ready_fd: needs lifecycle.ready = "fd"`},
		{"one fault is enough", service + "[lifecycle]\nready = \"notfy\"\nwatchdog_ms = 5", `4:9: lifecycle.ready: must be "exec", "health", "notify" or "fd", not "notfy": did you mean "notify"?`},
		{"capabilities without a user", service + "[limits]\ncapabilities = [\"kill\"]", "4:16: limits.capabilities: needs service.user: without one the service has those of zinit"},

		{"health without a type", service + "[health]\nendpoint = \"a:1\"", "3:2: health.type is missing: tcp, http, exec or unix"},
		{"health without an endpoint", service + "[health]\ntype = \"tcp\"", `3:2: health.endpoint is missing, as type is "tcp"`},
		{"health without a command", service + "[health]\ntype = \"exec\"", `3:2: health.command is missing, as type is "exec"`},
		{"command for tcp", service + "[health]\ntype = \"tcp\"\nendpoint = \"a:1\"\ncommand = \"true\"", `6:11: health.command: applies only to type = "exec": use endpoint`},
		{"endpoint for exec", service + "[health]\ntype = \"exec\"\nendpoint = \"a:1\"\ncommand = \"true\"", `5:12: health.endpoint: does not apply to type = "exec": use command`},
		{"method for tcp", service + "[health]\ntype = \"tcp\"\nendpoint = \"a:1\"\nmethod = \"GET\"", `6:10: health.method: applies only to type = "http"`},
		{"port out of range", service + "[health]\ntype = \"http\"\nendpoint = \"http://a:70000/\"", `5:12: health.endpoint: port "70000" is not a number between 1 and 65535`},
		{"a variable in an endpoint", service + "[health]\ntype = \"http\"\nendpoint = \"http://a:${PORT}/\"",
			`5:12: health.endpoint: port "${PORT}" is not a number between 1 and 65535: variables are not expanded here`},
		{"a variable in an address", service + "[xinet]\nlisten = [\"127.0.0.1:${PORT}\"]\nbackend = \"unix:/b\"",
			`4:11: xinet.listen: "127.0.0.1:${PORT}" is not an address: port "${PORT}" is not a number between 1 and 65535: variables are not expanded here`},
		{"a key of other programs", "[service]\ncommand = \"true\"", `2:1: unknown key command in [service]: did you mean "exec"?`},
		{"no host", service + "[health]\ntype = \"http\"\nendpoint = \"http:///x\"", "5:12: health.endpoint: must name a host"},
		{"no path in the socket", service + "[health]\ntype = \"http\"\nendpoint = \"unix:/run/web\"", "5:12: health.endpoint: must look like unix:/path:/url"},
		{"relative socket", service + "[health]\ntype = \"unix\"\nendpoint = \"run/web\"", "5:12: health.endpoint: expected an absolute path"},

		{"proxy without names", "[xinet]\nlisten = [\":80\"]\nbackend = \"a:1\"", "1:2: xinet.name is required in a file that has no [service]\n1:2: xinet.service is required in a file that has no [service]"},
		{"proxy with a lifecycle", "[xinet]\nname = \"p\"\nservice = \"s\"\nlisten = [\":80\"]\nbackend = \"a:1\"\n[lifecycle]", "6:2: [lifecycle] belongs to a service, and there is no [service]"},
		{"proxy without listen", service + "[xinet]\nbackend = \"a:1\"", "3:2: xinet.listen is missing: at which addresses?"},
		{"proxy that listens nowhere", service + "[xinet]\nlisten = []\nbackend = \"a:1\"", "4:10: xinet.listen: must have at least one address"},
		{"proxy to itself", service + "[xinet]\nlisten = [\"a:1\"]\nbackend = \"tcp:a:1\"", "5:11: xinet.backend: is an address at which the proxy itself listens"},
		{"proxy to nowhere", service + "[xinet]\nlisten = [\"a:1\"]\nbackend = \":2\"", "5:11: xinet.backend: must name a host"},
		{"pass with a backend", service + "[xinet]\nlisten = [\"a:1\"]\nbackend = \"a:2\"\nmode = \"pass\"", `5:11: xinet.backend: does not apply to mode = "pass", where the service accepts by itself`},
		{"pass and descriptor 3", service + "[lifecycle]\nready = \"fd\"\n[xinet]\nlisten = [\"a:1\"]\nmode = \"pass\"", "4:9: lifecycle.ready: ready_fd must be at least 4: the listening sockets are passed from descriptor 3 on"},

		{"positions", "service.exec = \"true\"\n\"lifecycle\" = {\n  # a comment, with ] and }\n  success_exit_codes = [ 0, # \"\n\t  999 ] }\n[service.env]\nA = '''\n[x]\n'''\n  'B'   =   3\n",
			"5:4: lifecycle.success_exit_codes: must be between 0 and 255, not 999\n10:13: service.env.B: must be a string or { file = \"PATH\" }, not the number 3: write \"3\""},
		{"UTF-16", "\xff\xfe[\x00s\x00", "1:1: it is in UTF-16: save it as UTF-8"},
		{"byte order mark", "\ufeff[service]\nexe = \"true\"\nexec = \"true\"", "2:1: unknown key exe in [service]: did you mean \"exec\"?"},
		{"nested too deeply", "[service]\nexec = " + deep, "2:24: arrays, tables or dotted keys are nested more than 16 deep"},
		{"dotted too deeply", strings.Repeat("a.", 100_000) + "a = 1", "1:33: arrays, tables or dotted keys are nested more than 16 deep"},

		{"duplicate key", service + "exec = \"false\"", "3:1: service.exec is already defined on line 2"},
		{"duplicate table", service + "[service]", "3:2: service is already defined on line 1"},
		{"unquoted", "[service]\nexec = true false", "2:12: expected a top-level item to end with a newline, comment, or EOF, but got 'f' instead"},
		{"unclosed string", "[service]\nexec = \"true\nname = 1", "2:13: strings cannot contain newlines"},
		{"unclosed table", "[service\nexec = 1", "1:9: expected '.' or ']' to end table name, but got '\\n' instead"},
		{"bad UTF-8", "[service]\nexec = \"\xff\"", "2:9: invalid UTF-8 byte: 0xff"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, problems := Parse("web.toml", []byte(tt.src))
			if got := strings.TrimSpace(report(problems)); got != tt.says {
				t.Errorf("%.200s\nsays\n%s\nwant\n%s", tt.src, got, tt.says)
			}
		})
	}
}

// A broken file is known by the name it would have had.
func TestNameOfBrokenFile(t *testing.T) {
	for _, tt := range []struct{ src, want string }{
		{"[service]\nname = \"db\"\nexce = 1", "db"},
		{"[service]\nname = \"db\"\nexec = ", "db"},
		{"[target]\nname = \"db\"\nexec = 'a", "db"},
		{"[xinet]\nname = \"db\"\n[", "db"},
		{"[service]\nname = \"d b\"\n", "web"},
		{"[service]\nname = \"db", "web"},
		{"= 1", "web"},
	} {
		_, _, problems := Parse("/etc/zinit/services/web.toml", []byte(tt.src))
		if len(problems) == 0 || problems[0].Service != tt.want {
			t.Errorf("%q gives %+v, want the name %s", tt.src, problems, tt.want)
		}
	}
	_, _, problems := Parse("my web.toml", []byte("[service]\nexec = \"true\""))
	if got := report(problems); !strings.HasPrefix(got, "1:2: the name comes from the file name, as there is no service.name, and \"my web\" is not a valid name") {
		t.Error(got)
	}
}

func TestProxyFile(t *testing.T) {
	src := "[xinet]\nname = \"front\"\nservice = \"web\"\nlisten = [\"tcp::80\"]\nbackend = \"unix:/run/web\"\nidle_timeout = 60\n"
	s, x, problems := Parse("front.xinet.toml", []byte(src))
	want := &Proxy{
		Name: "front", Service: "web", File: "front.xinet.toml", Mode: ProxyForward,
		Listen: []Address{{"tcp", ":80"}}, Backend: Address{"unix", "/run/web"},
		ConnectTimeout: 30 * time.Second, IdleTimeout: time.Minute, SocketMode: 0o666,
	}
	if s != nil || problems != nil || !reflect.DeepEqual(x, want) {
		t.Fatalf("got %+v %+v\n%s", s, x, report(problems))
	}
	if x.Source() != src {
		t.Errorf("the source is\n%s", x.Source())
	}
	if _, again, problems := Parse("", []byte(x.TOML())); problems != nil || !again.Equal(x) {
		t.Errorf("differs once written and read:\n%s%s", x.TOML(), report(problems))
	}
}

// Of a file of many faults only the first are looked into.
func TestManyFaults(t *testing.T) {
	var b strings.Builder
	b.WriteString("[service]\nexec = \"true\"\n")
	for i := range 50_000 {
		fmt.Fprintf(&b, "kye%d = 1\n", i)
	}
	_, _, problems := Parse("web.toml", []byte(b.String()))
	if len(problems) != maxProblems+1 || problems[maxProblems].Message != "and 49950 more problems" {
		t.Errorf("%d problems, the last: %+v", len(problems), problems[len(problems)-1])
	}
}

func TestDiff(t *testing.T) {
	a := mustParse(t, "[service]\nexec = \"a\"\n[lifecycle]\nstop_timeout_ms = 5\nno_restart_exit_codes = []")
	b := mustParse(t, "[service]\nexec = [\"a\"]\n[lifecycle]\nstop_timeout_ms = 6\n[health]\ntype = \"tcp\"\nendpoint = \"a:1\"")
	if got, want := a.Diff(b), []string{"lifecycle.stop_timeout_ms", "lifecycle.ready", "health"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if !a.Equal(a) || a.Equal(b) || a.Equal(mustParse(t, "[target]")) {
		t.Error("Equal is not what Diff says")
	}
}

func TestTOML(t *testing.T) {
	s := mustParse(t, "[service]\nexec = \"sh -c 'a | b'\"\ncritical = true\nenv = { \"A.B\" = \"\\u0001\\n\\\"\\u007f\" }\n[lifecycle]\nrestart_delay_ms = 90000\n")
	const source = `[service]
name = "web"
exec = "sh -c 'a | b'"
critical = true
env = { "A.B" = "\u0001\n\"\u007F" }

[lifecycle]
restart_delay_ms = 90000
`
	if got := s.Source(); got != source {
		t.Errorf("the source is\n%s", got)
	}
	for _, line := range []string{"max_restarts = 5 # default\n", "restart_delay_max_ms = 90000 # default\n", "critical = true\n"} {
		if !strings.Contains(s.TOML(), line) {
			t.Errorf("no %q in\n%s", line, s.TOML())
		}
	}
	for _, src := range []string{
		"[target]\n[dependencies]\nwants = [\"a\"]",
		"[service]\nexec = \"a\"\noneshot = true",
		"[service]\nexec = \"a\"\n[health]\ntype = \"exec\"\ncommand = \"b\"",
		"[service]\nexec = \"a\"\n[xinet]\nlisten = [\":1\"]\nmode = \"pass\"",
	} {
		s := mustParse(t, src)
		for _, text := range []string{s.TOML(), s.Source()} {
			if again := mustParse(t, text); !again.Equal(s) {
				t.Errorf("differs in %v once written and read:\n%s", s.Diff(again), text)
			}
		}
	}
}

// An array of many faults likewise.
func TestManyFaultsInOneArray(t *testing.T) {
	_, _, problems := Parse("web.toml", []byte("[service]\nexec = \"true\"\nports = ["+strings.Repeat("0,", 100_000)+"]"))
	if len(problems) != maxProblems+1 {
		t.Errorf("%d problems", len(problems))
	}
}
