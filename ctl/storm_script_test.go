//go:build linux

package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/threefoldtech/zinit/ipc"
)

// stormService is a service, or the target, of a storm.
type stormService struct {
	name  string
	flags string // of its program
	lines int    // that each run prints on each stream
	plan  []string
	// main, requires and life are parts of its file; delay and most its
	// restart_delay.
	main, requires, after, life string
	delay, most                 time.Duration
	later                       bool // it is not there at boot
	touched                     bool // by wishes: when and how often it ends is not known from the plan
	oneshot, target             bool
}

const (
	// stormSilence is how long a service may say nothing.
	stormSilence = 5 * time.Second
	// stormStubborn is how long the one has that does not stop.
	stormStubborn = 700 * time.Millisecond
)

// config is the file of a service.
func (w *stormWorld) config(s *stormService) string {
	var b strings.Builder
	quoted := func(names string) string {
		var list []string
		for _, n := range strings.Fields(names) {
			list = append(list, fmt.Sprintf("%q", n))
		}
		return strings.Join(list, ", ")
	}
	depends := fmt.Sprintf("[dependencies]\nrequires = [%s]\nafter = [%s]\n", quoted(s.requires), quoted(s.after))
	if s.target {
		return "[target]\n" + depends
	}
	plan := strings.Join(append(slices.Clone(s.plan), "stay"), ",")
	if s.oneshot {
		plan = strings.Join(s.plan, ",")
	}
	fmt.Fprintf(&b, "[service]\nname = %q\nexec = \"storm -dir %s -plan %s -lines %d %s\"\n", s.name, w.path("j"), plan, s.lines, s.flags)
	if s.oneshot {
		b.WriteString("oneshot = true\n")
	}
	b.WriteString(s.main + depends)
	fmt.Fprintf(&b, "[lifecycle]\nstability_period_ms = 600000\nrestart_delay_ms = %d\nrestart_delay_max_ms = %d\n%s", s.delay.Milliseconds(), s.most.Milliseconds(), strings.ReplaceAll(s.life, "DIR", w.path("j")))
	fmt.Fprintf(&b, "[logging]\nbuffer_lines = 1000000\n")
	if s.lines > 0 {
		fmt.Fprintf(&b, "file = %q\nmax_size = \"256KiB\"\nmax_files = 1000\non_full = \"block\"\n", w.path("log", s.name))
	}
	return b.String()
}

// write puts the file of a service into the service directory.
func (w *stormWorld) write(s *stormService) {
	if err := os.WriteFile(w.path("services", s.name+".toml"), []byte(w.config(s)), 0o644); err != nil {
		w.fatal("%v", err)
	}
}

// printers are the services that print. Nobody can follow flood, which prints
// more than zinit keeps, and as fast as its log file takes it.
func (w *stormWorld) printers(followed bool) []string {
	var names []string
	for _, s := range w.services {
		if s.lines > 0 && !(followed && s.name == "flood") {
			names = append(names, s.name)
		}
	}
	slices.Sort(names)
	return names
}

// stormStep is one wish, or a few that belong together.
type stormStep struct {
	phase string
	do    func(*stormWorld)
}

// stormScript makes services and wishes. Each lane is a row of wishes for
// services of its own; the lanes go on at the same time.
func stormScript(rng *rand.Rand) (map[string]*stormService, [][]stormStep) {
	crashes := func() (plan []string) {
		ends := []string{"1", "2", "77", "255", "SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"}
		for range 4 + rng.IntN(3) {
			plan = append(plan, fmt.Sprintf("%dms:%s", rng.IntN(1<<rng.IntN(9)), ends[rng.IntN(len(ends))]))
		}
		return plan
	}
	always, onFailure := "restart = \"always\"\n", "restart = \"on-failure\"\n"
	list := []*stormService{
		{name: "steady", lines: 3000},
		{name: "flood", lines: 15000, flags: "-wide"},
		{name: "crash-a", lines: 300, plan: crashes(), life: onFailure, delay: 10 * time.Millisecond, most: 100 * time.Millisecond},
		{name: "crash-b", lines: 50, plan: append(crashes(), "20ms:0", "0s:0"), life: always, delay: 100 * time.Millisecond, most: 400 * time.Millisecond},
		{name: "timer", lines: 10, plan: []string{"10ms:3", "0s:0"}, life: always, delay: time.Duration(1000+rng.IntN(1500)) * time.Millisecond, most: 3 * time.Second},
		{name: "parent", lines: 100, plan: []string{"30ms:4+child", "0s:SIGKILL+child", "5ms:5+child"}, life: onFailure, delay: 50 * time.Millisecond, most: 50 * time.Millisecond},
		{name: "late", plan: []string{"mute"}, flags: "-ready notify", life: onFailure + fmt.Sprintf("ready = \"notify\"\nstart_timeout_ms = %d\n", stormSilence.Milliseconds()), delay: 20 * time.Millisecond, most: time.Second},
		{name: "hang", plan: []string{"hang"}, flags: "-ready notify -beat 250ms", life: onFailure + fmt.Sprintf("ready = \"notify\"\nwatchdog_ms = %d\n", stormSilence.Milliseconds()), delay: 20 * time.Millisecond, most: time.Second},

		{name: "init", lines: 20, plan: []string{"20ms:9", "0s:SIGTERM", "50ms:0"}, oneshot: true, life: onFailure, delay: 50 * time.Millisecond, most: 50 * time.Millisecond},
		{name: "db", touched: true, requires: "init", flags: "-ready notify -beat 300ms -stop 30ms -bears app", life: "ready = \"notify\"\nwatchdog_ms = 8000\n"},
		{name: "cache", touched: true, requires: "init", after: "db", flags: "-ready fd -bears app", life: "ready = \"fd\"\n"},
		{name: "app", touched: true, lines: 200, requires: "db cache", flags: "-needs db,cache -bears web -stop 60ms -ready fd", life: "ready = \"fd\"\npre_start = \"storm -dir DIR -hook pre\"\n"},
		{name: "web", touched: true, requires: "app", flags: "-needs app", life: "stop_exec = \"storm -dir DIR -hook stop\"\n"},
		{name: "stack", touched: true, target: true, requires: "web cache"},

		{name: "slow", touched: true, lines: 500, flags: "-stop 300ms"},
		{name: "stubborn", touched: true, flags: "-stop -1s", life: fmt.Sprintf("stop_timeout_ms = %d\n", stormStubborn.Milliseconds())},
		{name: "hit", touched: true, life: always, delay: 30 * time.Millisecond, most: 30 * time.Millisecond},
		{name: "edit", touched: true},
		{name: "job", touched: true, oneshot: true, plan: []string{"20ms:0"}, main: "status = \"stop\"\n"},
	}
	services := map[string]*stormService{}
	for _, s := range list {
		s.delay, s.most = max(s.delay, 10*time.Millisecond), max(s.most, 10*time.Millisecond)
		services[s.name] = s
	}
	return services, [][]stormStep{stormChain(rng), stormSingles(rng)}
}

// stormRequires are the services that require each other, from below.
var stormRequires = map[string][]string{"db": nil, "cache": nil, "app": {"db", "cache"}, "web": {"app"}, "stack": {"web", "cache"}}

// stormChain stops, starts and restarts services that require each other.
func stormChain(rng *rand.Rand) (steps []stormStep) {
	names := slices.Sorted(maps.Keys(stormRequires))
	verbs := []string{"stop", "start", "restart"}
	for range 9 {
		verb, name := verbs[rng.IntN(len(verbs))], names[rng.IntN(len(names))]
		steps = append(steps, stormStep{verb, func(w *stormWorld) { w.wish(verb, name) }})
	}
	return steps
}

// stormSingles has wishes for services that nothing depends on.
func stormSingles(rng *rand.Rand) (steps []stormStep) {
	var menu []stormStep
	add := func(phase string, do func(*stormWorld)) { menu = append(menu, stormStep{phase, do}) }
	for _, name := range []string{"slow", "stubborn"} {
		for _, verb := range []string{"stop", "start", "restart"} {
			add(verb, func(w *stormWorld) { w.wish(verb, name) })
		}
	}
	for _, sig := range []string{"TERM", "KILL", "INT", "USR1", "USR1"} {
		add("kill", func(w *stormWorld) { w.hit(sig) })
	}
	for i := range 2 {
		add("reload", func(w *stormWorld) {
			w.edit(fmt.Sprintf("env = { VERSION = \"r%d\" }\n", i), fmt.Sprintf("\"r%d\"", i), true)
		})
		add("reload", func(w *stormWorld) {
			w.edit(fmt.Sprintf("critical = %t\n", i == 0), fmt.Sprintf("critical = %t", i == 0), false)
		})
		add("start", func(w *stormWorld) { w.job() })
	}
	add("reload", func(w *stormWorld) { w.comeAndGo() })
	add("add", func(w *stormWorld) { w.addAndRemove("extra-a", true) })
	add("add", func(w *stormWorld) { w.addAndRemove("extra-b", false) })
	add("set", func(w *stormWorld) { w.setAndRemove("extra-c", true) })
	add("set", func(w *stormWorld) { w.setAndRemove("extra-d", false) })
	add("overlap", func(w *stormWorld) { w.overlap() })
	add("replace", func(w *stormWorld) { syscall.Kill(w.pid1, syscall.SIGUSR1) })
	add("upgrade", func(w *stormWorld) { w.zinit("upgrade") })
	add("replace pid1", func(w *stormWorld) { syscall.Kill(w.pid1, syscall.SIGUSR2) })
	rng.Shuffle(len(menu), func(i, j int) { menu[i], menu[j] = menu[j], menu[i] })
	return menu[:14]
}

// stormModel is what has been wished for and what has to come of it.
type stormModel struct {
	mu sync.Mutex
	up map[string]bool
	// least and most are how often a service has been started; hits counts
	// the signals USR1 alike.
	least, most         map[string]int
	hitsLeast, hitsMost int
	removed             map[string]bool
}

func newStormModel() *stormModel {
	m := &stormModel{up: map[string]bool{}, least: map[string]int{}, most: map[string]int{}, removed: map[string]bool{}}
	for _, n := range []string{"db", "cache", "app", "web", "stack", "slow", "stubborn", "hit", "edit"} {
		m.up[n] = true
		m.started(n, 1, 1)
	}
	return m
}

func (m *stormModel) started(name string, least, most int) {
	if name != "stack" {
		m.least[name] += least
		m.most[name] += most
	}
}

// is says that a service is wanted and what it requires is, too.
func (m *stormModel) is(name string) bool {
	return m.up[name] && !slices.ContainsFunc(stormRequires[name], func(n string) bool { return !m.is(n) })
}

func (m *stormModel) want(name string) {
	m.up[name] = true
	for _, n := range stormRequires[name] {
		m.want(n)
	}
}

// tied says that one service is the other or requires it.
func tied(name, to string) bool {
	return name == to || slices.ContainsFunc(stormRequires[name], func(n string) bool { return tied(n, to) })
}

// lane are the services that a wish for one of them may move.
func (m *stormModel) lane(name string) []string {
	if _, ok := stormRequires[name]; ok {
		return slices.Sorted(maps.Keys(stormRequires))
	}
	return []string{name}
}

// wish asks for a start, stop or restart. What is acknowledged is so.
func (w *stormWorld) wish(verb, name string) {
	m := w.model
	w.verify(m.lane(name)...)
	m.mu.Lock()
	before := map[string]bool{}
	for _, n := range m.lane(name) {
		before[n] = m.is(n)
	}
	if verb == "stop" {
		m.up[name] = false
	} else {
		m.want(name)
	}
	for n, was := range before {
		if m.is(n) && (!was || verb == "restart" && tied(n, name)) {
			m.started(n, 1, 1)
		}
	}
	want := m.is(name)
	m.mu.Unlock()
	w.zinit(verb, name)
	got := w.status()[name]
	switch {
	case want && got.State != ipc.StateRunning:
		w.violate("%s %s was acknowledged, but it is %s (%s)", verb, name, got.State, got.Note)
	case !want && (isActive(got.State) || w.locked(name)):
		w.violate("%s %s was acknowledged, but it is %s, and its lock is held: %t", verb, name, got.State, w.locked(name))
	}
	w.verify(m.lane(name)...)
}

func isActive(s ipc.State) bool {
	return s == ipc.StateRunning || s == ipc.StateStarting || s == ipc.StateStopping
}

// locked says whether a process of a service is there.
func (w *stormWorld) locked(name string) bool {
	f, err := os.OpenFile(w.path("j", name+".lock"), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return stormLocked(f)
}

func (w *stormWorld) journal(name string) []stormRecord {
	records, err := stormJournal(w.path("j"), name)
	if err != nil {
		w.fatal("%v", err)
	}
	return records
}

// verify waits until services are as the model says. What is not to run does
// not run at any time.
func (w *stormWorld) verify(names ...string) {
	w.must(func() error {
		list := w.status()
		w.model.mu.Lock()
		defer w.model.mu.Unlock()
		for _, n := range names {
			s, ok := list[n]
			runs := stormCount(w.journal(n), "start")
			want := w.model.is(n)
			switch {
			case runs > w.model.most[n] && w.services[n] != nil && !w.services[n].target:
				w.violate("%s was started %d times, expected at most %d", n, runs, w.model.most[n])
				w.model.most[n] = runs
			case w.model.removed[n] && (ok || w.locked(n)):
				w.violate("%s was removed, but is there", n)
			case w.model.removed[n]:
			case !ok:
				w.fatal("%s is gone", n)
			case s.Oneshot && want && (s.State != ipc.StateExited || runs < w.model.least[n]):
				return fmt.Errorf("%s is %s and was started %d times, expected %d; %s", n, s.State, runs, w.model.least[n], s.Note)
			case s.Oneshot:
			case !want && (isActive(s.State) || w.locked(n)):
				w.violate("%s is stopped, but %s, and its lock is held: %t", n, s.State, w.locked(n))
			case want && s.State != ipc.StateRunning, want && s.Kind != "target" && !w.locked(n), runs < w.model.least[n]:
				return fmt.Errorf("%s is %s and was started %d times, expected at least %d; %s", n, s.State, runs, w.model.least[n], s.Note)
			}
		}
		return nil
	})
}

// hit sends a signal to a service: once if that was acknowledged, at most once
// if not.
func (w *stormWorld) hit(sig string) {
	w.verify("hit")
	_, err := w.try("", "kill", "hit", sig)
	least := 1
	if err != nil {
		if !strings.Contains(err.Error(), "lost") {
			w.violate("kill hit %s: %v", sig, err)
		}
		least = 0
	}
	m := w.model
	m.mu.Lock()
	if sig == "USR1" {
		m.hitsLeast += least
		m.hitsMost++
	} else {
		m.started("hit", least, 1)
	}
	m.mu.Unlock()
	// The next one might be taken for the same, or end it before it was heard.
	w.must(func() error {
		if n := stormCount(w.journal("hit"), "usr1"); n < m.hitsLeast {
			return fmt.Errorf("hit has got USR1 %d times, expected %d", n, m.hitsLeast)
		}
		return nil
	})
	w.verify("hit")
}

// edit changes the file of a service, of which zinit get shows a part then;
// only some changes need a restart.
func (w *stormWorld) edit(main, shown string, restarts bool) {
	w.verify("edit")
	was, s := w.services["edit"], *w.services["edit"]
	s.main = main
	if s.main == was.main {
		return
	}
	restarts = restarts || strings.HasPrefix(was.main, "env") // what there was is taken back
	w.know(&s, restarts)
	w.write(&s)
	w.zinit("reload")
	if got := string(w.zinit("get", "edit")); !strings.Contains(got, shown) {
		w.violate("reload was acknowledged, but edit has no %s:\n%s", shown, got)
	}
	w.verify("edit")
}

// job starts a oneshot that ends at once, and that is run once for each wish.
func (w *stormWorld) job() {
	w.model.mu.Lock()
	w.model.started("job", 1, 1)
	w.model.mu.Unlock()
	w.zinit("start", "job")
	if s := w.status()["job"]; s.State != ipc.StateExited {
		w.violate("start job was acknowledged, but it is %s", s.State)
	}
	w.verify("job")
}

// comeAndGo has a service come by one reload and go by another.
func (w *stormWorld) comeAndGo() {
	s := &stormService{name: "guest", touched: true}
	w.know(s, true)
	w.write(s)
	w.zinit("reload")
	w.verify("guest")
	if err := os.Remove(w.path("services", "guest.toml")); err != nil {
		w.fatal("%v", err)
	}
	w.zinit("reload")
	w.must(func() error {
		if _, ok := w.status()["guest"]; ok {
			return fmt.Errorf("guest is still there")
		}
		return nil
	})
	w.gone("guest")
}

// know has the model expect a service to run as it is described now, and to be
// started for that.
func (w *stormWorld) know(s *stormService, starts bool) {
	m := w.model
	m.mu.Lock()
	defer m.mu.Unlock()
	w.services = maps.Clone(w.services) // the other lane reads it
	w.services[s.name] = s
	m.up[s.name] = true
	if starts {
		m.started(s.name, 1, 1)
	}
}

func (w *stormWorld) gone(name string) {
	w.model.mu.Lock()
	w.model.up[name] = false
	w.model.removed[name] = true
	w.model.mu.Unlock()
	w.verify(name)
}

// addAndRemove adds a service that has no file, and removes it if it is told so.
func (w *stormWorld) addAndRemove(name string, remove bool) {
	s := &stormService{name: name, touched: true, later: true}
	w.know(s, true)
	w.zinit("add-service", "--name", name, "--exec", "storm -dir "+w.path("j"))
	w.appeared(name, "add-service")
	if remove {
		w.zinit("remove-service", name)
		w.gone(name)
	}
}

// setAndRemove makes a service with a file, changes it, and removes it if it is
// told so.
func (w *stormWorld) setAndRemove(name string, remove bool) {
	s := &stormService{name: name, touched: true, later: true, delay: time.Second, most: time.Minute}
	for i := range 2 {
		s.main = fmt.Sprintf("env = { VERSION = \"s%d\" }\n", i)
		w.know(s, true)
		if _, err := w.try(w.config(s), "set", "-"); err != nil {
			w.fatal("set %s: %v", name, err)
		}
		w.appeared(name, "set")
		if text, _ := os.ReadFile(w.path("services", name+".toml")); string(text) != w.config(s) {
			w.violate("set %s was acknowledged, but its file has:\n%s", name, text)
		}
		if records := w.journal(name); len(records) == 0 || records[len(records)-1].details[0] != fmt.Sprintf("s%d", i) {
			w.violate("set %s was acknowledged, but %v runs", name, records)
		}
	}
	if remove {
		w.zinit("remove-service", name)
		if _, err := os.Stat(w.path("services", name+".toml")); err == nil {
			w.violate("remove-service %s was acknowledged, but its file is there", name)
		}
		w.gone(name)
	}
}

func (w *stormWorld) appeared(name, verb string) {
	if s := w.status()[name]; s.State != ipc.StateRunning {
		w.violate("%s %s was acknowledged, but it is %q", verb, name, s.State)
	}
	w.verify(name)
}

// overlap asks for one thing while another is under way: the last counts.
func (w *stormWorld) overlap() {
	w.verify("slow")
	w.model.mu.Lock()
	w.model.want("slow")
	w.model.started("slow", 0, 4)
	w.model.mu.Unlock()
	w.zinit("restart", "slow", "--no-wait")
	w.zinit("stop", "slow", "--no-wait")
	w.zinit("restart", "slow", "--no-wait")
	w.zinit("start", "slow")
	w.verify("slow")
}

// settle waits until nothing moves any more and all that was printed was read,
// and looks at what there is.
func (w *stormWorld) settle() {
	names := slices.Sorted(maps.Keys(w.services))
	w.model.mu.Lock()
	for _, n := range names {
		if s := w.services[n]; !s.touched {
			w.model.up[n] = true
			w.model.started(n, len(s.plan)+1, len(s.plan)+1)
			if s.oneshot {
				w.model.started(n, -1, -1)
			}
		}
	}
	w.model.mu.Unlock()
	w.verify(names...)
	for _, n := range w.printers(false) {
		w.must(func() error {
			if !w.model.is(n) || w.services[n].oneshot {
				return nil
			}
			records := w.journal(n)
			for i := len(records) - 1; i >= 0 && records[i].what != "start"; i-- {
				if records[i].what == "printed" {
					return nil
				}
			}
			return fmt.Errorf("%s has not printed all of its lines", n)
		})
	}
	w.must(w.readAll)
	w.must(func() error {
		last, seen := w.events("events --json"), w.events("")
		if len(last) > 0 && (len(seen) == 0 || seen[len(seen)-1].Seq != last[len(last)-1].Seq) {
			return fmt.Errorf("zinit events -f has %d events, up to another than zinit events", len(seen))
		}
		return nil
	})
	if z := w.zombies(w.pid1); len(z) > 0 {
		w.violate("zinit-pid1 does not reap its children:\n%s", strings.Join(z, "\n"))
	}
	w.list = w.status()
	w.gets = map[string]string{}
	for n := range w.list {
		w.gets[n] = strings.ReplaceAll(string(w.zinit("get", n)), w.dir, "DIR")
	}
	w.look()
	info := w.info()
	w.counts.replaced = info.ServerRestarts
	if info.StateLost {
		w.violate("zinit-server has lost its state")
	}
	running := 0
	for _, s := range w.list {
		if s.Pid > 0 {
			running++
		}
	}
	// It keeps two log pipes of each and at most one channel for its readiness.
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.pid1))
	if w.fds = len(fds); err != nil || w.fds > 3*running+20 {
		w.violate("zinit-pid1 has %d descriptors for %d services (%v)", w.fds, running, err)
	}
}
