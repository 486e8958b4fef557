package core

import "slices"

// Services of the system directory are early: all others, the late ones, start
// as if each had after on every early one, and are stopped before. An edge for
// each pair would be as many as the product of both, so the early services are
// looked at as a whole, and late ones again only when that has changed.
type early struct {
	names []string // of the early services, sorted
	// engaged counts the late services that are.
	engaged int
	// stale says that one of them was touched or looked at since the rest was
	// found out: first is the first of those for which late services have to
	// wait, "" if there is none, and moving says that none of them is stuck.
	stale  bool
	first  string
	moving bool
}

// linkEarly finds the early services when the graph is computed anew.
func (c *Core) linkEarly(names []string) {
	c.early = early{stale: true}
	for _, n := range names {
		if c.services[n].spec.Early {
			c.early.names = append(c.early.names, n)
		}
	}
}

// lookEarly finds out whether late services have to wait, and has settle look
// at those that are due if that is not as it was.
func (c *Core) lookEarly() *early {
	e := &c.early
	if !e.stale {
		return e
	}
	was := *e
	e.stale, e.first, e.moving = false, "", true
	for _, n := range e.names {
		if s := c.services[n]; s != nil && s.pendingFor() {
			if e.first == "" {
				e.first = n
			}
			e.moving = e.moving && s.onItsWay()
		}
	}
	if (e.first == "") != (was.first == "") || e.moving != was.moving {
		for n, s := range c.services {
			if s.Due && !s.spec.Early {
				c.touched[n] = true
			}
		}
	}
	return e
}

// anyTouched says that settle has more to do.
func (c *Core) anyTouched() bool {
	c.lookEarly()
	return len(c.touched) > 0
}

// countLate counts a late service that is engaged, or no longer. When none is
// left in a shutdown it is the turn of the early ones.
func (c *Core) countLate(s *service, by int) {
	if s.spec.Early {
		return
	}
	c.early.engaged += by
	if c.early.engaged == 0 && c.shutdown != nil {
		c.touchNames(c.early.names)
	}
}

// name is the service that a block is about.
func (c *Core) name(b Block) string {
	if b.Early {
		return c.lookEarly().first
	}
	return b.Name
}

// unlinkEarly takes a service that is forgotten out of the early ones.
func (c *Core) unlinkEarly(name string) {
	if i := slices.Index(c.early.names, name); i >= 0 {
		c.early.names, c.early.stale = slices.Delete(c.early.names, i, i+1), true
	}
}
