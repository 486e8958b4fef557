package main

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

const (
	// stopMost is how long the looks at runs that are being stopped may be put off.
	stopMost = time.Second
	// maxOwed bounds the signals that are owed to the processes of one run.
	maxOwed = 8
	// payAtOnce is how many runs are paid in one turn.
	payAtOnce = 16
)

// stopPause is the time between two looks at runs that are being stopped, and crowd how
// many of them are so many that their ends are taken together. Variables so that tests
// can have more time and fewer runs.
var (
	stopPause = 5 * time.Millisecond
	crowd     = 1000
)

// stops are the runs that are being stopped.
//
// A signal to all of a run reaches its groups at once. Whoever has left them has to be
// looked for, which takes longer than all the rest of a stop and mostly finds nobody:
// so the run owes them the signal until its leader has ended and something is left, or
// until for a moment no such leader has ended.
//
// The kernel looks for a child that has ended in the list of all, and while many are
// about to end those that have are far apart. So the ends of a crowd are taken every
// few milliseconds, when it has ended in numbers.
type stops struct {
	owing map[ipc.RunID]*run
	at    time.Duration // of the next look, 0 for none
	since time.Duration // the first of them
	ended bool          // one has, since the last look
}

// crowded says that ends of children are to be taken at the next look.
func (k *keeper) crowded() bool { return len(k.stops.owing) >= crowd && !k.end.begun }

// signal obeys an order to signal a run, as soon as it has a process.
func (k *keeper) signal(m ipc.Signal) {
	r := k.table.runs[m.Run]
	if r == nil {
		return
	}
	r.Ordered++
	if r.Spawned.Pid == 0 && len(r.Signals) < lastSignal {
		r.Signals = append(r.Signals, m)
		return
	}
	k.deliver(r, m)
}

// deliver sends a signal to what there is of a run.
func (k *keeper) deliver(r *run, m ipc.Signal) {
	if r.Spawned.Pid == 0 || r.Emptied || m.Sig < 1 || m.Sig > lastSignal {
		return
	}
	sig := unix.Signal(m.Sig)
	r.Killing = m.Scope == ipc.ScopeAll && sig == unix.SIGKILL
	if r.State == ipc.RunExited {
		r.Signalled = true
		k.recheckPause = 0
	}
	switch m.Scope {
	case ipc.ScopeLeader:
		if k.table.leads(r) {
			unix.Kill(r.Spawned.Pid, sig)
		}
	case ipc.ScopeGroup:
		signalGroups(r, sig)
	case ipc.ScopeAll:
		k.signalAll(r, sig)
	default:
		k.log.warn("a signal has an unknown scope", "scope", string(m.Scope), "run", m.Run)
	}
}

func signalGroups(r *run, sig unix.Signal) {
	for _, g := range r.Groups {
		unix.Kill(-g, sig)
	}
}

// signalAll sends a signal to all that is left of a run.
func (k *keeper) signalAll(r *run, sig unix.Signal) {
	if sig == unix.SIGKILL {
		k.killAll(r)
		return
	}
	signalGroups(r, sig)
	if len(r.Owed) == maxOwed {
		k.pay(r)
	}
	r.Owed = append(r.Owed, sig)
	if r.State == ipc.RunExited {
		k.pay(r) // no end of a leader will tell when to
		return
	}
	k.owe(r)
}

// owe notes that a run owes signals.
func (k *keeper) owe(r *run) {
	s := &k.stops
	s.owing[r.ID] = r
	if s.at == 0 {
		s.since = monotonic()
		s.at = s.since + stopPause
	}
}

// pay sends those who have left the groups of a run the signals that they are owed.
func (k *keeper) pay(r *run) {
	owed := r.Owed
	k.settled(r)
	for _, pid := range k.outsiders(r) {
		for _, sig := range owed {
			unix.Kill(pid, sig)
		}
	}
}

// settled notes that a run owes nothing.
func (k *keeper) settled(r *run) {
	r.Owed = nil
	delete(k.stops.owing, r.ID)
}

// leaderEnded pays what is owed to what is left of a run.
func (k *keeper) leaderEnded(r *run, left bool) {
	if len(r.Owed) == 0 {
		return
	}
	k.stops.ended = true
	if !left {
		k.settled(r)
		return
	}
	r.Signalled = true
	k.pay(r)
}

// dueStops takes the ends of a crowd, and pays what runs owe that do not end.
func (k *keeper) dueStops(now time.Duration, at func(time.Duration) bool) {
	s := &k.stops
	if !at(s.at) {
		return
	}
	k.reap()
	if s.at = now + stopPause; !s.ended || now-s.since > stopMost {
		n := 0
		for _, r := range s.owing {
			if n++; n > payAtOnce {
				s.at = now + 1
				break
			}
			k.pay(r)
		}
	}
	s.ended = false
	if len(s.owing) == 0 {
		s.at = 0
	}
	at(s.at)
	if !k.childless {
		k.children.wait()
	}
}

// killAll kills all that is left of a run. What it misses, because it is being
// forked now or is the child of a process that has not died yet, is found by recheck.
func (k *keeper) killAll(r *run) {
	k.settled(r)
	if r.Cgroup != "" {
		signalGroups(r, unix.SIGKILL)
		killCgroup(r.Cgroup)
		return
	}
	outsiders := k.outsiders(r) // before the first dies and hands its children to pid1
	signalGroups(r, unix.SIGKILL)
	for _, pid := range outsiders {
		unix.Kill(pid, unix.SIGKILL)
	}
}

// outsiders are the processes of a run that are in none of its groups: those of its
// cgroup, or else those of its sessions.
func (k *keeper) outsiders(r *run) []int {
	var members []int
	if r.Cgroup != "" {
		members = cgroupMembers(r.Cgroup)
	} else {
		k.kids = nil
		members = k.strays(r)
		if k.table.leads(r) {
			members = append(members, r.Spawned.Pid)
		}
		members = withDescendants(members)
	}
	return slices.DeleteFunc(members, func(pid int) bool {
		pgid, err := unix.Getpgid(pid)
		if err != nil || slices.Contains(r.Groups, pgid) {
			return true
		}
		if r.Cgroup != "" {
			return false
		}
		sid, err := unix.Getsid(pid)
		return err != nil || !slices.Contains(r.Sids, sid)
	})
}
