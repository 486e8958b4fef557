package core

import (
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"github.com/threefoldtech/zinit/common/spec"
)

// ended decides what follows when a service has ended otherwise than by a
// stop: another start after a delay, or what its end means for zinit.
func (c *Core) ended(s *service, clean bool) {
	if c.shutdown != nil || s.Due || !s.Up {
		c.decide(s, c.stays(s))
		return
	}
	again, decision := c.restarts(s, clean)
	c.decide(s, decision)
	if again {
		delay := s.delay(c.now)
		if delay == 0 {
			s.Restarts++
			s.Total++
			c.due(s)
			return
		}
		c.setDeadline(s, c.now+delay)
		return
	}
	c.endedForGood(s)
}

// decide adds to the news of a failure what follows from it.
func (c *Core) decide(s *service, decision string) {
	for i := len(c.actions) - 1; i >= 0; i-- {
		if ch, ok := c.actions[i].(Changed); ok && ch.Service == s.Name {
			if ch.To == StateFailed {
				ch.Decision = decision
				c.actions[i] = ch
			}
			return
		}
	}
}

// stays says what follows from the end of a service to which its restart
// policy does not apply.
func (c *Core) stays(s *service) string {
	switch {
	case c.shutdown != nil:
		return "not restarted: zinit is shutting down"
	case s.Due:
		return "started again as soon as nothing is in the way"
	case !s.Up:
		return "not restarted: it was stopped by hand"
	}
	return "not restarted: what it requires has gone"
}

// remedy says what has to happen before a service is started that cannot be.
func (r *Reason) remedy() string {
	if r.Kind == ReasonDependency || r.Kind == ReasonMissing {
		return "started as soon as " + r.Service + " is up"
	}
	return "not started until its configuration is changed"
}

// endedForGood is where nothing will start a service again by itself.
func (c *Core) endedForGood(s *service) {
	switch {
	case s.spec.Lifecycle.OnExit == spec.OnExitShutdown:
		c.stopAll(Stop{Action: "exit", Code: s.exitCode(), Within: c.opts.ShutdownTimeout})
	case !s.spec.Critical || s.State != StateFailed:
	case c.opts.OnCritical == CriticalExits:
		c.stopAll(Stop{Action: "exit", Code: 1, Within: c.opts.ShutdownTimeout})
	case c.opts.OnCritical == CriticalShell:
		s.Shell = true
		c.save(s)
		c.askShell(s)
	}
}

// askShell asks for an emergency shell for the sake of a service, for each of
// its runs once.
func (c *Core) askShell(s *service) {
	c.do(Shell{Service: s.Name, Run: s.LastRun, Reason: s.Name + ", which is critical, has failed for good: " + s.Reason.Message})
}

// restarts applies the restart policy and says in words what it decides.
func (c *Core) restarts(s *service, clean bool) (bool, string) {
	l := s.spec.Lifecycle
	if s.ranStable(c.now) {
		s.Restarts = 0
	}
	byItself := s.Reason == nil || s.Reason.Kind == ReasonExitCode
	switch {
	case s.spec.Status == spec.StatusIgnore:
		return false, "not restarted: status = ignore"
	case s.Done:
		return false, "done"
	case s.Reason.final():
		return false, s.Reason.remedy()
	case s.End != nil && s.End.Signal == 0 && byItself && slices.Contains(l.NoRestartExitCodes, s.End.Code):
		return false, "not restarted: " + strconv.Itoa(s.End.Code) + " is one of no_restart_exit_codes"
	case l.Restart == spec.RestartNever:
		return false, "not restarted: restart = never"
	case l.Restart == spec.RestartOnFailure && clean:
		return false, "not restarted: it did not fail"
	case l.MaxRestarts > 0 && s.Restarts >= l.MaxRestarts:
		return false, "stays failed: max_restarts = " + strconv.Itoa(l.MaxRestarts) + " used up"
	}
	count := ordinal(s.Restarts + 1)
	if l.MaxRestarts > 0 {
		count += " of " + strconv.Itoa(l.MaxRestarts)
	}
	return true, "restarted in " + inWords(s.delay(c.now)) + " (" + count + " in a row)"
}

func ordinal(n int) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return strconv.Itoa(n) + suffix
}

// ranStable says that the last run was up for so long that those before it do
// not count any more.
func (s *service) ranStable(now Time) bool {
	return s.ReadyAt > 0 && now-s.ReadyAt >= Time(s.spec.Lifecycle.StabilityPeriod)
}

// startInterval is the least time between two starts of a service by itself: one
// that ends at once would otherwise take a processor for its restarts alone.
const startInterval = Time(100 * time.Millisecond)

// delay is the time to the next start: doubling with each restart in a row up
// to the maximum, and up to 10 % more or less so that services which fail
// together do not come back together, and never less than startInterval after
// the last start. The jitter depends on name and count alone, so that traces
// reproduce.
func (s *service) delay(now Time) Time {
	l := s.spec.Lifecycle
	most := min(Time(l.RestartDelayMax), 1<<60) // 36 years: a sum of times must fit
	d := min(Time(l.RestartDelay), most)
	for n := 0; n < s.Restarts && 0 < d && d < most; n++ {
		d = min(2*d, most)
	}
	h := fnv.New32a()
	h.Write([]byte(s.Name))
	h.Write([]byte(strconv.Itoa(s.Restarts)))
	d += d / 1000 * (Time(h.Sum32()%201) - 100)
	return max(d, s.StartedAt+startInterval-now)
}

// exitCode is what zinit exits with for the sake of this service: never with
// success for one that has failed.
func (s *service) exitCode() int {
	code := 0
	switch {
	case s.Reason != nil && s.Reason.Code != 0:
		code = s.Reason.Code
	case s.End != nil:
		code = s.End.ExitCode()
	}
	if code == 0 && s.State == StateFailed {
		return 1
	}
	return code
}
