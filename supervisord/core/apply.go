package core

import (
	"cmp"
	"slices"
	"syscall"

	"github.com/threefoldtech/zinit/common/spec"
)

// Transitions: the event outside, the state inside, every state named.
// Where an event cannot come in a state, the case says so and does nothing:
// events of runs that are over never get here, because their run id is not
// known any more.

func (c *Core) apply(ev Event) {
	switch ev := ev.(type) {
	case Boot:
		c.boot()
	case Wish:
		for _, n := range ev.Names {
			if s := c.services[n]; s != nil && !s.Removed && c.shutdown == nil {
				c.wish(s, ev.Op)
			}
		}
	case Kill:
		if s := c.services[ev.Name]; s != nil {
			for _, r := range s.Runs {
				c.pass(s, r, ev.Signal)
			}
		}
	case Spawned:
		if s, r := c.lookup(ev.Run); s != nil && r.Pid == 0 {
			c.onSpawned(s, r, ev)
		} else if c.strays[ev.Run] {
			c.killStray(ev.Run)
		}
	case SpawnFailed:
		if s, r := c.lookup(ev.Run); s != nil && r.Pid == 0 {
			c.onSpawnFailed(s, r, ev)
		} else if c.strays[ev.Run] {
			c.forgetStray(ev.Run)
		}
	case Exited:
		if s, r := c.lookup(ev.Run); s != nil && !r.Exited {
			c.onExited(s, r, ev)
		} else if c.strays[ev.Run] && !ev.Left {
			c.forgetStray(ev.Run)
		}
	case Emptied:
		if s, r := c.lookup(ev.Run); s != nil && r.Exited {
			c.onEmptied(s, r)
		} else if c.strays[ev.Run] {
			c.forgetStray(ev.Run)
		}
	case Ready:
		if s, r := c.lookup(ev.Run); s != nil && r.Role == RoleMain {
			c.onReady(s)
		}
	case Notify:
		if s, r := c.lookup(ev.Run); s != nil && r.Role == RoleMain {
			c.onNotify(s, r, ev)
		}
	case HelperUp:
		switch ev.Helper {
		case HelperHealth:
			c.tellProbes()
		case HelperProxy:
			c.do(TellProxies{})
		}
	case HelperDown:
		if ev.Helper == HelperHealth {
			c.healthUp, c.healthWhy = false, ev.Why
		}
	case ProbeResult:
		if s, r := c.lookup(ev.Run); s != nil && r.Role == RoleMain && !r.Exited {
			c.onProbe(s, ev)
		}
	case Load:
		c.load(ev)
	case SetProxies:
		c.setProxies(ev.Proxies)
	case Demand:
		c.onDemand(ev)
	case Idle:
		c.onIdle(ev)
	case GateAck:
		c.onGateAck(ev)
	case Stop:
		c.stopAll(ev)
	case Requested:
		if ev.Seq > c.requested {
			c.requested, c.dirtyGlobal = ev.Seq, true
			if ev.Event != nil {
				c.apply(ev.Event)
			}
		}
	case Tick:
	}
}

func (c *Core) lookup(id RunID) (*service, *Run) {
	s := c.runs[id]
	if s == nil {
		return nil, nil
	}
	return s, s.find(func(r *Run) bool { return r.ID == id })
}

func (c *Core) boot() {
	var all []*service
	for _, n := range c.Names() {
		if s := c.services[n]; s.spec.Status == spec.StatusStart && s.State == StateInactive {
			all = append(all, s)
		}
	}
	c.wishUp(all)
}

func (c *Core) wish(s *service, op Op) {
	switch op {
	case OpStart:
		c.wishUp([]*service{s})
	case OpStop:
		c.wishDown(s)
	case OpRestart:
		if s.State.active() || s.State == StateExited && s.Done {
			c.halt(s, HaltRestart, "")
		}
		s.Done = false
		c.wishUp([]*service{s})
	}
}

// wishUp wants services, and with them what they require and want, as far as
// zinit may start that on its own.
func (c *Core) wishUp(todo []*service) {
	seen := make(map[string]bool, len(todo))
	for _, s := range todo {
		seen[s.Name] = true
		c.startByHand(s)
	}
	for ; len(todo) > 0; todo = todo[1:] {
		for _, list := range [][]string{todo[0].spec.Requires, todo[0].spec.Wants} {
			for _, n := range list {
				d := c.services[n]
				if d == nil || seen[n] || d.Removed || d.spec.Status == spec.StatusIgnore {
					continue
				}
				seen[n] = true
				if !d.upOrComing() {
					c.startByHand(d)
				}
				todo = append(todo, d)
			}
		}
	}
}

// startByHand is a wish for one service: what it has done before is forgiven.
func (c *Core) startByHand(s *service) {
	s.Up, s.StoppedAt = true, 0
	s.Restarts = 0
	c.watch(s)
	switch s.State {
	case StateStarting, StateRunning:
		if s.Halt != HaltNone {
			c.due(s)
		}
	case StateStopping, StateInactive, StateBlocked:
		c.due(s)
	case StateExited, StateFailed:
		if !s.Cleaning {
			c.setDeadline(s, 0)
		}
		c.due(s)
	}
	c.touch(s)
}

func (c *Core) wishDown(s *service) {
	s.Up, s.StoppedAt = false, c.now
	c.watch(s)
	c.giveUp(s)
	c.halt(s, HaltUser, "")
}

// giveUp ends what a service that is down would do by itself, and what it
// stands for.
func (c *Core) giveUp(s *service) {
	switch s.State {
	case StateBlocked:
		c.becomeInactive(s)
	case StateExited, StateFailed:
		s.Done = false
		if !s.Cleaning {
			c.setDeadline(s, 0)
		}
	case StateInactive, StateStarting, StateRunning, StateStopping:
	}
}

// due makes a start pending.
func (c *Core) due(s *service) {
	s.Due, s.UnderWay = true, true
	s.First.Wanted = cmp.Or(s.First.Wanted, c.now)
	c.touch(s)
}

// halt makes a stop pending; a service that is not stopped by hand comes back,
// if it is there, or about to be.
func (c *Core) halt(s *service, why HaltFor, by string) {
	switch why {
	case HaltUser, HaltShutdown:
		s.Due = false
	case HaltRestart:
		c.due(s)
	case HaltDependency:
		if waits := s.waiting(); (waits || s.State.active()) && s.Up && s.spec.Status != spec.StatusIgnore {
			c.due(s)
			if waits {
				c.setDeadline(s, 0)
			}
		}
	case HaltNone:
	}
	if s.broken == nil { // those in a cycle, never up, would wait for each other
		s.Halt, s.HaltBy = why, by
	}
	c.count(s)
	c.touch(s)
}

// clean ends what the last run of a service that is down left behind.
func (c *Core) clean(s *service) {
	if s.State.active() || s.Cleaning || len(s.Runs) == 0 {
		return
	}
	s.Cleaning = true
	c.terminate(s)
}

func (c *Core) onSpawned(s *service, r *Run, ev Spawned) {
	r.Pid, r.StartTime = ev.Pid, ev.StartTime
	s.First.Spawned = cmp.Or(s.First.Spawned, c.now)
	c.save(s)
	c.watch(s)
	for _, sig := range r.Waiting {
		c.pass(s, r, sig)
	}
	r.Waiting = nil
	switch s.State {
	case StateStarting:
		if r.Role == RoleMain && !s.spec.Oneshot && s.spec.Lifecycle.Ready == spec.ReadyExec {
			c.becomeRunning(s)
		}
	case StateStopping:
		switch {
		case s.Killed:
			c.signal(s, r, int(syscall.SIGKILL))
		case s.Signalled:
			c.signalStop(s, r)
		}
	case StateRunning:
		// It said that it was ready before pid1 said that it was there.
	case StateInactive, StateBlocked, StateExited, StateFailed:
		// Impossible: these are entered only when no spawn is under way.
	}
}

func (c *Core) onSpawnFailed(s *service, r *Run, ev SpawnFailed) {
	c.gone(s, r)
	why := &Reason{Kind: ReasonSpawn, Message: ev.Message, Code: ev.Code}
	switch {
	case ev.Config:
		why.Kind = ReasonConfig
	case ev.Port != 0:
		why.Kind, why.Port, why.Pid, why.Command = ReasonPort, ev.Port, ev.Pid, ev.Command
	}
	if r.Role != RoleMain {
		why.Message = r.Role.String() + ": " + why.Message
	}
	switch s.State {
	case StateStarting:
		c.becomeFailed(s, why)
		c.ended(s, false)
	case StateStopping:
		if r.Role == RoleStop {
			c.stopTrouble(s, why.Message)
			if len(s.Runs) > 0 && !s.Signalled {
				c.terminate(s)
			}
		}
		c.checkStopped(s)
	case StateRunning, StateInactive, StateBlocked, StateExited, StateFailed:
		// Impossible, as for Spawned.
	}
}

func (c *Core) onExited(s *service, r *Run, ev Exited) {
	r.Exited = true
	if r.Role == RoleMain {
		s.End = &ev.End
	}
	if !ev.Left {
		c.gone(s, r)
	}
	c.save(s)
	switch s.State {
	case StateStarting:
		c.exitedStarting(s, r, ev.End)
	case StateRunning:
		if r.Role != RoleMain {
			return
		}
		clean := s.success(ev.End)
		if clean {
			c.becomeExited(s)
		} else {
			c.becomeFailed(s, endReason(ev.End, false))
		}
		c.ended(s, clean)
	case StateStopping:
		if r.Role == RoleStop && !s.Signalled && !s.Killed {
			if ev.End.Signal != 0 || ev.End.Code != 0 {
				c.stopTrouble(s, "stop_exec "+endReason(ev.End, false).Message)
			}
			if len(s.Runs) > 0 {
				c.terminate(s)
			}
		}
		c.checkStopped(s)
	case StateInactive, StateBlocked, StateExited, StateFailed:
		// Impossible: these are entered only when all leaders have ended.
	}
}

// exitedStarting is the end of a process before the service was ready.
func (c *Core) exitedStarting(s *service, r *Run, end End) {
	switch {
	case r.Role == RolePre && s.Halt != HaltNone:
		// It waits to be stopped: there is nothing more to start.
		c.becomeStopping(s)
		c.checkStopped(s)
	case r.Role == RolePre && end.Signal == 0 && end.Code == 0:
		c.spawn(s, RoleMain)
	case r.Role == RolePre:
		why := endReason(end, false)
		why.Message = "pre_start " + why.Message
		c.becomeFailed(s, why)
		c.ended(s, false)
	case s.spec.Oneshot && s.success(end):
		s.Done = true
		s.First.Ready = cmp.Or(s.First.Ready, c.now)
		c.becomeExited(s)
		c.ended(s, true)
	default:
		c.becomeFailed(s, endReason(end, !s.spec.Oneshot))
		c.ended(s, false)
	}
}

func (s *service) success(e End) bool {
	return e.Signal == 0 && slices.Contains(s.spec.Lifecycle.SuccessExitCodes, e.Code)
}

func (c *Core) onEmptied(s *service, r *Run) {
	c.gone(s, r)
	switch s.State {
	case StateStopping:
		c.checkStopped(s)
	case StateInactive, StateBlocked, StateExited, StateFailed:
		if len(s.Runs) == 0 && s.Cleaning {
			s.Cleaning = false
			c.setDeadline(s, 0)
		}
	case StateStarting, StateRunning:
		// What pre_start left behind has gone.
	}
}

// checkStopped ends a stop when nothing of the service is left.
func (c *Core) checkStopped(s *service) {
	if len(s.Runs) > 0 {
		return
	}
	byHand := s.Halt != HaltNone
	switch {
	case s.Failure != nil:
		c.becomeFailed(s, s.Failure)
	case s.Killed && c.shutdown != nil && c.shutdown.Killed:
		c.becomeFailed(s, &Reason{Kind: ReasonStopTime, Message: "was killed when the time for the shutdown was over"})
	case s.Killed:
		c.becomeFailed(s, &Reason{Kind: ReasonStopTime, Message: "did not end within " +
			s.spec.Lifecycle.StopTimeout.String() + " of its stop signal and was killed"})
	default:
		c.becomeExited(s)
	}
	if byHand {
		c.decide(s, c.stays(s))
	} else {
		c.ended(s, false)
	}
}

func (c *Core) onReady(s *service) {
	switch s.State {
	case StateStarting:
		if !s.spec.Oneshot {
			c.becomeRunning(s)
		}
	case StateRunning, StateStopping:
		// Said twice, or too late.
	case StateInactive, StateBlocked, StateExited, StateFailed:
		// A process that the service left behind says so.
	}
}

func (c *Core) onNotify(s *service, r *Run, ev Notify) {
	c.save(s)
	if ev.Status != nil {
		s.StatusText = *ev.Status
	}
	if ev.MainPid != 0 && r.Pid != 0 && !r.Exited {
		r.Pid, r.StartTime = ev.MainPid, ev.MainStart
		c.do(SetMain{Run: r.ID, Pid: ev.MainPid})
	}
	watchdog := Time(s.spec.Lifecycle.Watchdog)
	switch s.State {
	case StateStarting:
		if ev.Extend > 0 && s.Deadline > 0 {
			c.setDeadline(s, max(s.Deadline, c.now+ev.Extend))
		}
	case StateRunning:
		switch {
		case ev.Trigger && watchdog > 0:
			c.fail(s, &Reason{Kind: ReasonWatchdog, Message: "said WATCHDOG=trigger"})
		case ev.Alive && watchdog > 0:
			c.setDeadline(s, c.now+watchdog)
		case ev.Extend > 0 && watchdog > 0:
			c.setDeadline(s, max(s.Deadline, c.now+ev.Extend))
		}
	case StateStopping:
		if ev.Extend > 0 && s.Deadline > 0 {
			c.setDeadline(s, max(s.Deadline, c.now+ev.Extend))
		}
	case StateInactive, StateBlocked, StateExited, StateFailed:
		// Said by what it left behind.
	}
}

// stopTrouble notes that stop_exec has not done its work: the stop goes on without.
func (c *Core) stopTrouble(s *service, message string) {
	s.StopTrouble = message
	c.do(Warn{Service: s.Name, Message: message})
	c.save(s)
}

// fail stops an active service because it does not do what it should.
func (c *Core) fail(s *service, why *Reason) {
	s.Failure = why
	c.becomeStopping(s)
}

// expire acts on all deadlines that have passed.
func (c *Core) expire() {
	if c.shutdown != nil {
		c.expireShutdown()
	}
	for {
		s := c.deadline.pop(c.now)
		if s == nil {
			return
		}
		s.Deadline = 0
		c.save(s)
		c.onDeadline(s)
	}
}

func (c *Core) onDeadline(s *service) {
	if s.Cleaning {
		c.kill(s)
		return
	}
	switch s.State {
	case StateStarting:
		c.fail(s, &Reason{Kind: ReasonStartTime, Message: s.late()})
	case StateRunning:
		c.fail(s, &Reason{Kind: ReasonWatchdog, Message: "said nothing for " + s.spec.Lifecycle.Watchdog.String() + " (watchdog_ms)"})
	case StateStopping:
		if !s.Signalled { // stop_exec has had its time
			c.stopTrouble(s, "stop_exec did not end within "+s.spec.Lifecycle.StopTimeout.String())
			c.terminate(s)
			return
		}
		s.Killed = true
		c.kill(s)
	case StateExited, StateFailed:
		s.Restarts++
		s.Total++
		c.due(s)
	case StateInactive, StateBlocked:
		// Impossible: they have a deadline only while Cleaning.
	}
}
