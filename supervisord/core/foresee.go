package core

import (
	"container/heap"
	"maps"
)

// Foresee says which services that are up, or on their way, a new configuration
// would stop, and of each whether it is to be up again afterwards.
func (c *Core) Foresee(now Time, ev Load) map[string]bool {
	then, _ := c.rehearse(now, ev)
	stopped := map[string]bool{}
	for name, s := range c.services {
		if s.goingDown() || s.State != StateStarting && s.State != StateRunning {
			continue
		}
		twin := then.services[name]
		if twin != nil && !twin.goingDown() && twin.State.active() {
			continue
		}
		stopped[name] = false
		if twin != nil && twin.Up && !twin.Removed {
			why, _ := then.inTheWay(twin)
			stopped[name] = why == nil
		}
	}
	return stopped
}

// goingDown says that an active service is stopped, or about to be.
func (s *service) goingDown() bool { return s.Halt != HaltNone || s.State == StateStopping }

// rehearse steps a copy of the core, and returns it with the actions.
func (c *Core) rehearse(now Time, ev Event) (*Core, []Action) {
	copied := unlinked(nil, c.opts)
	copied.services = make(map[string]*service, len(c.services))
	for name, s := range c.services {
		twin := *s
		twin.Record, twin.heapIndex = s.copy(), -1
		copied.services[name] = &twin
		if twin.Deadline > 0 {
			heap.Push(&copied.deadline, &twin)
		}
		for _, r := range twin.Runs {
			copied.runs[r.ID] = &twin
		}
	}
	copied.removing, copied.strays = maps.Clone(c.removing), maps.Clone(c.strays)
	copied.lastRun, copied.now = c.lastRun, c.now
	copied.watched, copied.healthUp, copied.healthWhy = c.watched, c.healthUp, c.healthWhy
	if c.shutdown != nil {
		sh := *c.shutdown
		copied.shutdown = &sh
	}
	// A change of the graph makes a new one; only what is removed is taken out
	// of the one that there is.
	copied.graph = c.graph
	if len(c.removing) > 0 {
		copied.link()
	}
	return copied, copied.Step(now, ev)
}
