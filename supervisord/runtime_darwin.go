package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/macos"
)

// dirOf is the directory of a file that is open. Where it is not told, because the
// file was removed, "" stands for the one that would be made now.
func dirOf(fd int) (string, error) {
	path, err := macos.PathOf(fd)
	if err != nil {
		return "", nil
	}
	return filepath.Dir(path), nil
}

// watcher tells when files are removed or moved. Nothing else wakes it. kqueue(2) tells
// of directories only that something in them has changed, and nothing of sockets: so
// what is in those directories is compared with what was there.
type watcher struct {
	queue int                 // 0 where it cannot be had, and at first
	dirs  map[string]*os.File // that are watched, by path
}

// watchOver begins to watch, which is not for the short life of one command.
func (s *server) watchOver() {
	queue, err := unix.Kqueue()
	if err != nil {
		s.log.Warn("cannot watch over the control socket: if it is removed, SIGHUP brings it back", "error", err)
		return
	}
	unix.CloseOnExec(queue)
	s.watch.queue, s.watch.dirs = queue, map[string]*os.File{}
	s.mend()
	go watchLoop(queue, s.paths.RuntimeDir, s.paths.Socket, s.inbox, s.mend)
}

func watchLoop(queue int, dir, socket string, inbox chan<- any, mend func()) {
	var events [16]unix.Kevent_t
	before := namesIn(dir, socket)
	for {
		if _, err := unix.Kevent(queue, nil, events[:], nil); err != nil && err != unix.EINTR {
			return
		}
		now := namesIn(dir, socket)
		for name := range before {
			if !now[name] {
				inbox <- mend
				break
			}
		}
		before = now
	}
}

// namesIn are the paths of what must not be removed: the socket, and what is in the
// runtime directory but for the file that the state is written to before it gets its
// name.
func namesIn(dir, socket string) map[string]bool {
	names := map[string]bool{}
	if _, err := os.Lstat(socket); err == nil {
		names[socket] = true
	}
	for _, d := range []string{dir, dir + "/logs"} {
		entries, _ := fs.ReadDir(os.DirFS(d), ".")
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), unnamed) {
				names[d+"/"+e.Name()] = true
			}
		}
	}
	return names
}

// lookAt watches the directories that are there now, which may be watched already.
func (w *watcher) lookAt(dir, socket string) {
	w.look(dir)
	w.look(dir + "/logs")
	w.look(filepath.Dir(socket))
}

func (w *watcher) look(dir string) {
	if w.queue == 0 {
		return
	}
	fd, err := unix.Open(dir, unix.O_EVTONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	file := os.NewFile(uintptr(fd), dir)
	if old := w.dirs[dir]; old != nil {
		a, err := old.Stat()
		b, err2 := file.Stat()
		if err == nil && err2 == nil && os.SameFile(a, b) {
			file.Close()
			return
		}
		old.Close()
	}
	w.dirs[dir] = file
	var ev unix.Kevent_t
	unix.SetKevent(&ev, fd, unix.EVFILT_VNODE, unix.EV_ADD|unix.EV_CLEAR)
	ev.Fflags = unix.NOTE_WRITE | unix.NOTE_DELETE | unix.NOTE_RENAME
	unix.Kevent(w.queue, []unix.Kevent_t{ev}, nil, nil)
}

// close lets go of it when zinit is about to end.
func (w *watcher) close() {
	for _, d := range w.dirs {
		d.Close()
	}
	w.queue, w.dirs = 0, nil
}
