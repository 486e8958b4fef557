package client

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// Filter narrows List; the zero value takes everything.
type Filter struct {
	State ipc.State
	Class string // user, system
}

// List returns the services and targets, sorted by name.
func (c *Client) List(ctx context.Context, filter Filter) ([]ipc.Service, error) {
	return list[ipc.Service](ctx, c, "service.list", ipc.NamesParams{State: filter.State, Class: filter.Class})
}

// Status returns these services, in the order of the names.
func (c *Client) Status(ctx context.Context, names ...string) ([]ipc.Service, error) {
	return list[ipc.Service](ctx, c, "service.status", ipc.NamesParams{Names: names})
}

// Tree returns the tree of what a service requires, or of what requires it
// where reverse is set. Without a name it returns those of all services that
// nothing requires (that require nothing, where reverse is set).
func (c *Client) Tree(ctx context.Context, name string, reverse bool) ([]ipc.Tree, error) {
	return list[ipc.Tree](ctx, c, "service.tree", ipc.NameParams{Name: name, Reverse: reverse})
}

// Why returns the chain of causes for the state of a service.
func (c *Client) Why(ctx context.Context, name string) (ipc.Why, error) {
	return get[ipc.Why](ctx, c, "service.why", ipc.NameParams{Name: name})
}

// Info describes the server as a whole.
func (c *Client) Info(ctx context.Context) (ipc.Info, error) {
	return get[ipc.Info](ctx, c, "system.info", nil)
}

// Ping returns the version of the server.
func (c *Client) Ping(ctx context.Context) (string, error) {
	pong, err := get[struct {
		Version string `msgpack:"version"`
	}](ctx, c, "system.ping", nil)
	return pong.Version, err
}

// Kill sends a signal to the process group of a service: a name with or
// without SIG, or a number; "" is SIGTERM. A signal cannot be taken back or
// told from a second one, so Kill is not repeated: ErrLost means that it may
// or may not have been sent.
func (c *Client) Kill(ctx context.Context, name, signal string) error {
	return c.Call(ctx, "service.kill", ipc.NameParams{Name: name, Signal: signal}, nil)
}

// list collects a stream that only reads, from its beginning in each attempt.
func list[T any](ctx context.Context, c *Client, method string, params any) ([]T, error) {
	all := []T{}
	err := again(ctx, func() error {
		all = all[:0]
		return c.stream(ctx, method, params, func(item Item) error {
			var v T
			err := item.Decode(&v)
			all = append(all, v)
			return err
		}, true)
	})
	return all, err
}

// get is a call that only reads.
func get[T any](ctx context.Context, c *Client, method string, params any) (T, error) {
	var v T
	err := again(ctx, func() error { return c.call(ctx, method, params, &v, true) })
	return v, err
}

// Options are for Start, Stop, Restart and Wait.
type Options struct {
	// NoWait returns once the wish is taken instead of when it is fulfilled.
	NoWait bool
	// Timeout bounds the wait; the error is of kind ipc.ErrTimeout then and
	// says what it was waiting for. 0 is the server's default, 60 s.
	Timeout time.Duration
}

// Start starts services and what they require, and calls moved for each that
// changed its state, in order. It is a wish that stays: asked again after the
// loss of a connection it goes on waiting for the same end. A oneshot that has
// done its work since is not run again.
func (c *Client) Start(ctx context.Context, opt Options, moved func(ipc.Moved), names ...string) error {
	asked := time.Now()
	first := true
	return c.wish(ctx, opt, moved, func() []step {
		if first {
			first = false
			return []step{{"service.start", names}}
		}
		services, _ := c.Status(ctx, names...) // the request gets its error, too
		return startAgain(services, asked, names)
	})
}

// startAgain is what is left of a start that was asked for at that time.
func startAgain(services []ipc.Service, asked time.Time, names []string) []step {
	var left []string
	for _, name := range names {
		if !slices.ContainsFunc(services, func(s ipc.Service) bool {
			return s.Name == name && s.Oneshot && s.Desired == "up" && s.State == ipc.StateExited && s.Exit != nil && time.Time(s.Exit.At).After(asked)
		}) {
			left = append(left, name)
		}
	}
	if len(left) == 0 {
		return nil
	}
	return []step{{"service.start", left}}
}

// Stop stops services and what requires them; otherwise as Start.
func (c *Client) Stop(ctx context.Context, opt Options, moved func(ipc.Moved), names ...string) error {
	return c.wish(ctx, opt, moved, func() []step { return []step{{"service.stop", names}} })
}

// Restart stops and starts services; otherwise as Start.
//
// A restart is not a wish that may be repeated: the second one would restart
// again. The server saves it before it does anything, so once the connection
// is lost there are two cases. A service that runs since before Restart was
// called has not been restarted, and is asked for again; that is harmless where
// the stop has yet to come. For all others the restart is under way or over,
// and what is left of it is the wish that they run: a start.
func (c *Client) Restart(ctx context.Context, opt Options, moved func(ipc.Moved), names ...string) error {
	asked := time.Now()
	first := true
	return c.wish(ctx, opt, moved, func() []step {
		if first {
			first = false
			return []step{{"service.restart", names}}
		}
		// Whatever the error of Status is, the request gets it, too.
		services, _ := c.Status(ctx, names...)
		var old []string
		for _, s := range services {
			if s.State == ipc.StateRunning && s.Since != nil && time.Time(*s.Since).Before(asked) {
				old = append(old, s.Name)
			}
		}
		if len(old) > 0 {
			return []step{{"service.restart", old}, {"service.start", names}}
		}
		return startAgain(services, asked, names)
	})
}

// step is one request of a wish.
type step struct {
	method string
	names  []string
}

// wish asks for the steps until all are answered. A service that is told of
// again with the same state is not told twice.
func (c *Client) wish(ctx context.Context, opt Options, moved func(ipc.Moved), steps func() []step) error {
	limit := newLimit(opt.Timeout)
	told := map[string]ipc.State{}
	attempts := 0
	tell := func(m ipc.Moved) {
		if told[m.Name] != m.To || attempts == 1 {
			told[m.Name] = m.To
			if moved != nil {
				moved(m)
			}
		}
	}
	err := again(ctx, func() error {
		attempts++
		for _, s := range steps() {
			params := ipc.NamesParams{Names: s.names, NoWait: opt.NoWait, TimeoutMS: limit.leftMS()}
			err := c.Stream(ctx, s.method, params, func(item Item) error {
				var m ipc.Moved
				if err := item.Decode(&m); err != nil {
					return err
				}
				tell(m)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if refused := (*ipc.Error)(nil); errors.As(err, &refused) {
		attempts++ // what moved may have been told already
		for _, m := range refused.Moved {
			tell(m)
		}
	}
	return err
}

// Goals of Wait.
const (
	ForRunning  = "running"
	ForExited   = "exited"
	ForHealthy  = "healthy"
	ForInactive = "inactive"
)

// Wait waits until all services have reached a goal, and returns them as they
// are then, sorted by name.
func (c *Client) Wait(ctx context.Context, opt Options, goal string, names ...string) ([]ipc.Service, error) {
	limit := newLimit(opt.Timeout)
	all := []ipc.Service{}
	err := again(ctx, func() error {
		all = all[:0]
		params := ipc.NamesParams{Names: names, For: goal, TimeoutMS: limit.leftMS()}
		return c.Stream(ctx, "service.wait", params, func(item Item) error {
			var s ipc.Service
			err := item.Decode(&s)
			all = append(all, s)
			return err
		})
	})
	return all, err
}

// limit is the end of a wait that several attempts share.
type limit struct{ end time.Time }

func newLimit(timeout time.Duration) limit {
	if timeout <= 0 {
		return limit{}
	}
	return limit{time.Now().Add(timeout)}
}

// leftMS is what is left of it, at least 1 because 0 stands for the default.
func (l limit) leftMS() int64 {
	if l.end.IsZero() {
		return 0
	}
	return max(1, time.Until(l.end).Milliseconds())
}

// Upgrade has the supervisor replaced by the program that is on the disk, and
// returns when that answers. A refusal, because it is not there or could not
// take over, changes nothing.
func (c *Client) Upgrade(ctx context.Context) (ipc.Upgraded, error) {
	u, err := get[ipc.Upgraded](ctx, c, "system.upgrade", nil)
	if err != nil {
		return u, err
	}
	if l, _ := c.current(); l != nil {
		select {
		case <-l.done:
		case <-ctx.Done():
			return u, context.Cause(ctx)
		}
	}
	for {
		info, err := c.Info(ctx)
		switch n := len(info.Replaced); {
		case err != nil:
			return u, err
		case info.ServerRestarts <= u.ServerRestarts: // the one before, still
			continue
		case info.Version != u.To:
			return u, ipc.Errorf(ipc.ErrFailed, "zinit-server is version %s now, expected was %s", info.Version, u.To)
		case n > 0 && info.Replaced[n-1].StateLost:
			return u, ipc.Errorf(ipc.ErrFailed, "zinit-server was replaced, and has lost the saved state: see its log")
		case n > 0:
			u.TookMS = info.Replaced[n-1].TookMS
		}
		return u, nil
	}
}

// Shutdown stops everything and returns when zinit has ended. The init of a
// machine refuses it.
func (c *Client) Shutdown(ctx context.Context) error { return c.end(ctx, "system.shutdown") }

// Poweroff and Reboot stop everything, power the machine off or start it
// again, and return when zinit has ended. Where zinit is not an init they are
// refused; that of a container just ends.
func (c *Client) Poweroff(ctx context.Context) error { return c.end(ctx, "system.poweroff") }

// Reboot is described with Poweroff.
func (c *Client) Reboot(ctx context.Context) error { return c.end(ctx, "system.reboot") }

func (c *Client) end(ctx context.Context, method string) error {
	before, err := c.Info(ctx)
	if err != nil {
		return err
	}
	for {
		err := c.endOnce(ctx, method)
		if !errors.Is(err, ErrLost) && !nobody(err) {
			return err
		}
		// What ended may be one supervisor among others: who still listens is
		// asked again, unless it is another zinit by now.
		_, err = c.connect(ctx, forever, false)
		if nobody(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if now, err := c.Info(ctx); err == nil && now.KeeperPid != before.KeeperPid {
			return nil
		}
	}
}

// nobody says whether an error means that no process has the socket.
func nobody(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
}

// forever leaves the limit to the context: while the last processes end,
// nobody greets.
const forever = 1 << 62

// endOnce asks once and returns the end of the connection that follows.
func (c *Client) endOnce(ctx context.Context, method string) error {
	err := c.Call(ctx, method, nil, nil)
	if refused := (*ipc.Error)(nil); errors.As(err, &refused) && refused.Kind == ipc.ErrShuttingDown {
		err = nil
	}
	if err != nil {
		return err
	}
	l, err := c.current()
	switch {
	case err != nil:
		return err
	case l == nil:
		return ErrLost
	}
	select {
	case <-l.done:
		return l.ended()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
