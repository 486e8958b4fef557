package core

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/threefoldtech/zinit/common/spec"
)

// zinit-healthd in the simulated world: it comes and goes, probes what it was
// told to, and tells also what nobody wants to know any more.

// maxProbes is how often a check of a run is probed, so that a life ends.
const maxProbes = 15

func drawHealth(t *rapid.T, s *spec.Service) {
	s.Health = &spec.Health{
		Type: spec.HealthTCP, Endpoint: rapid.SampledFrom([]string{"a:1", "b:1"}).Draw(t, "endpoint"),
		Interval: rapid.SampledFrom([]time.Duration{300e6, 1e9, 4e9}).Draw(t, "interval"), Timeout: 1e9,
		Retries:     rapid.IntRange(1, 3).Draw(t, "retries"),
		StartPeriod: rapid.SampledFrom([]time.Duration{0, 0, 3e9}).Draw(t, "start_period"),
	}
	if s.Lifecycle.Ready == spec.ReadyExec && rapid.Bool().Draw(t, "ready_health") {
		s.Lifecycle.Ready = spec.ReadyHealth
	}
}

// drawHealthd makes a zinit-healthd die now and then.
func drawHealthd(t *rapid.T) (script []scripted) {
	at := epoch
	for range rapid.IntRange(1, 5).Draw(t, "healthds") {
		at += Time(rapid.IntRange(0, 2000).Draw(t, "until")) * 1e6
		script = append(script, scripted{at, HelperUp{HelperHealth}})
		at += Time(rapid.IntRange(0, 20000).Draw(t, "life")) * 1e6
		script = append(script, scripted{at, HelperDown{HelperHealth, "no"}})
	}
	return append(script, scripted{at + 1e9, HelperUp{HelperHealth}})
}

// healthd is the present zinit-healthd.
type healthd struct {
	up      bool
	probes  map[string]Probe // by service
	plans   map[string]*happening
	unacked []Event // results
	// Over the lives of all of them: how often each check of a run was probed,
	// and the failures in a row that were found.
	count map[string]int
	row   map[string][]ProbeResult
}

func newHealthd() *healthd {
	return &healthd{probes: map[string]Probe{}, plans: map[string]*happening{}, count: map[string]int{}, row: map[string][]ProbeResult{}}
}

func describeHealth(h *spec.Health) string {
	if h == nil {
		return "none"
	}
	return fmt.Sprintf("%s every %v retries %d period %v", h.Endpoint, h.Interval, h.Retries, h.StartPeriod)
}

func (p Probe) key() string { return fmt.Sprint(p.Run, "/", p.Generation) }

func (w *world) healthdComes() []Event {
	w.note("> zinit-healthd comes")
	w.healthd.up = true
	return []Event{HelperUp{HelperHealth}}
}

func (w *world) healthdGoes() []Event {
	w.note("> zinit-healthd goes")
	w.healthd.up = false
	w.setProbes(nil)
	w.healthd.unacked = nil
	return []Event{HelperDown{HelperHealth, "no"}}
}

// setProbes is the complete set, by which zinit-healthd goes on with what it
// knows already.
func (w *world) setProbes(all []Probe) {
	for _, n := range slices.Sorted(maps.Keys(w.healthd.probes)) {
		if !slices.ContainsFunc(all, func(p Probe) bool { return p.Service.Name == n }) {
			w.dropProbe(n)
		}
	}
	for _, p := range all {
		w.setProbe(p)
	}
}

func (w *world) setProbe(p Probe) {
	n := p.Service.Name
	was, ok := w.healthd.probes[n]
	w.healthd.probes[n] = p
	if ok && was.key() == p.key() && was.Starting == p.Starting && was.Every == p.Every {
		return
	}
	w.dropPlan(n)
	w.planProbe(p, p.Starting)
}

func (w *world) dropProbe(n string) {
	delete(w.healthd.probes, n)
	w.dropPlan(n)
}

func (w *world) dropPlan(n string) {
	plan := w.healthd.plans[n]
	delete(w.healthd.plans, n)
	w.queue = slices.DeleteFunc(w.queue, func(h *happening) bool { return h == plan })
}

// planProbe has a probe end some time: soon, or in the course of its interval.
func (w *world) planProbe(p Probe, atOnce bool) {
	proc, count := w.runs[p.Run], w.healthd.count[p.key()]
	if proc == nil || count >= maxProbes {
		return
	}
	after := 1 + w.ms(proc, fmt.Sprint("latency", count), 100)
	if !atOnce {
		after += p.Every
	}
	h := &happening{at: w.now + after, kind: probed, service: p.Service.Name, number: w.number[p.Run], proc: proc}
	w.healthd.plans[p.Service.Name] = h
	w.queue = append(w.queue, h)
}

// probed lets a probe end, and returns what the supervisor is told: the result,
// and now and then others that are of no use to it.
func (w *world) probed(proc *process) []Event {
	d := w.healthd
	p := d.probes[proc.service]
	count := d.count[p.key()]
	d.count[p.key()]++
	delete(d.plans, proc.service)
	r := ProbeResult{Run: p.Run, Generation: p.Generation, At: w.now, Took: 1e6, Message: "no answer"}
	dice := func(what string, n int) int { return w.dice(proc, fmt.Sprint(what, count, " ", p.Generation), n) }
	switch {
	case p.Starting && !w.bad(proc, "never healthy", 6):
		r.OK = count >= w.dice(proc, "healthy after", 4)
	case !p.Starting:
		r.OK = !w.plan.faults || w.now >= calm || dice("fails", 2) == 0
	}
	if r.OK {
		r.Message = "connected"
	}
	w.note("> %s#%d: %s", proc.service, p.Run, r.Message)
	w.planProbe(p, false)
	results := []ProbeResult{r}
	if other := r; dice("stale", 2) == 0 {
		switch other.OK = !r.OK; dice("how", 3) {
		case 0:
			if s := w.core.services[proc.service]; s != nil {
				other.Run = s.PrevMain
			}
		case 1:
			other.Generation++
		case 2: // told twice
			other = r
		}
		results = append(results, other)
	}
	var evs []Event
	for _, r := range results {
		evs = append(evs, r)
	}
	d.unacked = append(d.unacked, evs...)
	return evs
}

// checkResult keeps the row of failures, and compares it with what the
// supervisor makes of a result.
func (w *world) checkResult(r ProbeResult, before, after Record) {
	key := Probe{Run: r.Run, Generation: r.Generation}.key()
	s, _ := w.core.lookup(r.Run)
	if s == nil || s.spec.Health == nil || before.State != StateRunning || before.LastMain != r.Run || w.core.shutdown != nil {
		return
	}
	generation := 0
	if before.Health != nil {
		generation = before.Health.Generation
		if r.At <= before.Health.At {
			return
		}
	}
	check := s.spec.Health
	switch row := w.healthd.row[key]; {
	case generation != r.Generation:
		return
	case r.OK:
		w.healthd.row[key] = nil
	case r.At >= before.ReadyAt+Time(check.StartPeriod):
		w.healthd.row[key] = append(row, r)
	}
	failed := len(w.healthd.row[key]) >= check.Retries && s.spec.Status != spec.StatusIgnore
	stopped := after.State != StateRunning
	if failed != stopped {
		w.fail("%s has failed %d of %d times in a row, and is %v", s.Name, len(w.healthd.row[key]), check.Retries, after.State)
	}
	if stopped && (after.Failure == nil || after.Failure.Kind != ReasonHealth || after.Failure.Attempts != len(w.healthd.row[key])) {
		w.fail("%s is stopped after %d failures: %+v", s.Name, len(w.healthd.row[key]), after.Failure)
	}
}

// checkProbes: zinit-healthd is there when it is needed, and looks at what is
// starting or running and at nothing else.
func (w *world) checkProbes() {
	if w.healthd.up && w.core.healthUp { // else it is yet to be told
		w.checkTold()
	}
	needed := false
	for _, s := range w.core.services {
		needed = needed || s.spec.Health != nil && (s.Up || s.State.active())
	}
	if needed = needed && w.core.shutdown == nil; needed != w.core.Needs(HelperHealth) {
		w.fail("zinit-healthd is needed: %v, and is taken to be: %v", needed, !needed)
	}
}

func (w *world) checkTold() {
	want := map[string]Probe{}
	for n, s := range w.core.services {
		if p := s.probeNow(); p.Service != nil {
			want[n] = p
		}
	}
	if !maps.Equal(want, w.healthd.probes) {
		w.fail("zinit-healthd looks at %v, expected %v", w.healthd.probes, want)
	}
}
