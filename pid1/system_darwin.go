package main

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// What explanations name of this system.
const (
	asChild       = "it behaves as in a container"
	processLimits = "ulimit -u, or sysctl kern.maxproc"
	programGone   = "the file of zinit-pid1 is not where it was"
	mayBecome     = "root"
)

// lookOnly opens a file for nothing but to look where it is, which takes the
// permission to read it.
const lookOnly = unix.O_RDONLY | unix.O_NONBLOCK

// makePipe makes a pipe whose ends no child inherits. That takes two steps, between
// which nothing may be forked.
func makePipe() (ends [2]int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err = unix.Pipe(ends[:]); err == nil {
		unix.CloseOnExec(ends[0])
		unix.CloseOnExec(ends[1])
	}
	return ends, err
}

// pipeFor makes what a child has as that descriptor, the write end, and the
// supervisor reads. By what it says on one beyond stderr it is ready: that is looked
// at, saved, and then taken, and what is in a pipe cannot be looked at.
func pipeFor(fd int) (ends [2]int, err error) {
	if fd <= 2 {
		return makePipe()
	}
	return ipc.SocketPair()
}

// adoptOrphans cannot be done: launchd gets processes whose parent has ended. Those
// of a run are known by its session and its groups (left_darwin.go).
func adoptOrphans(*logger) {}

// closeOnExecAll keeps descriptors that pid1 has inherited from its children.
func closeOnExecAll() {
	entries, err := os.ReadDir("/dev/fd")
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	if err != nil {
		for fd := 3; fd < maxChildFd; fd++ {
			unix.CloseOnExec(fd)
		}
	}
}

// onLocalFS says whether a file is on a file system that answers by itself.
func onLocalFS(fd int) bool {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(fd, &st) })
	return err == nil && st.Flags&unix.MNT_LOCAL != 0
}
