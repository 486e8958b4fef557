package core

import (
	"maps"
	"slices"

	"github.com/threefoldtech/zinit/common/spec"
)

// BlockKind says in what way a start has to wait for another service.
type BlockKind string

// The kinds of blocks.
const (
	BlockRequires  BlockKind = "requires"
	BlockAfter     BlockKind = "after"
	BlockConflicts BlockKind = "conflicts"
	BlockPort      BlockKind = "port"
	// BlockLeft is not another service, but what the last run left behind.
	BlockLeft BlockKind = "left"
)

// Block is one thing that a start waits for.
type Block struct {
	Kind BlockKind
	Name string
	Port uint16 // for port
	// Early says that it stands for all early services that are in the way, of
	// which View names the first.
	Early bool
}

// save marks a service as changed since the last Changes.
func (c *Core) save(s *service) { c.dirty[s.Name] = true }

// touch has settle look at a service and at those that it matters to.
func (c *Core) touch(s *service) {
	c.save(s)
	c.touched[s.Name] = true
	c.early.stale = c.early.stale || s.spec.Early
	c.touchGates(s)
	c.touchNames(c.requiredBy[s.Name], c.afterBy[s.Name], c.conflicts[s.Name])
	// What this one requires may be waiting for it to be down.
	c.touchNames(s.spec.Requires)
	if c.shutdown != nil {
		c.touchNames(s.spec.After)
	}
	for _, p := range s.spec.Ports {
		c.touchNames(c.ports[p])
	}
}

func (c *Core) touchNames(lists ...[]string) {
	for _, l := range lists {
		for _, n := range l {
			c.touched[n] = true
		}
	}
}

// merged is a set with another, which is not used any more.
func merged(set, other map[string]bool) map[string]bool {
	if len(set) == 0 {
		return other // at a boot those are all services
	}
	maps.Copy(set, other)
	return set
}

// settle looks at what was touched until nothing changes: who is to stop
// first, so that this has reached everybody before the first one does stop,
// then stops, then starts. What is to go on after its last run starts before
// what is blocked, maybe by just that; and what is blocked only when it is
// known of everybody who is on the way to a start. A round that changes
// something does so for good, towards a wish, so the number of rounds is
// bounded by the length of the longest chain.
func (c *Core) settle() {
	for c.anyTouched() {
		blocked := map[string]bool{}
		for c.anyTouched() {
			var starts map[string]bool
			for c.anyTouched() {
				var stops map[string]bool
				for c.anyTouched() {
					round := c.touched
					c.touched = map[string]bool{}
					stops = merged(stops, round)
					for _, s := range c.sorted(round) {
						c.settleHalt(s)
					}
				}
				for _, s := range c.sorted(stops) {
					c.settleStop(s)
					c.settleGone(s)
				}
				starts = merged(starts, stops)
			}
			list := c.sorted(starts)
			for _, s := range list {
				if s.State != StateBlocked {
					c.settleStart(s)
				}
			}
			for _, s := range list {
				if s.State == StateBlocked {
					c.settleWay(s)
					blocked[s.Name] = true
				}
			}
		}
		for _, s := range c.sorted(blocked) {
			c.settleStart(s)
		}
	}
	c.checkHalt()
}

// settleHalt passes a stop on to a service that requires what goes away. One
// that is down passes it on as well, as long as something above it is not; but
// a oneshot that has done its work needs nothing any more.
func (c *Core) settleHalt(s *service) {
	if s.Halt != HaltNone || c.shutdown != nil || s.State == StateStopping || s.broken != nil {
		return
	}
	if !s.State.active() && !s.waiting() && (s.users == 0 || s.Done) {
		return
	}
	if by := c.lost(s); by != "" {
		c.halt(s, HaltDependency, by)
	}
}

// settleStop begins a stop when all dependents are down.
func (c *Core) settleStop(s *service) {
	if s.Halt == HaltNone || !c.dependentsDown(s) {
		return
	}
	switch s.State {
	case StateStarting, StateRunning:
		c.becomeStopping(s)
	case StateInactive, StateBlocked, StateExited, StateFailed:
		if len(s.Runs) > 0 && (s.Halt == HaltUser || s.Halt == HaltShutdown) {
			c.clean(s)
			return
		}
		c.halt(s, HaltNone, "")
	case StateStopping:
	}
}

// lost returns what a service requires and what does not hold it any more.
func (c *Core) lost(s *service) string {
	for _, n := range s.spec.Requires {
		if d := c.services[n]; d == nil || !d.holds() {
			return n
		}
	}
	return ""
}

// dependentsDown says that nothing is left that has to go before a service.
func (c *Core) dependentsDown(s *service) bool {
	return s.users == 0 && (c.shutdown == nil || s.followers == 0 && (!s.spec.Early || c.early.engaged == 0))
}

// count keeps users and followers of others right. It is called whenever the
// state or the halt of a service has changed.
func (c *Core) count(s *service) {
	for todo := []*service{s}; len(todo) > 0; todo = todo[1:] {
		s := todo[0]
		if s.counted == s.engaged() || s.loose {
			continue
		}
		s.counted = !s.counted
		by := -1
		if s.counted {
			by = 1
		}
		c.countLate(s, by)
		for _, n := range s.spec.Requires {
			if d := c.services[n]; d != nil {
				d.users += by
				c.touchGates(d)
				if d.counted != d.engaged() {
					todo = append(todo, d)
				}
			}
		}
		for _, n := range s.spec.After {
			if d := c.services[n]; d != nil {
				d.followers += by
			}
		}
	}
}

// mayStart says that it is for others alone when a service starts.
func (c *Core) mayStart(s *service) bool {
	return s.Due && s.Halt == HaltNone && !s.State.active() && c.shutdown == nil
}

// settleWay finds out whether a blocked service is on the way to a start.
func (c *Core) settleWay(s *service) {
	if c.mayStart(s) {
		why, blocks := c.inTheWay(s)
		c.setUnderWay(s, why == nil && c.moving(blocks))
	}
}

// settleStart starts a service that is due, or says what is in the way.
func (c *Core) settleStart(s *service) {
	if !c.mayStart(s) {
		return
	}
	c.clean(s)
	why, blocks := c.inTheWay(s)
	switch {
	case why != nil:
		c.setUnderWay(s, false)
		if !why.same(s.Reason) {
			c.becomeFailed(s, why)
			c.decide(s, why.remedy())
		}
		if why.Kind == ReasonCycle || why.Kind == ReasonConfig {
			s.Due = false
			c.endedForGood(s)
		}
	case len(blocks) == 0:
		c.becomeStarting(s)
	default:
		if s.State != StateBlocked {
			c.becomeBlocked(s)
		}
		s.blocks = blocks
		if by := blocks[0].Name; s.StartedAt == 0 && by != s.First.WaitedFor {
			s.First.WaitedFor = by // the last of them is the one that stays
			c.save(s)
		}
		c.setUnderWay(s, c.moving(blocks))
	}
}

func (c *Core) setUnderWay(s *service, is bool) {
	if s.UnderWay != is {
		s.UnderWay = is
		c.touch(s)
	}
}

// inTheWay returns why a service cannot be started at all, or else what its
// start has to wait for.
func (c *Core) inTheWay(s *service) (*Reason, []Block) {
	if s.broken != nil {
		return s.broken, nil
	}
	var blocks []Block
	for _, n := range s.spec.Requires {
		d := c.services[n]
		switch {
		case d == nil:
			return c.missing(n), nil
		case d.satisfied():
		case d.State == StateFailed && d.Up && !d.comingBack() && d.Halt == HaltNone:
			return &Reason{Kind: ReasonDependency, Service: n, Message: "requires " + n + ", which has failed"}, nil
		default:
			blocks = append(blocks, Block{Kind: BlockRequires, Name: n})
		}
	}
	for _, n := range s.spec.After {
		if d := c.services[n]; d != nil && d.pendingFor() {
			blocks = append(blocks, Block{Kind: BlockAfter, Name: n})
		}
	}
	if !s.spec.Early && c.lookEarly().first != "" {
		blocks = append(blocks, Block{Kind: BlockAfter, Early: true})
	}
	for _, n := range c.conflicts[s.Name] {
		if d := c.services[n]; d != nil && c.excludes(d, s) {
			blocks = append(blocks, Block{Kind: BlockConflicts, Name: n})
		}
	}
	for _, p := range s.spec.Ports {
		for _, n := range c.ports[p] {
			if d := c.services[n]; d != nil && d != s && d.State.active() {
				blocks = append(blocks, Block{Kind: BlockPort, Name: n, Port: p})
			}
		}
	}
	if len(s.Runs) > 0 {
		blocks = append(blocks, Block{Kind: BlockLeft, Name: s.Name})
	}
	return nil, blocks
}

// missing is why a service that requires one which is not there cannot start.
func (c *Core) missing(name string) *Reason {
	what := ", which does not exist"
	if broken := c.opts.Broken[name]; broken != "" {
		what = ", whose file has an error: " + broken
	}
	return &Reason{Kind: ReasonMissing, Service: name, Message: "requires " + name + what}
}

// pendingFor says that a service which comes after this one has to wait.
func (s *service) pendingFor() bool {
	if s.Due {
		return s.UnderWay
	}
	return s.State == StateStarting && (s.spec.Oneshot || s.spec.Lifecycle.Ready != spec.ReadyExec)
}

// excludes says that a service which conflicts with this one has to wait. Of
// two that are both about to start, one gives way (see link).
func (c *Core) excludes(s, other *service) bool {
	if s.State.active() || s.waiting() {
		return true
	}
	return s.Due && s.UnderWay && slices.Contains(c.givesWay[other.Name], s.Name)
}

// moving says that nothing but time is needed to clear all blocks. What a
// start waits for never waits for that start, not even by a detour (see link),
// so it does not matter in which order this is found out.
func (c *Core) moving(blocks []Block) bool {
	for _, b := range blocks {
		d := c.services[b.Name]
		switch b.Kind {
		case BlockRequires, BlockAfter:
			if b.Early {
				if !c.lookEarly().moving {
					return false
				}
				continue
			}
			if !d.onItsWay() {
				return false
			}
		case BlockConflicts, BlockPort:
			if d.Halt == HaltNone || d.Due {
				return false
			}
		case BlockLeft:
		}
	}
	return true
}

// onItsWay says that a service which is not up is about to be.
func (s *service) onItsWay() bool {
	if s.Due {
		return s.UnderWay
	}
	switch s.State {
	case StateStarting, StateStopping: // Stopping without Halt: it failed, and may come back
		return s.Halt == HaltNone
	case StateExited, StateFailed:
		return s.waiting()
	case StateInactive, StateBlocked, StateRunning:
		return false
	}
	return false
}
