package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
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

// orphan is a service process whose pid1 was killed.
type orphan struct {
	service string
	pid     int
}

// endProcesses ends processes and their sessions: SIGTERM, and SIGKILL when
// the time is over. It returns when they are gone, or the kernel cannot end
// them.
func endProcesses(left []orphan, grace time.Duration, log *slog.Logger) {
	for _, o := range left {
		unix.Kill(-o.pid, unix.SIGTERM)
		unix.Kill(-o.pid, unix.SIGCONT)
	}
	deadline := time.Now().Add(grace)
	killed := false
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		alive := 0
		for _, o := range left {
			if unix.Kill(-o.pid, 0) == nil {
				alive++
			}
		}
		switch {
		case alive == 0:
			return
		case time.Now().Before(deadline):
		case killed:
			log.Error("cannot end processes of the zinit before", "count", alive)
			return
		default:
			for _, o := range left {
				unix.Kill(-o.pid, unix.SIGKILL)
			}
			killed, deadline = true, time.Now().Add(grace)
		}
		time.Sleep(pause) // no child of ours: there is nothing to wait on
	}
}
