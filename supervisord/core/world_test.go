package core

import (
	"cmp"
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/threefoldtech/zinit/common/spec"
)

// The simulated world: random services with random wishes, whose processes
// start late, fail, end, ignore signals and leave others behind, on virtual
// time, with a supervisor that is killed at any point. After each step it is
// checked that nothing was done that must not be done, at the end that what was
// wished for has come about; and that a life with crashes ends as one without.
//
// world_plan_test.go draws what is random, world_supervisor_test.go is the life of
// the supervisor, world_check_test.go what is checked; health, proxies and reloads
// have files of their own.
//
// An ordinary run sees the same few hundred worlds each time. Others:
// go test -run World -rapid.checks=100000, or go test -fuzz FuzzCrashes.

func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || strings.HasPrefix(f.Name, "rapid.") })
	if !chosen {
		for name, v := range map[string]string{"rapid.checks": "300", "rapid.seed": "1", "rapid.nofailfile": "true"} {
			if err := flag.Set(name, v); err != nil {
				panic(err)
			}
		}
	}
	os.Exit(m.Run())
}

func TestWorld(t *testing.T) { rapid.Check(t, checkWorld) }

func FuzzWorld(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkWorld)) }

// TestWorldWithCrashesEndsAlike kills the supervisor and lets a new one take
// over in no time: nobody may be able to tell.
func TestWorldWithCrashesEndsAlike(t *testing.T) { rapid.Check(t, checkCrashes) }

func FuzzCrashes(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkCrashes)) }

func checkWorld(t *rapid.T) {
	p := drawPlan(t)
	p.batch = rapid.Bool().Draw(t, "batch")
	p.down = Time(rapid.IntRange(0, 3).Draw(t, "down")) * 1e9
	p.crashes, p.inStop = drawCrashes(t), rapid.IntRange(-2, 1).Draw(t, "in_stop")
	p.loses = rapid.IntRange(0, 2).Draw(t, "loses") == 2
	newWorld(t, p).live()
}

func checkCrashes(t *rapid.T) {
	p := drawPlan(t)
	without := newWorld(t, p)
	without.live()
	p.crashes, p.inStop = drawCrashes(t), rapid.IntRange(-2, 1).Draw(t, "in_stop")
	with := newWorld(t, p)
	with.live()
	if a, b := without.summary(), with.summary(); a != b {
		t.Fatalf("a life with crashes ends differently: %s\n\nthe life with crashes:\n%s\n\nthe life without:\n%s", diff(a, b), with.log(), without.log())
	}
}

// world is one life by a plan.
type world struct {
	t    *rapid.T
	plan *plan
	core *Core
	*keeper
	disk    store
	now     Time
	steps   int
	crashes []crash

	queue         []*happening
	ordinals      map[string]int      // spawns so far by service and role
	number        map[RunID]int       // the ordinal of each run
	failed        map[RunID]bool      // runs whose spawn has failed
	ends          map[string][]string // what ended how, by service
	stopAt        Time                // when the shutdown began
	recoveries    int
	crashedInStop bool
	within        Time
	lines         []string

	healthd    *healthd
	proxyd     *proxyd
	configured map[string]*spec.Service // what the last reload has left
	aftermath
}

// happening is what is to happen in the world, in an order that does not
// depend on what the supervisor does meanwhile.
type happening struct {
	at      Time
	kind    happens
	service string
	role    Role
	number  int
	proc    *process
	ev      Event // of the script, or what zinit-proxyd says
	gate    *gate
	client  *client
}

type happens int

const (
	scriptGoesOn happens = iota
	spawnDone
	spawnFails
	getsReady
	saysAlive
	leaderEnds
	lastEnds
	probed
)

func newWorld(t *rapid.T, p *plan) *world {
	w := &world{
		t: t, plan: p, core: New(p.services, p.opts), keeper: newKeeper(), now: epoch, crashes: slices.Clone(p.crashes),
		ordinals: map[string]int{}, number: map[RunID]int{}, failed: map[RunID]bool{}, ends: map[string][]string{},
		configured: p.services, aftermath: newAftermath(), healthd: newHealthd(), proxyd: newProxyd(),
	}
	w.disk.configure(p.services)
	for i, s := range p.script {
		w.queue = append(w.queue, &happening{at: s.at, kind: scriptGoesOn, number: i, ev: s.ev})
	}
	return w
}

func (w *world) note(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf("%8.3fs  ", float64(w.now-epoch)/1e9)+fmt.Sprintf(format, args...))
}

func (w *world) log() string {
	var b strings.Builder
	for _, n := range w.core.Names() {
		b.WriteString(describe(w.core.services[n].spec))
	}
	return b.String() + strings.Join(w.lines, "\n")
}

func describe(s *spec.Service) string {
	l := s.Lifecycle
	return fmt.Sprintf("%s: %s %s requires %v after %v wants %v conflicts %v ports %v oneshot %v pre %v stop %v ready %v start_timeout %v stop_timeout %v watchdog %v health %v restart %v delay %v max %v critical %v on_exit %v\n",
		s.Name, s.Kind, s.Status, s.Requires, s.After, s.Wants, s.Conflicts, s.Ports, s.Oneshot, len(l.PreStart) > 0, len(l.StopExec) > 0, l.Ready,
		l.StartTimeout, l.StopTimeout, l.Watchdog, describeHealth(s.Health), l.Restart, l.RestartDelay, l.MaxRestarts, s.Critical, l.OnExit)
}

func (w *world) fail(format string, args ...any) {
	w.t.Fatalf("at %v: %s\n\n%s", time.Duration(w.now-epoch), fmt.Sprintf(format, args...), w.log())
}

// dice is a number below n that depends on what it is for and on nothing else.
func (w *world) dice(p *process, what string, n int) int {
	h := fnv.New64a()
	fmt.Fprint(h, w.plan.seed, p.service, p.role, w.number[p.run], what)
	return int(h.Sum64() >> 1 % uint64(n))
}

func (w *world) ms(p *process, what string, most int) Time { return Time(w.dice(p, what, most)) * 1e6 }

// bad says whether one in n such things goes wrong.
func (w *world) bad(p *process, what string, n int) bool {
	return w.plan.faults && w.now < calm && w.dice(p, what, n) == 0
}

func (w *world) happen(after Time, kind happens, p *process) {
	w.queue = append(w.queue, &happening{at: w.now + after, kind: kind, service: p.service, role: p.role, number: w.number[p.run], proc: p})
}

// next takes the first of what is to happen.
func (w *world) next() *happening { return w.take(w.peek()) }

func (w *world) take(it *happening) *happening {
	w.queue = slices.DeleteFunc(w.queue, func(h *happening) bool { return h == it })
	return it
}

func (w *world) peek() *happening { return firstOf(w.queue) }

// meanwhile is the first of what has happened while there was no supervisor.
// The script waits for the next one.
func (w *world) meanwhile() *happening {
	return firstOf(slices.DeleteFunc(slices.Clone(w.queue), func(h *happening) bool { return h.at > w.now || h.kind == scriptGoesOn }))
}

func firstOf(queue []*happening) *happening {
	if len(queue) == 0 {
		return nil
	}
	return slices.MinFunc(queue, func(a, b *happening) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.kind, b.kind), strings.Compare(a.service, b.service),
			cmp.Compare(a.role, b.role), cmp.Compare(a.number, b.number))
	})
}

// live goes on until nothing is going to happen any more, checks that this is
// what was wished for, and then shuts down.
func (w *world) live() {
	// A step that does not end shows its world, not only its stack.
	defer time.AfterFunc(time.Minute, func() { panic("a step does not end:\n" + w.log()) }).Stop()
	for w.halt == nil && !w.quiet() {
		w.goOn()
	}
	if w.halt == nil && w.core.shutdown == nil {
		w.checkWishes()
		w.note("-- all is quiet --")
		w.step(Stop{Action: "exit", Within: 20e9})
		for w.halt == nil {
			w.goOn()
		}
	}
}

// quiet says that nothing but signs of life will come.
func (w *world) quiet() bool {
	for _, h := range w.queue {
		if h.kind != saysAlive {
			return false
		}
	}
	for _, s := range w.core.services {
		if s.Deadline > 0 && s.State != StateRunning {
			return false
		}
	}
	return w.core.shutdown == nil
}

func (w *world) goOn() {
	h := w.peek()
	t, ok := w.core.NextWake()
	if h == nil && !ok {
		w.fail("nothing will ever happen, and zinit does not end")
	}
	if w.steps > 20000 {
		w.fail("it does not come to an end")
	}
	if h == nil || ok && t < h.at {
		w.now = max(w.now, t)
		w.step(Tick{})
		return
	}
	w.now = max(w.now, h.at)
	evs := w.apply(w.next())
	for w.plan.batch && w.peek() != nil && w.peek().at <= w.now+2e6 {
		evs = append(evs, w.apply(w.next())...)
	}
	if len(evs) > 0 {
		w.step(evs...)
	}
}

// apply lets something happen and returns what the supervisor is told of it.
func (w *world) apply(h *happening) []Event {
	if h.kind == scriptGoesOn {
		switch ev := h.ev.(type) {
		case reload:
			return w.reload(ev)
		case HelperUp:
			if ev.Helper == HelperProxy {
				return w.proxydComes()
			}
			return w.healthdComes()
		case HelperDown:
			if ev.Helper == HelperProxy {
				return w.proxydGoes()
			}
			return w.healthdGoes()
		case setProxies:
			return w.changeProxies(ev)
		case comes:
			w.clientComes(ev)
			return nil
		}
		w.note("> %T%v", h.ev, h.ev)
		if stop, ok := h.ev.(Stop); ok {
			return []Event{Requested{Seq: uint64(h.number) + 1, Event: stop}}
		}
		return []Event{h.ev}
	}
	if h.kind > probed {
		return w.atGates(h)
	}
	p := h.proc
	name := fmt.Sprintf("%s#%d", procName(p.service, p.role), p.run)
	switch h.kind {
	case spawnDone:
		ev := w.spawned(p)
		w.note("> %s is spawned", name)
		w.behave(p)
		return []Event{ev}
	case spawnFails:
		w.note("> %s cannot be spawned", name)
		delete(w.runs, p.run)
		w.failed[p.run] = true
		return []Event{w.spawnFailed(p)}
	case getsReady:
		if p.end == nil {
			w.note("> %s is ready", name)
			return []Event{Ready{Run: p.run}}
		}
	case saysAlive:
		if p.end == nil {
			w.happen(2e9, saysAlive, p)
			return []Event{Notify{Run: p.run, Alive: true}}
		}
	case leaderEnds:
		if p.end == nil {
			p.end = w.endOf(p)
			p.left = p.signals < 1000 && w.bad(p, "left", 4)
			if p.left && w.dice(p, "lingers", 2) == 0 {
				w.happen(w.ms(p, "linger", 15000), lastEnds, p)
			}
			w.note("> %s ends %+v left %v", name, *p.end, p.left)
			w.ends[p.service] = append(w.ends[p.service], fmt.Sprintf("%v %v %v", p.role, p.end.Code, p.end.Signal))
			return []Event{Exited{Run: p.run, End: *p.end, Left: p.left}}
		}
	case lastEnds:
		if p.left {
			p.left = false
			w.note("> %s is empty", name)
			return []Event{Emptied{Run: p.run}}
		}
	case probed:
		return w.probed(p)
	case scriptGoesOn:
	}
	return nil
}

func (w *world) spawnFailed(p *process) SpawnFailed {
	return SpawnFailed{Run: p.run, Message: "no", Code: 127, Config: w.dice(p, "config", 4) == 0}
}

// behave plans the life of a process that was just spawned.
func (w *world) behave(p *process) {
	sp := p.order.Service
	mayEnd := w.plan.faults && w.now < calm
	switch {
	case p.role == RoleStop:
		// It stops the service, or says so and does not, or hangs.
		if !w.bad(p, "hangs", 4) {
			w.happen(w.ms(p, "life", 1000), leaderEnds, p)
		}
		for _, m := range w.sorted() {
			if m.service == p.service && m.role == RoleMain && m.pid != 0 && w.dice(p, "works", 3) > 0 {
				w.happen(w.ms(p, "stops", 1500), leaderEnds, m)
			}
		}
	case p.role == RolePre || sp.Oneshot:
		if !w.bad(p, "hangs", 8) {
			life := w.ms(p, "life", 1500)
			if w.now >= calm {
				life /= 4
			}
			w.happen(life, leaderEnds, p)
		}
	case mayEnd && w.dice(p, "ends", 2) == 0:
		w.happen(w.ms(p, "life", 1+w.dice(p, "long", 15000)), leaderEnds, p)
	}
	if p.role == RoleMain && sp.Lifecycle.Ready == spec.ReadyNotify && !w.bad(p, "never ready", 6) {
		w.happen(w.ms(p, "ready", 700), getsReady, p)
	}
	if p.role == RoleMain && sp.Lifecycle.Watchdog > 0 && !w.bad(p, "dumb", 3) {
		w.happen(0, saysAlive, p)
	}
}

// endOf says how a process ends: by the signal it got, else as it likes.
func (w *world) endOf(p *process) *End {
	e := &End{At: w.now}
	switch sp := p.order.Service; {
	case p.signals >= 1000:
		e.Signal = int(syscall.SIGKILL)
	case p.signals > 0 && w.dice(p, "by signal", 2) == 0:
		e.Signal = int(syscall.SIGTERM)
	case p.role == RolePre && !w.bad(p, "fails", 4), sp.Oneshot && !w.bad(p, "fails", 3):
	case w.plan.faults && w.now < calm:
		e.Code = w.dice(p, "code", 3)
	}
	return e
}

// react is what a signal does to a process.
func (w *world) react(p *process, sig int) {
	switch {
	case p.end != nil && !p.left, sig == int(syscall.SIGCONT), sig == int(syscall.SIGHUP):
	case sig == int(syscall.SIGKILL):
		// Counted so that endOf knows; pid1's own count is kept right by facts.
		p.signals += 1000
		if p.end == nil {
			w.happen(w.ms(p, "dies", 5), leaderEnds, p)
		} else {
			w.happen(w.ms(p, "dies", 5), lastEnds, p)
		}
	case p.end == nil && !w.bad(p, "deaf", 5):
		w.happen(w.ms(p, "goes", 3000), leaderEnds, p)
	case p.end != nil && !w.bad(p, "left deaf", 3):
		w.happen(w.ms(p, "go", 3000), lastEnds, p)
	}
}

// summary is what may not depend on crashes.
func (w *world) summary() string {
	var b strings.Builder
	for _, n := range w.core.Names() {
		s := w.core.services[n]
		why := ""
		if s.Reason != nil {
			why = s.Reason.Message
		}
		fmt.Fprintf(&b, "%s %v up %v due %v done %v restarts %d total %d since %v %q\n", n, s.State, s.Up, s.Due, s.Done, s.Restarts, s.Total, time.Duration(s.Since), why)
	}
	for _, n := range slices.Sorted(maps.Keys(w.ends)) {
		fmt.Fprintf(&b, "%s ends %q\n", n, w.ends[n])
	}
	for _, k := range slices.Sorted(maps.Keys(w.ordinals)) {
		fmt.Fprintf(&b, "%s spawned %d times\n", k, w.ordinals[k])
	}
	for _, n := range w.core.Names() {
		fmt.Fprintf(&b, "%s had %d shells\n", n, len(w.keeper.shells[n]))
	}
	fmt.Fprintf(&b, "%+v at %v\n", *w.halt, time.Duration(w.now))
	return b.String()
}
