package core

import (
	"hash/fnv"
	"slices"
	"strconv"

	"github.com/threefoldtech/zinit/common/spec"
)

// ended decides what follows when a service has ended otherwise than by a
// stop: another start after a delay, or what its end means for zinit.
func (c *Core) ended(s *service, clean bool) {
	if c.shutdown != nil || s.Due || !s.Up {
		return
	}
	if c.restarts(s, clean) {
		delay := s.delay()
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

// endedForGood is where nothing will start a service again by itself.
func (c *Core) endedForGood(s *service) {
	switch {
	case s.spec.Lifecycle.OnExit == spec.OnExitShutdown:
		c.stopAll(Stop{Action: "exit", Code: s.exitCode(), Within: c.opts.ShutdownTimeout})
	case s.spec.Critical && s.State == StateFailed && c.opts.CriticalExits:
		c.stopAll(Stop{Action: "exit", Code: 1, Within: c.opts.ShutdownTimeout})
	}
}

// restarts applies the restart policy.
func (c *Core) restarts(s *service, clean bool) bool {
	l := &s.spec.Lifecycle
	if s.ranStable(c.now) {
		s.Restarts = 0
	}
	byItself := s.Reason == nil || s.Reason.Kind == ReasonExitCode
	switch {
	case s.spec.Status == spec.StatusIgnore, s.Done, s.Reason.final():
		return false
	case s.End != nil && s.End.Signal == 0 && byItself && slices.Contains(l.NoRestartExitCodes, s.End.Code):
		return false
	case l.MaxRestarts > 0 && s.Restarts >= l.MaxRestarts:
		return false
	}
	switch l.Restart {
	case spec.RestartAlways:
		return true
	case spec.RestartOnFailure:
		return !clean
	case spec.RestartNever:
		return false
	}
	return false
}

// ranStable says that the last run was up for so long that those before it do
// not count any more.
func (s *service) ranStable(now Time) bool {
	return s.ReadyAt > 0 && now-s.ReadyAt >= Time(s.spec.Lifecycle.StabilityPeriod)
}

// delay is the time to the next start: doubling with each restart in a row up
// to the maximum, and up to 10 % more or less so that services which fail
// together do not come back together. It depends on name and count alone, so
// that traces reproduce.
func (s *service) delay() Time {
	l := &s.spec.Lifecycle
	most := min(Time(l.RestartDelayMax), 1<<60) // 36 years: a sum of times must fit
	d := min(Time(l.RestartDelay), most)
	for n := 0; n < s.Restarts && 0 < d && d < most; n++ {
		d = min(2*d, most)
	}
	h := fnv.New32a()
	h.Write([]byte(s.Name))
	h.Write([]byte(strconv.Itoa(s.Restarts)))
	return d + d/1000*(Time(h.Sum32()%201)-100)
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
