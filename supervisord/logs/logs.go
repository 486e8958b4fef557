// Package logs keeps what services print. Bytes move from a service's pipe to
// a segment file with splice(2) and are never only in the memory of this
// process: it may be killed at any instant, and a new one that is given the
// same pipes and the same directory goes on without losing or doubling a byte.
//
// The files are the only state. Each service has a folder with a chain of
// segments, each a data file (NNNNNNNN.log, the bytes of both streams as they
// came) and an index file (NNNNNNNN.idx, who wrote which of them and when).
// Readers have cursors of their own on these files and share nothing with the
// writer but a list of segments, so a slow reader delays only itself.
//
// Concurrency: one goroutine, the loop, waits in epoll for all pipes. It, and
// each method that changes something, writes, rotates and deletes under one
// lock. All exported methods may be called from any goroutine, except from
// Options.EOF.
//
// To test: `go test -race ./supervisord/logs`. The test binary starts itself
// as the capturing process and is killed at random moments.
package logs

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// ErrClosed is returned by every method once Close was called.
var ErrClosed = errors.New("log capture is closed")

// MaxLine is the length in bytes up to which a line stays whole.
const MaxLine = 64 << 10

// Stream is the output of a process that a byte came from.
type Stream uint8

// The streams.
const (
	Stdout Stream = iota
	Stderr
)

var streamNames = [...]string{Stdout: "stdout", Stderr: "stderr"}

func (s Stream) String() string {
	if int(s) < len(streamNames) {
		return streamNames[s]
	}
	return fmt.Sprintf("stream %d", uint8(s))
}

// Options of Open.
type Options struct {
	// Dir holds the segments; it is made, with mode 0700, where it is missing.
	Dir string
	// Memory bounds the files of all services together, in bytes of whole
	// pages, as a tmpfs accounts them. 0 = 64 MiB.
	Memory int64
	// PerService bounds the files of one service, likewise. 0 = 8 MiB.
	PerService int64
	// Logger is told of what cannot be stored. nil = slog.Default().
	Logger *slog.Logger
	// EOF is called when the last writer of a pipe has gone and everything is
	// stored. It runs in the loop: it must not block, nor call this package.
	EOF func(run uint64, s Stream)
}

// Line is one line of a service, or a notice that some are missing.
type Line struct {
	// Time is when the last byte of the line was read, to 100 µs.
	Time    time.Time
	Service string
	Run     uint64
	Stream  Stream
	// Text is the line without its \n, valid until yield returns.
	Text []byte
	// Partial says that the line goes on in the next one of the same run and
	// stream: it is longer than MaxLine, or its end has not been written yet.
	Partial bool
	// Missed, when not 0, is a number of lines of the service that are not
	// there (a slow follower, a full disk); the line itself has no text then.
	Missed int64
}

// Query says which lines are wanted.
type Query struct {
	// Services are names; nil = all, also those added while following.
	Services []string
	// Lines is how many of the newest lines of all services together are
	// wanted; negative = all that are kept.
	Lines int
	// Streams are those wanted; nil = both.
	Streams []Stream
	// Since leaves out lines before it, unless it is zero.
	Since time.Time
	// Grep leaves out lines for which it returns false, unless it is nil.
	Grep func(text []byte) bool
	// Runs gives the first and the last wanted run of a service; nil = all.
	Runs func(service string) (first, last uint64)
	// Until ends a Follow, without an error, once it is closed and all that
	// was stored by then is handed out, unfinished lines too. nil = never.
	Until <-chan struct{}
}

func (q *Query) wants(service string) bool {
	if q.Services == nil {
		return true
	}
	for _, name := range q.Services {
		if name == service {
			return true
		}
	}
	return false
}

// filters reports whether q leaves out lines other than by their number.
func (q *Query) filters() bool {
	return q.Streams != nil || !q.Since.IsZero() || q.Grep != nil || q.Runs != nil
}

func (q *Query) match(l Line) bool {
	if l.Missed > 0 {
		return true
	}
	if q.Streams != nil {
		found := false
		for _, s := range q.Streams {
			found = found || s == l.Stream
		}
		if !found {
			return false
		}
	}
	if !q.Since.IsZero() && l.Time.Before(q.Since) {
		return false
	}
	if q.Runs != nil {
		if first, last := q.Runs(l.Service); l.Run < first || l.Run > last {
			return false
		}
	}
	return q.Grep == nil || q.Grep(l.Text)
}
