package logs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// poller waits for many pipes with one kqueue; its own pipe wakes it.
type poller struct {
	queue int
	pipe  [2]int
	buf   [256]unix.Kevent_t
}

func newPoller() (*poller, error) {
	queue, err := unix.Kqueue()
	if err != nil {
		return nil, fmt.Errorf("cannot create kqueue: %w", err)
	}
	unix.CloseOnExec(queue)
	p := &poller{queue: queue}
	if err := unix.Pipe(p.pipe[:]); err != nil {
		unix.Close(queue)
		return nil, fmt.Errorf("cannot create pipe: %w", err)
	}
	for _, fd := range p.pipe {
		unix.CloseOnExec(fd)
		unix.SetNonblock(fd, true)
	}
	if err := p.add(p.pipe[0]); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *poller) change(fd, flags int) error {
	var ev unix.Kevent_t
	unix.SetKevent(&ev, fd, unix.EVFILT_READ, flags)
	_, err := unix.Kevent(p.queue, []unix.Kevent_t{ev}, nil, nil)
	return err
}

func (p *poller) add(fd int) error {
	if err := p.change(fd, unix.EV_ADD); err != nil {
		return fmt.Errorf("cannot watch descriptor %d: %w", fd, err)
	}
	return nil
}

func (p *poller) remove(fd int) { p.change(fd, unix.EV_DELETE) }

// wait blocks until something is ready, or wake is called.
func (p *poller) wait() []unix.Kevent_t {
	n, err := unix.Kevent(p.queue, nil, p.buf[:], nil)
	if err != nil && err != unix.EINTR {
		panic(os.NewSyscallError("kevent", err))
	}
	return p.buf[:max(n, 0)]
}

// each calls ready for each pipe that is.
func (p *poller) each(events []unix.Kevent_t, ready func(fd int, data bool)) {
	for _, ev := range events {
		if int(ev.Ident) == p.pipe[0] {
			var b [64]byte
			unix.Read(p.pipe[0], b[:])
			continue
		}
		ready(int(ev.Ident), ev.Data > 0)
	}
}

func (p *poller) wake() { unix.Write(p.pipe[1], []byte{1}) }

func (p *poller) close() {
	unix.Close(p.pipe[0])
	unix.Close(p.pipe[1])
	unix.Close(p.queue)
}

// There is no splice: output is always copied.
var splice = func(pipe, file int, off int64, n int) (int, error) { return -1, unix.EINVAL }

func spliceAway(pipe, null, n int) (int, error) { return -1, unix.EINVAL }

// enlarge is not needed: pipes grow by themselves.
func enlarge(pipe, n int) error { return unix.ENOTSUP }

// fionread asks how many bytes a pipe holds.
const fionread = 0x4004667f // <sys/filio.h>
