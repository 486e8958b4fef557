package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// terminal opens a new pseudo terminal: its master, and the path of the other
// side.
func terminal(t *testing.T) (*os.File, string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return master, fmt.Sprintf("/dev/pts/%d", n)
}

func TestConsoleIsInTheForegroundOfPid1sTerminal(t *testing.T) {
	master, name := terminal(t)
	// setsid and the first open make it the controlling terminal of pid1.
	w := start(t, setup{prefix: []string{"setsid", "-w", "sh", "-c", `exec "$@" <>` + name + ` >&0`, "sh"}})
	s := w.supervisor()
	for id := ipc.RunID(1); id <= 2; id++ {
		sp := shell(id, `f=$(cut -d" " -f5,8 /proc/$$/stat); read x; echo "foreground $f $$ $x"; exit 4`)
		sp.Console = true
		if id == 2 {
			sp.Umask = new(uint32) // through the helper
		}
		s.spawn(sp)
		m, _ := s.spawned(id)
		if _, err := master.WriteString("typed\n"); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("foreground %d %d %d typed", m.Pid, m.Pid, m.Pid)
		for b, text := make([]byte, 256), ""; !strings.Contains(text, want+"\r\n"); {
			n, err := master.Read(b)
			if err != nil || strings.Count(text, "\n") > 4 {
				t.Fatalf("the terminal shows %q, %v; want %q", text, err, want)
			}
			text += string(b[:n])
		}
		if ex := s.exited(id); ex.Code != 4 {
			t.Errorf("run %d ended with %+v", id, ex)
		}
		s.sync()
		if got, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPGRP); err != nil || got != pgidOf(t, s.hello.Pid) {
			t.Errorf("the foreground is %d, %v, not pid1's group %d again", got, err, pgidOf(t, s.hello.Pid))
		}
	}
}

func pgidOf(t *testing.T, pid int) int {
	t.Helper()
	pgid, err := unix.Getpgid(pid)
	if err != nil {
		t.Fatal(err)
	}
	return pgid
}

func TestConsoleWithoutATerminalInheritsTheStreams(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	sp := shell(1, "echo to pid1s own stdout; exit 6")
	sp.Console = true
	s.spawn(sp)
	if ex := s.exited(1); ex.Code != 6 {
		t.Errorf("run 1 ended with %+v", ex)
	}
	waitUntil(t, "the line arrives", func() bool { return strings.Contains(w.stderr.String(), "to pid1s own stdout\n") })
}

func TestCgroup(t *testing.T) {
	root := ""
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && uint32(st.Type) == unix.CGROUP2_SUPER_MAGIC {
			root = dir
		}
	}
	dir, err := os.MkdirTemp(root, "pid1-test-")
	if root == "" || err != nil {
		if root != "" && os.Getuid() == 0 {
			t.Fatal(err)
		}
		t.Skip("no cgroup can be made here")
	}
	t.Cleanup(func() {
		killCgroup(dir)
		waitUntil(t, "the cgroup is empty", func() bool { return !populated(dir) })
		os.Remove(dir)
	})
	w := start(t, setup{})
	s := w.supervisor()
	fd, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	for id := ipc.RunID(1); id <= 3; id++ {
		// A daemon leaves group and session, but not the cgroup.
		sp := output(shell(id, `(setsid sh -c 'echo up; exec sleep 1000' &); cat /proc/self/cgroup; exit 8`))
		if id == 2 {
			sp.Umask = new(uint32)
		}
		s.send(ipc.KindSpawn, sp, int(fd.Fd()))
		_, fds := s.spawned(id)
		text := readLine(t, fds[0])
		for !strings.Contains(text, dir[len(root):]) || !strings.Contains(text, "up") {
			text += readLine(t, fds[0])
		}
		if ex := s.exited(id); ex.Code != 8 || !ex.Left {
			t.Errorf("run %d ended with %+v, want something left", id, ex)
		}
		s.send(ipc.KindSignal, ipc.Signal{Run: id, Sig: int(unix.SIGKILL), Scope: ipc.ScopeAll})
		s.emptied(id)
		readAll(t, fds[0])
	}
	if err := writeSmall(dir+"/cgroup.freeze", "1"); err != nil {
		t.Fatal(err)
	}
	s.send(ipc.KindSpawn, shell(4, "true"), int(fd.Fd()))
	if m := s.failed(4); !strings.Contains(m.Message, "frozen cgroup "+dir) {
		t.Errorf("in a frozen cgroup: %+v", m)
	}
}
