package clock

import "golang.org/x/sys/unix"

// source is the clock that the runtime reads.
const source = unix.CLOCK_MONOTONIC
