package main

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// outsider is a command in a shell that leaves the groups of its run: in a cgroup its
// session as well.
func outsider(t *testing.T, cgroup bool, command string) string {
	if cgroup {
		return "setsid sh -c '" + command + "' &"
	}
	return self(t) + " " + groupName + " '" + command + "' &"
}

// TestAStopReachesThoseWhoHaveLeftTheGroups has runs of which nothing ends but by a stop
// signal that reaches somebody outside of their groups.
func TestAStopReachesThoseWhoHaveLeftTheGroups(t *testing.T) {
	const waits = " trap '' TERM; wait; exit 3"
	for _, c := range []struct {
		name, command, rest string
		code                int
	}{
		{"while the leader waits for them", "echo up; exec sleep 1000", waits, 3},
		{"and continues them", "echo up; kill -STOP $$; sleep 1000", waits, 3},
		{"after a leader that ends", "echo up; exec sleep 1000", " wait", 0},
	} {
		for _, where := range []string{"cgroup", "session"} {
			t.Run(c.name+" in the "+where, func(t *testing.T) {
				cgroup := where == "cgroup"
				dir := ""
				if cgroup {
					dir = cgroupDir(t)
				}
				s := start(t, setup{}).supervisor()
				sp := output(shell(1, outsider(t, cgroup, c.command)+c.rest))
				if cgroup {
					sp = in(t, dir, sp)
				}
				s.spawn(sp)
				_, fds := s.spawned(1)
				if l := readLine(t, fds[0]); l != "up" {
					t.Fatalf("the script said %q", l)
				}
				for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGCONT} {
					s.send(ipc.KindSignal, ipc.Signal{Run: 1, Sig: int(sig), Scope: ipc.ScopeAll})
				}
				ex := s.exited(1)
				if c.code != 0 && ex.Code != c.code || c.code == 0 && ex.Signal != int(unix.SIGTERM) {
					t.Errorf("the leader ended with %+v", ex)
				}
				if ex.Left {
					s.emptied(1)
				}
				readAll(t, fds[0]) // whoever lived would hold it
			})
		}
	}
}

func TestAnEmptyCgroupIsRemoved(t *testing.T) {
	dir := cgroupDir(t)
	s := start(t, setup{}).supervisor()
	for _, c := range []struct {
		script  string
		removed bool
	}{
		{"exit 0", true},
		{"kill -TERM $$", true},
		{"kill -KILL $$", false}, // whether memory was short is still to be read there
		{"setsid sleep 1000 & exit 0", false},
	} {
		sp := in(t, dir, shell(ipc.RunID(1+len(s.runs)), c.script))
		s.runs[sp.Run] = ipc.Run{}
		s.spawn(sp)
		ex := s.exited(sp.Run)
		_, err := os.Stat(sp.Cgroup)
		if ex.Removed != c.removed || os.IsNotExist(err) != c.removed {
			t.Errorf("%s: %+v, and of its cgroup: %v", c.script, ex, err)
		}
	}
}

// TestTheEndsOfACrowdAreTold stops more runs than end one by one, among them one that
// ends by itself only when somebody outside of its groups has the signal.
func TestTheEndsOfACrowdAreTold(t *testing.T) {
	const many = 20
	s := start(t, setup{env: []string{envCrowd + "=4"}}).supervisor()
	var last []int
	for id := ipc.RunID(1); id <= many; id++ {
		sp := shell(id, "exec sleep 1000")
		if id == many {
			sp = output(shell(id, outsider(t, false, "echo up; exec sleep 1000")+" trap '' TERM; wait; exit 3"))
		}
		s.spawn(sp)
		_, last = s.spawned(id)
	}
	readLine(t, last[0])
	for id := ipc.RunID(1); id <= many; id++ {
		s.send(ipc.KindSignal, ipc.Signal{Run: id, Sig: int(unix.SIGTERM), Scope: ipc.ScopeAll})
	}
	for n, told := 0, map[ipc.RunID]bool{}; n < many; n++ {
		ex, _ := await(s, ipc.KindExited, func(ipc.Exited) bool { return true })
		if want := (ex.Run == many); want != (ex.Code == 3) || told[ex.Run] {
			t.Errorf("told: %+v", ex)
		}
		told[ex.Run] = true
	}
	// All is as before: the next end is told at once.
	s.spawn(shell(many+1, "exit 5"))
	if ex := s.exited(many + 1); ex.Code != 5 {
		t.Errorf("after the crowd: %+v", ex)
	}
}

// TestACrowdDoesNotHoldUpTheEnd ends zinit while the ends of many are still to be taken.
func TestACrowdDoesNotHoldUpTheEnd(t *testing.T) {
	const many = 20
	w := start(t, setup{env: []string{envCrowd + "=4"}})
	s := w.supervisor()
	for id := ipc.RunID(1); id <= many; id++ {
		s.spawn(shell(id, "exec sleep 1000"))
		s.spawned(id)
	}
	for id := ipc.RunID(1); id <= many; id++ {
		s.send(ipc.KindSignal, ipc.Signal{Run: id, Sig: int(unix.SIGTERM), Scope: ipc.ScopeAll})
	}
	s.send(ipc.KindHalt, ipc.Halt{Action: ipc.HaltExit, Code: 7})
	if code := w.wait(); code != 7 {
		t.Errorf("pid1 exits with %d, want 7", code)
	}
	if said := w.stderr.String(); strings.Contains(said, "SIGTERM has not ended all processes") {
		t.Errorf("it waited until it had to kill: %s", said)
	}
}
