package main

import (
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/macos"
)

// endedChild waits until a child has ended, which stays a zombie.
func endedChild() (pid int, err error) {
	end, err := macos.Ended(0, 0)
	if err == nil && end.Pid == 0 {
		err = unix.EAGAIN
	}
	return end.Pid, err
}

// peekChild returns a child that has ended, which stays a zombie, so that its
// pid and its group are not given to anybody else. more is false where none
// has ended; children says whether there are any at all. What it has used the kernel
// tells only whoever reaps it.
func peekChild() (end childEnd, more, children bool) {
	e, err := macos.Ended(0, unix.WNOHANG)
	if err != nil {
		return end, false, err != unix.ECHILD
	}
	return childEnd{pid: e.Pid, code: e.Code, signal: e.Signal, core: e.Core, at: monotonic()}, e.Pid != 0, true
}

// reapChild ends the life of a zombie.
func reapChild(pid int) { macos.Reap(pid) }
