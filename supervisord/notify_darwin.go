package main

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/sdnotify"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// notifyPoll waits with kqueue(2).
type notifyPoll struct {
	queue  int
	events [64]unix.Kevent_t
	mu     sync.Mutex
	runs   map[int]core.RunID // by descriptor; guarded by mu
}

func newNotifyPoll() (*notifyPoll, error) {
	queue, err := unix.Kqueue()
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(queue)
	return &notifyPoll{queue: queue, runs: map[int]core.RunID{}}, nil
}

// wait returns runs whose channels are readable.
func (p *notifyPoll) wait() ([]core.RunID, error) {
	n, err := unix.Kevent(p.queue, nil, p.events[:], nil)
	if err != nil && err != unix.EINTR {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var runs []core.RunID
	for _, ev := range p.events[:max(n, 0)] {
		runs = append(runs, p.runs[int(ev.Ident)])
	}
	return runs, nil
}

// add reports a channel when it is readable, arm does so once more.
func (p *notifyPoll) add(s *notifySocket) {
	p.mu.Lock()
	p.runs[s.fd] = s.run
	p.mu.Unlock()
	p.arm(s)
}

func (p *notifyPoll) arm(s *notifySocket) {
	var ev unix.Kevent_t
	unix.SetKevent(&ev, s.fd, unix.EVFILT_READ, unix.EV_ADD|unix.EV_ONESHOT)
	unix.Kevent(p.queue, []unix.Kevent_t{ev}, nil, nil)
}

// bindNotify gives a notify socket its name, for the user of a service alone. It gets
// its mode where nobody else comes, since a socket without a name cannot have one.
func bindNotify(fd int, path string, cred *ipc.Cred) error {
	private := filepath.Join(filepath.Dir(path), "new")
	os.Mkdir(private, 0o700) // binding says what is wrong
	bound := filepath.Join(private, filepath.Base(path))
	os.Remove(bound) // of somebody who was killed here
	err := unix.Bind(fd, &unix.SockaddrUnix{Name: bound})
	if err == nil {
		err = os.Chmod(bound, 0o600)
	}
	if err == nil && cred != nil {
		err = os.Chown(bound, int(cred.UID), int(cred.GID))
	}
	if err == nil {
		err = os.Rename(bound, path)
	}
	if err != nil {
		os.Remove(bound)
	}
	return err
}

// peekFurther says that no peek goes on behind the one before: of what a service has
// said while there was no supervisor, all but the first is heard by the loop.
func (*notifySocket) peekFurther(bool) bool { return false }

// senderUnknown is the pid of who may speak for a service as far as can be told: the
// kernel does not say who sends a datagram, only that he may write to the socket,
// which belongs to the user of the service.
const senderUnknown = -1

func (s *notifySocket) peekSocket() (saying, bool) {
	for {
		var b [sdnotify.MaxSize + 1]byte
		c, _, flags, _, err := unix.Recvmsg(s.fd, b[:], nil, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return saying{}, false
		}
		say := saying{socket: s, pid: senderUnknown}
		say.read(b[:c], flags&unix.MSG_TRUNC != 0)
		return say, true
	}
}

// peekPipe looks for the newline by which s6's convention says ready. It is a socket
// (pipeFor of zinit-pid1): what is in a pipe cannot be looked at.
func (s *notifySocket) peekPipe() (saying, bool) {
	for {
		var b [512]byte
		n, _, err := unix.Recvfrom(s.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			s.ended = err == nil
			return saying{}, false
		}
		if bytes.IndexByte(b[:n], '\n') >= 0 {
			return saying{socket: s, msg: sdnotify.Message{Ready: true}, pid: -1}, true
		}
		s.take()
	}
}
