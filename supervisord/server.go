package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/paths"
	"github.com/threefoldtech/zinit/common/spec"
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

	services map[string]*spec.Service
	problems []spec.Problem
	started  time.Time
	// loading is held by whoever reads the configuration to replace it, so
	// that what was read last is what counts. It is not the loop's.
	loading sync.Mutex

	pending []core.Action
	told    int // how many of them newEvents has seen
	acks    []uint64
	after   []func() // to be run when the batch is saved and acted upon
	// events wait for the next turn: what an action has brought about.
	events  []core.Event
	waiters map[*waiter]bool
	lost    bool // the services were started afresh, for want of a saved state
	unsaved bool // the last attempt to save the state failed
	moved   bool // a service has changed its state since the waiters were asked
	// pipes holds the names of the log pipes under capture, ended those of them
	// that the capture is done with; ended is safe for concurrent use.
	pipes    map[logEnd]string
	ended    *logEnds
	attached *attachment

	helpers map[core.Helper]*helper
	health  *helper
	// helperRuns are the runs of helpers that pid1 has not forgotten.
	helperRuns map[ipc.RunID]bool
	resultAck  uint64          // of zinit-healthd, to be said when it is saved
	halting    *core.Halt      // the last order, until nothing is in its way
	unmet      map[string]bool // limits that cannot be applied, and were warned of
}

// mainService is the name of the service that runs a container's main command.
const mainService = "main"

// start builds a server from what pid1 and the saved state say, or from the
// configuration directory if there is nothing to recover.
func start(o options, k *keeper, log *slog.Logger) (_ *server, err error) {
	s := &server{
		opts: o, keeper: k, log: log, started: time.Now(),
		inbox: make(chan any, 1024), timer: time.NewTimer(time.Hour),
		history: &history{}, waiters: map[*waiter]bool{}, pipes: map[logEnd]string{},
		ended: &logEnds{more: make(chan struct{}, 1)}, helperRuns: map[ipc.RunID]bool{}, unmet: map[string]bool{},
	}
	s.health = &helper{name: core.HelperHealth, role: ipc.RoleHealth, onFrame: s.onHealthFrame}
	s.helpers = map[core.Helper]*helper{s.health.name: s.health}
	p, notice, err := paths.Server(o.socket, o.runtimeDir)
	if err != nil {
		return nil, err
	}
	s.paths = p
	if notice != "" && k.hello.Restarts == 0 {
		log.Warn(notice)
	}
	if err := s.lock(); err != nil {
		return nil, err
	}
	if s.logs, err = logs.Open(logs.Options{
		Dir: p.RuntimeDir + "/logs", Memory: o.logMemory, Logger: log, EOF: s.ended.add,
	}); err != nil {
		return nil, err
	}
	if s.notify, err = newNotifier(p.RuntimeDir+"/notify", s.inbox); err != nil {
		return nil, err
	}
	s.store = newStore(p.RuntimeDir + "/state")
	if s.cgroups, s.noCgroups = s.openCgroups(); s.noCgroups != nil {
		log.Debug("there are no cgroups for services", "reason", s.noCgroups)
	}
	defer func() {
		if err != nil && len(k.runs) == 0 {
			s.cgroups.close()
		}
	}()
	s.adoptHelpers()
	if err := s.recoverOrBoot(); err != nil {
		return nil, err
	}
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
	return s, nil
}

// lock makes this the one supervisor of its socket. The descriptor stays with
// pid1, so that the lock outlives a crash of the supervisor.
func (s *server) lock() error {
	if fd, ok := s.keeper.take("lock"); ok {
		return unix.Close(fd)
	}
	f, err := takeLock(s.paths)
	if err != nil {
		return err
	}
	defer f.Close()
	return s.keeper.store("lock", int(f.Fd()))
}

// takeLock opens and locks the lock file beside the control socket's state.
func takeLock(p paths.Paths) (*os.File, error) {
	f, err := os.OpenFile(p.RuntimeDir+"/lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the lock file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("another zinit-server has the runtime directory %s of the socket %s: use that one, or start this one with another --socket", p.RuntimeDir, p.Socket)
		}
		return nil, fmt.Errorf("cannot lock %s: %w", f.Name(), err)
	}
	return f, nil
}

// recoverOrBoot takes over what runs, or starts afresh.
func (s *server) recoverOrBoot() error {
	old, err := loadState(s.store.path)
	if err != nil {
		s.log.Error("the saved state is of no use: what runs is ended and everything is started afresh", "error", err)
	}
	mine := header{Format: stateFormat, Boot: bootID(), Keeper: s.keeper.hello.Pid, Started: s.keeper.hello.StartTime}
	o := core.Options{
		CriticalExits:   s.keeper.hello.Mode == ipc.ModeContainer,
		ShutdownTimeout: core.Time(s.opts.shutdownTimeout),
	}
	if len(s.keeper.hello.Main) > 0 {
		o.Main = mainService
	}
	if old != nil && old.Header == mine {
		s.services, s.problems = old.Services, old.Problems
		if err := s.history.restore(old.Events); err != nil {
			s.log.Error("cannot read the saved events: they begin again", "error", err)
		}
		s.adopt()
		facts := s.facts()
		unheard, consume := s.notify.unheard(leaders(facts))
		s.core, s.pending = core.Recover(s.now(), s.services, o, old.Global, old.records(), facts, unheard...)
		s.log.Info("took over", "services", len(s.services), "runs", len(s.keeper.runs),
			"restarts", s.keeper.hello.Restarts, "down", time.Duration(s.keeper.hello.Down).Round(time.Microsecond), "last", s.keeper.hello.LastEnd)
		for n, r := range old.Records {
			if r.Removed {
				delete(s.services, n) // the core still ends it
			}
		}
		err := s.saveAll(s.newEvents())
		consume()
		return err
	}
	if old != nil && old.Header.Boot == mine.Boot {
		s.endOrphans(old)
	}
	if len(s.keeper.runs) > 0 {
		s.lost = true
		s.log.Error("there is no saved state of this zinit: what runs is ended, and everything is started afresh", "runs", len(s.keeper.runs))
	}
	if err := s.loadConfig(); err != nil {
		return err
	}
	s.adopt()
	s.core, s.pending = core.Recover(s.now(), s.services, o, core.Global{LastRun: firstRun()}, nil, s.facts())
	s.pending = append(s.pending, s.core.Step(s.now(), core.Boot{})...)
	return s.saveAll(s.newEvents())
}

// firstRun is where the run ids of a fresh start begin: after all that the
// segments of a zinit before this one may name.
func firstRun() core.RunID { return core.RunID(time.Now().UnixMilli()) }

// loadConfig reads the service directory, and adds the main command.
func (s *server) loadConfig() error {
	plan, problems, err := spec.LoadDir(s.opts.configDir)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if len(s.keeper.hello.Main) == 0 {
			s.log.Warn("the service directory does not exist: there is nothing to start", "dir", s.opts.configDir)
		}
	}
	s.problems = append(problems, plan.Check()...)
	for _, p := range s.problems {
		s.log.Error("configuration: "+p.Message, "file", p.File, "line", p.Line, "column", p.Column)
	}
	for name, p := range plan.Proxies {
		if sp := plan.Services[name]; sp == nil || sp.Xinet == nil { // a file of its own
			s.warnOfProxy(p)
		}
	}
	s.services = plan.Services
	if s.services == nil {
		s.services = map[string]*spec.Service{}
	}
	if argv := s.keeper.hello.Main; len(argv) > 0 {
		s.services[mainService] = mainSpec(argv, s.services)
	}
	return nil
}

// onlyMain says that zinit runs one command as tini would: then it does not
// chat.
func (s *server) onlyMain() bool { return len(s.keeper.hello.Main) > 0 && len(s.services) == 1 }

// mainSpec is the service of a container's main command: started after all
// others, never restarted, and the end of zinit. Alone, it has the terminal.
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

// adopt takes over the log pipes and notify sockets that pid1 has kept.
func (s *server) adopt() {
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
}

// configure tells the capture how much of a service is kept, and which file
// it goes to: that first, or what the file has not got might be let go of.
func (s *server) configure(sp *spec.Service) {
	l := sp.Logging
	if err := s.logs.SetFile(sp.Name, logs.FileOptions{
		Path: l.File, MaxSize: l.MaxSize, MaxFiles: l.MaxFiles, Block: l.OnFull == spec.OnFullBlock,
	}); err != nil {
		s.log.Error("there will be no log file", "service", sp.Name, "error", err)
	}
	s.logs.Configure(sp.Name, l.BufferLines)
	s.warnOfLimits(sp)
	if sp.Xinet != nil {
		s.warnOfProxy(sp.Xinet)
	}
}

// openCgroups makes or finds the cgroups of services.
func (s *server) openCgroups() (*cgroups, error) {
	site, err := findCgroup()
	if err != nil {
		return nil, err
	}
	known := map[core.RunID]bool{}
	for _, r := range s.keeper.runs {
		known[core.RunID(r.Run)] = true
	}
	return openCgroups(site, s.paths.RuntimeDir, known, []int{s.keeper.hello.Pid, os.Getpid()}, s.log)
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

// warnOfProxy says that nobody listens for a proxy where its program is missing.
func (s *server) warnOfProxy(p *spec.Proxy) {
	if _, err := findHelper("zinit-proxyd"); err != nil {
		s.log.Warn("nobody listens for a proxy", "proxy", p.Name, "error", err)
	}
}

func (s *server) facts() []core.Fact {
	facts := make([]core.Fact, 0, len(s.keeper.runs))
	for _, r := range s.keeper.runs {
		f := core.Fact{Run: core.RunID(r.Run), Tag: r.Tag, Signals: r.Signals}
		if r.Spawned != nil {
			f.Pid, f.StartTime = r.Spawned.Pid, r.Spawned.StartTime
		}
		if r.Exited != nil {
			s.acks = append(s.acks, r.Exited.Seq)
			end := s.endOf(*r.Exited)
			f.End = &end
			f.Left = r.Exited.Left && !r.Emptied
		}
		facts = append(facts, f)
	}
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

// endOrphans ends the services of a zinit whose pid1 was killed, so that there
// never are two copies. They are told by pid, start time and boot id.
func (s *server) endOrphans(old *saved) {
	var left []orphan
	for _, r := range old.Records {
		for _, run := range r.Runs {
			if run.Pid != 0 && startTime(run.Pid) == run.StartTime {
				left = append(left, orphan{r.Name, run.Pid})
			}
		}
	}
	if len(left) > 0 {
		s.log.Warn("services of a zinit-pid1 that was killed are still there: ending them", "count", len(left))
		endProcesses(left, 5*time.Second, s.log)
	}
}

// saveAll writes a journal afresh, with the news. It has all that waits in the
// batch, and begins with the header.
func (s *server) saveAll(news []msgpack.RawMessage) error {
	s.store.clear()
	s.store.put(recordHeader, header{Format: stateFormat, Boot: bootID(), Keeper: s.keeper.hello.Pid, Started: s.keeper.hello.StartTime})
	for _, n := range s.core.Names() {
		s.store.put(recordSpec, s.core.Spec(n))
	}
	s.store.put(recordErrors, s.problems)
	s.store.putChanges(s.core.All())
	for _, e := range s.history.kept() {
		s.store.put(recordEvent, e)
	}
	for _, e := range news {
		s.store.put(recordEvent, e)
	}
	err := s.store.rewrite()
	switch {
	case err != nil && !s.unsaved:
		s.log.Error("zinit goes on, but a crash of the supervisor would not be survived", "error", err)
	case err == nil && s.unsaved:
		s.log.Info("the state is saved again")
	}
	s.unsaved = err != nil
	s.history.add(news)
	return nil
}

// save writes what the steps have changed.
func (s *server) save() {
	ch, news := s.core.Changes(), s.newEvents()
	if ch.Empty() && len(news) == 0 && s.store.buf.Len() == 0 && s.store.failed == nil {
		return
	}
	if !s.store.outgrown() {
		s.store.putChanges(ch)
		for _, e := range news {
			s.store.put(recordEvent, e)
		}
		if s.store.append() == nil {
			s.history.add(news)
			return
		}
	}
	s.saveAll(news)
}

func (s *server) now() core.Time { return core.Time(monotonic()) }

// wall turns a moment of the core into a time of day.
func (s *server) wall(t core.Time) ipc.Time {
	return ipc.Time(time.Now().Add(time.Duration(t - s.now())))
}

// run is the loop. It returns when zinit ends.
func (s *server) run() error {
	go s.keeper.readLoop(s.inbox)
	go s.notify.waitLoop()
	s.act()
	for {
		if err := s.takeAll(); err != nil {
			return err
		}
		s.step(core.Tick{})
		s.save()
		s.act()
	}
}

// takeAll waits for a message and handles all that are there, or as many as
// are fair.
func (s *server) takeAll() error {
	if events := s.events; len(events) > 0 {
		s.events = nil
		for _, ev := range events {
			s.step(ev)
		}
	} else {
		s.setTimer()
		select {
		case m := <-s.inbox:
			if err := s.handle(m); err != nil {
				return err
			}
		case <-s.ended.more:
			s.dropEnded()
		case <-s.timer.C:
			s.listenToAll()
		}
	}
	for range 256 {
		select {
		case m := <-s.inbox:
			if err := s.handle(m); err != nil {
				return err
			}
		case <-s.ended.more:
			s.dropEnded()
		default:
			return nil
		}
	}
	return nil
}

// errHalted ends the loop after the last order to pid1.
var errHalted = errors.New("halted")

// setTimer arms the one timer for the earliest deadline.
func (s *server) setTimer() {
	at, ok := s.core.NextWake()
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
	case ipc.Frame:
		if err := s.onFrame(m); err != nil {
			s.log.Error("bad message from pid1", "error", err)
		}
	case keeperGone:
		return fmt.Errorf("zinit-pid1 is gone: the services go on without a keeper, the next start ends them: %w", m.err)
	case prepared:
		s.onPrepared(m)
	case readable:
		if sock := s.notify.sockets[m.run]; sock != nil {
			s.listenTo(sock)
		}
	case osSignal:
		s.onSignal(m.sig)
	case helperCame, helperSaid, helperGone:
		s.onHelper(m)
	case func():
		m()
	case haltNow:
		os.Remove(s.paths.Socket) // or clients would take it for a place to ask
		// Until pid1 has the order, the state has to say that all is over: a
		// supervisor without one would start everything again.
		s.keeper.send(ipc.KindHalt, ipc.Halt{Action: ipc.HaltAction(m.Action), Code: m.Code})
		s.keeper.conn.Flush()
		s.store.remove()
		return errHalted
	}
	return nil
}

func (s *server) onFrame(f ipc.Frame) error {
	defer func() { f.CloseFds() }()
	switch f.Kind {
	case ipc.KindSpawned:
		var m ipc.Spawned
		if err := f.Decode(&m); err != nil {
			return err
		}
		s.onSpawned(m, &f)
	case ipc.KindSpawnFailed:
		var m ipc.SpawnFailed
		if err := f.Decode(&m); err != nil {
			return err
		}
		if isHelper(m.Run) {
			s.forgetHelper(m.Run)
			s.helperDied(m.Run, m.Message)
			return nil
		}
		s.dropRunFds(core.RunID(m.Run))
		s.step(core.SpawnFailed{Run: core.RunID(m.Run), Message: s.conceal(m), Code: spawnExitCode(m)})
	case ipc.KindExited:
		var m ipc.Exited
		if err := f.Decode(&m); err != nil {
			return err
		}
		if isHelper(m.Run) {
			s.helperEnded(m)
			return nil
		}
		s.acks = append(s.acks, m.Seq)
		if sock := s.notify.sockets[core.RunID(m.Run)]; sock != nil {
			s.listenTo(sock)
		}
		s.step(core.Exited{Run: core.RunID(m.Run), End: s.endOf(m), Left: m.Left})
		s.dropRunFds(core.RunID(m.Run))
	case ipc.KindEmptied:
		var m ipc.Emptied
		if err := f.Decode(&m); err != nil {
			return err
		}
		s.acks = append(s.acks, m.Seq)
		if isHelper(m.Run) {
			s.forgetHelper(m.Run)
			return nil
		}
		s.step(core.Emptied{Run: core.RunID(m.Run)})
		s.moved = true // a stop of what had ended waits for no other news
	case ipc.KindRequested:
		var m ipc.Requested
		if err := f.Decode(&m); err != nil {
			return err
		}
		s.acks = append(s.acks, m.Seq)
		s.onSignal(unix.Signal(m.Signal))
	}
	return nil
}

// onSpawned takes over the pipes that came with the news.
func (s *server) onSpawned(m ipc.Spawned, f *ipc.Frame) {
	run := core.RunID(m.Run)
	for i, name := range m.Pipes {
		if i < len(f.Fds) {
			s.addPipe(name, f.Fds[i])
		}
	}
	f.Fds = nil
	s.step(core.Spawned{Run: run, Pid: m.Pid, StartTime: m.StartTime})
	if sock := s.notify.sockets[run]; sock != nil {
		s.listenTo(sock)
	}
}

// addPipe takes over the read end of a pipe that pid1 made for a run.
func (s *server) addPipe(name string, fd int) {
	part := strings.Split(name, "/")
	var id uint64
	var err error
	if len(part) > 1 {
		id, err = strconv.ParseUint(part[1], 10, 64)
	}
	run := core.RunID(id)
	switch {
	case err == nil && len(part) == 2 && part[0] == "ready":
		s.notify.add(run, fd, false)
		return
	case err != nil || len(part) != 4 || part[0] != "log":
		s.log.Error("pid1 has a descriptor that nobody knows", "name", name)
		unix.Close(fd)
		return
	}
	stream, service := part[2], part[3]
	which := logs.Stdout
	if stream == logs.Stderr.String() {
		which = logs.Stderr
	}
	if s.pipes[logEnd{run, which}] != "" { // pid1 has told of it as a stored one before its run was spawned
		unix.Close(fd)
		return
	}
	if err := s.logs.Add(service, uint64(run), which, fd); err != nil {
		s.log.Error("cannot capture the output of a service", "service", service, "error", err)
		unix.Close(fd)
		return
	}
	s.pipes[logEnd{run, which}] = name
}

// logEnd says that a log pipe has no writer any more and all of it is stored.
type logEnd struct {
	run    core.RunID
	stream logs.Stream
}

// logEnds collects log pipes that have ended, however many. The capture's
// goroutine adds them and must not wait for the loop, which waits for it.
type logEnds struct {
	mu   sync.Mutex
	list []logEnd
	more chan struct{} // has a token while there may be some
}

func (e *logEnds) add(run uint64, stream logs.Stream) {
	e.mu.Lock()
	e.list = append(e.list, logEnd{core.RunID(run), stream})
	e.mu.Unlock()
	select {
	case e.more <- struct{}{}:
	default:
	}
}

func (e *logEnds) take() []logEnd {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := e.list
	e.list = nil
	return list
}

// dropEnded lets pid1 close the pipes that have ended.
func (s *server) dropEnded() {
	for _, end := range s.ended.take() {
		s.keeper.send(ipc.KindDrop, ipc.Drop{Name: s.pipes[end]})
		delete(s.pipes, end)
	}
}

// dropRunFds closes the readiness channels of a run that has ended.
func (s *server) dropRunFds(run core.RunID) {
	if name, ok := s.notify.remove(run); ok {
		s.keeper.send(ipc.KindDrop, ipc.Drop{Name: name})
	}
}

// onSignal is a signal to zinit, by way of pid1 or to the supervisor itself.
func (s *server) onSignal(sig unix.Signal) {
	main := len(s.keeper.hello.Main) > 0
	switch {
	case sig == unix.SIGTERM || sig == unix.SIGINT || sig == unix.SIGPWR:
		s.log.Info("shutting down", "signal", unix.SignalName(sig))
		s.step(core.Stop{Action: string(ipc.HaltExit), Within: core.Time(s.opts.shutdownTimeout), Hurry: true})
	case main:
		s.step(core.Kill{Name: mainService, Signal: int(sig)})
	case int(sig) >= 34+3 && int(sig) <= 34+5: // SIGRTMIN+3 to +5: halt, poweroff, reboot
		s.step(core.Stop{Action: string(ipc.HaltExit), Within: core.Time(s.opts.shutdownTimeout)})
	case sig == unix.SIGHUP:
		s.logs.Reopen()
		go s.hangup()
	case sig == unix.SIGUSR1:
		s.log.Info("replaced by request: services are not touched")
		s.after = append(s.after, func() { // acknowledged, or pid1 would request it for ever
			s.keeper.conn.Flush()
			os.Exit(0) // pid1 starts it again
		})
	}
}

// act performs what the steps asked for, after it was saved: each of these
// queues a message or an event and returns.
func (s *server) act() {
	for _, seq := range s.acks {
		s.keeper.send(ipc.KindAck, ipc.Ack{Seq: seq})
	}
	s.acks = s.acks[:0]
	if s.resultAck > 0 {
		s.health.send(ipc.KindResultAck, ipc.Ack{Seq: s.resultAck})
		s.resultAck = 0
	}
	actions := s.pending
	s.pending, s.told = nil, 0
	for _, a := range actions {
		s.perform(a)
	}
	s.needHelpers()
	if s.halting != nil && len(s.helperRuns) == 0 {
		s.halt(*s.halting)
		s.halting = nil
	}
	after := s.after
	s.after = nil
	for _, f := range after {
		f()
	}
	if s.moved {
		s.moved = false
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
