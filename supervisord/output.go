package main

import (
	"context"
	"regexp"
	"slices"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/logs"
)

// What clients can ask for of the output of services.

// maxGrep is the longest expression for log lines, in bytes: compiled, it may
// take some thousand times its size.
const maxGrep = 4096

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
	var runs []uint64
	err := c.s.in(ctx, func() {
		for run, p := range c.s.pipes {
			if services == nil || slices.Contains(services, p.service) {
				runs = append(runs, uint64(run))
			}
		}
	})
	c.s.logs.Drain(runs...)
	return err
}

func logsFollow(c *client, ctx context.Context, r ipc.Request) (any, error) {
	q, err := c.query(ctx, r)
	if err != nil {
		return nil, err
	}
	if q.Services != nil {
		gone := make(chan struct{})
		q.Until = gone
		if err := c.s.in(ctx, func() { c.s.follows[gone] = q.Services; c.s.endFollows() }); err != nil {
			return nil, err
		}
		defer c.s.in(context.Background(), func() { delete(c.s.follows, gone) })
	}
	err = c.s.logs.Follow(ctx, q, func(l logs.Line) error { return c.sendLine(r, l) })
	if ctx.Err() != nil {
		return stream{}, nil // cancelled, as followers are
	}
	return stream{}, err
}

// endFollows ends those who follow nothing but what has been removed.
func (s *server) endFollows() {
	for gone, names := range s.follows {
		if !slices.ContainsFunc(names, func(n string) bool { return s.core.Spec(n) != nil }) {
			close(gone)
			delete(s.follows, gone)
		}
	}
}
