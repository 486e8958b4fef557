package core

import (
	"cmp"
	"slices"
	"strings"
	"syscall"
	"time"

	"pgregory.net/rapid"

	"github.com/threefoldtech/zinit/common/spec"
)

// plan is all that is random about a life.
type plan struct {
	services map[string]*spec.Service
	opts     Options
	script   []scripted
	seed     int
	faults   bool
	crashes  []crash
	inStop   int  // where the step that begins a shutdown is to crash, as crash.after; -2 for nowhere
	batch    bool // events come in batches that are saved together
	down     Time // how long the supervisor is away after a crash
	loses    bool // each third crash loses the saved state
}

type scripted struct {
	at Time
	ev Event
}

// crash kills the supervisor in one of its steps: before the save for -1, else
// after so many actions.
type crash struct{ step, after int }

// calm is when processes begin to behave.
const calm = epoch + 60e9

func drawCrashes(t *rapid.T) []crash {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) crash {
		return crash{step: rapid.IntRange(0, 120).Draw(t, "step"), after: rapid.IntRange(-1, 4).Draw(t, "after")}
	}), 1, 12).Draw(t, "crashes")
}

func drawPlan(t *rapid.T) *plan {
	p := &plan{
		services: map[string]*spec.Service{},
		opts:     Options{ShutdownTimeout: Time(rapid.IntRange(0, 30).Draw(t, "shutdown_timeout")) * 1e9},
		seed:     rapid.IntRange(0, 1<<30).Draw(t, "seed"),
		faults:   rapid.IntRange(0, 3).Draw(t, "faults") > 0,
		inStop:   -2,
	}
	p.opts.OnCritical = OnCritical(rapid.IntRange(0, 2).Draw(t, "on_critical"))
	names := strings.Fields("a b c d e f g h")[:rapid.IntRange(1, 8).Draw(t, "services")]
	for _, n := range names {
		p.services[n] = drawService(t, n, names)
	}
	p.script = append(p.script, scripted{epoch, Boot{}})
	p.script = append(p.script, drawHealthd(t)...)
	if rapid.Bool().Draw(t, "reloads") {
		for range rapid.IntRange(1, 5).Draw(t, "loads") {
			at := epoch + Time(rapid.IntRange(0, 40000).Draw(t, "at"))*1e6
			p.script = append(p.script, scripted{at, drawReload(t, names)})
		}
		// A name that is removed, or not added yet, may be wished for as well.
		for _, n := range names {
			if rapid.IntRange(0, 7).Draw(t, "later") == 7 {
				delete(p.services, n)
			}
		}
	}
	for range rapid.IntRange(0, 10).Draw(t, "wishes") {
		p.script = append(p.script, scripted{epoch + Time(rapid.IntRange(0, 40000).Draw(t, "at"))*1e6, drawWish(t, names)})
	}
	if rapid.IntRange(0, 3).Draw(t, "stop") == 3 {
		at := epoch + Time(rapid.IntRange(0, 50000).Draw(t, "at"))*1e6
		within := Time(rapid.IntRange(0, 20).Draw(t, "within")) * 1e9
		// A signal begins the stop, or hurries it; a request by a client does not.
		p.script = append(p.script, scripted{at, Stop{Action: "poweroff", Within: within, Hurry: rapid.Bool().Draw(t, "signal")}})
		if rapid.Bool().Draw(t, "hurry") {
			p.script = append(p.script, scripted{at + 3e9, Stop{Action: "exit", Within: within, Hurry: true}})
		}
	}
	p.sort()
	return p
}

func (p *plan) sort() {
	slices.SortStableFunc(p.script, func(a, b scripted) int { return cmp.Compare(a.at, b.at) })
}

func drawWish(t *rapid.T, names []string) Event {
	some := rapid.SliceOfN(rapid.SampledFrom(names), 1, 2)
	switch rapid.IntRange(0, 8).Draw(t, "wish") {
	case 0, 1, 2:
		return Wish{OpStop, some.Draw(t, "names")}
	case 3, 4, 5:
		return Wish{OpStart, some.Draw(t, "names")}
	case 6, 7:
		return Wish{OpRestart, some.Draw(t, "names")}
	}
	return Kill{
		Name:   rapid.SampledFrom(names).Draw(t, "name"),
		Signal: int(rapid.SampledFrom([]syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGKILL, syscall.SIGTERM}).Draw(t, "signal")),
	}
}

// drawService makes a service that depends on those before it, mostly.
func drawService(t *rapid.T, name string, names []string) *spec.Service {
	s := spec.Default(name)
	l := s.Lifecycle
	some := func(label string, from []string, odds int) []string {
		var out []string
		for _, n := range from {
			if n != name && rapid.IntRange(0, odds).Draw(t, label) == odds {
				out = append(out, n)
			}
		}
		return out
	}
	one := func(label string, in int) bool { return rapid.IntRange(1, in).Draw(t, label) == in }
	before := names[:slices.Index(names, name)]
	s.Requires = some("requires", before, 3)
	s.After = some("after", before, 5)
	s.Wants = some("wants", names, 9)
	s.Conflicts = some("conflicts", names, 15)
	if one("odd", 30) { // a cycle, or something that does not exist
		s.Requires = append(s.Requires, rapid.SampledFrom([]string{"nothing", names[len(names)-1]}).Draw(t, "requires"))
	}
	if one("port", 6) {
		s.Ports = []uint16{80}
	}
	s.Status = rapid.SampledFrom([]spec.Status{spec.StatusStart, spec.StatusStart, spec.StatusStart, spec.StatusStop, spec.StatusIgnore}).Draw(t, "status")
	if one("target", 8) {
		s.Kind = spec.KindTarget
		s.Ports = nil
		return s
	}
	l.Restart = rapid.SampledFrom([]spec.Restart{spec.RestartAlways, spec.RestartOnFailure, spec.RestartNever}).Draw(t, "restart")
	l.RestartDelay = rapid.SampledFrom([]time.Duration{0, 1e8, 1e9, 5e9}).Draw(t, "delay")
	l.RestartDelayMax = 8e9
	l.MaxRestarts = rapid.IntRange(0, 3).Draw(t, "max_restarts")
	l.StopTimeout = rapid.SampledFrom([]time.Duration{0, 1e9, 5e9}).Draw(t, "stop_timeout")
	l.StartTimeout = rapid.SampledFrom([]time.Duration{0, 1e9, 10e9}).Draw(t, "start_timeout")
	if one("no_restart", 5) {
		l.NoRestartExitCodes = []int{2}
	}
	if one("pre_start", 5) {
		l.PreStart = spec.Command{{{Text: "pre"}}}
	}
	if one("stop_exec", 5) {
		l.StopExec = spec.Command{{{Text: "stop"}}}
	}
	switch {
	case one("oneshot", 4):
		s.Oneshot = true
	case one("notify", 4):
		l.Ready = spec.ReadyNotify
		l.Watchdog = rapid.SampledFrom([]time.Duration{0, 4e9}).Draw(t, "watchdog")
	}
	if !s.Oneshot && one("health", 2) {
		drawHealth(t, s)
	}
	if one("on_exit", 25) {
		l.OnExit = spec.OnExitShutdown
	}
	s.Critical = one("critical", 15)
	s.Early = one("early", 4)
	return s
}
