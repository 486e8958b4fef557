package ipc

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// The link between a client and supervisord: requests by number, answered by
// a result, an error, or items and an end. docs/ipc.md describes it for other
// languages; the JSON of the zinit command is the same maps.

// Kinds on the control link. Numbers are never reused.
const (
	KindRequest  Kind = 1 // Request
	KindResponse Kind = 2 // Response
	KindError    Kind = 3 // ErrorAnswer
	KindItem     Kind = 4 // Item
	KindEnd      Kind = 5 // End
	KindCancel   Kind = 6 // Cancel
)

// Request asks for something. Ids are the client's own, unique among its
// unanswered requests.
type Request struct {
	ID     uint64 `msgpack:"id"`
	Method string `msgpack:"method"`
	// Params is the map of parameters, still encoded when received.
	Params msgpack.RawMessage `msgpack:"params"`
}

// Response is the one answer of a method that gives one.
type Response struct {
	ID     uint64 `msgpack:"id"`
	Result any    `msgpack:"result"`
}

// Item is one part of a stream.
type Item struct {
	ID   uint64 `msgpack:"id"`
	Item any    `msgpack:"item"`
}

// End closes a stream.
type End struct {
	ID uint64 `msgpack:"id"`
}

// Answer reads what a client is sent: the number of the request, 0 where there
// is none, and the result or the item, still encoded. A command reads one or two
// answers in its life, for which a decoder of structs would take longer to set
// up than to run.
func (f Frame) Answer() (id uint64, value []byte, err error) {
	// The body has been checked: what a length announces is there.
	n, b := mapLen(f.Body)
	for ; n > 0; n-- {
		key, rest, ok := readString(b)
		if !ok {
			return 0, nil, fmt.Errorf("frame of kind %d has a key that is not a string", f.Kind)
		}
		if b, err = skip(rest, 1); err != nil {
			return 0, nil, err
		}
		switch string(key) {
		case "id":
			if id, _, ok = readUint(rest); !ok {
				return 0, nil, fmt.Errorf("frame of kind %d has an id that is not a number", f.Kind)
			}
		case "result", "item":
			value = rest[:len(rest)-len(b)]
		}
	}
	return id, value, nil
}

// Cancel says that the client wants no more of that request's answer.
type Cancel struct {
	ID uint64 `msgpack:"id"`
}

// ErrorKind classifies a refusal; each maps to one exit code of the command.
type ErrorKind string

// The kinds of errors.
const (
	ErrNotFound     ErrorKind = "not_found"
	ErrInvalid      ErrorKind = "invalid"
	ErrBlocked      ErrorKind = "blocked"
	ErrConflict     ErrorKind = "conflict"
	ErrFailed       ErrorKind = "failed"
	ErrTimeout      ErrorKind = "timeout"
	ErrDenied       ErrorKind = "denied"
	ErrShuttingDown ErrorKind = "shutting_down"
	ErrUnavailable  ErrorKind = "unavailable"
	ErrInternal     ErrorKind = "internal"
)

// Error is a refusal with its reason in words.
type Error struct {
	Kind    ErrorKind `msgpack:"kind" json:"kind"`
	Message string    `msgpack:"message" json:"message"`
	// Service is the service that it is about, Nearest the known name that is
	// most like an unknown one, Problems what is wrong with files.
	Service  string    `msgpack:"service,omitempty" json:"service,omitempty"`
	Nearest  string    `msgpack:"nearest,omitempty" json:"nearest,omitempty"`
	Problems []Problem `msgpack:"problems,omitempty" json:"problems,omitempty"`
	// Moved lists what had moved by then.
	Moved []Moved `msgpack:"moved,omitempty" json:"moved,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(kind ErrorKind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// ErrorAnswer is an Error on the wire. ID is 0 where the request could not be
// read.
type ErrorAnswer struct {
	ID uint64 `msgpack:"id"`
	Error
}

// Time is a moment: RFC 3339 with nanoseconds in UTC, on the wire as in JSON.
type Time time.Time

func (t Time) String() string {
	return time.Time(t).UTC().Format("2006-01-02T15:04:05.000000000Z")
}

// EncodeMsgpack writes a string; msgpack would make bytes of MarshalText's.
func (t Time) EncodeMsgpack(e *msgpack.Encoder) error { return e.EncodeString(t.String()) }

// DecodeMsgpack reads what EncodeMsgpack wrote.
func (t *Time) DecodeMsgpack(d *msgpack.Decoder) error {
	s, err := d.DecodeString()
	if err != nil {
		return err
	}
	return t.UnmarshalText([]byte(s))
}

// MarshalText is used by JSON.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is used by JSON.
func (t *Time) UnmarshalText(b []byte) error {
	parsed, err := time.Parse(time.RFC3339Nano, string(b))
	*t = Time(parsed)
	return err
}

// State is the state of a service.
type State string

// The states (spec: states).
const (
	StateInactive State = "inactive"
	StateBlocked  State = "blocked"
	StateStarting State = "starting"
	StateRunning  State = "running"
	StateStopping State = "stopping"
	StateExited   State = "exited"
	StateFailed   State = "failed"
)

// Reason says why a service is Failed, or why it stopped.
type Reason struct {
	// Kind is one of exit_code, signal, start_timeout, stop_timeout,
	// health_check_failed, watchdog, dependency_failed, missing_dependency,
	// dependency_cycle, port_in_use, spawn_error, config_error.
	Kind     string   `msgpack:"kind" json:"kind"`
	Message  string   `msgpack:"message" json:"message"`
	Code     *int     `msgpack:"code,omitempty" json:"code,omitempty"`
	Signal   string   `msgpack:"signal,omitempty" json:"signal,omitempty"`
	Core     bool     `msgpack:"core,omitempty" json:"core,omitempty"`
	OOM      bool     `msgpack:"oom,omitempty" json:"oom,omitempty"`
	Service  string   `msgpack:"service,omitempty" json:"service,omitempty"`
	Services []string `msgpack:"services,omitempty" json:"services,omitempty"`
	Attempts int      `msgpack:"attempts,omitempty" json:"attempts,omitempty"`
	Port     int      `msgpack:"port,omitempty" json:"port,omitempty"`
	Pid      int      `msgpack:"pid,omitempty" json:"pid,omitempty"`
	Command  string   `msgpack:"command,omitempty" json:"command,omitempty"`
}

// Exit is how the last run ended.
type Exit struct {
	Code   *int   `msgpack:"code,omitempty" json:"code,omitempty"`
	Signal string `msgpack:"signal,omitempty" json:"signal,omitempty"`
	At     Time   `msgpack:"at" json:"at"`
}

// Health is the state of a probe.
type Health struct {
	Status    string  `msgpack:"status" json:"status"` // healthy, unhealthy, unknown, none
	Message   string  `msgpack:"message,omitempty" json:"message,omitempty"`
	LatencyMS float64 `msgpack:"latency_ms,omitempty" json:"latency_ms,omitempty"`
	CheckedAt *Time   `msgpack:"checked_at,omitempty" json:"checked_at,omitempty"`
	Failures  int     `msgpack:"failures,omitempty" json:"failures,omitempty"`
}

// Block is one thing that a start waits for.
type Block struct {
	Kind   string `msgpack:"kind" json:"kind"` // requires, after, conflicts, port
	Name   string `msgpack:"name" json:"name"`
	Detail string `msgpack:"detail" json:"detail"`
	// State of that service and why it is so, in answers of service.why.
	State   State `msgpack:"state,omitempty" json:"state,omitempty"`
	Because *Why  `msgpack:"because,omitempty" json:"because,omitempty"`
}

// Why is the chain of causes for the state of a service.
type Why struct {
	Name   string  `msgpack:"name" json:"name"`
	State  State   `msgpack:"state" json:"state"`
	Reason *Reason `msgpack:"reason,omitempty" json:"reason,omitempty"`
	// Detail is the whole in words, without the chain.
	Detail    string  `msgpack:"detail,omitempty" json:"detail,omitempty"`
	BlockedBy []Block `msgpack:"blocked_by,omitempty" json:"blocked_by,omitempty"`
}

// Origin is where a configuration comes from.
type Origin struct {
	File      string `msgpack:"file,omitempty" json:"file,omitempty"`
	Ephemeral bool   `msgpack:"ephemeral,omitempty" json:"ephemeral,omitempty"`
}

// Service is an item of service.list and service.status.
type Service struct {
	Name          string  `msgpack:"name" json:"name"`
	Kind          string  `msgpack:"kind" json:"kind"` // service, target
	State         State   `msgpack:"state" json:"state"`
	Class         string  `msgpack:"class" json:"class"`
	Status        string  `msgpack:"status" json:"status"`   // configured: start, stop, ignore
	Desired       string  `msgpack:"desired" json:"desired"` // up, down
	Oneshot       bool    `msgpack:"oneshot,omitempty" json:"oneshot,omitempty"`
	Pid           int     `msgpack:"pid,omitempty" json:"pid,omitempty"`
	Since         *Time   `msgpack:"since,omitempty" json:"since,omitempty"`
	UptimeMS      int64   `msgpack:"uptime_ms,omitempty" json:"uptime_ms,omitempty"`
	Restarts      int     `msgpack:"restarts" json:"restarts"`
	RestartsTotal int     `msgpack:"restarts_total" json:"restarts_total"`
	NextStart     *Time   `msgpack:"next_start,omitempty" json:"next_start,omitempty"`
	Exit          *Exit   `msgpack:"exit,omitempty" json:"exit,omitempty"`
	Reason        *Reason `msgpack:"reason,omitempty" json:"reason,omitempty"`
	Health        *Health `msgpack:"health,omitempty" json:"health,omitempty"`
	StatusText    string  `msgpack:"status_text,omitempty" json:"status_text,omitempty"`
	// Note is one line in words on what it waits for or why it is as it is.
	Note       string   `msgpack:"note,omitempty" json:"note,omitempty"`
	BlockedBy  []Block  `msgpack:"blocked_by,omitempty" json:"blocked_by,omitempty"`
	Requires   []string `msgpack:"requires,omitempty" json:"requires,omitempty"`
	After      []string `msgpack:"after,omitempty" json:"after,omitempty"`
	Wants      []string `msgpack:"wants,omitempty" json:"wants,omitempty"`
	Conflicts  []string `msgpack:"conflicts,omitempty" json:"conflicts,omitempty"`
	Dependents []string `msgpack:"dependents,omitempty" json:"dependents,omitempty"`
	Origin     Origin   `msgpack:"origin" json:"origin"`
}

// Moved is one service that changed its state because of a command.
type Moved struct {
	Name   string  `msgpack:"name" json:"name"`
	From   State   `msgpack:"from" json:"from"`
	To     State   `msgpack:"to" json:"to"`
	Pid    int     `msgpack:"pid,omitempty" json:"pid,omitempty"` // of what runs now
	Reason *Reason `msgpack:"reason,omitempty" json:"reason,omitempty"`
	// Note says more about To, as that of Service does: what is waited for, when
	// the next attempt is due, or that it was removed.
	Note string `msgpack:"note,omitempty" json:"note,omitempty"`
}

// Reloaded is what a reload did, or would do.
type Reloaded struct {
	Added   []string `msgpack:"added" json:"added"`
	Removed []string `msgpack:"removed" json:"removed"`
	Changed []Change `msgpack:"changed" json:"changed"`
	// Along are services that go down with what they require, and come back
	// with it.
	Along  []string  `msgpack:"along,omitempty" json:"along,omitempty"`
	Errors []Problem `msgpack:"errors" json:"errors"`
}

// Change is a service whose configuration has changed, in which fields, and
// whether it is restarted, or stopped, for that.
type Change struct {
	Name    string   `msgpack:"name" json:"name"`
	Fields  []string `msgpack:"fields" json:"fields"`
	Restart bool     `msgpack:"restart" json:"restart"`
	Stop    bool     `msgpack:"stop,omitempty" json:"stop,omitempty"`
}

// Tree is an item of service.tree. A frame is nested only so deep: where More
// is set, what the service requires follows as a later item of that name.
type Tree struct {
	Name     string `msgpack:"name" json:"name"`
	State    State  `msgpack:"state" json:"state"`
	Missing  bool   `msgpack:"missing,omitempty" json:"missing,omitempty"` // there is no such service
	More     bool   `msgpack:"more,omitempty" json:"-"`
	Requires []Tree `msgpack:"requires,omitempty" json:"requires,omitempty"`
}

// LogLine is an item of logs.get and logs.follow: a line, or how many a slow
// follower missed.
type LogLine struct {
	Time    *Time  `msgpack:"time,omitempty" json:"time,omitempty"`
	Service string `msgpack:"service,omitempty" json:"service,omitempty"`
	Stream  string `msgpack:"stream,omitempty" json:"stream,omitempty"` // stdout, stderr
	Text    string `msgpack:"text" json:"text"`
	Partial bool   `msgpack:"partial,omitempty" json:"partial,omitempty"`
	Missed  int64  `msgpack:"missed,omitempty" json:"missed,omitempty"`
}

// MarshalJSON writes a notice of missed lines without the fields of a line.
func (l LogLine) MarshalJSON() ([]byte, error) {
	if l.Missed > 0 {
		return json.Marshal(map[string]any{"service": l.Service, "missed": l.Missed})
	}
	type plain LogLine
	return json.Marshal(plain(l))
}

// Event is an item of events.subscribe: a service has changed its state; or how
// many changes a slow reader missed.
type Event struct {
	// Seq counts the changes in the life of a zinit, from 1.
	Seq     uint64  `msgpack:"seq,omitempty" json:"seq,omitempty"`
	Time    *Time   `msgpack:"time,omitempty" json:"time,omitempty"`
	Service string  `msgpack:"service,omitempty" json:"service,omitempty"`
	From    State   `msgpack:"from,omitempty" json:"from,omitempty"`
	To      State   `msgpack:"to,omitempty" json:"to,omitempty"`
	Pid     int     `msgpack:"pid,omitempty" json:"pid,omitempty"`
	Reason  *Reason `msgpack:"reason,omitempty" json:"reason,omitempty"`
	// Health is set where that has changed, and not the state: From is To.
	Health *Health `msgpack:"health,omitempty" json:"health,omitempty"`
	Missed uint64  `msgpack:"missed,omitempty" json:"missed,omitempty"`
}

// Incident is an item of service.incidents: a failure.
type Incident struct {
	Name string `msgpack:"name" json:"name"`
	// Run is the number of the run that failed, 0 where it was not run.
	Run    uint64  `msgpack:"run,omitempty" json:"run,omitempty"`
	At     Time    `msgpack:"at" json:"at"`
	Reason *Reason `msgpack:"reason,omitempty" json:"reason,omitempty"`
	// Lines are the last that the run has printed.
	Lines []string `msgpack:"lines" json:"lines"`
	// Decision says what followed, in words.
	Decision string `msgpack:"decision" json:"decision"`
}

// Stats is an item of service.stats, of all processes of a service together.
type Stats struct {
	Name string `msgpack:"name" json:"name"`
	Pid  int    `msgpack:"pid,omitempty" json:"pid,omitempty"`
	// CPUPercent is of one processor, over the last fifth of a second.
	CPUPercent float64 `msgpack:"cpu_percent" json:"cpu_percent"`
	// CPUTimeMS is that of the processes that are there, and of the children
	// that they have waited for.
	CPUTimeMS   int64 `msgpack:"cpu_time_ms" json:"cpu_time_ms"`
	MemoryBytes int64 `msgpack:"memory_bytes" json:"memory_bytes"` // resident
	Processes   int   `msgpack:"processes" json:"processes"`
	// Fds are their open descriptors, nil where the server may not look.
	Fds *int `msgpack:"fds,omitempty" json:"fds,omitempty"`
}

// BootService is an item of service.boot: how a service came up for the first
// time since zinit began. Times are milliseconds from that moment, nil for not
// yet.
type BootService struct {
	Name        string   `msgpack:"name" json:"name"`
	WantedAtMS  float64  `msgpack:"wanted_at_ms" json:"wanted_at_ms"`
	SpawnedAtMS *float64 `msgpack:"spawned_at_ms,omitempty" json:"spawned_at_ms,omitempty"`
	ReadyAtMS   *float64 `msgpack:"ready_at_ms,omitempty" json:"ready_at_ms,omitempty"`
	// WaitedFor is the service that was in its way last.
	WaitedFor string `msgpack:"waited_for,omitempty" json:"waited_for,omitempty"`
}

// Process is an item of debug.procs. A frame holds only so much: where More is
// set, children follow in a later item of that pid.
type Process struct {
	Pid      int       `msgpack:"pid" json:"pid"`
	Command  string    `msgpack:"command" json:"command"`
	More     bool      `msgpack:"more,omitempty" json:"-"`
	Children []Process `msgpack:"children,omitempty" json:"children,omitempty"`
}

// Config is the answer of service.get.
type Config struct {
	// TOML is the effective configuration as a file, with the defaults marked,
	// Config the same as a map.
	TOML   string         `msgpack:"toml" json:"toml"`
	Config map[string]any `msgpack:"config" json:"config"`
	// Secrets are the variables whose values are in files.
	Secrets []Secret `msgpack:"secrets,omitempty" json:"secrets,omitempty"`
}

// Secret is a variable of a service whose value is in a file of its own or in
// an env_file.
type Secret struct {
	Name string `msgpack:"name,omitempty" json:"name,omitempty"`
	File string `msgpack:"file" json:"file"`
	// Value is *** unless it is to be revealed.
	Value string `msgpack:"value,omitempty" json:"value,omitempty"`
	// Error says why the file cannot be read.
	Error string `msgpack:"error,omitempty" json:"error,omitempty"`
}

// Problem is an error or a warning about a configuration file.
type Problem struct {
	File    string `msgpack:"file" json:"file"`
	Line    int    `msgpack:"line,omitempty" json:"line,omitempty"`
	Column  int    `msgpack:"column,omitempty" json:"column,omitempty"`
	Message string `msgpack:"message" json:"message"`
	// Loaded says in an Info that the file is in effect, as far as it can be.
	Loaded bool `msgpack:"loaded,omitempty" json:"loaded,omitempty"`
}

// Info is the answer of system.info.
type Info struct {
	Version      string         `msgpack:"version" json:"version"`
	Pid          int            `msgpack:"pid" json:"pid"`
	KeeperPid    int            `msgpack:"keeper_pid" json:"keeper_pid"`
	Mode         string         `msgpack:"mode" json:"mode"`
	UptimeMS     int64          `msgpack:"uptime_ms" json:"uptime_ms"`
	Socket       string         `msgpack:"socket" json:"socket"`
	RuntimeDir   string         `msgpack:"runtime_dir" json:"runtime_dir"`
	ConfigDir    string         `msgpack:"config_dir" json:"config_dir"`
	SystemDir    string         `msgpack:"system_dir,omitempty" json:"system_dir,omitempty"` // where it is in use
	Services     map[string]int `msgpack:"services" json:"services"`                         // by state
	ConfigErrors []Problem      `msgpack:"config_errors" json:"config_errors"`
	ShuttingDown bool           `msgpack:"shutting_down,omitempty" json:"shutting_down,omitempty"`
	// Started is when zinit began.
	Started *Time `msgpack:"started,omitempty" json:"started,omitempty"`
	// ServerRestarts counts how often the supervisor was replaced while the
	// services went on; LastEnd says how the last one ended, DownMS for how
	// long there was none.
	ServerRestarts int    `msgpack:"server_restarts" json:"server_restarts"`
	LastEnd        string `msgpack:"last_end,omitempty" json:"last_end,omitempty"`
	DownMS         int64  `msgpack:"down_ms,omitempty" json:"down_ms,omitempty"`
	// StateLost says that the last of them found no saved state: it kept what
	// ran, and began all else as at boot.
	StateLost bool `msgpack:"state_lost,omitempty" json:"state_lost,omitempty"`
	// Replaced are the last of these times, oldest first.
	Replaced []Replaced `msgpack:"replaced,omitempty" json:"replaced,omitempty"`
	// Unsaved says why the state cannot be saved, UnsavedSince since when: what is
	// decided meanwhile is lost if the supervisor dies.
	Unsaved      string `msgpack:"unsaved,omitempty" json:"unsaved,omitempty"`
	UnsavedSince *Time  `msgpack:"unsaved_since,omitempty" json:"unsaved_since,omitempty"`
}

// Replaced is one time that a supervisor took the place of another.
type Replaced struct {
	At *Time `msgpack:"at" json:"at"`
	// Why is how the one before ended, TookMS how long there was none.
	Why    string  `msgpack:"why" json:"why"`
	TookMS float64 `msgpack:"took_ms" json:"took_ms"`
	// Version is that of the new one.
	Version string `msgpack:"version" json:"version"`
	// StateLost is as in Info; StateCut says that the end of the saved state
	// could not be read, so that what was decided last is not known any more.
	StateLost bool `msgpack:"state_lost,omitempty" json:"state_lost,omitempty"`
	StateCut  bool `msgpack:"state_cut,omitempty" json:"state_cut,omitempty"`
	// StateOld says that what ran was newer than the saved state, which could not
	// be saved any more, so that what was decided since is not known.
	StateOld bool `msgpack:"state_old,omitempty" json:"state_old,omitempty"`
	// Ended is how many services ran that nothing was known of, and were ended.
	Ended int `msgpack:"ended,omitempty" json:"ended,omitempty"`
}

// Untouched says that no service noticed.
func (r Replaced) Untouched() bool {
	return !r.StateLost && !r.StateCut && !r.StateOld && r.Ended == 0
}

// Upgraded is the answer of system.upgrade: the supervisor is about to be
// replaced.
type Upgraded struct {
	From string `msgpack:"from" json:"from"`
	To   string `msgpack:"to" json:"to"`
	// ServerRestarts is as in Info, before it is done.
	ServerRestarts int `msgpack:"server_restarts" json:"-"`
	// TookMS is how long there was no supervisor, which the client finds out.
	TookMS float64 `msgpack:"-" json:"took_ms"`
}

// Method is an item of rpc.discover.
type Method struct {
	Name   string  `msgpack:"name" json:"name"`
	Params []Param `msgpack:"params" json:"params"`
	// Result names what it answers with, or with Items each part of that.
	Result string `msgpack:"result" json:"result"`
	Items  bool   `msgpack:"items,omitempty" json:"items,omitempty"`
}

// Param is a parameter of a Method.
type Param struct {
	Name     string `msgpack:"name" json:"name"`
	Optional bool   `msgpack:"optional,omitempty" json:"optional,omitempty"`
}

// Params of the methods.

// NamesParams is for methods on several services; no names means all where
// the method allows it.
type NamesParams struct {
	Names []string `msgpack:"names,omitempty"`
	// NoWait answers at once instead of when it is done (start, stop, restart).
	NoWait bool `msgpack:"no_wait,omitempty"`
	// TimeoutMS bounds the wait, 0 = 60,000.
	TimeoutMS int64 `msgpack:"timeout_ms,omitempty"`
	// State and Class filter service.list.
	State State  `msgpack:"state,omitempty"`
	Class string `msgpack:"class,omitempty"`
	// For is the goal of service.wait: running, exited, healthy, inactive.
	For string `msgpack:"for,omitempty"`
}

// NameParams is for methods on one service.
type NameParams struct {
	Name string `msgpack:"name"`
	// Signal of service.kill, with or without SIG, or a number; "" = SIGTERM.
	Signal string `msgpack:"signal,omitempty"`
	// Reverse asks service.tree for dependents; Name may be empty there.
	Reverse bool `msgpack:"reverse,omitempty"`
}

// EventsParams is for events.subscribe.
type EventsParams struct {
	Follow bool `msgpack:"follow,omitempty"`
	// After is the number of the last event that the client has had.
	After uint64 `msgpack:"after,omitempty"`
}

// GetParams is for service.get.
type GetParams struct {
	Name   string `msgpack:"name"`
	Reveal bool   `msgpack:"reveal,omitempty"`
}

// ConfigParams is for service.add and service.set.
type ConfigParams struct {
	// Config is a service file, Name what the service is called if the file
	// does not say.
	Config string `msgpack:"config"`
	Name   string `msgpack:"name,omitempty"`
	// Persist writes it into the service directory (service.add; service.set
	// always does).
	Persist   bool  `msgpack:"persist,omitempty"`
	NoWait    bool  `msgpack:"no_wait,omitempty"`
	TimeoutMS int64 `msgpack:"timeout_ms,omitempty"`
}

// ReloadParams is for service.reload.
type ReloadParams struct {
	// DryRun only says what would change.
	DryRun bool `msgpack:"dry_run,omitempty"`
}

// LogsParams is for logs.get and logs.follow.
type LogsParams struct {
	Names []string `msgpack:"names,omitempty"`
	// Lines is how many of the newest lines are wanted, of all services
	// together; negative = all.
	Lines  int    `msgpack:"lines"`
	Stream string `msgpack:"stream,omitempty"` // "", stdout, stderr
	Since  *Time  `msgpack:"since,omitempty"`
	Grep   string `msgpack:"grep,omitempty"` // RE2
	// Previous asks for the run before the present one.
	Previous bool `msgpack:"previous,omitempty"`
}
