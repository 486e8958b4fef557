package core

import (
	"slices"
	"time"

	"github.com/threefoldtech/zinit/common/spec"
)

// Load replaces the configuration. It has no cycles, or none that the present
// one has not. During a shutdown it changes nothing.
//
// The caller saves the new specifications together with the Changes of the
// step, and before their Removed: that of a removed service is needed until it
// is named there.
type Load struct {
	// Services is all that is configured now. One that is the same pointer as
	// before has not changed.
	Services map[string]*spec.Service
	// Restart names the changed services whose process has to be replaced for
	// the change to take effect. That of kind, oneshot, ready or watchdog always
	// has to be.
	Restart map[string]bool
	// Broken says of services that are not there, because of an error in their
	// file, which that is.
	Broken map[string]string
}

func (Load) event() {}

// load takes over a configuration. What is new and to be started is wished
// for, what is gone is stopped and then forgotten, and what has changed goes
// on in place, or is restarted. A wish changes only where the configured
// status does; but what failed for good may be mended by a change and is tried
// again.
func (c *Core) load(ev Load) {
	if c.shutdown != nil {
		return
	}
	c.opts.Broken = ev.Broken
	var changed, up, down, again, retry, ready []*service
	sameGraph := true
	var wanted []string // what those that are up have not required or wanted before
	for _, n := range c.Names() {
		s, sp := c.services[n], ev.Services[n]
		if s.broken != nil {
			retry = append(retry, s)
		}
		if sp == nil && !s.Removed {
			s.Removed, c.removing[n] = true, true
			sameGraph = false
			down = append(down, s)
		}
		if sp == nil || sp == s.spec && !s.Removed {
			continue
		}
		was, back := s.spec, s.Removed
		s.spec, s.Removed = sp, false
		delete(c.removing, n)
		changed = append(changed, s)
		sameGraph = sameGraph && !back && sameEdges(was, sp)
		c.save(s)
		c.retime(s, was)
		c.recheck(s, was)
		c.watch(s)
		turned := back || sp.Status != was.Status
		switch {
		case turned && sp.Status == spec.StatusStart && !s.upOrComing():
			up = append(up, s)
		case turned && sp.Status == spec.StatusStop && s.Up:
			down = append(down, s)
			continue
		case turned && sp.Status == spec.StatusIgnore && s.waiting():
			c.setDeadline(s, 0)
		}
		replaced := ev.Restart[n] || OtherProcess(was, sp)
		if s.State == StateStarting && sp.Lifecycle.Ready == spec.ReadyExec && s.pid() != 0 && !sp.Oneshot && !replaced {
			ready = append(ready, s) // its health is not waited for any more
		}
		undone := s.Done && !sp.Oneshot
		s.Done = s.Done && !undone
		switch {
		case replaced && s.State.active():
			again = append(again, s)
		case replaced && s.waiting(), undone, s.State == StateFailed && !s.comingBack():
			retry = append(retry, s)
		}
		for _, lists := range [][2][]string{{sp.Requires, was.Requires}, {sp.Wants, was.Wants}} {
			for _, d := range lists[0] {
				if s.Up && !slices.Contains(lists[1], d) {
					wanted = append(wanted, d)
				}
			}
		}
	}
	for n, sp := range ev.Services {
		if c.services[n] == nil {
			s := c.add(n, sp)
			sameGraph = false
			if sp.Status == spec.StatusStart {
				up = append(up, s)
			}
		}
	}
	for _, n := range wanted {
		// One that is started at boot and not up was stopped by hand.
		if d := c.services[n]; d != nil && !d.Up && !d.Removed && d.spec.Status == spec.StatusStop {
			up = append(up, d)
		}
	}
	if sameGraph {
		for _, s := range changed {
			c.touch(s)
		}
	} else {
		c.relink()
	}
	for _, s := range ready {
		c.becomeRunning(s)
	}
	for _, s := range down {
		c.wishDown(s)
	}
	for _, s := range again {
		if s.Up {
			c.halt(s, HaltRestart, "")
		}
	}
	for _, s := range retry {
		if s.Up && s.broken == nil && s.spec.Status != spec.StatusIgnore {
			if s.Reason != nil && s.Reason.Kind == ReasonCycle {
				s.Reason = nil // or others in the cycle would fail for its sake
			}
			c.startByHand(s)
		}
	}
	c.wishUp(up)
}

// sameEdges says that link finds the same in two configurations of a service.
func sameEdges(a, b *spec.Service) bool {
	return slices.Equal(a.Requires, b.Requires) && slices.Equal(a.After, b.After) && slices.Equal(a.Conflicts, b.Conflicts) &&
		slices.Equal(a.Ports, b.Ports) && a.Early == b.Early
}

// OtherProcess says that a process begun by one configuration would be
// misunderstood by another.
func OtherProcess(was, sp *spec.Service) bool {
	a, b := was.Lifecycle.Ready, sp.Lifecycle.Ready
	return sp.Kind != was.Kind || sp.Oneshot != was.Oneshot || a != b && (saysReady(a) || saysReady(b)) ||
		sp.Lifecycle.Watchdog != was.Lifecycle.Watchdog
}

// saysReady says that a process has to be started in its own way to say that
// it is ready.
func saysReady(r spec.Ready) bool { return r == spec.ReadyNotify || r == spec.ReadyFd }

// retime gives a timeout that runs the length that it has now.
func (c *Core) retime(s *service, was *spec.Service) {
	timeout := func(l *spec.Lifecycle) time.Duration {
		switch {
		case s.State == StateStarting:
			return l.StartTimeout
		case s.State == StateRunning:
			return l.Watchdog
		case s.State == StateStopping, s.Cleaning:
			return l.StopTimeout
		}
		return 0
	}
	from, to := Time(timeout(was.Lifecycle)), Time(timeout(s.spec.Lifecycle))
	switch {
	case from == to:
	case s.Deadline > 0 && (to > 0 || s.State == StateStopping || s.Cleaning):
		c.setDeadline(s, max(s.Deadline-from+to, 1))
	case s.Deadline > 0:
		c.setDeadline(s, 0)
	case s.State == StateStarting:
		c.setDeadline(s, max(s.Since+to, 1))
	case from == 0 && (s.State == StateStopping || s.Cleaning) && !s.Killed:
		c.setDeadline(s, c.now+to) // what is there later is not killed at once any more
	}
}

// relink computes the graph anew, and has settle look at everybody: what it
// requires, or who requires it, may be another now.
func (c *Core) relink() {
	c.link()
	for n := range c.services {
		c.touched[n] = true
	}
	for n := range c.proxiesOf {
		c.gates[n] = true
	}
}

// settleGone forgets a removed service that is down.
func (c *Core) settleGone(s *service) {
	if !s.Removed || s.engaged() { // as long as it has runs its halt stays
		return
	}
	c.setDeadline(s, 0)
	c.touch(s)
	c.unlink(s)
	delete(c.services, s.Name)
	delete(c.removing, s.Name)
	c.do(Changed{Service: s.Name, From: s.State, To: StateInactive, Removed: true})
}
