package threads

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Slack is how late timers of a daemon may be that answers events. The Go runtime
// has a thread that looks after the others every 20 µs as long as anything is under
// way. Each look takes two switches of threads: a daemon that is woken for a
// millisecond spends as much on them as on its work. The kernel's own slack, of 50 µs,
// lets them be just as many.
const Slack = time.Millisecond

// Loosen has the timers of this process be late by Slack, as far as it may: without
// CAP_SYS_NICE only those of this thread. Threads and processes that are made by one
// that is loose are so, too. It returns the slack that there was.
func Loosen() (before time.Duration) {
	before = SetSlack(Slack)
	// Of a thread there is such a file as well, but not below task/.
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		os.WriteFile("/proc/"+t.Name()+"/timerslack_ns", strconv.AppendInt(nil, int64(Slack), 10), 0)
	}
	return before
}

// SetSlack sets how late timers of this thread, and of what it makes, may be, and
// returns what that was.
func SetSlack(d time.Duration) (before time.Duration) {
	ns, _ := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(d), 0, 0, 0)
	return time.Duration(ns)
}
