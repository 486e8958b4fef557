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
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
	"github.com/threefoldtech/zinit/supervisord/logs"
)

const (
	// maxClients bounds the connections to the control socket, maxRequests the
	// unanswered requests of one of them.
	maxClients  = 1024
	maxRequests = 64
	// stall is how long a client may take for one frame.
	stall = 10 * time.Second
	// maxGrep is the longest expression for log lines, in bytes: compiled, it
	// may take some thousand times its size.
	maxGrep = 4096
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
		conn.Close()
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
		if clients.Add(1) > maxClients {
			clients.Add(-1)
			go refuse(c, ipc.Errorf(ipc.ErrUnavailable, "zinit-server has %d clients, the most it serves at a time", maxClients))
			continue
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

// client is one connection; its requests are answered by goroutines of their
// own, so that a follower does not hold up the rest.
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
	mute := time.AfterFunc(stall, conn.Close) // who connects has something to say
	_, err := ipc.ReadHello(conn, ipc.RoleClient)
	mute.Stop()
	if err != nil {
		hangUp(conn, err)
		return
	}
	conn.Send(ipc.KindHello, ipc.Hello{Protocol: ipc.Protocol, Role: ipc.RoleSupervisor, Version: version.Version})
	c := &client{s: s, conn: conn, open: map[uint64]context.CancelFunc{}}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for {
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
			go c.answer(rctx, r)
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
	if cred.Uid == 0 || int(cred.Uid) == os.Getuid() {
		return nil
	}
	if s.opts.socketGroup != "" {
		if int(cred.Gid) == s.opts.socketGID {
			return nil
		}
		if u, err := user.LookupId(strconv.Itoa(int(cred.Uid))); err == nil {
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
	return m.run(c, ctx, r)
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
		return p, ipc.Errorf(ipc.ErrInvalid, "cannot read the parameters of %s: %v", r.Method, err)
	}
	return p, nil
}

// items sends a list as a stream.
func items[T any](c *client, r ipc.Request, list []T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
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

func list(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.NamesParams](r)
	if err != nil {
		return nil, err
	}
	var out []ipc.Service
	err = c.s.in(ctx, func() {
		for _, n := range c.s.core.Names() {
			v, _ := c.s.viewOf(n)
			if (p.State == "" || v.State == p.State) && (p.Class == "" || v.Class == p.Class) {
				out = append(out, v)
			}
		}
	})
	return items(c, r, out, err)
}

func status(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.NamesParams](r)
	if err != nil {
		return nil, err
	}
	var out []ipc.Service
	var refused *ipc.Error
	err = c.s.in(ctx, func() {
		var names []string
		if names, refused = c.s.known(p.Names); refused != nil {
			return
		}
		for _, n := range names {
			v, _ := c.s.viewOf(n)
			out = append(out, v)
		}
	})
	return items(c, r, out, cmpError(refused, err))
}

func wish(op core.Op) method {
	return func(c *client, ctx context.Context, r ipc.Request) (any, error) {
		p, err := params[ipc.NamesParams](r)
		if err != nil {
			return nil, err
		}
		moved, err := c.s.wish(ctx, op, p)
		return items(c, r, moved, err)
	}
}

func wait(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.NamesParams](r)
	if err != nil {
		return nil, err
	}
	out, err := c.s.wait(ctx, p)
	return items(c, r, out, err)
}

func kill(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.NameParams](r)
	if err != nil {
		return nil, err
	}
	sig := int(unix.SIGTERM)
	if p.Signal != "" {
		if sig, err = spec.SignalNumber(p.Signal); err != nil {
			return nil, ipc.Errorf(ipc.ErrInvalid, "%v", err)
		}
	}
	var refused *ipc.Error
	err = c.s.in(ctx, func() {
		v, ok := c.s.core.View(c.s.now(), p.Name)
		switch {
		case !ok:
			refused = c.s.notFound(p.Name)
		case v.Pid == 0:
			refused = ipc.Errorf(ipc.ErrFailed, "cannot signal %s: it has no process, it is %s", p.Name, v.State)
		default:
			c.s.step(core.Kill{Name: p.Name, Signal: sig})
		}
	})
	return empty{}, cmpError(refused, err)
}

func reload(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.ReloadParams](r)
	if err != nil {
		return nil, err
	}
	return c.s.reload(ctx, p.DryRun)
}

func add(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.ConfigParams](r)
	if err != nil {
		return nil, err
	}
	moved, err := c.s.add(ctx, p)
	return items(c, r, moved, err)
}

func set(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.ConfigParams](r)
	if err != nil {
		return nil, err
	}
	moved, err := c.s.set(ctx, p)
	return items(c, r, moved, err)
}

func remove(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.NameParams](r)
	if err != nil {
		return nil, err
	}
	moved, err := c.s.remove(ctx, []string{p.Name}, ipc.NamesParams{})
	return items(c, r, moved, err)
}

// users returns the names of all services of the class user.
func (s *server) users() []string {
	var names []string
	for _, n := range s.core.Names() {
		if s.core.Spec(n).Class == spec.ClassUser && n != mainService {
			names = append(names, n)
		}
	}
	return names
}

// bulk does something to all services of the class user.
func bulk(do func(s *server, ctx context.Context, p ipc.NamesParams) ([]ipc.Moved, error)) func(*client, context.Context, ipc.Request) (any, error) {
	return func(c *client, ctx context.Context, r ipc.Request) (any, error) {
		p, err := params[ipc.NamesParams](r)
		if err != nil {
			return nil, err
		}
		if err := c.s.in(ctx, func() { p.Names = c.s.users() }); err != nil {
			return nil, err
		}
		if len(p.Names) == 0 {
			return stream{}, nil
		}
		moved, err := do(c.s, ctx, p)
		return items(c, r, moved, err)
	}
}

func startAll(s *server, ctx context.Context, p ipc.NamesParams) ([]ipc.Moved, error) {
	err := s.in(ctx, func() {
		p.Names = slices.DeleteFunc(p.Names, func(n string) bool {
			sp := s.core.Spec(n)
			return sp == nil || sp.Status == spec.StatusIgnore // only by its own name
		})
	})
	if err != nil || len(p.Names) == 0 {
		return nil, err
	}
	return s.wish(ctx, core.OpStart, p)
}

func stopAll(s *server, ctx context.Context, p ipc.NamesParams) ([]ipc.Moved, error) {
	return s.wish(ctx, core.OpStop, p)
}

func deleteAll(s *server, ctx context.Context, p ipc.NamesParams) ([]ipc.Moved, error) {
	return s.remove(ctx, p.Names, p)
}

func why(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.NameParams](r)
	if err != nil {
		return nil, err
	}
	var w ipc.Why
	var refused *ipc.Error
	err = c.s.in(ctx, func() {
		if c.s.core.Spec(p.Name) == nil {
			refused = c.s.notFound(p.Name)
			return
		}
		w = c.s.why(p.Name)
	})
	return w, cmpError(refused, err)
}

func tree(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.NameParams](r)
	if err != nil {
		return nil, err
	}
	var out []ipc.Tree
	var refused *ipc.Error
	err = c.s.in(ctx, func() {
		if p.Name != "" && c.s.core.Spec(p.Name) == nil {
			refused = c.s.notFound(p.Name)
			return
		}
		out = c.s.trees(p.Name, p.Reverse)
	})
	return items(c, r, out, cmpError(refused, err))
}

// query turns parameters into a query of the log store.
func (c *client) query(ctx context.Context, r ipc.Request) (logs.Query, error) {
	p, err := params[ipc.LogsParams](r)
	if err != nil {
		return logs.Query{}, err
	}
	q := logs.Query{Lines: p.Lines}
	switch p.Stream {
	case "":
	case logs.Stdout.String():
		q.Streams = []logs.Stream{logs.Stdout}
	case logs.Stderr.String():
		q.Streams = []logs.Stream{logs.Stderr}
	default:
		return q, ipc.Errorf(ipc.ErrInvalid, "there is no stream %q, only stdout and stderr", p.Stream)
	}
	if p.Since != nil {
		q.Since = time.Time(*p.Since)
	}
	if len(p.Grep) > maxGrep {
		return q, ipc.Errorf(ipc.ErrInvalid, "cannot use an expression of %d bytes, only up to %d", len(p.Grep), maxGrep)
	}
	if p.Grep != "" {
		re, err := regexp.Compile(p.Grep)
		if err != nil {
			return q, ipc.Errorf(ipc.ErrInvalid, "cannot use the expression: %v", err)
		}
		q.Grep = re.Match
	}
	var refused *ipc.Error
	previous := map[string]uint64{}
	err = c.s.in(ctx, func() {
		if len(p.Names) > 0 {
			q.Services, refused = c.s.known(p.Names)
		}
		for _, n := range c.s.core.Names() {
			v, _ := c.s.core.View(c.s.now(), n)
			previous[n] = uint64(v.PrevMain)
		}
	})
	if p.Previous {
		q.Runs = func(service string) (first, last uint64) { return previous[service], previous[service] }
	}
	return q, cmpError(refused, err)
}

func (c *client) sendLine(r ipc.Request, l logs.Line) error {
	out := ipc.LogLine{Service: l.Service, Missed: l.Missed}
	if l.Missed == 0 {
		at := ipc.Time(l.Time)
		out.Time, out.Stream, out.Text, out.Partial = &at, l.Stream.String(), string(l.Text), l.Partial
	}
	if err := c.conn.Send(ipc.KindItem, ipc.Item{ID: r.ID, Item: out}); err != nil {
		return err
	}
	return c.conn.WaitDrained()
}

func logsGet(c *client, ctx context.Context, r ipc.Request) (any, error) {
	q, err := c.query(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := c.drain(ctx, q.Services); err != nil {
		return nil, err
	}
	err = c.s.logs.Tail(q, func(l logs.Line) error { return c.sendLine(r, l) })
	return stream{}, err
}

// drain returns when what services have printed by now is stored, nil for all
// of them: the end of a service may be known before its last words are.
func (c *client) drain(ctx context.Context, services []string) error {
	var runs []core.RunID
	err := c.s.in(ctx, func() {
		for end, name := range c.s.pipes {
			if services == nil || slices.Contains(services, path.Base(name)) {
				runs = append(runs, end.run)
			}
		}
	})
	for _, run := range runs {
		c.s.logs.Drain(uint64(run))
	}
	return err
}

func logsFollow(c *client, ctx context.Context, r ipc.Request) (any, error) {
	q, err := c.query(ctx, r)
	if err != nil {
		return nil, err
	}
	err = c.s.logs.Follow(ctx, q, func(l logs.Line) error { return c.sendLine(r, l) })
	if ctx.Err() != nil {
		return stream{}, nil // cancelled, as followers are
	}
	return stream{}, err
}
