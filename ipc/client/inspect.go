package client

import (
	"context"
	"strings"

	"github.com/threefoldtech/zinit/ipc"
)

// Events calls event for each change of a state that the server has kept,
// oldest first, and with follow for each that comes, until the context ends.
// When the supervisor is replaced, it goes on after the last one that it has
// seen. An event with Missed comes in place of those that this caller was too
// slow for.
func (c *Client) Events(ctx context.Context, follow bool, event func(ipc.Event) error) error {
	params := ipc.EventsParams{Follow: follow}
	return again(ctx, func() error {
		return c.Stream(ctx, "events.subscribe", params, func(item Item) error {
			var e ipc.Event
			if err := item.Decode(&e); err != nil {
				return err
			}
			if e.Missed > 0 {
				params.After += e.Missed
			} else {
				params.After = e.Seq
			}
			return event(e)
		})
	})
}

// Stats returns what services use, sorted by name; without names, of those
// that have processes. It takes a fifth of a second, to see how busy they are.
func (c *Client) Stats(ctx context.Context, names ...string) ([]ipc.Stats, error) {
	return list[ipc.Stats](ctx, c, "service.stats", ipc.NamesParams{Names: names})
}

// Boot returns how the services that were ever wanted came up for the first
// time.
func (c *Client) Boot(ctx context.Context) ([]ipc.BootService, error) {
	return list[ipc.BootService](ctx, c, "service.boot", nil)
}

// Metrics returns what monitoring wants to know, as OpenMetrics text.
func (c *Client) Metrics(ctx context.Context) (string, error) {
	parts, err := list[struct {
		Text string `msgpack:"text"`
	}](ctx, c, "system.metrics", nil)
	var all strings.Builder
	for _, p := range parts {
		all.WriteString(p.Text)
	}
	return all.String(), err
}

// Incidents returns the last failures of a service, or of all where name is
// empty, oldest first.
func (c *Client) Incidents(ctx context.Context, name string) ([]ipc.Incident, error) {
	return list[ipc.Incident](ctx, c, "service.incidents", ipc.NameParams{Name: name})
}

// Get returns the effective configuration of a service, with what is in secret
// files only where reveal is set.
func (c *Client) Get(ctx context.Context, name string, reveal bool) (ipc.Config, error) {
	return get[ipc.Config](ctx, c, "service.get", ipc.GetParams{Name: name, Reveal: reveal})
}

// Discover lists the methods of the server.
func (c *Client) Discover(ctx context.Context) ([]ipc.Method, error) {
	return list[ipc.Method](ctx, c, "rpc.discover", nil)
}

// Processes returns the processes of a service as trees.
func (c *Client) Processes(ctx context.Context, name string) ([]ipc.Process, error) {
	parts, err := list[ipc.Process](ctx, c, "debug.procs", ipc.NameParams{Name: name})
	if err != nil {
		return nil, err
	}
	return join(parts), nil
}

// join hangs the trees that did not fit into an item to where they belong.
func join(parts []ipc.Process) []ipc.Process {
	rest := map[int][]ipc.Process{}
	roots := []ipc.Process{}
	open := map[int]bool{} // announced by More
	var announce func(p ipc.Process)
	announce = func(p ipc.Process) {
		if p.More {
			open[p.Pid] = true
		}
		for _, child := range p.Children {
			announce(child)
		}
	}
	for _, p := range parts {
		if open[p.Pid] {
			rest[p.Pid] = append(rest[p.Pid], p.Children...)
		} else {
			roots = append(roots, p)
		}
		announce(p)
	}
	var complete func(list []ipc.Process)
	complete = func(list []ipc.Process) {
		for i := range list {
			p := &list[i]
			p.Children = append(p.Children, rest[p.Pid]...)
			delete(rest, p.Pid)
			p.More = false
			complete(p.Children)
		}
	}
	complete(roots)
	return roots
}

// DebugState returns all that the server holds, in parts. What is in them is
// for people who look for a bug, and may change with each release.
func (c *Client) DebugState(ctx context.Context) ([]map[string]any, error) {
	return list[map[string]any](ctx, c, "debug.state", nil)
}
