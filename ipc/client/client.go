// Package client talks to a running zinit over its control socket.
//
//	c, err := client.Dial(ctx, "/run/zinit.sock")
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	services, err := c.List(ctx, client.Filter{})
//
// A Client is one connection. All its methods may be called from any
// goroutine and many at a time; answers are told apart by their numbers. The
// functions that a stream is handed to run in the goroutine of the caller. As
// long as one of them does not return, the connection is read no further once
// a few hundred items wait, so it must not wait for another answer of the same
// Client: open a second one for that.
//
// The supervisor may be replaced at any moment, for it may crash or be
// upgraded while the services go on. Its socket stays open meanwhile. The
// methods named after what they do (List, Start, FollowLogs, …) connect again
// and ask again, each in the way that is right for it; a caller sees nothing
// but a delay of some milliseconds. Call and Stream, which know nothing of
// the method, return ErrLost instead.
//
// A refusal by the server is an *ipc.Error, whose Kind says what it is. Where
// there is no server, the error is an *Unreachable. When the context ends, its
// error is returned, and the server is told that nobody listens any more; what
// was asked for goes on.
//
// The tests run against a server of their own on a real socket.
package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
)

const (
	// connectTimeout bounds how long a connection and the greeting may take
	// where the context does not. A supervisor that keeps crashing is started
	// again within 5 s.
	connectTimeout = 10 * time.Second
	// backlog is how many answers of one call may wait for the caller before
	// the connection is not read any more.
	backlog = 256
)

// ErrLost is returned by Call and Stream when the connection ended before the
// answer did. The request may or may not have had its effect.
var ErrLost = errors.New("connection to zinit-server was lost")

// ErrClosed is returned after Close.
var ErrClosed = errors.New("client is closed")

// Unreachable says that no server answers on a socket.
type Unreachable struct {
	Socket string
	// Err is why: fs.ErrNotExist where there is no socket, ECONNREFUSED where
	// nobody listens, fs.ErrPermission where this user may not connect, and
	// something else where the server does not answer: context.DeadlineExceeded
	// where the context has ended over that.
	Err error
	// Pid is the process that has taken the connection and does not answer, 0
	// where there is none or it is not known.
	Pid int
}

func (e *Unreachable) Error() string {
	err := e.Err
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		err = pe.Err
	}
	if e.Pid > 0 {
		return fmt.Sprintf("zinit-server (pid %d) at %s does not answer: %v", e.Pid, e.Socket, err)
	}
	return fmt.Sprintf("cannot reach zinit-server at %s: %v", e.Socket, err)
}

func (e *Unreachable) Unwrap() error { return e.Err }

// Client is a connection to a server that is made again when it is lost.
type Client struct {
	socket string

	// dialing is held while a connection is being made, so that many callers
	// make one; a channel, because waiting for it ends with the context.
	dialing chan struct{}

	mu     sync.Mutex
	link   *link // nil or ended: the next call connects
	used   bool  // there has been a link
	closed bool
}

// New returns a client that connects when it is first asked for something: an
// error that Dial would return comes then. A question that changes nothing goes
// out together with the greeting, which saves one round trip of two.
func New(socket string) *Client {
	return &Client{socket: socket, dialing: make(chan struct{}, 1)}
}

// Dial connects to the server at that socket.
func Dial(ctx context.Context, socket string) (*Client, error) {
	c := New(socket)
	if _, err := c.connect(ctx, connectTimeout, false); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Socket returns the path of the socket.
func (c *Client) Socket() string { return c.socket }

// Close ends the connection. Calls under way return ErrClosed.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.link != nil {
		c.link.end(ErrClosed)
	}
	return nil
}

// current returns the link if there is a live one.
func (c *Client) current() (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, ErrClosed
	case c.link != nil && c.link.ended() == nil:
		return c.link, nil
	}
	return nil, nil
}

// connect returns the live link or makes one, within limit. With early, for what
// may be asked twice, the first link is not waited for: the greeting goes out
// with the request, and if the server dies over both, the next attempt waits.
func (c *Client) connect(ctx context.Context, limit time.Duration, early bool) (*link, error) {
	if l, err := c.current(); err != nil || l != nil && l.isGreeted() {
		return l, err
	}
	late := &Unreachable{Socket: c.socket, Err: fmt.Errorf("timed out after %v", limit)}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	select {
	case c.dialing <- struct{}{}:
		defer func() { <-c.dialing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var b backoff
	for {
		l, first, err := c.dial(ctx)
		if err == nil && first && early {
			time.AfterFunc(limit, func() {
				if !l.isGreeted() {
					l.end(l.silent(late))
				}
			})
			return l, nil
		}
		if err == nil {
			err = l.wait(ctx)
		}
		// The connection was made and then cut: the supervisor died with the
		// greeting unanswered, and the next one is on its way.
		if !errors.Is(err, ErrLost) {
			return l, err
		}
		if err := b.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// dial returns the live link or makes one, without waiting for the server to
// greet, and says whether it is the first of this client.
func (c *Client) dial(ctx context.Context) (l *link, first bool, err error) {
	if l, err = c.current(); l != nil || err != nil {
		return l, false, err
	}
	if l, err = dial(ctx, c.socket); err != nil {
		return nil, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		l.end(ErrClosed)
		return nil, false, ErrClosed
	}
	first = !c.used
	c.link, c.used = l, true
	return l, first, nil
}

// backoff is the pause between attempts: 5 ms, doubling to 250 ms. A server
// that is being replaced lets a connection wait, so it only matters for one
// that keeps dying.
type backoff time.Duration

func (b *backoff) wait(ctx context.Context) error {
	*b = min(max(2**b, backoff(5*time.Millisecond)), backoff(250*time.Millisecond))
	select {
	case <-time.After(time.Duration(*b)):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// link is one connection, from the greeting to its end.
type link struct {
	conn    *ipc.Conn
	socket  string
	greeted chan struct{} // closed when the server has greeted
	done    chan struct{} // closed when it has ended

	mu    sync.Mutex
	err   error // why it ended
	last  uint64
	calls map[uint64]*call
}

// call is one request under way.
type call struct {
	answers chan *answer
	gone    chan struct{} // closed when the caller does not listen any more
}

// answer is a frame to a call, and the result or item in it, still encoded.
type answer struct {
	ipc.Frame
	value msgpack.RawMessage
}

// dial connects. The greeting is held back for the first request, or until it is
// waited for.
func dial(ctx context.Context, socket string) (*link, error) {
	wait := connectTimeout
	if deadline, ok := ctx.Deadline(); ok {
		wait = time.Until(deadline)
	}
	conn, err := ipc.Dial(socket, wait)
	switch {
	case ctx.Err() != nil:
		if conn != nil {
			conn.Close()
		}
		if err = context.Cause(ctx); err == context.DeadlineExceeded {
			err = &Unreachable{Socket: socket, Err: err}
		}
		return nil, err
	case errors.Is(err, unix.EAGAIN): // SO_SNDTIMEO has run out
		return nil, &Unreachable{Socket: socket, Err: fmt.Errorf("timed out after %v", wait.Round(time.Millisecond))}
	case err != nil:
		return nil, &Unreachable{Socket: socket, Err: err}
	}
	conn.NoFds = true
	conn.Hold()
	conn.Send(ipc.KindHello, ipc.Hello{Protocol: ipc.Protocol, Role: ipc.RoleClient, Version: version.Version})
	l := &link{conn: conn, socket: socket, greeted: make(chan struct{}), done: make(chan struct{}), calls: map[uint64]*call{}}
	go l.read()
	return l, nil
}

// wait returns when the server has greeted. ErrLost means that it was there and
// went.
func (l *link) wait(ctx context.Context) error {
	l.conn.Release()
	select {
	case <-l.greeted:
		return nil
	case <-l.done:
		return l.ended()
	case <-ctx.Done():
		return l.silent(context.Cause(ctx))
	}
}

// silent is the error of a server that has not greeted, or not answered what is
// answered at once, by the time that err is for.
func (l *link) silent(err error) error {
	out := &Unreachable{Socket: l.socket, Err: err}
	if late := (*Unreachable)(nil); errors.As(err, &late) {
		out.Err = late.Err
	} else if err != context.DeadlineExceeded {
		return err
	}
	if peer, err := l.conn.Peer(); err == nil {
		out.Pid = peer.Pid
	}
	return out
}

func (l *link) isGreeted() bool {
	select {
	case <-l.greeted:
		return true
	default:
		return false
	}
}

// greet reads the server's hello. A server that refuses this client answers
// with an error in place of it.
func (l *link) greet() error {
	f, err := l.conn.Read()
	if err != nil {
		return ErrLost
	}
	switch f.Kind {
	case ipc.KindError:
		return refusal(f)
	case ipc.KindHello:
		var h ipc.Hello
		if err := f.Decode(&h); err != nil {
			return err
		}
		return h.Check(ipc.RoleSupervisor)
	}
	return fmt.Errorf("cannot talk to the server: its first frame is of kind %d, not a hello", f.Kind)
}

// refusal decodes an error frame.
func refusal(f ipc.Frame) error {
	var e ipc.ErrorAnswer
	if err := f.Decode(&e); err != nil {
		return err
	}
	return &e.Error
}

// read hands the answers to their calls until the connection ends.
func (l *link) read() {
	if err := l.greet(); err != nil {
		l.end(err)
		return
	}
	close(l.greeted)
	for {
		f, err := l.conn.Read()
		if err != nil {
			l.end(ErrLost)
			return
		}
		id, value, err := f.Answer()
		if err != nil {
			l.end(err)
			return
		}
		// An error without a number is about the connection.
		if id == 0 {
			if f.Kind == ipc.KindError {
				l.end(refusal(f))
				return
			}
			continue
		}
		l.mu.Lock()
		call := l.calls[id]
		l.mu.Unlock()
		if call == nil {
			continue
		}
		select {
		case call.answers <- &answer{f, value}:
		case <-call.gone:
		case <-l.done:
			return
		}
	}
}

// end closes the connection; the first reason stays.
func (l *link) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		l.conn.Close()
		close(l.done)
	}
}

func (l *link) ended() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// ask sends a request and returns its call, which forget ends.
func (l *link) ask(method string, params any) (uint64, *call, error) {
	if params == nil {
		params = struct{}{}
	}
	raw, err := msgpack.Marshal(params)
	if err != nil {
		return 0, nil, fmt.Errorf("cannot encode the parameters of %s: %w", method, err)
	}
	call := &call{answers: make(chan *answer, backlog), gone: make(chan struct{})}
	l.mu.Lock()
	l.last++
	id := l.last
	l.calls[id] = call
	l.mu.Unlock()
	err = l.conn.Send(ipc.KindRequest, ipc.Request{ID: id, Method: method, Params: raw})
	l.conn.Release()
	if err != nil {
		l.forget(id, call)
		if errors.Is(err, ipc.ErrTooLarge) {
			return 0, nil, fmt.Errorf("cannot ask for %s: %w", method, err)
		}
		l.end(ErrLost)
		return 0, nil, l.ended()
	}
	return id, call, nil
}

func (l *link) forget(id uint64, call *call) {
	l.mu.Lock()
	delete(l.calls, id)
	l.mu.Unlock()
	close(call.gone)
}

// Call asks for a method with one answer and decodes that into result, a
// pointer, or nil to ignore it. params is a struct or map that becomes the map
// of parameters, or nil.
func (c *Client) Call(ctx context.Context, method string, params, result any) error {
	return c.call(ctx, method, params, result, false)
}

func (c *Client) call(ctx context.Context, method string, params, result any, early bool) error {
	return c.do(ctx, method, params, result, early, func(msgpack.RawMessage) error {
		return fmt.Errorf("cannot understand the answer to %s: it is a stream", method)
	})
}

// Stream asks for a method that answers with items and calls item for each, in
// order, until the server ends the stream. An error of item ends it, too, and
// is returned.
func (c *Client) Stream(ctx context.Context, method string, params any, item func(Item) error) error {
	return c.stream(ctx, method, params, item, false)
}

func (c *Client) stream(ctx context.Context, method string, params any, item func(Item) error, early bool) error {
	return c.do(ctx, method, params, nil, early, func(raw msgpack.RawMessage) error { return item(Item{raw}) })
}

// Item is one part of a stream, still encoded.
type Item struct{ raw msgpack.RawMessage }

// Decode decodes the item into a pointer.
func (i Item) Decode(into any) error {
	if err := msgpack.Unmarshal(i.raw, into); err != nil {
		return fmt.Errorf("cannot decode an item: %w", err)
	}
	return nil
}

// do is one request on one link; early is as with connect.
func (c *Client) do(ctx context.Context, method string, params, result any, early bool, item func(msgpack.RawMessage) error) error {
	l, err := c.connect(ctx, connectTimeout, early)
	if err != nil {
		return err
	}
	id, call, err := l.ask(method, params)
	if err != nil {
		return err
	}
	defer l.forget(id, call)
	for heard := false; ; heard = true {
		var f *answer
		select {
		case f = <-call.answers:
		case <-ctx.Done():
			// What may be asked early is answered at once.
			if !l.isGreeted() || early && !heard {
				return l.silent(context.Cause(ctx))
			}
			l.conn.Send(ipc.KindCancel, ipc.Cancel{ID: id})
			return context.Cause(ctx)
		case <-l.done:
			// What came before the end still counts.
			select {
			case f = <-call.answers:
			default:
				return l.ended()
			}
		}
		switch f.Kind {
		case ipc.KindResponse:
			if result == nil {
				return nil
			}
			return Item{f.value}.Decode(result)
		case ipc.KindError:
			return refusal(f.Frame)
		case ipc.KindEnd:
			return nil
		case ipc.KindItem:
			if err := item(f.value); err != nil {
				l.conn.Send(ipc.KindCancel, ipc.Cancel{ID: id})
				return err
			}
		default:
			return fmt.Errorf("cannot understand the answer to %s: frame of kind %d", method, f.Kind)
		}
	}
}

// again runs one attempt after the other until one ends otherwise than by the
// loss of the connection.
func again(ctx context.Context, attempt func() error) error {
	var b backoff
	for {
		begin := time.Now()
		err := attempt()
		if !errors.Is(err, ErrLost) {
			return err
		}
		if time.Since(begin) > time.Second {
			b = 0
		}
		if err := b.wait(ctx); err != nil {
			return err
		}
	}
}
