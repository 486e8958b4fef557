package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/failpoint"
	"github.com/threefoldtech/zinit/ipc"
)

const (
	// recheckMin and recheckMax bound the pause between two looks at what is
	// left of runs that were signalled after their leader's end.
	recheckMin = 20 * time.Millisecond
	recheckMax = time.Second
	// fdsAtOnce is how many stored descriptors are on their way to a new
	// supervisor at a time: each may be duplicated while it travels.
	fdsAtOnce = 32
)

// Variables so that tests need not wait.
var (
	// helloTimeout is how long a supervisor may take for its hello, and
	// ackTimeout how long it may leave a message unacknowledged, before it
	// counts as hanging.
	helloTimeout = 20 * time.Second
	ackTimeout   = 20 * time.Second
	// shutdownPatience is how long a request to shut down may wait for a
	// supervisor that takes it, before pid1 ends everything itself.
	shutdownPatience = 30 * time.Second
)

// keeper owns all children: it forks, signals and reaps them, and remembers
// what it did, so that the supervisor that decides about them may be killed at
// any moment. All of it belongs to one goroutine, loop. The others, which read
// the link, look at files and fork, or collect signals, only hand it values.
type keeper struct {
	opt   options
	log   *logger
	pid   int
	start uint64 // of pid1, in clock ticks since boot

	table *table
	store fdStore
	sup   supervisor
	shell emergencyShell
	end   ending

	sigs     *signalSet
	children *childWatch
	launcher *launcher
	inbound  chan inbound
	empties  *emptyWatch
	null     int

	// forking counts the jobs under way whose child is not known yet, and
	// waiting are those that have not begun.
	forking int
	waiting []*job
	// change is the replacement of pid1 that is under way, nil for none.
	change *change
	stops  stops
	// kids are the children that lead no run, by session; nil if not looked up.
	kids map[int][]int
	// childless is true when the last look found no child at all.
	childless bool

	recheckAt    time.Duration
	recheckPause time.Duration
	// ackCheckAt is when to look for messages that wait too long for an Ack.
	ackCheckAt time.Duration
}

// inbound is what a link's reader hands over: frames, that it was flushed, or
// its end.
type inbound struct {
	conn    *ipc.Conn
	frames  []ipc.Frame
	flushed bool
	err     error
}

func newKeeper(opt options, log *logger, sigs *signalSet) *keeper {
	k := &keeper{
		opt: opt, log: log, pid: unix.Getpid(),
		table: newTable(), stops: stops{owing: map[ipc.RunID]*run{}}, store: fdStore{}, empties: newEmptyWatch(),
		sigs: sigs, children: newChildWatch(), inbound: make(chan inbound, 64),
		null: openNull(), shell: emergencyShell{Shown: map[string]bool{}},
	}
	if st, err := readStat(k.pid); err == nil {
		k.start = st.start
	}
	return k
}

// openNull opens /dev/null, or, where there is none, something that reads as
// empty as well.
func openNull() int {
	if fd, err := open("/dev/null", unix.O_RDWR); err == nil {
		return fd
	}
	p, err := makePipe()
	if err != nil {
		return -1
	}
	unix.Close(p[1])
	return p[0]
}

// loop never returns. From here on nothing may end pid1 but exit.
func (k *keeper) loop() {
	timer := time.NewTimer(0)
	for {
		k.turn(timer)
	}
}

// turn waits for one thing, handles it, and does what is due.
func (k *keeper) turn(timer *time.Timer) {
	defer func() {
		if p := recover(); p != nil {
			k.log.panicked("the keeper", p)
		}
	}()
	select {
	case <-k.children.ended:
		k.children.resting = true
		k.reap()
		if !k.childless && !k.crowded() {
			k.children.wait()
		}
	case <-k.sigs.wake:
		k.signalled(k.sigs.take())
	case m := <-k.inbound:
		k.received(m)
	case o := <-k.launcher.outcomes:
		k.launched(o)
	case wds := <-k.empties.changes:
		k.mayBeEmpty(wds)
	case err := <-k.launcher.answers:
		k.answered(err)
	case <-timer.C:
	}
	wake := k.due(monotonic())
	k.children.all.Store(k.forking > 0 || len(k.table.left) > 0 || k.end.begun)
	timer.Stop()
	if wake != 0 {
		timer.Reset(max(0, wake-monotonic()))
	}
}

// due does what its time has come for, and returns when it is to be called
// next; 0 if nothing is waiting.
func (k *keeper) due(now time.Duration) (wake time.Duration) {
	at := func(t time.Duration) bool {
		if t == 0 {
			return false
		}
		if now >= t {
			return true
		}
		if wake == 0 || t < wake {
			wake = t
		}
		return false
	}
	if k.end.begun {
		if k.childless {
			k.exit()
		}
		if at(k.end.killAt) {
			k.killLeft(now)
			at(k.end.killAt)
		}
		return wake
	}
	k.dueChange(at) // these two first, because they handle what sets the times of others
	k.dueStops(now, at)
	k.dueSupervisor(now, at)
	k.dueRecheck(now, at)
	patience := shutdownPatience
	if k.sup.RestartAt > 0 && k.sup.Row > manyDeaths { // there is none, and hardly will be
		patience = 0
	}
	for sig, r := range k.table.requests {
		if action, ends := ipc.HaltOf(sig); ends && at(r.At+patience) {
			k.log.error("no supervisor took the request to shut down: ending everything", "signal", signalName(sig))
			k.halt(ipc.Halt{Action: action, Code: 1})
			return now
		}
	}
	return wake
}

// dueRecheck looks by time for what is left of runs of which nothing else
// tells; more and more seldom, and only while there are some.
func (k *keeper) dueRecheck(now time.Duration, at func(time.Duration) bool) {
	waiting := false
	for _, r := range k.table.left {
		waiting = waiting || r.polled()
	}
	switch {
	case !waiting:
		k.recheckPause, k.recheckAt = 0, 0
		return
	case k.recheckPause == 0:
		k.recheckPause, k.recheckAt = recheckMin, now+recheckMin
	}
	if at(k.recheckAt) {
		k.kids = nil
		for _, r := range k.table.left {
			if r.polled() {
				k.recheck(r)
			}
		}
		k.recheckPause = min(2*k.recheckPause, recheckMax)
		k.recheckAt = now + k.recheckPause
		at(k.recheckAt)
	}
}

// signalled handles the signals of one turn.
func (k *keeper) signalled(sigs []int) {
	for _, sig := range sigs {
		if k.end.begun {
			continue
		}
		// A main command gets it, like all signals that it may have a use for.
		if sig == int(unix.SIGUSR2) && len(k.opt.main) == 0 {
			k.beginChange()
			continue
		}
		// A supervisor that is being told the table hears of it from there, and
		// may hear of it only once: a second SIGTERM means to hurry.
		if seq, fresh := k.table.request(sig, monotonic()); fresh && k.sup.told {
			k.tell(seq, ipc.KindRequested, ipc.Requested{Seq: seq, Signal: sig})
		}
	}
}

// received handles what came from a link. What a dead supervisor has sent
// counts: its link is the present one until all of it is read.
func (k *keeper) received(m inbound) {
	for _, f := range m.frames {
		if m.conn != k.sup.conn || k.end.begun || k.sup.condemned {
			f.CloseFds()
			continue
		}
		k.order(f)
	}
	switch {
	case m.conn != k.sup.conn || k.end.begun:
	case m.err != nil:
		k.linkEnded(m.err)
	case m.flushed && !k.sup.condemned:
		k.tellFds()
	}
}

// order obeys one frame of the supervisor.
func (k *keeper) order(f ipc.Frame) {
	err := k.obey(&f)
	// Whoever wanted a descriptor has taken it out of the frame.
	f.CloseFds()
	if err != nil {
		k.log.error("the supervisor sent what cannot be understood: killing it", "error", err)
		k.killSupervisor()
	}
}

func (k *keeper) obey(f *ipc.Frame) error {
	if !k.sup.Greeted {
		return k.greet(f)
	}
	switch f.Kind {
	case ipc.KindSpawn:
		j := &job{} // an order is most of a job, and the largest of what is sent
		if err := f.Decode(&j.Spawn); err != nil {
			return err
		}
		k.spawn(j)
		return nil
	case ipc.KindBase:
		return decode(f, func(m ipc.Base) { k.sup.Base = m.Env })
	case ipc.KindSignal:
		return decode(f, k.signal)
	case ipc.KindMain:
		return decode(f, k.main)
	case ipc.KindAck:
		return decode(f, func(m ipc.Ack) { k.table.ack(m.Seq) })
	case ipc.KindForget:
		return decode(f, k.forget)
	case ipc.KindStore:
		return decode(f, func(m ipc.Store) { k.keep(m.Name, takeFd(f)) })
	case ipc.KindDrop:
		return decode(f, func(m ipc.Drop) { k.store.drop(m.Name) })
	case ipc.KindLeave:
		return decode(f, func(m ipc.Leave) { k.sup.Leaves = m.Why })
	case ipc.KindHalt:
		return decode(f, k.halt)
	case ipc.KindShell:
		return decode(f, k.emergency)
	}
	k.log.warn("the supervisor sent a message of an unknown kind: ignored", "kind", int(f.Kind))
	return nil
}

// decode reads a message and hands it to do.
func decode[M any](f *ipc.Frame, do func(M)) error {
	var m M
	if err := f.Decode(&m); err != nil {
		return err
	}
	do(m)
	return nil
}

// takeFd takes the first descriptor out of a frame, -1 if it has none.
func takeFd(f *ipc.Frame) int {
	if len(f.Fds) == 0 {
		return -1
	}
	fd := f.Fds[0]
	f.Fds = f.Fds[1:]
	return fd
}

// spawn starts a run, or says again what became of it.
func (k *keeper) spawn(j *job) {
	sp := &j.Spawn
	if r := k.table.runs[sp.Run]; r != nil {
		if r.State != ipc.RunSpawning {
			k.tellSpawned(r)
		}
		if r.State == ipc.RunExited {
			k.tellExited(r)
		}
		return
	}
	refuse := func(err error) {
		k.tell(0, ipc.KindSpawnFailed, ipc.SpawnFailed{
			Run: sp.Run, Stage: ipc.StageFork, Errno: int(errno(err)),
			Message: fmt.Sprintf("cannot start %s: %v", sp.Tag, err),
		})
	}
	if len(k.table.runs) >= maxRuns {
		refuse(fmt.Errorf("pid1 knows %d runs, which is the limit", maxRuns))
		return
	}
	if sp.Based {
		sp.Env, sp.Based = sp.Env.Over(k.sup.Base), false
	}
	if err := j.prepare(k.store, k.null); err != nil {
		refuse(err)
		return
	}
	k.table.add(sp)
	k.launch(j)
}

// launch begins a job, the supervisor's at once.
func (k *keeper) launch(j *job) {
	if (k.forking >= atOnce || k.held()) && j.kind == runJob {
		k.waiting = append(k.waiting, j)
		return
	}
	k.forking++
	k.children.all.Store(true)
	k.launcher.begin(j)
}

// launched takes the outcome of a job: of the supervisor's start, or of a run.
// A job that forks through the helper has two: its pid is known before it has
// executed, so that it can be signalled while it cannot.
func (k *keeper) launched(o outcome) {
	j := o.job
	first := !j.forked
	if first {
		j.forked = true
		k.forking--
		if o.pid > 0 {
			k.children.know(o.pid)
		}
		k.children.wait()
	}
	if o.done {
		j.close(o.fail != nil)
	}
	switch j.kind {
	case supervisorJob:
		k.supervisorLaunched(o, first)
	case shellJob:
		k.shellLaunched(o, first)
	case runJob:
		if r := k.table.runs[j.Spawn.Run]; r != nil && r.State == ipc.RunSpawning {
			k.runLaunched(r, o)
		}
	}
	k.launchWaiting()
	if k.forking == 0 {
		k.table.forksDone()
	}
}

// launchWaiting begins as many of the waiting jobs as may be under way.
func (k *keeper) launchWaiting() {
	for len(k.waiting) > 0 && k.forking < atOnce && !k.held() {
		next := k.waiting[0]
		k.waiting[0] = nil
		k.waiting = k.waiting[1:]
		k.launch(next)
	}
}

func (k *keeper) runLaunched(r *run, o outcome) {
	if o.fail != nil {
		k.settled(r)
		k.table.remove(r)
		k.tell(0, ipc.KindSpawnFailed, *o.fail)
		return
	}
	if r.Spawned.Pid == 0 {
		for _, old := range k.table.forked(r, o.pid, o.since) {
			k.becomeEmpty(old)
		}
		if r.early == nil && k.table.lost && unix.Kill(o.pid, 0) == unix.ESRCH {
			delete(k.table.pids, o.pid)
			r.early = &childEnd{pid: o.pid, code: 255, at: monotonic()}
		}
		for _, m := range r.Signals {
			k.deliver(r, m)
		}
		r.Signals = nil
		if k.end.begun {
			unix.Kill(-o.pid, unix.SIGTERM)
		}
	}
	if !o.done {
		return
	}
	for _, p := range o.job.pipes {
		k.keep(p.name, p.fd)
	}
	if r.early != nil {
		// It may have ended before the clock was read.
		o.at = min(o.at, r.early.at)
	}
	k.table.becomeRunning(r, o.start, o.at)
	failpoint.Hit("unanswered")
	k.tellSpawned(r)
	if end := r.early; end != nil {
		r.early = nil
		k.table.becomeExited(r, *end)
		k.settle([]*run{r})
	}
}

// keep stores a descriptor; -1 stands for one that did not come.
func (k *keeper) keep(name string, fd int) {
	if fd < 0 {
		k.log.warn("a descriptor to store did not come with its name", "name", name)
		return
	}
	if err := k.store.put(name, fd); err != nil {
		k.log.warn(err.Error())
	}
}

// forget ends the life of a run in the table.
func (k *keeper) forget(m ipc.Forget) {
	if r := k.table.runs[m.Run]; r != nil && r.State == ipc.RunExited {
		k.unwatch(r)
		k.table.remove(r)
	}
}

// becomeEmpty notes and tells that nothing is left of a run.
func (k *keeper) becomeEmpty(r *run) {
	k.table.becomeEmpty(r)
	r.EmptiedSeq = k.table.number()
	k.tell(r.EmptiedSeq, ipc.KindEmptied, ipc.Emptied{Seq: r.EmptiedSeq, Run: r.ID})
}
