// Package fdlimit shares out the descriptors that a process may have
// (RLIMIT_NOFILE) among those who would take all of them, so that each finds
// some, whoever came first.
package fdlimit

import (
	"math"

	"golang.org/x/sys/unix"
)

// The kernel gives the lowest number that is free, so the number of a new
// descriptor tells how many are taken.

// Pipes is the number from which on a descriptor is not for the output of a
// service. zinit-server takes over each pipe that zinit-pid1 makes, and needs
// more beside them.
func Pipes() int { return limit() - min(limit()/8*3, 2048) }

// Clients is how many clients zinit-server may have: half of what pipes leave.
func Clients() int { return min(limit()/16*3, 1024) }

// Segments is the number from which on a descriptor is not for what is stored
// of output: those files are closed, and opened again when they are needed. What
// is left is for what lasts a moment.
func Segments() int {
	l := limit()
	return l - min(l/16, 32)
}

func limit() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return math.MaxInt32
	}
	return int(min(l.Cur, math.MaxInt32))
}
