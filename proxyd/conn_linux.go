package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
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
	// edge is what is watched of a socket: every change, once.
	edge = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET
)

// conn is a client and its way to the backend.
type conn struct {
	proxy           *proxy
	client, backend end
	up, down        flow // from the client to the backend, and back
	state           connState
	queued          bool // in loop.busy

	at       alarm
	deadline int64 // when the backend has to have answered
	delay    int64 // until the backend is tried again
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
}

// flow is one direction.
type flow struct {
	from, to *end
	pipe     pipe
	held     int  // bytes in the pipe
	eof      bool // from has said all
	done     bool // and to was told, or takes no more
	bytes    *uint64
}

// accepted takes over the socket of a client.
func (p *proxy) accepted(fd int) {
	c := &conn{proxy: p, deadline: p.loop.now + int64(p.ConnectTimeout), delay: retryMin}
	c.client = end{conn: c, fd: fd}
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
	c.state = resolving
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.deadline-c.proxy.loop.now))
	c.cancel = cancel
	l, target := c.proxy.loop, c.proxy.Backend.Address
	go func() {
		a, err := resolve(ctx, target)
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

// resolve looks up host:port. A name may stand for several addresses; the
// first is taken.
func resolve(ctx context.Context, target string) (*address, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	return tcpAddress(netip.AddrPortFrom(ips[0], uint16(number))), nil
}

func (c *conn) connect(a *address) {
	l := c.proxy.loop
	fd, errno := a.socket()
	if errno != 0 {
		c.retry(errno)
		return
	}
	if a.family != unix.AF_UNIX {
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	}
	switch errno := a.connect(fd); errno {
	case 0:
		c.state = forwarding
	case unix.EINPROGRESS:
		c.state = connecting
	default: // a full backlog of a unix socket is EAGAIN
		unix.Close(fd)
		c.retry(errno)
		return
	}
	c.backend.fd = fd
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

// retry tries the backend again later, as long as there is time.
func (c *conn) retry(why error) {
	l := c.proxy.loop
	c.failure = why
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
	switch {
	case c.state == forwarding:
		c.pump()
	case c.state == retrying && c.proxy.loop.now < c.deadline:
		c.reach()
	default:
		c.expire()
	}
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
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e.readable = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e.writable = true
	}
	switch {
	case c.state == forwarding:
		c.pump()
	case c.state == closed:
	case e == &c.client:
		if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			c.fail(fmt.Errorf("the client went away before %s answered", c.proxy.Backend))
		}
	case c.state == connecting && e.writable:
		if events&(unix.EPOLLHUP|unix.EPOLLERR) == 0 {
			c.connected()
			return
		}
		code, err := unix.GetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || code == 0 { // connected, and closed at once
			c.connected()
			return
		}
		c.proxy.loop.close(e.fd)
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
	case c.up.done && c.down.done:
		c.end()
	case more && !c.queued:
		c.queued = true
		c.proxy.loop.busy = append(c.proxy.loop.busy, c)
	}
}

// move moves up to maxTurn bytes from one socket to the other, and says
// whether there may be more at once.
func (f *flow) move(c *conn) (more bool) {
	for moved := 0; !f.done; {
		if f.held == 0 {
			if f.eof {
				f.finish(c)
				return false
			}
			if !f.from.readable {
				break
			}
			if moved >= maxTurn {
				return true
			}
			if f.pipe == noPipe {
				var err error
				if f.pipe, err = c.proxy.loop.pipes.get(); err != nil {
					c.starve(err)
					return false
				}
			}
			n, errno := splice(f.from.fd, f.pipe.w, pipeSize)
			switch {
			case errno == 0 && n > 0:
				f.held = n
			case errno == 0:
				f.eof = true
				continue
			case errno == unix.EAGAIN:
				f.from.readable = false
				continue
			case errno == unix.EINTR:
				continue
			default:
				c.reset(f.to)
				return false
			}
		}
		if !f.to.writable {
			return false
		}
		n, errno := splice(f.pipe.r, f.to.fd, f.held)
		switch errno {
		case 0:
			f.held -= n
			moved += n
			*f.bytes += uint64(n)
		case unix.EAGAIN:
			f.to.writable = false
			return false
		case unix.EINTR:
		default:
			// It takes no more. What it has still to say goes on.
			f.drop()
			f.done = true
			return false
		}
	}
	if f.held == 0 && f.pipe != noPipe {
		c.proxy.loop.pipes.put(f.pipe)
		f.pipe = noPipe
	}
	return false
}

// finish passes the end of a stream on.
func (f *flow) finish(c *conn) {
	f.done = true
	unix.Shutdown(f.to.fd, unix.SHUT_WR)
	if f.pipe != noPipe {
		c.proxy.loop.pipes.put(f.pipe)
		f.pipe = noPipe
	}
}

// drop throws away what is under way.
func (f *flow) drop() {
	if f.pipe != noPipe {
		f.pipe.close()
		f.pipe, f.held = noPipe, 0
	}
}

// starve waits until there are descriptors for a pipe again.
func (c *conn) starve(err error) {
	c.proxy.warn(err)
	c.proxy.loop.set(c, c.proxy.loop.now+int64(starved))
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
	l.close(c.client.fd)
	if c.backend.fd >= 0 {
		l.close(c.backend.fd)
	}
}
