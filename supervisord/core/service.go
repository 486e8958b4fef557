package core

import (
	"cmp"
	"slices"
	"strings"
	"syscall"

	"github.com/threefoldtech/zinit/common/spec"
)

// State is where a service stands.
type State uint8

// The states.
const (
	StateInactive State = iota
	StateBlocked
	StateStarting
	StateRunning
	StateStopping
	StateExited
	StateFailed
)

var stateNames = [...]string{"inactive", "blocked", "starting", "running", "stopping", "exited", "failed"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "?"
}

// active says that a service of that state has, or may have, its process.
func (s State) active() bool { return s == StateStarting || s == StateRunning || s == StateStopping }

// HaltFor is for whose sake a service is to stop.
type HaltFor uint8

// The reasons of a stop that is no failure.
const (
	HaltNone       HaltFor = iota
	HaltUser               // stopped by hand
	HaltRestart            // restarted by hand
	HaltDependency         // something it requires goes away
	HaltShutdown           // zinit ends
)

// Run is one execution of one command.
type Run struct {
	ID   RunID `msgpack:"id"`
	Role Role  `msgpack:"role"`
	// Pid is 0 until it has been spawned.
	Pid       int    `msgpack:"pid,omitempty"`
	StartTime uint64 `msgpack:"start_time,omitempty"`
	// Exited says that its leader has ended. A run of which nothing is left
	// is taken from its service.
	Exited bool `msgpack:"exited,omitempty"`
	// Signals counts the signals ordered for it and Last holds the latest of
	// them, so that recovery can order again those that pid1 was never told.
	Signals int      `msgpack:"signals,omitempty"`
	Last    []Signal `msgpack:"last,omitempty"`
	// Waiting are the signals that a user asked for before it was spawned, or
	// before that was known.
	Waiting []int `msgpack:"waiting,omitempty"`
}

// Record is all that has to be known about a service after a crash, beside
// its configuration.
type Record struct {
	Name string `msgpack:"name"`
	// Since is when it got into its state, StoppedAt when it was stopped by hand, 0
	// where the wish for it is another.
	Since     Time `msgpack:"since"`
	StoppedAt Time `msgpack:"stopped_at,omitempty"`

	// What takes a byte is side by side: there is a record for each service.

	State State `msgpack:"state"`
	// Up is the wish.
	Up bool `msgpack:"up"`
	// Due says that it is to be started as soon as it is down and nothing is
	// in the way.
	Due bool `msgpack:"due,omitempty"`
	// UnderWay says of a due service that nothing but time is needed for it to
	// start, as far as is known: whatever it waits for is itself under way.
	UnderWay bool `msgpack:"under_way,omitempty"`
	// Halt says that it is to be stopped as soon as its dependents are, HaltBy
	// names the dependency that is the cause of it.
	Halt HaltFor `msgpack:"halt,omitempty"`
	// Signalled says that its stop signal was ordered, Killed that it had to be
	// killed.
	Signalled bool `msgpack:"signalled,omitempty"`
	Killed    bool `msgpack:"killed,omitempty"`
	// Cleaning says that its last run has left something behind, which is being
	// ended.
	Cleaning bool `msgpack:"cleaning,omitempty"`
	// Done says that a oneshot has ended by itself with success.
	Done bool `msgpack:"done,omitempty"`
	// Removed says that it is in the configuration no more, and forgotten as
	// soon as it is down.
	Removed bool `msgpack:"removed,omitempty"`
	// Shell says that an emergency shell was asked for because of this failure.
	Shell bool `msgpack:"shell,omitempty"`

	HaltBy string `msgpack:"halt_by,omitempty"`
	// Deadline: Starting: the start timeout. Running: the watchdog. Stopping:
	// the time for what was tried last. Exited, Failed: the next start. With
	// Cleaning: SIGKILL for what its last run left behind.
	Deadline Time `msgpack:"deadline,omitempty"`
	// Failure is why it is being stopped, if that is a failure.
	Failure *Reason `msgpack:"failure,omitempty"`
	// StopTrouble is how stop_exec has failed since its last start.
	StopTrouble string `msgpack:"stop_trouble,omitempty"`
	// Restarts counts them in a row, Total all.
	Restarts int `msgpack:"restarts,omitempty"`
	Total    int `msgpack:"total,omitempty"`
	// StartedAt is when it was last started, ReadyAt when it became Running, 0
	// where that start has not got so far.
	StartedAt Time `msgpack:"started_at,omitempty"`
	ReadyAt   Time `msgpack:"ready_at,omitempty"`
	// First is how it came up for the first time.
	First First `msgpack:"first,omitempty"`
	// Reason is why it is Failed; End how its last run ended.
	Reason *Reason `msgpack:"reason,omitempty"`
	End    *End    `msgpack:"end,omitempty"`
	// Runs are the runs that have, or may have, processes: at most one of the
	// service itself, and those of its pre_start and stop_exec.
	Runs []*Run `msgpack:"runs,omitempty"`
	// LastMain and PrevMain are its newest main run and the one before, LastRun
	// is that of its pre_start where that is newer.
	LastMain RunID `msgpack:"last_main,omitempty"`
	PrevMain RunID `msgpack:"prev_main,omitempty"`
	LastRun  RunID `msgpack:"last_run,omitempty"`
	// StatusText is what it said of itself.
	StatusText string `msgpack:"status_text,omitempty"`
	// Health is what its probes have found out since its last start, nil
	// before the first result.
	Health *Health `msgpack:"health,omitempty"`
}

// First is how a service came up for the first time since zinit began: 0 is not
// yet.
type First struct {
	Wanted Time `msgpack:"wanted,omitempty"`
	// Spawned is when it, or its pre_start, became a process.
	Spawned Time `msgpack:"spawned,omitempty"`
	// Ready is when it was Running, or a oneshot done.
	Ready Time `msgpack:"ready,omitempty"`
	// WaitedFor is the service that was in its way last, "" for none.
	WaitedFor string `msgpack:"waited_for,omitempty"`
}

type service struct {
	Record
	spec *spec.Service
	// broken is why it can never be started as it is configured.
	broken *Reason
	// blocks are what a due start waits for, as of the last look.
	blocks []Block
	// heapIndex is its place among the deadlines, -1 for none.
	heapIndex int
	// users and followers count the engaged services that require this one
	// and that come after it; counted says that it is engaged itself and
	// counts with those that it requires and comes after; loose says that it
	// never does.
	users, followers int
	counted, loose   bool
	// watched says that zinit-healthd is needed for it; probe is how it is probed
	// now.
	watched bool
	probe   Probe
}

func byName(a, b *service) int { return strings.Compare(a.Name, b.Name) }

// comingBack says that a service which is down starts again by itself, unless
// something gets in the way.
func (s *service) comingBack() bool {
	if s.Due {
		return !s.Reason.ofDependency()
	}
	return s.waiting()
}

// waiting says that a service is down until its next start by itself.
func (s *service) waiting() bool {
	return (s.State == StateExited || s.State == StateFailed) && s.Deadline > 0 && !s.Cleaning
}

// engaged says that what a service requires cannot stop yet: for its own sake,
// or for that of others which require it and are up while it is down.
func (s *service) engaged() bool {
	return s.State.active() || s.Halt != HaltNone || s.users > 0 && !s.Done && s.broken == nil
}

// main returns the run of the service itself, nil if nothing is left of it.
func (s *service) main() *Run { return s.find(func(r *Run) bool { return r.Role == RoleMain }) }

// running returns a run of that role whose leader has not ended.
func (s *service) running(role Role) *Run {
	return s.find(func(r *Run) bool { return r.Role == role && !r.Exited })
}

func (s *service) find(ok func(*Run) bool) *Run {
	if i := slices.IndexFunc(s.Runs, ok); i >= 0 {
		return s.Runs[i]
	}
	return nil
}

// pid returns the pid of the service, 0 while it has none.
func (s *service) pid() int {
	if r := s.running(RoleMain); r != nil {
		return r.Pid
	}
	return 0
}

// satisfied says that a service which requires this one may start.
func (s *service) satisfied() bool {
	return s.Halt == HaltNone && (s.State == StateRunning || s.State == StateExited && s.Done && !s.Due)
}

// upOrComing says that a service does what a wish for it would bring about.
func (s *service) upOrComing() bool {
	return s.satisfied() || s.Up && (s.comingBack() || s.State.active())
}

// holds says that a running service which requires this one may go on running.
func (s *service) holds() bool {
	if s.Halt != HaltNone {
		return false
	}
	switch s.State {
	case StateStarting, StateRunning, StateStopping: // Stopping without Halt: it failed, and may come back
		return true
	case StateExited:
		return s.Done || s.comingBack()
	case StateFailed:
		return s.comingBack()
	case StateInactive, StateBlocked: // on its way: behind what its last run left, or newly required
		return s.Due && s.UnderWay
	}
	return false
}

// The become functions are the only ones that change a state.

func (c *Core) become(s *service, to State) {
	from := s.State
	s.State = to
	s.Since = c.now
	s.blocks = nil
	if !s.Cleaning {
		c.setDeadline(s, 0)
	}
	for _, p := range c.proxiesOf[s.Name] {
		p.missed = p.missed || to == StateInactive || to == StateExited || to == StateFailed
	}
	c.count(s)
	c.watch(s)
	c.do(Changed{Service: s.Name, From: from, To: to, Pid: s.pid(), Reason: s.Reason, Run: s.LastRun})
	c.touch(s)
}

// A halt outlasts the process: it is settleStop that ends it, when all
// dependents are down, so that what this service requires waits for them too.

func (c *Core) becomeInactive(s *service) {
	s.Reason, s.Failure, s.Killed = nil, nil, false
	c.become(s, StateInactive)
}

func (c *Core) becomeBlocked(s *service) {
	s.Reason = nil
	c.become(s, StateBlocked)
}

func (c *Core) becomeStarting(s *service) {
	s.Due, s.Done, s.Shell, s.StopTrouble = false, false, false, ""
	s.Reason, s.Failure, s.Killed, s.End, s.StatusText, s.Health = nil, nil, false, nil, "", nil
	s.StartedAt, s.ReadyAt = c.now, 0
	if s.spec.Kind == spec.KindTarget {
		c.becomeRunning(s)
		return
	}
	c.become(s, StateStarting)
	if len(s.spec.Lifecycle.PreStart) > 0 {
		c.spawn(s, RolePre)
	} else {
		c.spawn(s, RoleMain)
	}
	if t := s.spec.Lifecycle.StartTimeout; t > 0 {
		c.setDeadline(s, c.now+Time(t))
	}
}

func (c *Core) becomeRunning(s *service) {
	s.Reason = nil
	if h := s.Health; h != nil && h.Failures > 0 { // while it was starting, they did not count
		c.setHealth(s, Health{Generation: h.Generation, At: h.At})
	}
	c.become(s, StateRunning)
	s.ReadyAt = c.now
	s.First.Ready = cmp.Or(s.First.Ready, c.now)
	if w := s.spec.Lifecycle.Watchdog; w > 0 {
		c.setDeadline(s, c.now+Time(w))
	}
}

// becomeStopping begins the end of an active service: by stop_exec if it has
// one and is up, then by its signal. A target has no process and is down at
// once.
func (c *Core) becomeStopping(s *service) {
	if s.State == StateRunning && len(s.Runs) == 0 {
		c.becomeInactive(s)
		return
	}
	wasRunning := s.State == StateRunning
	s.Signalled, s.Killed = false, false
	c.become(s, StateStopping)
	if c.shutdown != nil && c.shutdown.Killed {
		s.Killed = true
		c.kill(s)
		return
	}
	if wasRunning && len(s.spec.Lifecycle.StopExec) > 0 && s.spec.Lifecycle.StopTimeout > 0 && s.pid() != 0 {
		c.spawn(s, RoleStop)
		c.setDeadline(s, c.now+Time(s.spec.Lifecycle.StopTimeout))
		return
	}
	c.terminate(s)
}

// becomeExited ends a run without a failure. What is left of it stays until
// the next start or stop.
func (c *Core) becomeExited(s *service) {
	s.Reason, s.Failure, s.Killed = nil, nil, false
	c.become(s, StateExited)
}

func (c *Core) becomeFailed(s *service, why *Reason) {
	s.Reason = why
	s.Failure, s.Killed = nil, false
	c.become(s, StateFailed)
}

// terminate sends the stop signal to all that is left of a service, which may
// not have its process yet, and gives it the time to go. One that has no time
// is killed at once, which is no failure then.
func (c *Core) terminate(s *service) {
	s.Signalled = true
	c.setDeadline(s, 0)
	if t := s.spec.Lifecycle.StopTimeout; t > 0 {
		c.setDeadline(s, c.now+Time(t))
	}
	for _, r := range s.Runs {
		c.signalStop(s, r)
	}
}

// signalStop sends a run its stop signal, if it has a process by now. A
// stop_exec that still runs has had its time.
func (c *Core) signalStop(s *service, r *Run) {
	sig := s.spec.Lifecycle.StopSignal
	switch {
	case s.spec.Lifecycle.StopTimeout == 0, r.Role == RoleStop && !r.Exited:
		sig = int(syscall.SIGKILL)
	case r.Role != RoleMain:
		sig = int(syscall.SIGTERM)
	case s.Name == c.opts.Main && c.shutdown != nil && c.shutdown.MainSignal != 0:
		sig = c.shutdown.MainSignal
	}
	c.signal(s, r, sig)
	if sig != int(syscall.SIGKILL) {
		c.signal(s, r, int(syscall.SIGCONT)) // or a stopped process would never see it
	}
}

// kill sends SIGKILL to all that is left of a service. There is no deadline
// after it: a process that the kernel cannot end is reported, not wished away.
func (c *Core) kill(s *service) {
	c.save(s)
	c.setDeadline(s, 0)
	for _, r := range s.Runs {
		c.signal(s, r, int(syscall.SIGKILL))
	}
}

func (c *Core) signal(s *service, r *Run, sig int) { c.order(s, r, sig, ScopeAll) }

// lastSignals is how many signals of a run are kept for recovery: more than
// the core itself orders in one step.
const lastSignals = 8

// pass sends a run the signal that a user asks for, as soon as it has a process.
func (c *Core) pass(s *service, r *Run, sig int) {
	if r.Pid != 0 {
		c.order(s, r, sig, ScopeGroup)
	} else if len(r.Waiting) < lastSignals/2 {
		r.Waiting = append(slices.Clip(r.Waiting), sig)
		c.save(s)
	}
}

// order has a signal sent to a run, if it has a process by now.
func (c *Core) order(s *service, r *Run, sig int, scope Scope) {
	if r.Pid == 0 {
		return
	}
	a := Signal{Run: r.ID, Signal: sig, Scope: scope}
	r.Signals++
	// Into a new array: copies of the record share the old one.
	r.Last = slices.Concat(r.Last[max(0, len(r.Last)+1-lastSignals):], []Signal{a})
	c.do(a)
	c.save(s)
}

func (c *Core) spawn(s *service, role Role) {
	c.lastRun++
	c.dirtyGlobal = true
	a := Spawn{Run: c.lastRun, Role: role, Service: s.spec, MainPid: s.pid()}
	s.Runs = append(s.Runs, &Run{ID: a.Run, Role: role})
	c.runs[a.Run] = s
	if role == RoleMain {
		s.PrevMain, s.LastMain = s.LastMain, a.Run
	}
	if role != RoleStop {
		s.LastRun = a.Run
	}
	c.do(a)
	c.save(s)
}

// gone takes a run of which nothing is left from its service.
func (c *Core) gone(s *service, r *Run) {
	delete(c.runs, r.ID)
	s.Runs = slices.DeleteFunc(s.Runs, func(o *Run) bool { return o == r })
	c.do(Forget{Run: r.ID})
	c.touch(s)
}
