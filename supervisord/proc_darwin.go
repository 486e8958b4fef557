package main

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/macos"
)

// tick is to what the start of zinit is told: the clock may be set by less.
const tick = 10 * time.Millisecond

func readStat(pid int) (stat, error) {
	p, err := macos.Find(pid)
	if err != nil {
		return stat{}, err
	}
	return statOf(p), nil
}

// statOf adds what the process table does not have. What a process of another user
// has used is told to root only.
func statOf(p macos.Process) stat {
	session, _ := unix.Getsid(p.Pid) // 0 for a zombie
	u, _ := macos.UsageOf(p.Pid)
	return stat{
		ppid: p.Ppid, session: session, start: p.Start,
		cpu: u.CPU, childrenCPU: u.ChildrenCPU, resident: u.Resident,
	}
}

// age is how long a process has been there that started at that time, in
// microseconds since 1970.
func age(start uint64) time.Duration { return max(0, time.Since(time.UnixMicro(int64(start)))) }

// readProcesses reads the process table.
func readProcesses() ([]process, error) {
	table, err := macos.Processes()
	if err != nil {
		return nil, err
	}
	all := make([]process, 0, len(table))
	for _, p := range table {
		all = append(all, process{p.Pid, statOf(p)})
	}
	slices.SortFunc(all, func(a, b process) int { return a.pid - b.pid })
	return all, nil
}

// processorTime is that of one process.
func processorTime(p process) time.Duration { return p.cpu }

// userOf returns whom a process runs as.
func userOf(pid int) (uid, gid uint32, err error) {
	p, err := macos.Find(pid)
	return p.Uid, p.Gid, err
}

// countFds counts the open descriptors of a process.
func countFds(pid int) (int, error) { return macos.CountFds(pid) }

// commandOf is the command line of a process, or its name in brackets where it
// has none, as of a zombie.
func commandOf(pid int) string {
	command, _, _ := macos.Command(pid)
	text := strings.TrimSpace(strings.Join(command, " "))
	if text == "" {
		text = "[" + programName(pid) + "]"
	}
	if len(text) > maxCommand {
		text = text[:maxCommand] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// environOf is the environment that a process was started with, none where it must
// not be read.
func environOf(pid int) []string {
	_, environ, _ := macos.Command(pid)
	return environ
}

// programName is the name of a process.
func programName(pid int) string {
	p, _ := macos.Find(pid)
	return p.Name
}

// bootID tells one run of the kernel from another.
func bootID() string { return macos.BootID() }
