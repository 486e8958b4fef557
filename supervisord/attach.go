package main

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/logs"
)

// attachment copies what services print to zinit's own stdout, as
// `TIME NAME | text`. It reads the segments as any follower does: a stdout that
// nobody reads delays no service. One goroutine collects lines, another writes
// as many as there are at a time.
type attachment struct {
	until chan struct{} // closed when there is nothing more to come
	done  chan struct{} // closed when all is written

	mu     sync.Mutex
	cond   *sync.Cond
	buf    []byte
	closed bool
}

// maxAttached is how much may wait to be written, in bytes, before the reader
// of the segments waits, too.
const maxAttached = 256 << 10

// attach starts copying what was printed since then.
func attach(capture *logs.Capture, since time.Time) *attachment {
	a := &attachment{until: make(chan struct{}), done: make(chan struct{})}
	a.cond = sync.NewCond(&a.mu)
	go a.readLoop(capture, since)
	go a.writeLoop()
	return a
}

func (a *attachment) readLoop(capture *logs.Capture, since time.Time) {
	capture.Follow(context.Background(), logs.Query{Lines: -1, Since: since, Until: a.until}, a.add)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.cond.Broadcast()
}

func (a *attachment) add(l logs.Line) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.buf) > maxAttached {
		a.cond.Wait()
	}
	a.buf = append(a.buf, ipc.Time(l.Time).String()...)
	a.buf = append(append(append(a.buf, ' '), l.Service...), " | "...)
	if l.Missed > 0 {
		a.buf = append(a.buf, "(lines are missing: stdout was not read in time)"...)
	}
	a.buf = append(append(a.buf, l.Text...), '\n')
	a.cond.Broadcast()
	return nil
}

func (a *attachment) writeLoop() {
	defer close(a.done)
	var spare []byte
	for {
		a.mu.Lock()
		for len(a.buf) == 0 && !a.closed {
			a.cond.Wait()
		}
		out := a.buf
		a.buf = spare[:0]
		a.cond.Broadcast()
		a.mu.Unlock()
		if len(out) == 0 {
			return
		}
		os.Stdout.Write(out) // nobody could be told of an error
		spare = out
	}
}

// finish writes what was stored by now. A stdout that is not read gets a
// second.
func (a *attachment) finish() {
	if a == nil {
		return
	}
	close(a.until)
	select {
	case <-a.done:
	case <-time.After(time.Second):
	}
}
