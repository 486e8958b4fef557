package core

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/threefoldtech/zinit/common/spec"
)

// Reloads in the simulated world.

// reload is a Load before it is known what is configured by then.
type reload struct{ changes []change }

// change is what becomes of one service: nothing is left of it without a spec,
// else it takes over that part of the spec.
type change struct {
	name    string
	spec    *spec.Service
	part    part
	restart bool
}

type part int

const (
	partAll part = iota
	partDependencies
	partStatus
	partPolicy
	partTimeouts
	partHealth
	partNone // equal, but not the same
)

func (reload) event() {}

func drawReload(t *rapid.T, names []string) reload {
	return reload{rapid.SliceOfN(rapid.Custom(func(t *rapid.T) change {
		ch := change{name: rapid.SampledFrom(names).Draw(t, "name")}
		if rapid.IntRange(0, 3).Draw(t, "remove") < 3 {
			ch.spec = drawService(t, ch.name, names)
			ch.part = part(rapid.IntRange(0, int(partNone)).Draw(t, "part"))
			ch.restart = rapid.Bool().Draw(t, "restart")
		}
		return ch
	}), 1, 4).Draw(t, "changes")}
}

// of makes the Load of a reload, false if it is refused: for a cycle.
func (r reload) of(configured map[string]*spec.Service) (Load, bool) {
	ev := Load{Services: maps.Clone(configured), Restart: map[string]bool{}}
	for _, ch := range r.changes {
		if ch.spec == nil {
			delete(ev.Services, ch.name)
			continue
		}
		ev.Services[ch.name] = ch.apply(ev.Services[ch.name])
		ev.Restart[ch.name] = ev.Restart[ch.name] || ch.restart
	}
	return ev, len(spec.Cycles(ev.Services)) == 0
}

func (ch change) apply(was *spec.Service) *spec.Service {
	sp := *ch.spec
	if was == nil || ch.part == partAll {
		return &sp
	}
	sp = *was
	own := *was.Lifecycle
	sp.Lifecycle = &own
	l, from := sp.Lifecycle, ch.spec.Lifecycle
	switch ch.part {
	case partDependencies:
		sp.Requires, sp.After, sp.Wants, sp.Conflicts = ch.spec.Requires, ch.spec.After, ch.spec.Wants, ch.spec.Conflicts
		sp.Early = ch.spec.Early
	case partStatus:
		sp.Status = ch.spec.Status
	case partPolicy:
		l.Restart, l.RestartDelay, l.MaxRestarts, l.NoRestartExitCodes, l.OnExit = from.Restart, from.RestartDelay, from.MaxRestarts, from.NoRestartExitCodes, from.OnExit
		sp.Critical = ch.spec.Critical
	case partTimeouts:
		l.StartTimeout, l.StopTimeout = from.StartTimeout, from.StopTimeout
	case partHealth:
		if !sp.Oneshot && sp.Kind == spec.KindService {
			sp.Health = ch.spec.Health
			if sp.Health == nil && l.Ready == spec.ReadyHealth {
				l.Ready = spec.ReadyExec
			}
		}
	case partAll, partNone:
	}
	return &sp
}

// reload writes the configuration and tells the supervisor, unless it would be
// refused.
func (w *world) reload(r reload) []Event {
	ev, ok := r.of(w.configured)
	if !ok {
		w.note("> reload: refused for a cycle")
		return nil
	}
	w.note("> reload")
	for _, n := range slices.Sorted(maps.Keys(ev.Services)) {
		if sp := ev.Services[n]; sp != w.configured[n] {
			w.note("  restart %-5v %s", ev.Restart[n], strings.TrimSpace(describe(sp)))
		}
	}
	for _, n := range slices.Sorted(maps.Keys(w.configured)) {
		if ev.Services[n] == nil {
			w.note("  %s is removed", n)
		}
	}
	w.configured = ev.Services
	return []Event{ev}
}

// aftermath is what reloads make lawful that else is not.
type aftermath struct {
	changed   map[string]Time    // when a service changed last
	late      map[string]bool    // stopping, and since then others may require it
	turned    map[string]bool    // from a service into a target, or back
	tolerated map[[2]string]bool // both run, and conflict now
}

func newAftermath() aftermath {
	return aftermath{map[string]Time{}, map[string]bool{}, map[string]bool{}, map[[2]string]bool{}}
}

func (a aftermath) clone() aftermath {
	return aftermath{maps.Clone(a.changed), maps.Clone(a.late), maps.Clone(a.turned), maps.Clone(a.tolerated)}
}

// checkLoad takes over a configuration and checks what has become of wishes
// and of those that run.
func (w *world) checkLoad(ev Load) []Action {
	c := w.core
	type old struct {
		Record
		spec *spec.Service
	}
	before := map[string]old{}
	for n, s := range c.services {
		before[n] = old{s.copy(), s.spec}
	}
	then, foreseen := c.rehearse(w.now, ev)
	actions := c.Step(w.now, ev)
	ofServices := slices.DeleteFunc(slices.Clone(actions), func(a Action) bool { _, is := a.(SetGate); return is })
	if !reflect.DeepEqual(foreseen, ofServices) && len(foreseen)+len(ofServices) > 0 {
		w.fail("it was foreseen that a reload does %v, and it does %v", foreseen, actions)
	}
	for n, s := range c.services {
		if twin := then.services[n]; twin == nil || !reflect.DeepEqual(twin.copy(), s.copy()) {
			w.fail("it was foreseen that %s becomes %+v, and it is %+v", n, twin, s)
		}
	}
	for n, was := range before {
		if was.State == StateStopping {
			w.late[n] = true
		}
	}
	pulled := map[string]bool{} // what those that are up require or want, directly or not
	var pull func(n string)
	pull = func(n string) {
		if s := c.services[n]; s != nil && !pulled[n] {
			pulled[n] = true
			for _, d := range append(s.spec.Requires[:len(s.spec.Requires):len(s.spec.Requires)], s.spec.Wants...) {
				pull(d)
			}
		}
	}
	for n, sp := range ev.Services {
		if before[n].spec != sp {
			w.changed[n] = w.now
			w.turned[n] = w.turned[n] || before[n].spec != nil && before[n].spec.Kind != sp.Kind
			if c.services[n].Up {
				pull(n)
			}
		}
	}
	for n, was := range before {
		s, sp := c.services[n], ev.Services[n]
		switch {
		case sp == nil && s != nil && (!s.Removed || s.Up):
			w.fail("%s is not configured any more, removed %v, wanted %v", n, s.Removed, s.Up)
		case sp != nil && (s == nil || s.Removed || s.spec != sp):
			w.fail("%s is configured and was not taken over", n)
		}
		if sp == nil {
			continue
		}
		wish := was.Removed || was.spec.Status != sp.Status
		switch {
		case was.Up && !s.Up && !(wish && sp.Status == spec.StatusStop):
			w.fail("%s is not wanted any more after a reload", n)
		case !was.Up && s.Up && !(wish && sp.Status == spec.StatusStart) && !pulled[n]:
			w.fail("%s is wanted after a reload", n)
		case wish && s.Up != (sp.Status == spec.StatusStart) && sp.Status != spec.StatusIgnore && !pulled[n]:
			w.fail("%s has status %s and is wanted: %v", n, sp.Status, s.Up)
		}
		if was.State != StateStarting && was.State != StateRunning || was.Halt != HaltNone || c.shutdown != nil {
			continue
		}
		replaced := ev.Restart[n] || OtherProcess(was.spec, sp)
		retimed := was.spec.Lifecycle.StartTimeout != sp.Lifecycle.StartTimeout
		down := s.State != was.State || s.Halt != HaltNone || s.LastMain != was.LastMain
		switch {
		case s.Failure != nil && (retimed || was.Deadline > 0 && was.Deadline <= w.now):
		case wish && sp.Status == spec.StatusStop:
			if !s.Due && s.Up && was.spec.Kind != spec.KindTarget { // a target may be back at once
				w.fail("%s goes on and its status is stop now", n)
			}
		case replaced && was.spec != sp && was.Up && s.Up:
			if s.Halt != HaltRestart && !(s.spec.Kind == spec.KindTarget || was.spec.Kind == spec.KindTarget) {
				w.fail("%s is to be restarted and %v, halt %d", n, s.State, s.Halt)
			}
		case s.Halt == HaltUser:
			w.fail("%s is to be stopped by hand, and nobody did", n)
		case s.Halt == HaltDependency:
			d := c.services[s.HaltBy]
			if !slices.Contains(sp.Requires, s.HaltBy) || d != nil && d.satisfied() && d.spec.Kind != spec.KindTarget {
				w.fail("%s is to be stopped because of %s, which it does not require or which is up", n, s.HaltBy)
			}
		case was.State == StateStarting && s.State == StateRunning && sp.Lifecycle.Ready == spec.ReadyExec: // its health is not waited for any more
		case down && sp.Kind != spec.KindTarget && !w.turned[n]:
			w.fail("%s was %v, run %d, and is %v, run %d", n, was.State, was.LastMain, s.State, s.LastMain)
		}
	}
	for n, s := range c.services {
		for _, o := range c.conflicts[n] {
			if d := c.services[o]; d != nil && s.State.active() && d.State.active() && before[n].State.active() && before[o].State.active() {
				w.tolerated[[2]string{min(n, o), max(n, o)}] = true
			}
		}
	}
	w.checkGraph()
	return actions
}

// checkGraph: the edges are those of a core that was just made.
func (w *world) checkGraph() {
	c := w.core
	services := map[string]*spec.Service{}
	for n, s := range c.services {
		services[n] = s.spec
	}
	fresh := New(services, c.opts)
	for n := range c.removing {
		fresh.services[n].Removed, fresh.removing[n] = true, true
	}
	fresh.link()
	for _, e := range []struct {
		what      string
		got, want map[string][]string
	}{
		{"requiredBy", c.requiredBy, fresh.requiredBy}, {"afterBy", c.afterBy, fresh.afterBy},
		{"conflicts", c.conflicts, fresh.conflicts}, {"givesWay", c.givesWay, fresh.givesWay},
	} {
		if !maps.EqualFunc(e.got, e.want, slices.Equal) {
			w.fail("%s is %v, counted %v", e.what, e.got, e.want)
		}
	}
	if !maps.EqualFunc(c.ports, fresh.ports, slices.Equal) {
		w.fail("ports are %v, counted %v", c.ports, fresh.ports)
	}
}
