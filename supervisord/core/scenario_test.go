package core

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/common/spec"
)

// Golden files are what the core does, not what it should do. Rewrite them
// only if you can say for each changed line why the new one is right.
var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// scenario is a story: commands, each followed by what the core did for it,
// indented by two spaces. "#" begins a comment. The commands:
//
//	service NAME KEY=VALUE…      before boot; keys as in parseService
//	options KEY=VALUE…           main=NAME critical_exits shutdown=DURATION
//	broken NAME MESSAGE          before boot: the error in the file of what is not there
//	boot | start NAME… | stop NAME… | restart NAME… | kill NAME SIGNAL
//	spawned NAME[/ROLE]…         what pid1 says: the process is there
//	spawn-failed NAME[/ROLE] [config] CODE MESSAGE
//	exited NAME[/ROLE] CODE|SIGNAL [left] [core] [oom]
//	emptied NAME[/ROLE]
//	ready NAME…                  what the service says
//	notify NAME KEY=VALUE…       status= alive trigger extend= main=
//	healthd | healthd gone       zinit-healthd connects, or has gone
//	probe NAME ok|failed [run=N] [change=N] MESSAGE
//	                             what it has found out, about the latest run
//	load CHANGE; CHANGE…         a reload. Each change is one of
//	                             NAME KEY=VALUE…          added, or changed in place
//	                             restart NAME KEY=VALUE…  changed, needs another process
//	                             remove NAME
//	proxies NAME service=NAME [pass]; …  all proxies
//	demand NAME | idle NAME | ack NAME [busy]  what zinit-proxyd says
//	advance DURATION             time passes
//	shutdown ACTION DURATION [CODE] | hurry
//	crash                        the supervisor is killed while idle
//	crash unsaved: COMMAND       … before it has saved what it makes of COMMAND
//	crash saved: COMMAND         … after that, before it has done anything
//	crash after N: COMMAND       … after it has done the first N things
//	crash lost                   the saved state is lost with it
//	crash lost: COMMAND          … and with it what it makes of COMMAND
//	unlink NAME                  its file is gone, which is not read as long
//	                             as there is a saved state
//	request N COMMAND            the command is that of request N to zinit
//	show                         all services, as list and why would
//	rest NAME…                   what there is to say of services that are down
type scenario struct {
	t        *testing.T
	services map[string]*spec.Service // what is configured
	proxies  map[string]*spec.Proxy
	opts     Options
	core     *Core
	keeper   *keeper
	disk     store
	now      Time
	crash    string // where the next step is to crash
	seq      uint64 // of the request that the next step is for
	out      strings.Builder
}

// epoch is when stories begin; the clock is never 0.
const epoch = Time(1e9)

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios in testdata", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) { runScenario(t, file) })
	}
}

func runScenario(t *testing.T, file string) {
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sc := &scenario{t: t, services: map[string]*spec.Service{}, opts: Options{ShutdownTimeout: 30e9}, keeper: newKeeper(), now: epoch}
	for _, line := range strings.Split(strings.TrimRight(string(want), "\n"), "\n") {
		if strings.HasPrefix(line, "  ") {
			continue
		}
		sc.out.WriteString(line + "\n")
		command, _, _ := strings.Cut(line, "#")
		if f := strings.Fields(command); len(f) > 0 {
			sc.run(f)
		}
	}
	got := sc.out.String()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(want) {
		t.Errorf("%s tells another story; got:\n%s", file, diff(string(want), got))
	}
}

// diff shows the first lines in which two texts differ.
func diff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d:\nwant %s\ngot  %s\n\n%s", i+1, w[i], g[i], got)
		}
	}
	return got
}

func (sc *scenario) printf(format string, args ...any) {
	fmt.Fprintf(&sc.out, "  "+format+"\n", args...)
}

func (sc *scenario) run(f []string) {
	if slices.Equal(f, []string{"crash", "lost"}) {
		sc.lose()
		return
	}
	if f[0] == "crash" && len(f) > 1 {
		at, command, ok := strings.Cut(strings.Join(f[1:], " "), ": ")
		if !ok {
			sc.t.Fatalf("crash %s: no command", at)
		}
		sc.crash, f = at, strings.Fields(command)
	}
	if f[0] == "request" {
		sc.seq, f = uint64(number(sc.t, f[1])), f[2:]
	}
	rest := f[1:]
	switch f[0] {
	case "service":
		sp := parseService(sc.t, rest)
		sc.services[sp.Name] = sp
		return
	case "options":
		for _, o := range rest {
			switch key, v, _ := strings.Cut(o, "="); key {
			case "main":
				sc.opts.Main = v
			case "critical_exits":
				sc.opts.OnCritical = CriticalExits
			case "critical_shell":
				sc.opts.OnCritical = CriticalShell
			case "shutdown":
				sc.opts.ShutdownTimeout = Time(span(sc.t, v))
			default:
				sc.t.Fatalf("unknown option %q", o)
			}
		}
		return
	case "broken":
		sc.opts.Broken = map[string]string{rest[0]: strings.Join(rest[1:], " ")}
		return
	case "boot":
		sc.core = New(sc.services, sc.opts)
		sc.disk.configure(sc.services)
		sc.step(Boot{})
	case "start":
		sc.step(Wish{OpStart, rest})
	case "stop":
		sc.step(Wish{OpStop, rest})
	case "restart":
		sc.step(Wish{OpRestart, rest})
	case "kill":
		n, err := spec.SignalNumber(rest[1])
		if err != nil {
			sc.t.Fatal(err)
		}
		sc.step(Kill{rest[0], n})
	case "spawned":
		for _, n := range rest {
			sc.step(sc.keeper.spawned(sc.find(n, "being spawned", func(p *process) bool { return p.pid == 0 })))
		}
	case "spawn-failed":
		p := sc.find(rest[0], "being spawned", func(p *process) bool { return p.pid == 0 })
		delete(sc.keeper.runs, p.run)
		ev := SpawnFailed{Run: p.run}
		if rest = rest[1:]; rest[0] == "config" {
			ev.Config, rest = true, rest[1:]
		}
		ev.Code, ev.Message = number(sc.t, rest[0]), strings.Join(rest[1:], " ")
		sc.step(ev)
	case "exited":
		p := sc.find(rest[0], "running", func(p *process) bool { return p.pid != 0 && p.end == nil })
		p.end = &End{At: sc.now}
		if n, err := spec.SignalNumber(rest[1]); err == nil && strings.HasPrefix(rest[1], "SIG") {
			p.end.Signal = n
		} else {
			p.end.Code = number(sc.t, rest[1])
		}
		for _, o := range rest[2:] {
			switch o {
			case "left":
				p.left = true
			case "core":
				p.end.Core = true
			case "oom":
				p.end.OOM = true
			default:
				sc.t.Fatalf("exited: unknown %q", o)
			}
		}
		sc.step(Exited{Run: p.run, End: *p.end, Left: p.left})
	case "emptied":
		p := sc.find(rest[0], "left behind", func(p *process) bool { return p.end != nil && p.left })
		p.left = false
		sc.step(Emptied{Run: p.run})
	case "ready":
		for _, n := range rest {
			sc.step(Ready{Run: sc.live(n).run})
		}
	case "notify":
		ev := Notify{Run: sc.live(rest[0]).run}
		for _, o := range rest[1:] {
			switch key, v, _ := strings.Cut(o, "="); key {
			case "status":
				ev.Status = &v
			case "alive":
				ev.Alive = true
			case "trigger":
				ev.Trigger = true
			case "extend":
				ev.Extend = Time(span(sc.t, v))
			case "main":
				ev.MainPid = number(sc.t, v)
			default:
				sc.t.Fatalf("notify: unknown %q", o)
			}
		}
		sc.step(ev)
	case "healthd":
		if len(rest) > 0 {
			sc.step(HelperDown{HelperHealth, "zinit-healthd is not there"})
		} else {
			sc.step(HelperUp{HelperHealth})
		}
	case "probe":
		sc.step(sc.probe(rest))
	case "proxies":
		sc.proxies = map[string]*spec.Proxy{}
		for _, text := range strings.Split(strings.Join(rest, " "), ";") {
			p := &spec.Proxy{Mode: spec.ProxyForward}
			for i, f := range strings.Fields(text) {
				switch key, v, _ := strings.Cut(f, "="); {
				case i == 0:
					p.Name = f
				case key == "service":
					p.Service = v
				case key == "pass":
					p.Mode = spec.ProxyPass
				default:
					sc.t.Fatalf("proxies: unknown %q", f)
				}
			}
			sc.proxies[p.Name] = p
		}
		sc.step(SetProxies{sc.proxies})
	case "demand":
		sc.step(Demand{rest[0], sc.keeper.gates[rest[0]].Seq})
	case "idle":
		sc.step(Idle{rest[0], sc.keeper.gates[rest[0]].Seq})
	case "ack":
		sc.step(GateAck{rest[0], sc.keeper.gates[rest[0]].Seq, len(rest) > 1})
	case "load":
		sc.step(sc.load(strings.Join(rest, " ")))
	case "advance":
		sc.advance(Time(span(sc.t, rest[0])))
	case "shutdown":
		ev := Stop{Action: rest[0], Within: Time(span(sc.t, rest[1]))}
		if len(rest) > 2 {
			ev.Code = number(sc.t, rest[2])
		}
		sc.step(ev)
	case "hurry":
		sc.step(Stop{Hurry: true})
	case "crash":
		sc.recover()
	case "unlink":
		sc.services = maps.Clone(sc.services)
		delete(sc.services, rest[0])
	case "show":
		sc.show()
	case "rest":
		for _, n := range rest {
			why, how, left := sc.core.Rest(sc.now, n)
			sc.printf("%s %v: %s; %s; left %v", n, sc.core.services[n].State, why, how, left)
		}
	default:
		sc.t.Fatalf("unknown command %q", f[0])
	}
	if sc.crash != "" {
		sc.t.Fatalf("%q was not a step to crash in", strings.Join(f, " "))
	}
}

// load changes what is configured.
func (sc *scenario) load(changes string) Load {
	sc.services = maps.Clone(sc.services)
	ev := Load{Services: sc.services, Restart: map[string]bool{}}
	for _, change := range strings.Split(changes, ";") {
		f := strings.Fields(change)
		if f[0] == "remove" {
			delete(sc.services, f[1])
			continue
		}
		restart := f[0] == "restart"
		if restart {
			f = f[1:]
		}
		ev.Restart[f[0]] = restart
		sc.services[f[0]] = parseService(sc.t, f)
	}
	return ev
}

func (sc *scenario) probe(f []string) ProbeResult {
	ev := ProbeResult{Run: sc.core.services[f[0]].LastMain, OK: f[1] == "ok", At: sc.now, Took: 1e6}
	if h := sc.core.services[f[0]].Health; h != nil {
		ev.Generation = h.Generation
	}
	for f = f[2:]; len(f) > 0; f = f[1:] {
		key, v, _ := strings.Cut(f[0], "=")
		switch key {
		case "run":
			ev.Run = RunID(number(sc.t, v))
		case "change":
			ev.Generation = number(sc.t, v)
		default:
			ev.Message = strings.Join(f, " ")
			return ev
		}
	}
	return ev
}

func (sc *scenario) live(name string) *process {
	return sc.find(name, "running", func(p *process) bool { return p.pid != 0 && p.end == nil })
}

// find returns the first run of "service" or "service/role" for which ok holds.
func (sc *scenario) find(name, what string, ok func(*process) bool) *process {
	for _, p := range sc.keeper.sorted() {
		if procName(p.service, p.role) == name && ok(p) {
			return p
		}
	}
	sc.t.Fatalf("%s is not %s; so far:\n%s", name, what, sc.out.String())
	return nil
}

// step is the life of the supervisor: step, save, act.
func (sc *scenario) step(ev Event) {
	ending := sc.core.ShuttingDown()
	if sc.seq > 0 {
		ev = Requested{Seq: sc.seq, Event: ev}
		sc.seq = 0
	}
	actions := sc.core.Step(sc.now, ev)
	crash := sc.crash
	sc.crash = ""
	changes := sc.core.Changes()
	switch crash {
	case "unsaved":
		sc.recover()
		return
	case "lost":
		sc.lose()
		return
	}
	if l, ok := ev.(Load); ok && !ending {
		sc.disk.configure(l.Services)
	}
	sc.disk.save(changes)
	if d := sc.disk.differs(sc.core); d != "" {
		sc.t.Errorf("after %T: %s", ev, d)
	}
	switch {
	case crash == "saved":
		actions = nil
	case crash != "":
		actions = actions[:number(sc.t, strings.TrimPrefix(crash, "after "))]
	}
	sc.perform(actions)
	if crash != "" {
		sc.recover()
	}
}

func (sc *scenario) recover() {
	sc.printf("-- crash --")
	sc.keeper.halt = nil // said again, if it was not heard
	g, records := sc.disk.load()
	var actions []Action
	sc.core, actions, _ = Recover(sc.now, maps.Clone(sc.disk.specs), sc.opts, g, records, sc.keeper.facts())
	sc.disk.save(sc.core.Changes())
	sc.perform(actions)
	if sc.proxies != nil {
		sc.step(SetProxies{sc.proxies})
	}
}

// lose has a supervisor start that finds no saved state, and reads what is
// configured.
func (sc *scenario) lose() {
	sc.printf("-- crash, and the saved state is lost --")
	sc.keeper.halt = nil
	sc.disk = store{}
	sc.disk.configure(sc.services)
	o := sc.opts
	o.FirstRun = 1000
	var actions []Action
	var adopted Adopted
	sc.core, actions, adopted = Recover(sc.now, maps.Clone(sc.services), o, Global{}, nil, sc.keeper.facts(), Boot{})
	sc.printf("kept %v, ended %v, taken for done %v", adopted.Kept, adopted.Ended, adopted.Done)
	for _, n := range sc.core.Names() {
		sc.disk.configure(map[string]*spec.Service{n: sc.core.Spec(n)})
	}
	sc.disk.save(sc.core.Changes())
	if d := sc.disk.differs(sc.core); d != "" {
		sc.t.Errorf("after the loss: %s", d)
	}
	sc.perform(actions)
}

func (sc *scenario) perform(actions []Action) {
	for _, a := range actions {
		sc.printf("%s", sc.keeper.trace(a))
		if err := sc.keeper.perform(a); err != nil {
			sc.t.Error(err)
		}
	}
}

func (sc *scenario) advance(d Time) {
	end := sc.now + d
	for {
		t, ok := sc.core.NextWake()
		if !ok || t > end {
			break
		}
		if t > sc.now {
			sc.now = t
			sc.printf("at %v", time.Duration(t-epoch))
		}
		sc.step(Tick{})
	}
	sc.now = end
}

func (sc *scenario) show() {
	for _, n := range sc.core.Names() {
		v, _ := sc.core.View(sc.now, n)
		wish := "down"
		if v.Up {
			wish = "up"
		}
		line := fmt.Sprintf("%-8s %-8v wish %s", n, v.State, wish)
		if v.Pid != 0 {
			line += fmt.Sprintf(", pid %d", v.Pid)
		}
		if v.Restarts > 0 {
			line += fmt.Sprintf(", restarted %d times", v.Restarts)
		}
		if v.Health.Status != HealthNone {
			line += fmt.Sprintf(", %s", v.Health.Status)
		}
		if v.Note != "" {
			line += ": " + v.Note
		}
		sc.printf("%s", line)
		for _, b := range v.Blocks {
			sc.printf("           %s %s: %s", b.Kind, b.Name, sc.core.Describe(sc.now, b))
		}
	}
}
