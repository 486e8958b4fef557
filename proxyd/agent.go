package main

import (
	"fmt"
	"log/slog"

	"github.com/threefoldtech/zinit/ipc"
)

// agent speaks with the supervisor. What it is told the loop does; what the
// loop has to say goes to whatever supervisor there is.
type agent struct {
	loop *loop
	log  *slog.Logger

	// Of the loop.
	conn    *ipc.Conn // nil while there is no supervisor
	proxies map[string]*proxy
}

// offered is a proxy of a set that is being told.
type offered struct {
	ipc.Proxy
	listeners []int
}

// serve works with one supervisor until it has gone.
func (a *agent) serve(conn *ipc.Conn) {
	a.loop.do(func() { a.conn = conn })
	err := a.read(conn)
	a.loop.do(func() {
		if a.conn == conn {
			a.conn = nil
		}
	})
	a.log.Debug("the supervisor has gone", "error", err)
}

// read has the loop do what the supervisor orders, in order.
func (a *agent) read(conn *ipc.Conn) error {
	var set []offered
	defer func() {
		for _, o := range set {
			closeAll(o.listeners)
		}
	}()
	for {
		f, err := conn.Read()
		if err != nil {
			return err
		}
		switch f.Kind {
		case ipc.KindProxies:
			for _, o := range set {
				closeAll(o.listeners)
			}
			set = nil
		case ipc.KindProxy:
			o := offered{listeners: f.Fds}
			if err = f.Decode(&o.Proxy); err == nil {
				set = append(set, o)
			} else {
				closeAll(f.Fds)
			}
		case ipc.KindProxiesEnd:
			whole := set
			set = nil
			a.loop.do(func() { a.take(whole) })
		case ipc.KindGate:
			var g ipc.Gate
			if err = f.Decode(&g); err == nil {
				a.loop.do(func() {
					if p := a.proxies[g.Name]; p != nil {
						p.set(g)
					}
				})
			}
		case ipc.KindStatsWanted:
			a.loop.do(a.stats)
		default:
			err = fmt.Errorf("unknown kind %d", f.Kind)
		}
		if err != nil {
			a.log.Error("bad message from the supervisor", "error", err)
		}
	}
}

// tell says something to the supervisor, if there is one. Nothing is repeated:
// a new supervisor orders each gate again, and learns from that what it has
// to know.
func (a *agent) tell(kind ipc.Kind, body any) {
	if a.conn != nil {
		a.conn.Send(kind, body)
	}
}

// take makes a set of proxies the one that is served.
func (a *agent) take(set []offered) {
	gone := a.proxies
	a.proxies = make(map[string]*proxy, len(set))
	for _, o := range set {
		p := gone[o.Name]
		delete(gone, o.Name)
		if p == nil {
			p = newProxy(a.loop, a.tell, a.log)
		}
		if err := p.configure(o.Proxy, o.listeners); err != nil {
			a.log.Error("cannot serve a proxy", "proxy", o.Name, "error", err)
			p.close()
			continue
		}
		a.proxies[o.Name] = p
		p.set(o.Gate)
	}
	for _, p := range gone {
		p.close()
	}
}

func (a *agent) stats() {
	for _, p := range a.proxies {
		a.tell(ipc.KindProxyStats, p.stats())
	}
	a.tell(ipc.KindStatsEnd, ipc.StatsEnd{})
}
