package main

import (
	"slices"
	"time"

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
// 0 or that of the exec helper, which turns into the program.
type run struct {
	id    ipc.RunID
	tag   string
	state ipc.RunState
	// spawned holds the pid of the leader, exited its end once it has ended.
	spawned ipc.Spawned
	exited  ipc.Exited
	emptied bool
	// emptiedSeq is the number of its Emptied message, 0 if there was none.
	emptiedSeq uint64
	// pipes are the names under which its read ends are stored, in order.
	pipes []string
	// groups are its process groups and sids its sessions: those of the first
	// leader, and of each child that MAINPID= made the leader. A console run
	// lives in a session that is not its own, so it has no sids.
	groups, sids []int
	// cgroup is the path of its own cgroup, "" for none, and watch the number
	// of the inotify watch that tells when nothing is left in it, 0 for none.
	cgroup  string
	watch   int
	console bool
	// early is an end that was seen before it was known whether execve has
	// succeeded.
	early *childEnd
	// ordered counts the Signal orders for it, and signals are those that came
	// before its pid was known.
	ordered int
	signals []ipc.Signal
	// heir is a process that is to be the leader as soon as it is our child.
	heir int
	// killing says that the last order was to kill all of it: whatever turns
	// up later is killed as well.
	killing bool
	// signalled says that a signal was sent after the leader's end, which may
	// have ended processes whose parent is somebody else: they are looked for
	// by time, because no SIGCHLD tells of them.
	signalled bool
}

// childEnd is what the kernel tells of a child that has ended.
type childEnd struct {
	pid          int
	code, signal int
	core         bool
	cpu, maxRSS  int64
	at           int64     // CLOCK_MONOTONIC, ns
	seen         time.Time // the same moment
}

// request is a signal from outside that the supervisor has not acknowledged.
type request struct {
	seq uint64
	at  time.Time
}

// table is what pid1 knows of its children. It is plain data: it makes no
// system call and takes the time from its caller. It belongs to the keeper's
// goroutine.
type table struct {
	runs     map[ipc.RunID]*run
	pids     map[int]*run // leaders that are not reaped
	left     map[ipc.RunID]*run
	early    map[int]childEnd
	lost     bool // an end was not noted in early, for lack of room
	requests map[int]request
	seq      uint64
	// unacked holds the messages that wait for Ack, and when they were told to
	// the present supervisor; the zero time if they were not.
	unacked map[uint64]time.Time
}

func newTable() *table {
	return &table{
		runs:     map[ipc.RunID]*run{},
		pids:     map[int]*run{},
		left:     map[ipc.RunID]*run{},
		early:    map[int]childEnd{},
		requests: map[int]request{},
		unacked:  map[uint64]time.Time{},
	}
}

// number gives the next message that has to be acknowledged its number.
func (t *table) number() uint64 {
	t.seq++
	t.unacked[t.seq] = time.Time{}
	return t.seq
}

// add makes a run that is being spawned.
func (t *table) add(sp *ipc.Spawn) *run {
	r := &run{id: sp.Run, tag: sp.Tag, state: ipc.RunSpawning, cgroup: sp.Cgroup, console: sp.Console}
	r.spawned.Run = sp.Run
	for _, p := range sp.Pipes {
		r.pipes = append(r.pipes, p.Name)
	}
	t.runs[r.id] = r
	return r
}

// forked notes the pid of a run that is being spawned, and its end if that
// came first. The kernel does not give a pid again while it is the number of
// a group or a session, so older owners of that number are empty: they are
// returned.
func (t *table) forked(r *run, pid int, since time.Time) (empty []*run) {
	for _, old := range t.left {
		if old != r && slices.Contains(old.groups, pid) {
			empty = append(empty, old)
		}
	}
	r.spawned.Pid = pid
	r.groups = []int{pid}
	if !r.console {
		r.sids = []int{pid}
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
func (t *table) takeEarly(pid int, since time.Time) (childEnd, bool) {
	end, ok := t.early[pid]
	if !ok || end.seen.Before(since) {
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

func (t *table) becomeRunning(r *run, startTime uint64, at int64) {
	r.state = ipc.RunRunning
	r.spawned.StartTime, r.spawned.At = startTime, at
}

// becomeExited notes the end of the leader.
func (t *table) becomeExited(r *run, end childEnd) {
	t.unlead(r)
	r.state = ipc.RunExited
	r.exited = ipc.Exited{
		Seq: t.number(), Run: r.id, Left: true, At: end.at,
		Code: end.code, Signal: end.signal, Core: end.core,
		CPU: end.cpu, MaxRSS: end.maxRSS,
	}
	t.left[r.id] = r
}

// becomeLed gives a run a new leader, which is a child of ours. A run whose
// leader had ended is running again.
func (t *table) becomeLed(r *run, pid, pgid, sid int, startTime uint64) {
	t.unlead(r)
	delete(t.left, r.id)
	delete(t.unacked, r.exited.Seq)
	r.state, r.exited, r.signalled, r.heir = ipc.RunRunning, ipc.Exited{}, false, 0
	r.spawned.Pid, r.spawned.StartTime = pid, startTime
	r.groups = addMember(r.groups, pgid)
	if !r.console {
		r.sids = addMember(r.sids, sid)
	}
	t.pids[pid] = r
}

// unlead notes that a run has no leader.
func (t *table) unlead(r *run) {
	if t.leads(r) {
		delete(t.pids, r.spawned.Pid)
	}
}

// leads says whether the leader of a run is not reaped.
func (t *table) leads(r *run) bool { return t.pids[r.spawned.Pid] == r }

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
	r.emptied, r.exited.Left = true, false
	delete(t.left, r.id)
}

// remove takes a run out of the table, together with what is unacknowledged
// of it.
func (t *table) remove(r *run) {
	t.unlead(r)
	delete(t.left, r.id)
	delete(t.unacked, r.exited.Seq)
	delete(t.unacked, r.emptiedSeq)
	delete(t.runs, r.id)
}

// request notes a signal from outside. It is told once until it has been
// acknowledged, however often it comes.
func (t *table) request(sig int, now time.Time) (seq uint64, fresh bool) {
	if r, ok := t.requests[sig]; ok {
		return r.seq, false
	}
	r := request{t.number(), now}
	t.requests[sig] = r
	return r.seq, true
}

// ack ends the telling of a message.
func (t *table) ack(seq uint64) {
	delete(t.unacked, seq)
	for sig, r := range t.requests {
		if r.seq == seq {
			delete(t.requests, sig)
		}
	}
}

// told notes that a message is with the supervisor.
func (t *table) told(seq uint64, now time.Time) {
	if _, ok := t.unacked[seq]; ok {
		t.unacked[seq] = now
	}
}

// oldest returns when the message was told that has waited longest for its
// Ack.
func (t *table) oldest() (at time.Time, ok bool) {
	for _, told := range t.unacked {
		if !told.IsZero() && (!ok || told.Before(at)) {
			at, ok = told, true
		}
	}
	return at, ok
}

// polled says of a run whose leader has ended that it has to be looked at by
// time: it was signalled and has no watch, or it is being killed, which before
// Linux 6.14 cgroup.kill may fail to do to whoever is being forked.
func (r *run) polled() bool { return r.killing || r.signalled && r.watch == 0 }

// describe is a run as a new supervisor is told of it.
func (r *run) describe() ipc.Run {
	m := ipc.Run{Run: r.id, Tag: r.tag, State: r.state, Emptied: r.emptied, Signals: r.ordered}
	if r.state != ipc.RunSpawning {
		s := r.spawned
		m.Spawned = &s
	}
	if r.state == ipc.RunExited {
		e := r.exited
		m.Exited = &e
	}
	return m
}
