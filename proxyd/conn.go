package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxTurn bounds the bytes that a direction moves before others have
	// their turn.
	maxTurn = 1 << 20
	// A backend that does not answer is tried again after retryMin, doubling
	// to retryMax.
	retryMin = int64(5 * time.Millisecond)
	retryMax = int64(250 * time.Millisecond)
)

// conn is a client and its way to the backend.
type conn struct {
	proxy           *proxy
	client, backend end
	// place keeps a descriptor for the backend while there is none, or clients
	// that wait could take all of them from those for whom they do; -1 = none.
	place    int
	up, down flow // from the client to the backend, and back
	state    connState
	queued   bool // in loop.busy

	at       alarm
	deadline int64 // when the backend has to have answered
	delay    int64 // until the backend is tried again
	tried    int   // how often it was
	failure  error // why the backend did not answer last time
	cancel   context.CancelFunc
}

type connState uint8

const (
	resolving  connState = iota // the backend's name is being looked up
	retrying                    // the backend is tried again when the alarm rings
	connecting                  // connect is under way
	forwarding
	closed
)

// end is one of the two sockets of a connection.
type end struct {
	conn *conn
	fd   int
	// What the socket may have or take, as far as known: set by an event,
	// unset by EAGAIN.
	readable, writable bool
	// gone says that the peer has closed it: it takes no more.
	gone bool
	// last says that the peer has said all.
	last bool
	// short says that less than was asked for is all there is: either it was the
	// last, or another event follows when there is more (epoll(7), "Questions and
	// answers"). That is not so at urgent data and errors of TCP, and where a unix
	// socket passes descriptors.
	short bool
	// nagle says that what is small may wait for the acknowledgement of what was
	// sent before (tcp(7), "TCP_NODELAY"), spoken that something was.
	nagle, spoken bool
}

// flow is one direction. Little goes through the buffer of the loop, in two
// calls; much through a pipe, where the kernel does not copy it.
type flow struct {
	from, to *end
	much     bool   // the last read has filled the buffer
	rest     []byte // read and not yet written, in the loop's buffer or kept
	kept     bool
	pipe     pipe
	held     int  // bytes in the pipe; there are none, or no rest
	eof      bool // from has said all
	done     bool // and to was told, or takes no more
	bytes    *uint64
}

// accepted takes over the socket of a client.
func (ln *listener) accepted(fd int) {
	p := ln.proxy
	c := &conn{proxy: p, deadline: p.until, delay: retryMin, place: -1}
	if p.until == 0 { // it did not wait for the gate
		c.deadline = p.loop.now + int64(p.ConnectTimeout)
	}
	c.client = end{conn: c, fd: fd, short: shortIsAll && ln.address.Network != "unix"}
	c.backend = end{conn: c, fd: -1}
	c.up = flow{from: &c.client, to: &c.backend, pipe: noPipe, bytes: &p.toBackend}
	c.down = flow{from: &c.backend, to: &c.client, pipe: noPipe, bytes: &p.fromBackend}
	p.add(c)
	if err := p.loop.watch(fd, &c.client, edge); err != nil {
		unix.Close(fd)
		p.remove(c, err)
		return
	}
	c.reach()
}

// reach begins to connect to the backend.
func (c *conn) reach() {
	if a := c.proxy.backend; a != nil {
		c.connect(a)
		return
	}
	if c.place < 0 {
		c.place = another(c.client.fd)
	}
	c.state = resolving
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.deadline-c.proxy.loop.now))
	c.cancel = cancel
	l, target, tried := c.proxy.loop, c.proxy.Backend.Address, c.tried
	go func() {
		a, err := resolve(ctx, target, tried)
		l.do(func() {
			cancel()
			c.cancel = nil
			switch {
			case c.state != resolving: // closed meanwhile
			case err != nil:
				c.retry(err)
			default:
				c.connect(a)
			}
		})
	}()
}

// resolve looks up host:port. A name may stand for several addresses, each of
// which has its turn.
func resolve(ctx context.Context, target string, tried int) (*address, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return nil, err
	}
	host, name, _ := strings.Cut(host, "%")
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	zone := uint32(0)
	if name != "" {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return nil, fmt.Errorf("there is no interface %s", name)
		}
		zone = uint32(i.Index)
	}
	return tcpAddress(netip.AddrPortFrom(ips[tried%len(ips)], uint16(number)), zone), nil
}

func (c *conn) connect(a *address) {
	l := c.proxy.loop
	c.vacate()
	fd, errno := a.socket()
	if errno != 0 {
		l.pipes.drop()
		c.retry(errno)
		return
	}
	if a.remote { // it may vanish without a word
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	}
	tcp := a.family != unix.AF_UNIX
	if tcp {
		joinHandshake(fd, c.client.fd)
	}
	switch errno := a.connect(fd); errno {
	case 0:
		c.state = forwarding
	case unix.EINPROGRESS:
		c.state = connecting
	default: // a full backlog of a unix socket is EAGAIN
		c.place = fd
		c.retry(errno)
		return
	}
	c.backend.fd, c.backend.short, c.backend.nagle = fd, shortIsAll && tcp, tcp
	if err := l.watch(fd, &c.backend, edge); err != nil {
		unix.Close(fd)
		c.backend.fd = -1
		c.retry(err)
		return
	}
	if c.state == connecting {
		l.set(c, c.deadline)
		return
	}
	c.connected()
}

// vacate gives up the place of the backend, for its socket.
func (c *conn) vacate() {
	if c.place >= 0 {
		unix.Close(c.place)
		c.place = -1
	}
}

// retry tries the backend again later, as long as there is time.
func (c *conn) retry(why error) {
	l := c.proxy.loop
	c.failure = why
	c.tried++
	c.state = retrying
	if l.now >= c.deadline {
		c.expire()
		return
	}
	l.set(c, min(l.now+c.delay, c.deadline))
	c.delay = min(2*c.delay, retryMax)
}

func (c *conn) alarm() *alarm { return &c.at }

// ring says that the time to try again has come, or that there is no more.
func (c *conn) ring() {
	if c.state == retrying && c.proxy.loop.now < c.deadline {
		c.reach()
		return
	}
	c.expire()
}

func (c *conn) expire() {
	why := c.failure
	if why == nil {
		why = unix.ETIMEDOUT
	}
	c.fail(fmt.Errorf("cannot connect to %s within %v: %w", c.proxy.Backend, c.proxy.ConnectTimeout, why))
}

func (c *conn) connected() {
	c.proxy.loop.clear(c)
	c.state = forwarding
	// What the kernel has not told yet it will.
	c.client.writable, c.backend.writable = true, true
	c.pump()
}

// ready takes note of what the kernel says of a socket.
func (e *end) ready(events uint32) {
	c := e.conn
	if events&(pollIn|pollLast|pollGone|pollError) != 0 {
		e.readable = true
	}
	if events&(pollOut|pollGone|pollError) != 0 {
		e.writable = true
	}
	e.last = e.last || events&pollLast != 0
	e.gone = e.gone || events&(pollGone|pollError) != 0
	e.short = e.short && events&(pollUrgent|pollError) == 0
	switch {
	case c.state == forwarding:
		c.pump()
	case c.state == closed:
	case e == &c.client:
		// Without an error, what it has said is still for the backend.
		if events&pollError != 0 {
			c.fail(fmt.Errorf("the client went away before %s answered", c.proxy.Backend))
		}
	case c.state == connecting && e.writable:
		if events&(pollGone|pollError) == 0 {
			c.connected()
			return
		}
		code, err := unix.GetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || code == 0 { // connected, and closed at once
			c.connected()
			return
		}
		c.proxy.loop.unwatch(e.fd)
		c.place = e.fd
		*e = end{conn: c, fd: -1}
		c.retry(syscall.Errno(code))
	}
}

// pump moves what can be moved, in both directions.
func (c *conn) pump() {
	if c.state != forwarding {
		return
	}
	more := c.up.move(c)
	more = c.down.move(c) || more
	switch {
	case c.state != forwarding: // reset on the way
	case c.up.done && c.down.done, c.client.gone && c.up.done, c.backend.gone && c.down.done:
		c.end()
	case more && !c.queued:
		c.queued = true
		c.proxy.loop.busy = append(c.proxy.loop.busy, c)
	}
}

// move moves up to maxTurn bytes from one socket to the other, and says
// whether there may be more at once.
func (f *flow) move(c *conn) (more bool) {
	for moved := 0; ; {
		for f.held > 0 || len(f.rest) > 0 {
			if !f.to.writable {
				f.keep()
				return false
			}
			n, errno := f.write(c)
			switch errno {
			case 0:
				moved += n
				*f.bytes += uint64(n)
			case unix.EAGAIN:
				f.to.writable = false
			case unix.EINTR:
			default:
				// It takes no more. What it has still to say goes on.
				f.drop()
				f.done = true
			}
		}
		switch {
		case f.eof:
			f.finish(c)
			return false
		case !f.from.readable:
			f.release(c)
			return false
		case moved >= maxTurn:
			return true
		}
		n, errno := f.read(c)
		switch {
		case errno == 0 && n == 0:
			f.eof = true
		case errno == 0 && f.done:
			moved += n // nobody wants it
			f.rest = nil
		case errno == unix.EAGAIN:
			f.from.readable = false
		case errno != 0 && errno != unix.EINTR:
			c.reset(f.to)
			return false
		}
	}
}

// read takes what from has said, into the pipe or into the buffer, from where
// as much as possible is written at once.
func (f *flow) read(c *conn) (int, syscall.Errno) {
	l := c.proxy.loop
	if f.much && !f.done && (f.pipe != noPipe || l.pipes.get(&f.pipe)) {
		n, errno := splice(f.from.fd, f.pipe.w, pipeSize)
		if errno == 0 {
			f.held, f.much = n, n >= len(l.buffer)/4
		}
		return n, errno
	}
	n, errno := recv(f.from.fd, l.buffer)
	if errno != 0 || n == 0 {
		return n, errno
	}
	f.much = n == len(l.buffer)
	if !f.much && f.from.short {
		f.from.readable, f.eof = false, f.from.last
	}
	f.rest, f.kept = l.buffer[:n], false
	return n, 0
}

// write hands on what was read, as much as can be.
func (f *flow) write(c *conn) (int, syscall.Errno) {
	if f.to.nagle && f.to.spoken {
		setTCP(f.to.fd, unix.TCP_NODELAY, 1)
		f.to.nagle = false
	}
	f.to.spoken = true
	if f.held > 0 {
		n, errno := splice(f.pipe.r, f.to.fd, f.held)
		if errno == 0 {
			f.held -= n
		}
		return n, errno
	}
	n, errno := send(f.to.fd, f.rest, f.eof && !c.up.done && !c.down.done)
	if errno == 0 {
		f.rest = f.rest[n:]
	}
	return n, errno
}

// keep takes the rest out of the buffer, which is for all.
func (f *flow) keep() {
	if !f.kept {
		f.rest, f.kept = bytes.Clone(f.rest), true
	}
}

// finish passes the end of a stream on.
func (f *flow) finish(c *conn) {
	if !f.done {
		f.done = true
		if !c.up.done || !c.down.done { // else it is closed at once
			shutdown(f.to.fd)
		}
	}
	f.release(c)
}

// release gives up the empty pipe until there is more.
func (f *flow) release(c *conn) {
	f.rest = nil
	if f.pipe != noPipe {
		c.proxy.loop.pipes.put(f.pipe)
		f.pipe = noPipe
	}
}

// drop throws away what is under way.
func (f *flow) drop() {
	f.rest, f.held = nil, 0
	if f.pipe != noPipe {
		f.pipe.close()
		f.pipe = noPipe
	}
}

// reset passes a reset on to the other side.
func (c *conn) reset(to *end) {
	unix.SetsockoptLinger(to.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 0})
	c.end()
}

// fail closes a client whose backend cannot be reached.
func (c *conn) fail(why error) {
	c.close()
	c.proxy.remove(c, why)
}

// end closes a connection that was served.
func (c *conn) end() {
	c.close()
	c.proxy.remove(c, nil)
}

func (c *conn) close() {
	l := c.proxy.loop
	c.state = closed
	l.clear(c)
	if c.cancel != nil {
		c.cancel()
	}
	c.up.drop()
	c.down.drop()
	c.vacate()
	l.close(c.client.fd)
	if c.backend.fd >= 0 {
		l.close(c.backend.fd)
	}
}
