package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/threefoldtech/zinit/common/atomicfile"
	"github.com/threefoldtech/zinit/common/failpoint"
	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// Changes of the configuration while services run. Files are read in the
// goroutine of whoever asked for it; what was read is compared with what is in
// effect, saved and handed to the core in the loop, as one step. An error
// anywhere changes nothing.

// plan is a configuration that may take effect, and what that means.
type plan struct {
	services map[string]*spec.Service
	proxies  map[string]*spec.Proxy // of files of their own
	restart  map[string]bool
	result   ipc.Reloaded
}

// compare makes a plan of a new configuration. What is equal to what is in
// effect keeps its place in memory, by which the core knows that it is. It
// runs in the loop.
func (s *server) compare(services map[string]*spec.Service, proxies map[string]*spec.Proxy) plan {
	p := plan{services: services, proxies: proxies, restart: map[string]bool{}}
	p.result = ipc.Reloaded{Added: []string{}, Removed: []string{}, Changed: []ipc.Change{}, Errors: []ipc.Problem{}}
	for _, n := range slices.Sorted(maps.Keys(services)) {
		was, ok := s.services[n]
		if !ok {
			p.result.Added = append(p.result.Added, n)
			continue
		}
		if was == services[n] {
			continue
		}
		fields := was.Diff(services[n])
		if len(fields) == 0 && was.File == services[n].File {
			services[n] = was
			continue
		}
		p.restart[n] = slices.ContainsFunc(fields, needsRestart) || core.OtherProcess(was, services[n]) ||
			!slices.Equal(was.Passed(), services[n].Passed())
		if len(fields) > 0 {
			p.result.Changed = append(p.result.Changed, ipc.Change{Name: n, Fields: fields})
		}
	}
	for _, n := range slices.Sorted(maps.Keys(s.services)) {
		if services[n] == nil {
			p.result.Removed = append(p.result.Removed, n)
		}
	}
	var stopped map[string]bool
	if len(p.result.Added)+len(p.result.Removed)+len(p.restart) > 0 {
		stopped = s.core.Foresee(s.now(), core.Load{Services: p.services, Restart: p.restart})
	}
	for i := range p.result.Changed {
		c := &p.result.Changed[i]
		back, is := stopped[c.Name]
		c.Restart, c.Stop = is && back, is && !back
		delete(stopped, c.Name)
	}
	for _, n := range p.result.Removed {
		delete(stopped, n)
	}
	p.result.Along = slices.Sorted(maps.Keys(stopped))
	s.compareProxies(&p)
	return p
}

// needsRestart says of a field whether a process has to be replaced for it;
// all others take effect as they are.
func needsRestart(field string) bool {
	switch field {
	case "service.exec", "service.dir", "service.env", "service.env_file", "service.console",
		"service.user", "service.group", "service.umask", "lifecycle.ready_fd":
		return true
	}
	return strings.HasPrefix(field, "limits.")
}

// apply puts a plan into effect, with the listeners that were opened for it. It
// runs in the loop.
func (s *server) apply(p plan, opened map[spec.Address]int) {
	if len(s.problems) > 0 {
		s.problems = slices.DeleteFunc(s.problems, func(bad spec.Problem) bool { return bad.Between })
		s.problems = append(s.problems, spec.Plan{Services: p.services, Proxies: allProxies(p.services, p.proxies)}.Check()...)
	}
	without := s.unlogged
	s.findUnlogged(p.services)
	for n, sp := range p.services {
		if s.services[n] != sp {
			s.store.put(recordSpec, sp)
		}
		if s.services[n] != sp || without[n] != s.unlogged[n] {
			s.configure(sp)
		}
	}
	s.store.put(recordErrors, s.problems)
	s.services = p.services
	failpoint.Hit("loading")
	s.step(core.Load{Services: p.services, Restart: p.restart, Broken: s.broken()})
	passing, had := s.passing, maps.Clone(s.listeners)
	s.setProxies(p.proxies, opened)
	names := slices.AppendSeq(slices.Collect(maps.Keys(passing)), maps.Keys(s.passing))
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		if v, _ := s.core.View(s.now(), n); v.Pid != 0 && v.Halt == core.HaltNone &&
			!(samePassed(passing[n], s.passing[n]) && s.sameListeners(n, had)) {
			s.step(core.Wish{Op: core.OpRestart, Names: []string{n}}) // to get other listeners
		}
	}
	s.moved = true
}

// findUnlogged notes of which services another one has the log file.
func (s *server) findUnlogged(services map[string]*spec.Service) {
	s.unlogged = map[string]string{}
	if len(s.problems) == 0 {
		return // only at boot something takes effect that shares one
	}
	for _, bad := range (spec.Plan{Services: services}).SharedLogFiles() {
		s.unlogged[bad.Service] = bad.Message
	}
}

// configured is what the directories hold, and what was added at run time.
func (s *server) configured(ctx context.Context) (read spec.Plan, problems []ipc.Problem, err error) {
	read, bad, err := s.loader.LoadDirs(s.opts.systemDir, s.opts.configDir)
	if err != nil {
		return read, nil, ipc.Errorf(ipc.ErrFailed, "%v", err)
	}
	var gone error
	if s.opts.systemDir != "" {
		_, gone = os.Stat(s.opts.systemDir)
	}
	err = s.in(ctx, func() {
		for _, sp := range s.services {
			if sp.Early && gone != nil { // it was there
				bad = []spec.Problem{{File: s.opts.systemDir, Message: "cannot read system directory: " + gone.Error()}}
			}
		}
		if len(s.keeper.hello.Main) > 0 {
			bad = append(bad, s.takenName(read)...)
			read.Services[mainService] = s.services[mainService]
		}
		for n, sp := range s.services {
			if read.Services[n] == nil && sp.File == "" {
				bad = append(bad, read.Add(sp, nil)...)
			}
		}
		for n, p := range s.ownProxies {
			if read.Proxies[n] == nil && p.File == "" {
				bad = append(bad, read.Add(nil, p)...)
			}
		}
	})
	for _, p := range append(bad, read.Check()...) {
		problems = append(problems, problemOf(p))
	}
	return read, problems, err
}

// broken says which error keeps a service from being there, by its name: the
// first, where there are several.
func (s *server) broken() map[string]string {
	errors := map[string]string{}
	for _, p := range s.problems {
		if _, ok := errors[p.Service]; ok || p.Service == "" || s.services[p.Service] != nil {
			continue
		}
		where := filepath.Base(p.File)
		if p.Line > 0 {
			where += fmt.Sprintf(":%d:%d", p.Line, p.Column)
		}
		errors[p.Service] = where + ": " + p.Message
	}
	return errors
}

func problemOf(p spec.Problem) ipc.Problem {
	return ipc.Problem{File: p.File, Line: p.Line, Column: p.Column, Message: p.Message}
}

// reload reads the directory again.
func (s *server) reload(ctx context.Context, dryRun bool) (ipc.Reloaded, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	read, problems, err := s.configured(ctx)
	if err != nil {
		return ipc.Reloaded{}, err
	}
	if len(problems) > 0 {
		e := ipc.Errorf(ipc.ErrInvalid, "the configuration has errors: nothing was changed")
		e.Problems = problems
		return ipc.Reloaded{}, e
	}
	var opened map[spec.Address]int
	deaf := map[spec.Address]string{}
	if !dryRun {
		if opened, err = s.openListeners(ctx, read.Proxies, deaf); err != nil {
			return ipc.Reloaded{}, ipc.Errorf(ipc.ErrFailed, "%v: nothing was changed", err)
		}
	}
	var p plan
	var refused error
	err = s.in(ctx, func() {
		if s.core.ShuttingDown() {
			refused = ipc.Errorf(ipc.ErrShuttingDown, "zinit is shutting down")
			return
		}
		p = s.compare(read.Services, ownProxies(read))
		if !dryRun {
			s.problems = nil
			s.deaf = deaf
			s.apply(p, opened)
			s.loader.Keep(p.services)
		}
	})
	closeListeners(opened)
	return p.result, errors.Join(refused, err)
}

// refusal says why a service cannot be added, or put in place of another of
// that name: because it would not pass a reload. It runs in the loop.
func (s *server) refusal(sp *spec.Service) *ipc.Error {
	if s.core.ShuttingDown() {
		return ipc.Errorf(ipc.ErrShuttingDown, "zinit is shutting down")
	}
	if sp.Name == mainService && len(s.keeper.hello.Main) > 0 {
		return ipc.Errorf(ipc.ErrInvalid, "main is the command that this container runs: it cannot be changed")
	}
	if own := s.ownProxies[sp.Name]; own != nil && sp.Xinet != nil {
		return ipc.Errorf(ipc.ErrConflict, "there is already a proxy named %s, of the service %s: delete it, or leave [xinet] out", own.Name, own.Service)
	}
	services := maps.Clone(s.services)
	delete(services, sp.Name)
	without := spec.Plan{Services: maps.Clone(services), Proxies: allProxies(services, s.ownProxies)}
	services[sp.Name] = sp
	with := spec.Plan{Services: services, Proxies: allProxies(services, s.ownProxies)}
	return invalid(newProblems(without, with))
}

// newProblems are those that a plan has and the one before has not.
func newProblems(before, after spec.Plan) []spec.Problem {
	problems := after.Check()
	if len(problems) == 0 {
		return nil
	}
	known := before.Check()
	return slices.DeleteFunc(problems, func(p spec.Problem) bool { return slices.Contains(known, p) })
}

// invalid is the error of a service that has problems, nil if it has none.
func invalid(problems []spec.Problem) *ipc.Error {
	if len(problems) == 0 {
		return nil
	}
	e := ipc.Errorf(ipc.ErrInvalid, "the service has errors: nothing was changed")
	for _, p := range problems {
		e.Problems = append(e.Problems, problemOf(p))
	}
	return e
}

// change takes over a service that nothing speaks against, and has a waiter see
// what comes of it. It says whether the service is starting from then on, which by
// the next turn of the loop it may have done.
func (s *server) change(ctx context.Context, sp *spec.Service, opened map[spec.Address]int, w *waiter, before map[string]core.State) (r ipc.Reloaded, starting bool, err error) {
	var p plan
	var refused *ipc.Error
	err = s.in(ctx, func() {
		if refused = s.refusal(sp); refused != nil {
			return
		}
		services := maps.Clone(s.services)
		services[sp.Name] = sp
		p = s.compare(services, maps.Clone(s.ownProxies))
		s.problems = slices.DeleteFunc(s.problems, func(bad spec.Problem) bool { return bad.Service == sp.Name })
		v, _ := s.core.View(s.now(), sp.Name)
		before[sp.Name] = v.State
		s.waiters[w] = true
		s.apply(p, opened)
		v, _ = s.core.View(s.now(), sp.Name)
		starting = v.State == core.StateStarting
	})
	return p.result, starting, cmpError(refused, err)
}

// parseOne reads the service of a request.
func parseOne(p ipc.ConfigParams) (*spec.Service, error) {
	sp, proxy, problems := spec.Parse(cmp.Or(p.Name, "unnamed")+".toml", []byte(p.Config))
	for i := range problems {
		problems[i].File = "" // there is none: the lines are those of the request
	}
	switch {
	case len(problems) > 0:
		return nil, invalid(problems)
	case proxy != nil:
		return nil, ipc.Errorf(ipc.ErrInvalid, "this describes a proxy, not a service")
	case p.Name == "" && sp.Name == "unnamed":
		return nil, ipc.Errorf(ipc.ErrInvalid, "the service has no name: set name in its main table")
	}
	sp.File = ""
	return sp, nil
}

// add is service.add: a service that there was not.
func (s *server) add(ctx context.Context, p ipc.ConfigParams) ([]ipc.Moved, error) {
	sp, err := parseOne(p)
	if err != nil {
		return nil, err
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	var refused error
	if err := s.in(ctx, func() {
		if s.core.Spec(sp.Name) != nil {
			e := ipc.Errorf(ipc.ErrConflict, "there is a service %s already: change it with set", sp.Name)
			e.Service = sp.Name
			refused = e
		}
	}); err != nil || refused != nil {
		return nil, errors.Join(refused, err)
	}
	if p.Persist {
		sp.File = filepath.Join(s.opts.configDir, sp.Name+".toml")
		if _, err := os.Lstat(sp.File); err == nil {
			return nil, ipc.Errorf(ipc.ErrConflict, "there is a file %s already, which is not in effect: reload, or remove it", sp.File)
		}
	}
	return s.put(ctx, sp, p)
}

// set is service.set: make or replace, always in a file.
func (s *server) set(ctx context.Context, p ipc.ConfigParams) ([]ipc.Moved, error) {
	sp, err := parseOne(p)
	if err != nil {
		return nil, err
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	sp.File = filepath.Join(s.opts.configDir, sp.Name+".toml")
	if err := s.in(ctx, func() {
		if was := s.services[sp.Name]; was != nil && was.File != "" {
			sp.File = was.File
		} else if i := slices.IndexFunc(s.problems, func(bad spec.Problem) bool { return bad.Service == sp.Name }); was == nil && i >= 0 {
			sp.File = s.problems[i].File // it replaces what is broken
		}
	}); err != nil {
		return nil, err
	}
	if filepath.Dir(sp.File) == s.opts.systemDir {
		sp.MakeEarly()
	}
	if p.Config, err = named(p.Config, sp); err != nil {
		return nil, err
	}
	p.Persist = true
	return s.put(ctx, sp, p)
}

// named returns the text of a service for its file, with its name added where
// the file has another one and would give the service that.
func named(config string, sp *spec.Service) (string, error) {
	as := func(text string) bool {
		read, _, _ := spec.Parse(sp.File, []byte(text))
		return read != nil && read.Name == sp.Name
	}
	if as(config) {
		return config, nil
	}
	// The line of the main table. Compiled here, because every start of a
	// supervisor would pay for what is seldom used.
	mainHeader := regexp.MustCompile(`(?m)^[ \t]*\[[ \t]*(service|target)[ \t]*\].*$`)
	if at := mainHeader.FindStringIndex(config); at != nil {
		text := config[:at[1]] + fmt.Sprintf("\nname = %q", sp.Name) + config[at[1]:]
		if as(text) {
			return text, nil
		}
	}
	return "", invalid([]spec.Problem{{File: sp.File, Message: fmt.Sprintf("the text has to have a name: it becomes a file that is called otherwise than %s", sp.Name)}})
}

// put writes the file, if there is to be one, and takes the service over. What
// is refused leaves no file behind.
func (s *server) put(ctx context.Context, sp *spec.Service, p ipc.ConfigParams) ([]ipc.Moved, error) {
	w := newWaiter(started, sp.Name)
	before := map[string]core.State{}
	var refused *ipc.Error
	if err := s.in(ctx, func() { refused = s.refusal(sp) }); err != nil || refused != nil {
		return nil, cmpError(refused, err)
	}
	opened, err := s.openListeners(ctx, allProxies(map[string]*spec.Service{sp.Name: sp}, nil), nil)
	if err != nil {
		return nil, ipc.Errorf(ipc.ErrFailed, "%v: nothing was changed", err)
	}
	defer closeListeners(opened)
	if p.Persist {
		if err := atomicfile.Write(sp.File, []byte(p.Config), 0o644); err != nil {
			return nil, ipc.Errorf(ipc.ErrFailed, "%v", err)
		}
	}
	// The file is there: what it says takes effect even if the client has gone.
	result, starting, err := s.change(context.WithoutCancel(ctx), sp, opened, w, before)
	if err != nil {
		return nil, err
	}
	wants := sp.Status == spec.StatusStart
	for _, c := range result.Changed {
		wants = c.Restart || starting // what was down may be tried again
	}
	if len(result.Added) == 0 && len(result.Changed) == 0 {
		wants = before[sp.Name] == core.StateStarting // asked for again, when the first answer was lost
	}
	return s.await(ctx, w, before, ipc.NamesParams{NoWait: p.NoWait || !wants, TimeoutMS: p.TimeoutMS}, "start")
}

// remove is service.remove: the service, and its file.
func (s *server) remove(ctx context.Context, names []string, p ipc.NamesParams) ([]ipc.Moved, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	w := newWaiter(removed, names...)
	before := map[string]core.State{}
	var refused *ipc.Error
	var files []string
	if err := s.in(ctx, func() {
		if s.core.ShuttingDown() {
			refused = ipc.Errorf(ipc.ErrShuttingDown, "zinit is shutting down")
			return
		}
		if _, refused = s.known(names); refused != nil {
			return
		}
		for _, n := range names {
			if n == mainService && len(s.keeper.hello.Main) > 0 {
				refused = ipc.Errorf(ipc.ErrInvalid, "main is the command that this container runs: it cannot be removed")
			}
			v, _ := s.core.View(s.now(), n)
			before[n] = v.State
			if v.Spec.File != "" {
				files = append(files, v.Spec.File)
			}
		}
	}); err != nil || refused != nil {
		return nil, cmpError(refused, err)
	}
	if err := hide(files); err != nil {
		return nil, ipc.Errorf(ipc.ErrFailed, "%v", err)
	}
	err := s.in(context.WithoutCancel(ctx), func() {
		services := maps.Clone(s.services)
		for _, n := range names {
			delete(services, n)
		}
		s.waiters[w] = true
		s.concerns(w, "") // while they are still known
		s.apply(s.compare(services, maps.Clone(s.ownProxies)), nil)
	})
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if err := os.Remove(hiddenName(f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("cannot remove what is left of a service file", "error", err)
		}
	}
	return s.await(ctx, w, before, p, "remove")
}

// hiddenName is that of a file on its way to be removed; files whose name begins
// with a dot are not read.
func hiddenName(file string) string {
	return filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".removed")
}

// hide renames files so that they are not read any more: all of them, or none.
func hide(files []string) error {
	for i, f := range files {
		err := os.Rename(f, hiddenName(f))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		err = fmt.Errorf("cannot remove %s: %w", f, errors.Unwrap(err))
		for _, f := range files[:i] {
			if back := os.Rename(hiddenName(f), f); back != nil && !errors.Is(back, fs.ErrNotExist) {
				return fmt.Errorf("%w; and cannot undo the rest: %w", err, back)
			}
		}
		return fmt.Errorf("%w: nothing was changed", err)
	}
	return nil
}

// hangupPatience bounds how long pid1 waits to hear that a reload that it asked
// for is done: much longer, and it would take the supervisor for hung.
const hangupPatience = 10 * time.Second

// hangup reloads because of a signal, where nobody waits for an answer. The
// request of pid1, if it is one, is acknowledged when it is done: killed before,
// the next supervisor is asked again.
func (s *server) hangup(seq uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	done := func() {
		s.inbox <- func() {
			if seq != 0 {
				s.acks = append(s.acks, ack{seq: seq})
			}
		}
	}
	late := time.AfterFunc(hangupPatience, done)
	defer func() {
		if late.Stop() {
			done()
		}
	}()
	result, err := s.reload(ctx, false)
	var e *ipc.Error
	switch {
	case errors.As(err, &e):
		s.log.Error("not reloaded: " + e.Message)
		for _, p := range e.Problems {
			s.log.Error(fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message))
		}
	case err != nil:
		s.log.Error("not reloaded", "error", err)
	default:
		s.log.Info("reloaded", "added", len(result.Added), "removed", len(result.Removed), "changed", len(result.Changed))
	}
}
