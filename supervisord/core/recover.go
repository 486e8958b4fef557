package core

import (
	"slices"
	"syscall"

	"github.com/threefoldtech/zinit/common/spec"
)

// Fact is what pid1 knows about a run.
type Fact struct {
	Run RunID
	// Service and Role are whose run it is and what for, by which one that
	// nobody remembers is known again.
	Service string
	Role    Role
	// Pid is 0 while it is being spawned. At is when it was, 0 if not known.
	Pid       int
	StartTime uint64
	At        Time
	// End is set once its leader has ended; Left says that processes of it are
	// still there.
	End  *End
	Left bool
	// Signals counts the signals that pid1 was told to send to it.
	Signals int
}

// Recover makes a core from what was saved and from what pid1 knows, and
// returns what has to be done so that the world goes on as if the supervisor
// had never gone. Facts win on existence, the saved state wins on intention.
//
// For each run there are these cases: it was saved, but pid1 has never heard
// of it (killed between save and act: it is ordered again); pid1 knows more
// than was saved (killed before the save: the event is applied now); it is over
// and only pid1 knows it (killed before Forget: it is said now); it is newer
// than all that was saved (something was lost: see adopt).
//
// missed is what services have said meanwhile, Ready and Notify: it counts
// before any deadline is judged. Where no record was saved at all, Boot comes
// before them: what does not run and nobody knows anything of is begun as at
// boot.
func Recover(now Time, services map[string]*spec.Service, o Options, g Global, records []Record, facts []Fact, missed ...Event) (*Core, []Action, Adopted) {
	c := unlinked(services, o)
	c.now = now
	c.lastRun = max(g.LastRun, o.FirstRun)
	c.shutdown = g.Shutdown
	c.requested = g.Requested
	for _, id := range g.Strays {
		c.strays[id] = true
	}
	for _, r := range records {
		s := c.services[r.Name]
		if s == nil {
			continue
		}
		s.Record = r
		s.Deadline = 0
		c.setDeadline(s, r.Deadline)
		for _, run := range r.Runs {
			c.runs[run.ID] = s
		}
		c.touched[r.Name] = true
		if r.Removed {
			c.removing[r.Name] = true
		}
	}
	known := make(map[RunID]Fact, len(facts))
	var unknown, strays []Fact
	for _, f := range facts {
		known[f.Run] = f
		c.lastRun = max(c.lastRun, f.Run)
		switch {
		case c.runs[f.Run] != nil:
		case c.strays[f.Run] || f.Run <= g.LastRun || f.Service == "":
			strays = append(strays, f)
		default:
			unknown = append(unknown, f)
		}
	}
	adopted, done := c.adopt(unknown, facts, records)
	c.link()
	late := false
	for _, n := range c.Names() {
		s := c.services[n]
		for _, r := range slices.Clone(s.Runs) {
			f, ok := known[r.ID]
			if f.Signals > r.Signals { // each is saved before it is sent
				late, r.Signals = true, f.Signals
			}
			c.recoverRun(s, r, f, ok)
		}
		c.watch(s)
	}
	for _, n := range c.Names() {
		if s := c.services[n]; s.Shell && s.Reason != nil {
			c.askShell(s) // pid1 may never have been told
		}
	}
	for id := range c.strays {
		if _, left := known[id]; !left {
			delete(c.strays, id)
		}
	}
	for _, f := range strays {
		c.recoverStray(f)
	}
	kept, ended := c.wishAdopted(adopted)
	if sh := c.shutdown; sh != nil && sh.Halted {
		sh.Halted = false // it is said again
	}
	for _, ev := range missed {
		c.apply(ev)
	}
	return c, c.finish(), Adopted{Kept: kept, Ended: ended, Done: done, Late: late || len(adopted) > 0}
}

// recoverRun brings a run up to what pid1 knows of it, by the events that were
// missed, or orders again what pid1 was never told.
func (c *Core) recoverRun(s *service, r *Run, f Fact, ok bool) {
	switch {
	case !ok && r.Pid == 0:
		a := Spawn{Run: r.ID, Role: r.Role, Service: s.spec}
		if r.Role == RoleStop {
			a.MainPid = s.pid()
		}
		c.do(a)
		return
	case !ok && r.Exited:
		c.onEmptied(s, r) // Emptied was saved by nobody, Forget was performed
		return
	case !ok:
		// Impossible while pid1 lives: it forgets only what is saved as ended.
		c.onExited(s, r, Exited{Run: r.ID, End: End{Code: -1, At: c.now}})
		return
	}
	missed := r.Last[len(r.Last)-min(len(r.Last), max(0, r.Signals-f.Signals)):]
	switch {
	case f.Pid != 0 && r.Pid == 0:
		c.onSpawned(s, r, Spawned{Run: f.Run, Pid: f.Pid, StartTime: f.StartTime})
	case f.Pid != 0 && f.Pid != r.Pid && !r.Exited:
		c.do(SetMain{Run: r.ID, Pid: r.Pid})
	}
	for _, a := range missed {
		c.do(a)
	}
	switch {
	case f.End != nil && !r.Exited:
		c.onExited(s, r, Exited{Run: f.Run, End: *f.End, Left: f.Left})
	case f.End != nil && !f.Left:
		c.onEmptied(s, r)
	}
}

// recoverStray ends a run that belongs to no service.
func (c *Core) recoverStray(f Fact) {
	if f.End != nil && !f.Left {
		c.do(Forget{Run: f.Run})
		return
	}
	c.strays[f.Run] = true
	if f.Pid != 0 {
		c.killStray(f.Run)
	}
}

func (c *Core) killStray(id RunID) {
	c.do(Signal{Run: id, Signal: int(syscall.SIGKILL), Scope: ScopeAll})
}

func (c *Core) forgetStray(id RunID) {
	delete(c.strays, id)
	c.dirtyGlobal = true
	c.do(Forget{Run: id})
}
