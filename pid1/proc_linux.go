package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// selfExe is the running program, even if its file has been replaced.
const selfExe = "/proc/self/exe"

// runningFile is the path of the running program: what is there now, even if the
// file that runs has been replaced.
func runningFile() string {
	path, err := os.Readlink(selfExe)
	if err != nil {
		return selfExe
	}
	return strings.TrimSuffix(path, " (deleted)")
}

// ownProgram is what the exec helper is started by.
func ownProgram() (string, error) { return selfExe, nil }

// tick is the unit of times in /proc: USER_HZ is 100 on amd64 and arm64.
const tick = 10 * time.Millisecond

// ticks is the time since boot as stat has that of a start: who is forked between
// two calls with the same result started then.
func ticks() uint64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return uint64(ts.Nano() / int64(tick))
}

// readStat reads /proc/PID/stat (proc(5)).
func readStat(pid int) (stat, error) {
	b, err := readSmall(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	var st stat
	n := 0
	// The name of the program, in parentheses, may hold anything.
	for f := range bytes.FieldsSeq(b[bytes.LastIndexByte(b, ')')+1:]) {
		switch n {
		case 0:
			st.zombie = f[0] == 'Z' || f[0] == 'X'
		case 1:
			st.ppid, _ = strconv.Atoi(string(f))
		case 2:
			st.pgid, _ = strconv.Atoi(string(f))
		case 3:
			st.sid, _ = strconv.Atoi(string(f))
		case 19:
			st.start, _ = strconv.ParseUint(string(f), 10, 64)
			return st, nil
		}
		n++
	}
	return stat{}, fmt.Errorf("cannot read /proc/%d/stat: it has too few fields", pid)
}

// mayBeLeft returns those who may have been left by the processes of a run: the
// children of a process that were forked by its first thread or given to it because
// their parent has ended. It is empty where the kernel has no CONFIG_PROC_CHILDREN.
func mayBeLeft(pid int) []int {
	b, err := readSmall(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	return numbers(b)
}

// allChildren are the children of all threads of a process.
func allChildren(pid int) []int {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil
	}
	var pids []int
	for _, t := range tasks {
		if b, err := readSmall(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name())); err == nil {
			pids = append(pids, numbers(b)...)
		}
	}
	return pids
}

// withDescendants adds the children of these processes, theirs and so on.
func withDescendants(pids []int) []int {
	for i := 0; i < len(pids) && len(pids) < maxRuns; i++ {
		pids = append(pids, allChildren(pids[i])...)
	}
	return pids
}

// commandOf is the command line of a process and its environment, as far as they
// may be read.
func commandOf(pid int) (command, environ []string) {
	words := func(file string) []string {
		b, _ := readSmall(fmt.Sprintf("/proc/%d/%s", pid, file))
		return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	}
	return words("cmdline"), words("environ")
}

func numbers(b []byte) []int {
	var out []int
	for f := range bytes.FieldsSeq(b) {
		if n, err := strconv.Atoi(string(f)); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// readSmall reads a file of the kernel, by system calls alone: such files are
// not for the runtime's poller.
func readSmall(path string) ([]byte, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 512)
	for {
		if len(b) == cap(b) {
			b = slices.Grow(b, cap(b))
		}
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, err
		case n == 0:
			return b, nil
		default:
			b = b[:len(b)+n]
		}
	}
}

func writeSmall(path, text string) error {
	fd, err := open(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(text))
	return errors.Join(err, unix.Close(fd))
}
