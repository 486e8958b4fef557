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

	"github.com/threefoldtech/zinit/common/spec"
	"pgregory.net/rapid"
)

// The simulated world: random services with random wishes, whose processes
// start late, fail, end, ignore signals and leave others behind, on virtual
// time, with a supervisor that is killed at any point. After each step it is
// checked that nothing was done that must not be done, at the end that what was
// wished for has come about; and that a life with crashes ends as one without.
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

// plan is all that is random about a life.
type plan struct {
	services map[string]*spec.Service
	opts     Options
	script   []scripted
	seed     int
	faults   bool
	crashes  []crash
	inStop   int  // where the step that begins a shutdown is to crash, as crash.after; -2 for nowhere
	batch    bool // events come in batches that are saved together
	down     Time // how long the supervisor is away after a crash
	loses    bool // each third crash loses the saved state
}

type scripted struct {
	at Time
	ev Event
}

// crash kills the supervisor in one of its steps: before the save for -1, else
// after so many actions.
type crash struct{ step, after int }

// calm is when processes begin to behave.
const calm = epoch + 60e9

func drawCrashes(t *rapid.T) []crash {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) crash {
		return crash{step: rapid.IntRange(0, 120).Draw(t, "step"), after: rapid.IntRange(-1, 4).Draw(t, "after")}
	}), 1, 12).Draw(t, "crashes")
}

func drawPlan(t *rapid.T) *plan {
	p := &plan{
		services: map[string]*spec.Service{},
		opts:     Options{ShutdownTimeout: Time(rapid.IntRange(0, 30).Draw(t, "shutdown_timeout")) * 1e9},
		seed:     rapid.IntRange(0, 1<<30).Draw(t, "seed"),
		faults:   rapid.IntRange(0, 3).Draw(t, "faults") > 0,
		inStop:   -2,
	}
	p.opts.OnCritical = OnCritical(rapid.IntRange(0, 2).Draw(t, "on_critical"))
	names := strings.Fields("a b c d e f g h")[:rapid.IntRange(1, 8).Draw(t, "services")]
	for _, n := range names {
		p.services[n] = drawService(t, n, names)
	}
	p.script = append(p.script, scripted{epoch, Boot{}})
	p.script = append(p.script, drawHealthd(t)...)
	if rapid.Bool().Draw(t, "reloads") {
		for range rapid.IntRange(1, 5).Draw(t, "loads") {
			at := epoch + Time(rapid.IntRange(0, 40000).Draw(t, "at"))*1e6
			p.script = append(p.script, scripted{at, drawReload(t, names)})
		}
		// A name that is removed, or not added yet, may be wished for as well.
		for _, n := range names {
			if rapid.IntRange(0, 7).Draw(t, "later") == 7 {
				delete(p.services, n)
			}
		}
	}
	for range rapid.IntRange(0, 10).Draw(t, "wishes") {
		p.script = append(p.script, scripted{epoch + Time(rapid.IntRange(0, 40000).Draw(t, "at"))*1e6, drawWish(t, names)})
	}
	if rapid.IntRange(0, 3).Draw(t, "stop") == 3 {
		at := epoch + Time(rapid.IntRange(0, 50000).Draw(t, "at"))*1e6
		within := Time(rapid.IntRange(0, 20).Draw(t, "within")) * 1e9
		// A signal begins the stop, or hurries it; a request by a client does not.
		p.script = append(p.script, scripted{at, Stop{Action: "poweroff", Within: within, Hurry: rapid.Bool().Draw(t, "signal")}})
		if rapid.Bool().Draw(t, "hurry") {
			p.script = append(p.script, scripted{at + 3e9, Stop{Action: "exit", Within: within, Hurry: true}})
		}
	}
	p.sort()
	return p
}

func (p *plan) sort() {
	slices.SortStableFunc(p.script, func(a, b scripted) int { return cmp.Compare(a.at, b.at) })
}

func drawWish(t *rapid.T, names []string) Event {
	some := rapid.SliceOfN(rapid.SampledFrom(names), 1, 2)
	switch rapid.IntRange(0, 8).Draw(t, "wish") {
	case 0, 1, 2:
		return Wish{OpStop, some.Draw(t, "names")}
	case 3, 4, 5:
		return Wish{OpStart, some.Draw(t, "names")}
	case 6, 7:
		return Wish{OpRestart, some.Draw(t, "names")}
	}
	return Kill{
		Name:   rapid.SampledFrom(names).Draw(t, "name"),
		Signal: int(rapid.SampledFrom([]syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGKILL, syscall.SIGTERM}).Draw(t, "signal")),
	}
}

// drawService makes a service that depends on those before it, mostly.
func drawService(t *rapid.T, name string, names []string) *spec.Service {
	s := spec.Default(name)
	l := s.Lifecycle
	some := func(label string, from []string, odds int) []string {
		var out []string
		for _, n := range from {
			if n != name && rapid.IntRange(0, odds).Draw(t, label) == odds {
				out = append(out, n)
			}
		}
		return out
	}
	one := func(label string, in int) bool { return rapid.IntRange(1, in).Draw(t, label) == in }
	before := names[:slices.Index(names, name)]
	s.Requires = some("requires", before, 3)
	s.After = some("after", before, 5)
	s.Wants = some("wants", names, 9)
	s.Conflicts = some("conflicts", names, 15)
	if one("odd", 30) { // a cycle, or something that does not exist
		s.Requires = append(s.Requires, rapid.SampledFrom([]string{"nothing", names[len(names)-1]}).Draw(t, "requires"))
	}
	if one("port", 6) {
		s.Ports = []uint16{80}
	}
	s.Status = rapid.SampledFrom([]spec.Status{spec.StatusStart, spec.StatusStart, spec.StatusStart, spec.StatusStop, spec.StatusIgnore}).Draw(t, "status")
	if one("target", 8) {
		s.Kind = spec.KindTarget
		s.Ports = nil
		return s
	}
	l.Restart = rapid.SampledFrom([]spec.Restart{spec.RestartAlways, spec.RestartOnFailure, spec.RestartNever}).Draw(t, "restart")
	l.RestartDelay = rapid.SampledFrom([]time.Duration{0, 1e8, 1e9, 5e9}).Draw(t, "delay")
	l.RestartDelayMax = 8e9
	l.MaxRestarts = rapid.IntRange(0, 3).Draw(t, "max_restarts")
	l.StopTimeout = rapid.SampledFrom([]time.Duration{0, 1e9, 5e9}).Draw(t, "stop_timeout")
	l.StartTimeout = rapid.SampledFrom([]time.Duration{0, 1e9, 10e9}).Draw(t, "start_timeout")
	if one("no_restart", 5) {
		l.NoRestartExitCodes = []int{2}
	}
	if one("pre_start", 5) {
		l.PreStart = spec.Command{{{Text: "pre"}}}
	}
	if one("stop_exec", 5) {
		l.StopExec = spec.Command{{{Text: "stop"}}}
	}
	switch {
	case one("oneshot", 4):
		s.Oneshot = true
	case one("notify", 4):
		l.Ready = spec.ReadyNotify
		l.Watchdog = rapid.SampledFrom([]time.Duration{0, 4e9}).Draw(t, "watchdog")
	}
	if !s.Oneshot && one("health", 2) {
		drawHealth(t, s)
	}
	if one("on_exit", 25) {
		l.OnExit = spec.OnExitShutdown
	}
	s.Critical = one("critical", 15)
	s.Early = one("early", 4)
	return s
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

// step is the life of the supervisor: step, save, act; or be killed.
func (w *world) step(evs ...Event) {
	w.steps++
	after, crashes := w.crashHere()
	if stops := slices.ContainsFunc(evs, isRequested) && w.core.shutdown == nil; stops && w.plan.inStop > -2 && !w.crashedInStop {
		after, crashes, w.crashedInStop = w.plan.inStop, true, true
	}
	var actions []Action
	var loads []Load
	aftermath, row := w.aftermath.clone(), maps.Clone(w.healthd.row)
	for _, ev := range evs {
		before := len(actions)
		r, isResult := ev.(ProbeResult)
		was := w.recordOf(r.Run)
		ack, isAck := ev.(GateAck)
		wasUp := w.wantedBy(ack.Proxy)
		if l, ok := ev.(Load); ok && !w.core.ShuttingDown() {
			loads = append(loads, l)
			actions = append(actions, w.checkLoad(l)...)
		} else {
			actions = append(actions, w.core.Step(w.now, ev)...)
		}
		if isResult {
			w.checkResult(r, was, w.recordOf(r.Run))
		}
		if isAck {
			w.checkIdleStop(ack, wasUp)
		}
		w.checkStep(ev, actions[before:])
	}
	changes := w.core.Changes()
	if crashes && after < 0 {
		w.note("-- crash before the save --")
		w.aftermath, w.healthd.row = aftermath, row
		var said, again []Event
		for _, ev := range evs {
			switch ev.(type) {
			case Ready, Notify: // still in the socket
				said = append(said, ev)
			case Boot, Wish, Kill, Load, Stop, Requested, SetProxies: // said again by who said it
				again = append(again, ev)
			case Spawned, SpawnFailed, Exited, Emptied, Tick, HelperUp, HelperDown, ProbeResult, Demand, Idle, GateAck: // found out
			}
		}
		w.recover(said...)
		for _, ev := range again {
			w.step(ev)
		}
		return
	}
	for _, l := range loads {
		w.disk.configure(l.Services)
	}
	w.disk.save(changes)
	if d := w.disk.differs(w.core); d != "" {
		w.fail("after %T%v: %s", evs[0], evs[0], d)
	}
	if crashes {
		actions = actions[:min(after, len(actions))]
	}
	again := w.perform(actions)
	if crashes {
		for _, ev := range evs {
			if isRequested(ev) && after == 0 { // not acknowledged: pid1 says it again
				again = append(again, ev)
			}
		}
		w.note("-- crash --")
		w.recover()
	} else {
		w.healthd.unacked = nil
		w.checkProbes()
		w.checkGates()
	}
	for _, ev := range again {
		w.step(ev)
	}
}

func isRequested(ev Event) bool { _, is := ev.(Requested); return is }

func (w *world) crashHere() (after int, ok bool) {
	for i, c := range w.crashes {
		if c.step == w.steps {
			w.crashes = slices.Delete(w.crashes, i, i+1)
			return c.after, true
		}
	}
	return 0, false
}

func (w *world) recover(missed ...Event) {
	w.halt = nil
	w.proxyd.linked = 1 << 62 // no time soon
	w.unheard()
	w.now += w.plan.down
	if w.plan.down > 0 { // what happened meanwhile is found in pid1's table
		for h := w.meanwhile(); h != nil; h = w.meanwhile() {
			for _, ev := range w.apply(w.take(h)) {
				switch ev.(type) {
				case Ready, Notify:
					missed = append(missed, ev)
				}
			}
		}
	}
	facts := w.facts()
	for i := range facts {
		facts[i].Signals %= 1000
	}
	o := w.plan.opts
	w.recoveries++
	// A shutdown that is lost would be asked for again.
	lost := w.plan.loses && w.recoveries%3 == 0 && w.core.shutdown == nil
	if lost {
		w.note("-- the saved state is lost --")
		w.disk = store{}
		w.disk.configure(w.configured)
		clear(w.healthd.row) // nobody remembers what the probes have found
		o.FirstRun = RunID(w.recoveries * 1000)
		missed = append([]Event{Boot{}}, missed...)
	}
	g, records := w.disk.load()
	if g.Shutdown == nil {
		w.stopAt = 0
	}
	var actions []Action
	var adopted Adopted
	w.core, actions, adopted = Recover(w.now, maps.Clone(w.disk.specs), o, g, records, facts, missed...)
	if lost {
		w.checkAdopted(facts, actions, adopted)
	}
	w.checkStep(Tick{}, actions)
	w.disk.save(w.core.Changes())
	if d := w.disk.differs(w.core); d != "" {
		w.fail("after recovery: %s", d)
	}
	for _, ev := range w.perform(actions) {
		w.step(ev)
	}
	if len(w.proxyd.proxies) > 0 {
		w.unheard()
		gates := w.proxyd.gates
		w.proxyd.gates = map[string]*gate{} // which have not found the new supervisor yet
		w.step(SetProxies{w.proxyd.proxies})
		if w.proxyd.gates = gates; w.proxyd.up {
			w.proxyd.linked = w.now
			w.step(HelperUp{HelperProxy})
		}
	}
	if w.healthd.up { // it finds the new supervisor, and tells again what was not acknowledged
		w.step(append([]Event{HelperUp{HelperHealth}}, w.healthd.unacked...)...)
	}
}

// perform does what was ordered and checks whether it may be done. It returns
// what the supervisor is told at once.
func (w *world) perform(actions []Action) (at []Event) {
	for _, a := range actions {
		w.note("%s", w.trace(a))
		switch a := a.(type) {
		case Spawn:
			if known := w.runs[a.Run]; known != nil {
				continue // answered from the table
			}
			g, _ := w.disk.load()
			var r Record
			decode(w.disk.records[a.Service.Name], &r)
			if a.Run > g.LastRun || !slices.ContainsFunc(r.Runs, func(o *Run) bool { return o.ID == a.Run }) {
				w.fail("run %d of %s is spawned and was not saved", a.Run, a.Service.Name)
			}
			w.checkLeft(a)
			w.keeper.perform(a)
			p := w.runs[a.Run]
			if w.failed[a.Run] {
				delete(w.runs, a.Run)
				at = append(at, w.spawnFailed(p))
				continue
			}
			if _, ok := w.number[a.Run]; ok {
				w.fail("run %d is used for two spawns", a.Run)
			}
			key := procName(p.service, p.role)
			w.ordinals[key]++
			w.number[a.Run] = w.ordinals[key]
			if w.bad(p, "spawn", 10) {
				w.happen(w.ms(p, "spawned", 60), spawnFails, p)
			} else {
				w.happen(w.ms(p, "spawned", 60), spawnDone, p)
			}
			continue
		case Signal:
			if p := w.runs[a.Run]; p != nil && p.pid != 0 {
				w.react(p, a.Signal)
			}
		case Halt:
			if limit := w.stopAt + w.within + afterKill + w.plan.down*Time(len(w.plan.crashes)+1); w.now > limit {
				w.fail("zinit ends too late, the time was over at %v", time.Duration(limit-epoch))
			}
		case SetProbes:
			w.setProbes(a.Probes)
		case SetProbe:
			w.setProbe(a.Probe)
		case DropProbe:
			w.dropProbe(a.Service)
		case SetGate:
			w.setGate(a)
		case TellProxies:
			w.tellAll()
		case Forget, SetMain, Shell, Changed, HealthChanged:
		}
		if err := w.keeper.perform(a); err != nil {
			w.fail("%v", err)
		}
	}
	return at
}

// wantedBy says that the service of a proxy is wished for.
func (w *world) wantedBy(proxy string) bool {
	p := w.core.proxies[proxy]
	if p == nil {
		return false
	}
	s := w.core.services[p.spec.Service]
	return s != nil && s.Up
}

// recordOf is the record of the service of a run.
func (w *world) recordOf(id RunID) Record {
	if s, _ := w.core.lookup(id); s != nil {
		return s.copy()
	}
	return Record{}
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
