package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// endedChild waits until a child has ended, which stays a zombie.
func endedChild() (pid int, err error) {
	var info unix.Siginfo
	err = retry(func() error { return unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil) })
	return int((*siginfoChild)(unsafe.Pointer(&info)).pid), err
}

// siginfoChild is the beginning of the kernel's siginfo_t for a child, on
// 64-bit Linux (sigaction(2)).
type siginfoChild struct {
	signo, errno, code, _ int32
	pid, uid, status      int32
}

// peekChild returns a child that has ended, which stays a zombie, so that its
// pid and its group are not given to anybody else. more is false where none
// has ended; children says whether there are any at all. __WALL is never
// passed: the Go runtime waits for a probe child of its own.
func peekChild() (end childEnd, more, children bool) {
	var info unix.Siginfo
	var usage unix.Rusage
	err := retry(func() error {
		return unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, &usage)
	})
	if err != nil {
		return end, false, err != unix.ECHILD
	}
	c := (*siginfoChild)(unsafe.Pointer(&info))
	if c.pid == 0 {
		return end, false, true
	}
	end = childEnd{
		pid:    int(c.pid),
		cpu:    usage.Utime.Nano() + usage.Stime.Nano(),
		maxRSS: usage.Maxrss << 10,
		at:     monotonic(),
	}
	const cldExited, cldDumped = 1, 3 // si_code, sigaction(2)
	if c.code == cldExited {
		end.code = int(c.status)
	} else {
		end.signal, end.core = int(c.status), c.code == cldDumped
	}
	return end, true, true
}

// reapChild ends the life of a zombie.
func reapChild(pid int) {
	retry(func() error {
		return unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG, nil)
	})
}
