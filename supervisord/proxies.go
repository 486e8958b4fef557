package main

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// The link to zinit-proxyd: it gets the listeners of all proxies and the state
// of their gates, and says who waits, who is idle, and what was forwarded. What
// follows from that, the core decides.

// allProxies are those of service files, and those of files of their own.
func allProxies(services map[string]*spec.Service, own map[string]*spec.Proxy) map[string]*spec.Proxy {
	all := maps.Clone(own)
	if all == nil {
		all = map[string]*spec.Proxy{}
	}
	for _, sp := range services {
		if sp.Xinet != nil {
			all[sp.Xinet.Name] = sp.Xinet
		}
	}
	return all
}

// ownProxies are those of a plan that have files of their own.
func ownProxies(p spec.Plan) map[string]*spec.Proxy {
	own := map[string]*spec.Proxy{}
	for n, x := range p.Proxies {
		if sp := p.Services[n]; sp == nil || sp.Xinet != x {
			own[n] = x
		}
	}
	return own
}

// compareProxies adds to a plan what it means for proxies with files of their
// own, and lets what is equal keep its place in memory, also of services.
func (s *server) compareProxies(p *plan) {
	for n, sp := range p.services {
		// One that is kept as a whole may be being read by others.
		if was := s.services[n]; was != nil && was != sp && reflect.DeepEqual(was.Xinet, sp.Xinet) {
			sp.Xinet = was.Xinet
		}
	}
	for _, n := range slices.Sorted(maps.Keys(p.proxies)) {
		was := s.ownProxies[n]
		switch {
		case was == nil:
			p.result.Added = append(p.result.Added, xinetName(n))
		case reflect.DeepEqual(was, p.proxies[n]):
			p.proxies[n] = was
		default:
			p.result.Changed = append(p.result.Changed, ipc.Change{Name: xinetName(n), Fields: []string{"xinet"}})
		}
	}
	for _, n := range slices.Sorted(maps.Keys(s.ownProxies)) {
		if p.proxies[n] == nil {
			p.result.Removed = append(p.result.Removed, xinetName(n))
		}
	}
}

// xinetName is how a proxy with a file of its own is called among services,
// which may have the same name.
func xinetName(proxy string) string { return "xinet " + proxy }

// setProxies puts proxies of files of their own into effect, beside those of
// the services, with the listeners that were opened for them. It runs in the
// loop.
func (s *server) setProxies(own map[string]*spec.Proxy, opened map[spec.Address]int) {
	had := s.owners
	s.ownProxies, s.proxies = own, allProxies(s.services, own)
	s.owners = spec.Plan{Proxies: s.proxies}.Listeners()
	s.passing = map[string][]*spec.Proxy{}
	for _, name := range slices.Sorted(maps.Keys(s.proxies)) {
		if p := s.proxies[name]; p.Mode == spec.ProxyPass {
			s.passing[p.Service] = append(s.passing[p.Service], p)
		}
	}
	s.store.put(recordProxies, slices.Collect(maps.Values(own)))
	for a, p := range s.owners {
		if had[a] != p {
			s.ownListener(a, p)
		}
	}
	s.keepListeners(opened)
	s.proxyd.missing = "" // it may be there by now
	s.step(core.SetProxies{Proxies: s.proxies})
}

// tellProxies tells zinit-proxyd the whole set.
func (s *server) tellProxies() {
	s.proxyd.send(ipc.KindProxies, ipc.Proxies{})
	for _, name := range slices.Sorted(maps.Keys(s.proxies)) {
		p := s.proxies[name]
		gate, _ := s.core.Gate(name)
		m := ipc.Proxy{
			Name: name, Service: p.Service, Backend: ipc.Address(p.Backend),
			ConnectTimeout: p.ConnectTimeout, IdleTimeout: p.IdleTimeout, SingleConnection: p.SingleConnection,
			Gate: gateOrder(gate),
		}
		var fds []int
		for _, a := range p.Listen {
			if fd, open := s.listeners[a]; open && s.owners[a] == p {
				m.Listen = append(m.Listen, ipc.Address(a))
				fds = append(fds, fd)
			}
		}
		s.proxyd.send(ipc.KindProxy, m, fds...)
	}
	s.proxyd.send(ipc.KindProxiesEnd, struct{}{})
}

func gateOrder(g core.SetGate) ipc.Gate {
	return ipc.Gate{Name: g.Proxy, Seq: g.Seq, State: ipc.GateState(g.State.String()), Refuse: g.Refuse != "", Reason: g.Refuse}
}

// onProxyFrame is what zinit-proxyd says.
func (s *server) onProxyFrame(f ipc.Frame) error {
	switch f.Kind {
	case ipc.KindDemand:
		var m ipc.Demand
		if err := f.Decode(&m); err != nil {
			return err
		}
		s.log.Debug("a client waits", "proxy", m.Name)
		s.step(core.Demand{Proxy: m.Name, Seq: m.Seq})
	case ipc.KindIdle:
		var m ipc.Idle
		if err := f.Decode(&m); err != nil {
			return err
		}
		s.step(core.Idle{Proxy: m.Name, Seq: m.Seq})
	case ipc.KindGateAck:
		var m ipc.GateAck
		if err := f.Decode(&m); err != nil {
			return err
		}
		s.step(core.GateAck{Proxy: m.Name, Seq: m.Seq, Busy: m.Busy})
	case ipc.KindProxyStats:
		var m ipc.ProxyStats
		if err := f.Decode(&m); err != nil {
			return err
		}
		if s.counting != nil {
			s.counting[m.Name] = m
		}
	case ipc.KindStatsEnd:
		for _, answer := range s.counted {
			answer <- s.counting
		}
		s.counted, s.counting = nil, nil
	default:
		return fmt.Errorf("unknown kind %d", f.Kind)
	}
	return nil
}

// statsWait is how long zinit-proxyd may take to tell its counters.
const statsWait = 2 * time.Second

// proxyStats asks zinit-proxyd for its counters. Where it is not there, there
// are none.
func (s *server) proxyStats(ctx context.Context) (map[string]ipc.ProxyStats, error) {
	answer := make(chan map[string]ipc.ProxyStats, 1)
	err := s.in(ctx, func() {
		if s.proxyd.conn == nil {
			answer <- nil
			return
		}
		if s.counting == nil {
			s.counting = map[string]ipc.ProxyStats{}
			s.proxyd.send(ipc.KindStatsWanted, ipc.StatsWanted{})
		}
		s.counted = append(s.counted, answer)
	})
	if err != nil {
		return nil, err
	}
	select {
	case stats := <-answer:
		return stats, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(statsWait):
		return nil, nil
	}
}

// samePassed says that two lists of proxies pass the same listeners, in the same
// order and by the same names.
func samePassed(a, b []*spec.Proxy) bool {
	return slices.EqualFunc(a, b, func(a, b *spec.Proxy) bool {
		return a.Name == b.Name && slices.Equal(a.Listen, b.Listen)
	})
}

// sameListeners says that the listeners that a service is passed are those that
// there were.
func (s *server) sameListeners(service string, were map[spec.Address]int) bool {
	for _, p := range s.passing[service] {
		for _, a := range p.Listen {
			if fd, open := were[a]; open && s.owners[a] == p && fd != s.listeners[a] {
				return false
			}
		}
	}
	return true
}

// passedListener is one that a service gets, by its name in pid1's store.
type passedListener struct{ stored, proxy string }

// passed are the listeners of the proxies of a service with mode = pass, in the
// order of their names; deaf says why one is missing.
func (s *server) passed(service string) (passed []passedListener, deaf string) {
	for _, p := range s.passing[service] {
		for _, a := range p.Listen {
			if why := s.whyDeaf(p, a); why != "" {
				return nil, why
			}
			passed = append(passed, passedListener{listenerName(a), p.Name})
		}
	}
	return passed, ""
}
