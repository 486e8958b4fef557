package main

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/threefoldtech/zinit/common/logx"
)

// logger writes pid1's own log to stderr from a goroutine of its own: whoever
// reads stderr may stop doing so, and nothing must wait for it. What does not
// fit into the queue is counted and said later.
type logger struct {
	queue   chan record
	dropped atomic.Int64
}

type record struct {
	level slog.Level
	text  string
	args  []any
	done  chan struct{} // closed when all before it is written
}

func newLogger(level string) *logger {
	l := &logger{queue: make(chan record, 64)}
	parsed, err := logx.ParseLevel(level)
	go l.write(logx.New("zinit-pid1", parsed))
	if err != nil {
		l.warn("ZINIT_LOG_LEVEL: " + err.Error())
	}
	return l
}

func (l *logger) write(out *slog.Logger) {
	for r := range l.queue {
		if n := l.dropped.Swap(0); n > 0 {
			out.Warn("log lines were dropped, because stderr was not read", "lines", n)
		}
		if r.done != nil {
			close(r.done)
			continue
		}
		out.Log(context.Background(), r.level, r.text, r.args...)
	}
}

func (l *logger) put(r record) {
	select {
	case l.queue <- r:
	default:
		l.dropped.Add(1)
	}
}

func (l *logger) info(text string, args ...any) {
	l.put(record{level: slog.LevelInfo, text: text, args: args})
}

func (l *logger) warn(text string, args ...any) {
	l.put(record{level: slog.LevelWarn, text: text, args: args})
}

func (l *logger) error(text string, args ...any) {
	l.put(record{level: slog.LevelError, text: text, args: args})
}

// panicked reports a bug and where it is.
func (l *logger) panicked(where string, what any) {
	l.error("a bug in zinit-pid1: "+where+" goes on", "panic", trimmed(fmt.Sprint(what), 512), "stack", trimmed(string(debug.Stack()), 4096))
}

// flush waits a moment until all is written.
func (l *logger) flush() {
	r := record{done: make(chan struct{})}
	l.put(r)
	select {
	case <-r.done:
	case <-time.After(100 * time.Millisecond):
	}
}

// trimmed keeps a message of a panic short.
func trimmed(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return strings.TrimSpace(s)
}
