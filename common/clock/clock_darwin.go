package clock

import "golang.org/x/sys/unix"

// source is the clock that the runtime reads: CLOCK_MONOTONIC goes on while a Mac
// sleeps, and this one does not, as CLOCK_MONOTONIC of Linux.
const source = unix.CLOCK_UPTIME_RAW
