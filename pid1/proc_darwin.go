package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/macos"
)

// runningFile is the path that the running program was started by.
func runningFile() string {
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

// ownProgram is what the exec helper is started by: the file that is there now.
func ownProgram() (string, error) { return os.Executable() }

// ticks is the time as stat has that of a start, in microseconds since 1970.
func ticks() uint64 { return uint64(time.Now().UnixMicro()) }

func readStat(pid int) (stat, error) {
	p, err := macos.Find(pid)
	if err != nil {
		return stat{}, err
	}
	sid, _ := unix.Getsid(pid) // of a zombie it is not told
	return stat{zombie: p.Zombie, ppid: p.Ppid, pgid: p.Pgid, sid: sid, start: p.Start}, nil
}

// mayBeLeft returns those who may have been left by the processes of a run: all, as
// launchd gets those whose parent has ended.
func mayBeLeft(int) []int {
	all, _ := macos.Processes()
	var pids []int
	for _, p := range all {
		if !p.Zombie {
			pids = append(pids, p.Pid)
		}
	}
	return pids
}

// allChildren are the children of a process.
func allChildren(pid int) []int { return childrenByParent()[pid] }

// withDescendants adds the children of these processes, theirs and so on.
func withDescendants(pids []int) []int {
	children := childrenByParent()
	for i := 0; i < len(pids) && len(pids) < maxRuns; i++ {
		pids = append(pids, children[pids[i]]...)
	}
	return pids
}

func childrenByParent() map[int][]int {
	all, _ := macos.Processes()
	children := map[int][]int{}
	for _, p := range all {
		children[p.Ppid] = append(children[p.Ppid], p.Pid)
	}
	return children
}

// commandOf is the command line of a process and its environment, as far as they
// may be read.
func commandOf(pid int) (command, environ []string) {
	command, environ, _ = macos.Command(pid)
	return command, environ
}
