package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

const (
	// maxAccepts bounds the clients that one listener accepts before others
	// have their turn.
	maxAccepts = 64
	// starved is how long a listener pauses when there are no descriptors.
	starved = 100 * time.Millisecond
)

// proxy is one proxy: its listeners, its gate and its connections. All of it
// belongs to the loop.
type proxy struct {
	ipc.Proxy
	loop      *loop
	tell      func(ipc.Kind, any)
	log       *slog.Logger
	backend   *address // nil where the name of a host or of an interface has to be looked up
	listeners []*listener
	conns     map[*conn]struct{}

	gate     ipc.GateState
	seq      uint64 // of the order that set it
	demanded bool   // and a client was told of since
	// until is when the time of the clients that wait for the gate is up, also
	// over orders that leave them waiting; 0 = nobody waits.
	until int64
	// quiet is since when an open proxy has been without a connection.
	quiet int64
	at    alarm // while open, quiet for the idle timeout; while on hold, until

	total, failed, toBackend, fromBackend uint64
	activity                              time.Time
	problem                               error
	problemAt                             time.Time
}

// listener is a listening socket of a proxy.
type listener struct {
	proxy   *proxy
	address ipc.Address
	fd      int
	at      alarm // when to go on after there were no descriptors
}

func newProxy(l *loop, tell func(ipc.Kind, any), log *slog.Logger) *proxy {
	return &proxy{loop: l, tell: tell, log: log, conns: map[*conn]struct{}{}, gate: ipc.GateClosed}
}

// configure takes over what s says, and fds, its listeners in order. Those
// that it has already stay as they are.
func (p *proxy) configure(s ipc.Proxy, fds []int) error {
	var backend *address
	if s.Backend.Network == "unix" {
		var err error
		if backend, err = unixAddress(s.Backend.Address); err != nil {
			closeAll(fds)
			return err
		}
	} else if ap, err := netip.ParseAddrPort(s.Backend.Address); err == nil && ap.Addr().Zone() == "" {
		backend = tcpAddress(ap, 0)
	}
	if len(fds) != len(s.Listen) {
		closeAll(fds)
		return fmt.Errorf("proxy %s has %d addresses and %d listeners", s.Name, len(s.Listen), len(fds))
	}
	had := p.listeners
	p.listeners = nil
	for i, a := range s.Listen {
		at := find(had, fds[i])
		if at < 0 {
			p.listen(a, fds[i], s.Passes())
			continue
		}
		unix.Close(fds[i])
		p.listeners = append(p.listeners, had[at])
		had = append(had[:at:at], had[at+1:]...)
	}
	for _, ln := range had {
		ln.close()
	}
	if backend == nil && !s.Passes() && s.Backend != p.Backend {
		// What names are looked up in is read and kept now: clients may leave no
		// descriptor for it.
		go resolve(context.Background(), s.Backend.Address, 0)
	}
	p.Proxy, p.backend = s, backend
	for c := range p.conns {
		if s.Passes() && c.state != forwarding {
			c.fail(fmt.Errorf("service %s accepts its clients itself now", s.Service))
		}
	}
	return nil
}

// find is the listener whose socket fd is, -1 if there is none.
func find(listeners []*listener, fd int) int {
	id, err := socketID(fd)
	if err != nil {
		return -1
	}
	for i, ln := range listeners {
		if own, err := socketID(ln.fd); err == nil && own == id {
			return i
		}
	}
	return -1
}

func (p *proxy) listen(a ipc.Address, fd int, passes bool) {
	unix.SetNonblock(fd, true)
	if a.Network != "unix" && !passes { // the sockets of clients inherit both (tcp(7))
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	}
	ln := &listener{proxy: p, address: a, fd: fd}
	if err := p.loop.watch(fd, ln, 0); err != nil {
		p.log.Error("cannot serve", "proxy", p.Name, "address", a, "error", err)
		unix.Close(fd)
		return
	}
	p.listeners = append(p.listeners, ln)
}

// set puts the gate where g wants it.
func (p *proxy) set(g ipc.Gate) {
	if g.Refuse {
		p.refuse(errors.New(g.Reason))
	}
	if p.gate != ipc.GateOpen {
		p.quiet = p.loop.now
	}
	p.gate, p.seq, p.demanded = g.State, g.Seq, false
	p.loop.clear(p)
	for _, ln := range p.listeners {
		ln.arm()
	}
	busy := p.busy()
	switch p.gate {
	case ipc.GateOpen:
		p.rest()
	case ipc.GateHold:
		if !p.waited() {
			p.until = 0
		}
		for c := range p.conns {
			if c.state != forwarding { // what it is to be connected to has gone
				p.demand()
				break
			}
		}
	case ipc.GateClosed:
		p.until = 0
	}
	p.tell(ipc.KindGateAck, ipc.GateAck{Name: p.Name, Seq: g.Seq, Busy: busy})
}

// busy says whether there is a client, connected or waiting to be accepted, or
// there was one within the idle timeout.
func (p *proxy) busy() bool {
	return len(p.conns) > 0 || p.waited() || p.loop.now < p.quiet+int64(p.IdleTimeout)
}

// waited says whether a client waits to be accepted.
func (p *proxy) waited() bool {
	for _, ln := range p.listeners {
		if ln.waiting() {
			return true
		}
	}
	return false
}

// refuse closes the clients that are not connected yet.
func (p *proxy) refuse(why error) {
	p.until = 0
	for c := range p.conns {
		if c.state != forwarding {
			c.fail(why)
		}
	}
	for _, ln := range p.listeners {
		// Those that come meanwhile are for the next attempt.
		for n := unix.SOMAXCONN; n > 0; n-- {
			fd, errno := accept(ln.fd)
			if errno == unix.EINTR || errno == unix.ECONNABORTED {
				continue
			}
			if errno != 0 {
				break
			}
			unix.Close(fd)
			p.total++
			p.count(why)
		}
	}
}

// demand says once that a client waits.
func (p *proxy) demand() {
	if p.demanded {
		return
	}
	p.demanded = true
	p.tell(ipc.KindDemand, ipc.Demand{Name: p.Name, Seq: p.seq})
	if p.Passes() {
		return // the service decides how long they wait
	}
	if p.until == 0 {
		p.until = p.loop.now + int64(p.ConnectTimeout)
	}
	p.loop.set(p, p.until)
}

func (p *proxy) alarm() *alarm { return &p.at }

func (p *proxy) ring() {
	switch {
	case p.gate == ipc.GateOpen && len(p.conns) == 0:
		p.tell(ipc.KindIdle, ipc.Idle{Name: p.Name, Seq: p.seq})
	case p.gate == ipc.GateHold && p.demanded:
		p.refuse(fmt.Errorf("service %s was not ready within %v", p.Service, p.ConnectTimeout))
		p.demanded = false
		for _, ln := range p.listeners {
			ln.arm()
		}
	}
}

// add counts a client.
func (p *proxy) add(c *conn) {
	p.conns[c] = struct{}{}
	p.total++
	p.activity = time.Now()
	p.loop.clear(p)
}

// remove forgets a connection; why is nil if it was served.
func (p *proxy) remove(c *conn, why error) {
	delete(p.conns, c)
	p.activity, p.quiet = time.Now(), p.loop.now
	if why != nil {
		p.count(why)
	}
	for _, ln := range p.listeners {
		if ln.at.due != 0 { // there is a descriptor again
			p.loop.clear(ln)
			ln.arm()
		}
	}
	p.rest()
}

// rest sets the time at which a proxy without a connection says so.
func (p *proxy) rest() {
	if p.IdleTimeout > 0 && len(p.conns) == 0 && p.gate == ipc.GateOpen {
		p.loop.set(p, p.quiet+int64(p.IdleTimeout))
	}
}

func (p *proxy) count(why error) {
	p.failed++
	p.warn(why)
}

// warn keeps the latest problem.
func (p *proxy) warn(why error) {
	p.problem, p.problemAt = why, time.Now()
}

func (p *proxy) stats() ipc.ProxyStats {
	s := ipc.ProxyStats{
		Name: p.Name, Active: len(p.conns), Total: p.total, Failed: p.failed,
		ToBackend: p.toBackend, FromBackend: p.fromBackend,
	}
	if !p.activity.IsZero() {
		s.LastActivity = p.activity.UnixNano()
	}
	if p.problem != nil {
		s.LastError, s.LastErrorAt = p.problem.Error(), p.problemAt.UnixNano()
	}
	return s
}

// close ends the proxy and its connections.
func (p *proxy) close() {
	for c := range p.conns {
		c.close()
	}
	for _, ln := range p.listeners {
		ln.close()
	}
	p.loop.clear(p)
}

// arm watches for what the gate lets happen: all clients, one to tell of, or
// none. Then it is told once, or the end of a socket that the service
// has shut down would be told again and again.
func (ln *listener) arm() {
	events := uint32(pollOnce)
	switch ln.proxy.gate {
	case ipc.GateOpen:
		events = pollIn
	case ipc.GateHold:
		events |= pollIn
		if ln.proxy.Passes() {
			// The service may have shut it down, or wanted a shorter backlog.
			unix.Listen(ln.fd, unix.SOMAXCONN)
		}
	}
	ln.proxy.loop.rewatch(ln.fd, events)
}

func (ln *listener) ready(uint32) {
	p := ln.proxy
	switch p.gate {
	case ipc.GateHold:
		p.demand()
		return
	case ipc.GateClosed: // since the event came
		return
	}
	for range maxAccepts {
		fd, errno := accept(ln.fd)
		switch errno {
		case 0:
			if p.SingleConnection && len(p.conns) > 0 {
				unix.Close(fd)
				p.total++
				p.count(errors.New("a second client, where single_connection allows one"))
				continue
			}
			ln.accepted(fd)
		case unix.EAGAIN:
			p.until = 0
			return
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			p.warn(fmt.Errorf("cannot accept on %s: %w", ln.address, errno))
			p.loop.pipes.drop()
			p.loop.rewatch(ln.fd, 0)
			p.loop.set(ln, p.loop.now+int64(starved))
			return
		case unix.EINVAL: // zinit-server has ended it, and is about to say so
			p.loop.rewatch(ln.fd, pollOnce)
			return
		default: // the client's own trouble (accept(2), "Error handling")
		}
	}
}

func (ln *listener) alarm() *alarm { return &ln.at }

func (ln *listener) ring() { ln.arm() }

// waiting says whether a client waits to be accepted.
func (ln *listener) waiting() bool {
	fds := []unix.PollFd{{Fd: int32(ln.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

func (ln *listener) close() {
	ln.proxy.loop.clear(ln)
	ln.proxy.loop.unwatch(ln.fd)
	ln.proxy.loop.close(ln.fd)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
