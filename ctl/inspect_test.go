package main

import (
	"strings"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/ipctest"
)

// inspected is a zinit-server for the commands that look into services.
func inspected(r *ipctest.Request) {
	reason := &ipc.Reason{Kind: "exit_code", Message: "ended with exit code 3", Code: ptr(3)}
	switch r.Method {
	case "events.subscribe":
		ipctest.Items(r, []ipc.Event{
			{Missed: 40},
			{Seq: 41, Time: ago(3 * time.Minute), Service: "cache", From: ipc.StateInactive, To: ipc.StateStarting},
			{Seq: 42, Time: ago(2 * time.Minute), Service: "cache", From: ipc.StateStarting, To: ipc.StateRunning, Pid: 813},
			{Seq: 43, Time: ago(1500 * time.Millisecond), Service: "cache", From: ipc.StateRunning, To: ipc.StateFailed, Reason: reason},
			{Seq: 44, Time: ago(time.Second), Service: "web", From: ipc.StateRunning, To: ipc.StateRunning, Health: &ipc.Health{Status: "unhealthy", Message: "503 Service Unavailable"}},
		})
	case "service.stats":
		ipctest.Items(r, []ipc.Stats{
			{Name: "cache"},
			{Name: "db", Pid: 812, CPUPercent: 97.3, CPUTimeMS: 3_725_000, MemoryBytes: 1_234_567_890, Processes: 12, Fds: ptr(345)},
			{Name: "web", Pid: 20977, CPUPercent: 0.2, CPUTimeMS: 1230, MemoryBytes: 5_300_000, Processes: 1},
		})
	case "service.incidents":
		ipctest.Items(r, []ipc.Incident{
			{Name: "cache", Run: 1795371000000, At: *ago(3 * time.Minute), Reason: reason, Lines: []string{"starting", "cannot open \x1b[31mdump.rdb"}, Decision: "restarted in 1.9s (2nd of 5 in a row)"},
			{Name: "api", At: *ago(time.Minute), Reason: &ipc.Reason{Kind: "dependency_failed", Message: "requires cache, which has failed", Service: "cache"}, Lines: []string{}, Decision: "started as soon as cache is up"},
		})
	case "service.get":
		r.Respond(ipc.Config{
			TOML:   "[service]\nname = \"web\"\nexec = \"web --port 80\"\noneshot = false # default\n",
			Config: map[string]any{"service": map[string]any{"name": "web", "exec": "web --port 80", "oneshot": false}},
			Secrets: []ipc.Secret{
				{File: "/etc/web.env", Value: "***"},
				{Name: "PASSWORD", File: "/run/secrets/pw", Value: "***"},
				{Name: "TOKEN", File: "/run/secrets/token", Error: "cannot read it"},
			},
		})
	case "debug.procs":
		ipctest.Items(r, []ipc.Process{{Pid: 812, Command: "sh -c 'a | b'", Children: []ipc.Process{
			{Pid: 813, Command: "a\nb"}, {Pid: 814, Command: "b", Children: []ipc.Process{{Pid: 815, Command: "[c]"}}},
		}}})
	case "debug.state":
		ipctest.Items(r, []map[string]any{
			{"part": "server", "fds": 23, "store": map[string]any{"path": "/run/zinit/state", "bytes": 4096}},
			{"part": "service", "name": "db", "record": map[string]any{"up": true, "runs": []any{map[string]any{"id": 7}}}},
		})
	default:
		answer(r)
	}
}

// TestOutputOfInspection shows what people see; see TestOutputOfCommands.
func TestOutputOfInspection(t *testing.T) {
	s := ipctest.Serve(t, inspected)
	for _, test := range []struct {
		name    string
		command string
		options []option
	}{
		{"events", "events", nil},
		{"events-color", "events -f", []option{onTerminal(80)}},
		{"events-json", "events --json", nil},
		{"stats", "stats", nil},
		{"stats-40", "stats", []option{onTerminal(40), withEnv("NO_COLOR", "1")}},
		{"stats-json", "stats --json", nil},
		{"incidents", "incidents", nil},
		{"incidents-color", "incidents cache", []option{onTerminal(80)}},
		{"incidents-json", "incidents --json", nil},
		{"get", "get web", nil},
		{"get-color", "get web --reveal", []option{onTerminal(80)}},
		{"get-json", "get web --json", nil},
		{"debug-procs", "debug-procs db", nil},
		{"debug-procs-json", "debug-procs db --json", nil},
		{"debug-state", "debug-state", nil},
		{"debug-state-json", "debug-state --json", nil},
	} {
		t.Run(test.name, func(t *testing.T) { goldenOutput(t, s, test.name, test.command, test.options...) })
	}
}

func TestNothingToInspect(t *testing.T) {
	s := ipctest.Serve(t, func(r *ipctest.Request) { r.End() })
	for command, want := range map[string]string{
		"stats":           "No service has a process.\n",
		"incidents":       "Nothing has failed.\n",
		"debug-procs web": "web has no process.\n",
	} {
		r := zinit(t, append([]string{"--socket", s.Socket}, strings.Fields(command)...))
		if r.code != exitDone || r.stdout != "" || r.stderr != want {
			t.Errorf("%s: %+v, want %q", command, r, want)
		}
		r = zinit(t, append([]string{"--socket", s.Socket, "--json"}, strings.Fields(command)...))
		if r.code != exitDone || r.stdout != "[]\n" || r.stderr != "" {
			t.Errorf("%s --json: %+v, want an empty array", command, r)
		}
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1 << 10: "1.0 KiB", 1000 << 10: "1.0 MiB", 5_300_000: "5.1 MiB", 1 << 40: "1.0 TiB", 1 << 50: "1024.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
