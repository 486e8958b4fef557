package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hangBound is how long a message may stay unacknowledged here, by the real
// zinit-server.
const hangBound = 3 * time.Second

func TestAServerThatHangsIsReplaced(t *testing.T) {
	bin := t.TempDir()
	server := build(t, bin, "zinit-server", "supervisord")
	zinit := build(t, bin, "zinit", "ctl")
	dir, err := os.MkdirTemp("", "z") // short, for the sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	services, socket := filepath.Join(dir, "services"), filepath.Join(dir, "z.sock")
	if err := os.Mkdir(services, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"talk": `exec <>talk.gate; while read x; do echo heard $x; done`,
		"job":  `read x <job.gate; echo the last words; exit 7`,
	} {
		if err := unix.Mkfifo(filepath.Join(dir, name+".gate"), 0o600); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("[service]\nexec = ['/bin/sh', '-c', '%s']\ndir = '%s'\n[lifecycle]\nrestart = 'never'\n", script, dir)
		if err := os.WriteFile(filepath.Join(services, name+".toml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tell := func(name, line string) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, name+".gate"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(line + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	w := start(t, setup{
		args: []string{"--subreaper", "--", server, "--socket", socket, "--config-dir", services},
		env:  []string{envAck + "=" + hangBound.String()},
	})
	waitUntil(t, "the control socket is there", func() bool { return exists(socket) })
	ctl := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(zinit, append([]string{"--socket", socket}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("zinit %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	type status struct {
		Name, State string
		Pid         int
		Exit        struct{ Code int }
	}
	look := func() map[string]status {
		t.Helper()
		var list []status
		if err := json.Unmarshal([]byte(ctl("list", "--json")), &list); err != nil {
			t.Fatal(err)
		}
		m := map[string]status{}
		for _, s := range list {
			m[s.Name] = s
		}
		return m
	}
	supervisor := func() int {
		for _, pid := range allChildren(w.pid) {
			if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(comm) == "zinit-server\n" {
				return pid
			}
		}
		return 0
	}
	ctl("wait", "talk", "job")
	before, first := look(), supervisor()

	// With nothing to say it is left alone, though it stands still.
	if err := unix.Kill(first, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	tell("talk", "one")
	time.Sleep(hangBound + hangBound/2) // the time in which nothing must happen
	if now := supervisor(); now != first {
		t.Fatalf("the supervisor was %d and is %d", first, now)
	}
	// An end that it does not take is too much.
	tell("job", "end")
	tell("talk", "two")
	waitUntil(t, "the supervisor is replaced", func() bool { now := supervisor(); return now != first && now != 0 })
	tell("talk", "three")
	after := look()
	if s := after["talk"]; s.Pid != before["talk"].Pid || s.State != "running" {
		t.Errorf("talk is %+v, was %+v", s, before["talk"])
	}
	if s := after["job"]; s.State != "failed" || s.Exit.Code != 7 {
		t.Errorf("job is %+v", s)
	}
	if got := ctl("logs", "job"); !strings.Contains(got, "the last words") {
		t.Errorf("the log of job is %q", got)
	}
	waitUntil(t, "all lines are in the log", func() bool {
		got := ctl("logs", "talk")
		return strings.Contains(got, "heard one\n") && strings.Contains(got, "heard two\n") && strings.HasSuffix(got, "heard three\n")
	})
	if !strings.Contains(w.stderr.String(), "the supervisor hangs: killing it") {
		t.Error("pid1 does not say why")
	}
}
