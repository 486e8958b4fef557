package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

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

// age is how long a process has been there that started at that time, in clock
// ticks since boot.
func age(start uint64) time.Duration {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	return max(0, time.Duration(now.Nano())-time.Duration(start)*tick)
}

// readProcesses reads the process table. Processes that end meanwhile are left
// out.
func readProcesses() ([]process, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var all []process
	for _, name := range entries {
		if pid, err := strconv.Atoi(name); err == nil {
			if st, err := readStat(pid); err == nil {
				all = append(all, process{pid, st})
			}
		}
	}
	slices.SortFunc(all, func(a, b process) int { return a.pid - b.pid })
	return all, nil
}

// processorTime is that of one process, to the nanosecond where the kernel
// tells: the clock of another process is in clock_getcpuclockid(3).
func processorTime(p process) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^p.pid<<3|2), &ts); err == nil {
		return time.Duration(ts.Nano())
	}
	return p.cpu
}

// userOf returns whom a process runs as.
func userOf(pid int) (uid, gid uint32, err error) {
	var st unix.Stat_t
	err = unix.Stat(fmt.Sprintf("/proc/%d", pid), &st)
	return st.Uid, st.Gid, err
}

// countFds counts the open descriptors of a process.
func countFds(pid int) (int, error) {
	d, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		return 0, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	return len(names), err
}

// commandOf is the command line of a process, or its name in brackets where it
// has none, as of a zombie.
func commandOf(pid int) string {
	dir := "/proc/" + strconv.Itoa(pid)
	b, _ := os.ReadFile(dir + "/cmdline")
	text := strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
	if text == "" {
		b, _ := os.ReadFile(dir + "/comm")
		text = "[" + strings.TrimSpace(string(b)) + "]"
	}
	if len(text) > maxCommand {
		text = text[:maxCommand] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// environOf is the environment that a process was started with, none where it must
// not be read.
func environOf(pid int) []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return strings.Split(string(b), "\x00")
}

// programName is the name of a process (proc_pid_comm(5)).
func programName(pid int) string {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(name))
}

// bootID tells one run of the kernel from another.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
