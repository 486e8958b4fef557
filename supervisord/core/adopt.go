package core

import (
	"maps"
	"slices"

	"github.com/threefoldtech/zinit/common/spec"
)

// Adopted is what Recover made of the runs that pid1 knows and no record does,
// because what was saved of them is lost.
type Adopted struct {
	// Kept names the services that go on with such a run.
	Kept []string
	// Ended names those that are configured no more and are being stopped.
	Ended []string
	// Done names the oneshots without a run that are taken for done, because
	// something that runs needs them.
	Done []string
	// Late says that what was saved is older than the last orders to pid1, because
	// it could not be saved any more.
	Late bool
}

// adopt gives runs that nobody remembers back to their services. What runs was
// wanted and goes on; how often it was started before is not known. One that
// has to tell when it is ready is taken for ready, because it would not tell a
// second time. What has no configuration any more is stopped in its own time.
//
// recoverRun then brings the runs up to date, like those that were saved.
func (c *Core) adopt(unknown, all []Fact, records []Record) (adopted []*service, done []string) {
	runs := map[string][]Fact{}
	for _, f := range unknown {
		runs[f.Service] = nil
	}
	for _, f := range all {
		if list, ok := runs[f.Service]; ok && !c.strays[f.Run] {
			runs[f.Service] = append(list, f)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(runs)) {
		s := c.services[n]
		if s == nil {
			s = c.add(n, spec.Default(n))
			s.Removed, c.removing[n] = true, true
		}
		c.adoptRuns(s, runs[n])
		adopted = append(adopted, s)
	}
	return adopted, c.takeForDone(adopted, records)
}

// adoptRuns makes the record of a service from its runs: of the state in which
// it was before the ends of those that have ended. What is saved of it is older
// than they are.
func (c *Core) adoptRuns(s *service, facts []Fact) {
	for _, r := range s.Runs {
		delete(c.runs, r.ID)
	}
	c.setDeadline(s, 0)
	s.Record = Record{
		Name: s.Name, Removed: s.Removed, Total: s.Total,
		State: StateStarting, Since: c.now, Up: s.spec.Status == spec.StatusStart,
	}
	newest := RunID(0) // of the service itself
	for _, f := range facts {
		if f.Role == RoleMain {
			newest = max(newest, f.Run)
		}
	}
	stopping := false
	for _, f := range facts {
		if f.End != nil && !f.Left && f.Run < newest {
			c.do(Forget{Run: f.Run})
			continue
		}
		r := &Run{ID: f.Run, Role: f.Role, Signals: f.Signals}
		s.Runs = append(s.Runs, r)
		c.runs[r.ID] = s
		if f.Role == RoleStop {
			stopping = stopping || f.End == nil
			continue
		}
		s.Up = s.Up || f.End == nil
		if f.End != nil && f.Run < newest { // or the next would not have been begun
			r.Pid, r.StartTime, r.Exited = f.Pid, f.StartTime, true
		}
		s.LastRun = f.Run
		if f.At > 0 {
			s.Since = f.At
		}
		if f.Role == RoleMain {
			s.PrevMain, s.LastMain = s.LastMain, f.Run
			if f.Pid != 0 && !s.spec.Oneshot {
				r.Pid, r.StartTime = f.Pid, f.StartTime
				s.State, s.ReadyAt = StateRunning, s.Since
			}
		}
	}
	// Whoever has only a pre_start was being started.
	s.Up = (s.Up || s.LastRun != 0 && s.LastMain == 0) && !s.Removed
	switch l := s.spec.Lifecycle; {
	case stopping:
		s.State = StateStopping
		c.setDeadline(s, c.now+Time(l.StopTimeout))
	case s.State == StateStarting && l.StartTimeout > 0:
		c.setDeadline(s, s.Since+Time(l.StartTimeout))
	case s.State == StateRunning && l.Watchdog > 0:
		c.setDeadline(s, c.now+Time(l.Watchdog))
	}
	s.First = First{Wanted: s.Since, Spawned: s.Since, Ready: s.ReadyAt} // as far as is known
	c.touched[s.Name] = true
}

// takeForDone marks the oneshots of which nothing is known, and without which
// what runs would not have been started.
func (c *Core) takeForDone(running []*service, records []Record) (done []string) {
	seen := map[string]bool{}
	for _, r := range records {
		seen[r.Name] = true
	}
	early := c.early.names
	for todo := slices.Clone(running); len(todo) > 0; todo = todo[1:] {
		before := slices.Concat(todo[0].spec.Requires, todo[0].spec.After)
		if !todo[0].spec.Early {
			before = append(before, early...)
			early = nil // once is enough
		}
		for _, n := range before {
			d := c.services[n]
			if d == nil || seen[n] || len(d.Runs) > 0 {
				continue
			}
			seen[n] = true
			todo = append(todo, d)
			if d.spec.Oneshot && d.spec.Status != spec.StatusIgnore {
				d.State, d.Done, d.Up, d.Since = StateExited, true, d.spec.Status == spec.StatusStart, c.now
				c.touched[n] = true
				done = append(done, n)
			}
		}
	}
	slices.Sort(done)
	return done
}

// wishAdopted wants what was adopted as if by hand, and with it what it
// requires, or stops it where it is configured no more. It returns their names.
func (c *Core) wishAdopted(adopted []*service) (kept, ended []string) {
	var up []*service
	for _, s := range adopted {
		switch {
		case s.Removed:
			c.wishDown(s)
			ended = append(ended, s.Name)
		case s.spec.Kind == spec.KindTarget: // it was a service
			c.halt(s, HaltRestart, "")
			ended = append(ended, s.Name)
		case s.Up && (s.State == StateStarting || s.State == StateRunning):
			up = append(up, s)
			kept = append(kept, s.Name)
		}
	}
	c.wishUp(up)
	return kept, ended
}
