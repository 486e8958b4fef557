package core

import "slices"

// Version is the format of what Changes and All return. A release reads its
// own and the one before.
const Version = 1

// Global is what is saved beside the records of the services.
type Global struct {
	LastRun  RunID     `msgpack:"last_run"`
	Shutdown *Shutdown `msgpack:"shutdown,omitempty"`
	// Strays are runs of no service that are being ended.
	Strays []RunID `msgpack:"strays,omitempty"`
	// Requested is the number of the last Requested.
	Requested uint64 `msgpack:"requested,omitempty"`
}

// Changes is what has to be saved before the actions of the last steps are
// performed. Its records are copies.
type Changes struct {
	Global  *Global
	Records []Record
	// Removed names services that are no more.
	Removed []string
}

// Empty says that there is nothing to save.
func (c Changes) Empty() bool {
	return c.Global == nil && len(c.Records) == 0 && len(c.Removed) == 0
}

// Changes returns what has changed since the last call.
func (c *Core) Changes() Changes {
	var out Changes
	for n := range c.dirty {
		if s := c.services[n]; s != nil {
			out.Records = append(out.Records, s.copy())
		} else {
			out.Removed = append(out.Removed, n)
		}
	}
	slices.SortFunc(out.Records, func(a, b Record) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	slices.Sort(out.Removed)
	c.dirty = map[string]bool{} // a map that was large stays so
	if c.dirtyGlobal {
		c.dirtyGlobal = false
		g := c.global()
		out.Global = &g
	}
	return out
}

// All returns everything, as if all had changed.
func (c *Core) All() Changes {
	for n := range c.services {
		c.dirty[n] = true
	}
	c.dirtyGlobal = true
	return c.Changes()
}

// Global returns what there is to know beside the services.
func (c *Core) Global() Global { return c.global() }

func (c *Core) global() Global {
	g := Global{LastRun: c.lastRun, Requested: c.requested}
	if c.shutdown != nil {
		sh := *c.shutdown
		g.Shutdown = &sh
	}
	for id := range c.strays {
		g.Strays = append(g.Strays, id)
	}
	slices.Sort(g.Strays)
	return g
}

// copy returns the record with nothing in it that later steps change.
func (s *service) copy() Record {
	r := s.Record
	r.Runs = make([]*Run, len(s.Runs))
	for i, run := range s.Runs {
		c := *run
		r.Runs[i] = &c
	}
	return r
}
