// Package clock tells a time that processes can compare and nobody sets.
package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// began is a moment as Go knows it, and zero what CLOCK_MONOTONIC was then.
var began, zero = begin()

func begin() (time.Time, time.Duration) {
	var ts unix.Timespec
	now := time.Now()
	unix.ClockGettime(source, &ts) // cannot fail: clock_gettime(2)
	return now, time.Duration(ts.Nano())
}

// Monotonic is CLOCK_MONOTONIC: the same in all processes, but for a microsecond. The
// clock of package time goes with it and is read without a system call.
func Monotonic() time.Duration { return zero + time.Since(began) }
