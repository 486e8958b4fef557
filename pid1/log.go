package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// logger writes pid1's own log to stderr from a goroutine of its own: whoever
// reads stderr may stop doing so, and nothing must wait for it. What does not
// fit into the queue is counted and said later.
//
// Its lines look as those of package logx do. That brings slog into the link,
// and with it a third of a megabyte that a keeper has no use for.
type logger struct {
	least   level
	queue   chan record
	dropped atomic.Int64
}

type record struct {
	level level
	text  string
	args  []any         // names and values
	done  chan struct{} // closed when all before it is written
}

type level uint8

const (
	levelInfo level = iota
	levelWarn
	levelError
)

// levels are how each is written, and in which colour (ECMA-48).
var levels = [...]struct{ name, colour string }{{"INF", "92"}, {"WRN", "93"}, {"ERR", "91"}}

func newLogger(name string) *logger {
	l := &logger{queue: make(chan record, 64)}
	known := true
	switch strings.ToLower(name) {
	case "", "info", "debug", "trace": // of which it has nothing to say
	case "warn":
		l.least = levelWarn
	case "error":
		l.least = levelError
	default:
		known = false
	}
	_, err := unix.IoctlGetTermios(2, unix.TCGETS)
	go l.write(err == nil, err == nil && os.Getenv("NO_COLOR") == "")
	if !known {
		l.warn(fmt.Sprintf("ZINIT_LOG_LEVEL: unknown log level %q: choose trace, debug, info, warn or error", name))
	}
	return l
}

func (l *logger) write(terminal, colour bool) {
	for r := range l.queue {
		if n := l.dropped.Swap(0); n > 0 {
			lost := record{level: levelWarn, text: "log lines were dropped, because stderr was not read", args: []any{"lines", n}}
			os.Stderr.Write(lost.line(terminal, colour))
		}
		if r.done != nil {
			close(r.done)
			continue
		}
		if r.level >= l.least {
			os.Stderr.Write(r.line(terminal, colour))
		}
	}
}

// line is a record as it is written.
func (r record) line(terminal, colour bool) []byte {
	const faint = "2"
	paint := func(code, text string) string {
		if !colour {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	format := "2006-01-02T15:04:05.000Z07:00"
	if terminal {
		format = time.TimeOnly
	}
	l := levels[r.level]
	b := fmt.Appendf(nil, "%s %s %s", paint(faint, time.Now().Format(format)), paint(l.colour, l.name), r.text)
	args := append([]any{"from", "zinit-pid1"}, r.args...)
	for i := 0; i+1 < len(args); i += 2 {
		b = fmt.Appendf(b, " %s%s", paint(faint, fmt.Sprint(args[i], "=")), quoted(fmt.Sprint(args[i+1])))
	}
	return append(b, '\n')
}

// quoted puts a value into quotes where it would not be seen as one word.
func quoted(value string) string {
	plain := func(c rune) bool { return c != ' ' && c != '=' && c != '"' && strconv.IsPrint(c) }
	if value != "" && strings.IndexFunc(value, func(c rune) bool { return !plain(c) }) < 0 {
		return value
	}
	return strconv.Quote(value)
}

func (l *logger) put(r record) {
	select {
	case l.queue <- r:
	default:
		l.dropped.Add(1)
	}
}

func (l *logger) info(text string, args ...any) {
	l.put(record{level: levelInfo, text: text, args: args})
}

func (l *logger) warn(text string, args ...any) {
	l.put(record{level: levelWarn, text: text, args: args})
}

func (l *logger) error(text string, args ...any) {
	l.put(record{level: levelError, text: text, args: args})
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
