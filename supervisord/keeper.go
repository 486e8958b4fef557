package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/failpoint"
	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// keeperEnv names the descriptor of the link to pid1. It is not passed on to
// services.
const keeperEnv = "ZINIT_KEEPER"

// keeper is the link to pid1 and what pid1 told when it opened it.
type keeper struct {
	conn  *ipc.Conn
	hello ipc.KeeperHello
	runs  []ipc.Run
	// fds are duplicates of the stored descriptors that nobody has taken yet.
	fds map[string]int
	// base is what environments have in common; based says that pid1 was told.
	base  ipc.Words
	based bool
}

// connectKeeper opens the link on an inherited descriptor and reads the whole
// truth: runs and descriptors.
func connectKeeper(value string) (*keeper, error) {
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("cannot use %s=%s: it is not a descriptor", keeperEnv, value)
	}
	conn, err := ipc.NewConn(fd)
	if err != nil {
		return nil, err
	}
	if err := conn.Send(ipc.KindHello, ipc.Hello{Protocol: ipc.Protocol, Role: ipc.RoleSupervisor, Version: version.Version}); err != nil {
		return nil, err
	}
	k := &keeper{conn: conn, fds: map[string]int{}}
	for {
		f, err := conn.Read()
		if err != nil {
			return nil, fmt.Errorf("cannot learn from pid1 what runs: %w", err)
		}
		switch f.Kind {
		case ipc.KindHello:
			if err := f.Decode(&k.hello); err != nil {
				return nil, err
			}
			if err := k.hello.Check(ipc.RoleKeeper); err != nil {
				return nil, err
			}
		case ipc.KindRun:
			var r ipc.Run
			if err := f.Decode(&r); err != nil {
				return nil, err
			}
			k.runs = append(k.runs, r)
		case ipc.KindFd:
			var m ipc.Fd
			if err := f.Decode(&m); err != nil {
				return nil, err
			}
			if len(f.Fds) == 1 {
				k.fds[m.Name] = f.Fds[0]
				f.Fds = nil
			}
		case ipc.KindReady:
			return k, nil
		}
		f.CloseFds()
	}
}

// take returns a stored descriptor, which then belongs to the caller.
func (k *keeper) take(name string) (int, bool) {
	fd, ok := k.fds[name]
	delete(k.fds, name)
	return fd, ok
}

// takeLogs returns the stored log pipes, which then belong to the caller: those of
// earlier runs first, so that what is in them is stored before what came later.
func (k *keeper) takeLogs(each func(name string, fd int)) {
	byRun := func(a, b string) int { return cmp.Or(cmp.Compare(runOf(a), runOf(b)), cmp.Compare(a, b)) }
	for _, name := range slices.SortedFunc(maps.Keys(k.fds), byRun) {
		if strings.HasPrefix(name, "log/") {
			fd, _ := k.take(name)
			each(name, fd)
		}
	}
}

// runOf is the run in the name of a stored pipe, 0 where there is none.
func runOf(name string) uint64 {
	part := strings.Split(name, "/")
	if len(part) < 2 {
		return 0
	}
	run, _ := strconv.ParseUint(part[1], 10, 64)
	return run
}

func (k *keeper) send(kind ipc.Kind, body any, fds ...int) error {
	return k.conn.Send(kind, body, fds...)
}

// tellBase says what the environments of orders have in common, once: it would be
// most of what is sent at a boot. A pid1 of a release that does not know of it gets
// it with each order.
func (k *keeper) tellBase(base ipc.Words) {
	k.base = base
	k.based = k.hello.Bases && k.send(ipc.KindBase, ipc.Base{Env: base}) == nil
}

// spawn orders a process whose environment comes over the base.
func (k *keeper) spawn(order ipc.Spawn) error {
	if order.Based && !k.based {
		order.Env, order.Based = order.Env.Over(k.base), false
	}
	return k.send(ipc.KindSpawn, order)
}

// store has pid1 keep a descriptor over our death.
func (k *keeper) store(name string, fd int) error {
	return k.send(ipc.KindStore, ipc.Store{Name: name}, fd)
}

// drop has pid1 close a descriptor that it keeps.
func (k *keeper) drop(name string) { k.send(ipc.KindDrop, ipc.Drop{Name: name}) }

// readLoop hands the frames of pid1 to the loop. Without pid1 there is nothing
// left to supervise: the next start cleans up.
func (k *keeper) readLoop(inbox chan<- any) {
	for {
		frames, err := k.conn.ReadAll()
		if len(frames) > 0 {
			inbox <- frames
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				err = fmt.Errorf("cannot read from pid1: %w", err)
			}
			inbox <- keeperGone{err}
			return
		}
	}
}

func (s *server) onFrame(f ipc.Frame) error {
	defer func() { f.CloseFds() }()
	switch f.Kind {
	case ipc.KindSpawned:
		var m ipc.Spawned
		if err := f.Decode(&m); err != nil {
			return err
		}
		failpoint.Hit("spawned")
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
		s.acks = append(s.acks, ack{m.Seq, core.RunID(m.Run)})
		if sock := s.notify.sockets[core.RunID(m.Run)]; sock != nil {
			s.listenTo(sock)
		}
		s.step(core.Exited{Run: core.RunID(m.Run), End: s.endOf(m), Left: m.Left})
		if m.Removed {
			s.cgroups.removed(core.RunID(m.Run))
		}
		s.pipesOver(core.RunID(m.Run))
		s.dropRunFds(core.RunID(m.Run))
	case ipc.KindEmptied:
		var m ipc.Emptied
		if err := f.Decode(&m); err != nil {
			return err
		}
		s.acks = append(s.acks, ack{m.Seq, core.RunID(m.Run)})
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
		s.onSignal(m.Seq, unix.Signal(m.Signal))
		failpoint.Hit("requested")
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

// keeperGone says that pid1 has closed the link.
type keeperGone struct{ err error }
