package spec

import (
	"math"
	"strings"
	"time"
)

// Type is what the value of a field is in a file.
type Type uint8

// The types of fields.
const (
	TypeString Type = iota
	TypeName
	TypeBool
	TypeInt
	TypeFloat
	TypeMillis  // a time.Duration, written in milliseconds
	TypeSeconds // a time.Duration, written in seconds
	TypeSize    // bytes: a number or "10MiB"
	TypeMode    // "022": permission bits in octal
	TypeSignal
	TypeRlimit // a number or "unlimited"
	TypeID     // a user or a group: a name or a number
	TypeEnum
	TypeCommand // a string that is split, or an array of words
	TypeNames   // an array of names of services
	TypeStrings
	TypeInts
	TypePorts
	TypeCapabilities
	TypeEnv     // a table of strings and { file = "…" }
	TypeHeaders // a table of strings
	TypeAddress
	TypeAddresses
)

// String says what a value of the type is, as in "must be …".
func (t Type) String() string {
	switch t {
	case TypeName:
		return "a name"
	case TypeBool:
		return "true or false"
	case TypeInt:
		return "a whole number"
	case TypeFloat:
		return "a number"
	case TypeMillis:
		return "a whole number of milliseconds"
	case TypeSeconds:
		return "a whole number of seconds"
	case TypeSize:
		return `a size such as "10MiB", or a number of bytes`
	case TypeMode:
		return `a string of octal digits such as "022"`
	case TypeSignal:
		return `a signal such as "SIGTERM", or its number`
	case TypeRlimit:
		return `a number, or "unlimited"`
	case TypeID:
		return "a name or a number"
	case TypeCommand:
		return "a string or an array of strings"
	case TypeNames:
		return "an array of names"
	case TypeStrings, TypeCapabilities:
		return "an array of strings"
	case TypeInts:
		return "an array of whole numbers"
	case TypePorts:
		return "an array of port numbers"
	case TypeEnv:
		return `a table of strings, { KEY = "value" }`
	case TypeHeaders:
		return `a table of strings, { Name = "value" }`
	case TypeAddress:
		return `an address such as "tcp:127.0.0.1:5432" or "unix:/run/db.sock"`
	case TypeAddresses:
		return `an array of addresses such as "tcp:127.0.0.1:5432" or "unix:/run/db.sock"`
	default:
		return "a string"
	}
}

// Field is a key of a file: all that the parser, the documentation and the
// commands that print configuration know about it.
type Field struct {
	Table, Key string
	Type       Type
	// Values of TypeEnum, separated by spaces.
	Values string
	// Min and Max bound numbers, and each one of TypeInts.
	Min, Max int64
	// Default is the value as TOML where there is none in the file; "" = none.
	Default string
	Doc     string

	// at points at the value in a service whose Health and Xinet are not nil.
	at func(s *Service) any
}

// Fields returns all fields, table by table in the order in which they are
// shown. It must not be changed.
func Fields() []Field { return fields[:] }

// maxTime of a duration in a file: a year, in milliseconds or seconds.
const (
	yearSeconds = 365 * 24 * 60 * 60
	yearMillis  = yearSeconds * 1000
)

// The fields are constant data to the linker: nothing runs at start.
var fields = [...]Field{
	{Table: "service", Key: "name", Type: TypeName,
		Doc: "the name; default: the file name without .toml",
		at:  func(s *Service) any { return &s.Name }},
	{Table: "service", Key: "exec", Type: TypeCommand,
		Doc: "the command (required); a string is split in words as a shell does, in an array each string is a word",
		at:  func(s *Service) any { return &s.Exec }},
	{Table: "service", Key: "dir", Type: TypeString,
		Doc: "the working directory; default: the supervisor's",
		at:  func(s *Service) any { return &s.Dir }},
	{Table: "service", Key: "oneshot", Type: TypeBool, Default: "false",
		Doc: "run once; exit 0 is success",
		at:  func(s *Service) any { return &s.Oneshot }},
	{Table: "service", Key: "status", Type: TypeEnum, Values: "start stop ignore", Default: `"start"`,
		Doc: "start: started at boot; stop: by hand, as a dependency or by a proxy; ignore: only by hand",
		at:  func(s *Service) any { return (*string)(&s.Status) }},
	{Table: "service", Key: "class", Type: TypeEnum, Values: "user system", Default: `"user"`,
		Doc: "system services are left alone by start-all, stop-all and delete-all",
		at:  func(s *Service) any { return (*string)(&s.Class) }},
	{Table: "service", Key: "critical", Type: TypeBool, Default: "false",
		Doc: "its final failure opens an emergency shell (VM) or shuts zinit down with exit code 1 (container)",
		at:  func(s *Service) any { return &s.Critical }},
	{Table: "service", Key: "env", Type: TypeEnv, Default: "{}",
		Doc: "variables added to the supervisor's own; { file = PATH } is read at each start",
		at:  func(s *Service) any { return &s.Env }},
	{Table: "service", Key: "env_file", Type: TypeStrings, Default: "[]",
		Doc: "files of KEY=value lines; one whose path begins with - may be missing",
		at:  func(s *Service) any { return &s.EnvFile }},
	{Table: "service", Key: "console", Type: TypeBool, Default: "false",
		Doc: "stdin, stdout, stderr and the terminal are zinit's own, nothing is captured",
		at:  func(s *Service) any { return &s.Console }},
	{Table: "service", Key: "user", Type: TypeID,
		Doc: "name or uid; default: the supervisor's",
		at:  func(s *Service) any { return &s.User }},
	{Table: "service", Key: "group", Type: TypeID,
		Doc: "name or gid; default: the user's",
		at:  func(s *Service) any { return &s.Group }},
	{Table: "service", Key: "umask", Type: TypeMode,
		Doc: "file mode creation mask in octal; default: the supervisor's",
		at:  func(s *Service) any { return &s.Umask }},
	{Table: "service", Key: "ports", Type: TypePorts, Default: "[]",
		Doc: "TCP ports that the service binds; it does not start while one is in use",
		at:  func(s *Service) any { return &s.Ports }},

	{Table: "target", Key: "name", Type: TypeName,
		Doc: "the name; default: the file name without .toml",
		at:  func(s *Service) any { return &s.Name }},
	{Table: "target", Key: "status", Type: TypeEnum, Values: "start stop ignore", Default: `"start"`,
		Doc: "as of a service",
		at:  func(s *Service) any { return (*string)(&s.Status) }},
	{Table: "target", Key: "class", Type: TypeEnum, Values: "user system", Default: `"user"`,
		Doc: "as of a service",
		at:  func(s *Service) any { return (*string)(&s.Class) }},

	{Table: "dependencies", Key: "requires", Type: TypeNames, Default: "[]",
		Doc: "waits until these are up; fails when one has failed for good",
		at:  func(s *Service) any { return &s.Requires }},
	{Table: "dependencies", Key: "after", Type: TypeNames, Default: "[]",
		Doc: "waits until these have been attempted; ordering only",
		at:  func(s *Service) any { return &s.After }},
	{Table: "dependencies", Key: "wants", Type: TypeNames, Default: "[]",
		Doc: "starts these too, and does not wait for them",
		at:  func(s *Service) any { return &s.Wants }},
	{Table: "dependencies", Key: "conflicts", Type: TypeNames, Default: "[]",
		Doc: "never runs at the same time as one of these",
		at:  func(s *Service) any { return &s.Conflicts }},

	{Table: "lifecycle", Key: "restart", Type: TypeEnum, Values: "always on-failure never", Default: `"on-failure"`,
		Doc: "when it is started again after an end that nobody asked for",
		at:  func(s *Service) any { return (*string)(&s.Lifecycle.Restart) }},
	{Table: "lifecycle", Key: "restart_delay_ms", Type: TypeMillis, Max: yearMillis, Default: "1000",
		Doc: "before the first restart; doubles at each restart in a row; never less than 100 ms after the last start",
		at:  func(s *Service) any { return &s.Lifecycle.RestartDelay }},
	{Table: "lifecycle", Key: "restart_delay_max_ms", Type: TypeMillis, Max: yearMillis, Default: "60000",
		Doc: "the delay grows up to this; default: restart_delay_ms where that is more",
		at:  func(s *Service) any { return &s.Lifecycle.RestartDelayMax }},
	{Table: "lifecycle", Key: "stability_period_ms", Type: TypeMillis, Max: yearMillis, Default: "10000",
		Doc: "having run this long resets the delay and the count",
		at:  func(s *Service) any { return &s.Lifecycle.StabilityPeriod }},
	{Table: "lifecycle", Key: "max_restarts", Type: TypeInt, Max: math.MaxInt32, Default: "0",
		Doc: "after so many restarts in a row it stays failed; 0 = unlimited; default 5 for a critical service",
		at:  func(s *Service) any { return &s.Lifecycle.MaxRestarts }},
	{Table: "lifecycle", Key: "success_exit_codes", Type: TypeInts, Max: 255, Default: "[0]",
		Doc: "ends that count as clean",
		at:  func(s *Service) any { return &s.Lifecycle.SuccessExitCodes }},
	{Table: "lifecycle", Key: "no_restart_exit_codes", Type: TypeInts, Max: 255, Default: "[]",
		Doc: "ends after which it is never restarted",
		at:  func(s *Service) any { return &s.Lifecycle.NoRestartExitCodes }},
	{Table: "lifecycle", Key: "start_timeout_ms", Type: TypeMillis, Max: yearMillis, Default: "30000",
		Doc: "from spawn to ready, with the time that pre_start takes; 0 = no limit, the default of a oneshot",
		at:  func(s *Service) any { return &s.Lifecycle.StartTimeout }},
	{Table: "lifecycle", Key: "stop_timeout_ms", Type: TypeMillis, Max: yearMillis, Default: "10000",
		Doc: "from the stop signal to SIGKILL; 0 = SIGKILL at once, without stop_exec",
		at:  func(s *Service) any { return &s.Lifecycle.StopTimeout }},
	{Table: "lifecycle", Key: "stop_signal", Type: TypeSignal, Default: `"SIGTERM"`,
		Doc: "with or without SIG, or a number",
		at:  func(s *Service) any { return &s.Lifecycle.StopSignal }},
	{Table: "lifecycle", Key: "pre_start", Type: TypeCommand,
		Doc: "a command that must succeed first",
		at:  func(s *Service) any { return &s.Lifecycle.PreStart }},
	{Table: "lifecycle", Key: "stop_exec", Type: TypeCommand,
		Doc: "a command to stop it, run before the signal; it has stop_timeout_ms for itself",
		at:  func(s *Service) any { return &s.Lifecycle.StopExec }},
	{Table: "lifecycle", Key: "ready", Type: TypeEnum, Values: "exec health notify fd", Default: `"exec"`,
		Doc: "how it says that it is up; default health where there is [health]",
		at:  func(s *Service) any { return (*string)(&s.Lifecycle.Ready) }},
	{Table: "lifecycle", Key: "ready_fd", Type: TypeInt, Min: 3, Max: 1023, Default: "3",
		Doc: `with ready = "fd": the descriptor to which it writes a newline`,
		at:  func(s *Service) any { return &s.Lifecycle.ReadyFd }},
	{Table: "lifecycle", Key: "watchdog_ms", Type: TypeMillis, Max: yearMillis, Default: "0",
		Doc: `with ready = "notify": WATCHDOG=1 must come this often; 0 = no watchdog`,
		at:  func(s *Service) any { return &s.Lifecycle.Watchdog }},
	{Table: "lifecycle", Key: "on_exit", Type: TypeEnum, Values: "none shutdown", Default: `"none"`,
		Doc: "shutdown: when it has ended for good, zinit shuts down with its exit code",
		at:  func(s *Service) any { return (*string)(&s.Lifecycle.OnExit) }},

	{Table: "health", Key: "type", Type: TypeEnum, Values: "tcp http exec unix",
		Doc: "the kind of probe (required)",
		at:  func(s *Service) any { return (*string)(&s.Health.Type) }},
	{Table: "health", Key: "endpoint", Type: TypeString,
		Doc: `http: a URL, or "unix:/path:/url"; tcp: "host:port"; unix: a socket path`,
		at:  func(s *Service) any { return &s.Health.Endpoint }},
	{Table: "health", Key: "command", Type: TypeCommand,
		Doc: "exec: healthy when it exits with 0",
		at:  func(s *Service) any { return &s.Health.Command }},
	{Table: "health", Key: "interval_ms", Type: TypeMillis, Min: 1, Max: yearMillis, Default: "10000",
		Doc: "between two probes",
		at:  func(s *Service) any { return &s.Health.Interval }},
	{Table: "health", Key: "timeout_ms", Type: TypeMillis, Min: 1, Max: yearMillis, Default: "5000",
		Doc: "of one probe",
		at:  func(s *Service) any { return &s.Health.Timeout }},
	{Table: "health", Key: "retries", Type: TypeInt, Min: 1, Max: math.MaxInt32, Default: "3",
		Doc: "so many failures in a row stop the service, and the restart policy applies",
		at:  func(s *Service) any { return &s.Health.Retries }},
	{Table: "health", Key: "start_period_ms", Type: TypeMillis, Max: yearMillis, Default: "0",
		Doc: "failures do not count so long after it became ready",
		at:  func(s *Service) any { return &s.Health.StartPeriod }},
	{Table: "health", Key: "expect_status", Type: TypeInts, Min: 100, Max: 599, Default: "[]",
		Doc: "http: the status codes that are healthy; default any 2xx or 3xx",
		at:  func(s *Service) any { return &s.Health.ExpectStatus }},
	{Table: "health", Key: "method", Type: TypeString,
		Doc: "http: default GET",
		at:  func(s *Service) any { return &s.Health.Method }},
	{Table: "health", Key: "headers", Type: TypeHeaders, Default: "{}",
		Doc: "http: headers of the request",
		at:  func(s *Service) any { return &s.Health.Headers }},
	{Table: "health", Key: "insecure", Type: TypeBool, Default: "false",
		Doc: "https: the certificate is not verified",
		at:  func(s *Service) any { return &s.Health.Insecure }},

	{Table: "logging", Key: "buffer_lines", Type: TypeInt, Max: math.MaxInt32, Default: "1000",
		Doc: "lines kept for zinit logs; 0 = none",
		at:  func(s *Service) any { return &s.Logging.BufferLines }},
	{Table: "logging", Key: "file", Type: TypeString,
		Doc: "an absolute path: also written there, in CRI format, by zinit's own user with mode 0640; the directory has to exist, an existing file keeps its owner and mode; a symbolic link and what is no regular file, such as a FIFO or /dev/stdout, are refused",
		at:  func(s *Service) any { return &s.Logging.File }},
	{Table: "logging", Key: "max_size", Type: TypeSize, Min: 1, Default: `"10MiB"`,
		Doc: "at this size the file is renamed to FILE.1, that to FILE.2 and so on",
		at:  func(s *Service) any { return &s.Logging.MaxSize }},
	{Table: "logging", Key: "max_files", Type: TypeInt, Max: 1000, Default: "5",
		Doc: "rotated files kept, FILE.1 being the newest",
		at:  func(s *Service) any { return &s.Logging.MaxFiles }},
	{Table: "logging", Key: "on_full", Type: TypeEnum, Values: "drop block", Default: `"drop"`,
		Doc: "when the file cannot keep up: drop lines and say in it how many, or block the service until it can",
		at:  func(s *Service) any { return (*string)(&s.Logging.OnFull) }},

	{Table: "limits", Key: "nofile", Type: TypeRlimit, Doc: "rlimit: open files",
		at: func(s *Service) any { return &s.Limits.NoFile }},
	{Table: "limits", Key: "nproc", Type: TypeRlimit, Doc: "rlimit: processes of the user",
		at: func(s *Service) any { return &s.Limits.NProc }},
	{Table: "limits", Key: "core", Type: TypeRlimit, Doc: "rlimit: bytes of a core dump",
		at: func(s *Service) any { return &s.Limits.Core }},
	{Table: "limits", Key: "memlock", Type: TypeRlimit, Doc: "rlimit: bytes locked in memory",
		at: func(s *Service) any { return &s.Limits.MemLock }},
	{Table: "limits", Key: "stack", Type: TypeRlimit, Doc: "rlimit: bytes of the stack",
		at: func(s *Service) any { return &s.Limits.Stack }},
	{Table: "limits", Key: "as", Type: TypeRlimit, Doc: "rlimit: bytes of address space",
		at: func(s *Service) any { return &s.Limits.AS }},
	{Table: "limits", Key: "memory_max", Type: TypeSize, Doc: "cgroup: memory, without any swap beyond it; over it the whole service is killed; 0 = no limit",
		at: func(s *Service) any { return &s.Limits.MemoryMax }},
	{Table: "limits", Key: "cpu_max", Type: TypeFloat, Max: 1 << 16, Doc: "cgroup: CPU cores, such as 0.5; it waits when they are used up; 0 = no limit",
		at: func(s *Service) any { return &s.Limits.CPUMax }},
	{Table: "limits", Key: "pids_max", Type: TypeInt, Max: math.MaxInt32, Doc: "cgroup: processes and threads; no more can be made; 0 = no limit",
		at: func(s *Service) any { return &s.Limits.PidsMax }},
	{Table: "limits", Key: "oom_score_adj", Type: TypeInt, Min: -1000, Max: 1000,
		Doc: "-1000: never killed for lack of memory; 1000: first",
		at:  func(s *Service) any { return &s.Limits.OOMScoreAdj }},
	{Table: "limits", Key: "nice", Type: TypeInt, Min: -20, Max: 19, Doc: "scheduling priority",
		at: func(s *Service) any { return &s.Limits.Nice }},
	{Table: "limits", Key: "no_new_privs", Type: TypeBool, Default: "false",
		Doc: "neither it nor its children gain privileges by execve(2)",
		at:  func(s *Service) any { return &s.Limits.NoNewPrivs }},
	{Table: "limits", Key: "capabilities", Type: TypeCapabilities, Default: "[]",
		Doc: `ambient capabilities of a service with a user, such as "net_bind_service"`,
		at:  func(s *Service) any { return &s.Limits.Capabilities }},

	{Table: "xinet", Key: "name", Type: TypeName,
		Doc: "the name of the proxy; that of the service in a service's file",
		at:  func(s *Service) any { return &s.Xinet.Name }},
	{Table: "xinet", Key: "service", Type: TypeName,
		Doc: "the service to start at the first connection; in a service's file, that one",
		at:  func(s *Service) any { return &s.Xinet.Service }},
	{Table: "xinet", Key: "listen", Type: TypeAddresses,
		Doc: "one or more of host:port, tcp:host:port, tcp:[v6]:port, unix:/path (required)",
		at:  func(s *Service) any { return &s.Xinet.Listen }},
	{Table: "xinet", Key: "backend", Type: TypeAddress,
		Doc: `where the service answers (required unless mode = "pass")`,
		at:  func(s *Service) any { return &s.Xinet.Backend }},
	{Table: "xinet", Key: "mode", Type: TypeEnum, Values: "proxy pass", Default: `"proxy"`,
		Doc: "proxy: zinit accepts and forwards; pass: the service gets the listening sockets",
		at:  func(s *Service) any { return (*string)(&s.Xinet.Mode) }},
	{Table: "xinet", Key: "connect_timeout", Type: TypeSeconds, Min: 1, Max: yearSeconds, Default: "30",
		Doc: "start and backend answer within so many seconds, else the client is closed",
		at:  func(s *Service) any { return &s.Xinet.ConnectTimeout }},
	{Table: "xinet", Key: "idle_timeout", Type: TypeSeconds, Max: yearSeconds, Default: "0",
		Doc: "the service is stopped after so many seconds without a connection; 0 = never",
		at:  func(s *Service) any { return &s.Xinet.IdleTimeout }},
	{Table: "xinet", Key: "single_connection", Type: TypeBool, Default: "false",
		Doc: "a second client is refused while one is connected",
		at:  func(s *Service) any { return &s.Xinet.SingleConnection }},
	{Table: "xinet", Key: "socket_mode", Type: TypeMode, Default: `"0666"`,
		Doc: "of a unix listener, in octal",
		at:  func(s *Service) any { return &s.Xinet.SocketMode }},
	{Table: "xinet", Key: "socket_user", Type: TypeID,
		Doc: "of a unix listener: name or uid; default: the supervisor's",
		at:  func(s *Service) any { return &s.Xinet.SocketUser }},
	{Table: "xinet", Key: "socket_group", Type: TypeID,
		Doc: "of a unix listener: name or gid; default: the supervisor's",
		at:  func(s *Service) any { return &s.Xinet.SocketGroup }},
}

// tableFields are the fields of one table, nil if there is no such table.
func tableFields(table string) []Field {
	for i := range fields {
		if fields[i].Table == table {
			j := i
			for j < len(fields) && fields[j].Table == table {
				j++
			}
			return fields[i:j]
		}
	}
	return nil
}

// tableNames of all tables, in the order in which they are shown.
func tableNames() []string {
	return strings.Fields("service target dependencies lifecycle health logging limits xinet")
}

// Default is a service with all defaults filled in and no command.
func Default(name string) *Service {
	return &Service{
		Name:   name,
		Kind:   KindService,
		Status: StatusStart,
		Class:  ClassUser,
		Lifecycle: &Lifecycle{
			Restart:          RestartOnFailure,
			RestartDelay:     time.Second,
			RestartDelayMax:  time.Minute,
			StabilityPeriod:  10 * time.Second,
			SuccessExitCodes: []int{0},
			StartTimeout:     30 * time.Second,
			StopTimeout:      10 * time.Second,
			StopSignal:       15, // SIGTERM everywhere
			Ready:            ReadyExec,
			ReadyFd:          3,
			OnExit:           OnExitNone,
		},
		Logging: &Logging{BufferLines: 1000, MaxSize: 10 << 20, MaxFiles: 5, OnFull: OnFullDrop},
		Limits:  &Limits{},
	}
}

func defaultHealth() *Health {
	return &Health{Interval: 10 * time.Second, Timeout: 5 * time.Second, Retries: 3}
}

func defaultProxy() *Proxy {
	return &Proxy{Mode: ProxyForward, ConnectTimeout: 30 * time.Second, SocketMode: 0o666}
}

// FillDefaults sets the defaults that depend on other fields, but for those
// that were set on purpose, by the name of the field such as "lifecycle.ready".
// The parser calls it; so must who makes a service from flags.
func (s *Service) FillDefaults(isSet func(field string) bool) { s.fill(s, isSet) }

// fill sets the defaults that depend on fields of another service, or of s
// itself.
func (s *Service) fill(of *Service, isSet func(field string) bool) {
	l := s.Lifecycle
	if of.Critical && !isSet("lifecycle.max_restarts") {
		l.MaxRestarts = 5
	}
	if of.Oneshot && !isSet("lifecycle.start_timeout_ms") {
		l.StartTimeout = 0
	}
	if !isSet("lifecycle.restart_delay_max_ms") {
		l.RestartDelayMax = max(l.RestartDelayMax, of.Lifecycle.RestartDelay)
	}
	if of.Health != nil && !isSet("lifecycle.ready") {
		l.Ready = ReadyHealth
	}
	if of.Health != nil && of.Health.Type == HealthHTTP && !isSet("health.method") {
		s.Health.Method = "GET"
	}
}

// defaults has the tables that s has, with the values that fields have in s
// when nothing sets them.
func (s *Service) defaults() *Service {
	d := Default("")
	if s.Health != nil {
		d.Health = defaultHealth()
	}
	d.fill(s, func(string) bool { return false })
	if s.Xinet != nil {
		d.Xinet = defaultProxy()
		if s.Kind == KindService {
			d.Xinet.Name, d.Xinet.Service = s.Name, s.Name
		}
	}
	return d
}
