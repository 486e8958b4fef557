package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
)

// build makes a real program in a directory, from its folder in the tree.
func build(t *testing.T, dir, name, folder string) string {
	t.Helper()
	bin := filepath.Join(dir, name)
	if made := os.Getenv("ZINIT_TEST_BIN"); made != "" { // for whom has no Go tool
		program, err := os.ReadFile(filepath.Join(made, name))
		if err == nil {
			err = os.WriteFile(bin, program, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		return bin
	}
	if out, err := exec.Command("go", "build", "-o", bin, "../"+folder).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

func TestRealProgram(t *testing.T) {
	bin := build(t, t.TempDir(), "zinit-pid1", "pid1")
	out, err := exec.Command(bin, "--version").Output()
	if want := "zinit-pid1 " + version.Version + "\n"; err != nil || string(out) != want {
		t.Errorf("--version says %q, %v, want %q", out, err, want)
	}
	w := start(t, setup{
		prefix: []string{bin, "--container", "--some-flag"},
		args:   []string{},
		env:    []string{"PATH=" + fakeServer(t) + ":" + os.Getenv("PATH")},
	})
	s := w.supervisor()
	if s.hello.Version != version.Version || s.hello.Mode != ipc.ModeContainer {
		t.Errorf("hello is %+v", s.hello)
	}
	sp := cleanSpawn(1)
	checkClean(t, "direct", seen(t, s, sp))
	sp.Run, sp.Umask = 2, new(uint32)
	checkClean(t, "helper", seen(t, s, sp))
	s.send(ipc.KindHalt, ipc.Halt{Action: ipc.HaltExit, Code: 3})
	s.closed()
	s.exit(0)
	if code := w.wait(); code != 3 {
		t.Errorf("exit code is %d, want 3", code)
	}
	if !strings.Contains(w.stderr.String(), "it becomes a subreaper") {
		t.Errorf("there is no warning about not being PID 1: %s", w.stderr)
	}
}

// fakeServer is a directory with a zinit-server that announces itself to the
// test.
func fakeServer(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\nexec " + self(t) + " " + fakeName + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "zinit-server"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
