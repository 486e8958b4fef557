package main

import "golang.org/x/sys/unix"

// stat is what pid1 has to know of another process. start is a number that, with
// its pid, no other process has since the machine was started: the time of its own
// start, in clock ticks since boot on Linux.
type stat struct {
	zombie          bool
	ppid, pgid, sid int
	start           uint64
}

func open(path string, flags int) (fd int, err error) {
	for {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
