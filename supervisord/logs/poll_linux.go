package logs

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller waits for many pipes with one epoll instance, whose descriptor is in the
// runtime's own. So the thread that hears of the end of a run by its pipes is the one
// that then hears of it from pid1, and none has to be woken for either.
type poller struct {
	epoll, event int
	ready        syscall.RawConn // of epoll
	file         *os.File        // which closes it
	buf          [256]unix.EpollEvent
}

func newPoller() (*poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot create epoll instance: %w", err)
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("cannot create eventfd: %w", err)
	}
	unix.SetNonblock(epoll, true) // or the runtime would not wait for it
	p := &poller{epoll: epoll, event: event, file: os.NewFile(uintptr(epoll), "epoll")}
	p.ready, err = p.file.SyscallConn()
	if err = errors.Join(err, p.add(event)); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *poller) add(fd int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("cannot watch descriptor %d: %w", fd, err)
	}
	return nil
}

func (p *poller) remove(fd int) { unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, fd, nil) }

// wait blocks until something is ready, or wake is called.
func (p *poller) wait() []unix.EpollEvent {
	var n int
	var err error
	rerr := p.ready.Read(func(epoll uintptr) bool {
		n, err = unix.EpollWait(int(epoll), p.buf[:], 0)
		return n != 0
	})
	if err = errors.Join(rerr, err); err != nil {
		// EBADF, EFAULT, EINVAL: a broken program, not a state of the system.
		panic(os.NewSyscallError("epoll_wait", err))
	}
	return p.buf[:max(n, 0)]
}

// each calls ready for each pipe that is.
func (p *poller) each(events []unix.EpollEvent, ready func(fd int, data bool)) {
	for _, ev := range events {
		if int(ev.Fd) == p.event {
			var b [8]byte
			unix.Read(p.event, b[:])
			continue
		}
		ready(int(ev.Fd), ev.Events&unix.EPOLLIN != 0)
	}
}

func (p *poller) wake() {
	one := [8]byte{1}
	unix.Write(p.event, one[:])
}

func (p *poller) close() {
	unix.Close(p.event)
	p.file.Close()
}

// splice moves up to n bytes that are in the pipe to the file at off, without
// waiting for more; 0 is the end of the pipe.
var splice = func(pipe, file int, off int64, n int) (int, error) {
	m, err := unix.Splice(pipe, nil, file, &off, n, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	return int(m), err
}

// spliceAway moves up to n bytes that are in the pipe to /dev/null, where there
// is one.
func spliceAway(pipe, null, n int) (int, error) {
	if null < 0 {
		return -1, unix.EINVAL
	}
	m, err := unix.Splice(pipe, nil, null, nil, n, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	return int(m), err
}

// enlarge lets the pipe hold n bytes. The kernel refuses it to ordinary users
// whose pipes are at their limit (pipe(7), pipe-user-pages-soft).
func enlarge(pipe, n int) error {
	_, err := unix.FcntlInt(uintptr(pipe), unix.F_SETPIPE_SZ, n)
	return err
}

// fionread asks how many bytes a pipe holds.
const fionread = unix.TIOCINQ
