package clock

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMonotonicIsTheKernels compares it with what another process would read.
func TestMonotonicIsTheKernels(t *testing.T) {
	read := func() time.Duration {
		var ts unix.Timespec
		unix.ClockGettime(source, &ts)
		return time.Duration(ts.Nano())
	}
	const skew = time.Millisecond // a test may be interrupted between two lines of begin
	for range 1000 {
		before := read()
		got := Monotonic()
		if after := read(); got < before-skew || got > after+skew {
			t.Fatalf("it is %v, and was %v before and %v after", got, before, after)
		}
	}
}
