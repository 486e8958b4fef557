package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// openTerminal opens a new pseudo terminal: its master, and the path of the other
// side.
func openTerminal(t *testing.T) (*os.File, string) {
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
	master, name := openTerminal(t)
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
