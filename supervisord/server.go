package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/clock"
	"github.com/threefoldtech/zinit/common/failpoint"
	"github.com/threefoldtech/zinit/common/paths"
	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/common/threads"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
	"github.com/threefoldtech/zinit/supervisord/logs"
)

// server is the supervisor. One goroutine, run, owns every field that is not
// marked; all others send it messages through the inbox:
//
//	frames from pid1 · readiness of notify sockets · prepared spawns
//	closures of client goroutines · ends of log pipes · signals
//
// It takes all that is waiting, steps the core with each, saves once, and only
// then acts. Nothing in it blocks.
type server struct {
	opts   options
	paths  paths.Paths
	log    *slog.Logger // safe for concurrent use
	keeper *keeper
	core   *core.Core
	store  *store
	// history and incidents are safe for concurrent use.
	history   *history
	incidents *incidents
	logs      *logs.Capture // safe for concurrent use
	notify    *notifier
	cgroups   *cgroups // nil where there are none, and noCgroups says why
	noCgroups error
	inbox     chan any
	timer     *time.Timer
	preparing chan struct{} // a place for each order that is being made

	base     ipc.Words // environment of all services; does not change
	services map[string]*spec.Service
	// ownProxies are those of files of their own, proxies all; listeners are
	// their open sockets, owners the one proxy that each address is for. counted
	// want the counters that come into counting. passing those with mode = pass
	// by service.
	ownProxies map[string]*spec.Proxy
	passing    map[string][]*spec.Proxy
	proxies    map[string]*spec.Proxy
	listeners  map[spec.Address]int
	owners     map[spec.Address]*spec.Proxy
	deaf       map[spec.Address]string // why an address has no listener
	counting   map[string]ipc.ProxyStats
	counted    []chan<- map[string]ipc.ProxyStats

	problems []spec.Problem
	// unlogged says why services have no log file that ask for one: another has it.
	unlogged map[string]string
	// started is when this supervisor was, zinitStarted when zinit was, as the
	// clock said when this supervisor began: so it does not change.
	started      time.Time
	zinitStarted ipc.Time
	// loading is held by whoever reads the configuration to replace it, so
	// that what was read last is what counts. Neither it nor the loader, which
	// it guards, is the loop's.
	loading sync.Mutex
	loader  spec.Loader
	// scraping is held by whoever measures for HTTP. It is not the loop's.
	scraping sync.Mutex

	pending []core.Action
	told    int            // how many of them newEvents has seen
	changed []core.Changed // what tell is to say
	over    []core.RunID   // runs whose cgroup is not needed any more
	// ordered says that something was ordered to start in this turn, late that
	// because of that tell has left what it has to say to the next.
	ordered, late bool
	acks          []ack
	after         []func() // to be run when the batch is saved and acted upon
	// events wait for the next turn: what an action has brought about.
	events  []core.Event
	waiters map[*waiter]bool
	// follows are the names of those who follow logs of certain services, by what is
	// closed when none of these is there any more.
	follows map[chan struct{}][]string
	// replaced are the last times that the supervisor was. This one had no saved
	// state to go on with (lost), or one whose end could not be read (cut).
	replaced []ipc.Replaced
	lost     bool
	cut      bool
	unsaved  bool // the last attempt to save the state failed
	// unsavedSince is when that began.
	unsavedSince ipc.Time
	// unforgotten are the runs that are over since then: pid1 remembers them for
	// the next supervisor, which would start them again by what is saved.
	unforgotten []core.RunID
	// moved says that the waiters are to be asked: about the services in news, whose
	// records have changed since, or with allMoved about all.
	moved, allMoved bool
	news            map[string]bool
	// pipes holds the log pipes under capture, ended those of them that the capture
	// is done with; ended is safe for concurrent use.
	pipes    map[core.RunID]logPipes
	dropped  []string // descriptors that pid1 need not keep, to be said with the next act
	ended    *logEnds
	attached *attachment

	helpers map[core.Helper]*helper
	health  *helper
	proxyd  *helper
	// helperRuns are the runs of helpers that pid1 has not forgotten.
	helperRuns map[ipc.RunID]bool
	resultAck  uint64          // of zinit-healthd, to be said when it is saved
	halting    *core.Halt      // the last order, until nothing is in its way
	unmet      map[string]bool // limits that cannot be applied, and were warned of

	lockFile *os.File
	listener *ipc.Listener
	watch    *watcher
}

// ack is the number of a message of pid1 to be acknowledged, and the run that it
// is about; 0 for none.
type ack struct {
	seq uint64
	run core.RunID
}

// watchAfter is when files in the runtime directory are watched, which is for those
// who stay, and before memory is tidied.
const watchAfter = 2 * time.Second

// mainService is the name of the service that runs a container's main command.
const mainService = "main"

// start builds a server from what pid1 and the saved state say, or from the
// configuration directory if there is nothing to recover.
func start(o options, k *keeper, log *slog.Logger) (_ *server, err error) {
	s := &server{
		opts: o, keeper: k, log: log, started: time.Now(),
		inbox: make(chan any, 1024), timer: time.NewTimer(time.Hour), preparing: make(chan struct{}, maxPrepared),
		history: &history{}, waiters: map[*waiter]bool{}, follows: map[chan struct{}][]string{}, news: map[string]bool{}, pipes: map[core.RunID]logPipes{},
		ended: &logEnds{more: make(chan struct{}, 1)}, helperRuns: map[ipc.RunID]bool{}, unmet: map[string]bool{},
		base:       newEnviron(ownEnviron()).own,
		ownProxies: map[string]*spec.Proxy{}, listeners: map[spec.Address]int{}, deaf: map[spec.Address]string{},
	}
	s.health = &helper{name: core.HelperHealth, role: ipc.RoleHealth, onFrame: s.onHealthFrame}
	s.proxyd = &helper{name: core.HelperProxy, role: ipc.RoleProxy, onFrame: s.onProxyFrame}
	s.helpers = map[core.Helper]*helper{s.health.name: s.health, s.proxyd.name: s.proxyd}
	s.zinitStarted = ipc.Time(s.started.Add(-age(k.hello.StartTime)).Truncate(tick))
	if err := s.settleIn(); err != nil {
		return nil, err
	}
	k.tellBase(s.base)
	p := s.paths
	if s.logs, err = logs.Open(logs.Options{
		Dir: p.RuntimeDir + "/logs", Memory: o.logMemory, Logger: log, EOF: s.ended.add,
	}); err != nil {
		return nil, err
	}
	if s.notify, err = newNotifier(p.RuntimeDir+"/notify", s.inbox); err != nil {
		return nil, err
	}
	s.store = newStore(p.RuntimeDir + "/state")
	old, damage := loadState(s.store.path)
	s.endOrphans(old) // before their cgroups are taken for leftovers
	if s.cgroups, s.noCgroups = s.openCgroups(); s.noCgroups != nil {
		log.Debug("there are no cgroups for services", "reason", s.noCgroups)
	}
	defer func() {
		if err != nil && len(k.runs) == 0 {
			s.cgroups.close()
		}
	}()
	s.adoptHelpers()
	if err := s.recoverOrBoot(old, damage); err != nil {
		return nil, err
	}
	s.proxies = allProxies(s.services, s.ownProxies)
	s.takeListeners()
	s.setProxies(s.ownProxies, nil)
	s.incidents = &incidents{
		path: p.RuntimeDir + "/incidents", history: s.history, capture: s.logs, log: log,
		life: fmt.Sprintf("%s/%d/%d", bootID(), k.hello.Pid, k.hello.StartTime),
	}
	go s.incidents.follow(context.Background())
	if err := s.listenHelpers(); err != nil {
		return nil, err
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	if err := s.listenMetrics(); err != nil {
		// What runs, and a machine, go on without.
		if k.hello.Mode != ipc.ModeVM && len(k.runs) == 0 {
			return nil, err
		}
		log.Error("there will be no metrics", "error", err)
	}
	s.watch = &watcher{}
	s.mend()
	time.AfterFunc(watchAfter, func() { s.inbox <- s.watchOver })
	s.tellManager("READY=1")
	return s, nil
}

// loadConfig reads the directories, and adds the main command.
func (s *server) loadConfig() error {
	plan, problems, err := s.loader.LoadDirs(s.opts.systemDir, s.opts.configDir)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if len(s.keeper.hello.Main) == 0 {
			text := "the service directory does not exist"
			if len(plan.Services) == 0 {
				text += ": there is nothing to start"
			}
			s.log.Warn(text, "dir", s.opts.configDir)
		}
	}
	problems = append(problems, s.takenName(plan)...)
	s.problems = append(problems, plan.Check()...)
	for _, p := range s.problems {
		where := []any{"file", p.File}
		if p.Line > 0 {
			where = append(where, "line", p.Line, "column", p.Column)
		}
		s.log.Error("configuration: "+p.Message, where...)
	}
	s.services, s.ownProxies = plan.Services, ownProxies(plan)
	if argv := s.keeper.hello.Main; len(argv) > 0 {
		s.services[mainService] = mainSpec(argv, s.services)
	}
	return nil
}

// takenName takes out of a plan the service of a file that has the name of the main
// command, and returns the error that this is.
func (s *server) takenName(plan spec.Plan) []spec.Problem {
	sp := plan.Services[mainService]
	if sp == nil || len(s.keeper.hello.Main) == 0 {
		return nil
	}
	delete(plan.Services, mainService)
	if plan.Proxies[mainService] == sp.Xinet {
		delete(plan.Proxies, mainService)
	}
	return []spec.Problem{{File: sp.File, Message: "main is the command that this container runs: a service needs another name"}}
}

// onlyMain says that zinit runs one command as tini would: then it does not
// chat.
func (s *server) onlyMain() bool { return len(s.keeper.hello.Main) > 0 && len(s.services) == 1 }

// mainSpec is the service of a container's main command: started after all
// others, never restarted, and the end of zinit. Alone, it has the terminal and no
// pipes; else only a stdin that is no terminal.
func mainSpec(argv []string, others map[string]*spec.Service) *spec.Service {
	m := spec.Default(mainService)
	m.Exec = spec.Literal(argv)
	m.Lifecycle.Restart = spec.RestartNever
	m.Lifecycle.OnExit = spec.OnExitShutdown
	for name := range others {
		if name != mainService {
			m.After = append(m.After, name)
		}
	}
	slices.Sort(m.After)
	m.Console = len(m.After) == 0
	return m
}

// configure tells the capture how much of a service is kept, and which file
// it goes to: that first, or what the file has not got might be let go of.
func (s *server) configure(sp *spec.Service) {
	l := sp.Logging
	path := l.File
	if why := s.unlogged[sp.Name]; why != "" {
		s.log.Error("there will be no log file", "service", sp.Name, "error", why)
		path = ""
	}
	if err := s.logs.SetFile(sp.Name, logs.FileOptions{
		Path: path, MaxSize: l.MaxSize, MaxFiles: l.MaxFiles, Block: l.OnFull == spec.OnFullBlock,
	}); err != nil {
		s.log.Error("there will be no log file", "service", sp.Name, "error", err)
	}
	s.logs.Configure(sp.Name, l.BufferLines)
	s.warnOfLimits(sp)
}

// warnOfLimits says once of each limit that it cannot be applied.
func (s *server) warnOfLimits(sp *spec.Service) {
	for key, why := range s.cgroups.unmetLimits(sp.Limits, s.noCgroups) {
		if !s.unmet[key] {
			s.unmet[key] = true
			s.log.Warn("a limit is not applied, to this service and any other", "limit", key, "service", sp.Name, "reason", why)
		}
	}
}

func (s *server) now() core.Time { return core.Time(clock.Monotonic()) }

// run is the loop. It returns when zinit ends.
func (s *server) run() error {
	go s.keeper.readLoop(s.inbox)
	go s.notify.waitLoop()
	s.save() // what start has stepped since it took over
	s.act()
	// What starts does not wait for them. They come before the first collection, lest
	// their stacks lie in garbage, whose pages would stay.
	go threads.Warm(warm)
	s.tell()
	for {
		if err := s.takeAll(); err != nil {
			return err
		}
		s.step(core.Tick{})
		if len(s.pending) > 0 {
			failpoint.Hit("stepped")
		}
		s.save()
		s.act()
		s.keeper.conn.Release()
		s.tell()
	}
}

// takeAll waits for a message and handles all that are there, or as many as
// are fair. What is said to pid1 from then on goes out at the end of the turn.
func (s *server) takeAll() error {
	if events := s.events; len(events) > 0 {
		s.events = nil
		for _, ev := range events {
			s.step(ev)
		}
	} else {
		s.setTimer()
		more := s.ended.more
		if s.core.ShuttingDown() {
			more = nil // pid1 closes them when it ends, all at once
		}
		select {
		case m := <-s.inbox:
			if err := s.handle(m); err != nil {
				return err
			}
		case <-more:
			s.pipesStored()
		case <-s.timer.C:
			s.listenToAll()
		}
	}
	s.keeper.conn.Hold()
	for range 256 {
		select {
		case m := <-s.inbox:
			if err := s.handle(m); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

// errHalted ends the loop after the last order to pid1.
var errHalted = errors.New("halted")

// latest is how long tell may leave what it has to say.
const latest = 10 * time.Millisecond

// setTimer arms the one timer for the earliest deadline.
func (s *server) setTimer() {
	at, ok := s.core.NextWake()
	if soon := s.now() + core.Time(latest); s.late && (!ok || at > soon) {
		at, ok = soon, true
	}
	if !ok {
		s.timer.Stop()
		return
	}
	s.timer.Reset(max(0, time.Duration(at-s.now())))
}

func (s *server) step(ev core.Event) {
	s.pending = append(s.pending, s.core.Step(s.now(), ev)...)
}

// handle takes one message. An error ends the supervisor.
func (s *server) handle(m any) error {
	switch m := m.(type) {
	case []ipc.Frame:
		for _, f := range m {
			if err := s.onFrame(f); err != nil {
				s.log.Error("bad message from pid1", "error", err)
			}
		}
	case keeperGone:
		s.cgroups.close() // as far as nothing runs there
		return fmt.Errorf("zinit-pid1 is gone: the services go on without a keeper, the next start ends them: %w", m.err)
	case prepared:
		s.onPrepared(m)
	case readable:
		if sock := s.notify.sockets[m.run]; sock != nil {
			s.listenTo(sock)
		}
	case osSignal:
		s.onSignal(0, m.sig)
	case helperCame, helperSaid, helperGone:
		s.onHelper(m)
	case func():
		m()
	case haltNow:
		// Or clients would take them for places to ask.
		os.Remove(s.paths.Socket)
		for a := range s.listeners {
			if a.Network == "unix" {
				os.Remove(a.Address)
			}
		}
		// Until pid1 has the order, the state has to say that all is over: a
		// supervisor without one would start everything again.
		s.keeper.send(ipc.KindHalt, ipc.Halt{Action: ipc.HaltAction(m.Action), Code: m.Code})
		s.keeper.conn.Flush()
		s.store.remove()
		return errHalted
	}
	return nil
}

// onSignal is a signal to zinit, by way of pid1, which numbers it, or to the
// supervisor itself, as number 0.
func (s *server) onSignal(seq uint64, sig unix.Signal) {
	main := len(s.keeper.hello.Main) > 0
	action, ends := ipc.HaltOf(int(sig))
	ask := func(ev core.Event) {
		if seq != 0 {
			ev = core.Requested{Seq: seq, Event: ev}
		}
		s.step(ev)
	}
	stop := core.Stop{Action: string(action), Within: core.Time(s.opts.shutdownTimeout)}
	if sig == unix.SIGHUP && !main {
		s.mend()
		s.logs.Reopen()
		go s.hangup(seq) // which acknowledges it, when it is done
		return
	}
	if seq != 0 {
		s.acks = append(s.acks, ack{seq: seq})
	}
	switch {
	case ends && sig < 32: // SIGTERM, SIGINT, SIGPWR
		s.log.Info("shutting down", "signal", unix.SignalName(sig))
		stop.Hurry = true
		if sig == unix.SIGINT {
			// Many programs know two ways to stop: an image that has SIGINT as
			// its STOPSIGNAL means that of its main command.
			stop.MainSignal = int(sig)
		}
		ask(stop)
	case ends: // SIGRTMIN+3 to +5
		ask(stop)
	case main:
		if sig == unix.SIGTSTP {
			// It has no effect in a session of its own: nobody there could
			// continue what it stops (orphaned process groups, setpgid(2)).
			sig = unix.SIGSTOP
		}
		ask(core.Kill{Name: mainService, Signal: int(sig)})
	case sig == unix.SIGUSR1:
		go s.upgradeBySignal()
	}
}

// act performs what the steps asked for, after it was saved: each of these
// queues a message or an event and returns.
func (s *server) act() {
	if len(s.pending) > 0 {
		failpoint.Hit("saved")
	}
	if len(s.acks) > 0 {
		failpoint.Hit("unacknowledged")
	}
	actions := s.pending
	s.pending, s.told = nil, 0
	// What somebody waits for comes first: pid1 takes its time for what is over.
	for _, a := range actions {
		if a, ok := a.(core.Spawn); ok {
			s.perform(a)
		}
	}
	if s.resultAck > 0 {
		s.health.send(ipc.KindResultAck, ipc.Ack{Seq: s.resultAck})
		s.resultAck = 0
	}
	s.forgetSaved()
	for _, a := range actions {
		if _, ok := a.(core.Spawn); !ok {
			s.perform(a)
		}
	}
	for _, a := range s.acks {
		s.keeper.send(ipc.KindAck, ipc.Ack{Seq: a.seq})
	}
	s.acks = s.acks[:0]
	for _, name := range s.dropped {
		if !s.core.ShuttingDown() { // or it closes them when it ends, all at once
			s.keeper.drop(name)
		}
	}
	s.dropped = s.dropped[:0]
	s.needHelpers()
	if s.core.ShuttingDown() {
		s.watch.close()
	}
	if s.halting != nil && len(s.helperRuns) == 0 {
		s.halt(*s.halting)
		s.halting = nil
	}
}

// tell says what has been saved and acted upon to those who asked for it.
func (s *server) tell() {
	// pid1 answers what it was ordered to start, so there is a next turn. Until then
	// it has the processor.
	s.late = s.ordered && !s.late && len(s.after) == 0
	s.ordered = false
	if s.late {
		return
	}
	s.history.announce()
	for _, run := range s.over {
		s.cgroups.forget(run)
	}
	s.over = s.over[:0]
	changed := s.changed
	s.changed = nil
	for _, a := range changed {
		s.onChanged(a)
	}
	after := s.after
	s.after = nil
	for _, f := range after {
		f()
	}
	if s.moved {
		s.askWaiters()
	}
}

// in runs a function in the loop, by which clients look at the state or send
// an event, and waits until what it brought about is saved. With an error it
// was not run and never will be; the loop does not block, so once the function
// is on its way the wait is short.
func (s *server) in(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case s.inbox <- func() { f(); s.after = append(s.after, func() { close(done) }) }:
	case <-ctx.Done():
		return ctx.Err()
	}
	<-done
	return nil
}
