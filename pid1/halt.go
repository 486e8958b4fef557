package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

const (
	// termGrace is the time between SIGTERM and SIGKILL for what is left.
	termGrace = 3 * time.Second
	// killPause is the time between two rounds of SIGKILL, of which there are
	// killRounds: who is left then hangs in the kernel.
	killPause  = 50 * time.Millisecond
	killRounds = 40
)

// ending is how pid1 ends: whatever is left gets SIGTERM, later SIGKILL, and
// with the last child pid1 ends as well.
type ending struct {
	begun  bool
	action ipc.HaltAction
	code   int
	killAt time.Duration
	rounds int
}

// halt begins the end. The supervisor has nothing to say any more: the end of
// its link tells it so.
func (k *keeper) halt(m ipc.Halt) {
	if k.end.begun {
		return
	}
	k.end = ending{begun: true, action: m.Action, code: m.Code, killAt: monotonic() + termGrace}
	if k.sup.conn != nil {
		k.sup.conn.Close()
	}
	left := k.nameLeft()
	if left || k.pid == 1 { // or there is the supervisor alone, which is about to exit
		k.signalLeft(unix.SIGTERM, unix.SIGCONT)
	}
	k.reap()
	if !k.childless {
		k.children.wait()
	}
	if !left {
		k.store.closeAll()
	}
}

// nameLeft says which processes have outlived their services: those that left
// the session in which they would have been ended. It returns whether there are any.
func (k *keeper) nameLeft() bool {
	var left []int
	for _, pid := range allChildren(k.pid) {
		if k.table.pids[pid] == nil && pid != k.sup.Pid && pid != k.shell.Pid {
			left = append(left, pid)
		}
	}
	for _, pid := range withDescendants(left) {
		st, err := readStat(pid)
		if err != nil || st.zombie {
			continue
		}
		escape := fmt.Sprintf("it is in session %d, not in that of its service", st.sid)
		if st.sid == pid {
			escape = "it made a session of its own (setsid)"
		}
		command, environ := commandOf(pid)
		service := "unknown"
		for _, v := range environ {
			if name, ok := strings.CutPrefix(v, "ZINIT_SERVICE="); ok {
				service = name
			}
		}
		k.log.warn("a process has outlived its service: ending it", "service", service, "pid", pid,
			"command", trimmed(strings.Join(command, " "), 256), "escape", escape)
	}
	return len(left) > 0 || len(k.table.pids) > 0
}

// killLeft kills what SIGTERM has not ended, and what that leaves behind.
func (k *keeper) killLeft(now time.Duration) {
	if k.end.rounds == killRounds {
		k.log.error("some processes cannot be killed: going without them")
		k.exit()
	}
	if k.end.rounds == 0 {
		k.log.warn("SIGTERM has not ended all processes: killing them", "children", fmt.Sprint(allChildren(k.pid)))
	}
	k.end.rounds++
	k.end.killAt = now + killPause
	k.signalLeft(unix.SIGKILL)
}

// signalLeft sends signals to all processes below pid1.
func (k *keeper) signalLeft(sigs ...unix.Signal) {
	if k.pid == 1 {
		for _, sig := range sigs {
			// All but the caller, in this pid namespace (kill(2)).
			unix.Kill(-1, sig)
		}
		return
	}
	// Looked up first: whoever dies of it hands its children to pid1, and may
	// do so behind the back of a walk through the tree. So another walk
	// follows, until it finds nobody new.
	below := withDescendants(allChildren(k.pid))
	for _, r := range k.table.runs {
		if k.table.leads(r) || r.State == ipc.RunExited && !r.Emptied {
			for _, sig := range sigs {
				signalGroups(r, sig)
			}
		}
	}
	reached := map[int]bool{}
	for fresh := true; fresh; below = withDescendants(allChildren(k.pid)) {
		fresh = false
		for _, pid := range below {
			if reached[pid] || len(reached) >= maxRuns {
				continue
			}
			reached[pid], fresh = true, true
			if pgid, err := unix.Getpgid(pid); err != nil || !k.ledBy(pgid) {
				for _, sig := range sigs {
					unix.Kill(pid, sig)
				}
			}
		}
	}
}

// ledBy says whether a process group is one of a run.
func (k *keeper) ledBy(pgid int) bool {
	r := k.table.pids[pgid]
	return r != nil && slices.Contains(r.Groups, pgid)
}
