package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// A run may have a cgroup v2 of its own, which the supervisor makes. pid1 starts the
// run in it, removes it when the leader has ended and nothing is left, or else ends
// what is, and is told by inotify when nothing is; then the supervisor removes it.

// openCgroup opens the cgroup of a run that is about to be forked, -1 if it has
// none.
func openCgroup(sp *ipc.Spawn) (fd int, fail *ipc.SpawnFailed) {
	if sp.Cgroup == "" {
		return -1, nil
	}
	fd, err := open(sp.Cgroup, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, explain(sp, failure{ipc.StageCgroup, errno(err), sp.Cgroup})
	}
	return fd, nil
}

// checks are what a run has to pass before anything is made for it.
type checks struct{ freezer }

// freezer tells whether the cgroup is frozen in which those of all runs are.
// Whoever is cloned into a frozen one stops before execve, and the Go runtime
// with it. The cgroup of a run is too young to be frozen by itself, and if one
// further up is, pid1 is frozen as well, or it is the root.
type freezer struct {
	path string
	fd   int // of cgroup.freeze, open because it is read with each spawn
}

// check refuses a run that would stop before execve.
func (f *freezer) check(sp *ipc.Spawn) *ipc.SpawnFailed {
	if sp.Cgroup == "" {
		return nil
	}
	parent := filepath.Dir(sp.Cgroup)
	if !f.frozen(parent) {
		return nil
	}
	return &ipc.SpawnFailed{
		Stage: ipc.StageCgroup, Path: parent, Errno: int(unix.EAGAIN),
		Message: fmt.Sprintf("cannot start a process in the frozen cgroup %s: write 0 to its cgroup.freeze", parent),
	}
}

func (f *freezer) frozen(path string) bool {
	b := make([]byte, 1)
	if f.path == path {
		if n, err := unix.Pread(f.fd, b, 0); n == 1 && err == nil {
			return b[0] == '1'
		}
	}
	// It is another one, or one that was made anew.
	if f.path != "" {
		unix.Close(f.fd)
		f.path = ""
	}
	fd, err := open(path+"/cgroup.freeze", unix.O_RDONLY)
	if err != nil {
		return false
	}
	f.path, f.fd = path, fd
	n, _ := unix.Pread(fd, b, 0)
	return n == 1 && b[0] == '1'
}

// populated says whether a cgroup or one below it has processes.
func populated(cgroup string) bool {
	fd, err := open(cgroup+"/cgroup.events", unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	b := make([]byte, 64) // it has 21 bytes
	n, _ := unix.Read(fd, b)
	return bytes.Contains(b[:max(n, 0)], []byte("populated 1"))
}

// cgroupMembers are the processes of a cgroup and of those below it.
func cgroupMembers(cgroup string) []int {
	var pids []int
	if b, err := readSmall(cgroup + "/cgroup.procs"); err == nil {
		// Those of another pid namespace have no number here.
		pids = slices.DeleteFunc(numbers(b), func(pid int) bool { return pid <= 1 })
	}
	var st unix.Stat_t
	if unix.Stat(cgroup, &st) != nil || st.Nlink == 2 { // no directory in it
		return pids
	}
	entries, _ := os.ReadDir(cgroup)
	for _, e := range entries {
		if e.IsDir() {
			pids = append(pids, cgroupMembers(cgroup+"/"+e.Name())...)
		}
	}
	return pids
}

// killCgroup kills all processes of a cgroup and of those below it; before
// Linux 5.14 those that are there at the moment.
func killCgroup(cgroup string) {
	if writeSmall(cgroup+"/cgroup.kill", "1") == nil {
		return
	}
	for _, pid := range cgroupMembers(cgroup) {
		unix.Kill(pid, unix.SIGKILL)
	}
}

// emptyWatch tells of cgroups whose leader has ended when they may have become
// empty. It belongs to the keeper but for its goroutine, which only reads.
type emptyWatch struct {
	fd      int // of inotify(7), -1 until it is needed
	runs    map[int]*run
	changes chan []int
}

func newEmptyWatch() *emptyWatch {
	return &emptyWatch{fd: -1, runs: map[int]*run{}, changes: make(chan []int)}
}

// read hands on which watches have something to tell.
func (w *emptyWatch) read(f *os.File) {
	b := make([]byte, 4096)
	for {
		n, err := f.Read(b)
		if err != nil {
			return
		}
		var wds []int
		// The events of a file have no name, so they are of the same size.
		for at := 0; at+unix.SizeofInotifyEvent <= n; at += unix.SizeofInotifyEvent {
			wds = append(wds, int(int32(binary.NativeEndian.Uint32(b[at:]))))
		}
		w.changes <- wds
	}
}

// inCgroup says whether a process is left in the cgroup of a run, and if so
// has it watched until there is none.
func (k *keeper) inCgroup(r *run) bool {
	if r.Cgroup == "" || r.watch != 0 {
		return r.watch != 0
	}
	// What can be removed is empty. Of who was killed the supervisor wants to know
	// from there whether memory was short.
	if r.Exited.Signal != int(unix.SIGKILL) && unix.Rmdir(r.Cgroup) == nil {
		r.Exited.Removed = true
		return false
	}
	if !populated(r.Cgroup) {
		return false
	}
	w := k.empties
	if w.fd < 0 {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return true // it is looked at from time to time instead
		}
		w.fd = fd
		go w.read(os.NewFile(uintptr(fd), "inotify"))
	}
	wd, err := unix.InotifyAddWatch(w.fd, r.Cgroup+"/cgroup.events", unix.IN_MODIFY)
	if err != nil {
		return populated(r.Cgroup)
	}
	r.watch, w.runs[wd] = wd, r
	if populated(r.Cgroup) {
		return true
	}
	k.unwatch(r)
	return false
}

func (k *keeper) unwatch(r *run) {
	if r.watch != 0 {
		unix.InotifyRmWatch(k.empties.fd, uint32(r.watch))
		delete(k.empties.runs, r.watch)
		r.watch = 0
	}
}

// mayBeEmpty looks at runs whose cgroup may have become empty.
func (k *keeper) mayBeEmpty(wds []int) {
	k.kids = nil
	for _, wd := range wds {
		if r := k.empties.runs[wd]; r != nil && !populated(r.Cgroup) {
			k.unwatch(r)
			k.recheck(r)
		}
	}
}
