package core

import (
	"slices"
	"time"

	"github.com/threefoldtech/zinit/common/spec"
)

// What must hold in the simulated world: of each order, of each state that a
// step leads to, and at the end.

// checkLeft: nothing starts while processes of the last run are left.
func (w *world) checkLeft(a Spawn) {
	for _, p := range w.sorted() {
		if p.service != a.Service.Name || p.end != nil && !p.left || a.Role == RoleStop {
			continue
		}
		if !(a.Role == RoleMain && p.role == RolePre && p.end != nil) {
			w.fail("%s is spawned while run %d of it is there", procName(a.Service.Name, a.Role), p.run)
		}
	}
}

// checkStep checks what a step has ordered and the state that it has led to.
func (w *world) checkStep(ev Event, actions []Action) {
	c := w.core
	if r, ok := ev.(Requested); ok {
		ev = r.Event
	}
	if limit := 40 * (len(c.services) + 1); len(actions) > limit {
		w.fail("%d actions at once", len(actions))
	}
	stopping := w.stopAt != 0
	if c.shutdown != nil && !stopping {
		w.stopAt, w.within = w.now, w.plan.opts.ShutdownTimeout
		if stop, ok := ev.(Stop); ok {
			w.within = stop.Within
		}
	}
	if stop, ok := ev.(Stop); ok && stop.Hurry && w.stopAt != w.now {
		w.within = min(w.within, w.now-w.stopAt)
	}
	for _, a := range actions {
		switch a := a.(type) {
		case Spawn:
			s := c.services[a.Service.Name]
			if a.Role == RoleStop {
				w.checkFirstStop(s)
			} else if s.Halt == HaltNone && !(recovered(ev) && w.changed[s.Name] >= s.Since) {
				w.checkStart(s, a)
			}
			if stopping && a.Role != RoleStop && !recovered(ev) {
				w.fail("%s is spawned during the shutdown", s.Name)
			}
		case Signal:
			if s, r := c.lookup(a.Run); s != nil && a.Scope == ScopeAll && r.Role == RoleMain {
				w.checkFirstStop(s)
			}
		case Changed:
			if a.Removed {
				w.checkGraph()
			}
		case Forget, SetMain, Shell, Halt, HealthChanged, SetProbes, SetProbe, DropProbe:
		}
	}
	if t, ok := c.NextWake(); ok && t <= w.now {
		w.fail("the next wake was to be at %v already", time.Duration(t-epoch))
	}
	w.checkState()
}

// recovered says that a step is that of a recovery, which orders spawns again.
func recovered(ev Event) bool { _, is := ev.(Tick); return is }

// checkStart: what is required is up when a service starts.
func (w *world) checkStart(s *service, a Spawn) {
	if a.Role == RoleMain && len(s.spec.Lifecycle.PreStart) > 0 || s.State != StateStarting || s.Since != w.now {
		return // a start that goes on
	}
	for _, n := range s.spec.Requires {
		d := w.core.services[n]
		if d == nil || d.State != StateRunning && !(d.State == StateExited && d.Done) {
			w.fail("%s starts and %s is not up", s.Name, n)
		}
	}
}

// checkFirstStop: a service that is stopped by a wish outlives those that
// require it, directly or not.
func (w *world) checkFirstStop(s *service) {
	if s.Halt == HaltNone || !s.State.active() || s.Failure != nil || w.core.shutdown != nil && w.core.shutdown.Killed {
		return
	}
	if w.late[s.Name] {
		return
	}
	for _, n := range w.core.Names() {
		if d := w.core.services[n]; s.spec.Early && !d.spec.Early && d.State.active() && w.core.shutdown != nil && s.Since > w.stopAt {
			w.fail("%s is stopped before %s, which is %v and late", s.Name, n, d.State)
		}
	}
	seen := map[string]bool{s.Name: true}
	for todo := []string{s.Name}; len(todo) > 0; todo = todo[1:] {
		n := todo[0]
		if d := w.core.services[n]; n != s.Name && d.State.active() {
			w.fail("%s is stopped before %s, which is %v", s.Name, n, d.State)
		}
		if s := w.core.services[n]; s.State == StateExited && s.Done && w.core.shutdown == nil {
			continue // it has done its work and needs nothing any more
		}
		for _, d := range w.core.requiredBy[n] {
			if !seen[d] && !w.core.services[d].loose {
				seen[d] = true
				todo = append(todo, d)
			}
		}
	}
}

// checkState: what holds of each state that a core can be in.
func (w *world) checkState() {
	c := w.core
	users, followers := map[string]int{}, map[string]int{}
	runs, late := 0, 0
	for n, s := range c.services {
		runs += len(s.Runs)
		mains := 0
		for _, r := range s.Runs {
			if r.Role == RoleMain {
				mains++
			}
			if c.runs[r.ID] != s {
				w.fail("run %d of %s is not in the table of runs", r.ID, n)
			}
		}
		if s.State != StateStopping {
			delete(w.late, n)
		}
		m := s.main()
		target := s.spec.Kind == spec.KindTarget
		switch {
		case w.turned[n]: // from a service into a target or back, and the old one may be stopping
		case target && (len(s.Runs) > 0 || s.State == StateStarting || s.State == StateStopping || s.State == StateExited):
			w.fail("target %s is %v with %d runs", n, s.State, len(s.Runs))
		case s.State.active() && !target && len(s.Runs) == 0:
			w.fail("%s is %v and has no run", n, s.State)
		case s.State == StateRunning && !target && (m == nil || m.Exited):
			w.fail("%s is running and its process has ended", n)
		}
		switch {
		case mains > 1:
			w.fail("%s has %d runs", n, mains)
		case s.State == StateStarting && s.running(RoleMain) == nil && s.running(RolePre) == nil:
			w.fail("%s is starting and no process of it is", n)
		case !s.State.active() && s.running(RoleMain) != nil:
			w.fail("%s is %v and its process is there", n, s.State)
		case s.Due && !s.Up:
			w.fail("%s is due and not wanted", n)
		case s.Due && s.State == StateInactive && s.Halt == HaltNone && c.shutdown == nil:
			w.fail("%s is due and nobody has looked at it", n)
		case !s.Due && s.State == StateBlocked:
			w.fail("%s is blocked and not due", n)
		case s.State == StateBlocked && len(s.blocks) == 0 && s.Halt == HaltNone:
			w.fail("%s is blocked by nothing", n)
		case s.Halt != HaltNone && s.State != StateStopping && !s.Cleaning && c.dependentsDown(s):
			w.fail("%s is to be stopped, nothing is in the way, and it is %v", n, s.State)
		case (s.heapIndex >= 0) != (s.Deadline > 0):
			w.fail("%s has deadline %d and place %d among the deadlines", n, s.Deadline, s.heapIndex)
		case s.Cleaning && (s.State.active() || len(s.Runs) == 0):
			w.fail("%s is %v with %d runs, and cleans up", n, s.State, len(s.Runs))
		case s.Deadline > 0 && !s.Cleaning && (s.State == StateInactive || s.State == StateBlocked):
			w.fail("%s is %v and has a deadline", n, s.State)
		case s.Removed && (s.Up || !s.engaged() && len(s.Runs) == 0):
			w.fail("%s is removed, wanted %v and %v with %d runs", n, s.Up, s.State, len(s.Runs))
		case s.Removed != c.removing[n]:
			w.fail("%s is removed %v and in the list of those %v", n, s.Removed, c.removing[n])
		}
		if s.State == StateBlocked && c.shutdown == nil && s.Halt == HaltNone {
			if why, blocks := c.inTheWay(s); why != nil || !slices.Equal(blocks, s.blocks) || c.moving(blocks) != s.UnderWay {
				w.fail("%s was looked at last too early: it is blocked by %v, under way %v; in truth %v %v, %v", n, s.blocks, s.UnderWay, blocks, why, c.moving(blocks))
			}
		}
		if s.engaged() && !s.loose {
			for _, d := range s.spec.Requires {
				users[d]++
			}
			for _, d := range s.spec.After {
				followers[d]++
			}
			if !s.spec.Early {
				late++
			}
		}
		for _, o := range c.conflicts[n] {
			pair := [2]string{min(n, o), max(n, o)}
			switch d := c.services[o]; {
			case d == nil || !s.State.active() || !d.State.active():
				delete(w.tolerated, pair)
			case !w.tolerated[pair]:
				w.fail("%s is %v and %s, which conflicts with it, %v", n, s.State, o, d.State)
			}
		}
		if s.spec.Kind != spec.KindTarget && s.State == StateRunning && s.Halt == HaltNone && c.shutdown == nil && c.lost(s) != "" {
			w.fail("%s is running and what it requires is not: %s", n, c.lost(s))
		}
	}
	for n, s := range c.services {
		if s.users != users[n] || s.followers != followers[n] {
			w.fail("%s has %d users and %d followers, counted %d and %d", n, users[n], followers[n], s.users, s.followers)
		}
	}
	if late != c.early.engaged {
		w.fail("%d late services are engaged, counted %d", late, c.early.engaged)
	}
	if runs != len(c.runs) {
		w.fail("%d runs of services, %d in the table", runs, len(c.runs))
	}
}

// checkAdopted: where the saved state is lost, what ran goes on, what is not
// configured is ended, and nothing is there twice.
func (w *world) checkAdopted(facts []Fact, actions []Action, adopted Adopted) {
	for _, n := range adopted.Ended {
		w.disk.configure(map[string]*spec.Service{n: w.core.Spec(n)})
	}
	for n, s := range w.core.services {
		w.changed[n] = w.now // a oneshot that is taken for done may never have run
		w.turned[n] = w.turned[n] || s.spec.Kind == spec.KindTarget && len(s.Runs) > 0
	}
	signalled := map[RunID]bool{}
	for _, a := range actions {
		if sig, ok := a.(Signal); ok {
			signalled[sig.Run] = true
		}
	}
	for _, f := range facts {
		s, r := w.core.lookup(f.Run)
		switch over := f.End != nil && !f.Left; {
		case over && s != nil:
			w.fail("run %d of %s is over and was adopted", f.Run, f.Service)
		case !over && s == nil:
			w.fail("run %d of %s was not adopted", f.Run, f.Service)
		case over || f.Role != RoleMain || f.End != nil || s.Halt == HaltDependency:
		case r.Role != f.Role || s.Name != f.Service:
			w.fail("run %d of %s was adopted as %v of %s", f.Run, f.Service, r.Role, s.Name)
		case s.Removed == (w.configured[s.Name] != nil):
			w.fail("%s is removed: %v", s.Name, s.Removed)
		case signalled[f.Run] && !s.Removed && s.Failure == nil && !w.turned[s.Name]:
			w.fail("%s ran and is signalled", s.Name)
		}
	}
}

// checkWishes: now that all is quiet, each service is where its wish and its
// dependencies say.
func (w *world) checkWishes() {
	c := w.core
	for n, s := range c.services {
		up := s.State == StateRunning || s.State == StateStarting
		stuck := s.State == StateStarting && s.Deadline == 0 // it hangs and may do so
		switch {
		case s.State == StateStopping:
			w.fail("%s is stopping for ever", n)
		case s.Removed:
			w.fail("%s is removed and still there", n)
		case s.spec != w.configured[n]:
			w.fail("%s has another configuration than the last", n)
		case s.State == StateStarting && !stuck:
			w.fail("%s is starting for ever", n)
		case !s.Up && up:
			w.fail("%s is %v and not wanted", n, s.State)
		case s.State == StateBlocked:
			w.checkBlocked(s)
		case s.Up && s.State == StateFailed && s.Reason.Kind == ReasonDependency:
			if d := c.services[s.Reason.Service]; d == nil || d.State != StateFailed || !d.Up {
				w.fail("%s has failed because of %s, which is not", n, s.Reason.Service)
			}
		case s.State == StateInactive && s.Up && s.spec.Status != spec.StatusIgnore:
			w.fail("%s was never started", n)
		case s.State == StateExited && s.Up && !s.Done && w.changed[n] < s.Since && s.spec.Lifecycle.Restart == spec.RestartAlways && s.spec.Status != spec.StatusIgnore &&
			(s.End == nil || !slices.Contains(s.spec.Lifecycle.NoRestartExitCodes, s.End.Code)) &&
			(s.spec.Lifecycle.MaxRestarts == 0 || s.Restarts < s.spec.Lifecycle.MaxRestarts):
			w.fail("%s has ended and is not started again", n)
		case !w.plan.faults && s.Up && s.State == StateFailed && !s.Reason.ofDependency() && s.Reason.Kind != ReasonSignal && s.Reason.Kind != ReasonStopTime &&
			s.Reason.Kind != ReasonStartTime && s.Reason.Kind != ReasonExitCode:
			w.fail("%s has failed where nothing can: %s", n, s.Reason.Message)
		}
	}
	if len(c.services) != len(w.configured) {
		w.fail("%d services are configured, there are %v", len(w.configured), c.Names())
	}
	for _, p := range w.sorted() {
		s, r := c.lookup(p.run)
		switch {
		case s == nil:
			w.fail("pid1 has run %d of %s, of which nobody knows", p.run, p.service)
		case p.end != nil && !p.left:
			w.fail("run %d of %s is over and not forgotten", p.run, p.service)
		case r.Pid != p.pid || r.Exited != (p.end != nil) || r.Signals != p.signals%1000:
			w.fail("run %d of %s is %+v, and in truth %+v", p.run, p.service, *r, *p)
		}
	}
	if len(c.runs) != len(w.runs) {
		w.fail("%d runs are known, %d are there", len(c.runs), len(w.runs))
	}
}

// checkBlocked: who is blocked is so because of somebody who will not go away.
func (w *world) checkBlocked(s *service) {
	c := w.core
	for _, n := range s.spec.Requires {
		if d := c.services[n]; d.State != StateRunning && !(d.State == StateExited && d.Done) {
			return
		}
	}
	for _, n := range c.conflicts[s.Name] {
		if d := c.services[n]; d != nil && (d.State.active() || w.waitsForHung(d)) {
			return
		}
	}
	for _, p := range s.spec.Ports {
		for _, n := range c.ports[p] {
			if n != s.Name && c.services[n].State.active() {
				return
			}
		}
	}
	before := s.spec.After
	if !s.spec.Early {
		before = slices.Concat(before, c.early.names)
	}
	for _, n := range before {
		if d := c.services[n]; d != nil && (d.State == StateStarting || w.waitsForHung(d)) {
			return
		}
	}
	if len(s.Runs) > 0 {
		return
	}
	w.fail("%s is blocked and nothing is in its way", s.Name)
}

// waitsForHung says that a start is on its way behind one that hangs, as starts
// without a timeout may.
func (w *world) waitsForHung(s *service) bool {
	if !s.Due || !s.UnderWay {
		return false
	}
	for _, d := range w.core.services {
		if d.State == StateStarting {
			return true
		}
	}
	return false
}
