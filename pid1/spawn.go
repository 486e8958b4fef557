package main

import (
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/threads"
)

// forkDirect starts a program with nothing but what the Go runtime does
// between fork and execve.
func forkDirect(j *job, path string, files []int, cgroup int) (pid int, err error) {
	attr := procAttr(j, files, cgroup)
	attr.Dir, attr.Env = j.Spawn.Dir, j.Spawn.Env
	if c := j.Spawn.Cred; c != nil && !ownIdentity(c.UID, c.GID, c.Groups) {
		attr.Sys.Credential = &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
	}
	slack := childSlack
	if j.kind == supervisorJob {
		slack = threads.Slack // it is a daemon such as pid1
	}
	return forkExec(path, j.Spawn.Argv, attr, slack)
}

// childSlack is the timer slack that pid1 was started with.
var childSlack time.Duration

// forkHelper starts the exec helper, which turns into the program. What it is
// to do is in a memory file, which holds what a pipe may not; what goes wrong
// comes back on the pipe status, which closes when it executes.
func forkHelper(j *job, path string, cgroup int) (pid, status int, err error) {
	if j.Spawn.CgroupLast {
		cgroup = -1
	}
	self, err := ownProgram()
	if err != nil {
		return 0, -1, err
	}
	spec, err := msgpack.Marshal(&helperSpec{Path: path, Spawn: j.Spawn})
	if err != nil {
		return 0, -1, err
	}
	memory, err := memoryFile("spawn", spec)
	if err != nil {
		return 0, -1, err
	}
	defer unix.Close(memory)
	ends, err := makePipe()
	if err != nil {
		return 0, -1, err
	}
	defer unix.Close(ends[1])
	attr := procAttr(j, j.Files, cgroup)
	n := len(attr.Files)
	attr.Files = append(attr.Files, uintptr(memory), uintptr(ends[1]))
	// The helper lives for a millisecond: no collector, no second processor.
	attr.Env = []string{"GOGC=off", "GOMAXPROCS=1"}
	pid, err = forkExec(self, []string{helperName, strconv.Itoa(n)}, attr, childSlack)
	if err != nil {
		unix.Close(ends[0])
		return 0, -1, err
	}
	return pid, ends[0], nil
}

// readMemoryFile reads what another process has written into a file in memory.
func readMemoryFile(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	b := make([]byte, st.Size)
	for off := 0; off < len(b); {
		n, err := unix.Pread(fd, b[off:], int64(off))
		if n == 0 && err == nil {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && err != unix.EINTR {
			return nil, err
		}
		off += max(n, 0)
	}
	return b, nil
}

// procAttr is what both ways of starting have in common: the descriptors, the
// session or the terminal, and the cgroup, -1 for none.
func procAttr(j *job, files []int, cgroup int) *syscall.ProcAttr {
	attr := &syscall.ProcAttr{Sys: &syscall.SysProcAttr{}}
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	switch {
	case j.Spawn.Console && ownTerminal():
		// Its own group in pid1's session, in the foreground. The runtime asks
		// for it with all signals blocked, so that SIGTTOU stops nobody.
		attr.Sys.Setpgid, attr.Sys.Foreground = true, true
	case j.Spawn.Console && freeTerminal():
		attr.Sys.Setsid, attr.Sys.Setctty = true, true
	default:
		attr.Sys.Setsid = true
	}
	if cgroup >= 0 {
		intoCgroup(attr.Sys, cgroup)
	}
	return attr
}

// ownIdentity says whether this is who pid1 is already, so that nothing has to
// be changed, which an ordinary user may not even try.
func ownIdentity(uid, gid uint32, groups []uint32) bool {
	if int(uid) != os.Getuid() || int(uid) != os.Geteuid() || int(gid) != os.Getgid() || int(gid) != os.Getegid() {
		return false
	}
	own, err := unix.Getgroups()
	if err != nil {
		return false
	}
	for _, g := range groups {
		if int(g) != int(gid) && len(groups) <= maxGroups && !slices.Contains(own, int(g)) {
			return false
		}
	}
	for _, g := range own {
		if g != int(gid) && !slices.Contains(groups, uint32(g)) {
			return false
		}
	}
	return true
}

// readStatus waits until the helper has executed the program or says why not.
func readStatus(fd int) (f failure, failed bool) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return failure{}, false
	}
	pipe := os.NewFile(uintptr(fd), "status")
	defer pipe.Close()
	var text []byte
	b := make([]byte, 512)
	for len(text) < 8<<10 {
		n, err := pipe.Read(b)
		text = append(text, b[:n]...)
		if err != nil {
			break
		}
	}
	part := strings.SplitN(string(text), "\x00", 3)
	if len(part) < 3 {
		return failure{}, false
	}
	e, err := strconv.Atoi(part[1])
	if err != nil {
		return failure{}, false
	}
	return failure{part[0], syscall.Errno(e), part[2]}, true
}
