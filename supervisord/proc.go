package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// stat is what is needed of /proc/PID/stat (proc(5)).
type stat struct {
	ppid, session int
	// start is the start time in clock ticks since boot: with the pid and the
	// boot id it is the identity of a process.
	start uint64
	// cpu is the processor time of the process, childrenCPU of the children
	// that it has waited for, in steps of 10 ms; resident its memory in bytes.
	cpu, childrenCPU time.Duration
	resident         int64
}

// tick is the unit of times in /proc: USER_HZ is 100 on amd64 and arm64.
const tick = 10 * time.Millisecond

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	// The name in parentheses may have any character in it, the last ')' ends it.
	i := bytes.LastIndexByte(b, ')')
	f := bytes.Fields(b[i+1:])
	if i < 0 || len(f) < 22 {
		return stat{}, fmt.Errorf("cannot read /proc/%d/stat: it has an unknown form", pid)
	}
	var st stat
	st.ppid, _ = strconv.Atoi(string(f[1]))
	st.session, _ = strconv.Atoi(string(f[3]))
	st.start, _ = strconv.ParseUint(string(f[19]), 10, 64)
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(string(f[i]), 10, 64)
		return n
	}
	st.cpu = time.Duration(number(11)+number(12)) * tick
	st.childrenCPU = time.Duration(number(13)+number(14)) * tick
	st.resident = number(21) * int64(os.Getpagesize())
	return st, nil
}

// startTime returns the start time of a process, 0 if there is none.
func startTime(pid int) uint64 {
	st, _ := readStat(pid)
	return st.start
}

// age is how long a process has been there that started at that time, in clock
// ticks since boot.
func age(start uint64) time.Duration {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	return max(0, time.Duration(now.Nano())-time.Duration(start)*tick)
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
