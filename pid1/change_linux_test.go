package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// change replaces pid1 by the program on disk, and waits until that is done.
func (w *world) change() {
	w.t.Helper()
	n := w.said("pid1 has been replaced")
	unix.Kill(w.pid, unix.SIGUSR2)
	w.saying("pid1 has been replaced", n+1)
}

// saying waits until pid1 has said something so often.
func (w *world) saying(text string, n int) {
	w.t.Helper()
	waitUntil(w.t, fmt.Sprintf("pid1 says %q %d times", text, n), func() bool { return w.said(text) >= n })
}

func (w *world) said(text string) int { return strings.Count(w.stderr.String(), text) }

func TestReplacedPid1KeepsWhatItKnows(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	gate := w.gate()
	s.send(ipc.KindStore, ipc.Store{Name: "mine"}, 0)
	s.spawn(output(shell(1, "echo one; read x <"+gate.Name()+"; echo two; exit 7")))
	before, fds := s.spawned(1)
	readLine(t, fds[0])
	s.send(ipc.KindSignal, ipc.Signal{Run: 1, Sig: int(unix.SIGCONT), Scope: ipc.ScopeGroup})
	s.spawn(shell(2, "exit 5"))
	untold, _ := await(s, ipc.KindExited, func(m ipc.Exited) bool { return m.Run == 2 })
	s.spawn(output(shell(3, "(trap '' TERM; echo; read x <"+gate.Name()+") & exit 3")))
	_, left := s.spawned(3)
	readLine(t, left[0])
	if ex := s.exited(3); !ex.Left {
		t.Fatalf("run 3 ended with %+v", ex)
	}
	unix.Kill(w.pid, unix.SIGHUP)
	hangup := s.requested(unix.SIGHUP)

	w.change()
	w.change()
	gate.open(2)
	if ex := s.exited(1); ex.Code != 7 || ex.Left {
		t.Errorf("run 1 ended with %+v", ex)
	}
	if got := readLine(t, fds[0]); got != "two" {
		t.Errorf("its pipe gave %q", got)
	}
	s.emptied(3)
	s.kill()
	s = w.supervisor()
	if s.hello.Pid != w.pid || s.hello.Mode != ipc.ModeStandalone || s.hello.Restarts != 1 || s.hello.LastEnd != "killed by SIGKILL" {
		t.Errorf("hello is %+v", s.hello)
	}
	if r := s.runs[1]; r.Signals != 1 || r.Tag != "run1" || r.Spawned == nil || r.Spawned.Pid != before.Pid || r.Spawned.At != before.At {
		t.Errorf("run 1 is told as %+v", r)
	}
	if r := s.runs[2]; r.Exited == nil || *r.Exited != untold {
		t.Errorf("run 2 is told as %+v", r)
	}
	if _, ok := s.fds["mine"]; !ok || len(s.fds) != 3 {
		t.Errorf("the store has %v", s.fds)
	}
	if m := s.requested(unix.SIGHUP); m.Seq != hangup.Seq {
		t.Errorf("the request is told again as %d, was %d", m.Seq, hangup.Seq)
	}
}

func TestReplacedPid1KeepsItsTimers(t *testing.T) {
	w := start(t, setup{env: []string{envAck + "=2s"}})
	// The pauses between starts of a supervisor that dies go on where they were.
	for i := range 9 {
		s := w.supervisor()
		if s.hello.Restarts != i {
			t.Fatalf("restart %d calls itself %d", i, s.hello.Restarts)
		}
		if pause := restartMin << max(0, i-2); i > 1 && time.Duration(s.hello.Down) < pause {
			t.Errorf("pause %d was %v, want at least %v", i, time.Duration(s.hello.Down), pause)
		}
		s.exit(0)
		if i > 4 {
			w.change()
		}
	}
	// A message that is not acknowledged still ends the supervisor.
	s := w.supervisor()
	s.spawn(shell(1, "exit 3"))
	await(s, ipc.KindExited, func(ipc.Exited) bool { return true })
	w.change()
	s.closed()
	s.drop()
	if s = w.supervisor(); !strings.HasSuffix(s.hello.LastEnd, "killed by SIGKILL") {
		t.Errorf("the hanging supervisor ended with %q", s.hello.LastEnd)
	}
}

func TestReplacedUnderLoad(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	const changes, atATime = 100, 8
	starts := filepath.Join(w.dir, "starts")
	padding := "PADDING=" + strings.Repeat("x", 20<<10) // frames that come in pieces

	var done atomic.Bool
	crash := make(chan struct{})
	go func() {
		defer done.Store(true)
		for i := range changes {
			if t.Failed() {
				return
			}
			w.change()
			if i%25 == 12 {
				crash <- struct{}{}
			}
		}
	}()

	next := ipc.RunID(1)
	spawned, open := map[ipc.RunID]int{}, map[ipc.RunID]bool{}
	order := func(id ipc.RunID) {
		sp := output(shell(id, fmt.Sprintf("echo %d >>%s; exit %d", id, starts, id%200)))
		sp.Env = append(sp.Env, padding)
		if id%5 == 0 {
			sp.Umask = new(uint32) // through the helper
		}
		s.spawn(sp)
	}
	ends := map[ipc.RunID]uint64{}
	ended := func(m ipc.Exited) {
		again := ends[m.Run] == m.Seq // as a new supervisor may hear it
		ends[m.Run] = m.Seq
		if !again && !open[m.Run] || m.Code != int(m.Run%200) || m.Signal != 0 {
			t.Errorf("run %d ended with %+v, open %v", m.Run, m, open[m.Run])
		}
		delete(open, m.Run)
		s.send(ipc.KindAck, ipc.Ack{Seq: m.Seq})
		s.send(ipc.KindDrop, ipc.Drop{Name: ipc.LogFd(m.Run, "stdout", fmt.Sprint("run", m.Run))})
		s.send(ipc.KindForget, ipc.Forget{Run: m.Run})
	}
	for !done.Load() || len(open) > 0 {
		for ; len(open) < atATime && !done.Load(); next++ {
			open[next] = true
			order(next)
		}
		select {
		case <-crash:
			s.kill()
			s = w.supervisor()
			for id := range open {
				if _, known := s.runs[id]; !known {
					order(id) // it was not read any more
				}
			}
			for _, r := range s.runs {
				if r.State == ipc.RunExited {
					ended(*r.Exited)
				}
			}
			continue
		default:
		}
		switch f := s.next(); f.Kind {
		case ipc.KindSpawned:
			var m ipc.Spawned
			s.decode(f, &m)
			spawned[m.Run]++
			if len(f.Fds) != 1 {
				t.Errorf("run %d came with %d pipes", m.Run, len(f.Fds))
			}
			f.CloseFds()
		case ipc.KindExited:
			var m ipc.Exited
			s.decode(f, &m)
			if spawned[m.Run] != 1 && len(s.runs) == 0 {
				t.Errorf("run %d was told %d times before its end", m.Run, spawned[m.Run])
			}
			ended(m)
		case ipc.KindSpawnFailed:
			var m ipc.SpawnFailed
			s.decode(f, &m)
			t.Errorf("%+v", m)
			delete(open, m.Run)
		}
	}
	text, err := os.ReadFile(starts)
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for _, id := range strings.Fields(string(text)) {
		times[id]++
	}
	for id := ipc.RunID(1); id < next; id++ {
		if n := times[fmt.Sprint(id)]; n != 1 {
			t.Errorf("run %d was executed %d times", id, n)
		}
	}
	t.Logf("%d runs over %d replacements", next-1, changes)
	s.sync()
	s.kill()
	if s = w.supervisor(); len(s.runs) != 0 || len(s.fds) != 0 {
		t.Errorf("%d runs and %d descriptors are left", len(s.runs), len(s.fds))
	}
	waitUntil(t, "pid1 has only its own descriptors", func() bool {
		fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.pid))
		return len(fds) < 16
	})
}

func TestSignalsBeforeAReplacementAreKept(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	sigs := []unix.Signal{unix.SIGHUP, unix.SIGTERM, unix.SIGUSR1, unix.SIGPWR, unix.SIGINT, 37, 39}
	for i := range 3 * len(sigs) {
		sig := sigs[i%len(sigs)]
		n := w.said("pid1 has been replaced")
		unix.Kill(w.pid, sig)
		unix.Kill(w.pid, unix.SIGUSR2)
		m := s.requested(sig)
		w.saying("pid1 has been replaced", n+1)
		s.send(ipc.KindAck, ipc.Ack{Seq: m.Seq})
		s.sync()
	}
	for _, f := range s.kept {
		if f.Kind == ipc.KindRequested {
			t.Errorf("a request came twice")
		}
	}
}

// Replaced between a stop signal and the look for those who have left the groups of the
// run, pid1 still sends it to them.
func TestAReplacedPid1PaysWhatItOwes(t *testing.T) {
	w := start(t, setup{env: []string{envPause + "=1s"}})
	s := w.supervisor()
	s.spawn(output(shell(1, outsider(t, false, "echo up; exec sleep 1000")+" trap '' TERM; wait; exit 3")))
	_, fds := s.spawned(1)
	readLine(t, fds[0])
	s.send(ipc.KindSignal, ipc.Signal{Run: 1, Sig: int(unix.SIGTERM), Scope: ipc.ScopeAll})
	s.sync()
	w.change()
	if ex := s.exited(1); ex.Code != 3 {
		t.Errorf("the leader ended with %+v", ex)
	}
}

func TestProgramsThatCannotTakeOverAreRefused(t *testing.T) {
	program, err := os.ReadFile(self(t))
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "zinit-pid1")
	install := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(bin+".new", content, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(bin+".new", bin); err != nil {
			t.Fatal(err)
		}
	}
	install(program)
	w := start(t, setup{
		prefix: []string{bin, "--subreaper", "--", self(t), fakeName},
		args:   []string{},
		env:    []string{envChange + "=2s"},
	})
	s := w.supervisor()
	s.spawn(shell(1, "exec sleep 1000"))
	m, _ := s.spawned(1)
	files := limitOf(t, w.pid)
	refused := 0
	for _, c := range []struct{ name, content, says string }{
		{"no program", "\x7fELF and nothing more", "exec format error"},
		{"another program", "#!/bin/sh\nexit 0\n", "without an answer"},
		{"a program that reads another state", "#!/bin/sh\necho cannot use the state: it has version 1, zinit-pid1 9 reads 2; exit 1\n", "reads 2"},
		{"a program that hangs", "#!/bin/sh\nexec sleep 1000\n", "does not answer within 2s"},
		{"a program that talks", "#!/bin/sh\nexec yes\n", "y"},
	} {
		install([]byte(c.content))
		unix.Kill(w.pid, unix.SIGUSR2)
		refused++
		w.saying("pid1 is not replaced", refused)
		if !strings.Contains(w.stderr.String(), c.says) {
			t.Errorf("%s: pid1 did not say %q", c.name, c.says)
		}
	}
	if err := os.Remove(bin); err != nil {
		t.Fatal(err)
	}
	unix.Kill(w.pid, unix.SIGUSR2)
	w.saying("pid1 is not replaced", refused+1)

	// It goes on unharmed, and takes the next good one.
	s.spawn(shell(2, "exit 4"))
	if ex := s.exited(2); ex.Code != 4 {
		t.Errorf("run 2 ended with %+v", ex)
	}
	if got := limitOf(t, w.pid); got != files {
		t.Errorf("the limit on open files is %v, was %v", got, files)
	}
	waitUntil(t, "what was asked is gone", func() bool { return len(allChildren(w.pid)) == 2 })
	install(program)
	w.change()
	s.send(ipc.KindSignal, ipc.Signal{Run: 1, Sig: 9, Scope: ipc.ScopeAll})
	if ex := s.exited(1); ex.Signal != 9 {
		t.Errorf("run 1, pid %d, ended with %+v", m.Pid, ex)
	}
}

func limitOf(t *testing.T, pid int) (l unix.Rlimit) {
	t.Helper()
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &l); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestADamagedStateIsRefused(t *testing.T) {
	good, err := (&state{Version: stateVersion, Zinit: "1.0", Pid: 7}).encode()
	if err != nil {
		t.Fatal(err)
	}
	if s, err := decodeState(good); err != nil || s.Pid != 7 || s.Zinit != "1.0" {
		t.Fatalf("a good state gives %+v, %v", s, err)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x10
		if _, err := decodeState(bad); err == nil {
			t.Fatalf("byte %d changed, and nobody notices", i)
		}
		if _, err := decodeState(good[:i]); err == nil {
			t.Fatalf("cut to %d bytes, and nobody notices", i)
		}
	}
	other, err := (&state{Version: stateVersion + 1}).encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeState(other); err == nil || !strings.Contains(err.Error(), fmt.Sprint("it has version ", stateVersion+1)) {
		t.Errorf("another version gives %v", err)
	}
	old, err := (&state{Version: oldestState, Pid: 7}).encode()
	if err != nil {
		t.Fatal(err)
	}
	if s, err := decodeState(old); err != nil || s.Pid != 7 {
		t.Errorf("a state of version %d gives %+v, %v", oldestState, s, err)
	}
}

// TestBaseOfEnvironments: what a supervisor has told once comes with each of its
// orders, also when pid1 has been replaced, and goes with it.
func TestBaseOfEnvironments(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	if !s.hello.Bases {
		t.Fatal("pid1 does not say that it takes a base")
	}
	var id ipc.RunID
	env := func(s *super, based bool, own ...string) string {
		t.Helper()
		id++
		sp := output(shell(id, `echo "$A|$B|$C"`))
		sp.Env, sp.Based = own, based
		s.spawn(sp)
		_, fds := s.spawned(id)
		return readLine(t, fds[0])
	}
	want := func(when, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: the environment is %q, want %q", when, got, want)
		}
	}
	s.send(ipc.KindBase, ipc.Base{Env: []string{"A=base", "B=base"}})
	want("with a base", env(s, true, "B=own", "C=own"), "base|own|own")
	want("after another order", env(s, true), "base|base|")
	want("without its base", env(s, false, "C=own"), "||own")
	w.change()
	want("after pid1 was replaced", env(s, true, "C=own"), "base|base|own")
	s.send(ipc.KindBase, ipc.Base{Env: []string{"A=other"}})
	want("with another base", env(s, true, "C=own"), "other||own")
	s.kill()
	s = w.supervisor()
	want("of the next supervisor", env(s, true, "C=own"), "||own")
}
