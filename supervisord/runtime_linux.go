package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// dirOf is the directory of a file that is open, and perhaps removed.
func dirOf(fd int) (string, error) {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	return filepath.Dir(strings.TrimSuffix(path, " (deleted)")), nil
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

// lookAt watches the runtime directory and the socket that are there now, which may
// be watched already.
func (w *watcher) lookAt(dir, socket string) {
	w.look(dir, unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVE_SELF)
	w.look(dir+"/logs", unix.IN_DELETE|unix.IN_MOVED_FROM)
	// Of a file that is open, the last name is an attribute that changes.
	w.look(socket, unix.IN_ATTRIB|unix.IN_MOVE_SELF)
}

func (w *watcher) look(path string, events uint32) {
	if w.file != nil {
		unix.InotifyAddWatch(int(w.file.Fd()), path, events)
	}
}
