package main

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// What clients can ask for of services: from parameters to an answer.

func list(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.NamesParams](r)
	if err != nil {
		return nil, err
	}
	var out []ipc.Service
	err = c.s.in(ctx, func() {
		for _, n := range c.s.core.Names() {
			v, _ := c.s.explained(n, false)
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
			v, _ := c.s.explained(n, false)
			out = append(out, v)
		}
	})
	notes := map[string]*string{}
	for i := range out {
		notes[out[i].Name] = &out[i].Note
	}
	c.s.nameLeft(ctx, notes)
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

func boot(c *client, ctx context.Context, r ipc.Request) (any, error) {
	var out []ipc.BootService
	err := c.s.in(ctx, func() { out = c.s.booted() })
	return items(c, r, out, err)
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
	c.s.nameLeft(ctx, map[string]*string{p.Name: &w.Detail})
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
