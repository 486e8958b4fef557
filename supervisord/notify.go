package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/failpoint"
	"github.com/threefoldtech/zinit/common/sdnotify"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// Readiness that services tell of: a datagram socket for each run with
// ready = "notify", a pipe for each with ready = "fd". Their descriptors are
// stored with pid1, so that nothing said while there is no supervisor is lost.
// A datagram is peeked, stepped and saved, and only then consumed.

func notifyName(run core.RunID) string { return "notify/" + strconv.FormatUint(uint64(run), 10) }
func readyName(run core.RunID) string  { return "ready/" + strconv.FormatUint(uint64(run), 10) }

// notifySocket is the readiness channel of one run.
type notifySocket struct {
	run   core.RunID
	fd    int
	sock  bool // a socket, else a pipe
	ended bool // a pipe that is empty and has no writer any more
	n     *notifier
}

func (s *notifySocket) name() string {
	if s.sock {
		return notifyName(s.run)
	}
	return readyName(s.run)
}

// notifier waits on all readiness channels. Its poll is waited on by one goroutine,
// which reports each channel once until it is armed again; everything else belongs
// to the loop.
type notifier struct {
	dir     string
	poll    *notifyPoll
	sockets map[core.RunID]*notifySocket
	inbox   chan<- any
}

func newNotifier(dir string, inbox chan<- any) (*notifier, error) {
	poll, err := newNotifyPoll()
	if err != nil {
		return nil, fmt.Errorf("cannot wait for notify sockets: %w", err)
	}
	return &notifier{dir: dir, poll: poll, sockets: map[core.RunID]*notifySocket{}, inbox: inbox}, nil
}

// waitLoop reports readable channels.
func (n *notifier) waitLoop() {
	for {
		runs, err := n.poll.wait()
		if err != nil {
			return
		}
		for _, run := range runs {
			n.inbox <- readable{run}
		}
	}
}

// readable says that a run has something to say.
type readable struct{ run core.RunID }

// listen makes the socket of a run. Its path is short, a run id, because a
// socket's path ends at 107 bytes.
func (n *notifier) listen(run core.RunID, cred *ipc.Cred, k *keeper) error {
	if n.sockets[run] != nil {
		return nil // ordered again after a crash
	}
	path := n.path(run)
	fd, err := newSocket(unix.AF_UNIX, unix.SOCK_DGRAM)
	if err != nil {
		return fmt.Errorf("cannot make its notify socket: %w", err)
	}
	os.Remove(path)
	// Services of other users reach their sockets through it; the names are
	// no secret, each socket belongs to its user.
	os.Mkdir(n.dir, 0o711) // binding says what is wrong
	os.Chmod(n.dir, 0o711) // which the umask, of today or of another start, may have narrowed
	if err = bindNotify(fd, path, cred); err == nil {
		err = k.store(notifyName(run), fd)
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("cannot make its notify socket %s: %w", path, err)
	}
	n.add(run, fd, true)
	return nil
}

func (n *notifier) path(run core.RunID) string {
	return n.dir + "/" + strconv.FormatUint(uint64(run), 10)
}

// mend makes the sockets anew whose names were removed, for the users that the
// main processes have: leader returns their pids.
func (n *notifier) mend(k *keeper, leader func(core.RunID) int, put func(what, path string, err error)) {
	for run, s := range n.sockets {
		if _, err := os.Lstat(n.path(run)); !s.sock || !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		uid, gid, err := userOf(leader(run))
		if err != nil {
			continue // it has ended, or is about to begin
		}
		delete(n.sockets, run) // what was said to it and not heard yet is lost
		unix.Close(s.fd)
		put("a notify socket", n.path(run), n.listen(run, &ipc.Cred{UID: uid, GID: gid}, k))
	}
}

// add takes over the channel of a run.
func (n *notifier) add(run core.RunID, fd int, sock bool) {
	if old := n.sockets[run]; old != nil {
		unix.Close(old.fd)
	}
	unix.SetNonblock(fd, true)
	s := &notifySocket{run: run, fd: fd, sock: sock, n: n}
	n.sockets[run] = s
	n.poll.add(s)
}

// remove closes the channel of a run and returns the name that it is stored
// under, if it had one.
func (n *notifier) remove(run core.RunID) (name string, ok bool) {
	s := n.sockets[run]
	if s == nil {
		return "", false
	}
	delete(n.sockets, run)
	unix.Close(s.fd)
	if s.sock {
		os.Remove(n.dir + "/" + strconv.FormatUint(uint64(run), 10))
	}
	return s.name(), true
}

// saying is what a run has said: the message at the head of its channel.
type saying struct {
	socket *notifySocket
	msg    sdnotify.Message
	bad    bool // it cannot be read, and says nothing
	pid    int  // of the sender
	uid    uint32
}

// read takes a datagram, of which the end may have been cut off.
func (say *saying) read(b []byte, cut bool) {
	msg, ok := sdnotify.Parse(b)
	if say.bad = !ok || cut || len(b) > sdnotify.MaxSize; !say.bad {
		say.msg = msg
	}
}

// peek looks at the next message of a channel without taking it.
func (s *notifySocket) peek() (saying, bool) {
	if !s.sock {
		return s.peekPipe()
	}
	return s.peekSocket()
}

// take consumes the message that was peeked.
func (s *notifySocket) take() {
	var b [512]byte
	for {
		var err error
		if s.sock {
			_, _, _, _, err = unix.Recvmsg(s.fd, b[:1], nil, unix.MSG_DONTWAIT)
		} else {
			_, err = unix.Read(s.fd, b[:])
		}
		if err != unix.EINTR {
			return
		}
	}
}

// belongs says whether a sender is part of a run: its session is the one that
// the leader began, or the leader is among its ancestors. One that has gone
// since counts when its uid fits.
func (say saying) belongs(leader int, uid uint32) bool {
	if say.pid == -1 {
		return true
	}
	if sid, err := unix.Getsid(say.pid); err == nil && sid == leader {
		return true
	} else if err == unix.ESRCH {
		return say.uid == uid
	}
	for pid, n := say.pid, 0; pid > 1 && n < 64; n++ {
		if pid == leader {
			return true
		}
		st, err := readStat(pid)
		if err != nil {
			return say.uid == uid && n == 0
		}
		pid = st.ppid
	}
	return false
}

// heard is the most that one channel may say in one turn of the loop.
const heard = 64

// listenTo steps the core with what a run has said, saving each message before
// it is consumed.
func (s *server) listenTo(sock *notifySocket) {
	if leader, ok := s.core.Leader(sock.run); ok && leader == 0 {
		return // it was quicker than pid1's news of it, with which onSpawned listens
	}
	for range heard {
		say, ok := sock.peek()
		if !ok {
			break
		}
		if leader, ok := s.core.Leader(sock.run); ok && say.belongs(leader, sock.owner()) {
			if say.bad {
				s.log.Warn(fmt.Sprintf("a message to NOTIFY_SOCKET is not heard: it has more than %d bytes, or a NUL", sdnotify.MaxSize), "run", sock.run, "pid", say.pid)
			}
			for _, ev := range say.events() {
				s.step(ev)
			}
			failpoint.Hit("peeked")
			s.save()
			failpoint.Hit("heard")
		} else if ok {
			s.log.Warn("a process that is no part of the service spoke for it: not heard", "run", sock.run, "pid", say.pid, "uid", say.uid)
		}
		sock.take()
		failpoint.Hit("consumed")
	}
	if sock.ended {
		// Armed again, it would be reported for ever.
		s.dropRunFds(sock.run)
		return
	}
	s.notify.poll.arm(sock)
}

// unheard is what services have said while there was no supervisor. It is
// peeked at, all of it, so that it counts before a deadline is judged, and
// consumed when it is saved. leaders are the main processes by run, 0 where
// pid1 is about to tell: what such a run says waits for that (see listenTo).
func (n *notifier) unheard(leaders map[core.RunID]int) (events []core.Event, consume func()) {
	counts := map[*notifySocket]int{}
	for _, sock := range n.sockets {
		leader, alive := leaders[sock.run]
		if alive && leader == 0 {
			continue
		}
		further := sock.peekFurther(true)
		for range heard {
			say, ok := sock.peek()
			if !ok {
				break
			}
			counts[sock]++
			if alive && say.belongs(leader, sock.owner()) {
				events = append(events, say.events()...)
			}
			if !further {
				break
			}
		}
		sock.peekFurther(false)
	}
	return events, func() {
		for sock, n := range counts {
			for range n {
				sock.take()
			}
		}
	}
}

// events are what the core learns from a saying.
func (say saying) events() []core.Event {
	n := core.Notify{
		Run: say.socket.run, Status: say.msg.Status, Alive: say.msg.Watchdog, Trigger: say.msg.Trigger,
		Extend: core.Time(say.msg.Extend),
	}
	if pid := say.msg.MainPid; pid != 0 {
		n.MainPid, n.MainStart = pid, startTime(pid)
	}
	if say.msg.Ready {
		return []core.Event{n, core.Ready{Run: say.socket.run}}
	}
	return []core.Event{n}
}

// listenToAll hears what everybody has said by now, before a deadline is
// judged.
func (s *server) listenToAll() {
	for _, sock := range s.notify.sockets {
		s.listenTo(sock)
	}
}

// owner is the user that a socket was made for.
func (s *notifySocket) owner() uint32 {
	var st unix.Stat_t
	if err := unix.Stat(s.n.dir+"/"+strconv.FormatUint(uint64(s.run), 10), &st); err != nil {
		return uint32(os.Getuid())
	}
	return st.Uid
}

// tellManager says by sd_notify(3) how zinit itself is, to a systemd, podman or
// zinit that it runs under and that wants to hear of it. The socket may have an
// abstract name, @name.
func (s *server) tellManager(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	fd, err := newSocket(unix.AF_UNIX, unix.SOCK_DGRAM)
	if err == nil {
		defer unix.Close(fd)
		err = unix.Sendto(fd, []byte(state), unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		s.log.Warn("cannot tell the service manager how zinit is", "socket", path, "message", state, "error", err)
	}
}
