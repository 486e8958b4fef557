package main

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/macos"
)

// maxGroups is how many groups the kernel keeps of a process (NGROUPS_MAX).
const maxGroups = 16

// forkExec forks with an empty signal mask: the child gets that of the thread that
// forks, which has the one that pid1 was started with.
func forkExec(path string, argv []string, attr *syscall.ProcAttr, _ time.Duration) (pid int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	macos.SetMask(0)
	return syscall.ForkExec(path, argv, attr)
}

// forkStranger starts a program that is reaped like any child that is nobody's: kill
// does so if the process that has its pid is still the one that was started.
func forkStranger(program string, argv []string, attr *syscall.ProcAttr) (kill func(), err error) {
	pid, err := forkExec(program, argv, attr, childSlack)
	if err != nil {
		return nil, err
	}
	begun, lost := readStat(pid)
	return func() {
		if st, err := readStat(pid); lost == nil && err == nil && st.start == begun.start {
			unix.Kill(pid, unix.SIGKILL)
		}
	}, nil
}

// memoryFile returns a file that has no name, close-on-exec and at its beginning:
// there are none in memory that can be read as files are.
func memoryFile(name string, data []byte) (fd int, err error) {
	f, err := os.CreateTemp("", "zinit-"+name+"-")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return -1, err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return -1, err
	}
	return dup(int(f.Fd()))
}

// ownTerminal says whether stdin is the controlling terminal of pid1: others do not
// tell who is in the foreground (tty(4)).
func ownTerminal() bool {
	_, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil
}

// freeTerminal says whether stdin is a terminal that controls no session, which is
// not told.
func freeTerminal() bool { return false }
