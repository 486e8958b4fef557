package spec

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// report is problems as users see them, one a line.
func report(problems []Problem) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "%d:%d: %s\n", p.Line, p.Column, p.Message)
	}
	return b.String()
}

func mustParse(t *testing.T, src string) *Service {
	t.Helper()
	s, _, problems := Parse("web.toml", []byte(src))
	if problems != nil || s == nil {
		t.Fatalf("unexpected problems in\n%s\n%s", src, report(problems))
	}
	return s
}

// set is a service file with one line in one table.
func set(table, line string) string {
	switch table {
	case "service":
		return "[service]\nexec = \"true\"\n" + line + "\n"
	case "target":
		return "[target]\n" + line + "\n"
	}
	return "[service]\nexec = \"true\"\n[" + table + "]\n" + line + "\n"
}

// Each field: a good line, what the service then has, a bad line, and what is
// said of it. The bad line is on line 3, in a table with a header on line 4.
var fieldTests = []struct {
	field string
	with  string // other lines of the table that the field needs
	good  string
	value func(s *Service) any
	want  any
	bad   string
	says  string
}{
	{field: "service.name", good: `name = "a.b@c:d-e_1"`,
		value: func(s *Service) any { return s.Name }, want: "a.b@c:d-e_1",
		bad: `name = ".web"`, says: `3:8: service.name: ".web" is not a valid name: a name has 1 to 128 letters, digits and _ . @ : -, and does not begin with . or -`},
	{field: "service.dir", good: `dir = "/srv/${SITE}"`,
		value: func(s *Service) any { return s.Dir }, want: "/srv/${SITE}",
		bad: `dir = 7`, says: `3:7: service.dir: must be a string, not the number 7`},
	{field: "service.oneshot", good: `oneshot = true`,
		value: func(s *Service) any { return s.Oneshot }, want: true,
		bad: `oneshot = "yes"`, says: `3:11: service.oneshot: must be true or false, not "yes"`},
	{field: "service.status", good: `status = "ignore"`,
		value: func(s *Service) any { return s.Status }, want: StatusIgnore,
		bad: `status = "ignroe"`, says: `3:10: service.status: must be "start", "stop" or "ignore", not "ignroe": did you mean "ignore"?`},
	{field: "service.class", good: `class = "system"`,
		value: func(s *Service) any { return s.Class }, want: ClassSystem,
		bad: `class = "root"`, says: `3:9: service.class: must be "user" or "system", not "root"`},
	{field: "service.critical", good: `critical = true`,
		value: func(s *Service) any { return fmt.Sprint(s.Critical, s.Lifecycle.MaxRestarts) }, want: "true 5",
		bad: `critical = 1`, says: `3:12: service.critical: must be true or false, not the number 1`},
	{field: "service.env", good: `env = { B = "${A}", A = { file = "/run/pw" } }`,
		value: func(s *Service) any { return s.Env }, want: []EnvVar{{Name: "A", File: "/run/pw"}, {Name: "B", Value: "${A}"}},
		bad: `env = { PORT = 8080 }`, says: `3:16: service.env.PORT: must be a string or { file = "PATH" }, not the number 8080: write "8080"`},
	{field: "service.env_file", good: `env_file = ["/etc/web.env", "-/etc/more.env"]`,
		value: func(s *Service) any { return s.EnvFile }, want: []string{"/etc/web.env", "-/etc/more.env"},
		bad: `env_file = "/etc/web.env"`, says: `3:12: service.env_file: must be an array of strings, not "/etc/web.env": write ["/etc/web.env"]`},
	{field: "service.console", good: `console = true`,
		value: func(s *Service) any { return s.Console }, want: true,
		bad: `console = []`, says: `3:11: service.console: must be true or false, not an array`},
	{field: "service.user", good: `user = 1000`,
		value: func(s *Service) any { return s.User }, want: "1000",
		bad: `user = -1`, says: `3:8: service.user: must be between 0 and 4294967294, not -1`},
	{field: "service.group", good: `group = "www-data"`,
		value: func(s *Service) any { return s.Group }, want: "www-data",
		bad: `group = "a:b"`, says: `3:9: service.group: must be a name or a number, not "a:b"`},
	{field: "service.umask", good: `umask = "027"`,
		value: func(s *Service) any { return *s.Umask }, want: uint32(0o27),
		bad: `umask = 27`, says: `3:9: service.umask: must be a string of octal digits such as "022", in quotes: a bare number would be read as decimal`},
	{field: "service.ports", good: `ports = [80, 443]`,
		value: func(s *Service) any { return s.Ports }, want: []uint16{80, 443},
		bad: `ports = [80, 65536]`, says: `3:14: service.ports: must be between 1 and 65535, not 65536`},

	{field: "target.name", good: `name = "multi-user"`,
		value: func(s *Service) any { return s.Name }, want: "multi-user",
		bad: `name = ""`, says: `2:8: target.name: "" is not a valid name: a name has 1 to 128 letters, digits and _ . @ : -, and does not begin with . or -`},
	{field: "target.status", good: `status = "stop"`,
		value: func(s *Service) any { return s.Status }, want: StatusStop,
		bad: `status = true`, says: `2:10: target.status: must be "start", "stop" or "ignore", not true`},
	{field: "target.class", good: `class = "system"`,
		value: func(s *Service) any { return s.Class }, want: ClassSystem,
		bad: `class = "sytem"`, says: `2:9: target.class: must be "user" or "system", not "sytem": did you mean "system"?`},

	{field: "dependencies.requires", good: `requires = ["db", "net"]`,
		value: func(s *Service) any { return s.Requires }, want: []string{"db", "net"},
		bad: `requires = ["db", "web"]`, says: `4:19: dependencies.requires: web names itself`},
	{field: "dependencies.after", good: `after = ["log"]`,
		value: func(s *Service) any { return s.After }, want: []string{"log"},
		bad: `after = ["log", "log"]`, says: `4:17: dependencies.after: "log" is there twice`},
	{field: "dependencies.wants", good: `wants = ["stats"]`,
		value: func(s *Service) any { return s.Wants }, want: []string{"stats"},
		bad: `wants = [1]`, says: `4:10: dependencies.wants: must be a string, not the number 1`},
	{field: "dependencies.conflicts", with: "requires = [\"old\"]", good: `conflicts = ["older"]`,
		value: func(s *Service) any { return s.Conflicts }, want: []string{"older"},
		bad: `conflicts = ["old"]`, says: `4:13: dependencies.requires: old is also in dependencies.conflicts`},

	{field: "lifecycle.restart", good: `restart = "always"`,
		value: func(s *Service) any { return s.Lifecycle.Restart }, want: RestartAlways,
		bad: `restart = "on_failure"`, says: `4:11: lifecycle.restart: must be "always", "on-failure" or "never", not "on_failure": did you mean "on-failure"?`},
	{field: "lifecycle.restart_delay_ms", good: `restart_delay_ms = 90000`,
		value: func(s *Service) any { return fmt.Sprint(s.Lifecycle.RestartDelay, s.Lifecycle.RestartDelayMax) }, want: "1m30s 1m30s",
		bad: `restart_delay_ms = "1s"`, says: `4:20: lifecycle.restart_delay_ms: must be a whole number of milliseconds, not "1s"`},
	{field: "lifecycle.restart_delay_max_ms", good: `restart_delay_max_ms = 5000`,
		value: func(s *Service) any { return s.Lifecycle.RestartDelayMax }, want: 5 * time.Second,
		bad: `restart_delay_max_ms = 999`, says: `4:24: lifecycle.restart_delay_max_ms: must not be less than restart_delay_ms, 1000`},
	{field: "lifecycle.stability_period_ms", good: `stability_period_ms = 0`,
		value: func(s *Service) any { return s.Lifecycle.StabilityPeriod }, want: time.Duration(0),
		bad: `stability_period_ms = -5`, says: `4:23: lifecycle.stability_period_ms: must be between 0 and 31536000000, not -5`},
	{field: "lifecycle.max_restarts", good: `max_restarts = 3`,
		value: func(s *Service) any { return s.Lifecycle.MaxRestarts }, want: 3,
		bad: `max_restarts = 1.5`, says: `4:16: lifecycle.max_restarts: must be a whole number, not the number 1.5`},
	{field: "lifecycle.success_exit_codes", good: `success_exit_codes = [0, 143]`,
		value: func(s *Service) any { return s.Lifecycle.SuccessExitCodes }, want: []int{0, 143},
		bad: `success_exit_codes = [0, 256]`, says: `4:26: lifecycle.success_exit_codes: must be between 0 and 255, not 256`},
	{field: "lifecycle.no_restart_exit_codes", good: `no_restart_exit_codes = [2]`,
		value: func(s *Service) any { return s.Lifecycle.NoRestartExitCodes }, want: []int{2},
		bad: `no_restart_exit_codes = 2`, says: `4:25: lifecycle.no_restart_exit_codes: must be an array of whole numbers, not the number 2: write [2]`},
	{field: "lifecycle.start_timeout_ms", good: `start_timeout_ms = 500`,
		value: func(s *Service) any { return s.Lifecycle.StartTimeout }, want: 500 * time.Millisecond,
		bad: `start_timeout_ms = 31536000001`, says: `4:20: lifecycle.start_timeout_ms: must be between 0 and 31536000000, not 31536000001`},
	{field: "lifecycle.stop_timeout_ms", good: `stop_timeout_ms = 1`,
		value: func(s *Service) any { return s.Lifecycle.StopTimeout }, want: time.Millisecond,
		bad: `stop_timeout_ms = true`, says: `4:19: lifecycle.stop_timeout_ms: must be a whole number of milliseconds, not true`},
	{field: "lifecycle.stop_signal", good: `stop_signal = "sigquit"`,
		value: func(s *Service) any { return s.Lifecycle.StopSignal }, want: 3,
		bad: `stop_signal = "SIGTREM"`, says: `4:15: lifecycle.stop_signal: must be a signal such as "SIGTERM", or its number: unknown signal "SIGTREM": did you mean "SIGTERM"?`},
	{field: "lifecycle.pre_start", good: `pre_start = "mkdir -p '/srv/a b'"`,
		value: func(s *Service) any { return s.Lifecycle.PreStart.String() }, want: "mkdir -p '/srv/a b'",
		bad: `pre_start = "a | b"`, says: `4:13: lifecycle.pre_start: "|" needs a shell: write sh -c '…', or put it in quotes`},
	{field: "lifecycle.stop_exec", good: `stop_exec = ["nginx", "-s", "stop"]`,
		value: func(s *Service) any { return s.Lifecycle.StopExec.String() }, want: "nginx -s stop",
		bad: `stop_exec = ["nginx", 1]`, says: `4:23: lifecycle.stop_exec: must be a string, not the number 1`},
	{field: "lifecycle.ready", good: `ready = "notify"`,
		value: func(s *Service) any { return s.Lifecycle.Ready }, want: ReadyNotify,
		bad: `ready = "health"`, says: `4:9: lifecycle.ready: "health" needs a [health] table`},
	{field: "lifecycle.ready_fd", with: `ready = "fd"`, good: `ready_fd = 5`,
		value: func(s *Service) any { return s.Lifecycle.ReadyFd }, want: 5,
		bad: `ready_fd = 2`, says: `5:12: lifecycle.ready_fd: must be between 3 and 1023, not 2`},
	{field: "lifecycle.watchdog_ms", with: `ready = "notify"`, good: `watchdog_ms = 2000`,
		value: func(s *Service) any { return s.Lifecycle.Watchdog }, want: 2 * time.Second,
		bad: `watchdog_ms = -1`, says: `5:15: lifecycle.watchdog_ms: must be between 0 and 31536000000, not -1`},
	{field: "lifecycle.on_exit", good: `on_exit = "shutdown"`,
		value: func(s *Service) any { return s.Lifecycle.OnExit }, want: OnExitShutdown,
		bad: `on_exit = "exit"`, says: `4:11: lifecycle.on_exit: must be "none" or "shutdown", not "exit"`},

	{field: "health.type", with: `endpoint = "[::1]:80"`, good: `type = "tcp"`,
		value: func(s *Service) any { return fmt.Sprint(s.Health.Type, " ", s.Lifecycle.Ready) }, want: "tcp health",
		bad: `type = "htp"`, says: `5:8: health.type: must be "tcp", "http", "exec" or "unix", not "htp": did you mean "http"?`},
	{field: "health.endpoint", with: `type = "http"`, good: `endpoint = "https://example.org/health?full"`,
		value: func(s *Service) any { return s.Health.Endpoint }, want: "https://example.org/health?full",
		bad: `endpoint = "localhost/health"`, says: `5:12: health.endpoint: must begin with one of http://, https://, unix: and a path`},
	{field: "health.command", with: `type = "exec"`, good: `command = "pg_isready -q"`,
		value: func(s *Service) any { return s.Health.Command.String() }, want: "pg_isready -q",
		bad: `command = ""`, says: `5:11: health.command: must not be empty`},
	{field: "health.interval_ms", with: httpProbe, good: `interval_ms = 100`,
		value: func(s *Service) any { return s.Health.Interval }, want: 100 * time.Millisecond,
		bad: `interval_ms = 0`, says: `6:15: health.interval_ms: must be between 1 and 31536000000, not 0`},
	{field: "health.timeout_ms", with: httpProbe, good: `timeout_ms = 100`,
		value: func(s *Service) any { return s.Health.Timeout }, want: 100 * time.Millisecond,
		bad: `timeout_ms = 0`, says: `6:14: health.timeout_ms: must be between 1 and 31536000000, not 0`},
	{field: "health.retries", with: httpProbe, good: `retries = 1`,
		value: func(s *Service) any { return s.Health.Retries }, want: 1,
		bad: `retries = 0`, says: `6:11: health.retries: must be between 1 and 2147483647, not 0`},
	{field: "health.start_period_ms", with: httpProbe, good: `start_period_ms = 3000`,
		value: func(s *Service) any { return s.Health.StartPeriod }, want: 3 * time.Second,
		bad: `start_period_ms = 1979-05-27`, says: `6:19: health.start_period_ms: must be a whole number of milliseconds, not a date or a time`},
	{field: "health.expect_status", with: httpProbe, good: `expect_status = [200, 204]`,
		value: func(s *Service) any { return s.Health.ExpectStatus }, want: []int{200, 204},
		bad: `expect_status = [20]`, says: `6:18: health.expect_status: must be between 100 and 599, not 20`},
	{field: "health.method", with: httpProbe, good: `method = "HEAD"`,
		value: func(s *Service) any { return s.Health.Method }, want: "HEAD",
		bad: `method = "GET /"`, says: `6:10: health.method: "GET /" is not an HTTP method`},
	{field: "health.headers", with: httpProbe, good: `headers = { Host = "example.org" }`,
		value: func(s *Service) any { return s.Health.Headers }, want: map[string]string{"Host": "example.org"},
		bad: `headers = { "a b" = "c" }`, says: `6:21: health.headers: "a b" is not a name that a header can have`},
	{field: "health.insecure", with: httpProbe, good: `insecure = true`,
		value: func(s *Service) any { return s.Health.Insecure }, want: true,
		bad: `insecure = 0`, says: `6:12: health.insecure: must be true or false, not the number 0`},

	{field: "logging.buffer_lines", good: `buffer_lines = 0`,
		value: func(s *Service) any { return s.Logging.BufferLines }, want: 0,
		bad: `buffer_lines = -1`, says: `4:16: logging.buffer_lines: must be between 0 and 2147483647, not -1`},
	{field: "logging.file", good: `file = "/var/log/web.log"`,
		value: func(s *Service) any { return s.Logging.File }, want: "/var/log/web.log",
		bad: `file = "web.log"`, says: `4:8: logging.file: must be an absolute path, not "web.log"`},
	{field: "logging.max_size", good: `max_size = "512KiB"`,
		value: func(s *Service) any { return s.Logging.MaxSize }, want: int64(512 << 10),
		bad: `max_size = "10 megs"`, says: `4:12: logging.max_size: must be a size such as "10MiB", or a number of bytes, not "10 megs"`},
	{field: "logging.max_files", good: `max_files = 9`,
		value: func(s *Service) any { return s.Logging.MaxFiles }, want: 9,
		bad: `max_files = 1001`, says: `4:13: logging.max_files: must be between 0 and 1000, not 1001`},
	{field: "logging.on_full", good: `on_full = "block"`,
		value: func(s *Service) any { return s.Logging.OnFull }, want: OnFullBlock,
		bad: `on_full = "blok"`, says: `4:11: logging.on_full: must be "drop" or "block", not "blok": did you mean "block"?`},

	{field: "limits.nofile", good: `nofile = 65536`,
		value: func(s *Service) any { return *s.Limits.NoFile }, want: uint64(65536),
		bad: `nofile = "65536"`, says: `4:10: limits.nofile: must be a number, or "unlimited", not "65536"`},
	{field: "limits.nproc", good: `nproc = "unlimited"`,
		value: func(s *Service) any { return *s.Limits.NProc }, want: Unlimited,
		bad: `nproc = "unlimted"`, says: `4:9: limits.nproc: must be a number, or "unlimited", not "unlimted": did you mean "unlimited"?`},
	{field: "limits.core", good: `core = 0`,
		value: func(s *Service) any { return *s.Limits.Core }, want: uint64(0),
		bad: `core = -1`, says: `4:8: limits.core: must be a number, or "unlimited", not the number -1`},
	{field: "limits.memlock", good: `memlock = 1024`,
		value: func(s *Service) any { return *s.Limits.MemLock }, want: uint64(1024),
		bad: `memlock = 0.5`, says: `4:11: limits.memlock: must be a number, or "unlimited", not the number 0.5`},
	{field: "limits.stack", good: `stack = 1024`,
		value: func(s *Service) any { return *s.Limits.Stack }, want: uint64(1024),
		bad: `stack = []`, says: `4:9: limits.stack: must be a number, or "unlimited", not an array`},
	{field: "limits.as", good: `as = 1024`,
		value: func(s *Service) any { return *s.Limits.AS }, want: uint64(1024),
		bad: `as = {}`, says: `4:6: limits.as: must be a number, or "unlimited", not a table`},
	{field: "limits.memory_max", good: `memory_max = "1GiB"`,
		value: func(s *Service) any { return s.Limits.MemoryMax }, want: int64(1 << 30),
		bad: `memory_max = -1`, says: `4:14: limits.memory_max: must be at least 0, not -1`},
	{field: "limits.cpu_max", good: `cpu_max = 1.5`,
		value: func(s *Service) any { return s.Limits.CPUMax }, want: 1.5,
		bad: `cpu_max = nan`, says: `4:11: limits.cpu_max: must be between 0 and 65536, not NaN`},
	{field: "limits.pids_max", good: `pids_max = 200`,
		value: func(s *Service) any { return s.Limits.PidsMax }, want: 200,
		bad: `pids_max = "max"`, says: `4:12: limits.pids_max: must be a whole number, not "max"`},
	{field: "limits.oom_score_adj", good: `oom_score_adj = -500`,
		value: func(s *Service) any { return *s.Limits.OOMScoreAdj }, want: -500,
		bad: `oom_score_adj = 1001`, says: `4:17: limits.oom_score_adj: must be between -1000 and 1000, not 1001`},
	{field: "limits.nice", good: `nice = -20`,
		value: func(s *Service) any { return *s.Limits.Nice }, want: -20,
		bad: `nice = 20`, says: `4:8: limits.nice: must be between -20 and 19, not 20`},
	{field: "limits.no_new_privs", good: `no_new_privs = true`,
		value: func(s *Service) any { return s.Limits.NoNewPrivs }, want: true,
		bad: `no_new_privs = "true"`, says: `4:16: limits.no_new_privs: must be true or false, not "true"`},
	{field: "limits.capabilities", with: "[service]\nuser = \"www-data\"", good: `capabilities = ["CAP_NET_BIND_SERVICE"]`,
		value: func(s *Service) any { return s.Limits.Capabilities }, want: []string{"net_bind_service"},
		bad: `capabilities = ["net_bind_servce"]`, says: `5:17: limits.capabilities: "net_bind_servce" is not a capability: did you mean "net_bind_service"?`},

	{field: "xinet.name", with: forward, good: `name = "web"`,
		value: func(s *Service) any { return s.Xinet.Name }, want: "web",
		bad: `name = "www"`, says: `6:8: xinet.name: must be that of the service, web, or left out`},
	{field: "xinet.service", with: forward, good: `service = "web"`,
		value: func(s *Service) any { return s.Xinet.Service }, want: "web",
		bad: `service = "www"`, says: `6:11: xinet.service: must be that of the file, web, or left out`},
	{field: "xinet.listen", with: `backend = "unix:/run/web"`, good: `listen = ["8.8.8.8:1", "tcp:[::]:2", "unix:/run/a b"]`,
		value: func(s *Service) any { return s.Xinet.Listen }, want: []Address{{"tcp", "8.8.8.8:1"}, {"tcp", "[::]:2"}, {"unix", "/run/a b"}},
		bad: `listen = ["tcp:::1:80"]`, says: `5:11: xinet.listen: "tcp:::1:80" is not an address: an IPv6 address stands in brackets: [::1]:80`},
	{field: "xinet.backend", with: `listen = [":80"]`, good: `backend = "localhost:81"`,
		value: func(s *Service) any { return s.Xinet.Backend }, want: Address{"tcp", "localhost:81"},
		bad: `backend = "unix:run/web"`, says: `5:11: xinet.backend: "unix:run/web" is not an address: expected an absolute path`},
	{field: "xinet.mode", with: `listen = [":80"]`, good: `mode = "pass"`,
		value: func(s *Service) any { return s.Xinet.Mode }, want: ProxyPass,
		bad: `mode = "proxy"`, says: `3:2: xinet.backend is missing: where does the service answer?`},
	{field: "xinet.connect_timeout", with: forward, good: `connect_timeout = 5`,
		value: func(s *Service) any { return s.Xinet.ConnectTimeout }, want: 5 * time.Second,
		bad: `connect_timeout = 0`, says: `6:19: xinet.connect_timeout: must be between 1 and 31536000, not 0`},
	{field: "xinet.idle_timeout", with: forward, good: `idle_timeout = 60`,
		value: func(s *Service) any { return s.Xinet.IdleTimeout }, want: time.Minute,
		bad: `idle_timeout = "1m"`, says: `6:16: xinet.idle_timeout: must be a whole number of seconds, not "1m"`},
	{field: "xinet.single_connection", with: forward, good: `single_connection = true`,
		value: func(s *Service) any { return s.Xinet.SingleConnection }, want: true,
		bad: `single_connection = 1`, says: `6:21: xinet.single_connection: must be true or false, not the number 1`},
	{field: "xinet.socket_mode", with: forward, good: `socket_mode = "0660"`,
		value: func(s *Service) any { return s.Xinet.SocketMode }, want: uint32(0o660),
		bad: `socket_mode = "0800"`, says: `6:15: xinet.socket_mode: must be a string of octal digits such as "022", not "0800"`},
	{field: "xinet.socket_user", with: forward, good: `socket_user = "www-data"`,
		value: func(s *Service) any { return s.Xinet.SocketUser }, want: "www-data",
		bad: `socket_user = ""`, says: `6:15: xinet.socket_user: must be a name or a number, not ""`},
	{field: "xinet.socket_group", with: forward, good: `socket_group = 33`,
		value: func(s *Service) any { return s.Xinet.SocketGroup }, want: "33",
		bad: `socket_group = {}`, says: `6:16: xinet.socket_group: must be a name or a number, not a table`},
}

const (
	httpProbe = `endpoint = "http://localhost"` + "\n" + `type = "http"`
	forward   = `listen = [":80"]` + "\n" + `backend = "unix:/run/web"`
)

func TestFields(t *testing.T) {
	tested := map[string]bool{"service.exec": true} // by TestExec
	for _, tt := range fieldTests {
		tested[tt.field] = true
		t.Run(tt.field, func(t *testing.T) {
			table, _, _ := strings.Cut(tt.field, ".")
			source := func(line string) string {
				if strings.HasPrefix(tt.with, "[service]") {
					return tt.with + "\nexec = \"true\"\n[" + table + "]\n" + line
				}
				if tt.with != "" {
					line = tt.with + "\n" + line
				}
				return set(table, line)
			}
			s := mustParse(t, source(tt.good))
			if got := tt.value(s); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%s gives %#v, want %#v", tt.good, got, tt.want)
			}
			if again := mustParse(t, s.TOML()); !again.Equal(s) {
				t.Errorf("differs in %v once written and read:\n%s", s.Diff(again), s.TOML())
			}
			s, _, problems := Parse("web.toml", []byte(source(tt.bad)))
			if got := strings.TrimSpace(report(problems)); got != tt.says || s != nil {
				t.Errorf("%s says\n%s, want\n%s", tt.bad, got, tt.says)
			}
		})
	}
	for _, f := range Fields() {
		if !tested[f.name()] {
			t.Errorf("field %s has no test", f.name())
		}
		if f.Doc == "" {
			t.Errorf("field %s has no documentation", f.name())
		}
	}
}

func TestExec(t *testing.T) {
	for _, tt := range []struct{ src, want, says string }{
		{src: `exec = "/bin/web --port ${PORT:-80} 'a b'"`, want: "/bin/web --port ${PORT:-80} 'a b'"},
		{src: `exec = ["/bin/web", "a b", "${X}", ""]`, want: "/bin/web 'a b' ${X} ''"},
		{src: "exec = \"\"\"\nweb \\\n  -v\n\"\"\"", want: "web -v"},
		{src: `exec = ""`, says: "2:8: service.exec: must not be empty"},
		{src: `exec = []`, says: "2:8: service.exec: must not be empty"},
		{src: `exec = ["", "a"]`, says: "2:8: service.exec: must name a program, and its first word is empty"},
		{src: `exec = "a 'b"`, says: "2:8: service.exec: a closing ' is missing"},
		{src: `exec = "a\u0000b"`, says: "2:8: service.exec: cannot contain a NUL byte"},
		{src: `exec = 5`, says: "2:8: service.exec: must be a string or an array of strings, not the number 5"},
		{src: ``, says: "1:2: service.exec is missing: which command is to be run?"},
	} {
		s, _, problems := Parse("web.toml", []byte("[service]\n"+tt.src))
		got := ""
		if s != nil {
			got = s.Exec.String()
		}
		if says := strings.TrimSpace(report(problems)); got != tt.want || says != tt.says {
			t.Errorf("%s gives %s and says\n%s, want %s and\n%s", tt.src, got, says, tt.want, tt.says)
		}
	}
}

// The text of a default is what Default has.
func TestDefaultsAreAsDocumented(t *testing.T) {
	s := Default("web")
	s.Health, s.Xinet = defaultHealth(), defaultProxy()
	for _, f := range Fields() {
		if got := f.format(f.at(s)); f.Key != "name" && got != f.Default {
			t.Errorf("%s: the default is %s and documented as %s", f.name(), got, f.Default)
		}
	}
	if s := mustParse(t, "[service]\nexec = \"true\""); !reflect.DeepEqual(s.Diff(Default("web")), []string{"service.exec"}) {
		t.Errorf("an empty file differs from Default in %v", s.Diff(Default("web")))
	}
}

var update = flag.Bool("update", false, "rewrite the golden files; read the difference before you keep it")

// Every testdata/NAME.toml is read and gives the problems of NAME.golden.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, _, problems := Parse(filepath.Base(file), data)
		got := report(problems)
		golden := strings.TrimSuffix(file, ".toml") + ".golden"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s gives\n%s\nwant\n%s", file, got, want)
		}
	}
}
