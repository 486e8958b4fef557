package core

import "github.com/threefoldtech/zinit/common/spec"

// RunID names one execution of one command of one service; it is never used
// twice.
type RunID uint64

// Event is something that the core learns.
type Event interface{ event() }

// Boot asks for all services that are to be started at boot.
type Boot struct{}

// Op is what a wish is for.
type Op uint8

// The wishes.
const (
	OpStart Op = iota
	OpStop
	OpRestart
)

// Wish is what a person or a client wants of services.
type Wish struct {
	Op    Op
	Names []string
}

// Kill asks for a signal to the process group of a service. It is no stop:
// the restart policy applies to what follows.
type Kill struct {
	Name   string
	Signal int
}

// Spawned says that the program of a run was executed.
type Spawned struct {
	Run       RunID
	Pid       int
	StartTime uint64 // clock ticks since boot, proc(5)
}

// SpawnFailed says that there is no process for a run, and why.
type SpawnFailed struct {
	Run     RunID
	Message string
	// Code is what a shell would exit with: 127 not found, 126 not executable.
	Code int
	// Config says that it lies in the configuration, so that trying again
	// would be of no use.
	Config bool
	// Port is the TCP port that somebody else has, if that is why; Pid and
	// Command are that process, as far as it is known.
	Port    uint16
	Pid     int
	Command string
}

// Exited says that the leader of a run has ended. With Left, processes of it
// are still there, and Emptied will follow.
type Exited struct {
	Run  RunID
	End  End
	Left bool
}

// End is how a process ended: by an exit code, or by a signal.
type End struct {
	Code   int  `msgpack:"code"`
	Signal int  `msgpack:"signal,omitempty"`
	Core   bool `msgpack:"core,omitempty"`
	OOM    bool `msgpack:"oom,omitempty"`
	At     Time `msgpack:"at"`
}

// Emptied says that no process of a run is left.
type Emptied struct{ Run RunID }

// Ready says that the service of a run is up.
type Ready struct{ Run RunID }

// Notify is what else a service said of itself by sd_notify(3).
type Notify struct {
	Run RunID
	// Status is its STATUS= text, nil where it said nothing.
	Status *string
	// Alive is WATCHDOG=1; Trigger is WATCHDOG=trigger.
	Alive, Trigger bool
	// Extend is EXTEND_TIMEOUT_USEC=, in nanoseconds.
	Extend Time
	// MainPid is MAINPID=, 0 where it said nothing. It counts after Spawned.
	MainPid int
	// MainStart is the start time of that process, in clock ticks since boot.
	MainStart uint64
}

// Stop ends zinit: all services are stopped in reverse order.
type Stop struct {
	Action string // exit, poweroff, reboot, halt
	Code   int
	// Within bounds the whole, in nanoseconds.
	Within Time
	// MainSignal is what the main command is stopped with, 0 for its own stop
	// signal.
	MainSignal int
	// Hurry kills what is left at once, when a stop is already under way.
	Hurry bool
}

// Requested is what a signal to zinit asks for, nil if that is nothing for the
// core. pid1 numbers them in ascending order and tells each until it is
// acknowledged, maybe to more than one supervisor: it counts once.
type Requested struct {
	Seq   uint64
	Event Event
}

// Tick says that time has passed.
type Tick struct{}

func (Boot) event()        {}
func (Wish) event()        {}
func (Kill) event()        {}
func (Spawned) event()     {}
func (SpawnFailed) event() {}
func (Exited) event()      {}
func (Emptied) event()     {}
func (Ready) event()       {}
func (Notify) event()      {}
func (Stop) event()        {}
func (Requested) event()   {}
func (Tick) event()        {}

// Action is something that the core wants done.
type Action interface{ action() }

// Role is what a run is for.
type Role uint8

// The roles of runs.
const (
	RoleMain Role = iota // the service itself
	RolePre              // its pre_start
	RoleStop             // its stop_exec
)

func (r Role) String() string {
	switch r {
	case RoleMain:
		return "main"
	case RolePre:
		return "pre_start"
	case RoleStop:
		return "stop_exec"
	}
	return "?"
}

// Spawn asks for a process.
type Spawn struct {
	Run     RunID
	Role    Role
	Service *spec.Service
	// MainPid is the pid of the service, for stop_exec.
	MainPid int
}

// Scope is whom a Signal is for.
type Scope uint8

// The scopes.
const (
	ScopeGroup Scope = iota // the process group
	ScopeAll                // all that is left of the run
)

// Signal asks for a signal to a run.
type Signal struct {
	Run    RunID
	Signal int
	Scope  Scope
}

// Forget says that all is known about a run.
type Forget struct{ Run RunID }

// SetMain makes another process the leader of a run.
type SetMain struct {
	Run RunID
	Pid int
}

// Changed says that a service has gone from one state to another.
type Changed struct {
	Service  string
	From, To State
	Pid      int
	Reason   *Reason
	// Run is the newest run of its start, 0 if it never had one. Decision says
	// of a failure what follows from it, in words.
	Run      RunID
	Decision string
	// Removed says that it is no more.
	Removed bool
}

// Shell asks for an emergency shell because of the failure of a service. It is
// said again after a crash; Run tells whether it is the same failure.
type Shell struct {
	Service string
	Run     RunID
	Reason  string
}

// Warn says what went wrong with a service without being a failure of it.
type Warn struct {
	Service string
	Message string
}

// Halt says that all services are down and zinit is to end.
type Halt struct {
	Action string
	Code   int
}

func (Spawn) action()   {}
func (Signal) action()  {}
func (Forget) action()  {}
func (SetMain) action() {}
func (Changed) action() {}
func (Shell) action()   {}
func (Warn) action()    {}
func (Halt) action()    {}
