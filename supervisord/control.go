package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/fdlimit"
	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

const (
	// maxClients bounds the connections to the control socket, maxRequests the
	// unanswered requests of one of them.
	maxClients  = 1024
	maxRequests = 64
	// stall is how long a client may take for one frame.
	stall = 10 * time.Second
)

// listen opens the control socket, or takes over the one that pid1 has kept. A
// listener from before, whose name was removed, is closed: nobody can find it.
func (s *server) listen() error {
	fd, ok := s.keeper.take("listen/ctl")
	if !ok {
		err := removeStale(s.paths.Socket)
		if err != nil {
			return fmt.Errorf("cannot make the control socket %s: %w: move it away, or choose another place with --socket", s.paths.Socket, err)
		}
		if err = os.MkdirAll(filepath.Dir(s.paths.Socket), 0o755); err != nil {
			return fmt.Errorf("cannot make the directory of the control socket: %w", err)
		}
		if fd, err = ipc.Listen(s.paths.Socket, s.opts.socketMode); err != nil {
			return err
		}
		if g := s.opts.socketGroup; g != "" {
			if err := os.Chown(s.paths.Socket, -1, s.opts.socketGID); err != nil {
				return fmt.Errorf("cannot give the control socket to group %s: %w", g, err)
			}
		}
		if err := s.keeper.store("listen/ctl", fd); err != nil {
			return err
		}
	}
	l, err := ipc.NewListener(fd)
	if err != nil {
		return err
	}
	if s.listener != nil {
		s.listener.Close()
	}
	s.listener = l
	go s.acceptLoop(l)
	return nil
}

// removeStale removes a socket that a program which is gone has left: one on
// which nobody listens. All else there belongs to somebody and stays.
func removeStale(path string) error {
	switch file, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case file.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file of that name, which is no socket")
	}
	switch conn, err := ipc.Dial(path, time.Second); {
	case err == nil:
		defer conn.Close()
		if peer, err := conn.Peer(); err == nil && peer.Pid > 0 {
			return fmt.Errorf("another program listens there: pid %d, %s", peer.Pid, programName(peer.Pid))
		}
		return errors.New("another program listens there")
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	default:
		return err
	}
}

func (s *server) acceptLoop(l *ipc.Listener) {
	var clients atomic.Int64
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		most := min(maxClients, fdlimit.Clients())
		if clients.Add(1) > int64(most) {
			clients.Add(-1)
			e := ipc.Errorf(ipc.ErrUnavailable, "zinit-server has %d clients, the most it serves at a time", most)
			if most < maxClients {
				e.Message += ": for more, start zinit with a higher limit on open files (ulimit -n)"
			}
			go refuse(c, e)
			continue
		}
		if c.Fd() >= fdlimit.Segments() {
			s.logs.Yield()
		}
		go func() {
			defer clients.Add(-1)
			s.serve(c)
		}()
	}
}

// refuse says no and hangs up, also on who does not listen.
func refuse(c *ipc.Conn, e *ipc.Error) {
	defer time.AfterFunc(stall, c.Close).Stop()
	c.Send(ipc.KindError, ipc.ErrorAnswer{Error: *e})
	c.Flush()
	c.Close()
}

// client is one connection; its requests, but for those that are answered at
// once, have goroutines of their own, so that a follower does not hold up the
// rest.
type client struct {
	s    *server
	conn *ipc.Conn

	mu   sync.Mutex
	open map[uint64]context.CancelFunc // the unanswered requests
}

// serve reads requests until the client goes.
func (s *server) serve(conn *ipc.Conn) {
	defer conn.Close()
	conn.Stall, conn.NoFds = stall, true
	if e := s.allowed(conn); e != nil {
		refuse(conn, e)
		return
	}
	if _, err := ipc.ReadHello(conn, ipc.RoleClient); err != nil {
		hangUp(conn, err)
		return
	}
	// What is asked together with the greeting is answered together with it.
	conn.Hold()
	conn.Send(ipc.KindHello, ipc.Hello{Protocol: ipc.Protocol, Role: ipc.RoleSupervisor, Version: version.Version})
	c := &client{s: s, conn: conn, open: map[uint64]context.CancelFunc{}}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for {
		if !conn.Pending() {
			conn.Release()
		}
		f, err := conn.Read()
		if err != nil {
			hangUp(conn, err)
			return
		}
		switch f.Kind {
		case ipc.KindRequest:
			var r ipc.Request
			if err := f.Decode(&r); err != nil {
				c.fail(0, ipc.Errorf(ipc.ErrInvalid, "%v", err))
				continue
			}
			rctx, rcancel := context.WithCancel(ctx)
			if id, e := c.begin(r.ID, rcancel); e != nil {
				rcancel()
				c.fail(id, e)
				continue
			}
			if slices.Contains(prompt, r.Method) {
				c.answer(rctx, r)
			} else {
				go c.answer(rctx, r)
			}
		case ipc.KindCancel:
			var m ipc.Cancel
			if f.Decode(&m) == nil {
				c.cancel(m.ID)
			}
		default:
			c.fail(0, ipc.Errorf(ipc.ErrInvalid, "frames of kind %d have no meaning here", f.Kind))
		}
	}
}

// hangUp ends a connection that cannot be read any more, and says why to a
// client that is still there.
func hangUp(conn *ipc.Conn, err error) {
	var system *os.PathError
	if err != io.EOF && !errors.As(err, &system) && !errors.Is(err, os.ErrClosed) {
		refuse(conn, ipc.Errorf(ipc.ErrInvalid, "%v", err))
	}
}

// begin notes a request. Where it is refused, id is whom the error is for: the
// request, or nobody where its number is that of another or none.
func (c *client) begin(n uint64, cancel context.CancelFunc) (id uint64, refused *ipc.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch _, busy := c.open[n]; {
	case n == 0 || n > math.MaxInt64: // a negative number is read as a large one
		return 0, ipc.Errorf(ipc.ErrInvalid, "a request needs an id, an integer from 1 to %d", math.MaxInt64)
	case busy:
		return 0, ipc.Errorf(ipc.ErrInvalid, "request %d is unanswered: another needs another id", n)
	case len(c.open) >= maxRequests:
		return n, ipc.Errorf(ipc.ErrUnavailable, "%d requests of this connection are unanswered, the most there may be", maxRequests)
	}
	c.open[n] = cancel
	return n, nil
}

func (c *client) cancel(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel := c.open[id]; cancel != nil {
		cancel()
	}
}

// end forgets a request, before its answer is sent: then the client may use
// the number again.
func (c *client) end(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[id]()
	delete(c.open, id)
}

// fail answers with an error, shortened where it does not fit into a frame.
func (c *client) fail(id uint64, e *ipc.Error) {
	err := c.conn.Send(ipc.KindError, ipc.ErrorAnswer{ID: id, Error: *e})
	if errors.Is(err, ipc.ErrTooLarge) {
		c.conn.Send(ipc.KindError, ipc.ErrorAnswer{ID: id, Error: *shortened(e)})
	}
}

// shortened is an error without what makes it long: all but the beginning of
// its words and the first problems.
func shortened(e *ipc.Error) *ipc.Error {
	const bytes, problems = 4096, 100
	cut := func(text string) string { return strings.ToValidUTF8(text[:min(len(text), bytes)], "") }
	out := &ipc.Error{Kind: e.Kind, Message: cut(e.Message)}
	for _, p := range e.Problems[:min(len(e.Problems), problems)] {
		p.File, p.Message = cut(p.File), cut(p.Message)
		out.Problems = append(out.Problems, p)
	}
	return out
}

// allowed checks who connects: root, our own user, and the members of the
// socket's group.
func (s *server) allowed(conn *ipc.Conn) *ipc.Error {
	cred, err := conn.Peer()
	if err != nil {
		return ipc.Errorf(ipc.ErrDenied, "%v", err)
	}
	if cred.Uid == 0 || cred.Uid == os.Getuid() {
		return nil
	}
	if s.opts.socketGroup != "" {
		if cred.Gid == s.opts.socketGID {
			return nil
		}
		if u, err := user.LookupId(strconv.Itoa(cred.Uid)); err == nil {
			if ids, err := u.GroupIds(); err == nil && slices.Contains(ids, strconv.Itoa(s.opts.socketGID)) {
				return nil
			}
		}
	}
	return ipc.Errorf(ipc.ErrDenied, "uid %d may not control this zinit-server, which belongs to uid %d", cred.Uid, os.Getuid())
}

// method answers one request: by an error, by a result, or by what it gives to
// item before it returns.
type method func(c *client, ctx context.Context, r ipc.Request) (result any, err error)

// empty is the result of a method that has nothing to say.
type empty struct{}

// stream says that the items were all.
type stream struct{}

func (c *client) answer(ctx context.Context, r ipc.Request) {
	defer c.conn.Release() // what items holds
	result, err := c.call(ctx, r)
	cancelled := ctx.Err() != nil
	c.end(r.ID)
	var e *ipc.Error
	switch {
	case errors.As(err, &e):
	case err != nil && cancelled:
		e = ipc.Errorf(ipc.ErrUnavailable, "cancelled")
	case err != nil:
		e = ipc.Errorf(ipc.ErrInternal, "%v", err)
	case result == stream{}:
		c.conn.Send(ipc.KindEnd, ipc.End{ID: r.ID})
		return
	default:
		err := c.conn.Send(ipc.KindResponse, ipc.Response{ID: r.ID, Result: result})
		if !errors.Is(err, ipc.ErrTooLarge) {
			return
		}
		e = ipc.Errorf(ipc.ErrInternal, "the answer to %s is larger than a frame", r.Method)
	}
	c.fail(r.ID, e)
}

func (c *client) call(ctx context.Context, r ipc.Request) (any, error) {
	m, ok := methods[r.Method]
	if !ok {
		e := ipc.Errorf(ipc.ErrInvalid, "there is no method %q", r.Method)
		if near := spec.Nearest(r.Method, methodNames()); near != "" {
			e.Message += ", did you mean " + near + "?"
		}
		return nil, e
	}
	if err := m.check(r); err != nil {
		return nil, err
	}
	result, err := m.run(c, ctx, r)
	var e *ipc.Error
	if errors.As(err, &e) && e.Kind == ipc.ErrNotFound && spec.CheckName(e.Service) == nil && e.Problems == nil {
		c.s.sayUnloaded(ctx, e)
	}
	return result, err
}

// params decodes parameters.
func params[T any](r ipc.Request) (T, error) {
	var p T
	if len(r.Params) == 0 {
		return p, nil
	}
	d := msgpack.GetDecoder()
	defer msgpack.PutDecoder(d)
	d.Reset(bytes.NewReader(r.Params))
	d.DisallowUnknownFields(true)
	if err := d.Decode(&p); err != nil {
		if name, want := misfit[T](r.Params); name != "" {
			return p, ipc.Errorf(ipc.ErrInvalid, "cannot read the parameter %s of %s: expected %s", name, r.Method, want)
		}
		return p, ipc.Errorf(ipc.ErrInvalid, "cannot read the parameters of %s: %v", r.Method, err)
	}
	return p, nil
}

// misfit finds the parameter whose value cannot be read, and what it should be.
func misfit[T any](params []byte) (name, want string) {
	var values map[string]msgpack.RawMessage
	if msgpack.Unmarshal(params, &values) != nil {
		return "", ""
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		name, _, _ := strings.Cut(f.Tag.Get("msgpack"), ",")
		value, given := values[name]
		if !given || msgpack.Unmarshal(value, reflect.New(f.Type).Interface()) == nil {
			continue
		}
		t := f.Type
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch {
		case t == reflect.TypeFor[ipc.Time]():
			return name, "a time such as 2026-11-22T18:24:00Z"
		case t.Kind() == reflect.Slice:
			return name, "an array of strings"
		case t.Kind() == reflect.String:
			return name, "a string"
		case t.Kind() == reflect.Bool:
			return name, "true or false"
		case t.Kind() == reflect.Int || t.Kind() == reflect.Int64 || t.Kind() == reflect.Uint64:
			return name, "a whole number"
		}
		return name, "another type"
	}
	return "", ""
}

// items sends a list as a stream: all that fits into one call of the kernel at a
// time, so that the client is woken once for a short one and its end.
func items[T any](c *client, r ipc.Request, list []T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	c.conn.Hold()
	for _, it := range list {
		if err := c.conn.Send(ipc.KindItem, ipc.Item{ID: r.ID, Item: it}); err != nil {
			return nil, err
		}
		if err := c.conn.WaitDrained(); err != nil {
			return nil, err
		}
	}
	return stream{}, nil
}

func ping(*client, context.Context, ipc.Request) (any, error) {
	return map[string]string{"version": version.Version}, nil
}

func info(c *client, ctx context.Context, r ipc.Request) (any, error) {
	var i ipc.Info
	err := c.s.in(ctx, func() { i = c.s.info() })
	return i, err
}

// ending makes the methods that end zinit, and maybe the machine.
func ending(action ipc.HaltAction) method {
	return func(c *client, ctx context.Context, r ipc.Request) (any, error) {
		hello := c.s.keeper.hello
		switch {
		case action == ipc.HaltExit && hello.Mode == ipc.ModeVM:
			return nil, ipc.Errorf(ipc.ErrInvalid, "zinit is the init of this machine and cannot end without it: use poweroff or reboot")
		case action != ipc.HaltExit && hello.Pid != 1:
			return nil, ipc.Errorf(ipc.ErrInvalid, "zinit is not the init of this machine, but process %d: use shutdown to end it", hello.Pid)
		}
		err := c.s.in(ctx, func() {
			c.s.log.Info("shutting down", "by", "request", "action", action)
			c.s.step(core.Stop{Action: string(action), Within: core.Time(c.s.opts.shutdownTimeout)})
		})
		return empty{}, err
	}
}
