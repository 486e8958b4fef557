package ipc

import (
	"fmt"
	"runtime"
)

// The link between pid1, which keeps all processes, and supervisord, which
// decides about them. pid1 opens it with KeeperHello, one Run message for each
// run it knows, one Fd message for each stored descriptor, and Ready; from
// then on both sides speak at will.

// RunID names one execution of one command of one service. supervisord gives
// it, from a counter that is saved before it is used, and never gives it
// twice: a signal or an exit can never hit another run than the one meant.
type RunID uint64

// Kinds on the keeper link. Numbers are never reused.
const (
	// supervisord to pid1
	KindSpawn  Kind = 16 // Spawn
	KindSignal Kind = 17 // Signal
	KindMain   Kind = 18 // Main
	KindAck    Kind = 19 // Ack
	KindForget Kind = 20 // Forget
	KindStore  Kind = 21 // Store; with one descriptor
	KindDrop   Kind = 22 // Drop
	KindHalt   Kind = 23 // Halt
	KindLeave  Kind = 24 // Leave
	KindShell  Kind = 25 // Shell
	KindBase   Kind = 26 // Base, if the hello had Bases
	// pid1 to supervisord
	KindRun         Kind = 32 // Run
	KindFd          Kind = 33 // Fd; with one descriptor
	KindReady       Kind = 34 // Ready
	KindSpawned     Kind = 35 // Spawned; with the read ends of its pipes, in order
	KindSpawnFailed Kind = 36 // SpawnFailed
	KindExited      Kind = 37 // Exited
	KindEmptied     Kind = 38 // Emptied
	KindRequested   Kind = 39 // Requested
)

// Mode is how zinit was started (spec: modes).
type Mode string

// The modes that pid1 tells its supervisor.
const (
	ModeStandalone Mode = "standalone"
	ModeContainer  Mode = "container"
	ModeVM         Mode = "vm"
)

// KeeperHello is pid1's hello.
type KeeperHello struct {
	Hello
	Mode Mode `msgpack:"mode"`
	// Pid is pid1's, StartTime its start in clock ticks since boot (proc(5),
	// field 22): a saved state belongs to one life of one pid1.
	Pid       int    `msgpack:"pid"`
	StartTime uint64 `msgpack:"start_time"`
	// Main is the main command of a container, if it has one.
	Main []string `msgpack:"main,omitempty"`
	// Restarts counts how often the supervisor was started again, and Down is
	// how long it had been away this time, in nanoseconds.
	Restarts int   `msgpack:"restarts,omitempty"`
	Down     int64 `msgpack:"down,omitempty"`
	// LastEnd says how the supervisor before this one ended.
	LastEnd string `msgpack:"last_end,omitempty"`
	// Bases says that this pid1 knows Base.
	Bases bool `msgpack:"bases,omitempty"`
}

// Base is what the environments of orders have in common, which is most of them and
// of the orders. It counts on this link for those that come after it.
type Base struct {
	Env Words `msgpack:"env,omitempty"`
}

// Spawn orders a process. pid1 answers Spawned or SpawnFailed; a Spawn with a
// run id that is in its table is answered from the table.
type Spawn struct {
	Run RunID `msgpack:"run"`
	// Tag is whose run it is, as the supervisor likes to say it: pid1 only
	// tells it again, and names it in messages.
	Tag string `msgpack:"tag"`
	// Argv is the command. A name without a slash is looked up in the PATH of
	// Env.
	Argv Words `msgpack:"argv"`
	// Env is the whole environment, KEY=value, or with Based what comes over that
	// of Base.
	Env   Words `msgpack:"env,omitempty"`
	Based bool  `msgpack:"based,omitempty"`
	// Dir is the working directory, "" for pid1's own.
	Dir string `msgpack:"dir,omitempty"`
	// Cred is the identity, nil for pid1's own.
	Cred *Cred `msgpack:"cred,omitempty"`
	// Umask of the process, nil for pid1's own.
	Umask *uint32 `msgpack:"umask,omitempty"`
	// Rlimits to set, soft and hard.
	Rlimits []Rlimit `msgpack:"rlimits,omitempty"`
	// Nice is the niceness, OOMScoreAdj what /proc/PID/oom_score_adj gets; nil
	// leaves them as inherited.
	Nice        *int `msgpack:"nice,omitempty"`
	OOMScoreAdj *int `msgpack:"oom_score_adj,omitempty"`
	// NoNewPrivs sets PR_SET_NO_NEW_PRIVS.
	NoNewPrivs bool `msgpack:"no_new_privs,omitempty"`
	// AmbientCaps are capability numbers to raise in the ambient set.
	AmbientCaps []int `msgpack:"ambient_caps,omitempty"`
	// Pipes are made by pid1: the child gets the write end, pid1 stores the
	// read end under its name and sends a duplicate with Spawned.
	Pipes []Pipe `msgpack:"pipes,omitempty"`
	// Fds gives stored descriptors to the child. With ListenNames, LISTEN_FDS,
	// LISTEN_FDNAMES and LISTEN_PID are set for them (sd_listen_fds(3)).
	Fds         []FdUse  `msgpack:"fds,omitempty"`
	ListenNames []string `msgpack:"listen_names,omitempty"`
	// Cgroup is the directory of a cgroup v2 that was made for this run alone,
	// "" for pid1's own cgroup.
	Cgroup string `msgpack:"cgroup,omitempty"`
	// CgroupLast has the exec helper, where one is needed, begin in pid1's own
	// cgroup: the helper itself might not fit into the limits.
	CgroupLast bool `msgpack:"cgroup_last,omitempty"`
	// Console runs the process on pid1's own stdin, stdout and stderr, in the
	// foreground of its terminal.
	Console bool `msgpack:"console,omitempty"`
	// Stdin gives the process pid1's own stdin, unless that is a terminal, which is
	// for who has it as a Console. All others read from /dev/null.
	Stdin bool `msgpack:"stdin,omitempty"`
	// Shell has /bin/sh run a file that is executable and of no format that the
	// kernel knows, as execvp(3) does.
	Shell bool `msgpack:"shell,omitempty"`
}

// Cred is a user, a group and the supplementary groups.
type Cred struct {
	UID    uint32   `msgpack:"uid"`
	GID    uint32   `msgpack:"gid"`
	Groups []uint32 `msgpack:"groups,omitempty"`
	// Name is the user's, for messages; "" if there is none.
	Name string `msgpack:"name,omitempty"`
}

// Rlimit is one setrlimit(2): resource number, soft and hard limit.
type Rlimit struct {
	Resource int    `msgpack:"resource"`
	Soft     uint64 `msgpack:"soft"`
	Hard     uint64 `msgpack:"hard"`
}

// Pipe asks for a pipe whose write end is descriptor Fd of the child.
type Pipe struct {
	Name string `msgpack:"name"`
	Fd   int    `msgpack:"fd"`
}

// FdUse makes a stored descriptor the child's descriptor Fd.
type FdUse struct {
	Name string `msgpack:"name"`
	Fd   int    `msgpack:"fd"`
}

// LogFd names the read end of a log pipe. It says all that a new supervisor
// has to know: a pipe may outlive its run in the hands of a grandchild.
func LogFd(run RunID, stream, service string) string {
	return fmt.Sprintf("log/%d/%s/%s", run, stream, service)
}

// Scope of a Signal.
type Scope string

// The scopes. In all of them the run must be in pid1's table.
const (
	// ScopeLeader is the main process alone, as long as it is not reaped.
	ScopeLeader Scope = "leader"
	// ScopeGroup is its process group.
	ScopeGroup Scope = "group"
	// ScopeAll is its process group, whatever else is left of its session,
	// and its cgroup where it has one.
	ScopeAll Scope = "all"
)

// Signal orders a signal. Where the run is over it does nothing.
type Signal struct {
	Run   RunID `msgpack:"run"`
	Sig   int   `msgpack:"sig"`
	Scope Scope `msgpack:"scope"`
}

// Main makes another child the leader of a run (MAINPID= of sd_notify).
type Main struct {
	Run RunID `msgpack:"run"`
	Pid int   `msgpack:"pid"`
}

// Ack says that the message with that number is saved.
type Ack struct {
	Seq uint64 `msgpack:"seq"`
}

// Forget ends the life of a run in the table, and acknowledges what was said of it. A
// run that has not exited is not forgotten.
type Forget struct {
	Run RunID `msgpack:"run"`
}

// Store keeps a duplicate of the descriptor that comes with it, replacing
// one of that name.
type Store struct {
	Name string `msgpack:"name"`
}

// Drop closes a stored descriptor.
type Drop struct {
	Name string `msgpack:"name"`
}

// HaltAction is how zinit ends.
type HaltAction string

// The actions. Outside of a VM all are an exit.
const (
	HaltExit     HaltAction = "exit"
	HaltPoweroff HaltAction = "poweroff"
	HaltReboot   HaltAction = "reboot"
	HaltSystem   HaltAction = "halt"
)

// HaltOf says how a signal to PID 1 of a machine ends it, if it does.
func HaltOf(signal int) (action HaltAction, ends bool) {
	const rtmin = 34                 // SIGRTMIN of programs, which the C library has moved
	linux := runtime.GOOS == "linux" // elsewhere 30 is SIGUSR1, and nothing is real-time
	switch {
	case signal == 15, linux && (signal == 30 || signal == rtmin+4): // SIGTERM, SIGPWR
		return HaltPoweroff, true
	case signal == 2, linux && signal == rtmin+5: // SIGINT, which is also Ctrl-Alt-Del
		return HaltReboot, true
	case linux && signal == rtmin+3:
		return HaltSystem, true
	}
	return "", false
}

// Shell asks for an emergency shell on the console of a machine. Where there is
// no console, or in a container, it only says why.
type Shell struct {
	// Cause names what has failed: for each cause one shell is opened, however
	// often it is asked for. The supervisor itself, which cannot start, is "".
	Cause  string `msgpack:"cause,omitempty"`
	Reason string `msgpack:"reason"`
}

// Halt ends zinit: pid1 ends whatever is left and exits or makes the system
// call.
type Halt struct {
	Action HaltAction `msgpack:"action"`
	Code   int        `msgpack:"code"`
}

// Leave says that the supervisor is about to exit so that another takes its
// place, which is no failure.
type Leave struct {
	Why string `msgpack:"why"`
}

// RunState is where a run of the table stands.
type RunState string

// The states of a run.
const (
	RunSpawning RunState = "spawning"
	RunRunning  RunState = "running"
	RunExited   RunState = "exited"
)

// Run tells of one run of the table, after a new supervisor has connected.
// A run that failed to spawn is not in the table.
type Run struct {
	Run   RunID    `msgpack:"run"`
	Tag   string   `msgpack:"tag"`
	State RunState `msgpack:"state"`
	// Spawned is set once it has been spawned, Exited once its leader ended.
	Spawned *Spawned `msgpack:"spawned,omitempty"`
	Exited  *Exited  `msgpack:"exited,omitempty"`
	// Emptied says that no process of it is left.
	Emptied bool `msgpack:"emptied,omitempty"`
	// Signals counts the Signal orders for it, done or not, so that the
	// supervisor can tell which it had sent when it died.
	Signals int `msgpack:"signals,omitempty"`
}

// Fd tells of one stored descriptor, which comes with it.
type Fd struct {
	Name string `msgpack:"name"`
}

// Ready ends what pid1 tells a new supervisor.
type Ready struct{}

// Spawned says that the program runs: execve has succeeded.
type Spawned struct {
	Run RunID `msgpack:"run"`
	Pid int   `msgpack:"pid"`
	// StartTime is the process's start in clock ticks since boot (proc(5),
	// field 22), At the time of the spawn in CLOCK_MONOTONIC nanoseconds.
	StartTime uint64 `msgpack:"start_time"`
	At        int64  `msgpack:"at"`
	// Pipes names the descriptors that come with the message, in order. In
	// Run it is empty.
	Pipes []string `msgpack:"pipes,omitempty"`
}

// Stages of a SpawnFailed.
const (
	StageDir    = "dir"    // entering the directory
	StageExec   = "exec"   // finding or executing the program
	StageFork   = "fork"   // making the process
	StageCred   = "user"   // changing the identity
	StageCgroup = "cgroup" // entering the cgroup
)

// SpawnFailed says that there is no process, and why. The run is not in the
// table any more.
type SpawnFailed struct {
	Run RunID `msgpack:"run"`
	// Stage is one of the stages, or the name of the limit that was refused.
	Stage string `msgpack:"stage"`
	// Path is the directory or program that it is about, if any.
	Path string `msgpack:"path,omitempty"`
	// Errno is the system's error number, 0 where there is none.
	Errno int `msgpack:"errno,omitempty"`
	// Message is the whole story in words.
	Message string `msgpack:"message"`
}

// Exited says that the leader of a run has ended. It is told until it is
// acknowledged or forgotten.
type Exited struct {
	Seq uint64 `msgpack:"seq"`
	Run RunID  `msgpack:"run"`
	// Code is the exit code, or Signal the signal that ended it.
	Code   int  `msgpack:"code"`
	Signal int  `msgpack:"signal,omitempty"`
	Core   bool `msgpack:"core,omitempty"`
	// Left says that processes of the run are left; Emptied will follow.
	Left bool `msgpack:"left,omitempty"`
	// Removed says that nothing was left, and its cgroup has been removed.
	Removed bool `msgpack:"removed,omitempty"`
	// At is the time in CLOCK_MONOTONIC nanoseconds.
	At int64 `msgpack:"at"`
	// CPU is the time used, user and system, in nanoseconds, MaxRSS the
	// largest resident set in bytes, of the leader and what it waited for.
	CPU    int64 `msgpack:"cpu,omitempty"`
	MaxRSS int64 `msgpack:"max_rss,omitempty"`
}

// Emptied says that the last process of a run has gone, after its leader.
type Emptied struct {
	Seq uint64 `msgpack:"seq"`
	Run RunID  `msgpack:"run"`
}

// Requested hands on a signal that pid1 got from outside. It is told until it
// is acknowledged.
type Requested struct {
	Seq    uint64 `msgpack:"seq"`
	Signal int    `msgpack:"signal"`
}
