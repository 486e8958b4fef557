package main

import (
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// stat is what has to be known of a process.
type stat struct {
	ppid, session int
	// start is the start time, in clock ticks since boot on Linux: with the pid and
	// the boot id it is the identity of a process.
	start uint64
	// cpu is the processor time of the process, childrenCPU of the children
	// that it has waited for, in steps of 10 ms; resident its memory in bytes.
	cpu, childrenCPU time.Duration
	resident         int64
}

// startTime returns the start time of a process, 0 if there is none.
func startTime(pid int) uint64 {
	st, _ := readStat(pid)
	return st.start
}

// orphan is a service process whose pid1 was killed, and how it is stopped.
type orphan struct {
	service string
	pid     int
	signal  int
	grace   time.Duration
	killed  bool
}

// afterKill is how long a process may take to vanish after SIGKILL before it
// counts as one that the kernel cannot end.
const afterKill = 5 * time.Second

// endProcesses ends processes and their groups: by their stop signals, and by
// SIGKILL when the time of each is over. It returns when they are gone, or the
// kernel cannot end them.
func endProcesses(left []orphan, log *slog.Logger) {
	start := time.Now()
	for _, o := range left {
		unix.Kill(-o.pid, unix.Signal(o.signal))
		unix.Kill(-o.pid, unix.SIGCONT)
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		took := time.Since(start)
		left = slices.DeleteFunc(left, func(o orphan) bool { return unix.Kill(-o.pid, 0) != nil })
		for i := range left {
			o := &left[i]
			switch {
			case o.killed && took > o.grace+afterKill:
				log.Error("cannot end a process of the zinit before", "service", o.service, "pid", o.pid)
				o.pid = 0
			case !o.killed && took > o.grace:
				log.Warn("killed after its stop timeout", "service", o.service, "pid", o.pid)
				unix.Kill(-o.pid, unix.SIGKILL)
				o.killed = true
			}
		}
		left = slices.DeleteFunc(left, func(o orphan) bool { return o.pid == 0 })
		if len(left) == 0 {
			return
		}
		time.Sleep(pause) // no child of ours: there is nothing to wait on
	}
}
