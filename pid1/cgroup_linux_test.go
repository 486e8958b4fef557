package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// cgroupDir makes a cgroup for a test; an ordinary user may not.
func cgroupDir(t *testing.T) string {
	t.Helper()
	root := ""
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && uint32(st.Type) == unix.CGROUP2_SUPER_MAGIC {
			root = dir
		}
	}
	dir, err := os.MkdirTemp(root, "pid1-test-")
	if root == "" || err != nil {
		t.Skip("no cgroup can be made here")
	}
	t.Cleanup(func() {
		killCgroup(dir)
		waitUntil(t, "the cgroup is empty", func() bool { return !populated(dir) })
		filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && path != dir {
				defer os.Remove(path)
			}
			return nil
		})
		os.Remove(dir)
	})
	return dir
}

// in makes a cgroup for a run.
func in(t *testing.T, dir string, sp ipc.Spawn) ipc.Spawn {
	t.Helper()
	sp.Cgroup = filepath.Join(dir, strconv.FormatUint(uint64(sp.Run), 10))
	if err := os.Mkdir(sp.Cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	return sp
}

// escapee leaves its group and its session, and ends with code 8; what it
// leaves behind says which cgroup it is in.
const escapee = `(setsid sh -c 'cat /proc/self/cgroup; echo up; exec sleep 1000' &) ; exit 8`

func TestADaemonCannotLeaveItsCgroup(t *testing.T) {
	dir := cgroupDir(t)
	s := start(t, setup{}).supervisor()
	for id, sig := range []unix.Signal{1: unix.SIGKILL, 2: unix.SIGTERM, 3: unix.SIGKILL, 4: unix.SIGTERM} {
		if id == 0 {
			continue
		}
		sp := in(t, dir, output(shell(ipc.RunID(id), escapee)))
		if id >= 3 {
			sp.Umask, sp.CgroupLast = new(uint32), true
		}
		s.spawn(sp)
		_, fds := s.spawned(sp.Run)
		text := ""
		for !strings.HasSuffix(text, "up") {
			text += readLine(t, fds[0])
		}
		if want := strings.TrimPrefix(sp.Cgroup, "/sys/fs/cgroup"); !strings.Contains(text, strings.TrimPrefix(want, "/unified")) {
			t.Errorf("run %d was not in %s: %s", id, sp.Cgroup, text)
		}
		if ex := s.exited(sp.Run); ex.Code != 8 || !ex.Left {
			t.Errorf("run %d ended with %+v, want something left", id, ex)
		}
		s.send(ipc.KindSignal, ipc.Signal{Run: sp.Run, Sig: int(sig), Scope: ipc.ScopeAll})
		s.emptied(sp.Run)
		readAll(t, fds[0])
		s.send(ipc.KindForget, ipc.Forget{Run: sp.Run})
	}
}

// The last process of a cgroup need not be a child of pid1 when it ends.
func TestAnEmptyCgroupIsNoticed(t *testing.T) {
	dir := cgroupDir(t)
	w := start(t, setup{})
	s := w.supervisor()
	gate := w.gate()
	sp := in(t, dir, shell(1, "read x <"+gate.Name()+"; exit 0"))
	s.spawn(sp)
	s.spawned(1)
	guest := exec.Command("sleep", "1000")
	if err := guest.Start(); err != nil {
		t.Fatal(err)
	}
	if err := writeSmall(sp.Cgroup+"/cgroup.procs", strconv.Itoa(guest.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	gate.open(1)
	if ex := s.exited(1); !ex.Left {
		t.Errorf("run 1 ended with %+v, want something left", ex)
	}
	guest.Process.Kill()
	guest.Wait()
	s.emptied(1)
}

func TestNothingStartsInAFrozenCgroup(t *testing.T) {
	dir := cgroupDir(t)
	s := start(t, setup{}).supervisor()
	sp := in(t, dir, shell(1, "true"))
	if err := writeSmall(dir+"/cgroup.freeze", "1"); err != nil {
		t.Fatal(err)
	}
	s.spawn(sp)
	if m := s.failed(1); !strings.Contains(m.Message, "frozen cgroup "+dir+":") {
		t.Errorf("in a frozen cgroup: %+v", m)
	}
	if err := writeSmall(dir+"/cgroup.freeze", "0"); err != nil {
		t.Fatal(err)
	}
	sp = in(t, dir, shell(2, "true"))
	os.Remove(sp.Cgroup)
	s.spawn(sp)
	if m := s.failed(2); m.Stage != ipc.StageCgroup || !strings.Contains(m.Message, sp.Cgroup) {
		t.Errorf("in a cgroup that does not exist: %+v", m)
	}
}
