package core

// Shutdown is the end of zinit under way.
type Shutdown struct {
	Action string `msgpack:"action"`
	Code   int    `msgpack:"code"`
	// MainSignal is that of Stop.
	MainSignal int `msgpack:"main_signal,omitempty"`
	// Deadline is when all that is left is killed, and after that when zinit
	// ends whatever is left.
	Deadline Time `msgpack:"deadline"`
	Killed   bool `msgpack:"killed,omitempty"`
	// Halted says that Halt was given.
	Halted bool `msgpack:"halted,omitempty"`
}

// afterKill is how long processes may take to vanish after SIGKILL before
// zinit ends without them; pid1 then tries once more.
const afterKill = Time(1e9)

// stopAll begins the shutdown. What comes later can only hurry it.
func (c *Core) stopAll(ev Stop) {
	c.dirtyGlobal = true
	if c.shutdown != nil {
		if ev.Hurry && !c.shutdown.Killed {
			c.shutdown.Deadline = c.now
		}
		return
	}
	c.shutdown = &Shutdown{Action: ev.Action, Code: ev.Code, MainSignal: ev.MainSignal, Deadline: c.now + max(ev.Within, 1)}
	for _, n := range c.Names() {
		s := c.services[n]
		c.giveUp(s)
		// Also those that are down, so that the order is that of the whole graph.
		c.halt(s, HaltShutdown, "")
	}
	for n := range c.proxiesOf {
		c.gates[n] = true
	}
}

// expireShutdown kills all that is left when the time for it is over.
func (c *Core) expireShutdown() {
	sh := c.shutdown
	if sh.Deadline == 0 || sh.Deadline > c.now {
		return
	}
	c.dirtyGlobal = true
	if sh.Killed {
		sh.Deadline = 0
		return
	}
	sh.Killed, sh.Deadline = true, c.now+afterKill
	for _, n := range c.Names() {
		s := c.services[n]
		switch s.State {
		case StateStarting, StateRunning:
			c.becomeStopping(s)
		case StateStopping:
			s.Killed = true
			c.kill(s)
		case StateInactive, StateBlocked, StateExited, StateFailed:
			c.kill(s)
		}
	}
}

// checkHalt ends zinit when everything is down, or when what is left cannot
// be killed.
func (c *Core) checkHalt() {
	sh := c.shutdown
	if sh == nil || sh.Halted {
		return
	}
	if sh.Deadline > 0 && (len(c.runs) > 0 || c.anyActiveLeft()) {
		return
	}
	sh.Halted = true
	sh.Deadline = 0
	c.dirtyGlobal = true
	code := sh.Code
	if m := c.services[c.opts.Main]; m != nil && (m.End != nil || m.Reason != nil) {
		code = m.exitCode()
	}
	c.do(Halt{Action: sh.Action, Code: code})
}

// anyActiveLeft says that a service is not down; targets have no run to tell by.
func (c *Core) anyActiveLeft() bool {
	for _, s := range c.services {
		if s.State.active() {
			return true
		}
	}
	return false
}
