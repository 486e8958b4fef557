package core

import (
	"container/heap"
	"slices"

	"github.com/threefoldtech/zinit/common/spec"
)

// link computes the edges of the graph backwards, its cycles, who gives way to
// whom, and what is counted along the edges.
func (c *Core) link() {
	c.requiredBy, c.afterBy = map[string][]string{}, map[string][]string{}
	c.conflicts, c.ports = map[string][]string{}, map[uint16][]string{}
	specs := make(map[string]*spec.Service, len(c.services)) // of those that may start
	names := c.Names()
	c.linkEarly(names)
	for _, n := range names {
		s := c.services[n]
		if !s.Removed {
			specs[n] = s.spec
		}
		s.broken, s.users, s.followers, s.counted, s.loose = nil, 0, 0, false, false
		for _, d := range s.spec.Requires {
			c.requiredBy[d] = append(c.requiredBy[d], n)
		}
		for _, d := range s.spec.After {
			c.afterBy[d] = append(c.afterBy[d], n)
		}
		for _, d := range s.spec.Conflicts {
			c.conflicts[d] = append(c.conflicts[d], n)
			c.conflicts[n] = append(c.conflicts[n], d)
		}
		for _, p := range s.spec.Ports {
			c.ports[p] = append(c.ports[p], n)
		}
	}
	for n, l := range c.conflicts {
		slices.Sort(l)
		c.conflicts[n] = slices.Compact(l)
	}
	for _, cycle := range spec.Cycles(specs) {
		for _, n := range cycle {
			c.services[n].broken = cycleReason(cycle)
			delete(specs, n)
		}
	}
	if len(c.removing) > 0 {
		c.loosen(specs)
	}
	c.givesWay = map[string][]string{}
	for _, n := range names {
		for _, other := range c.conflicts[n] {
			switch {
			case other <= n || c.services[other] == nil:
			case c.waitsFor(n, other):
				c.givesWay[n] = append(c.givesWay[n], other)
			default:
				c.givesWay[other] = append(c.givesWay[other], n)
			}
		}
	}
	for _, n := range names {
		c.count(c.services[n])
	}
}

// unlink takes the edges of a removed service that is down out of the graph.
// Nobody waits for a start of it, and it counts nowhere any more, so that
// nothing else changes.
func (c *Core) unlink(s *service) {
	for _, d := range s.spec.Requires {
		cut(c.requiredBy, d, s.Name)
	}
	for _, d := range s.spec.After {
		cut(c.afterBy, d, s.Name)
	}
	c.unlinkEarly(s.Name)
	for _, p := range s.spec.Ports {
		cut(c.ports, p, s.Name)
	}
	for _, d := range c.conflicts[s.Name] {
		cut(c.givesWay, d, s.Name)
	}
	delete(c.givesWay, s.Name)
	for _, d := range s.spec.Conflicts {
		if o := c.services[d]; o == nil || !slices.Contains(o.spec.Conflicts, s.Name) {
			cut(c.conflicts, d, s.Name)
			cut(c.conflicts, s.Name, d)
		}
	}
}

// cut takes a name out of a list.
func cut[K comparable](edges map[K][]string, from K, to string) {
	i := slices.Index(edges[from], to)
	switch {
	case i < 0:
	case len(edges[from]) == 1:
		delete(edges, from)
	default:
		edges[from] = slices.Delete(edges[from], i, i+1)
	}
}

// loosen has removed services be stopped without regard to what they require
// where otherwise some would wait for each other: where that, by the new
// configuration, still requires or comes after the removed one.
func (c *Core) loosen(specs map[string]*spec.Service) {
	for n := range c.removing {
		specs[n] = c.services[n].spec
	}
	for cycles := spec.Cycles(specs); len(cycles) > 0; cycles = spec.Cycles(specs) {
		for _, n := range slices.Concat(cycles...) {
			if c.removing[n] {
				c.services[n].loose = true
				delete(specs, n)
			}
		}
	}
}

// waitsFor says that a start of one service may have to wait for another to be
// started, directly or by a detour. As of two in conflict the first by name
// goes first unless it waits for the other, no services wait for each other in
// a circle, and a start that is on its way does come about.
func (c *Core) waitsFor(first, other string) bool {
	seen := map[string]bool{first: true}
	early := c.early.names
	for todo := []string{first}; len(todo) > 0; todo = todo[1:] {
		n := todo[0]
		s := c.services[n]
		if s == nil || s.broken != nil || s.Removed {
			continue
		}
		lists := [][]string{s.spec.Requires, s.spec.After, c.givesWay[n]}
		if !s.spec.Early {
			lists, early = append(lists, early), nil // once is enough
		}
		for _, l := range lists {
			for _, d := range l {
				if d == other {
					return true
				}
				if !seen[d] {
					seen[d] = true
					todo = append(todo, d)
				}
			}
		}
	}
	return false
}

// deadlines is a heap of the services that have one, the earliest first, by
// name where two are equal.
type deadlines struct{ list []*service }

func (d *deadlines) Len() int { return len(d.list) }

func (d *deadlines) Less(i, j int) bool {
	a, b := d.list[i], d.list[j]
	return a.Deadline < b.Deadline || a.Deadline == b.Deadline && a.Name < b.Name
}

func (d *deadlines) Swap(i, j int) {
	d.list[i], d.list[j] = d.list[j], d.list[i]
	d.list[i].heapIndex, d.list[j].heapIndex = i, j
}

func (d *deadlines) Push(x any) {
	s := x.(*service)
	s.heapIndex = len(d.list)
	d.list = append(d.list, s)
}

func (d *deadlines) Pop() any {
	s := d.list[len(d.list)-1]
	d.list = d.list[:len(d.list)-1]
	s.heapIndex = -1
	return s
}

func (d *deadlines) min() (Time, bool) {
	if len(d.list) == 0 {
		return 0, false
	}
	return d.list[0].Deadline, true
}

// pop takes the first service whose deadline is not after now.
func (d *deadlines) pop(now Time) *service {
	if t, ok := d.min(); !ok || t > now {
		return nil
	}
	return heap.Pop(d).(*service)
}

// setDeadline gives a service its one deadline, 0 for none.
func (c *Core) setDeadline(s *service, t Time) {
	if s.Deadline == t {
		return
	}
	s.Deadline = t
	c.save(s)
	switch {
	case t == 0 && s.heapIndex >= 0:
		heap.Remove(&c.deadline, s.heapIndex)
	case t == 0:
	case s.heapIndex >= 0:
		heap.Fix(&c.deadline, s.heapIndex)
	default:
		heap.Push(&c.deadline, s)
	}
}
