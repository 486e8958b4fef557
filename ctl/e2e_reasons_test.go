package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// Each kind of failure is brought about for real, and told apart by whatever
// tells of it, also when the service is long well again.
func TestReasons(t *testing.T) {
	l := newLive(t)
	stranger, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	port := stranger.Addr().(*net.TCPAddr).Port
	dumps := filepath.Join(l.work, "dumps")
	if err := os.Mkdir(dumps, 0o777); err != nil {
		t.Fatal(err)
	}
	core := canDumpCore(t, dumps)

	// once runs until a file says that it is well now.
	once := func(failure string) string {
		return fmt.Sprintf("[service]\nexec = \"\"\"sh -c 'test -e mended && exec sleep 1000; %s'\"\"\"\n", failure)
	}
	const never = "[lifecycle]\nrestart = \"never\"\n"
	const sleep = "[service]\nexec = \"sleep 1000\"\n"
	tests := map[string]struct {
		file     string
		kind     string
		message  string
		check    func(r ipc.Reason) bool
		mended   string // the file by which it is well, "" for the same
		stop     bool   // it fails when it is stopped
		byItself bool   // it recovers with another
	}{
		"exits": {file: once("exit 7") + never, kind: "exit_code", message: `^ended with exit code 7$`,
			check: func(r ipc.Reason) bool { return r.Code != nil && *r.Code == 7 }},
		"killed": {file: once("kill -KILL $$") + never, kind: "signal", message: `^killed by SIGKILL$`,
			check: func(r ipc.Reason) bool { return r.Signal == "SIGKILL" && !r.Core && !r.OOM }},
		"dumped": {file: once("kill -SEGV $$") + "dir = \"" + dumps + "\"\n" + never + "[limits]\ncore = \"unlimited\"\n", mended: sleep,
			kind: "signal", message: `^killed by SIGSEGV` + map[bool]string{true: ` \(core dumped\)`}[core] + `$`,
			check: func(r ipc.Reason) bool { return r.Signal == "SIGSEGV" && r.Core == core }},
		"undumped": {file: once("kill -SEGV $$") + "dir = \"" + dumps + "\"\n" + never + "[limits]\ncore = 0\n", mended: sleep,
			kind: "signal", message: `^killed by SIGSEGV`,
			// A core_pattern(5) that is a pipe takes no notice of the limit.
			check: func(r ipc.Reason) bool { return !r.Core || core }},
		"slow": {file: sleep + never + "ready = \"notify\"\nstart_timeout_ms = 50\n", mended: sleep,
			kind: "start_timeout", message: `^READY=1 did not come within 50ms$`},
		"stubborn": {file: "[service]\nexec = \"svc ignore=TERM append=stubborn:ready\"\n[lifecycle]\nstop_timeout_ms = 50\n", stop: true,
			kind: "stop_timeout", message: `^did not end within 50ms of its stop signal and was killed$`},
		"mute": {file: "[service]\nexec = \"svc notify=READY=1 sleep\"\n" + never + "ready = \"notify\"\nwatchdog_ms = 50\n", mended: sleep,
			kind: "watchdog", message: `^said nothing for 50ms \(watchdog_ms\)$`},
		"needs": {file: sleep + "[dependencies]\nrequires = [\"exits\"]\n", byItself: true,
			kind: "dependency_failed", message: `^requires exits, which has failed$`,
			check: func(r ipc.Reason) bool { return r.Service == "exits" }},
		"misses": {file: sleep + "[dependencies]\nrequires = [\"ghost\"]\n", byItself: true,
			kind: "missing_dependency", message: `^requires ghost, which does not exist$`,
			check: func(r ipc.Reason) bool { return r.Service == "ghost" }},
		"round": {file: sleep + "[dependencies]\nrequires = [\"trip\"]\n", mended: sleep, kind: "dependency_cycle",
			message: `^is part of a dependency cycle: round -> trip -> round$`,
			check:   func(r ipc.Reason) bool { return fmt.Sprint(r.Services) == "[round trip]" }},
		"trip": {file: sleep + "[dependencies]\nafter = [\"round\"]\n", kind: "dependency_cycle", message: `: round -> trip -> round$`},
		"port": {file: fmt.Sprintf("%sports = [%d]\n%s", sleep, port, never), kind: "port_in_use",
			message: fmt.Sprintf(`^port %d is in use by pid %d, \S+$`, port, os.Getpid()),
			check: func(r ipc.Reason) bool {
				own, _ := processOf(os.Getpid())
				return r.Port == port && r.Pid == own.pid && r.Command == own.name
			}},
		"absent": {file: "[service]\nexec = \"./absent.sh\"\n" + never, kind: "spawn_error",
			message: `^cannot execute ./absent.sh: no such file or directory$`},
		"unset": {file: "[service]\nexec = \"sleep ${HOW_LONG}\"\nenv_file = [\"-late.env\"]\n", kind: "config_error",
			message: `^cannot expand its command: variable HOW_LONG is not set$`},
	}
	for name, tt := range tests {
		l.write(map[string]string{name: tt.file})
	}
	l.up()
	l.settled("the one that fails when stopped", func(map[string]ipc.Service) error {
		_, err := os.Stat(filepath.Join(l.work, "stubborn"))
		return err
	})
	for name, tt := range tests {
		if tt.stop {
			l.client.Stop(l.ctx, client.Options{}, func(ipc.Moved) {}, name)
		}
	}
	l.settled("all fail", func(all map[string]ipc.Service) error {
		for name := range tests {
			if all[name].State != ipc.StateFailed {
				return fmt.Errorf("%s is %s", name, all[name].State)
			}
		}
		return nil
	})

	all := l.list()
	words := map[string]string{}
	for name, tt := range tests {
		r := all[name].Reason
		if r == nil || r.Kind != tt.kind || !regexp.MustCompile(tt.message).MatchString(r.Message) || tt.check != nil && !tt.check(*r) {
			t.Errorf("%s has failed because of %+v", name, r)
			continue
		}
		words[name] = r.Message
		why, err := l.client.Why(l.ctx, name)
		if err != nil || why.Reason == nil || why.Reason.Kind != r.Kind || why.Reason.Message != r.Message {
			t.Errorf("why %s: %+v, %v", name, why.Reason, err)
		}
		for _, command := range []string{"why", "status"} {
			if out, _ := l.command("zinit", command, name).Output(); !strings.Contains(string(out), r.Message) {
				t.Errorf("zinit %s %s does not say %q:\n%s", command, name, r.Message, out)
			}
		}
	}
	if out, _ := l.command("zinit", "list", "--json").Output(); strings.Count(string(out), `"reason":{"kind":`) != len(tests) {
		t.Errorf("list --json does not tell all the reasons: %s", out)
	}

	// All is made well again.
	stranger.Close()
	for name, text := range map[string]string{"mended": "", "late.env": "HOW_LONG=1000\n", "absent.sh": "#!/bin/sh\nexec sleep 1000\n"} {
		if err := os.WriteFile(filepath.Join(l.work, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range tests {
		if tt.mended != "" {
			l.write(map[string]string{name: tt.mended})
		}
	}
	l.write(map[string]string{"ghost": sleep})
	if _, err := l.client.Reload(l.ctx, false); err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		if !tt.byItself {
			if err := l.client.Start(l.ctx, client.Options{}, func(ipc.Moved) {}, name); err != nil {
				t.Errorf("cannot start %s again: %v", name, err)
			}
		}
	}
	l.settled("all run again", func(all map[string]ipc.Service) error {
		for name := range tests {
			if s := all[name]; s.State != ipc.StateRunning || s.Reason != nil {
				return fmt.Errorf("%s is %s because of %v", name, s.State, s.Reason)
			}
		}
		return nil
	})
	for name, tt := range tests {
		list, err := l.client.Incidents(l.ctx, name)
		if err != nil || len(list) == 0 {
			t.Errorf("there are no incidents of %s: %v", name, err)
			continue
		}
		if r := list[0].Reason; r.Kind != tt.kind || r.Message != words[name] || tt.check != nil && !tt.check(*r) {
			t.Errorf("the incidents of %s tell of %+v", name, r)
		}
	}
}

// canDumpCore tries whether a core dump comes about in a directory: that is up
// to core_pattern, which may be anything (core(5)).
func canDumpCore(t *testing.T, dir string) bool {
	cmd := exec.Command("sh", "-c", "ulimit -c unlimited; kill -SEGV $$")
	cmd.Dir = dir
	cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal("cannot run sh")
	}
	return cmd.ProcessState.Sys().(syscall.WaitStatus).CoreDump()
}
