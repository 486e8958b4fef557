// Package spec is the configuration of zinit: what a service, a target or a
// proxy is, how it is read from TOML and what makes it valid.
//
// Everything here is a pure function of its input or plain data that is not
// changed once made, so it may be used from any goroutine. Only LoadFile and
// LoadDir read files.
package spec

import "time"

// Kind says what a file describes.
type Kind string

// The kinds.
const (
	KindService Kind = "service"
	KindTarget  Kind = "target"
	KindProxy   Kind = "proxy"
)

// Status is what zinit does with a service on its own.
type Status string

// The values of status.
const (
	StatusStart  Status = "start"  // started at boot
	StatusStop   Status = "stop"   // started by hand, as a dependency or by a proxy
	StatusIgnore Status = "ignore" // only by hand
)

// Class protects system services from bulk commands.
type Class string

// The classes.
const (
	ClassUser   Class = "user"
	ClassSystem Class = "system"
)

// Restart is the policy after an end that nobody asked for.
type Restart string

// The restart policies.
const (
	RestartAlways    Restart = "always"
	RestartOnFailure Restart = "on-failure"
	RestartNever     Restart = "never"
)

// Ready is how a service says that it is up.
type Ready string

// The kinds of readiness.
const (
	ReadyExec   Ready = "exec"   // the program was executed
	ReadyHealth Ready = "health" // the health check passed
	ReadyNotify Ready = "notify" // sd_notify(3): READY=1
	ReadyFd     Ready = "fd"     // a newline on a descriptor, as s6 does
)

// OnExit is what the end of a service means for zinit.
type OnExit string

// The values of on_exit.
const (
	OnExitNone     OnExit = "none"
	OnExitShutdown OnExit = "shutdown"
)

// OnFull is what happens when a log file cannot keep up.
type OnFull string

// The values of on_full.
const (
	OnFullDrop  OnFull = "drop"
	OnFullBlock OnFull = "block"
)

// Service is the effective configuration of a service or a target, with all
// defaults filled in. It is plain data and is not changed once made.
type Service struct {
	Name string `msgpack:"name"`
	Kind Kind   `msgpack:"kind"`
	// File is where it comes from, "" for what was added at run time.
	File string `msgpack:"file,omitempty"`
	// Early says that it comes from the system directory: all services that do
	// not start as if they had after on it.
	Early bool `msgpack:"early,omitempty"`

	Oneshot  bool `msgpack:"oneshot,omitempty"`
	Critical bool `msgpack:"critical,omitempty"`
	Console  bool `msgpack:"console,omitempty"`

	Exec    Command  `msgpack:"exec,omitempty"`
	Dir     string   `msgpack:"dir,omitempty"`
	Status  Status   `msgpack:"status"`
	Class   Class    `msgpack:"class"`
	Env     []EnvVar `msgpack:"env,omitempty"` // sorted by name
	EnvFile []string `msgpack:"env_file,omitempty"`
	User    string   `msgpack:"user,omitempty"`
	Group   string   `msgpack:"group,omitempty"`
	Umask   *uint32  `msgpack:"umask,omitempty"`
	Ports   []uint16 `msgpack:"ports,omitempty"`

	Requires  []string `msgpack:"requires,omitempty"`
	After     []string `msgpack:"after,omitempty"`
	Wants     []string `msgpack:"wants,omitempty"`
	Conflicts []string `msgpack:"conflicts,omitempty"`

	// Lifecycle, Logging and Limits may be those of other services, too, see
	// Common. They are never nil.
	Lifecycle *Lifecycle `msgpack:"lifecycle"`
	Health    *Health    `msgpack:"health,omitempty"`
	Logging   *Logging   `msgpack:"logging"`
	Limits    *Limits    `msgpack:"limits"`
	// Xinet is the proxy of this service, if it has one.
	Xinet *Proxy `msgpack:"xinet,omitempty"`
}

// Command is a command before expansion: words whose ${NAME} are still to be
// replaced, but for those marked literal (what stood in single quotes).
type Command []Word

// Word is one argument, in parts that are expanded or left alone.
type Word []Part

// Part is a piece of a word.
type Part struct {
	Text    string `msgpack:"t"`
	Literal bool   `msgpack:"l,omitempty"`
}

// EnvVar is a variable: a value with ${NAME} still in it, or the file that
// holds its value.
type EnvVar struct {
	Name  string `msgpack:"name"`
	Value string `msgpack:"value,omitempty"`
	File  string `msgpack:"file,omitempty"`
}

// Lifecycle is how a service starts, ends and starts again.
type Lifecycle struct {
	Restart            Restart       `msgpack:"restart"`
	RestartDelay       time.Duration `msgpack:"restart_delay"`
	RestartDelayMax    time.Duration `msgpack:"restart_delay_max"`
	StabilityPeriod    time.Duration `msgpack:"stability_period"`
	MaxRestarts        int           `msgpack:"max_restarts,omitempty"` // 0 = unlimited
	SuccessExitCodes   []int         `msgpack:"success_exit_codes"`
	NoRestartExitCodes []int         `msgpack:"no_restart_exit_codes,omitempty"`
	StartTimeout       time.Duration `msgpack:"start_timeout"` // 0 = no limit
	StopTimeout        time.Duration `msgpack:"stop_timeout"`
	StopSignal         int           `msgpack:"stop_signal"`
	PreStart           Command       `msgpack:"pre_start,omitempty"`
	StopExec           Command       `msgpack:"stop_exec,omitempty"`
	Ready              Ready         `msgpack:"ready"`
	ReadyFd            int           `msgpack:"ready_fd"`
	Watchdog           time.Duration `msgpack:"watchdog,omitempty"` // 0 = none
	OnExit             OnExit        `msgpack:"on_exit"`
}

// HealthType is the kind of a probe.
type HealthType string

// The kinds of probes.
const (
	HealthTCP  HealthType = "tcp"
	HealthHTTP HealthType = "http"
	HealthExec HealthType = "exec"
	HealthUnix HealthType = "unix"
)

// Health is the probe of a service.
type Health struct {
	Type         HealthType        `msgpack:"type"`
	Endpoint     string            `msgpack:"endpoint,omitempty"`
	Command      Command           `msgpack:"command,omitempty"`
	Interval     time.Duration     `msgpack:"interval"`
	Timeout      time.Duration     `msgpack:"timeout"`
	Retries      int               `msgpack:"retries"`
	StartPeriod  time.Duration     `msgpack:"start_period,omitempty"`
	ExpectStatus []int             `msgpack:"expect_status,omitempty"` // empty = any 2xx or 3xx
	Method       string            `msgpack:"method,omitempty"`
	Headers      map[string]string `msgpack:"headers,omitempty"`
	Insecure     bool              `msgpack:"insecure,omitempty"`
}

// Logging is what is kept of the output of a service.
type Logging struct {
	BufferLines int    `msgpack:"buffer_lines"`
	File        string `msgpack:"file,omitempty"`
	MaxSize     int64  `msgpack:"max_size"` // bytes
	MaxFiles    int    `msgpack:"max_files"`
	OnFull      OnFull `msgpack:"on_full"`
}

// Unlimited is the value of an rlimit without a limit (RLIM_INFINITY).
const Unlimited = ^uint64(0)

// Limits are what the system holds a service to. nil leaves as inherited.
type Limits struct {
	NoFile  *uint64 `msgpack:"nofile,omitempty"`
	NProc   *uint64 `msgpack:"nproc,omitempty"`
	Core    *uint64 `msgpack:"core,omitempty"`
	MemLock *uint64 `msgpack:"memlock,omitempty"`
	Stack   *uint64 `msgpack:"stack,omitempty"`
	AS      *uint64 `msgpack:"as,omitempty"`
	// MemoryMax in bytes, CPUMax in cores, PidsMax in processes; 0 = none.
	MemoryMax    int64    `msgpack:"memory_max,omitempty"`
	CPUMax       float64  `msgpack:"cpu_max,omitempty"`
	PidsMax      int      `msgpack:"pids_max,omitempty"`
	OOMScoreAdj  *int     `msgpack:"oom_score_adj,omitempty"`
	Nice         *int     `msgpack:"nice,omitempty"`
	NoNewPrivs   bool     `msgpack:"no_new_privs,omitempty"`
	Capabilities []string `msgpack:"capabilities,omitempty"` // lower case, without CAP_
}

// ProxyMode is who accepts the connections.
type ProxyMode string

// The modes of a proxy.
const (
	ProxyForward ProxyMode = "proxy" // zinit-proxyd accepts and forwards
	ProxyPass    ProxyMode = "pass"  // the service gets the listeners
)

// Proxy is socket activation, of a service file or of a file of its own.
type Proxy struct {
	Name             string        `msgpack:"name"`
	Service          string        `msgpack:"service"`
	File             string        `msgpack:"file,omitempty"`
	Listen           []Address     `msgpack:"listen"`
	Backend          Address       `msgpack:"backend,omitempty"`
	Mode             ProxyMode     `msgpack:"mode"`
	ConnectTimeout   time.Duration `msgpack:"connect_timeout"`
	IdleTimeout      time.Duration `msgpack:"idle_timeout,omitempty"` // 0 = never
	SingleConnection bool          `msgpack:"single_connection,omitempty"`
	SocketMode       uint32        `msgpack:"socket_mode"`
	SocketUser       string        `msgpack:"socket_user,omitempty"`
	SocketGroup      string        `msgpack:"socket_group,omitempty"`
}

// Passed are the addresses whose listeners a service gets by its own file.
func (s *Service) Passed() []Address {
	if s.Xinet == nil || s.Xinet.Mode != ProxyPass {
		return nil
	}
	return s.Xinet.Listen
}

// Address is where a proxy listens or connects: network "tcp" with host:port,
// or network "unix" with a path.
type Address struct {
	Network string `msgpack:"network"`
	Address string `msgpack:"address"`
}

// Plan is a whole configuration: all services by name and all proxies by
// name, each valid on its own.
type Plan struct {
	Services map[string]*Service
	Proxies  map[string]*Proxy
}

// Problem is an error or a warning about a file.
type Problem struct {
	File    string `json:"file" msgpack:"file"`
	Line    int    `json:"line,omitempty" msgpack:"line,omitempty"`     // from 1; 0 = the file as a whole
	Column  int    `json:"column,omitempty" msgpack:"column,omitempty"` // from 1, in bytes
	Message string `json:"message" msgpack:"message"`
	// Service is the name that the file would have had.
	Service string `json:"-" msgpack:"service,omitempty"`
	// Between says that the file alone is right: what is wrong is between it and
	// another. At boot it is in effect all the same, as far as it can be.
	Between bool `json:"-" msgpack:"between,omitempty"`
}
