package main

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

func TestHelloTellsModePidAndVersion(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	h := s.hello
	st, err := readStat(w.pid)
	if err != nil {
		t.Fatal(err)
	}
	if h.Role != ipc.RoleKeeper || h.Protocol != ipc.Protocol || h.Mode != ipc.ModeStandalone || h.Pid != w.pid || h.StartTime != st.start || h.Restarts != 0 {
		t.Errorf("hello is %+v, want pid %d, start %d, standalone", h, w.pid, st.start)
	}
	if len(s.runs) != 0 || len(s.fds) != 0 {
		t.Errorf("a new pid1 knows %d runs and %d descriptors", len(s.runs), len(s.fds))
	}
}

func TestExitCodesAndSignals(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	for i, c := range []struct {
		script       string
		code, signal int
	}{
		{"exit 0", 0, 0},
		{"exit 7", 7, 0},
		{"exit 255", 255, 0},
		{"kill -TERM $$", 0, int(unix.SIGTERM)},
		{"kill -KILL $$", 0, int(unix.SIGKILL)},
		{"ulimit -c 0; kill -SEGV $$", 0, int(unix.SIGSEGV)},
	} {
		id := ipc.RunID(i + 1)
		s.spawn(shell(id, c.script))
		sp, _ := s.spawned(id)
		ex := s.exited(id)
		if sp.Pid <= 0 || sp.At == 0 {
			t.Errorf("%s: spawned says %+v", c.script, sp)
		}
		if ex.Code != c.code || ex.Signal != c.signal || ex.Core || ex.Left || ex.At < sp.At {
			t.Errorf("%s: ended with %+v, want code %d, signal %d", c.script, ex, c.code, c.signal)
		}
	}
}

func TestCPUAndMemoryOfAnExitAreReported(t *testing.T) {
	s := start(t, setup{}).supervisor()
	s.spawn(shell(1, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"))
	if ex := s.exited(1); ex.CPU <= 0 || ex.MaxRSS < 100<<10 {
		t.Errorf("exit says %d ns and %d bytes", ex.CPU, ex.MaxRSS)
	}
}

func TestSpawnIsAnsweredOnce(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	gate := w.gate()
	sp := output(shell(1, "echo once; read x <"+gate.Name()+"; exit 3"))
	s.spawn(sp)
	first, fds := s.spawned(1)
	s.spawn(sp)
	again, fds2 := s.spawned(1)
	if first.Pid != again.Pid || first.At != again.At || len(fds) != 1 || len(fds2) != 1 {
		t.Fatalf("spawned twice: %+v with %d pipes, then %+v with %d", first, len(fds), again, len(fds2))
	}
	gate.open(1)
	ex := s.exited(1)
	s.spawn(sp)
	if again, _ := s.spawned(1); again.Pid != first.Pid || again.StartTime != first.StartTime {
		t.Errorf("after its end the run is %+v, was %+v", again, first)
	}
	if again := s.exited(1); again != ex || ex.Code != 3 {
		t.Errorf("its end is %+v, was %+v", again, ex)
	}
	s.send(ipc.KindDrop, ipc.Drop{Name: "log/1/stdout/run1"})
	if text := readAll(t, fds[0]); text != "once\n" {
		t.Errorf("the command ran with output %q, want it once", text)
	}
	s.send(ipc.KindForget, ipc.Forget{Run: 1})
	s.spawn(shell(1, "exit 9"))
	if ex := s.exited(1); ex.Code != 9 {
		t.Errorf("a forgotten run id is not free: %+v", ex)
	}
}

func TestRunningRunIsNotForgotten(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	s.spawn(shell(1, "exec sleep 1000"))
	s.spawned(1)
	s.send(ipc.KindForget, ipc.Forget{Run: 1})
	s.sync()
	s.kill()
	if s = w.supervisor(); s.runs[1].State != ipc.RunRunning {
		t.Errorf("run 1 is %+v", s.runs[1])
	}
}

func TestAShortLifeIsSpawnedBeforeItIsExited(t *testing.T) {
	s := start(t, setup{}).supervisor()
	const n = 300
	for id := ipc.RunID(1); id <= n; id++ {
		sp := shell(id, "")
		sp.Argv = []string{"/bin/true"}
		if id%10 == 0 {
			sp.Umask = new(uint32) // through the helper
		}
		s.spawn(sp)
	}
	state := map[ipc.RunID]string{}
	for done := 0; done < n; {
		f := s.next()
		switch f.Kind {
		case ipc.KindSpawned:
			var m ipc.Spawned
			s.decode(f, &m)
			state[m.Run] += "spawned "
		case ipc.KindExited:
			var m ipc.Exited
			s.decode(f, &m)
			state[m.Run] += "exited"
			done++
		case ipc.KindSpawnFailed:
			var m ipc.SpawnFailed
			s.decode(f, &m)
			t.Fatalf("%+v", m)
		}
	}
	for id, got := range state {
		if got != "spawned exited" {
			t.Errorf("run %d was told as %q", id, got)
		}
	}
}

func TestOrdersThatMakeNoSenseAreRefused(t *testing.T) {
	s := start(t, setup{}).supervisor()
	base := shell(1, "true")
	for name, change := range map[string]func(*ipc.Spawn){
		"empty command":      func(sp *ipc.Spawn) { sp.Argv = nil },
		"NUL byte":           func(sp *ipc.Spawn) { sp.Argv = []string{"/bin/sh", "a\x00b"} },
		"no run id":          func(sp *ipc.Spawn) { sp.Run = 0 },
		"unknown descriptor": func(sp *ipc.Spawn) { sp.Fds = []ipc.FdUse{{Name: "nobody", Fd: 3}} },
		"number twice":       func(sp *ipc.Spawn) { sp.Pipes = []ipc.Pipe{{Name: "a", Fd: 1}, {Name: "b", Fd: 1}} },
		"name twice":         func(sp *ipc.Spawn) { sp.Pipes = []ipc.Pipe{{Name: "a", Fd: 1}, {Name: "a", Fd: 2}} },
		"negative number":    func(sp *ipc.Spawn) { sp.Pipes = []ipc.Pipe{{Name: "a", Fd: -1}} },
		"huge number":        func(sp *ipc.Spawn) { sp.Pipes = []ipc.Pipe{{Name: "a", Fd: 1 << 30}} },
	} {
		sp := base
		change(&sp)
		s.spawn(sp)
		if m := s.failed(sp.Run); !strings.HasPrefix(m.Message, "cannot start run1: ") {
			t.Errorf("%s: %+v", name, m)
		}
	}
	s.spawn(base)
	if ex := s.exited(1); ex.Code != 0 {
		t.Errorf("after that run 1 ended with %+v", ex)
	}
}

func TestUnknownMessagesDoNoHarm(t *testing.T) {
	s := start(t, setup{}).supervisor()
	s.send(99, ipc.Ready{}, 0)
	s.send(ipc.KindStore, ipc.Store{Name: "no descriptor"})
	s.send(ipc.KindStore, ipc.Store{}, 0)
	s.send(ipc.KindDrop, ipc.Drop{Name: "unknown"})
	s.send(ipc.KindForget, ipc.Forget{Run: 77})
	s.send(ipc.KindAck, ipc.Ack{Seq: 77})
	s.send(ipc.KindMain, ipc.Main{Run: 77, Pid: 1})
	s.send(ipc.KindSignal, ipc.Signal{Run: 77, Sig: 9, Scope: ipc.ScopeAll})
	s.spawn(shell(1, "exec sleep 1000"))
	s.spawned(1)
	for _, sig := range []int{-9, 0, 65, 1 << 30} {
		s.send(ipc.KindSignal, ipc.Signal{Run: 1, Sig: sig, Scope: ipc.ScopeAll})
	}
	s.send(ipc.KindSignal, ipc.Signal{Run: 1, Sig: 9, Scope: "everything"})
	s.send(ipc.KindMain, ipc.Main{Run: 1, Pid: -1})
	s.send(ipc.KindMain, ipc.Main{Run: 1, Pid: s.pid})
	s.sync()
	s.send(ipc.KindSignal, ipc.Signal{Run: 1, Sig: int(unix.SIGTERM), Scope: ipc.ScopeLeader})
	if ex := s.exited(1); ex.Signal != int(unix.SIGTERM) {
		t.Errorf("run 1 ended with %+v", ex)
	}
}

func TestStoreOutlivesTheSupervisor(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	p, err := makePipe()
	if err != nil {
		t.Fatal(err)
	}
	unix.SetNonblock(p[0], true)
	s.send(ipc.KindStore, ipc.Store{Name: "mine"}, p[0])
	s.send(ipc.KindStore, ipc.Store{Name: "dropped"}, p[0])
	s.send(ipc.KindDrop, ipc.Drop{Name: "dropped"})
	s.spawn(output(shell(1, "echo first; read x; echo second; exec sleep 1000")))
	s.spawned(1)
	s.sync()
	if err := s.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	unix.Close(p[0])
	s.kill()

	s = w.supervisor()
	names := []string{}
	for n := range s.fds {
		names = append(names, n)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"log/1/stdout/run1", "mine"}) {
		t.Fatalf("the store has %q", names)
	}
	if s.hello.Restarts != 1 || s.hello.LastEnd != "killed by SIGKILL" || s.hello.Down <= 0 {
		t.Errorf("hello says %+v", s.hello)
	}
	if s.runs[1].State != ipc.RunRunning || s.runs[1].Spawned == nil {
		t.Errorf("run 1 is %+v", s.runs[1])
	}
	if got := readLine(t, s.fds["log/1/stdout/run1"]); got != "first" {
		t.Errorf("the pipe kept %q", got)
	}
	unix.Write(p[1], []byte("hello\n"))
	if got := readLine(t, s.fds["mine"]); got != "hello" {
		t.Errorf("the stored pipe gave %q", got)
	}
	unix.Close(p[1])
}

func TestThousandsOfStoredDescriptorsAreTold(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	const n = 3 * fdsAtOnce
	for i := range n {
		s.send(ipc.KindStore, ipc.Store{Name: strings.Repeat("x", i%200+1) + string(rune('a'+i/200))}, 0)
	}
	s.sync()
	s.kill()
	if s = w.supervisor(); len(s.fds) != n {
		t.Errorf("%d of %d descriptors came", len(s.fds), n)
	}
}
