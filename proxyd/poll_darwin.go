package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// What poller tells of a descriptor.
const (
	pollIn = 1 << iota
	pollOut
	pollUrgent // never told
	pollLast   // the peer has said all
	pollGone   // and takes no more, or was told that this was all
	pollError
	// pollOnce is asked for with others: the first of them, and then nothing.
	pollOnce
	pollEdge
	// edge is what is watched of a socket: every change, once.
	edge = pollIn | pollOut | pollEdge
)

// shortIsAll says that what is read of TCP in part is all there is (end.short), which
// nobody promises.
const shortIsAll = false

// poller waits with kqueue(2).
type poller struct {
	queue  int
	woken  int // readable after wake
	waker  int // the other end of its pipe
	raw    [256]unix.Kevent_t
	events [256]event
}

// event says what has happened to a descriptor.
type event struct {
	Fd     int32
	Events uint32
}

func (p *poller) open() error {
	queue, err := unix.Kqueue()
	if err != nil {
		return fmt.Errorf("cannot create kqueue: %w", err)
	}
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		unix.Close(queue)
		return fmt.Errorf("cannot create pipe: %w", err)
	}
	for _, fd := range pipe {
		unix.SetNonblock(fd, true)
	}
	p.queue, p.woken, p.waker = queue, pipe[0], pipe[1]
	return nil
}

func (p *poller) shut() {
	unix.Close(p.woken)
	unix.Close(p.waker)
	unix.Close(p.queue)
}

// wake ends a wait, awake takes note of it.
func (p *poller) wake() { unix.Write(p.waker, []byte{1}) }

func (p *poller) awake() {
	var b [64]byte
	unix.Read(p.woken, b[:])
}

// wait returns what has happened, for ms at most, or for ever for -1.
func (p *poller) wait(ms int) []event {
	var timeout *unix.Timespec
	if ms >= 0 {
		ts := unix.NsecToTimespec(int64(ms) * int64(time.Millisecond))
		timeout = &ts
	}
	n, err := unix.Kevent(p.queue, nil, p.raw[:], timeout)
	if err != nil && err != unix.EINTR {
		panic(os.NewSyscallError("kevent", err))
	}
	n = max(n, 0)
	for i, ev := range p.raw[:n] {
		in, end := uint32(pollIn), uint32(pollLast)
		if ev.Filter == unix.EVFILT_WRITE {
			in, end = pollOut, pollGone
		}
		if ev.Flags&unix.EV_EOF != 0 {
			in |= end
			if ev.Fflags != 0 { // the error of the socket
				in |= pollError
			}
		}
		p.events[i] = event{int32(ev.Ident), in}
	}
	return p.events[:n]
}

func (p *poller) add(fd int, events uint32) error {
	switch {
	case events&pollEdge != 0:
		if err := p.control(fd, unix.EVFILT_READ, unix.EV_ADD|unix.EV_CLEAR); err != nil {
			return err
		}
		return p.control(fd, unix.EVFILT_WRITE, unix.EV_ADD|unix.EV_CLEAR)
	case events&pollIn == 0:
		return nil
	case events&pollOnce != 0:
		return p.control(fd, unix.EVFILT_READ, unix.EV_ADD|unix.EV_ONESHOT)
	}
	return p.control(fd, unix.EVFILT_READ, unix.EV_ADD)
}

func (p *poller) change(fd int, events uint32) error {
	p.remove(fd)
	return p.add(fd, events)
}

// remove ends what is watched, of which there may be nothing.
func (p *poller) remove(fd int) {
	p.control(fd, unix.EVFILT_READ, unix.EV_DELETE)
	p.control(fd, unix.EVFILT_WRITE, unix.EV_DELETE)
}

func (p *poller) control(fd, filter, flags int) error {
	var ev unix.Kevent_t
	unix.SetKevent(&ev, fd, filter, flags)
	_, err := unix.Kevent(p.queue, []unix.Kevent_t{ev}, nil, nil)
	return err
}
