package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/failpoint"
	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// maxReplaced is how many replacements of the supervisor are remembered.
const maxReplaced = 20

// onCritical is what the final failure of a critical service brings about.
var onCritical = map[ipc.Mode]core.OnCritical{
	ipc.ModeContainer: core.CriticalExits,
	ipc.ModeVM:        core.CriticalShell,
}

// recoverOrBoot takes over what runs. With a saved state it goes on as the
// supervisor before would have. Without one it reads the service directory,
// gives what pid1 knows to run back to its services, and begins what does not
// run: where nothing runs yet, that is a boot.
func (s *server) recoverOrBoot(old *saved, err error) error {
	mine := header{Format: stateFormat, Boot: bootID(), Keeper: s.keeper.hello.Pid, Started: s.keeper.hello.StartTime}
	o := core.Options{
		OnCritical:      onCritical[s.keeper.hello.Mode],
		ShutdownTimeout: core.Time(s.opts.shutdownTimeout),
	}
	if len(s.keeper.hello.Main) > 0 {
		o.Main = mainService
	}
	saved := old != nil && old.Header.sameLife(mine)
	if err == nil && saved && old.cut > 0 {
		s.cut = true
		s.log.Error("the end of the saved state cannot be read: what was decided then is lost", "file", s.store.path, "bytes", old.cut)
		o.FirstRun = firstRun()
	}
	var global core.Global
	var records []core.Record
	var missed []core.Event
	if saved {
		s.services, s.problems, s.replaced = old.Services, old.Problems, old.Replaced
		for _, x := range old.Proxies {
			s.ownProxies[x.Name] = x
		}
		global, records = old.Global, old.records()
		if unknown := s.unknown(global.LastRun); len(unknown) > 0 {
			s.readUnknown(unknown)
			s.standIn(s.unknown(global.LastRun))
		}
		if err := s.history.restore(old.Events); err != nil {
			s.log.Error("cannot read the saved events: they begin again", "error", err)
		}
	} else {
		s.sayLost(old, err)
		if err := s.loadConfig(); err != nil {
			return err
		}
		s.standIn(s.unknown(0))
		o.FirstRun = firstRun()
		missed = append(missed, core.Boot{})
	}
	o.Broken = s.broken()
	s.adoptPipes()
	facts := s.facts()
	unheard, consume := s.notify.unheard(leaders(facts))
	var adopted core.Adopted
	s.core, s.pending, adopted = core.Recover(s.now(), s.services, o, global, records, facts, append(missed, unheard...)...)
	s.sayAdopted(adopted)
	if s.keeper.hello.Restarts > 0 {
		s.noteReplaced(adopted)
	}
	for _, r := range records {
		if r.Removed {
			delete(s.services, r.Name) // the core still ends it
		}
	}
	if s.keeper.hello.Restarts > 0 {
		failpoint.Hit("recovered")
	}
	s.saveAll(s.newEvents())
	failpoint.Hit("taken-over")
	consume()
	return nil
}

// sayLost says what is not known any more where there is no saved state of
// this zinit and should be one.
func (s *server) sayLost(old *saved, err error) {
	switch {
	case err != nil:
	case len(s.keeper.runs) == 0 && s.keeper.hello.Restarts == 0:
		return // a start, after a shutdown or the death of pid1
	case old != nil:
		err = fmt.Errorf("%s is that of another zinit", s.store.path)
	default:
		err = fmt.Errorf("%s has gone", s.store.path)
	}
	if len(s.keeper.runs) == 0 {
		s.log.Error("there is no saved state: what is configured is begun as at boot", "error", err)
		return
	}
	s.lost = true
	s.log.Error("the saved state is lost: what runs goes on, all else is begun as at boot. "+
		"Not known any more: what was started and stopped by hand, services added at run time, counts and delays of restarts, events",
		"error", err)
}

// unknown names the services that have runs after this one and no configuration.
func (s *server) unknown(after core.RunID) (names []string) {
	for _, r := range s.keeper.runs {
		if name, _ := parseTag(r.Tag); name != "" && core.RunID(r.Run) > after && s.services[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// readUnknown reads the files of services that run and that the saved state, which
// is older, does not know, and of those that they require: it is no reason to end
// them. All else in the directory waits for a reload.
func (s *server) readUnknown(names []string) {
	// A directory that cannot be read is for standIn.
	read, problems, _ := spec.LoadDirs(s.opts.systemDir, s.opts.configDir)
	before := spec.Plan{Services: maps.Clone(s.services), Proxies: allProxies(s.services, s.ownProxies)}
	for todo := names; len(todo) > 0; todo = todo[1:] {
		if sp := read.Services[todo[0]]; sp != nil && s.services[sp.Name] == nil {
			s.services[sp.Name] = sp
			todo = slices.Concat(todo, sp.Requires)
		}
	}
	for _, p := range problems {
		if slices.Contains(names, p.Service) {
			s.problems = append(s.problems, p)
		}
	}
	s.problems = append(s.problems, newProblems(before, spec.Plan{Services: s.services, Proxies: allProxies(s.services, s.ownProxies)})...)
}

// standIn gives what runs and has a configuration that cannot be read one that
// leaves it alone: it is no reason to end it.
func (s *server) standIn(names []string) {
	_, err := os.Stat(s.opts.configDir)
	for _, name := range names {
		file := ""
		if err != nil {
			file = filepath.Join(s.opts.configDir, name+".toml")
		}
		for _, p := range s.problems {
			if p.Service == name {
				file = p.File
			}
		}
		if file == "" {
			continue
		}
		s.log.Error("the configuration of what runs cannot be read: it goes on as it is, until a reload", "service", name, "file", file)
		sp := spec.Default(name)
		sp.File, sp.Status = file, spec.StatusIgnore
		s.services[name] = sp
	}
}

func (s *server) sayAdopted(a core.Adopted) {
	for _, list := range []struct {
		what  string
		names []string
	}{
		{"kept running, of which nothing was saved", a.Kept},
		{"taken for done, because what runs needs them", a.Done},
		{"ended, because they are not configured", a.Ended},
	} {
		if len(list.names) > 0 {
			s.log.Warn(list.what, "services", strings.Join(list.names, " "))
		}
	}
}

// noteReplaced remembers that this supervisor took the place of another.
func (s *server) noteReplaced(a core.Adopted) {
	h := s.keeper.hello
	down := time.Duration(h.Down) + time.Since(s.started)
	moment := ipc.Time(time.Now())
	r := ipc.Replaced{
		At: &moment, Why: h.LastEnd, TookMS: float64(down.Round(10*time.Microsecond)) / float64(time.Millisecond),
		Version: version.Version, StateLost: s.lost, StateCut: s.cut, Ended: len(a.Ended),
	}
	if r.StateOld = a.Late && !s.lost && !s.cut; r.StateOld {
		s.log.Error("the saved state is older than what ran, because it could not be saved any more: what was decided since is lost")
	}
	s.replaced = append(s.replaced, r)
	s.replaced = slices.Clone(s.replaced[max(0, len(s.replaced)-maxReplaced):])
	args := []any{"services", len(s.services), "runs", len(s.keeper.runs), "restarts", h.Restarts, "down", down.Round(10 * time.Microsecond), "last", h.LastEnd}
	if !r.Untouched() {
		s.log.Warn("took over", args...)
		return
	}
	s.log.Info("took over, no service was touched", args...)
}

// firstRun is where run ids begin that are not saved: after all that were ever
// used, by this zinit or by one before, whose segments may name them.
func firstRun() core.RunID { return core.RunID(time.Now().UnixMilli()) }

// adoptPipes takes over the log pipes and notify sockets that pid1 has kept.
func (s *server) adoptPipes() {
	s.findUnlogged(s.services)
	for _, name := range slices.Sorted(maps.Keys(s.services)) {
		s.configure(s.services[name])
	}
	s.keeper.takeLogs(s.addPipe)
	for _, r := range s.keeper.runs {
		if fd, ok := s.keeper.take(notifyName(core.RunID(r.Run))); ok {
			s.notify.add(core.RunID(r.Run), fd, true)
		}
		if name := readyName(core.RunID(r.Run)); s.keeper.fds[name] != 0 {
			fd, _ := s.keeper.take(name)
			s.addPipe(name, fd)
		}
	}
	led := map[core.RunID]bool{}
	for _, r := range s.keeper.runs {
		led[core.RunID(r.Run)] = r.State != ipc.RunExited
	}
	for run, p := range s.pipes {
		p.over = !led[run]
		s.pipes[run] = p
	}
}

// tagOf is what pid1 is told of a run, by which a supervisor that has lost its
// state knows whose it is: no name of a service has a slash in it.
func tagOf(service string, role core.Role) string {
	if role == core.RoleMain {
		return service
	}
	return service + "/" + role.String()
}

func parseTag(tag string) (service string, role core.Role) {
	service, suffix, _ := strings.Cut(tag, "/")
	for _, role := range []core.Role{core.RolePre, core.RoleStop} {
		if suffix == role.String() {
			return service, role
		}
	}
	return service, core.RoleMain
}

func (s *server) facts() []core.Fact {
	facts := make([]core.Fact, 0, len(s.keeper.runs))
	for _, r := range s.keeper.runs {
		f := core.Fact{Run: core.RunID(r.Run), Signals: r.Signals}
		f.Service, f.Role = parseTag(r.Tag)
		if r.Spawned != nil {
			f.Pid, f.StartTime, f.At = r.Spawned.Pid, r.Spawned.StartTime, core.Time(r.Spawned.At)
		}
		if r.Exited != nil {
			s.acks = append(s.acks, ack{r.Exited.Seq, core.RunID(r.Run)})
			end := s.endOf(*r.Exited)
			f.End = &end
			f.Left = r.Exited.Left && !r.Emptied
		}
		facts = append(facts, f)
	}
	slices.SortFunc(facts, func(a, b core.Fact) int { return int(a.Run) - int(b.Run) })
	return facts
}

// leaders are the main processes of runs that have not ended.
func leaders(facts []core.Fact) map[core.RunID]int {
	out := map[core.RunID]int{}
	for _, f := range facts {
		if f.End == nil {
			out[f.Run] = f.Pid
		}
	}
	return out
}

func (s *server) endOf(m ipc.Exited) core.End {
	return core.End{
		Code: m.Code, Signal: m.Signal, Core: m.Core, At: core.Time(m.At),
		OOM: m.Signal == int(unix.SIGKILL) && s.cgroups.outOfMemory(core.RunID(m.Run)),
	}
}

// endOrphans ends the services of a zinit whose pid1 was killed, each in its own
// way and time, so that there never are two copies. They are told by pid, start
// time and boot id; those of whose start it never heard by their environment.
func (s *server) endOrphans(old *saved) {
	h := s.keeper.hello
	if old == nil || old.Header.Boot != bootID() || old.Header.Keeper == h.Pid && old.Header.Started == h.StartTime {
		return
	}
	var left []orphan
	var names []string
	unheard := s.unheardStarts(old)
	for _, r := range old.Records {
		sp := old.Services[r.Name]
		if sp == nil {
			sp = spec.Default(r.Name)
		}
		pids := unheard[r.Name]
		for _, run := range r.Runs {
			if run.Pid != 0 && startTime(run.Pid) == run.StartTime {
				pids = append(pids, run.Pid)
			}
		}
		for _, pid := range pids {
			left = append(left, orphan{service: r.Name, pid: pid, signal: sp.Lifecycle.StopSignal, grace: sp.Lifecycle.StopTimeout})
			names = append(names, r.Name)
		}
	}
	if len(left) > 0 {
		slices.Sort(names)
		s.log.Warn("services of a zinit-pid1 that was killed are still there: they are ended, then the control socket opens",
			"services", strings.Join(slices.Compact(names), " "))
		endProcesses(left, s.log)
	}
}

// unheardStarts returns the processes of runs that pid1 was told to start and
// had not answered for when it was killed, by service. Each leads a session, and
// its environment says whose it is.
func (s *server) unheardStarts(old *saved) map[string][]int {
	found := map[string][]int{}
	for _, r := range old.Records {
		if slices.ContainsFunc(r.Runs, func(run *core.Run) bool { return run.Pid == 0 }) {
			found[r.Name] = nil
		}
	}
	if len(found) == 0 {
		return nil
	}
	all, _ := readProcesses()
	for _, p := range all {
		if p.session != p.pid {
			continue
		}
		env := environ{own: environOf(p.pid)} // none for others: they are not ours
		name, _ := env.get("ZINIT_SERVICE")
		if _, ours := found[name]; !ours {
			continue
		}
		if socket, _ := env.get("ZINIT_SOCKET"); socket == s.paths.Socket {
			found[name] = append(found[name], p.pid)
		}
	}
	return found
}
