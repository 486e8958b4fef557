package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/paths"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// The files of zinit at run time: where they are, and what is done when
// somebody removes them from under it.

// settleIn finds the place of the socket and the runtime directory and takes
// the lock. A supervisor that takes over stays where the one before was,
// whatever has become of the directory, as the descriptors tell that pid1 has
// kept.
func (s *server) settleIn() error {
	if fd, ok := s.keeper.fds["lock"]; ok {
		lock, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			return fmt.Errorf("cannot tell where the runtime directory is: %w", err)
		}
		s.paths.RuntimeDir = filepath.Dir(strings.TrimSuffix(lock, " (deleted)"))
	}
	if fd, ok := s.keeper.fds["listen/ctl"]; ok {
		s.paths.Socket = ipc.ListensOn(fd)
	}
	if s.paths.Socket == "" || s.paths.RuntimeDir == "" {
		p, notice, err := paths.Server(s.opts.socket, s.opts.runtimeDir)
		if err != nil {
			return err
		}
		s.paths = p
		if notice != "" && s.keeper.hello.Restarts == 0 {
			s.log.Warn(notice)
		}
	} else if err := makeRuntimeDir(s.paths.RuntimeDir); err != nil {
		s.log.Error("zinit goes on without its runtime directory", "error", err)
	}
	return s.lock()
}

// lock makes this the one supervisor of its socket. The descriptor stays with
// pid1, so that the lock outlives a crash of the supervisor.
func (s *server) lock() error {
	if fd, ok := s.keeper.take("lock"); ok {
		s.lockFile = os.NewFile(uintptr(fd), "lock")
		return nil
	}
	f, err := claimLock(s.paths)
	if err != nil {
		return err
	}
	s.lockFile = f
	return s.keeper.store("lock", int(f.Fd()))
}

// takeLock opens and locks the lock file beside the control socket's state.
func takeLock(p paths.Paths) (*os.File, error) {
	f, err := os.OpenFile(p.RuntimeDir+"/lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the lock file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, &lockedError{p}
		}
		return nil, fmt.Errorf("cannot lock %s: %w", f.Name(), err)
	}
	return f, nil
}

// lockedError says that another zinit has the lock.
type lockedError struct{ paths.Paths }

func (e *lockedError) Error() string {
	return fmt.Sprintf("another zinit-server has the runtime directory %s of the socket %s: use that one, or start this one with another --socket", e.RuntimeDir, e.Socket)
}

// lastMoments bounds the time between the end of a control socket and that of
// its zinit-pid1, which has the lock.
const lastMoments = 2 * time.Second

// claimLock takes the lock at the start of a zinit. One that has nobody on its
// socket any more is waited for: whoever has seen the end of it may start the
// next at once.
func claimLock(p paths.Paths) (*os.File, error) {
	for end := time.Now().Add(lastMoments); ; time.Sleep(10 * time.Millisecond) {
		f, err := takeLock(p)
		var locked *lockedError
		if !errors.As(err, &locked) || time.Now().After(end) {
			return f, err
		}
		if conn, dialed := ipc.Dial(p.Socket, time.Second); dialed == nil {
			conn.Close()
			return nil, err
		}
	}
}

// mend puts back what somebody has removed from under zinit, and says so. What
// cannot be put back is tried again at the next occasion: when something else
// is removed, at SIGHUP, and when a new supervisor starts.
func (s *server) mend() {
	put := func(what, path string, err error) {
		if err != nil {
			s.log.Error("cannot put back "+what+", which was removed", "path", path, "error", err)
			return
		}
		s.log.Warn(what+" was removed: put back", "path", path)
	}
	gone := func(path string) bool {
		_, err := os.Lstat(path)
		return errors.Is(err, fs.ErrNotExist)
	}
	dir := s.paths.RuntimeDir
	if gone(dir) {
		put("the runtime directory", dir, makeRuntimeDir(dir))
	}
	if path := dir + "/lock"; gone(path) {
		f, err := takeLock(s.paths)
		if err == nil {
			s.lockFile.Close()
			s.lockFile = f
			err = s.keeper.store("lock", int(f.Fd()))
		}
		put("the lock", path, err)
	}
	if gone(s.paths.Socket) {
		put("the control socket", s.paths.Socket, s.listen())
	}
	s.notify.mend(s.keeper, func(run core.RunID) int {
		pid, _ := s.core.Leader(run)
		return pid
	}, put)
	if s.logs.Mend() {
		put("the directory of logs, and what was in it is lost,", dir+"/logs", nil)
	}
	if s.store.misplaced() {
		s.saveAll(nil)
		put("the saved state", s.store.path, s.store.failed)
	}
	s.watch.look(dir, unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVE_SELF)
	s.watch.look(dir+"/logs", unix.IN_DELETE|unix.IN_MOVED_FROM)
	// Of a file that is open, the last name is an attribute that changes.
	s.watch.look(s.paths.Socket, unix.IN_ATTRIB|unix.IN_MOVE_SELF)
}

// watcher tells when files are removed or moved. Nothing else wakes it.
type watcher struct {
	file *os.File // inotify(7), nil where it cannot be had, and at first
}

// watchOver begins to watch, which is not for the short life of one command: to
// close what inotify has watched takes the kernel 10 ms (an SRCU grace period).
func (s *server) watchOver() {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		s.log.Warn("cannot watch over the control socket: if it is removed, SIGHUP brings it back", "error", err)
		return
	}
	s.watch.file = os.NewFile(uintptr(fd), "inotify")
	go s.watch.readLoop(s.watch.file, s.inbox, s.mend)
	s.mend()
}

func (w *watcher) readLoop(file *os.File, inbox chan<- any, mend func()) {
	var b [4096]byte
	for {
		n, err := file.Read(b[:])
		if err != nil {
			return
		}
		if !ownDoing(b[:n]) {
			inbox <- mend
		}
	}
}

// ownDoing says that events, as inotify(7) has them, tell only of the file that
// the state is written to before it gets its name: to mend for that would write
// it once more.
func ownDoing(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		size := binary.NativeEndian.Uint32(events[12:])
		name := events[unix.SizeofInotifyEvent:][:size]
		if string(bytes.TrimRight(name, "\x00")) != "state"+unnamed {
			return false
		}
		events = events[unix.SizeofInotifyEvent+int(size):]
	}
	return true
}

// close lets go of it when zinit is about to end: the kernel takes tens of
// milliseconds to, which the end would wait for.
func (w *watcher) close() {
	if w.file != nil {
		go w.file.Close()
		w.file = nil
	}
}

// look watches the file that has this name now, which may be watched already.
func (w *watcher) look(path string, events uint32) {
	if w.file != nil {
		unix.InotifyAddWatch(int(w.file.Fd()), path, events)
	}
}
