package main

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// What the core knows, as clients see it. All of it runs in the loop.

func (s *server) viewOf(name string) (ipc.Service, bool) {
	now, clock := s.now(), time.Now()
	wall := func(t core.Time) ipc.Time { return ipc.Time(clock.Add(time.Duration(t - now))) }
	v, ok := s.core.View(now, name)
	if !ok {
		return ipc.Service{}, false
	}
	sp := v.Spec
	out := ipc.Service{
		Name: name, Kind: string(sp.Kind), State: ipc.State(v.State.String()),
		Class: string(sp.Class), Status: string(sp.Status), Desired: "down",
		Oneshot: sp.Oneshot, Pid: v.Pid, Restarts: v.Restarts, RestartsTotal: v.Total,
		Reason: reasonOf(v.Reason), StatusText: v.StatusText, Note: v.Note,
		Requires: sp.Requires, After: sp.After, Wants: sp.Wants, Conflicts: sp.Conflicts,
		Dependents: v.Dependents,
		Origin:     ipc.Origin{File: sp.File, Ephemeral: sp.File == ""},
	}
	out.Note = joined(out.Note, s.logs.FileTrouble(name))
	if v.Up {
		out.Desired = "up"
	}
	if v.Since > 0 {
		at := wall(v.Since)
		out.Since = &at
	}
	if v.State == core.StateRunning {
		out.UptimeMS = time.Duration(now - v.Since).Milliseconds()
	}
	if v.Next > 0 {
		at := wall(v.Next)
		out.NextStart = &at
	}
	if v.End != nil {
		e := &ipc.Exit{At: wall(v.End.At)}
		if v.End.Signal != 0 {
			e.Signal = spec.SignalName(v.End.Signal)
		} else {
			e.Code = &v.End.Code
		}
		out.Exit = e
	}
	out.Health = healthOf(v.Health)
	if v.Health.At > 0 {
		at := wall(v.Health.At)
		out.Health.CheckedAt = &at
	}
	for _, b := range v.Blocks {
		out.BlockedBy = append(out.BlockedBy, ipc.Block{Kind: string(b.Kind), Name: b.Name, Detail: s.core.Describe(now, b)})
	}
	return out, true
}

// joined puts together those of two things to say that there are.
func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// leftBehind ends the note of a service that has ended and not gone. See nameLeft.
const leftBehind = "processes of it are left"

// explained is viewOf with a note that also says why a service is down that
// nothing is wrong with, and with help how it is started: what moved need not be
// told that.
func (s *server) explained(name string, help bool) (ipc.Service, bool) {
	out, ok := s.viewOf(name)
	why, how, left := s.core.Rest(s.now(), name)
	out.Note = joined(out.Note, why)
	if help {
		out.Note = joined(out.Note, how)
	}
	if left {
		out.Note = joined(out.Note, leftBehind)
	}
	return out, ok
}

// maxLeft is how many processes are named.
const maxLeft = 5

// nameLeft adds to the notes of services which processes of them are left. It
// reads the process table, beside the loop.
func (s *server) nameLeft(ctx context.Context, notes map[string]*string) {
	maps.DeleteFunc(notes, func(_ string, n *string) bool { return !strings.HasSuffix(*n, leftBehind) })
	if len(notes) == 0 {
		return
	}
	o, err := s.ownersOf(ctx, slices.Collect(maps.Keys(notes)))
	if err != nil {
		return // they have gone meanwhile
	}
	processes, _ := o.processes()
	for name, note := range notes {
		list := processes[name]
		var named []string
		for _, p := range list[:min(len(list), maxLeft)] {
			named = append(named, fmt.Sprintf("%s (pid %d)", programName(p.pid), p.pid))
		}
		if named == nil {
			continue // they have gone meanwhile
		}
		*note += ": " + strings.Join(named, ", ")
		if more := len(list) - maxLeft; more > 0 {
			*note += fmt.Sprintf(" and %d more", more)
		}
		if !o.oneshot[name] {
			*note += "; a program that goes to the background is not looked after: have it stay in the foreground"
		}
	}
}

func healthOf(h core.Health) *ipc.Health {
	return &ipc.Health{Status: string(h.Status), Message: h.Message, LatencyMS: float64(h.Took) / 1e6, Failures: h.Failures}
}

func reasonOf(r *core.Reason) *ipc.Reason {
	if r == nil {
		return nil
	}
	out := &ipc.Reason{
		Kind: string(r.Kind), Message: r.Message, Service: r.Service, Services: r.Services,
		Attempts: r.Attempts, Port: int(r.Port), Pid: r.Pid, Command: r.Command,
	}
	if e := r.End; e != nil {
		if e.Signal != 0 {
			out.Signal = spec.SignalName(e.Signal)
		} else {
			out.Code = &e.Code
		}
		out.Core, out.OOM = e.Core, e.OOM
	}
	return out
}

// maxWhy is how many hops of a chain of causes an answer nests: each takes
// three levels of a frame, of which there are 16. What is deeper is folded:
// the last hop is the root, and its detail says what lies between.
const maxWhy = 3

// why follows the causes of a service's state.
func (s *server) why(name string) ipc.Why {
	return s.whyAt(name, 0, map[string]bool{})
}

func (s *server) whyAt(name string, depth int, seen map[string]bool) ipc.Why {
	v, ok := s.explained(name, true)
	if !ok {
		return ipc.Why{Name: name, State: ipc.StateInactive, Detail: "it does not exist"}
	}
	seen[name] = true
	w := ipc.Why{Name: name, State: v.State, Reason: v.Reason, Detail: v.Note, BlockedBy: v.BlockedBy}
	if r := v.Reason; r != nil && (r.Kind == string(core.ReasonDependency) || r.Kind == string(core.ReasonMissing)) {
		w.BlockedBy = append(w.BlockedBy, ipc.Block{Kind: "requires", Name: r.Service, Detail: r.Message})
	}
	for i := range w.BlockedBy {
		b := &w.BlockedBy[i]
		if d, ok := s.viewOf(b.Name); ok {
			b.State = d.State
		}
		if b.Kind == string(core.BlockLeft) || b.Kind == string(core.BlockPort) || seen[b.Name] || s.core.Spec(b.Name) == nil {
			continue
		}
		target := b.Name
		if depth == maxWhy-1 {
			target = s.root(b.Name)
		}
		because := s.whyAt(target, depth+1, seen)
		if depth == maxWhy-1 {
			because.BlockedBy = nil
		}
		b.Because = &because
	}
	return w
}

// root follows the first cause of each service to the end.
func (s *server) root(name string) string {
	for seen := map[string]bool{}; !seen[name]; {
		seen[name] = true
		v, ok := s.core.View(s.now(), name)
		switch {
		case ok && len(v.Blocks) > 0 && s.services[v.Blocks[0].Name] != nil:
			name = v.Blocks[0].Name
		case ok && v.Reason != nil && v.Reason.Kind == core.ReasonDependency:
			name = v.Reason.Service
		}
	}
	return name
}

// maxTree is how many levels of a tree one item holds; what is deeper follows
// as an item of its own.
const maxTree = 5

// trees returns the tree of a service, or of all that nobody requires. A
// subtree that was cut off is marked, and follows later in the list.
func (s *server) trees(name string, reverse bool) []ipc.Tree {
	edges := func(n string) []string {
		if !reverse {
			if sp := s.core.Spec(n); sp != nil {
				return sp.Requires
			}
			return nil
		}
		v, _ := s.core.View(s.now(), n)
		return v.Dependents
	}
	var roots []string
	if name != "" {
		roots = []string{name}
	} else {
		needed := map[string]bool{}
		for _, n := range s.core.Names() {
			for _, d := range edges(n) {
				needed[d] = true
			}
		}
		for _, n := range s.core.Names() {
			if !needed[n] || s.inCycle(n) {
				roots = append(roots, n)
			}
		}
	}
	var out []ipc.Tree
	done := map[string]bool{}
	for len(roots) > 0 {
		n := roots[0]
		roots = roots[1:]
		if done[n] {
			continue
		}
		done[n] = true
		t, cut := s.tree(n, edges, 0)
		out = append(out, t)
		roots = append(roots, cut...)
	}
	return out
}

func (s *server) inCycle(name string) bool {
	v, _ := s.core.View(s.now(), name)
	return v.Reason != nil && v.Reason.Kind == core.ReasonCycle
}

// tree returns a tree down to maxTree levels, and the names at which it goes on.
func (s *server) tree(name string, edges func(string) []string, depth int) (ipc.Tree, []string) {
	t := ipc.Tree{Name: name, State: ipc.StateInactive}
	if v, ok := s.core.View(s.now(), name); ok {
		t.State = ipc.State(v.State.String())
	} else {
		t.Missing = true
	}
	next := edges(name)
	if depth == maxTree && len(next) > 0 {
		t.More = true
		return t, []string{name}
	}
	var cut []string
	for _, n := range next {
		child, c := s.tree(n, edges, depth+1)
		t.Requires = append(t.Requires, child)
		cut = append(cut, c...)
	}
	return t, cut
}

// began is when zinit did: when zinit-pid1 was started.
func (s *server) began() core.Time { return s.now() - core.Time(age(s.keeper.hello.StartTime)) }

// booted is how services came up.
func (s *server) booted() (out []ipc.BootService) {
	began := s.began()
	after := func(t core.Time) *float64 {
		if t == 0 {
			return nil
		}
		// zinit's start is known to a hundredth of a second only.
		ms := max(0, math.Round(float64(t-began)/1e3)/1e3)
		return &ms
	}
	for _, n := range s.core.Names() {
		v, _ := s.core.View(s.now(), n)
		if f := v.First; f.Wanted > 0 {
			out = append(out, ipc.BootService{
				Name: n, WantedAtMS: *after(f.Wanted), SpawnedAtMS: after(f.Spawned), ReadyAtMS: after(f.Ready), WaitedFor: f.WaitedFor,
			})
		}
	}
	return out
}

func (s *server) info() ipc.Info {
	i := ipc.Info{
		Version: version.Version, Pid: os.Getpid(), KeeperPid: s.keeper.hello.Pid, Mode: string(s.keeper.hello.Mode),
		Socket: s.paths.Socket, RuntimeDir: s.paths.RuntimeDir, ConfigDir: s.opts.configDir, SystemDir: s.opts.systemDir,
		UptimeMS: age(s.keeper.hello.StartTime).Milliseconds(), Services: map[string]int{},
		ConfigErrors: []ipc.Problem{}, ServerRestarts: s.keeper.hello.Restarts, LastEnd: s.keeper.hello.LastEnd,
		DownMS: time.Duration(s.keeper.hello.Down).Milliseconds(), ShuttingDown: s.core.ShuttingDown(), StateLost: s.lost,
		Replaced: s.replaced,
	}
	i.Started = &s.zinitStarted
	if s.unsaved {
		i.Unsaved, i.UnsavedSince = s.store.failed.Error(), &s.unsavedSince
	}
	for _, n := range s.core.Names() {
		v, _ := s.core.View(s.now(), n)
		i.Services[v.State.String()]++
	}
	size := 0
	for n, p := range s.problems {
		if size += len(p.File) + len(p.Message); size > maxProblemBytes {
			i.ConfigErrors = append(i.ConfigErrors, ipc.Problem{
				File: s.opts.configDir, Message: fmt.Sprintf("and %d more errors", len(s.problems)-n),
			})
			break
		}
		i.ConfigErrors = append(i.ConfigErrors, problemOf(p))
		i.ConfigErrors[n].Loaded = p.Between
	}
	return i
}

// maxProblemBytes bounds the errors of files in an info, which is one frame.
const maxProblemBytes = ipc.MaxFrame / 2

// notFound is the answer for an unknown name, which may be that of a broken
// file.
func (s *server) notFound(name string) *ipc.Error {
	e := ipc.Errorf(ipc.ErrNotFound, "there is no service %q", name)
	e.Service = name
	for _, p := range s.problems {
		if p.Service == name {
			e.Message = "service " + name + " has an error in its configuration"
			e.Problems = append(e.Problems, problemOf(p))
		}
	}
	if e.Problems == nil {
		e.Nearest = spec.Nearest(name, s.core.Names())
	}
	return e
}

// sayUnloaded adds to the answer for an unknown name that there is a file of that
// name. It asks the file system, beside the loop.
func (s *server) sayUnloaded(ctx context.Context, e *ipc.Error) {
	for _, dir := range []string{s.opts.configDir, s.opts.systemDir} {
		file := filepath.Join(dir, e.Service+".toml")
		if _, err := os.Lstat(file); dir == "" || err != nil {
			continue
		}
		loaded := false // as a service of another name
		err := s.in(ctx, func() {
			for _, sp := range s.services {
				loaded = loaded || sp.File == file
			}
			for _, p := range s.ownProxies {
				loaded = loaded || p.File == file
			}
		})
		if err == nil && !loaded {
			e.Message += fmt.Sprintf(": %s is there and not loaded yet: zinit reload", file)
			e.Nearest = ""
			return
		}
	}
}

// known checks names, and returns each once; all that there are for none.
func (s *server) known(names []string) ([]string, *ipc.Error) {
	if len(names) == 0 {
		return s.core.Names(), nil
	}
	var once []string
	seen := map[string]bool{}
	for _, n := range names {
		if s.core.Spec(n) == nil {
			return nil, s.notFound(n)
		}
		if !seen[n] {
			seen[n] = true
			once = append(once, n)
		}
	}
	return once, nil
}
