package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/clock"
	"github.com/threefoldtech/zinit/common/failpoint"
	"github.com/threefoldtech/zinit/ipc"
)

// childWatch tells of children that have ended. A thread waits for them in the
// kernel, and not for SIGCHLD: a signal goes through three goroutines before it
// is here, which costs more than all the rest of reaping. Those that nobody can ask
// for, which lost their parent, it reaps by itself.
//
// Where there are no children it rests, until one is forked. An init may be given
// one nevertheless; it is reaped when the supervisor, without which there is no
// child, is started the next time.
type childWatch struct {
	// ended has a token when a child has ended that is the keeper's, or when there
	// are none.
	ended chan struct{}
	// again has one when it is to wait for the next.
	again   chan struct{}
	resting bool // the keeper's

	// all says that each child is the keeper's: one is being forked whose pid is not
	// known yet, or something is left of a run.
	all atomic.Bool
	mu  sync.Mutex
	// known are the pids of children that were forked on somebody's order.
	known map[int]bool
}

// yieldAfter is how many strangers are reaped in a row before other goroutines may
// run. There are none that wait, but one that has not yielded for 10 ms is one that
// the runtime's monitor has to interrupt: it would look after it every 20 µs, which
// costs more than the reaping.
const yieldAfter = 16

func newChildWatch() *childWatch {
	w := &childWatch{ended: make(chan struct{}, 1), again: make(chan struct{}, 1), resting: true, known: map[int]bool{}}
	w.all.Store(true) // until the keeper has looked
	return w
}

// wait has it wait for the next child that ends.
func (w *childWatch) wait() {
	if w.resting {
		w.resting = false
		w.again <- struct{}{}
	}
}

// know notes that the end of a child is for the keeper, forget that it was.
func (w *childWatch) know(pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known[pid] = true
}

func (w *childWatch) forget(pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.known, pid)
}

// loop waits for children, each time that it is told to.
func (w *childWatch) loop() {
	for range w.again {
		for n := 1; w.reapStranger(); n++ {
			if n%yieldAfter == 0 {
				runtime.Gosched()
			}
		}
		w.ended <- struct{}{}
	}
}

// reapStranger waits for the end of a child and reaps it, unless it is the keeper's
// or there is none.
func (w *childWatch) reapStranger() bool {
	pid, err := endedChild()
	if err != nil {
		return false
	}
	w.mu.Lock()
	known := w.known[pid]
	w.mu.Unlock()
	if known || w.all.Load() {
		return false
	}
	reapChild(pid)
	return true
}

// retry repeats a system call that a signal has interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// monotonic is the time by which all moments are kept: it goes on when pid1 executes
// itself, and no clock is set under it.
func monotonic() time.Duration { return clock.Monotonic() }

// reap collects all children that have ended, then says which runs ended with
// them and which became empty.
func (k *keeper) reap() {
	var ended []*run
	strays := false
	for {
		end, more, children := peekChild()
		k.childless = !children
		if !more {
			break
		}
		if r := k.ended(end); r != nil {
			ended = append(ended, r)
		} else {
			strays = true
		}
	}
	if len(ended) > 0 || strays && len(k.table.left) > 0 {
		if conn := k.sup.conn; conn != nil && len(ended) > 1 {
			conn.Hold()
			defer conn.Release()
		}
		k.settle(ended)
	}
}

// ended handles the end of one child and reaps it, whatever else goes wrong.
// It returns the run whose leader it was.
func (k *keeper) ended(end childEnd) *run {
	defer reapChild(end.pid)
	k.children.forget(end.pid)
	if end.pid == k.sup.Pid {
		k.supervisorEnded(end)
		return nil
	}
	if end.pid == k.shell.Pid {
		k.shellEnded()
		return nil
	}
	r := k.table.pids[end.pid]
	switch {
	case r == nil:
		if k.forking > 0 {
			k.table.noteEarly(end)
		}
		return nil
	case r.State == ipc.RunSpawning:
		delete(k.table.pids, end.pid)
		r.early = &end
		return nil
	}
	k.table.becomeExited(r, end)
	return r
}

// settle looks for what is left of the runs whose leader has ended, tells the
// exits of those that ended just now, and of all that are empty now.
func (k *keeper) settle(ended []*run) {
	k.children.all.Store(true) // before anybody is looked for, whose end might be missed
	k.kids = nil
	for _, r := range ended {
		if r.Heir > 0 && k.lead(r, r.Heir) {
			continue
		}
		if r.Console {
			takeTerminal()
		}
		left := k.anyLeft(r)
		if !left {
			k.table.becomeEmpty(r)
		}
		k.leaderEnded(r, left)
		failpoint.Hit("untold")
		k.tellExited(r)
	}
	for _, r := range k.table.left {
		if r.watch == 0 {
			k.recheck(r)
		}
	}
}

// recheck tells when nothing is left of a run whose leader has ended.
func (k *keeper) recheck(r *run) {
	if k.anyLeft(r) {
		if r.Killing {
			k.killAll(r)
		}
		return
	}
	k.becomeEmpty(r)
}

// strays are the children of ours that belong to a session of that run, and
// are the leader of none: what its processes left behind.
func (k *keeper) strays(r *run) []int {
	if k.kids == nil {
		k.kids = map[int][]int{}
		for _, pid := range mayBeLeft(k.pid) {
			if k.table.pids[pid] != nil || pid == k.sup.Pid {
				continue
			}
			if sid, err := unix.Getsid(pid); err == nil {
				k.kids[sid] = append(k.kids[sid], pid)
			}
		}
	}
	var pids []int
	for _, sid := range r.Sids {
		pids = append(pids, k.kids[sid]...)
	}
	return pids
}

// main makes another process the leader of a run: at once if it is our child,
// else when its parent, the present leader, has ended.
func (k *keeper) main(m ipc.Main) {
	r := k.table.runs[m.Run]
	if r == nil || r.State == ipc.RunSpawning || r.Emptied || m.Pid <= 1 || k.lead(r, m.Pid) {
		return
	}
	if r.State == ipc.RunRunning {
		r.Heir = m.Pid
	}
}

// lead makes a child of ours, which leads no other run, the leader of one.
func (k *keeper) lead(r *run, pid int) bool {
	st, err := readStat(pid)
	if err != nil || st.ppid != k.pid || st.zombie || k.table.pids[pid] != nil || pid == k.sup.Pid || pid == k.shell.Pid {
		return false
	}
	k.unwatch(r)
	k.children.know(pid)
	k.table.becomeLed(r, pid, st.pgid, st.sid, st.start)
	return true
}
