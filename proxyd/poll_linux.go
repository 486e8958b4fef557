package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// What poller tells of a descriptor.
const (
	pollIn     = unix.EPOLLIN
	pollOut    = unix.EPOLLOUT
	pollUrgent = unix.EPOLLPRI
	pollLast   = unix.EPOLLRDHUP // the peer has said all
	pollGone   = unix.EPOLLHUP   // and takes no more
	pollError  = unix.EPOLLERR
	// pollOnce is asked for with others: the first of them, and then nothing.
	pollOnce = unix.EPOLLONESHOT
	// edge is what is watched of a socket: every change, once.
	edge = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET
)

// shortIsAll says that what is read of TCP in part is all there is (end.short).
const shortIsAll = true

// poller waits with epoll(7).
type poller struct {
	epoll  int
	woken  int // readable after wake
	events [256]unix.EpollEvent
}

func (p *poller) open() error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("cannot create epoll instance: %w", err)
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return fmt.Errorf("cannot create eventfd: %w", err)
	}
	p.epoll, p.woken = epoll, event
	return nil
}

func (p *poller) shut() {
	unix.Close(p.woken)
	unix.Close(p.epoll)
}

// wake ends a wait, awake takes note of it.
func (p *poller) wake() { unix.Write(p.woken, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (p *poller) awake() {
	var b [8]byte
	unix.Read(p.woken, b[:])
}

// wait returns what has happened, for ms at most, or for ever for -1.
func (p *poller) wait(ms int) []unix.EpollEvent {
	n, err := unix.EpollWait(p.epoll, p.events[:], ms)
	if err != nil && err != unix.EINTR {
		panic(os.NewSyscallError("epoll_wait", err))
	}
	return p.events[:max(n, 0)]
}

func (p *poller) add(fd int, events uint32) error { return p.control(unix.EPOLL_CTL_ADD, fd, events) }

func (p *poller) change(fd int, events uint32) error {
	return p.control(unix.EPOLL_CTL_MOD, fd, events)
}

func (p *poller) remove(fd int) { unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, fd, nil) }

func (p *poller) control(op, fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	return unix.EpollCtl(p.epoll, op, fd, &ev)
}
