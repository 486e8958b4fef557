package main

import (
	"container/heap"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// loop serves every proxy and connection in one goroutine: with nothing to
// share there is nothing to lock, and a connection that comes is accepted,
// connected and served without waking anybody.
type loop struct {
	poller
	now     int64     // monotonic, when the events at hand came
	watched []watcher // by descriptor
	alarms  alarms
	busy    []*conn // had more to move than their turn allowed
	turn    []*conn // those whose turn it is
	pipes   pipes
	buffer  []byte // for what is small, and at once written again
	closing []int  // descriptors to close when no event at hand can mean them

	mu       sync.Mutex
	commands []func() // guarded by mu
	stopped  bool     // guarded by mu
}

// watcher is what owns a descriptor.
type watcher interface {
	ready(events uint32)
}

func newLoop() (*loop, error) {
	l := &loop{now: monotonic(), buffer: make([]byte, 64<<10)}
	if err := l.open(); err != nil {
		return nil, err
	}
	if err := l.watch(l.woken, wakeup{l}, pollIn); err != nil {
		l.shut()
		return nil, err
	}
	return l, nil
}

// do has f called by the loop.
func (l *loop) do(f func()) {
	l.mu.Lock()
	l.commands = append(l.commands, f)
	first := len(l.commands) == 1
	l.mu.Unlock()
	if first {
		l.wake()
	}
}

// stop makes run return.
func (l *loop) stop() {
	l.do(func() { l.stopped = true })
}

// wakeup calls what do has left.
type wakeup struct{ l *loop }

func (w wakeup) ready(uint32) {
	w.l.awake()
	w.l.mu.Lock()
	commands := w.l.commands
	w.l.commands = nil
	w.l.mu.Unlock()
	for _, f := range commands {
		f()
	}
}

// run serves until stop is called.
func (l *loop) run() {
	for !l.stopped {
		events := l.wait(l.timeout())
		l.now = monotonic()
		for _, ev := range events {
			if w := l.watched[ev.Fd]; w != nil {
				w.ready(ev.Events)
			}
		}
		l.turn, l.busy = l.busy, l.turn[:0]
		for _, c := range l.turn {
			c.queued = false
			c.pump()
		}
		for len(l.alarms) > 0 && l.alarms[0].alarm().due <= l.now {
			a := l.alarms[0]
			l.clear(a)
			a.ring()
		}
		for _, fd := range l.closing {
			unix.Close(fd)
		}
		l.closing = l.closing[:0]
	}
}

// timeout is how long to wait for events, in ms.
func (l *loop) timeout() int {
	if len(l.busy) > 0 {
		return 0
	}
	if len(l.alarms) == 0 {
		return -1
	}
	ms := (l.alarms[0].alarm().due - monotonic() + 999_999) / 1_000_000
	return int(min(max(ms, 0), 1<<30))
}

// watch has w told of events on fd.
func (l *loop) watch(fd int, w watcher, events uint32) error {
	for len(l.watched) <= fd {
		l.watched = append(l.watched, nil)
	}
	if err := l.add(fd, events); err != nil {
		return fmt.Errorf("cannot watch descriptor %d: %w", fd, err)
	}
	l.watched[fd] = w
	return nil
}

// rewatch changes the events of fd.
func (l *loop) rewatch(fd int, events uint32) {
	if err := l.change(fd, events); err != nil {
		panic(fmt.Errorf("cannot change what is watched of descriptor %d: %w", fd, err))
	}
}

// unwatch ends the events of a socket that stays open, here or in another
// process: closing it would not (epoll(7), "Questions and answers").
func (l *loop) unwatch(fd int) {
	l.remove(fd)
	l.watched[fd] = nil
}

// close closes a watched descriptor when the events at hand are done with: its
// number must not be given to another before.
func (l *loop) close(fd int) {
	l.watched[fd] = nil
	l.closing = append(l.closing, fd)
}

// An alarm is a time at which something is to be done, at most one for each
// owner.
type alarm struct {
	due int64 // as loop.now, 0 = not set
	pos int   // in the heap
}

type ringer interface {
	alarm() *alarm
	ring()
}

// set has r ring at due.
func (l *loop) set(r ringer, due int64) {
	a := r.alarm()
	if a.due != 0 {
		a.due = due
		heap.Fix(&l.alarms, a.pos)
		return
	}
	a.due = due
	heap.Push(&l.alarms, r)
}

func (l *loop) clear(r ringer) {
	if a := r.alarm(); a.due != 0 {
		heap.Remove(&l.alarms, a.pos)
		a.due = 0
	}
}

// alarms is a heap by time.
type alarms []ringer

func (h alarms) Len() int           { return len(h) }
func (h alarms) Less(i, j int) bool { return h[i].alarm().due < h[j].alarm().due }
func (h alarms) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].alarm().pos, h[j].alarm().pos = i, j
}

func (h *alarms) Push(x any) {
	r := x.(ringer)
	r.alarm().pos = len(*h)
	*h = append(*h, r)
}

func (h *alarms) Pop() any {
	r := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return r
}

var began = time.Now()

// monotonic is the time since the program began, in ns: setting the clock does
// not change it.
func monotonic() int64 { return int64(time.Since(began)) }
