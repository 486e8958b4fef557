package core

import (
	"maps"
	"slices"

	"github.com/threefoldtech/zinit/common/spec"
)

// Proxies are started on demand: a client that comes while its service is down
// waits, and raises Demand. What is known of a proxy is not saved. After a
// crash each gate is ordered again, and whoever waits raises Demand again.

// SetProxies replaces all proxies.
type SetProxies struct {
	Proxies map[string]*spec.Proxy
}

// Demand says that a client waits at a gate on hold; Seq is that of the order
// which put it there.
type Demand struct {
	Proxy string
	Seq   uint64
}

// Idle says that an open gate has had no connection for the idle timeout.
type Idle struct {
	Proxy string
	Seq   uint64
}

// GateAck says that an order was carried out, and whether the proxy has
// clients, connected or waiting.
type GateAck struct {
	Proxy string
	Seq   uint64
	Busy  bool
}

func (SetProxies) event() {}
func (Demand) event()     {}
func (Idle) event()       {}
func (GateAck) event()    {}

// GateState is what happens to the clients of a proxy.
type GateState uint8

// The states of a gate.
const (
	// GateHold: they wait, and the first of them raises Demand.
	GateHold GateState = iota
	// GateOpen: they are connected.
	GateOpen
	// GateClosed: nobody looks after them. Those of mode pass are the service's
	// own while it has a process.
	GateClosed
)

func (g GateState) String() string {
	return [...]string{"hold", "open", "closed"}[g]
}

// SetGate orders a gate.
type SetGate struct {
	Proxy string
	Seq   uint64
	State GateState
	// Refuse closes the clients that wait, before anything else, and says why.
	Refuse string
}

// TellProxies asks for all proxies to be told to zinit-proxyd, with the gates as
// Gate has them.
type TellProxies struct{}

func (SetGate) action()     {}
func (TellProxies) action() {}

type proxy struct {
	name  string
	spec  *spec.Proxy
	state GateState
	seq   uint64
	// demanded says that clients wait, missed that the service has ended or
	// failed since they do.
	demanded, missed bool
	// idle says that it had no client for long enough. asked says that it is on
	// hold to find out whether that is still so, free that it is.
	idle, asked, free bool
}

// Gate returns how a proxy's gate was ordered last.
func (c *Core) Gate(proxy string) (SetGate, bool) {
	p := c.proxies[proxy]
	if p == nil {
		return SetGate{}, false
	}
	return SetGate{Proxy: proxy, Seq: p.seq, State: p.state}, true
}

// Waits says that clients of a proxy wait for its service.
func (c *Core) Waits(proxy string) bool {
	p := c.proxies[proxy]
	return p != nil && p.demanded
}

// setProxies takes over a set of proxies. One that is the same pointer as
// before has not changed.
func (c *Core) setProxies(set map[string]*spec.Proxy) {
	for name, p := range c.proxies {
		if set[name] != p.spec {
			delete(c.proxies, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if c.proxies[name] == nil {
			p := &proxy{name: name, spec: set[name]}
			c.proxies[name] = p
			c.orderGate(p, c.gateOf(p), "")
		}
	}
	c.proxiesOf = map[string][]*proxy{}
	for _, name := range slices.Sorted(maps.Keys(c.proxies)) {
		p := c.proxies[name]
		c.proxiesOf[p.spec.Service] = append(c.proxiesOf[p.spec.Service], p)
		c.gates[p.spec.Service] = true
	}
	c.do(TellProxies{})
}

// onDemand starts the service of a proxy.
func (c *Core) onDemand(ev Demand) {
	p := c.proxies[ev.Proxy]
	if p == nil || p.seq != ev.Seq || p.state != GateHold {
		return // overtaken by an order
	}
	p.demanded, p.missed = true, false
	c.gates[p.spec.Service] = true
	s := c.services[p.spec.Service]
	switch {
	case p.asked:
		c.resume(c.proxiesOf[p.spec.Service])
	case s == nil, s.Removed, c.shutdown != nil:
	case s.spec.Status == spec.StatusIgnore:
	case s.Due, s.waiting():
		// On its way, or about to be.
	case (s.State == StateExited || s.State == StateFailed) && s.Up && !s.Done && s.broken == nil && !s.Cleaning && !s.ranStable(c.now):
		// It has just ended by itself: no faster than if it were restarted.
		c.setDeadline(s, max(c.now, s.Since+s.delay(s.Since)))
		c.touch(s)
	case s.broken != nil, s.Done: // the latter is a oneshot, and will not be up
		p.missed = true
	case s.upOrComing():
	default:
		c.wishUp([]*service{s})
	}
}

func (c *Core) onIdle(ev Idle) {
	if p := c.proxies[ev.Proxy]; p != nil && p.seq == ev.Seq && p.state == GateOpen {
		p.idle = true
		c.gates[p.spec.Service] = true
	}
}

func (c *Core) onGateAck(ev GateAck) {
	p := c.proxies[ev.Proxy]
	if p == nil || p.seq != ev.Seq || !p.asked {
		return
	}
	c.gates[p.spec.Service] = true
	p.free = !ev.Busy
	if ev.Busy {
		c.resume(c.proxiesOf[p.spec.Service])
	}
}

// resume ends the question whether proxies are idle: they are not.
func (c *Core) resume(proxies []*proxy) {
	for _, p := range proxies {
		p.idle, p.asked, p.free = false, false, false
	}
}

// touchGates has the gates of a service looked at.
func (c *Core) touchGates(s *service) {
	if c.proxiesOf[s.Name] != nil {
		c.gates[s.Name] = true
	}
}

// settleGates orders the gates of the services that have changed.
func (c *Core) settleGates() {
	for len(c.gates) > 0 {
		names := slices.Sorted(maps.Keys(c.gates))
		clear(c.gates)
		for _, n := range names {
			proxies := c.proxiesOf[n]
			c.settleIdle(c.services[n], proxies)
			for _, p := range proxies {
				c.settleGate(p)
			}
		}
	}
}

func (c *Core) settleGate(p *proxy) {
	want := c.gateOf(p)
	refuse := ""
	if p.demanded && want != GateOpen && !p.asked {
		refuse = c.refusal(p)
	}
	if refuse != "" || want != p.state {
		c.orderGate(p, want, refuse)
	}
}

// orderGate gives an order, which begins everything anew for the proxy.
func (c *Core) orderGate(p *proxy, state GateState, refuse string) {
	c.gateSeq = max(c.gateSeq+1, uint64(c.now)) // and never one of before a crash
	p.state, p.seq = state, c.gateSeq
	p.demanded, p.missed = false, false
	if !p.asked {
		p.idle = false
	}
	c.do(SetGate{Proxy: p.name, Seq: p.seq, State: state, Refuse: refuse})
}

// gateOf is how a gate should stand.
func (c *Core) gateOf(p *proxy) GateState {
	s := c.services[p.spec.Service]
	switch {
	case c.shutdown != nil:
		return GateClosed
	case s == nil || p.asked:
		return GateHold
	case p.spec.Mode == spec.ProxyPass && s.State.active():
		return GateClosed
	case p.spec.Mode != spec.ProxyPass && s.State == StateRunning && s.Halt == HaltNone:
		return GateOpen
	}
	return GateHold
}

// refusal says why clients wait in vain, "" if they do not.
func (c *Core) refusal(p *proxy) string {
	s := c.services[p.spec.Service]
	switch {
	case c.shutdown != nil:
		return "zinit is shutting down"
	case s == nil || s.Removed:
		return "service " + p.spec.Service + " does not exist"
	case s.State.active():
		return ""
	case s.spec.Status == spec.StatusIgnore:
		return "service " + s.Name + " is started by hand only (status = ignore)"
	case s.Due && !s.UnderWay:
		if s.State == StateBlocked {
			return "service " + s.Name + " is blocked: " + c.note(c.now, s)
		}
		return "service " + s.Name + " " + s.pastTense()
	case s.Due, s.waiting() && !p.missed:
		return ""
	case !s.Up:
		return "service " + s.Name + " was stopped"
	}
	return "service " + s.Name + " " + s.pastTense()
}

// settleIdle stops a service whose proxies all have been idle for long enough:
// it puts them on hold, and stops the service when all of them say that nobody
// has come meanwhile.
func (c *Core) settleIdle(s *service, proxies []*proxy) {
	stays := s == nil || s.State != StateRunning || s.Halt != HaltNone || s.users > 0 || c.shutdown != nil
	asked, free := false, true
	for _, p := range proxies {
		asked = asked || p.asked
		free = free && p.free
		stays = stays || !p.idle || p.spec.Mode == spec.ProxyPass
	}
	switch {
	case asked && stays:
		c.resume(proxies)
	case stays:
	case !asked:
		for _, p := range proxies {
			p.asked = true
		}
	case free:
		c.resume(proxies)
		c.wishDown(s)
		s.StoppedAt = 0 // not by hand
	}
}
