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

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args   string
		pid    int
		env    string
		file   string
		mode   ipc.Mode
		server string
		main   string
		note   bool
	}{
		{args: "", pid: 1, mode: ipc.ModeVM},
		{args: "", pid: 1, env: "ZINIT_CONTAINER", mode: ipc.ModeContainer},
		{args: "", pid: 1, env: "container", mode: ipc.ModeContainer},
		{args: "", pid: 1, file: "/.dockerenv", mode: ipc.ModeContainer},
		{args: "", pid: 1, file: "/run/.containerenv", mode: ipc.ModeContainer},
		{args: "--vm", pid: 1, env: "container", mode: ipc.ModeVM},
		{args: "splash single", pid: 1, mode: ipc.ModeVM},
		{args: "splash --log-level debug", pid: 1, mode: ipc.ModeVM, server: "--log-level debug"},
		{args: "splash", pid: 1, env: "container", mode: ipc.ModeContainer, server: "splash"},
		{args: "--container", pid: 1, mode: ipc.ModeContainer},
		{args: "", pid: 7, mode: ipc.ModeContainer, note: true},
		{args: "--vm", pid: 7, mode: ipc.ModeContainer, note: true},
		{args: "--container --config-dir /x --log-level debug", pid: 1, mode: ipc.ModeContainer, server: "--config-dir /x --log-level debug"},
		{args: "--container -- sh -c --vm", pid: 1, mode: ipc.ModeContainer, main: "sh -c --vm"},
		{args: "--container --", pid: 1, mode: ipc.ModeContainer},
		{args: "--subreaper -- /bin/zinit-server --socket /s", pid: 7, mode: ipc.ModeStandalone, server: "/bin/zinit-server --socket /s"},
		{args: "--subreaper --supervisor=12,5 -- /bin/zinit-server", pid: 7, mode: ipc.ModeStandalone, server: "/bin/zinit-server"},
	} {
		opt := parse(strings.Fields(c.args), c.pid,
			func(k string) string { return map[string]string{c.env: "yes"}[k] },
			func(p string) bool { return p == c.file })
		server := opt.server
		if opt.mode != ipc.ModeStandalone {
			server = server[1:]
		}
		if opt.mode != c.mode || strings.Join(server, " ") != c.server || strings.Join(opt.main, " ") != c.main || (opt.note != "") != c.note {
			t.Errorf("%+v gives %+v", c, opt)
		}
	}
	for _, flag := range []string{"--version", "-h", "--help"} {
		if opt := parse([]string{flag}, 1, os.Getenv, exists); !strings.Contains(opt.show, "zinit-pid1") {
			t.Errorf("%s shows %q", flag, opt.show)
		}
	}
}

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
