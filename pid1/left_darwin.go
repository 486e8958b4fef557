package main

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/macos"
)

// emptyWatch tells of the end of processes that runs have left: launchd gets them,
// so that it is not told to pid1. It belongs to the keeper but for its goroutine,
// which only waits.
type emptyWatch struct {
	queue   int // of kqueue(2), -1 until it is needed
	changes chan []int
}

func newEmptyWatch() *emptyWatch { return &emptyWatch{queue: -1, changes: make(chan []int)} }

// wait hands on which processes have ended.
func (w *emptyWatch) wait() {
	var events [64]unix.Kevent_t
	for {
		n, err := unix.Kevent(w.queue, nil, events[:], nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		var pids []int
		for _, ev := range events[:n] {
			pids = append(pids, int(ev.Ident))
		}
		w.changes <- pids
	}
}

// add has the end of a process told, and says whether it will be.
func (w *emptyWatch) add(pid int) bool {
	if w.queue < 0 {
		queue, err := unix.Kqueue()
		if err != nil {
			return false
		}
		unix.CloseOnExec(queue) // for the next pid1; no child would inherit it
		w.queue = queue
		go w.wait()
	}
	var ev unix.Kevent_t
	unix.SetKevent(&ev, pid, unix.EVFILT_PROC, unix.EV_ADD|unix.EV_ONESHOT)
	ev.Fflags = unix.NOTE_EXIT
	_, err := unix.Kevent(w.queue, []unix.Kevent_t{ev}, nil, nil)
	return err == nil
}

// anyLeft says whether a process of a run is left whose leader has been reaped,
// and if so has its end told.
func (k *keeper) anyLeft(r *run) bool {
	pids := slices.Clone(k.strays(r))
	for _, g := range r.Groups {
		if unix.Kill(-g, 0) == unix.ESRCH {
			continue
		}
		members, _ := macos.InGroup(g)
		for _, p := range members {
			if k.table.pids[p.Pid] == nil {
				pids = append(pids, p.Pid)
			}
		}
	}
	left := false
	for _, pid := range pids {
		told := k.empties.add(pid)
		p, err := macos.Find(pid)
		if err != nil || p.Zombie {
			continue
		}
		left = true
		if !told || p.Ending {
			// Its end may have been too early to be told: it is looked at from time
			// to time instead.
			r.Signalled = true
		}
	}
	return left
}

// mayBeEmpty looks at runs that may have become empty.
func (k *keeper) mayBeEmpty([]int) {
	k.kids = nil
	for _, r := range k.table.left {
		k.recheck(r)
	}
}

// unwatch need not do anything: the end of a process that is nobody's any more makes
// pid1 look once.
func (k *keeper) unwatch(*run) {}
