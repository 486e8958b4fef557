package core

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/common/spec"
)

// TestTransitions writes down what each event does in each situation that a
// service can be in, and compares it with testdata/transitions.golden. Rewrite
// that with -update only if you can say for each changed line why the new one
// is right: it is the behaviour of zinit.
func TestTransitions(t *testing.T) {
	var b strings.Builder
	fmt.Fprintln(&b, "# What each event does to the service web, which requires db. Written by")
	fmt.Fprintln(&b, "# go test -run Transitions -update; read the comment there first.")
	for _, from := range situations {
		fmt.Fprintf(&b, "\n== %s\n", from.name)
		fmt.Fprintf(&b, "%-26s %s\n", "", from.make(t).standing())
		for _, ev := range happenings {
			l := from.make(t)
			fmt.Fprintf(&b, "%-26s %s\n", ev.name, l.take(ev.of(l)))
		}
	}
	const file = "testdata/transitions.golden"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("transitions have changed: %s", diff(string(want), b.String()))
	}
}

// lab is a service under a magnifying glass, in a core with one that it
// requires.
type lab struct {
	c   *Core
	web *service
	now Time
}

type situation struct {
	name string
	how  func(l *lab)
	with func(s *spec.Service)
}

// situations are the states of web, with all that makes a difference in them.
var situations = []situation{
	{"inactive", func(l *lab) {}, nil},
	{"blocked by db", func(l *lab) { l.start(); l.c.Step(l.now, Wish{OpStop, []string{"db"}}); l.db(1) }, nil},
	{"starting, not spawned", func(l *lab) { l.up(); l.start() }, nil},
	{"starting, not ready", func(l *lab) { l.up(); l.start(); l.spawned() }, notify},
	{"starting, oneshot", func(l *lab) { l.up(); l.start(); l.spawned() }, oneshot},
	{"starting, pre_start", func(l *lab) { l.up(); l.start(); l.spawned() }, preStart},
	{"running", running, nil},
	{"running, watchdog", func(l *lab) { l.up(); l.start(); l.spawned(); l.c.Step(l.now, Ready{l.run()}) }, watchdog},
	{"starting, health", func(l *lab) { l.up(); l.start(); l.spawned(); l.probed(false) }, health},
	{"running, health", func(l *lab) { l.up(); l.start(); l.spawned(); l.probed(true); l.probed(false) }, health},
	{"running, to be stopped", func(l *lab) {
		running(l)
		l.c.Step(l.now, Wish{OpStart, []string{"user"}})
		l.c.Step(l.now, Spawned{Run: l.c.lastRun, Pid: 300})
		l.wish(OpStop)
	}, nil},
	{"stopping by hand", func(l *lab) { running(l); l.wish(OpStop) }, nil},
	{"stopping, not spawned", func(l *lab) { l.up(); l.start(); l.wish(OpStop) }, nil},
	{"stopping for a restart", func(l *lab) { running(l); l.wish(OpRestart) }, nil},
	{"stopping for db", func(l *lab) { running(l); l.c.Step(l.now, Wish{OpStop, []string{"db"}}) }, nil},
	{"stopping for a failure", func(l *lab) { l.up(); l.start(); l.spawned(); l.wait(30 * time.Second) }, notify},
	{"stopping, stop_exec", func(l *lab) { running(l); l.wish(OpStop); l.spawned() }, stopExec},
	{"stopping, killed", func(l *lab) { running(l); l.wish(OpStop); l.wait(10 * time.Second) }, nil},
	{"stopping, processes left", func(l *lab) { running(l); l.wish(OpStop); l.exited(0, true) }, nil},
	{"exited", func(l *lab) { running(l); l.exited(0, false) }, nil},
	{"exited, oneshot done", func(l *lab) { l.up(); l.start(); l.spawned(); l.exited(0, false) }, oneshot},
	{"exited, to be restarted", func(l *lab) { running(l); l.exited(0, false) }, always},
	{"exited, processes left", func(l *lab) { running(l); l.exited(0, true) }, nil},
	{"exited, cleaning", func(l *lab) { running(l); l.exited(0, true); l.wish(OpStop) }, nil},
	{"failed, to be restarted", func(l *lab) { running(l); l.exited(1, false) }, nil},
	{"failed for good", func(l *lab) { running(l); l.exited(1, false) }, never},
	{"failed because of db", func(l *lab) { l.start(); l.c.Step(l.now, SpawnFailed{Run: l.dbRun(), Config: true}) }, nil},
	{"blocked, cleaning", func(l *lab) { running(l); l.exited(1, true); l.wait(time.Second) }, nil},
}

func running(l *lab)           { l.up(); l.start(); l.spawned() }
func notify(s *spec.Service)   { s.Lifecycle.Ready = spec.ReadyNotify }
func oneshot(s *spec.Service)  { s.Oneshot, s.Lifecycle.StartTimeout = true, 0 }
func preStart(s *spec.Service) { s.Lifecycle.PreStart = spec.Command{{{Text: "pre"}}} }
func stopExec(s *spec.Service) { s.Lifecycle.StopExec = spec.Command{{{Text: "stop"}}} }
func health(s *spec.Service) {
	s.Health = &spec.Health{Type: spec.HealthTCP, Interval: 10 * time.Second, Retries: 2}
	s.Lifecycle.Ready = spec.ReadyHealth
}
func always(s *spec.Service)   { s.Lifecycle.Restart = spec.RestartAlways }
func never(s *spec.Service)    { s.Lifecycle.Restart = spec.RestartNever }
func watchdog(s *spec.Service) { notify(s); s.Lifecycle.Watchdog = 10 * time.Second }

// happenings are the events, made for the latest run of web.
var happenings = []struct {
	name string
	of   func(l *lab) Event
}{
	{"start", func(l *lab) Event { return Wish{OpStart, []string{"web"}} }},
	{"stop", func(l *lab) Event { return Wish{OpStop, []string{"web"}} }},
	{"restart", func(l *lab) Event { return Wish{OpRestart, []string{"web"}} }},
	{"kill", func(l *lab) Event { return Kill{"web", int(syscall.SIGHUP)} }},
	{"spawned", func(l *lab) Event { return Spawned{Run: l.run(), Pid: 222} }},
	{"spawn failed", func(l *lab) Event { return SpawnFailed{Run: l.run(), Message: "no such file", Code: 127} }},
	{"spawn failed for good", func(l *lab) Event { return SpawnFailed{Run: l.run(), Message: "X is not set", Code: 127, Config: true} }},
	{"exited 0", func(l *lab) Event { return Exited{Run: l.run()} }},
	{"exited 0, processes left", func(l *lab) Event { return Exited{Run: l.run(), Left: true} }},
	{"exited 1", func(l *lab) Event { return Exited{Run: l.run(), End: End{Code: 1}} }},
	{"exited 1, processes left", func(l *lab) Event { return Exited{Run: l.run(), End: End{Code: 1}, Left: true} }},
	{"killed by a signal", func(l *lab) Event { return Exited{Run: l.run(), End: End{Signal: 9}} }},
	{"emptied", func(l *lab) Event { return Emptied{Run: l.run()} }},
	{"ready", func(l *lab) Event { return Ready{Run: l.run()} }},
	{"says alive", func(l *lab) Event { l.now += 1e9; return Notify{Run: l.run(), Alive: true} }},
	{"says trigger", func(l *lab) Event { return Notify{Run: l.run(), Trigger: true} }},
	{"wants more time", func(l *lab) Event { return Notify{Run: l.run(), Extend: 60e9} }},
	{"names its main process", func(l *lab) Event { return Notify{Run: l.run(), MainPid: 333} }},
	{"its probe passes", func(l *lab) Event { return l.result(true) }},
	{"its probe fails", func(l *lab) Event { return l.result(false) }},
	{"its check is taken away", func(l *lab) Event {
		return l.change(false, func(s *spec.Service) {
			s.Health = nil
			if s.Lifecycle.Ready == spec.ReadyHealth {
				s.Lifecycle.Ready = spec.ReadyExec
			}
		})
	}},
	{"deadline", func(l *lab) Event { l.now = max(l.now, l.web.Deadline); return Tick{} }},
	{"shutdown", func(l *lab) Event { return Stop{Action: "exit", Within: 90e9} }},
	{"db is stopped", func(l *lab) Event { return Wish{OpStop, []string{"db"}} }},
	{"db fails for good", func(l *lab) Event { return Exited{Run: l.dbRun(), End: End{Code: 1}} }},
	{"is removed", func(l *lab) Event { return l.without("web") }},
	{"changes in place", func(l *lab) Event { return l.change(false, func(s *spec.Service) { s.Lifecycle.StabilityPeriod = 0 }) }},
	{"changes, and is restarted", func(l *lab) Event { return l.change(true, func(s *spec.Service) { s.Dir = "/" }) }},
	{"status becomes stop", func(l *lab) Event { return l.change(false, func(s *spec.Service) { s.Status = spec.StatusStop }) }},
	{"status becomes ignore", func(l *lab) Event { return l.change(false, func(s *spec.Service) { s.Status = spec.StatusIgnore }) }},
	{"db is removed", func(l *lab) Event { return l.without("db") }},
	{"another run ends", func(l *lab) Event { return Exited{Run: 99} }},
}

func (s situation) make(t *testing.T) *lab {
	db, web, user := spec.Default("db"), spec.Default("web"), spec.Default("user")
	db.Lifecycle.Restart = spec.RestartNever
	web.Requires, user.Requires = []string{"db"}, []string{"web"}
	if s.with != nil {
		s.with(web)
	}
	l := &lab{c: New(map[string]*spec.Service{"db": db, "web": web, "user": user}, Options{}), now: epoch}
	l.web = l.c.services["web"]
	s.how(l)
	return l
}

// up starts db.
func (l *lab) up() {
	l.c.Step(l.now, Wish{OpStart, []string{"db"}})
	l.c.Step(l.now, Spawned{Run: l.dbRun(), Pid: 100})
}

func (l *lab) start()     { l.wish(OpStart) }
func (l *lab) wish(op Op) { l.c.Step(l.now, Wish{op, []string{"web"}}) }
func (l *lab) spawned()   { l.c.Step(l.now, Spawned{Run: l.run(), Pid: 200 + int(l.run())}) }
func (l *lab) db(code int) {
	l.c.Step(l.now, Spawned{Run: l.dbRun(), Pid: 100})
	l.c.Step(l.now, Exited{Run: l.dbRun(), End: End{Code: code}})
}

func (l *lab) exited(code int, left bool) {
	l.c.Step(l.now, Exited{Run: l.run(), End: End{Code: code}, Left: left})
}

func (l *lab) wait(d time.Duration) {
	l.now += Time(d)
	l.c.Step(l.now, Tick{})
}

// run is the latest run of web, 0 for none.
func (l *lab) run() RunID {
	if n := len(l.web.Runs); n > 0 {
		return l.web.Runs[n-1].ID
	}
	return 0
}

// configured is the present configuration.
func (l *lab) configured() map[string]*spec.Service {
	services := map[string]*spec.Service{}
	for n, s := range l.c.services {
		services[n] = s.spec
	}
	return services
}

func (l *lab) without(name string) Load {
	ev := Load{Services: l.configured()}
	delete(ev.Services, name)
	return ev
}

func (l *lab) change(restart bool, how func(s *spec.Service)) Load {
	ev := Load{Services: l.configured(), Restart: map[string]bool{"web": restart}}
	web := *l.web.spec
	lifecycle := *web.Lifecycle
	web.Lifecycle = &lifecycle
	how(&web)
	ev.Services["web"] = &web
	return ev
}

func (l *lab) result(ok bool) ProbeResult {
	l.now += 1e9
	return ProbeResult{Run: l.run(), OK: ok, Message: "of the probe", At: l.now}
}

func (l *lab) probed(ok bool) { l.c.Step(l.now, l.result(ok)) }

func (l *lab) dbRun() RunID {
	if runs := l.c.services["db"].Runs; len(runs) > 0 {
		return runs[0].ID
	}
	return 0
}

// take steps the core and tells what became of web.
func (l *lab) take(ev Event) string {
	k := newKeeper()
	for _, n := range []string{"db", "web", "user"} {
		for _, r := range l.c.services[n].Runs {
			k.runs[r.ID] = &process{run: r.ID, service: n, role: r.Role}
		}
	}
	before := l.standing()
	var out []string
	for _, a := range l.c.Step(l.now, ev) {
		if ch, ok := a.(Changed); ok && !(ch.Removed && ch.Service == "web") {
			continue
		}
		out = append(out, k.trace(a))
		k.perform(a)
	}
	if after := l.standing(); after != before {
		out = append([]string{"-> " + after}, out...)
	}
	if out == nil {
		return "-"
	}
	return strings.Join(out, "; ")
}

// standing is all there is to say about web.
func (l *lab) standing() string {
	s := l.web
	out := []string{s.State.String()}
	if s.Reason != nil {
		out[0] += fmt.Sprintf(" (%s)", s.Reason.Kind)
	}
	flag := func(is bool, name string) {
		if is {
			out = append(out, name)
		}
	}
	flag(s.Removed, "removed")
	flag(s.Up, "up")
	flag(s.Due, "due")
	flag(s.Done, "done")
	flag(s.Cleaning, "cleaning")
	flag(s.Killed, "killed")
	flag(s.Halt != HaltNone, [...]string{"", "halt by hand", "halt for restart", "halt for " + s.HaltBy, "halt for shutdown"}[s.Halt])
	flag(s.Failure != nil, "failure")
	if h := s.Health; h != nil && (h.Status != "" || h.Failures > 0) {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %d failed", h.Status, h.Failures)))
	}
	for _, r := range s.Runs {
		run := procName("run", r.Role)
		switch {
		case r.Exited:
			run += " left"
		case r.Pid == 0:
			run += " ordered"
		}
		out = append(out, run)
	}
	flag(s.Deadline > 0, fmt.Sprintf("in %v", time.Duration(s.Deadline-l.now).Round(time.Second)))
	return strings.Join(out, ", ")
}
