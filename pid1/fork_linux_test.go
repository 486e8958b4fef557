package main

import (
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
)

// TestForksCopyNothingThatIsStored looks into the tables of descriptors of pid1's
// threads: those that fork have none of the pipes that are stored, or these would
// never end.
func TestForksCopyNothingThatIsStored(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	own := pipesOf(w.pid, w.pid)
	const runs = 20
	for id := ipc.RunID(1); id <= runs; id++ {
		s.spawn(output(shell(id, "sleep 1000")))
		s.spawned(id)
	}
	w.forkersHave(t, own, runs)
	w.change()
	s.spawn(output(shell(runs+1, "sleep 1000")))
	s.spawned(runs + 1)
	w.forkersHave(t, own, runs+1)
	s.kill()
	if s = w.supervisor(); len(s.fds) != runs+1 { // the end of the link has brought it about
		t.Errorf("%d descriptors are stored, want %d", len(s.fds), runs+1)
	}
}

// forkersHave waits until as many threads as fork have no other pipes than those of
// pid1 itself, while the first thread has those that are stored as well.
func (w *world) forkersHave(t *testing.T, own map[string]bool, stored int) {
	t.Helper()
	if all := pipesOf(w.pid, w.pid); len(all) < stored {
		t.Fatalf("pid1 has %d pipes, want at least the %d that are stored", len(all), stored)
	}
	waitUntil(t, "the threads that fork have none of the pipes that are stored", func() bool {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", w.pid))
		apart := 0
		for _, task := range tasks {
			tid, _ := strconv.Atoi(task.Name())
			pipes := pipesOf(w.pid, tid)
			maps.DeleteFunc(pipes, func(name string, _ bool) bool { return own[name] })
			if len(pipes) == 0 {
				apart++
			}
		}
		return apart == atOnce
	})
}

// forkersLack waits until as many threads as fork do not have a descriptor of pid1.
func (w *world) forkersLack(t *testing.T, fd int) {
	t.Helper()
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", w.pid, fd))
	if err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the threads that fork do not have "+name, func() bool {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", w.pid))
		apart := 0
		for _, task := range tasks {
			if !opened(w.pid, task.Name())[name] {
				apart++
			}
		}
		return apart == atOnce
	})
}

// pipesOf are the pipes in the table of a thread.
func pipesOf(pid, tid int) map[string]bool {
	pipes := opened(pid, strconv.Itoa(tid))
	maps.DeleteFunc(pipes, func(name string, _ bool) bool { return !strings.HasPrefix(name, "pipe:") })
	return pipes
}

// opened are the names of what is in the table of a thread.
func opened(pid int, tid string) map[string]bool {
	dir := fmt.Sprintf("/proc/%d/task/%s/fd/", pid, tid)
	entries, _ := os.ReadDir(dir)
	names := map[string]bool{}
	for _, e := range entries {
		if name, err := os.Readlink(dir + e.Name()); err == nil {
			names[name] = true
		}
	}
	return names
}
