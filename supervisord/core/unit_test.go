package core

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/common/spec"
)

func TestDelayDoublesUpToItsMaximum(t *testing.T) {
	const ms = Time(time.Millisecond)
	for _, tc := range []struct {
		delay, most time.Duration
		restarts    int
		want        Time // without jitter
	}{
		{time.Second, time.Minute, 0, 1000 * ms},
		{time.Second, time.Minute, 1, 2000 * ms},
		{time.Second, time.Minute, 5, 32000 * ms},
		{time.Second, time.Minute, 6, 60000 * ms},
		{time.Second, time.Minute, math.MaxInt, 60000 * ms},
		{time.Minute, time.Second, 0, 1000 * ms},
		{0, time.Minute, math.MaxInt, 0},
		{time.Second, math.MaxInt64, math.MaxInt, 1 << 60},
	} {
		s := &service{Record: Record{Name: "web", Restarts: tc.restarts}, spec: spec.Default("web")}
		s.spec.Lifecycle.RestartDelay, s.spec.Lifecycle.RestartDelayMax = tc.delay, tc.most
		got := s.delay(1 << 40)
		if got < tc.want-tc.want/10 || got > tc.want+tc.want/10 {
			t.Errorf("%v up to %v, after %d restarts: waits %v, want %v ±10 %%", tc.delay, tc.most, tc.restarts, time.Duration(got), time.Duration(tc.want))
		}
		if got != s.delay(1<<40) {
			t.Error("the delay is another one each time, so traces would not reproduce")
		}
	}
}

func TestDelaysOfServicesThatFailTogetherDiffer(t *testing.T) {
	lo, hi := Time(math.MaxInt64), Time(0)
	for _, n := range strings.Fields("a b c d e f g h i j k l m n o p q r s t u v w x y z") {
		d := (&service{Record: Record{Name: n}, spec: spec.Default(n)}).delay(1 << 40)
		lo, hi = min(lo, d), max(hi, d)
	}
	if spread := hi - lo; spread < 1e8 {
		t.Errorf("26 services that fail together all come back within %v", time.Duration(spread))
	}
}

func TestExitCode(t *testing.T) {
	for _, tc := range []struct {
		name   string
		record Record
		want   int
	}{
		{"success", Record{State: StateExited, End: &End{}}, 0},
		{"a code that counts as success", Record{State: StateExited, End: &End{Code: 3}}, 3},
		{"a code", Record{State: StateFailed, End: &End{Code: 3}, Reason: endReason(End{Code: 3}, false)}, 3},
		{"a signal", Record{State: StateFailed, End: &End{Signal: 9}, Reason: endReason(End{Signal: 9}, false)}, 137},
		{"not found", Record{State: StateFailed, Reason: &Reason{Kind: ReasonSpawn, Code: 127}}, 127},
		{"not executable", Record{State: StateFailed, Reason: &Reason{Kind: ReasonSpawn, Code: 126}}, 126},
		{"0 before it was ready", Record{State: StateFailed, End: &End{}, Reason: endReason(End{}, true)}, 1},
		{"0 after a watchdog", Record{State: StateFailed, End: &End{}, Reason: &Reason{Kind: ReasonWatchdog}}, 1},
		{"never run", Record{State: StateFailed, Reason: &Reason{Kind: ReasonCycle}}, 1},
	} {
		if got := (&service{Record: tc.record}).exitCode(); got != tc.want {
			t.Errorf("%s: zinit would end with %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestNextWakeIsTheEarliestDeadline(t *testing.T) {
	services := map[string]*spec.Service{}
	for _, n := range strings.Fields("a b c d e") {
		services[n] = spec.Default(n)
	}
	c := New(services, Options{})
	at := func(name string, t Time) { c.setDeadline(c.services[name], t) }
	check := func(want Time) {
		t.Helper()
		got, ok := c.NextWake()
		if ok != (want > 0) || got != want {
			t.Errorf("next wake %d, %v; want %d", got, ok, want)
		}
	}
	check(0)
	at("c", 30)
	at("a", 50)
	at("e", 40)
	check(30)
	at("a", 10) // moved to the front
	check(10)
	at("a", 60) // and back
	check(30)
	at("c", 0)
	check(40)
	at("e", 60)
	if first, second := c.deadline.pop(60), c.deadline.pop(60); first.Name != "a" || second.Name != "e" {
		t.Errorf("of two with one deadline %s came first, want the first by name", first.Name)
	}
	check(0)
	if s := c.deadline.pop(100); s != nil {
		t.Errorf("%s has a deadline, and nobody has one", s.Name)
	}
}

func TestDescribe(t *testing.T) {
	web := spec.Default("web")
	c := New(map[string]*spec.Service{"web": web}, Options{})
	s := c.services["web"]
	failed := &Reason{Kind: ReasonExitCode, Message: "ended with exit code 1"}
	for _, tc := range []struct {
		record Record
		want   string
	}{
		{Record{State: StateInactive}, "web is not started"},
		{Record{State: StateInactive, Up: true}, "web was not started yet"},
		{Record{State: StateBlocked, Up: true}, "web is blocked itself"},
		{Record{State: StateStarting, Up: true}, "web is starting"},
		{Record{State: StateRunning, Up: true}, "web is running"},
		{Record{State: StateRunning, Halt: HaltUser}, "web is about to stop"},
		{Record{State: StateStopping}, "web is stopping"},
		{Record{State: StateExited}, "web was stopped by the user"},
		{Record{State: StateExited, Up: true}, "web has ended"},
		{Record{State: StateFailed, Up: true, Reason: failed}, "web has failed: ended with exit code 1"},
		{Record{State: StateFailed, Up: true, Reason: failed, Deadline: 4e9}, "web has failed: ended with exit code 1, and is started again in 3s"},
		{Record{State: StateFailed, Up: true, Reason: failed, Deadline: 1.5e9}, "web has failed: ended with exit code 1, and is started again in 500ms"},
	} {
		s.Record = tc.record
		s.Name = "web"
		if got := c.Describe(1e9, Block{Kind: BlockRequires, Name: "web"}); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.record, got, tc.want)
		}
	}
	s.Record = Record{Name: "web", State: StateRunning}
	for b, want := range map[Block]string{
		{Kind: BlockConflicts, Name: "web"}:      "web is running, and only one of them may run",
		{Kind: BlockPort, Name: "web", Port: 80}: "web has port 80",
		{Kind: BlockLeft, Name: "web"}:           "processes of its last run are still there and are being ended",
		{Kind: BlockRequires, Name: "nothing"}:   "nothing does not exist",
	} {
		if got := c.Describe(1e9, b); got != want {
			t.Errorf("%v: %q, want %q", b, got, want)
		}
	}
}

func TestEndReason(t *testing.T) {
	for _, tc := range []struct {
		end   End
		early bool
		kind  ReasonKind
		want  string
	}{
		{End{Code: 7}, false, ReasonExitCode, "ended with exit code 7"},
		{End{}, true, ReasonExitCode, "ended with exit code 0 before it was ready"},
		{End{Signal: 11, Core: true}, false, ReasonSignal, "killed by SIGSEGV (core dumped)"},
		{End{Signal: 9, OOM: true}, true, ReasonSignal, "killed by SIGKILL: out of memory"},
	} {
		if got := endReason(tc.end, tc.early); got.Kind != tc.kind || got.Message != tc.want {
			t.Errorf("%+v: %s %q, want %s %q", tc.end, got.Kind, got.Message, tc.kind, tc.want)
		}
	}
}

// A run that was forgotten by its service is ended, however far it is, and then
// forgotten by pid1 as well.
func TestStraysAreEnded(t *testing.T) {
	facts := []Fact{
		{Run: 1, Service: "gone", Pid: 10},
		{Run: 2, Service: "gone"}, // being spawned
		{Run: 3, Service: "gone", Pid: 30, End: &End{}},
		{Run: 4, Service: "gone", Pid: 40, End: &End{}, Left: true},
		{Run: 5, Service: "gone"}, // being spawned, in vain
	}
	c, actions, _ := Recover(epoch, map[string]*spec.Service{"web": spec.Default("web")}, Options{}, Global{LastRun: 5}, nil, facts)
	k := newKeeper()
	take := func(actions []Action, want ...string) {
		t.Helper()
		var got []string
		for _, a := range actions {
			got = append(got, k.trace(a))
		}
		if strings.Join(got, "; ") != strings.Join(want, "; ") {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	take(actions, "signal #1 SIGKILL", "forget #3", "signal #4 SIGKILL")
	take(c.Step(epoch, Spawned{Run: 2, Pid: 20}), "signal #2 SIGKILL")
	take(c.Step(epoch, Exited{Run: 2}), "forget #2")
	take(c.Step(epoch, Exited{Run: 1, Left: true}))
	take(c.Step(epoch, Emptied{Run: 1}), "forget #1")
	take(c.Step(epoch, Emptied{Run: 4}), "forget #4")
	take(c.Step(epoch, SpawnFailed{Run: 5}), "forget #5")
	if len(c.strays) != 0 {
		t.Errorf("strays are left: %v", c.strays)
	}
	take(c.Step(epoch, Wish{OpStart, []string{"web"}}), "web: inactive -> starting", "spawn web#6")
}
