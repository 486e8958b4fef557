package main

import "golang.org/x/sys/unix"

// waitEnd waits for the end of a child, which stays a zombie, so that its group keeps
// its number.
func waitEnd(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}
