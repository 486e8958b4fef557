package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// squeeze lowers a soft limit of pid1, and returns what puts it back to that of
// the test. The limits of another user's process are that user's to change.
func (w *world) squeeze(name string, resource int, to uint64) func() {
	w.t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(resource, &was); err != nil {
		w.t.Fatal(err)
	}
	var owner unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d", w.pid), &owner); err != nil {
		w.t.Fatal(err)
	}
	set := func(soft uint64) {
		w.t.Helper()
		value := fmt.Sprint(soft)
		if soft == unix.RLIM_INFINITY {
			value = "unlimited"
		}
		cmd := exec.Command("prlimit", "--pid", fmt.Sprint(w.pid), "--"+name+"="+value+":")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid, NoSetGroups: true}}
		if out, err := cmd.CombinedOutput(); err != nil {
			w.t.Fatalf("prlimit: %v: %s", err, out)
		}
	}
	set(to)
	return func() { w.t.Helper(); set(was.Cur) }
}

func TestNoMoreProcesses(t *testing.T) {
	w := start(t, ordinary(t))
	s := w.supervisor()
	s.spawn(shell(1, "exec sleep 1000"))
	m, _ := s.spawned(1)
	release := w.squeeze("nproc", unix.RLIMIT_NPROC, 0)

	// Not one thread more, whatever pid1 has to do at the same time.
	const n = 200
	for id := ipc.RunID(10); id < 10+n; id++ {
		sp := output(shell(id, "true"))
		if id%2 == 0 {
			sp.Umask = new(uint32)
		}
		s.spawn(sp)
	}
	unix.Kill(w.pid, unix.SIGUSR2)
	for id := ipc.RunID(10); id < 10+n; id++ {
		if m := s.failed(id); m.Errno != int(unix.EAGAIN) || !strings.Contains(m.Message, "a limit on processes is reached") {
			t.Fatalf("%+v", m)
		}
	}
	w.saying("pid1 is not replaced", 1)
	s.kill()
	w.saying("a limit on processes is reached", 4)

	release()
	s = w.supervisor()
	if r := s.runs[1]; r.Spawned == nil || r.Spawned.Pid != m.Pid || s.hello.Restarts < 3 {
		t.Errorf("run 1 is %+v after %d restarts", r, s.hello.Restarts)
	}
	s.spawn(shell(2, "exit 4"))
	if ex := s.exited(2); ex.Code != 4 {
		t.Errorf("run 2 ended with %+v", ex)
	}
	w.change()
}

func TestNoMoreDescriptors(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	release := w.squeeze("nofile", unix.RLIMIT_NOFILE, 200)
	running, id := []ipc.RunID{}, ipc.RunID(1)
	for ; ; id++ {
		s.spawn(output(shell(id, "exec sleep 1000")))
		f := s.next()
		if f.Kind == ipc.KindSpawnFailed {
			var m ipc.SpawnFailed
			s.decode(f, &m)
			if m.Errno != int(unix.EMFILE) || !strings.Contains(m.Message, "limit on open files") {
				t.Fatalf("%+v", m)
			}
			break
		}
		f.CloseFds()
		running = append(running, id)
	}
	// There is enough left for a supervisor, which can let go of some.
	s.kill()
	s = w.supervisor()
	if len(s.runs) != len(running) || len(s.fds) != len(running) {
		t.Fatalf("%d runs and %d descriptors are told of %d", len(s.runs), len(s.fds), len(running))
	}
	w.change()
	for _, id := range running[:10] {
		s.send(ipc.KindSignal, ipc.Signal{Run: id, Sig: 9, Scope: ipc.ScopeAll})
		s.exited(id)
		s.send(ipc.KindDrop, ipc.Drop{Name: ipc.LogFd(id, "stdout", fmt.Sprint("run", id))})
		s.send(ipc.KindForget, ipc.Forget{Run: id})
	}
	for n := id + 1; n < id+10; n++ {
		s.spawn(output(shell(n, "exec sleep 1000")))
		s.spawned(n)
	}

	// Not one descriptor more: no supervisor can be started until there is.
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.pid))
	if err != nil {
		t.Fatal(err)
	}
	w.squeeze("nofile", unix.RLIMIT_NOFILE, 3)
	s.spawn(shell(5000, "true"))
	s.failed(5000)
	s.kill()
	w.saying("too many open files", 4)
	release()
	s = w.supervisor()
	s.spawn(shell(5000, "exit 6"))
	if ex := s.exited(5000); ex.Code != 6 {
		t.Errorf("the run ended with %+v", ex)
	}
	waitUntil(t, "no descriptor has leaked", func() bool {
		now, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.pid))
		return len(now) <= len(entries)
	})
}
