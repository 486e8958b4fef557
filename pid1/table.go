package main

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

const (
	// maxRuns bounds the run table.
	maxRuns = 1 << 16
	// maxEarly bounds the exits that wait for the answer of a fork.
	maxEarly = 1 << 13
)

// run is one execution of one command, from its order until Forget.
//
// It is born spawning, becomes running when execve has succeeded, exited when
// its leader has been reaped, and is emptied when nothing of its process
// groups, its session and its cgroup is left. While it is spawning its pid is
// 0 or that of the exec helper, which turns into the program. There are as many as
// services, so it is kept small, and of another size than what lives for a moment:
// those would lie between them, and what is left of them could not be given back.
type run struct {
	ID    ipc.RunID
	Tag   string
	State ipc.RunState
	// Spawned holds the pid of the leader, Exited its end once it has ended; until
	// then it is nil, or zero in a state that another pid1 has written.
	Spawned ipc.Spawned
	Exited  *ipc.Exited
	// EmptiedSeq is the number of its Emptied message, 0 if there was none.
	EmptiedSeq uint64
	// Pipes are the names under which its read ends are stored, in order.
	Pipes []string
	// Groups are its process groups and Sids its sessions: those of the first
	// leader, and of each child that MAINPID= made the leader. A console run
	// lives in a session that is not its own, so it has no Sids.
	Groups, Sids []int
	// Cgroup is the path of its own cgroup, "" for none, and watch the number
	// of the inotify watch that tells when nothing is left in it, 0 for none.
	Cgroup string
	watch  int
	// early is an end that was seen before it was known whether execve has
	// succeeded.
	early *childEnd
	// Ordered counts the Signal orders for it, and Signals are those that came
	// before its pid was known.
	Ordered int
	Signals []ipc.Signal
	// Owed are signals that its groups have had, and those who have left them not.
	Owed []unix.Signal
	// Heir is a process that is to be the leader as soon as it is our child.
	Heir             int
	Emptied, Console bool
	// Killing says that the last order was to kill all of it: whatever turns
	// up later is killed as well.
	Killing bool
	// Signalled says that a signal was sent after the leader's end, which may
	// have ended processes whose parent is somebody else: they are looked for
	// by time, because no SIGCHLD tells of them.
	Signalled bool
}

// childEnd is what the kernel tells of a child that has ended.
type childEnd struct {
	pid          int
	code, signal int
	core         bool
	cpu, maxRSS  int64
	at           time.Duration // CLOCK_MONOTONIC
}

// request is a signal from outside that the supervisor has not acknowledged.
type request struct {
	Seq uint64
	At  time.Duration
}

// table is what pid1 knows of its children. It is plain data: it makes no
// system call and takes the time, which is CLOCK_MONOTONIC, from its caller. It
// belongs to the keeper's goroutine.
type table struct {
	runs     map[ipc.RunID]*run
	pids     map[int]*run // leaders that are not reaped
	left     map[ipc.RunID]*run
	early    map[int]childEnd
	lost     bool // an end was not noted in early, for lack of room
	requests map[int]request
	seq      uint64
	// unacked holds the messages that wait for Ack, and when they were told to
	// the present supervisor; 0 if they were not.
	unacked map[uint64]time.Duration
}

func newTable() *table {
	return &table{
		runs:     map[ipc.RunID]*run{},
		pids:     map[int]*run{},
		left:     map[ipc.RunID]*run{},
		early:    map[int]childEnd{},
		requests: map[int]request{},
		unacked:  map[uint64]time.Duration{},
	}
}

// number gives the next message that has to be acknowledged its number.
func (t *table) number() uint64 {
	t.seq++
	t.unacked[t.seq] = 0
	return t.seq
}

// add makes a run that is being spawned.
func (t *table) add(sp *ipc.Spawn) *run {
	r := &run{ID: sp.Run, Tag: sp.Tag, State: ipc.RunSpawning, Cgroup: sp.Cgroup, Console: sp.Console}
	r.Spawned.Run = sp.Run
	for _, p := range sp.Pipes {
		r.Pipes = append(r.Pipes, p.Name)
	}
	t.runs[r.ID] = r
	return r
}

// forked notes the pid of a run that is being spawned, and its end if that
// came first. The kernel does not give a pid again while it is the number of
// a group or a session, so older owners of that number are empty: they are
// returned.
func (t *table) forked(r *run, pid int, since time.Duration) (empty []*run) {
	for _, old := range t.left {
		if old != r && slices.Contains(old.Groups, pid) {
			empty = append(empty, old)
		}
	}
	r.Spawned.Pid = pid
	r.Groups = []int{pid}
	if !r.Console {
		r.Sids = []int{pid}
	}
	if end, ok := t.takeEarly(pid, since); ok {
		r.early = &end
	} else {
		t.pids[pid] = r
	}
	return empty
}

// noteEarly keeps the end of a child that nobody knows while a fork is under
// way whose answer may name it.
func (t *table) noteEarly(end childEnd) {
	if len(t.early) >= maxEarly {
		t.lost = true
		return
	}
	t.early[end.pid] = end
}

// takeEarly returns the end of a child that was forked after since.
func (t *table) takeEarly(pid int, since time.Duration) (childEnd, bool) {
	end, ok := t.early[pid]
	if !ok || end.at < since {
		return childEnd{}, false
	}
	delete(t.early, pid)
	return end, true
}

// forksDone forgets the early ends: nobody will ask for them.
func (t *table) forksDone() {
	clear(t.early)
	t.lost = false
}

func (t *table) becomeRunning(r *run, startTime uint64, at time.Duration) {
	r.State = ipc.RunRunning
	r.Spawned.StartTime, r.Spawned.At = startTime, int64(at)
}

// becomeExited notes the end of the leader.
func (t *table) becomeExited(r *run, end childEnd) {
	t.unlead(r)
	r.State = ipc.RunExited
	r.Exited = &ipc.Exited{
		Seq: t.number(), Run: r.ID, Left: true, At: int64(end.at),
		Code: end.code, Signal: end.signal, Core: end.core,
		CPU: end.cpu, MaxRSS: end.maxRSS,
	}
	t.left[r.ID] = r
}

// becomeLed gives a run a new leader, which is a child of ours. A run whose
// leader had ended is running again.
func (t *table) becomeLed(r *run, pid, pgid, sid int, startTime uint64) {
	t.unlead(r)
	delete(t.left, r.ID)
	t.untell(r)
	r.State, r.Exited, r.Signalled, r.Heir = ipc.RunRunning, nil, false, 0
	r.Spawned.Pid, r.Spawned.StartTime = pid, startTime
	r.Groups = addMember(r.Groups, pgid)
	if !r.Console {
		r.Sids = addMember(r.Sids, sid)
	}
	t.pids[pid] = r
}

// unlead notes that a run has no leader.
func (t *table) unlead(r *run) {
	if t.leads(r) {
		delete(t.pids, r.Spawned.Pid)
	}
}

// leads says whether the leader of a run is not reaped.
func (t *table) leads(r *run) bool { return t.pids[r.Spawned.Pid] == r }

// addMember adds a number to a short list, in place of the last if it is full.
func addMember(list []int, n int) []int {
	const most = 8
	switch {
	case n <= 1 || slices.Contains(list, n):
		return list
	case len(list) == most:
		list[most-1] = n
		return list
	}
	return append(list, n)
}

// becomeEmpty notes that nothing is left of a run whose leader has ended.
func (t *table) becomeEmpty(r *run) {
	r.Emptied, r.Exited.Left = true, false
	delete(t.left, r.ID)
}

// remove takes a run out of the table, together with what is unacknowledged
// of it.
func (t *table) remove(r *run) {
	t.unlead(r)
	delete(t.left, r.ID)
	t.untell(r)
	delete(t.unacked, r.EmptiedSeq)
	delete(t.runs, r.ID)
}

// untell ends the telling of the end of a run's leader, if it has ended.
func (t *table) untell(r *run) {
	if r.Exited != nil {
		delete(t.unacked, r.Exited.Seq)
	}
}

// request notes a signal from outside. It is told once until it has been
// acknowledged, however often it comes.
func (t *table) request(sig int, now time.Duration) (seq uint64, fresh bool) {
	if r, ok := t.requests[sig]; ok {
		return r.Seq, false
	}
	r := request{t.number(), now}
	t.requests[sig] = r
	return r.Seq, true
}

// requested returns the signals that are not acknowledged, in the order in which
// they came: the supervisor takes a number that is lower than the last for one
// that it has had.
func (t *table) requested() []int {
	return slices.SortedFunc(maps.Keys(t.requests), func(a, b int) int {
		return cmp.Compare(t.requests[a].Seq, t.requests[b].Seq)
	})
}

// ack ends the telling of a message.
func (t *table) ack(seq uint64) {
	delete(t.unacked, seq)
	for sig, r := range t.requests {
		if r.Seq == seq {
			delete(t.requests, sig)
		}
	}
}

// told notes that a message is with the supervisor.
func (t *table) told(seq uint64, now time.Duration) {
	if _, ok := t.unacked[seq]; ok {
		t.unacked[seq] = now
	}
}

// oldest returns when the message was told that has waited longest for its
// Ack.
func (t *table) oldest() (at time.Duration, ok bool) {
	for _, told := range t.unacked {
		if told != 0 && (!ok || told < at) {
			at, ok = told, true
		}
	}
	return at, ok
}

// polled says of a run whose leader has ended that it has to be looked at by
// time: it was signalled and has no watch, or it is being killed, and whoever
// was being forked meanwhile may have been missed.
func (r *run) polled() bool { return r.Killing || r.Signalled && r.watch == 0 }

// describe is a run as a new supervisor is told of it.
func (r *run) describe() ipc.Run {
	m := ipc.Run{Run: r.ID, Tag: r.Tag, State: r.State, Emptied: r.Emptied, Signals: r.Ordered}
	if r.State != ipc.RunSpawning {
		s := r.Spawned
		m.Spawned = &s
	}
	if r.State == ipc.RunExited {
		e := *r.Exited
		m.Exited = &e
	}
	return m
}
