package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
)

const (
	// keeperFd is the supervisor's end of the link, and keeperEnv the variable
	// that says so.
	keeperFd  = 3
	keeperEnv = "ZINIT_KEEPER"
	// goodLife is the life of a supervisor after which its death is an
	// accident and not the next of a row.
	goodLife = 10 * time.Second
	// restartMin and restartMax bound the pause before a restart; the first of
	// a row has none.
	restartMin = 10 * time.Millisecond
	restartMax = 5 * time.Second
	// manyDeaths are so many in a row that a repair seems to be needed.
	manyDeaths = 5
	// linkGrace is the time between the end of the supervisor and that of its
	// link, in either order.
	linkGrace = time.Second
	// serverName is the program of the supervisor where no path is given.
	serverName = "zinit-server"
)

// supervisor is the one process that decides. A new one starts when the one
// before is reaped and all that it said is read, which its link's end shows.
type supervisor struct {
	Argv []string
	conn *ipc.Conn // nil between two lives
	// Pid is 0 before it is forked and after it is reaped.
	Pid int
	// Greeted says that its hello was good, told that it knows the whole
	// table. Until then what happens waits in later.
	Greeted, told bool
	// condemned says that it is being killed, and is not listened to any more.
	condemned bool
	later     []func()
	fds       []string // stored names it has not been told of
	// Base is what the environments that it orders have in common.
	Base ipc.Words

	Started   time.Duration
	Ended     time.Duration
	AwaySince time.Duration // the end of the last one that greeted
	RestartAt time.Duration // the next start, 0 if none is due
	graceEnds time.Duration // of linkGrace
	Ever      bool          // one has been executed
	Row       int           // deaths in a row
	Restarts  int
	LastEnd   string
	// Leaves is why it is about to exit, if it said so, and Hung why it is
	// being killed.
	Leaves, Hung string
}

// startSupervisor makes a link and starts a supervisor at its other end.
func (k *keeper) startSupervisor() {
	s := &k.sup
	s.RestartAt = 0
	conn, fd, err := ipc.Pair()
	if err != nil {
		k.supervisorFailed(err.Error())
		return
	}
	s.conn, s.Greeted, s.told, s.condemned = conn, false, false, false
	s.Leaves, s.Hung = "", ""
	argv := slices.Clone(s.Argv)
	if argv[0] == serverName {
		argv[0] = findServer()
	}
	j := &job{
		kind:  supervisorJob,
		Spawn: ipc.Spawn{Tag: "the supervisor", Argv: argv, Env: supervisorEnv()},
		Files: []int{k.null, 1, 2},
	}
	j.give(keeperFd, fd)
	k.launch(j)
}

// joinSupervisor greets a supervisor that was started before pid1 was there, and
// waits for it.
func (k *keeper) joinSupervisor(pid, link int) error {
	conn, err := ipc.NewConn(link)
	if err != nil {
		return err // and the supervisor ends with its link
	}
	s := &k.sup
	s.conn, s.Pid, s.Started, s.Ever = conn, pid, monotonic(), true
	k.children.know(pid)
	k.introduce()
	return nil
}

// supervisorEnv is pid1's environment and the number of the link's descriptor.
func supervisorEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, keeperEnv+"=") })
	return append(env, fmt.Sprintf("%s=%d", keeperEnv, keeperFd))
}

// supervisorLaunched takes the outcome of its start.
func (k *keeper) supervisorLaunched(o outcome, first bool) {
	s := &k.sup
	if o.fail != nil {
		s.conn.Close()
		s.conn, s.Pid, s.graceEnds = nil, 0, 0
		if o.fail.Stage == ipc.StageExec && !s.Ever && len(k.table.runs) == 0 && k.opt.mode != ipc.ModeVM {
			k.log.error("the supervisor cannot be started: "+o.fail.Message, "try", "install zinit-server beside zinit-pid1, or in PATH")
			k.end.code = 126
			if o.fail.Errno == int(unix.ENOENT) {
				k.end.code = 127
			}
			k.exit()
		}
		k.supervisorFailed(o.fail.Message)
		return
	}
	if first {
		s.Pid, s.Started = o.pid, monotonic()
		if end, ok := k.table.takeEarly(o.pid, o.since); ok {
			defer k.supervisorEnded(end)
		}
	}
	if !o.done {
		return
	}
	s.Ever = true
	go k.readLink(s.conn)
	k.introduce()
}

// supervisorFailed notes a start that came to nothing.
func (k *keeper) supervisorFailed(why string) {
	k.sup.Started, k.sup.Ended = monotonic(), monotonic()
	k.sup.LastEnd = why
	k.restartLater()
}

// restartLater sets the time of the next start: at once, then after 10 ms,
// doubling to 5 s while it keeps dying young.
func (k *keeper) restartLater() {
	s := &k.sup
	if s.Ended-s.Started >= goodLife {
		s.Row = 0
	}
	if s.Greeted || s.AwaySince == 0 {
		s.AwaySince = s.Ended
	}
	s.Greeted = false
	pause := time.Duration(0)
	if s.Row > 0 {
		pause = min(restartMin<<min(s.Row-1, 16), restartMax)
	}
	s.Restarts++
	if s.Row > manyDeaths {
		k.emergency(ipc.Shell{Reason: "zinit-server cannot run: " + s.LastEnd})
	}
	if k.shell.Open {
		pause = shellPause
	}
	s.RestartAt = monotonic() + pause
	if s.Leaves != "" {
		k.log.info("the supervisor is replaced", "why", s.Leaves)
		return
	}
	s.Row++
	if k.end.begun {
		return
	}
	args := []any{"end", s.LastEnd, "in", pause, "in_a_row", s.Row}
	if s.Row >= manyDeaths && !k.shell.Open {
		args = append(args, "try", fmt.Sprintf("see what it says above, and repair %s: services go on, and it is started again at least every %s", s.Argv[0], restartMax))
	}
	k.log.error("the supervisor has ended: starting it again", args...)
}

// readLink hands on what a supervisor says, until its end.
func (k *keeper) readLink(conn *ipc.Conn) {
	for {
		frames, err := conn.ReadAll()
		k.inbound <- inbound{conn: conn, frames: frames, err: err}
		if err != nil {
			return
		}
	}
}

// introduce tells a new supervisor the whole truth.
func (k *keeper) introduce() {
	s := &k.sup
	hello := ipc.KeeperHello{
		Hello: ipc.Hello{Protocol: ipc.Protocol, Role: ipc.RoleKeeper, Version: version.Version},
		Mode:  k.opt.mode, Pid: k.pid, StartTime: k.start, Main: k.opt.main,
		Restarts: s.Restarts, LastEnd: s.LastEnd, Bases: true,
	}
	if s.Restarts > 0 {
		hello.Down = int64(monotonic() - s.AwaySince)
	}
	k.post(ipc.KindHello, hello)
	for _, r := range k.table.runs {
		k.post(ipc.KindRun, r.describe())
	}
	s.fds = k.store.names()
	k.tellFds()
}

// tellFds tells of some stored descriptors, and goes on when they have been
// taken; after the last it tells what happened meanwhile.
func (k *keeper) tellFds() {
	s := &k.sup
	for n := 0; len(s.fds) > 0; n++ {
		if n == fdsAtOnce {
			conn := s.conn
			go func() {
				if conn.Flush() == nil {
					k.inbound <- inbound{conn: conn, flushed: true}
				}
			}()
			return
		}
		name := s.fds[0]
		s.fds = s.fds[1:]
		if fd, ok := k.store[name]; ok {
			k.post(ipc.KindFd, ipc.Fd{Name: name}, fd)
		}
	}
	k.post(ipc.KindReady, ipc.Ready{})
	s.told = true
	now := monotonic()
	for seq := range k.table.unacked {
		k.table.told(seq, now)
	}
	for _, r := range k.table.runs {
		if _, ok := k.table.unacked[r.EmptiedSeq]; ok {
			k.post(ipc.KindEmptied, ipc.Emptied{Seq: r.EmptiedSeq, Run: r.ID})
		}
	}
	for _, sig := range k.table.requested() {
		k.post(ipc.KindRequested, ipc.Requested{Seq: k.table.requests[sig].Seq, Signal: sig})
	}
	later := s.later
	s.later = nil
	for _, say := range later {
		say()
	}
}

// tell sends a message, once the supervisor knows the table; without a
// supervisor the next will learn it from there. seq is the message's number if
// it has to be acknowledged.
func (k *keeper) tell(seq uint64, kind ipc.Kind, body any, fds ...int) {
	k.whenTold(func() {
		k.table.told(seq, monotonic())
		k.post(kind, body, fds...)
	})
}

func (k *keeper) whenTold(say func()) {
	switch s := &k.sup; {
	case s.told:
		say()
	case s.conn != nil && !k.end.begun:
		s.later = append(s.later, say)
	}
}

func (k *keeper) tellSpawned(r *run) {
	m := r.Spawned
	k.whenTold(func() {
		var fds []int
		m.Pipes, fds = k.store.pick(r.Pipes)
		k.post(ipc.KindSpawned, m, fds...)
	})
}

func (k *keeper) tellExited(r *run) {
	k.tell(r.Exited.Seq, ipc.KindExited, *r.Exited)
}

// post queues a message. A supervisor to which nothing can be sent is of no
// use; one that has just been killed is told of by the end of its link.
func (k *keeper) post(kind ipc.Kind, body any, fds ...int) {
	s := &k.sup
	if s.conn == nil || s.condemned {
		return
	}
	err := s.conn.Send(kind, body, fds...)
	if err != nil && s.Pid > 0 && !errors.Is(err, os.ErrClosed) && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		k.log.error("cannot speak to the supervisor: killing it", "error", err)
		k.killSupervisor()
	}
}

// greet checks the supervisor's hello.
func (k *keeper) greet(f *ipc.Frame) error {
	if f.Kind != ipc.KindHello {
		return fmt.Errorf("its first message is of kind %d, not a hello", f.Kind)
	}
	var h ipc.Hello
	if err := f.Decode(&h); err != nil {
		return err
	}
	if err := h.Check(ipc.RoleSupervisor); err != nil {
		return err
	}
	k.sup.Greeted = true
	return nil
}

// killSupervisor ends a supervisor that hangs or speaks nonsense. What it said
// last is no longer obeyed.
func (k *keeper) killSupervisor() {
	k.sup.condemned = true
	if k.sup.Pid > 0 {
		unix.Kill(-k.sup.Pid, unix.SIGKILL)
	}
	if k.sup.conn != nil {
		k.sup.conn.Close()
	}
}

// linkEnded notes that all is read that a supervisor has said.
func (k *keeper) linkEnded(err error) {
	s := &k.sup
	if err != io.EOF && !s.condemned {
		k.log.warn("the link to the supervisor is broken", "error", err)
	}
	s.conn.Close()
	s.conn, s.told, s.later, s.fds, s.Base = nil, false, nil, nil, nil
	k.supervisorGone()
}

// exitedWell is the end of a supervisor that was not killed and found nothing
// wrong.
const exitedWell = "exit code 0"

// supervisorEnded notes that the supervisor has been reaped, and that with it
// goes whatever it has forked itself.
func (k *keeper) supervisorEnded(end childEnd) {
	s := &k.sup
	unix.Kill(-end.pid, unix.SIGKILL)
	s.Pid, s.Ended = 0, monotonic()
	s.LastEnd = fmt.Sprintf("exit code %d", end.code)
	if end.signal != 0 {
		s.LastEnd = "killed by " + signalName(end.signal)
	}
	if s.Hung != "" {
		s.LastEnd = s.Hung + ", " + s.LastEnd
	}
	k.supervisorGone()
}

func signalName(n int) string {
	if name := unix.SignalName(unix.Signal(n)); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", n)
}

// supervisorGone plans the next start when both the process and its link have
// ended, and gives the other a moment when only one has.
func (k *keeper) supervisorGone() {
	s := &k.sup
	if s.Pid > 0 || s.conn != nil {
		s.graceEnds = monotonic() + linkGrace
		return
	}
	s.graceEnds = 0
	// It may have been reaped before its last words were read.
	if s.LastEnd != exitedWell {
		s.Leaves = ""
	} else if s.Leaves != "" {
		s.LastEnd = s.Leaves
	}
	k.restartLater()
}

// dueSupervisor does what its time has come for in the supervisor's life.
func (k *keeper) dueSupervisor(now time.Duration, at func(time.Duration) bool) {
	s := &k.sup
	for at(s.RestartAt) { // a start may fail at once, and set the next
		k.startSupervisor()
	}
	if at(s.graceEnds) {
		s.graceEnds = 0
		k.killSupervisor()
	}
	if s.Pid == 0 || s.conn == nil || s.condemned {
		k.ackCheckAt = 0
		return
	}
	if !s.Greeted && at(s.Started+helloTimeout) {
		k.log.error("the supervisor says nothing: killing it", "after", now-s.Started)
		s.Hung = "hung at its start"
		k.killSupervisor()
		return
	}
	// The messages are looked through only when the oldest that there was at
	// the last look would be too old.
	switch {
	case !s.told || len(k.table.unacked) == 0:
		k.ackCheckAt = 0
	case k.ackCheckAt == 0:
		k.ackCheckAt = now + ackTimeout
	}
	if at(k.ackCheckAt) {
		oldest, _ := k.table.oldest()
		if k.ackCheckAt = oldest + ackTimeout; at(k.ackCheckAt) {
			k.log.error("the supervisor hangs: killing it", "unacknowledged", now-oldest)
			s.Hung = "hung for " + (now - oldest).Round(time.Second).String()
			k.killSupervisor()
		}
	}
}

// findServer returns the path of zinit-server: beside the running program,
// else what PATH has. It asks /proc and not the package os, which asks as the
// program starts: an init has no /proc by then.
func findServer() string {
	beside := filepath.Join(filepath.Dir(runningFile()), serverName)
	if unix.Access(beside, unix.X_OK) == nil {
		return beside
	}
	return serverName
}
