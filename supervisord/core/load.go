package core

import (
	"github.com/threefoldtech/zinit/common/spec"
)

// Load replaces the configuration. Services that are the same pointer as
// before are not looked at.
type Load struct {
	// Services is all that is configured now.
	Services map[string]*spec.Service
	// Restart names the changed services whose process has to be replaced for
	// the change to take effect.
	Restart map[string]bool
}

func (Load) event() {}

// load takes over a configuration: what is new and to be started is wished
// for, what is gone is stopped and then forgotten, what has changed in place
// goes on, and a wish changes only where the configured status does.
func (c *Core) load(ev Load) {
	if c.shutdown != nil {
		return
	}
	var up, down, again []*service
	for _, n := range c.Names() {
		s, sp := c.services[n], ev.Services[n]
		switch {
		case sp == nil:
			if !s.Removed {
				s.Removed, c.removing = true, true
				down = append(down, s)
			}
			continue
		case sp == s.spec && !s.Removed:
			continue
		}
		was := s.spec
		s.spec = sp
		switch {
		case s.Removed || was.Status != sp.Status:
			s.Removed = false
			switch sp.Status {
			case spec.StatusStart:
				up = append(up, s)
			case spec.StatusStop:
				down = append(down, s)
			case spec.StatusIgnore:
			}
		case s.Up && s.State == StateFailed && !s.comingBack():
			up = append(up, s) // what was wrong with it may be mended
		}
		if ev.Restart[n] && s.State.active() {
			again = append(again, s)
		}
		c.touch(s)
	}
	for n, sp := range ev.Services {
		if c.services[n] == nil {
			s := c.add(n, sp)
			c.touched[n] = true
			if sp.Status == spec.StatusStart {
				up = append(up, s)
			}
		}
	}
	c.relink()
	for _, s := range down {
		c.wishDown(s)
	}
	for _, s := range again {
		if s.Up {
			c.halt(s, HaltRestart, "")
		}
	}
	c.wishUp(up)
}

// relink computes the graph anew, and who is engaged in it.
func (c *Core) relink() {
	c.link()
	for _, s := range c.services {
		s.users, s.followers, s.counted = 0, 0, false
	}
	for _, s := range c.services {
		c.count(s)
		// What it requires, or who requires it, may be another now.
		c.touched[s.Name] = true
	}
}

// sweep forgets the removed services that are down, and says whether there
// were any.
func (c *Core) sweep() bool {
	gone := false
	c.removing = false
	for _, n := range c.Names() {
		s := c.services[n]
		c.removing = c.removing || s.Removed
		if s.Removed && !s.engaged() && len(s.Runs) == 0 {
			c.setDeadline(s, 0)
			c.dirty[n] = true
			delete(c.services, n)
			c.do(Changed{Service: n, From: s.State, To: StateInactive, Removed: true})
			gone = true
		}
	}
	if gone {
		c.relink()
	}
	return gone
}
