package core

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/threefoldtech/zinit/common/spec"
)

// Helper is a program that serves the supervisor.
type Helper string

// The helpers: one runs the probes, one holds the connections of proxies.
const (
	HelperHealth Helper = "zinit-healthd"
	HelperProxy  Helper = "zinit-proxyd"
)

// startingInterval is the longest pause between two probes of a service that is
// starting.
const startingInterval = Time(500e6)

// Probe is what zinit-healthd is to look at: the health of one run of a
// service.
type Probe struct {
	Service *spec.Service
	Run     RunID
	// Generation counts how often the check was changed while the service was
	// not started anew: what was found out by another one does not count.
	Generation int
	// Starting says that the first pass is waited for: the first probe is due
	// at once. Else probes are spread over the interval.
	Starting bool
	Every    Time
}

// SetProbes tells a zinit-healthd that has just connected all that it is to do.
type SetProbes struct{ Probes []Probe }

// SetProbe adds the probe of a service, or replaces it.
type SetProbe struct{ Probe Probe }

// DropProbe ends the probes of a service.
type DropProbe struct{ Service string }

// HealthChanged says that a service goes from one health to another.
type HealthChanged struct {
	Service string
	State   State
	Health  Health
}

func (SetProbes) action()     {}
func (SetProbe) action()      {}
func (DropProbe) action()     {}
func (HealthChanged) action() {}

// HelperUp says that a helper is connected and wants to know what to do.
type HelperUp struct{ Helper Helper }

// HelperDown says that a helper has gone, and why.
type HelperDown struct {
	Helper Helper
	Why    string
}

// ProbeResult is what zinit-healthd has found out. It is told until it is
// acknowledged, which happens when what follows from it is saved.
type ProbeResult struct {
	Run        RunID
	Generation int
	OK         bool
	Message    string
	// At is when the probe ended, Took how long it took.
	At, Took Time
}

func (HelperUp) event()    {}
func (HelperDown) event()  {}
func (ProbeResult) event() {}

// HealthStatus says how a service is.
type HealthStatus string

// The kinds of health.
const (
	HealthNone      HealthStatus = "none" // nobody looks
	HealthUnknown   HealthStatus = "unknown"
	HealthHealthy   HealthStatus = "healthy"
	HealthUnhealthy HealthStatus = "unhealthy"
)

// Health is what the probes of a service have found out since its last start.
// It is not changed once made.
type Health struct {
	// Generation is that of the probes. See Probe.
	Generation int `msgpack:"generation,omitempty"`
	// Status is as the last results say, "" before the first that counts.
	Status HealthStatus `msgpack:"status,omitempty"`
	// Failures counts them in a row.
	Failures int `msgpack:"failures,omitempty"`
	// Message is that of the last result, At and Took are its times; At is 0
	// before there is one.
	Message string `msgpack:"message,omitempty"`
	At      Time   `msgpack:"at,omitempty"`
	Took    Time   `msgpack:"took,omitempty"`
}

// Needs says whether there is something for a helper to do: as long as a
// service with a health check is wanted or there, or as there are proxies.
func (c *Core) Needs(h Helper) bool {
	switch h {
	case HelperHealth:
		return c.watched > 0 && c.shutdown == nil
	case HelperProxy:
		return len(c.proxies) > 0 && (c.shutdown == nil || !c.shutdown.Halted)
	}
	return false
}

// watch keeps right what zinit-healthd has to do. It is called whenever the
// wish, the state, the process or the configuration of a service has changed.
func (c *Core) watch(s *service) {
	if is := s.spec.Health != nil && (s.Up || s.State.active()); is != s.watched {
		s.watched = is
		if is {
			c.watched++
		} else {
			c.watched--
		}
	}
	p := s.probeNow()
	if p == s.probe {
		return
	}
	s.probe = p
	switch {
	case !c.healthUp: // it will be told all when it comes
	case p.Service != nil:
		c.do(SetProbe{p})
	default:
		c.do(DropProbe{s.Name})
	}
}

// probeNow is how a service is to be probed, nothing if it is not.
func (s *service) probeNow() Probe {
	h, r := s.spec.Health, s.running(RoleMain)
	if h == nil || r == nil || r.Pid == 0 {
		return Probe{}
	}
	p := Probe{Service: s.spec, Run: r.ID, Every: Time(h.Interval)}
	if s.Health != nil {
		p.Generation = s.Health.Generation
	}
	switch s.State {
	case StateStarting:
		if s.spec.Lifecycle.Ready != spec.ReadyHealth {
			return Probe{} // it says by itself when it can be asked
		}
		p.Starting, p.Every = true, min(p.Every, startingInterval)
		return p
	case StateRunning:
		return p
	case StateInactive, StateBlocked, StateStopping, StateExited, StateFailed:
	}
	return Probe{}
}

// tellProbes tells a zinit-healthd that has come all that it is to do.
func (c *Core) tellProbes() {
	c.healthUp, c.healthSince = true, c.now
	var all SetProbes
	for _, n := range c.Names() {
		if p := c.services[n].probe; p.Service != nil {
			all.Probes = append(all.Probes, p)
		}
	}
	c.do(all)
}

// onProbe counts a result. One that was told twice, by a zinit-healthd that did
// not hear that it was saved, is told by its time.
func (c *Core) onProbe(s *service, ev ProbeResult) {
	var h Health
	if s.Health != nil {
		h = *s.Health
	}
	check := s.spec.Health
	if check == nil || ev.Generation != h.Generation || ev.At <= h.At || c.shutdown != nil {
		return
	}
	was := h.Status
	h.Message, h.At, h.Took = ev.Message, ev.At, ev.Took
	if ev.OK {
		h.Status, h.Failures = HealthHealthy, 0
	}
	switch s.State {
	case StateStarting:
		switch {
		case s.spec.Lifecycle.Ready != spec.ReadyHealth:
			return // it was, before a reload
		case !ev.OK:
			h.Failures++
		}
		c.setHealth(s, h)
		if ev.OK {
			c.becomeRunning(s)
			c.tellHealth(s)
		}
	case StateRunning:
		if !ev.OK && ev.At >= s.ReadyAt+Time(check.StartPeriod) {
			h.Failures++
		}
		if h.Failures >= check.Retries {
			h.Status = HealthUnhealthy
		}
		c.setHealth(s, h)
		if h.Status != was {
			c.tellHealth(s)
		}
		if h.Status == HealthUnhealthy && s.spec.Status != spec.StatusIgnore {
			c.fail(s, &Reason{Kind: ReasonHealth, Attempts: h.Failures, Message: h.failed()})
		}
	case StateInactive, StateBlocked, StateStopping, StateExited, StateFailed:
		// Too late.
	}
}

func (c *Core) tellHealth(s *service) {
	c.do(HealthChanged{Service: s.Name, State: s.State, Health: *s.Health})
}

func (c *Core) setHealth(s *service, h Health) {
	s.Health = &h
	c.save(s)
}

// recheck begins anew with a check that looks at something else than before.
func (c *Core) recheck(s *service, was *spec.Service) {
	if !slices.ContainsFunc(was.Diff(s.spec), looksElsewhere) {
		return
	}
	h := Health{Generation: 1}
	if s.Health != nil {
		h.Generation += s.Health.Generation
	}
	c.setHealth(s, h)
}

func looksElsewhere(field string) bool {
	switch field {
	case "health.interval_ms", "health.timeout_ms", "health.retries", "health.start_period_ms":
		return false
	}
	return field == "health" || strings.HasPrefix(field, "health.")
}

// failed says in words how often it has failed, and why the last time.
func (h *Health) failed() string { return "failed its health check " + h.attempts() }

func (h *Health) attempts() string {
	times := "once"
	if h.Failures > 1 {
		times = fmt.Sprintf("%d times in a row", h.Failures)
	}
	return times + ": " + h.Message
}

// overdue is how much later than it has to come a result may come before it is
// said that zinit-healthd does not answer.
const overdue = Time(10 * time.Second)

// healthOf says how a service is, and what is known of it.
func (c *Core) healthOf(now Time, s *service) Health {
	var h Health
	switch {
	case s.probe.Service == nil:
		h.Status = HealthNone
		return h
	case s.Health != nil:
		h = *s.Health
	}
	if !c.healthUp {
		h.Status, h.Message = HealthUnknown, cmp.Or(c.healthWhy, h.Message)
	} else if silent := now - max(h.At, s.Since, c.healthSince); silent > s.probe.Every+Time(s.spec.Health.Timeout)+overdue {
		h.Status, h.Message = HealthUnknown, "zinit-healthd has not answered for "+time.Duration(silent).Round(time.Second).String()
	}
	h.Status = cmp.Or(h.Status, HealthUnknown)
	return h
}

// trouble is what there is to say about a service that is up or about to be:
// why its health check fails, else what it says itself.
func (s *service) trouble() string {
	if h := s.Health; h != nil && h.Failures > 0 && s.spec.Health != nil {
		return h.failed()
	}
	return s.StatusText
}
