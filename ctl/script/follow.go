package script

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.starlark.net/starlark"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// errEnough ends a stream at the item that the script wanted.
var errEnough = errors.New("enough")

// each calls a function of the script for each item of a stream, until it
// answers with True, and returns that item. The stream has a connection of its
// own: the function may ask the server.
func (s *server) each(th *starlark.Thread, function starlark.Callable, timeout seconds, stream func(context.Context, *client.Client, func(any) error) error) (starlark.Value, error) {
	ctx := s.ctx
	if timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, time.Duration(timeout))
		defer cancel()
		ctx = limited
	}
	var last starlark.Value
	err := func() error {
		c, err := s.Dial(ctx, s.socket)
		if err != nil {
			return err
		}
		defer c.Close()
		return stream(ctx, c, func(item any) error {
			last = value(item)
			answer, err := starlark.Call(th, function, starlark.Tuple{last}, nil)
			if err == nil && answer.Truth() {
				err = errEnough
			}
			return err
		})
	}()
	switch {
	case errors.Is(err, errEnough):
		return last, nil
	case errors.Is(err, context.DeadlineExceeded):
		return nil, ipc.Errorf(ipc.ErrTimeout, "timed out after %v", time.Duration(timeout))
	}
	return starlark.None, err
}

func events(s *server, th *starlark.Thread, c *call) (starlark.Value, error) {
	var after uint64
	var follow starlark.Callable
	var timeout seconds
	if err := c.unpack("after??", &after, "follow??", &follow, "timeout??", &timeout); err != nil {
		return nil, err
	}
	if follow != nil {
		return s.each(th, follow, timeout, func(ctx context.Context, cl *client.Client, each func(any) error) error {
			return cl.Events(ctx, true, func(e ipc.Event) error {
				if e.Missed == 0 && e.Seq <= after {
					return nil
				}
				return each(e)
			})
		})
	}
	var all []ipc.Event
	err := s.ask(timeout, 0, func(ctx context.Context, cl *client.Client) error {
		return cl.Events(ctx, false, func(e ipc.Event) error {
			if e.Seq > after {
				all = append(all, e)
			}
			return nil
		})
	})
	return value(all), err
}

func logs(s *server, th *starlark.Thread, c *call) (starlark.Value, error) {
	var lines, since starlark.Value
	var follow starlark.Callable
	var timeout seconds
	p := ipc.LogsParams{Lines: defaultLines}
	names, _, err := c.names("lines??", &lines, "since??", &since, "grep??", &p.Grep, "stream??", &p.Stream,
		"previous??", &p.Previous, "follow??", &follow, "timeout??", &timeout)
	if err != nil {
		return nil, err
	}
	p.Names = names
	if since != nil {
		if p.Since, err = moment(since); err != nil {
			return nil, fmt.Errorf("%s: since: %w", c.name, err)
		}
		p.Lines = -1
	}
	if lines != nil {
		if p.Lines, err = lineCount(lines); err != nil {
			return nil, fmt.Errorf("%s: lines: %w", c.name, err)
		}
	}
	if follow != nil {
		if p.Previous {
			return nil, fmt.Errorf("%s: the previous run is over, it cannot be followed", c.name)
		}
		return s.each(th, follow, timeout, func(ctx context.Context, cl *client.Client, each func(any) error) error {
			return cl.FollowLogs(ctx, p, func(l ipc.LogLine) error { return each(l) })
		})
	}
	all := []ipc.LogLine{}
	if len(names) == 0 && len(c.args) > 0 { // an empty list is not "all"
		return value(all), nil
	}
	err = s.ask(timeout, 0, func(ctx context.Context, cl *client.Client) error {
		return cl.Logs(ctx, p, func(l ipc.LogLine) error {
			all = append(all, l)
			return nil
		})
	})
	return value(all), err
}

// defaultLines is how many lines there are where neither lines nor since says.
const defaultLines = 100

// lineCount reads a number of lines.
func lineCount(v starlark.Value) (int, error) {
	if text, ok := starlark.AsString(v); ok && text == "all" {
		return -1, nil
	}
	if n, err := starlark.AsInt32(v); err == nil && n >= 0 {
		return n, nil
	}
	return 0, fmt.Errorf(`%s is neither a number nor "all"`, v)
}

// moment reads a duration before now or an RFC 3339 time.
func moment(v starlark.Value) (*ipc.Time, error) {
	var ago seconds
	if ago.Unpack(v) == nil {
		at := ipc.Time(time.Now().Add(-time.Duration(ago)))
		return &at, nil
	}
	text, _ := starlark.AsString(v)
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return nil, fmt.Errorf("%s is neither a duration such as 10m nor a time such as 2026-11-22T18:24:00Z", v)
	}
	return (*ipc.Time)(&at), nil
}
