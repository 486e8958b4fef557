package core

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/threefoldtech/zinit/common/spec"
)

// View is what there is to say about a service at a moment.
type View struct {
	Record
	Spec *spec.Service
	// Blocks are what a due start waits for.
	Blocks []Block
	// Pid is that of the service while it runs.
	Pid int
	// Next is when it is started again by itself, 0 for never.
	Next Time
	// Dependents require it.
	Dependents []string
	// Health is how it is. Its Status is as of now, also where nobody looks.
	Health Health
	// Note says in a few words what is going on, "" where the state says it all.
	Note string
}

// View returns what there is to say about a service.
func (c *Core) View(now Time, name string) (View, bool) {
	s := c.services[name]
	if s == nil {
		return View{}, false
	}
	v := View{
		Record: s.copy(), Spec: s.spec, Blocks: slices.Clone(s.blocks), Pid: s.pid(),
		Dependents: slices.Clone(c.requiredBy[name]), Note: c.note(now, s),
	}
	v.Health = c.healthOf(now, s)
	for i, b := range v.Blocks {
		v.Blocks[i].Name = c.name(b)
	}
	v.UnderWay = s.Due && s.UnderWay
	if s.State == StateRunning && s.ranStable(now) {
		v.Restarts = 0
	}
	if !s.Due && s.comingBack() {
		v.Next = s.Deadline
	}
	return v, true
}

// Describe says what a block is about, in words.
func (c *Core) Describe(now Time, b Block) string {
	d := c.services[c.name(b)]
	if d == nil {
		return b.Name + " does not exist"
	}
	switch b.Kind {
	case BlockRequires, BlockAfter:
		if b.Early {
			return c.standing(now, d) + ", and system services start first"
		}
		return c.standing(now, d)
	case BlockConflicts:
		return c.standing(now, d) + ", and only one of them may run"
	case BlockPort:
		return fmt.Sprintf("%s has port %d", b.Name, b.Port)
	case BlockLeft:
		return "processes of its last run are still there and are being ended"
	}
	return ""
}

// standing is what others have to know about a service that they wait for.
func (c *Core) standing(now Time, s *service) string {
	switch s.State {
	case StateInactive:
		if s.Up {
			return s.Name + " was not started yet"
		}
		return s.Name + " is not started"
	case StateBlocked:
		if root := c.root(s); root.State != StateBlocked {
			return s.Name + " is blocked: " + c.standing(now, root)
		}
		return s.Name + " is blocked itself"
	case StateStarting:
		return s.Name + " is starting"
	case StateRunning:
		if s.Halt != HaltNone {
			return s.Name + " is about to stop"
		}
		return s.Name + " is running"
	case StateStopping:
		return s.Name + " is stopping"
	case StateExited, StateFailed:
		if t, ok := s.retry(now); ok {
			return s.Name + " " + s.pastTense() + ", and is started again in " + t
		}
		if !s.Up {
			return s.Name + " was stopped by the user"
		}
		return s.Name + " " + s.pastTense()
	}
	return ""
}

// root follows the first block of each service to one that is not blocked.
func (c *Core) root(s *service) *service {
	for seen := map[*service]bool{}; s.State == StateBlocked && len(s.blocks) > 0 && !seen[s]; {
		seen[s] = true
		if d := c.services[c.name(s.blocks[0])]; d != nil {
			s = d
		}
	}
	return s
}

func (s *service) pastTense() string {
	if s.State == StateFailed && s.Reason != nil {
		return "has failed: " + s.Reason.Message
	}
	return "has ended"
}

// retry returns the time to the next start, if there is to be one.
func (s *service) retry(now Time) (string, bool) {
	if s.Due || !s.comingBack() {
		return "", false
	}
	return inWords(max(s.Deadline-now, 0)), true
}

func inWords(t Time) string {
	d := time.Duration(t)
	if d < time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

// note is the one line that list shows.
func (c *Core) note(now Time, s *service) string {
	n := c.moment(now, s)
	if s.StopTrouble == "" {
		return n
	}
	return strings.TrimPrefix(n+"; "+s.StopTrouble, "; ")
}

// moment is the note but for what went wrong when it was stopped last.
func (c *Core) moment(now Time, s *service) string {
	again := ""
	if t, ok := s.retry(now); ok {
		again = "retry in " + t
	}
	switch s.State {
	case StateInactive:
		return ""
	case StateBlocked:
		if len(s.blocks) == 0 {
			return ""
		}
		n := c.Describe(now, s.blocks[0])
		if len(s.blocks) > 1 {
			n += fmt.Sprintf(" (and %d more)", len(s.blocks)-1)
		}
		return n
	case StateStarting:
		return s.awaits(now)
	case StateRunning:
		switch s.Halt {
		case HaltNone:
			return s.trouble()
		case HaltUser, HaltRestart, HaltDependency, HaltShutdown:
			return "stops when its dependents are down"
		}
	case StateStopping:
		switch {
		case s.Killed:
			return "was killed, waits for the system to end it"
		case s.Failure != nil:
			return s.Failure.Message
		case s.running(RoleStop) != nil:
			return "stop_exec runs"
		case s.running(RoleMain) == nil:
			return "waits for the processes it left behind"
		}
		return ""
	case StateExited:
		return again
	case StateFailed:
		n := ""
		if s.Reason != nil {
			n = s.Reason.Message
		}
		switch most := s.spec.Lifecycle.MaxRestarts; {
		case again != "":
			n += ", " + again
		case most > 0 && s.Restarts >= most:
			n += fmt.Sprintf(", and max_restarts = %d is used up", most)
		}
		return n
	}
	return ""
}

// Rest says why a service is down and stays so, and how it is started, where nothing
// but a wish is needed for that; "" for all others. Left says that it has ended and
// that processes of it are there, which nobody is about to end.
func (c *Core) Rest(now Time, name string) (why, how string, left bool) {
	s := c.services[name]
	if s == nil {
		return "", "", false
	}
	if why = c.rest(now, s); why != "" {
		how = "start it with: zinit start " + name
		if len(c.proxiesOf[name]) > 0 && s.spec.Status != spec.StatusIgnore {
			how = "starts when somebody connects to its proxy"
		}
	}
	return why, how, (s.State == StateExited || s.State == StateFailed) && len(s.Runs) > 0 && !s.Cleaning
}

func (c *Core) rest(now Time, s *service) (why string) {
	if s.State.active() || s.State == StateBlocked || s.Due || s.waiting() || s.Done || c.shutdown != nil {
		return ""
	}
	switch {
	case s.Up:
		ended := *s
		ended.ReadyAt = 0 // it runs no more: time does not make it stable
		if _, why = c.restarts(&ended, s.State == StateExited); !strings.HasPrefix(why, "not restarted") {
			return ""
		}
	case s.StoppedAt > 0:
		why = "was stopped by the user " + time.Duration(now-s.StoppedAt).Round(time.Second).String() + " ago"
	case s.spec.Status == spec.StatusStop:
		why = `is not started at boot (status = "stop")`
	case s.spec.Status == spec.StatusIgnore:
		why = `is started by hand only (status = "ignore")`
	default:
		why = "is not wanted"
	}
	return why
}

// late says what has not come while a service had the time to start.
func (s *service) late() string {
	l := s.spec.Lifecycle
	what, why := "it was not executed", ""
	switch {
	case s.running(RolePre) != nil:
		what = "pre_start did not end"
	case s.pid() == 0:
	case s.spec.Oneshot:
		what = "it did not end"
	case l.Ready == spec.ReadyHealth:
		what = "its health check did not pass"
		if h := s.Health; h != nil && h.Failures > 0 {
			why = ", failed " + h.attempts()
		}
	case l.Ready == spec.ReadyNotify:
		what = "READY=1 did not come"
	case l.Ready == spec.ReadyFd:
		what = fmt.Sprintf("a newline on descriptor %d did not come", l.ReadyFd)
	}
	return what + " within " + l.StartTimeout.String() + why
}

// awaits says what a service needs to be up, and how long it has for that.
func (s *service) awaits(now Time) string {
	l := s.spec.Lifecycle
	what := "waits to be executed"
	switch {
	case s.Halt != HaltNone:
		return "stops when its dependents are down"
	case s.running(RolePre) != nil:
		what = "pre_start runs"
	case s.pid() == 0:
	case s.spec.Oneshot:
		what = "runs until it is done"
	case l.Ready == spec.ReadyHealth:
		what = "waits for its health check"
		if h := s.Health; h != nil && h.Failures > 0 {
			what = h.failed()
		}
	case l.Ready == spec.ReadyNotify:
		what = "waits for READY=1 (ready = notify)"
	case l.Ready == spec.ReadyFd:
		what = fmt.Sprintf("waits for a newline on descriptor %d (ready = fd)", l.ReadyFd)
	}
	if s.Deadline > 0 {
		what += ", " + inWords(max(s.Deadline-now, 0)) + " left"
	}
	if s.StatusText != "" {
		what = s.StatusText + "; " + what
	}
	return what
}

// Leader returns the pid of the service's own process of a run, 0 while it has
// none; false if the run is not known.
func (c *Core) Leader(id RunID) (int, bool) {
	_, r := c.lookup(id)
	if r == nil {
		return 0, false
	}
	return r.Pid, true
}

// Command returns of which service a run is and which of its commands it
// executes; nil if the run is not known.
func (c *Core) Command(id RunID) (*spec.Service, Role) {
	s, r := c.lookup(id)
	if r == nil {
		return nil, 0
	}
	return s.spec, r.Role
}

// ShuttingDown says that zinit is about to end.
func (c *Core) ShuttingDown() bool { return c.shutdown != nil }

// Spec returns the configuration of a service, nil if there is none of that
// name.
func (c *Core) Spec(name string) *spec.Service {
	if s := c.services[name]; s != nil {
		return s.spec
	}
	return nil
}
