package client

import (
	"context"
	"time"

	"github.com/threefoldtech/zinit/ipc"
)

// Logs calls line for each of the stored lines, oldest first.
func (c *Client) Logs(ctx context.Context, params ipc.LogsParams, line func(ipc.LogLine) error) error {
	return c.logs(ctx, "logs.get", params, line, func(*progress) ipc.LogsParams { return params })
}

// FollowLogs calls line for the stored lines and then for each as it is
// written, until the context ends, or without an error when all services that
// params names have been removed. A notice of missed lines comes in place of
// lines that this caller was too slow for. When the supervisor is replaced, it
// goes on after the last line that it has seen of each stream.
func (c *Client) FollowLogs(ctx context.Context, params ipc.LogsParams, line func(ipc.LogLine) error) error {
	begin := time.Now()
	return c.logs(ctx, "logs.follow", params, line, func(seen *progress) ipc.LogsParams {
		next := params
		var since ipc.Time
		switch {
		case !seen.oldest.IsZero():
			// The server chose where to begin, and lines come by time: from the
			// first one on, all are wanted.
			since = ipc.Time(later(seen.oldest, seen.newest.Add(-overlap)))
		case params.Lines == 0:
			since = ipc.Time(begin)
		default:
			return next // as if it had been asked for now
		}
		next.Lines, next.Since = -1, &since
		return next
	})
}

// overlap is how far behind the newest line that has come another stream's
// line may be which has not: lines are in order within a stream only.
const overlap = 10 * time.Second

// logs is one of the two methods, asked again as resume says.
func (c *Client) logs(ctx context.Context, method string, params ipc.LogsParams, line func(ipc.LogLine) error, resume func(*progress) ipc.LogsParams) error {
	seen := &progress{streams: map[stream]*position{}}
	return again(ctx, func() error {
		err := c.Stream(ctx, method, params, func(item Item) error {
			var l ipc.LogLine
			if err := item.Decode(&l); err != nil {
				return err
			}
			if seen.repeats(l) {
				return nil
			}
			return line(l)
		})
		params = resume(seen)
		seen.rewind()
		return err
	})
}

// progress is which lines the caller has had, so that an attempt after the
// first can leave them out. Lines have the time of the chunk that they came
// in, so a time stands for several, which keep their order.
type progress struct {
	oldest, newest time.Time
	streams        map[stream]*position
}

type stream struct{ service, name string }

// position is the time of the last line of a stream and how many lines in a
// row had it.
type position struct {
	at  time.Time
	had int
	// behind says that this attempt has not come up to here yet; skip is how
	// many lines of that time are still to be left out. Only then are times
	// compared: a clock that was set back loses no line.
	behind bool
	skip   int
}

// repeats takes note of a line and says whether it has been had before.
func (p *progress) repeats(l ipc.LogLine) bool {
	if l.Time == nil {
		return false
	}
	at, key := time.Time(*l.Time), stream{l.Service, l.Stream}
	pos := p.streams[key]
	if pos == nil {
		pos = &position{}
		p.streams[key] = pos
	}
	if pos.behind {
		if at.Before(pos.at) {
			return true
		}
		if at.Equal(pos.at) && pos.skip > 0 {
			pos.skip--
			return true
		}
		pos.behind = false
	}
	if !at.Equal(pos.at) {
		pos.at, pos.had = at, 0
	}
	pos.had++
	if p.oldest.IsZero() || at.Before(p.oldest) {
		p.oldest = at
	}
	p.newest = later(p.newest, at)
	return false
}

// rewind prepares for an attempt that tells of the same lines again.
func (p *progress) rewind() {
	for _, pos := range p.streams {
		pos.behind, pos.skip = true, pos.had
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
