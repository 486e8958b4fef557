package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/sdnotify"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// notifyPoll waits with epoll(7), and has what it takes to look at channels.
type notifyPoll struct {
	epoll   int
	scratch [2]int // a pipe for peekPipe
	events  [64]unix.EpollEvent
	runs    []core.RunID
}

func newNotifyPoll() (*notifyPoll, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	p := &notifyPoll{epoll: epoll}
	if err := unix.Pipe2(p.scratch[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	return p, nil
}

// wait returns runs whose channels are readable, until it is called again.
func (p *notifyPoll) wait() ([]core.RunID, error) {
	n, err := unix.EpollWait(p.epoll, p.events[:], -1)
	if err != nil && err != unix.EINTR {
		return nil, err
	}
	runs := p.runs[:0]
	for _, ev := range p.events[:max(n, 0)] {
		runs = append(runs, core.RunID(uint64(uint32(ev.Fd))|uint64(uint32(ev.Pad))<<32))
	}
	p.runs = runs
	return runs, nil
}

// add reports a channel when it is readable, arm does so once more.
func (p *notifyPoll) add(s *notifySocket) { p.control(s, unix.EPOLL_CTL_ADD) }
func (p *notifyPoll) arm(s *notifySocket) { p.control(s, unix.EPOLL_CTL_MOD) }

func (p *notifyPoll) control(s *notifySocket, op int) {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(s.run), Pad: int32(uint64(s.run) >> 32)}
	unix.EpollCtl(p.epoll, op, s.fd, &ev)
}

// bindNotify gives a notify socket its name, for the user of a service alone. The
// kernel is to tell who sends to it.
func bindNotify(fd int, path string, cred *ipc.Cred) error {
	err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1), unix.Fchmod(fd, 0o600))
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil && cred != nil {
		err = os.Chown(path, int(cred.UID), int(cred.GID))
	}
	return err
}

// peekFurther has each peek go on behind the one before (socket(7)), or at the
// beginning again, and says whether it does: a pipe says one thing.
func (s *notifySocket) peekFurther(on bool) bool {
	if !s.sock {
		return false
	}
	off := -1
	if on {
		off = 0
	}
	unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, off)
	return on
}

func (s *notifySocket) peekSocket() (saying, bool) {
	for {
		var b [sdnotify.MaxSize + 1]byte
		oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(16*4))
		c, oobn, flags, _, err := unix.Recvmsg(s.fd, b[:], oob, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return saying{}, false
		}
		say := saying{socket: s}
		msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for _, m := range msgs {
			if cred, err := unix.ParseUnixCredentials(&m); err == nil {
				say.pid, say.uid = int(cred.Pid), cred.Uid
			}
			// A descriptor that comes along is a barrier, or nothing that we
			// keep: closing it is the answer.
			if fds, err := unix.ParseUnixRights(&m); err == nil {
				for _, fd := range fds {
					unix.Close(fd)
				}
			}
		}
		say.read(b[:c], flags&unix.MSG_TRUNC != 0)
		return say, true
	}
}

// peekPipe looks for the newline by which s6's convention says ready. tee(2)
// copies what is in the pipe and leaves it there.
func (s *notifySocket) peekPipe() (saying, bool) {
	for {
		var b [512]byte
		n, err := unix.Tee(s.fd, s.n.poll.scratch[1], len(b), unix.SPLICE_F_NONBLOCK)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			s.ended = err == nil
			return saying{}, false
		}
		got, _ := unix.Read(s.n.poll.scratch[0], b[:n])
		if bytes.IndexByte(b[:max(got, 0)], '\n') >= 0 {
			return saying{socket: s, msg: sdnotify.Message{Ready: true}, pid: -1}, true
		}
		s.take()
	}
}
