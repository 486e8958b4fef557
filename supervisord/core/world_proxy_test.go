package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/threefoldtech/zinit/common/spec"
)

// zinit-proxyd and its clients in the simulated world: clients come, wait, are
// served and leave; proxies are changed while they do; zinit-proxyd dies with
// all that it has said and nobody has heard, and the clients that wait are
// still there for the next one.

func TestWorldOfClients(t *testing.T) { rapid.Check(t, checkClients) }

func FuzzClients(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkClients)) }

func checkClients(t *rapid.T) {
	p := drawPlan(t)
	drawProxies(t, p, slices.Sorted(maps.Keys(p.services)))
	p.sort()
	p.batch = rapid.Bool().Draw(t, "batch")
	if rapid.Bool().Draw(t, "dies") {
		p.down = Time(rapid.IntRange(0, 3).Draw(t, "down")) * 1e9
		p.crashes = drawCrashes(t)
	}
	newWorld(t, p).live()
}

// patience is how long a client waits.
const patience = Time(5e9)

// latency is the most that what zinit-proxyd says takes to be heard, in ms.
const latency = 40

// setProxies is a change of proxies before it is known which there are by then.
type setProxies map[string]*spec.Proxy

func (setProxies) event() {}

// comes is a client that comes to a proxy.
type comes struct {
	proxy string
	stay  Time
}

func (comes) event() {}

func drawProxies(t *rapid.T, p *plan, names []string) {
	at := func() Time { return epoch + Time(rapid.IntRange(0, 40000).Draw(t, "at"))*1e6 }
	proxies := strings.Fields("p q r")
	draw := rapid.Custom(func(t *rapid.T) *spec.Proxy {
		x := &spec.Proxy{Service: rapid.SampledFrom(append([]string{"nothing"}, names...)).Draw(t, "service"), Mode: spec.ProxyForward}
		if rapid.IntRange(0, 4).Draw(t, "pass") == 4 {
			x.Mode = spec.ProxyPass
		}
		x.IdleTimeout = rapid.SampledFrom([]time.Duration{0, 100e6, 2e9}).Draw(t, "idle")
		return x
	})
	for range rapid.IntRange(1, 3).Draw(t, "sets") {
		set := setProxies{}
		for _, n := range proxies {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0: // as before
			case 1:
				set[n] = nil
			default:
				set[n] = draw.Draw(t, "proxy")
				set[n].Name = n
			}
		}
		p.script = append(p.script, scripted{at(), set})
	}
	p.script[len(p.script)-1].at = epoch
	for range rapid.IntRange(1, 20).Draw(t, "clients") {
		stay := rapid.SampledFrom([]Time{0, 1e6, 500e6, 6e9}).Draw(t, "stay")
		p.script = append(p.script, scripted{at(), comes{rapid.SampledFrom(proxies).Draw(t, "to"), stay}})
	}
	for range rapid.IntRange(0, 3).Draw(t, "deaths") {
		down := at()
		p.script = append(p.script, scripted{down, HelperDown{HelperProxy, "no"}}, scripted{down + 20e6, HelperUp{HelperProxy}})
	}
	p.script = append(p.script, scripted{epoch, HelperUp{HelperProxy}})
}

// proxyd is the present zinit-proxyd, and what outlives it.
type proxyd struct {
	up     bool
	linked Time             // since when it has its present supervisor
	gates  map[string]*gate // nothing of it outlives it
	heard  Time             // when the last that it said will be heard
	said   int

	proxies map[string]*spec.Proxy // configured
	waiting map[string][]*client   // in the backlogs of the listeners
}

type gate struct {
	proxy     *spec.Proxy
	state     GateState
	seq       uint64
	demanded  bool
	connected int
	quiet     Time
}

type client struct {
	proxy string
	came  Time
	stay  Time
	end   string // "" while it waits
}

// The orders of these are part of what happens first at the same time.
const (
	proxydSays happens = probed + 1 + iota
	clientLeaves
	clientTires
	proxyRests
)

func newProxyd() *proxyd {
	return &proxyd{gates: map[string]*gate{}, proxies: map[string]*spec.Proxy{}, waiting: map[string][]*client{}}
}

func (w *world) proxydComes() []Event {
	w.note("> zinit-proxyd comes")
	w.proxyd.up, w.proxyd.linked = true, w.now
	return []Event{HelperUp{HelperProxy}}
}

func (w *world) proxydGoes() []Event {
	w.note("> zinit-proxyd goes")
	w.proxyd.up = false
	w.proxyd.gates = map[string]*gate{}
	w.unheard()
	return []Event{HelperDown{HelperProxy, "no"}}
}

// unheard takes away what was said to nobody.
func (w *world) unheard() {
	w.queue = slices.DeleteFunc(w.queue, func(h *happening) bool { return h.kind == proxydSays })
	w.proxyd.heard = 0
}

// say has the supervisor hear something, after all that was said before.
func (w *world) say(ev Event) {
	d := w.proxyd
	d.said++
	d.heard = max(d.heard, w.now) + 1 + Time(w.plan.seed>>(d.said%24)%latency)*1e6
	w.queue = append(w.queue, &happening{at: d.heard, kind: proxydSays, number: d.said, ev: ev})
}

// change gives the configuration of proxies, as it is after a change.
func (w *world) changeProxies(set setProxies) []Event {
	all := maps.Clone(w.proxyd.proxies)
	for n, x := range set {
		if all[n] = x; x == nil {
			delete(all, n)
		}
	}
	for n := range all {
		w.note("> proxy %s of %s %s idle %v", n, all[n].Service, all[n].Mode, all[n].IdleTimeout)
	}
	w.proxyd.proxies = all
	for n, list := range w.proxyd.waiting {
		if all[n] == nil { // nobody listens any more
			for _, cl := range list {
				cl.end = "closed"
			}
			delete(w.proxyd.waiting, n)
		}
	}
	return []Event{SetProxies{all}}
}

func (w *world) clientComes(ev comes) {
	if w.proxyd.proxies[ev.proxy] == nil {
		return
	}
	cl := &client{proxy: ev.proxy, came: w.now, stay: ev.stay}
	w.proxyd.waiting[ev.proxy] = append(w.proxyd.waiting[ev.proxy], cl)
	w.note("> a client comes to %s", ev.proxy)
	w.proxyd.said++
	w.queue = append(w.queue, &happening{at: w.now + patience, kind: clientTires, client: cl, number: w.proxyd.said})
	if g := w.proxyd.gates[ev.proxy]; g != nil {
		w.look(g)
	}
}

// look lets in who waits, or says that somebody does.
func (w *world) look(g *gate) {
	list := w.proxyd.waiting[g.proxy.Name]
	switch {
	case len(list) == 0:
	case g.state == GateHold && !g.demanded:
		g.demanded = true
		w.say(Demand{g.proxy.Name, g.seq})
	case g.state == GateOpen, g.state == GateClosed && w.core.shutdown == nil: // or accepted by the service
		for _, cl := range list {
			cl.end = "served"
			if g.state == GateOpen {
				g.connected++
				w.proxyd.said++
				w.queue = append(w.queue, &happening{at: w.now + cl.stay, kind: clientLeaves, gate: g, number: w.proxyd.said})
			}
		}
		w.note("%s serves %d", g.proxy.Name, len(list))
		delete(w.proxyd.waiting, g.proxy.Name)
	}
}

// atGates lets happen what has to do with clients.
func (w *world) atGates(h *happening) []Event {
	g := h.gate
	switch h.kind {
	case proxydSays:
		w.note("> %T%v", h.ev, h.ev)
		return []Event{h.ev}
	case clientLeaves:
		if w.proxyd.gates[g.proxy.Name] == g {
			g.connected--
			g.quiet = w.now
			w.rest(g)
		}
	case clientTires:
		w.checkTired(h.client)
	case proxyRests:
		if w.proxyd.gates[g.proxy.Name] == g && g.state == GateOpen && g.connected == 0 && w.now >= g.quiet+Time(g.proxy.IdleTimeout) {
			w.say(Idle{g.proxy.Name, g.seq})
		}
	}
	return nil
}

func (w *world) rest(g *gate) {
	if g.state == GateOpen && g.connected == 0 && g.proxy.IdleTimeout > 0 {
		w.proxyd.said++
		w.queue = append(w.queue, &happening{at: max(w.now, g.quiet+Time(g.proxy.IdleTimeout)), kind: proxyRests, gate: g, number: w.proxyd.said})
	}
}

// setGate is an order, which a zinit-proxyd that is not there does not hear.
func (w *world) setGate(o SetGate) {
	w.checkOrder(o)
	g := w.proxyd.gates[o.Proxy]
	if g == nil {
		return
	}
	if o.Refuse != "" {
		for _, cl := range w.proxyd.waiting[o.Proxy] {
			cl.end = "refused"
		}
		delete(w.proxyd.waiting, o.Proxy)
	}
	if g.state != GateOpen {
		g.quiet = w.now
	}
	g.state, g.seq, g.demanded = o.State, o.Seq, false
	busy := g.connected > 0 || len(w.proxyd.waiting[o.Proxy]) > 0 || w.now < g.quiet+Time(g.proxy.IdleTimeout)
	w.say(GateAck{o.Proxy, o.Seq, busy})
	w.look(g)
	w.rest(g)
}

// tellAll is the whole set of proxies.
func (w *world) tellAll() {
	d := w.proxyd
	if !d.up {
		return
	}
	had := d.gates
	d.gates = map[string]*gate{}
	for _, n := range slices.Sorted(maps.Keys(w.core.proxies)) {
		g := had[n]
		if g == nil {
			g = &gate{state: GateClosed}
		}
		g.proxy = w.core.proxies[n].spec
		d.gates[n] = g
		o, _ := w.core.Gate(n)
		w.setGate(o)
	}
}

// checkOrder: clients are let in only while the service is up.
func (w *world) checkOrder(o SetGate) {
	p := w.core.proxies[o.Proxy]
	if p == nil || p.seq != o.Seq { // there is a later order behind it
		return
	}
	s := w.core.services[p.spec.Service]
	if o.State == GateOpen && (s == nil || s.State != StateRunning || s.Halt != HaltNone || w.core.shutdown != nil) {
		w.fail("the gate %s is opened and its service is not up", o.Proxy)
	}
	if o.State == GateHold && w.core.shutdown != nil {
		w.fail("the gate %s is on hold during the shutdown", o.Proxy)
	}
}

// checkTired: who has waited in vain has waited for something that was under
// way all the time.
func (w *world) checkTired(cl *client) {
	d := w.proxyd
	if cl.end != "" {
		return
	}
	cl.end = "tired"
	d.waiting[cl.proxy] = slices.DeleteFunc(d.waiting[cl.proxy], func(other *client) bool { return other == cl })
	g := d.gates[cl.proxy]
	if !d.up || d.linked > cl.came || w.core.shutdown != nil || g == nil || d.heard >= w.now {
		return // nobody looked, or was told
	}
	s := w.core.services[g.proxy.Service]
	switch {
	case s == nil:
	case s.Halt != HaltNone, s.Due && s.UnderWay, s.waiting(), s.State == StateStarting, s.State == StateStopping, s.Cleaning:
		return
	}
	w.fail("a client of %s has waited since %v, and nobody did anything for it: %+v", cl.proxy, time.Duration(cl.came-epoch), *g)
}

// checkGates: the gates stand as the states of the services say, and one that
// was told of stands as ordered.
func (w *world) checkGates() {
	for n, p := range w.core.proxies {
		if want := w.core.gateOf(p); want != p.state {
			w.fail("the gate %s is %v, expected %v", n, p.state, want)
		}
		if g := w.proxyd.gates[n]; g != nil && (g.seq != p.seq || g.state != p.state) {
			w.fail("the gate %s is %v (%d), ordered was %v (%d)", n, g.state, g.seq, p.state, p.seq)
		}
	}
	for n, list := range w.proxyd.waiting {
		g := w.proxyd.gates[n]
		if g != nil && len(list) > 0 && (g.state == GateOpen || g.state == GateHold && !g.demanded) {
			w.fail("%d clients wait at %s, and it is %v", len(list), n, g.state)
		}
	}
}

// checkIdleStop: only what nobody needs is stopped for being idle.
func (w *world) checkIdleStop(ack GateAck, wasUp bool) {
	p := w.core.proxies[ack.Proxy]
	if p == nil {
		return
	}
	s := w.core.services[p.spec.Service]
	if s == nil || !wasUp || s.Up {
		return
	}
	w.note("%s is stopped for being idle", s.Name)
	for _, p := range w.core.proxiesOf[s.Name] {
		g := w.proxyd.gates[p.name]
		if g == nil || g.proxy != p.spec {
			continue // a new zinit-proxyd, or one that is yet to be told
		}
		if g.connected > 0 {
			w.fail("%s is stopped for being idle, and %s has %d clients", s.Name, p.name, g.connected)
		}
	}
	for n, other := range w.core.services {
		if slices.Contains(other.spec.Requires, s.Name) && other.State.active() {
			w.fail("%s is stopped for being idle, and %s requires it", s.Name, n)
		}
	}
}

func (x setProxies) String() string { return fmt.Sprint(len(x), " changes of proxies") }
