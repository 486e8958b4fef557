package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/threefoldtech/zinit/common/spec"
)

// keeper is pid1 as the core sees it: it makes a process for each run exactly
// once, counts the signals, and keeps a run in its table until it is told to
// forget it. What the processes do, the tests decide.
type keeper struct {
	runs    map[RunID]*process
	gates   map[string]SetGate // the last order for each proxy
	nextPid int
	halt    *Halt
	shells  map[string]map[RunID]bool // opened, by service
}

type process struct {
	run     RunID
	service string
	role    Role
	pid     int // 0 while it is being spawned
	end     *End
	left    bool // processes of it are there, besides the leader
	signals int
	order   Spawn
}

func newKeeper() *keeper {
	return &keeper{runs: map[RunID]*process{}, gates: map[string]SetGate{}, nextPid: 100, shells: map[string]map[RunID]bool{}}
}

// perform does what the core has ordered and returns what was wrong with it.
func (k *keeper) perform(a Action) error {
	switch a := a.(type) {
	case Spawn:
		if k.runs[a.Run] == nil {
			k.runs[a.Run] = &process{run: a.Run, service: a.Service.Name, role: a.Role, order: a}
		}
	case Signal:
		if p := k.runs[a.Run]; p != nil {
			if p.pid == 0 {
				return fmt.Errorf("run %d gets signal %d before it was spawned", a.Run, a.Signal)
			}
			p.signals++
		}
	case SetMain:
		if p := k.runs[a.Run]; p != nil && p.end == nil {
			p.pid = a.Pid
		}
	case Forget:
		if p := k.runs[a.Run]; p != nil && (p.end == nil || p.left) {
			return fmt.Errorf("run %d of %s is to be forgotten and is not over", a.Run, p.service)
		}
		delete(k.runs, a.Run)
	case Shell:
		if k.shells[a.Service] == nil {
			k.shells[a.Service] = map[RunID]bool{}
		}
		k.shells[a.Service][a.Run] = true
	case Halt:
		if k.halt != nil {
			return fmt.Errorf("halt was said twice")
		}
		k.halt = &a
	case SetGate:
		k.gates[a.Proxy] = a
	case Changed, HealthChanged, SetProbes, SetProbe, DropProbe, TellProxies:
	}
	return nil
}

// spawned lets the spawn of a run succeed.
func (k *keeper) spawned(p *process) Spawned {
	k.nextPid++
	p.pid = k.nextPid
	return Spawned{Run: p.run, Pid: p.pid, StartTime: uint64(p.pid) * 10}
}

// sorted returns the table in the order of the runs.
func (k *keeper) sorted() []*process {
	var out []*process
	for _, id := range slices.Sorted(maps.Keys(k.runs)) {
		out = append(out, k.runs[id])
	}
	return out
}

// facts is what a new supervisor is told.
func (k *keeper) facts() []Fact {
	var out []Fact
	for _, p := range k.sorted() {
		out = append(out, Fact{
			Run: p.run, Service: p.service, Role: p.role, Pid: p.pid, StartTime: uint64(p.pid) * 10,
			End: p.end, Left: p.left, Signals: p.signals,
		})
	}
	return out
}

// store is the saved state as it stands in files: encoded, a record for each
// service, and its configuration.
type store struct {
	global  []byte
	records map[string][]byte
	specs   map[string]*spec.Service
}

// configure saves a configuration, before the changes of the step that takes it
// over. What is removed stays until it is gone.
func (st *store) configure(services map[string]*spec.Service) {
	if st.specs == nil {
		st.specs = map[string]*spec.Service{}
	}
	maps.Copy(st.specs, services)
}

func (st *store) save(c Changes) {
	if st.records == nil {
		st.records = map[string][]byte{}
	}
	if c.Global != nil {
		st.global = encode(c.Global)
	}
	for _, r := range c.Records {
		st.records[r.Name] = encode(r)
	}
	for _, n := range c.Removed {
		delete(st.records, n)
		delete(st.specs, n)
	}
}

func (st *store) load() (g Global, records []Record) {
	if st.global != nil {
		decode(st.global, &g)
	}
	for _, n := range slices.Sorted(maps.Keys(st.records)) {
		var r Record
		decode(st.records[n], &r)
		records = append(records, r)
	}
	return g, records
}

// differs says what of the state of a core is not as it was saved.
func (st *store) differs(c *Core) string {
	for n, s := range c.services {
		if string(encode(s.copy())) != string(st.records[n]) {
			var saved Record
			decode(st.records[n], &saved)
			return fmt.Sprintf("%s was saved as %+v and is %+v", n, saved, s.Record)
		}
		if s.spec != st.specs[n] {
			return fmt.Sprintf("%s has another configuration than was saved", n)
		}
	}
	if len(st.records) != len(c.services) || len(st.specs) != len(c.services) {
		return fmt.Sprintf("%d records and %d configurations were saved of %d services", len(st.records), len(st.specs), len(c.services))
	}
	if string(encode(c.global())) != string(st.global) {
		return "the global state was not saved"
	}
	return ""
}

func encode(v any) []byte {
	b, err := msgpack.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func decode(b []byte, v any) {
	if err := msgpack.Unmarshal(b, v); err != nil {
		panic(err)
	}
}

// trace renders an action, or "" for what only pid1 cares about.
func (k *keeper) trace(a Action) string {
	run := func(id RunID) string {
		p := k.runs[id]
		if p == nil {
			return fmt.Sprintf("#%d", id)
		}
		return fmt.Sprintf("%s#%d", procName(p.service, p.role), id)
	}
	switch a := a.(type) {
	case Spawn:
		s := fmt.Sprintf("spawn %s#%d", procName(a.Service.Name, a.Role), a.Run)
		if a.MainPid != 0 {
			s += fmt.Sprintf(" for pid %d", a.MainPid)
		}
		return s
	case Signal:
		s := "signal " + run(a.Run) + " " + spec.SignalName(a.Signal)
		if a.Scope == ScopeGroup {
			s += " to its group"
		}
		return s
	case SetMain:
		return fmt.Sprintf("main process of %s is pid %d", run(a.Run), a.Pid)
	case Forget:
		return "forget " + run(a.Run)
	case Changed:
		if a.Removed {
			return a.Service + " is no more"
		}
		s := fmt.Sprintf("%s: %v -> %v", a.Service, a.From, a.To)
		if a.Reason != nil {
			s += fmt.Sprintf(" (%s: %s)", a.Reason.Kind, a.Reason.Message)
		}
		return s
	case TellProxies:
		return "tell all proxies"
	case SetGate:
		s := fmt.Sprintf("gate %s %v", a.Proxy, a.State)
		if a.Refuse != "" {
			s += ", refused: " + a.Refuse
		}
		return s
	case Shell:
		return "shell: " + a.Reason
	case Warn:
		return "warn " + a.Service + ": " + a.Message
	case Halt:
		return fmt.Sprintf("halt: %s, exit code %d", a.Action, a.Code)
	case SetProbes:
		s := "probes:"
		for _, p := range a.Probes {
			s += " " + p.trace() + ";"
		}
		return s
	case SetProbe:
		return "probe " + a.Probe.trace()
	case DropProbe:
		return "probe " + a.Service + " no more"
	case HealthChanged:
		return fmt.Sprintf("%s is %s: %s", a.Service, a.Health.Status, a.Health.Message)
	}
	panic("unknown action")
}

func (p Probe) trace() string {
	s := fmt.Sprintf("%s#%d every %v", p.Service.Name, p.Run, time.Duration(p.Every))
	if p.Generation > 0 {
		s += fmt.Sprintf(", change %d", p.Generation)
	}
	if p.Starting {
		s += ", first at once"
	}
	return s
}

func procName(service string, role Role) string {
	if role == RoleMain {
		return service
	}
	return service + "/" + role.String()
}

// parseService reads "name key=value …", with durations as Go writes them.
func parseService(t testing.TB, fields []string) *spec.Service {
	s := spec.Default(fields[0])
	l := s.Lifecycle
	s.Exec = spec.Command{{{Text: fields[0]}}}
	set := map[string]bool{}
	for _, f := range fields[1:] {
		key, v, _ := strings.Cut(f, "=")
		set[key] = true
		list := strings.Split(v, ",")
		switch key {
		case "requires":
			s.Requires = list
		case "after":
			s.After = list
		case "wants":
			s.Wants = list
		case "conflicts":
			s.Conflicts = list
		case "ports":
			for _, p := range list {
				s.Ports = append(s.Ports, uint16(number(t, p)))
			}
		case "oneshot":
			s.Oneshot = true
		case "target":
			s.Kind, s.Exec = spec.KindTarget, nil
		case "critical":
			s.Critical = true
		case "early":
			s.Early = true
		case "status":
			s.Status = spec.Status(v)
		case "restart":
			l.Restart = spec.Restart(v)
		case "delay":
			l.RestartDelay = span(t, v)
		case "delay_max":
			l.RestartDelayMax = span(t, v)
		case "stability":
			l.StabilityPeriod = span(t, v)
		case "max":
			l.MaxRestarts = number(t, v)
		case "success":
			l.SuccessExitCodes = numbers(t, list)
		case "no_restart":
			l.NoRestartExitCodes = numbers(t, list)
		case "start_timeout":
			l.StartTimeout = span(t, v)
		case "stop_timeout":
			l.StopTimeout = span(t, v)
		case "stop_signal":
			n, err := spec.SignalNumber(v)
			if err != nil {
				t.Fatal(err)
			}
			l.StopSignal = n
		case "pre_start":
			l.PreStart = spec.Command{{{Text: "pre"}}}
		case "stop_exec":
			l.StopExec = spec.Command{{{Text: "stop"}}}
		case "ready":
			l.Ready = spec.Ready(v)
		case "watchdog":
			l.Watchdog = span(t, v)
		case "health":
			s.Health = &spec.Health{Type: spec.HealthTCP, Endpoint: "localhost:80", Interval: span(t, v), Timeout: 5e9, Retries: 3}
			if !set["ready"] {
				l.Ready = spec.ReadyHealth
			}
		case "retries":
			s.Health.Retries = number(t, v)
		case "start_period":
			s.Health.StartPeriod = span(t, v)
		case "endpoint":
			s.Health.Endpoint = v
		case "on_exit":
			l.OnExit = spec.OnExit(v)
		default:
			t.Fatalf("%s: unknown setting %q", fields[0], f)
		}
	}
	if s.Oneshot && !set["start_timeout"] {
		l.StartTimeout = 0
	}
	return s
}

func span(t testing.TB, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func number(t testing.TB, s string) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatalf("%q is no number", s)
	}
	return n
}

func numbers(t testing.TB, list []string) (out []int) {
	t.Helper()
	for _, s := range list {
		out = append(out, number(t, s))
	}
	return out
}
