package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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
		var err error
		if s.paths.RuntimeDir, err = dirOf(fd); err != nil {
			return fmt.Errorf("cannot tell where the runtime directory is: %w", err)
		}
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
	if had := s.store.file != nil; s.store.misplaced() {
		s.saveAll(nil)
		if had { // else there was no room for it
			put("the saved state", s.store.path, s.store.failed)
		}
	}
	s.watch.lookAt(dir, s.paths.Socket)
}
