package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

func TestNothingLeftIsSaidWithTheExit(t *testing.T) {
	s := start(t, setup{}).supervisor()
	s.spawn(shell(1, "sleep 1000 & kill -9 $!; wait; exit 0"))
	if ex := s.exited(1); ex.Left {
		t.Errorf("something is left: %+v", ex)
	}
}

func TestLeftoversAreToldUntilTheyAreGone(t *testing.T) {
	for _, c := range []struct{ name, script string }{
		{"in the group", "sleep 1000 & echo $!; exit 5"},
		{"in a group of its own", self(t) + " " + groupName + " 'echo $$; exec sleep 1000' & exit 5"},
		{"a grandchild", "sh -c 'sleep 1000 & echo $!; exit 0'; exit 5"},
		{"that ignores SIGTERM", "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1000; done' & exit 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, setup{})
			s := w.supervisor()
			s.spawn(output(shell(1, c.script)))
			_, fds := s.spawned(1)
			pid, _ := strconv.Atoi(readLine(t, fds[0]))
			if ex := s.exited(1); ex.Code != 5 || !ex.Left {
				t.Fatalf("run ended with %+v, want code 5 and something left", ex)
			}
			s.kill()
			s = w.supervisor()
			if r := s.runs[1]; r.Exited == nil || !r.Exited.Left || r.Emptied {
				t.Errorf("the run is told as %+v", r)
			}
			s.send(ipc.KindSignal, ipc.Signal{Run: 1, Sig: int(unix.SIGTERM), Scope: ipc.ScopeAll})
			if strings.Contains(c.name, "SIGTERM") {
				s.sync()
				if unix.Kill(pid, 0) != nil {
					t.Error("it is gone already")
				}
			}
			s.send(ipc.KindSignal, ipc.Signal{Run: 1, Sig: int(unix.SIGKILL), Scope: ipc.ScopeAll})
			s.emptied(1)
			if unix.Kill(pid, 0) != unix.ESRCH {
				t.Error("it is still there")
			}
			s.kill()
			if s = w.supervisor(); !s.runs[1].Emptied {
				t.Errorf("the run is told as %+v", s.runs[1])
			}
		})
	}
}

func TestLeftoverThatEndsByItselfIsNoticed(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	gate := w.gate()
	s.spawn(shell(1, fmt.Sprintf("(read x < %s) & exit 0", gate.Name())))
	if ex := s.exited(1); !ex.Left {
		t.Fatalf("run ended with %+v", ex)
	}
	gate.open(1)
	s.emptied(1)
}

func TestASessionThatForksWhileItIsKilledDies(t *testing.T) {
	s := start(t, setup{}).supervisor()
	// Each job is a group of its own, and makes more.
	job := self(t) + " " + groupName
	s.spawn(output(shell(1, `trap '' TERM; echo go
		f() { while :; do `+job+` 'trap "" TERM; `+job+` "sleep 1000 & sleep 1000" & sleep 1000 & wait' & sleep 0.02; done; }
		f & f & exit 0`)))
	_, fds := s.spawned(1)
	readLine(t, fds[0])
	if ex := s.exited(1); !ex.Left {
		t.Fatalf("run ended with %+v", ex)
	}
	s.send(ipc.KindSignal, ipc.Signal{Run: 1, Sig: int(unix.SIGKILL), Scope: ipc.ScopeAll})
	s.emptied(1)
	readAll(t, fds[0]) // whoever lived would hold it
}

func TestScopesOfSignals(t *testing.T) {
	// The leader, a child in its group, and a job in another group of the
	// session, each of which says what reaches it.
	script := `
say() { echo "$1" ; }
(trap 'say child; exit' TERM; echo up; while :; do sleep 1000 & wait; done) &
` + self(t) + " " + groupName + ` 'trap "echo job; exit" TERM; echo up; while :; do sleep 1000 & wait; done' &
trap 'say leader' TERM
echo up
while :; do sleep 1000 & wait; done`
	for scope, want := range map[ipc.Scope]string{
		ipc.ScopeLeader: "leader",
		ipc.ScopeGroup:  "child leader",
		ipc.ScopeAll:    "child job leader",
	} {
		t.Run(string(scope), func(t *testing.T) {
			s := start(t, setup{}).supervisor()
			s.spawn(output(shell(1, script)))
			_, fds := s.spawned(1)
			for range 3 {
				if l := readLine(t, fds[0]); l != "up" {
					t.Fatalf("the script said %q", l)
				}
			}
			s.send(ipc.KindSignal, ipc.Signal{Run: 1, Sig: int(unix.SIGTERM), Scope: scope})
			got := map[string]bool{}
			for range strings.Fields(want) {
				got[readLine(t, fds[0])] = true
			}
			for _, w := range strings.Fields(want) {
				if !got[w] {
					t.Errorf("%s did not reach the %s: %v", scope, w, got)
				}
			}
			s.send(ipc.KindSignal, ipc.Signal{Run: 1, Sig: int(unix.SIGKILL), Scope: ipc.ScopeAll})
			s.exited(1)
			if rest := readAll(t, fds[0]); rest != "" {
				t.Errorf("%s reached more: %q", scope, rest)
			}
		})
	}
}

func TestSignalsBeforeTheForkAreDelivered(t *testing.T) {
	s := start(t, setup{}).supervisor()
	for id := ipc.RunID(1); id <= 50; id++ {
		s.spawn(shell(id, "exec sleep 1000"))
		s.send(ipc.KindSignal, ipc.Signal{Run: id, Sig: int(unix.SIGKILL), Scope: ipc.ScopeAll})
		if ex := s.exited(id); ex.Signal != int(unix.SIGKILL) {
			t.Fatalf("run %d ended with %+v", id, ex)
		}
	}
}

func TestMainPid(t *testing.T) {
	// The first leader ends and leaves a daemon in a session of its own.
	for _, c := range []struct{ name, script string }{
		{"told before the first leader ends", `setsid sh -c 'echo $$; exec sleep 1000' & read x < %s; exit 0`},
		{"told when it is our child", `(setsid sh -c 'echo $$; exec sleep 1000' &) ; read x < %s; exit 0`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, setup{})
			s := w.supervisor()
			gate := w.gate()
			s.spawn(output(shell(1, fmt.Sprintf(c.script, gate.Name()))))
			first, fds := s.spawned(1)
			pid, _ := strconv.Atoi(readLine(t, fds[0]))
			s.send(ipc.KindMain, ipc.Main{Run: 1, Pid: pid})
			s.sync()
			gate.open(1)
			waitUntil(t, "the first leader is gone", func() bool { return unix.Kill(first.Pid, 0) == unix.ESRCH })
			s.sync()
			s.kill()
			s = w.supervisor()
			if r := s.runs[1]; r.State != ipc.RunRunning || r.Spawned.Pid != pid {
				t.Fatalf("the run is told as %+v %+v, want running as %d", r, r.Spawned, pid)
			}
			s.send(ipc.KindSignal, ipc.Signal{Run: 1, Sig: int(unix.SIGTERM), Scope: ipc.ScopeGroup})
			if ex := s.exited(1); ex.Signal != int(unix.SIGTERM) || ex.Left {
				t.Errorf("the run ended with %+v", ex)
			}
		})
	}
}

func TestManyExitsAtOnce(t *testing.T) {
	s := start(t, setup{}).supervisor()
	const n = 500
	for id := ipc.RunID(1); id <= n; id++ {
		s.spawn(ipc.Spawn{Run: id, Tag: "sleep", Argv: []string{"/bin/sleep", "1000"}})
	}
	for id := ipc.RunID(1); id <= n; id++ {
		s.spawned(id)
	}
	for id := ipc.RunID(1); id <= n; id++ {
		s.send(ipc.KindSignal, ipc.Signal{Run: id, Sig: int(unix.SIGTERM), Scope: ipc.ScopeAll})
	}
	for range n {
		m, _ := await(s, ipc.KindExited, func(ipc.Exited) bool { return true })
		if m.Left || m.Signal != int(unix.SIGTERM) {
			t.Errorf("run %d ended with %+v", m.Run, m)
		}
		s.send(ipc.KindAck, ipc.Ack{Seq: m.Seq})
		s.send(ipc.KindForget, ipc.Forget{Run: m.Run})
	}
}
