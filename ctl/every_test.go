package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/ipctest"
)

// everyCommand says how each command is called, for what all have in common.
// % is the name of a service, FILE a service file.
var everyCommand = map[string]struct {
	args string
	// local is a command that needs no server, prints one that has output at
	// once, slow one that waits longer than --timeout, for the server to say so.
	local, prints, slow bool
}{
	"list":           {args: "", prints: true},
	"status":         {args: "%", prints: true},
	"start":          {args: "%", slow: true, prints: true},
	"stop":           {args: "%", slow: true, prints: true},
	"restart":        {args: "%", slow: true},
	"kill":           {args: "% HUP"},
	"logs":           {args: "%", prints: true},
	"why":            {args: "%", prints: true},
	"tree":           {args: "%", prints: true},
	"graph":          {args: "", prints: true},
	"boot":           {args: ""},
	"get":            {args: "%"},
	"wait":           {args: "%", slow: true},
	"is-running":     {args: "%"},
	"events":         {args: ""},
	"incidents":      {args: "%"},
	"stats":          {args: "%"},
	"metrics":        {args: ""},
	"init":           {args: "--dir DIR %", local: true},
	"check":          {args: "FILE", local: true, prints: true},
	"reload":         {args: ""},
	"add-service":    {args: "FILE", slow: true},
	"set":            {args: "FILE", slow: true},
	"remove-service": {args: "%", slow: true},
	"start-all":      {args: "", slow: true},
	"stop-all":       {args: "", slow: true},
	"delete-all":     {args: "", slow: true},
	"xinet list":     {args: ""},
	"xinet status":   {args: "%"},
	"xinet set":      {args: "% --listen tcp:127.0.0.1:8080 --backend tcp:127.0.0.1:8081 --service %"},
	"xinet delete":   {args: "%"},
	"shutdown":       {args: "", slow: true},
	"poweroff":       {args: "", slow: true},
	"reboot":         {args: "", slow: true},
	"upgrade":        {args: "", slow: true},
	"tui":            {args: "", local: true}, // looks for a terminal first
	"script":         {args: "--builtin", local: true, prints: true},
	"debug-procs":    {args: "%"},
	"debug-state":    {args: ""},
	"completion":     {args: "bash", local: true, prints: true},
	"help":           {args: "", local: true, prints: true},
}

// TestEveryCommandFailsAlike: whatever is asked for, it is the same to a script
// that there is no server, that it may not ask, that there is no such service,
// that it takes too long or goes wrong, as words and as JSON.
func TestEveryCommandFailsAlike(t *testing.T) {
	refusing := func(kind ipc.ErrorKind) string {
		return ipctest.Serve(t, func(r *ipctest.Request) {
			r.Fail(&ipc.Error{Kind: kind, Message: "it is refused", Nearest: map[bool]string{true: "db"}[kind == ipc.ErrNotFound]})
		}).Socket
	}
	denied := ipctest.Serve(t, nil)
	denied.Deny(ipc.Errorf(ipc.ErrDenied, "it is refused"))
	gone := ipctest.Serve(t, nil)
	gone.End()
	silent := ipctest.Serve(t, func(r *ipctest.Request) { <-r.Canceled })
	file := filepath.Join(t.TempDir(), "db.toml")
	if err := os.WriteFile(file, []byte("[service]\nexec = \"sleep 1\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, socket string
		kind         string
		code         int
		words        string
	}{
		{"absent", gone.Socket, "unavailable", exitUnreachable, "cannot reach zinit-server at " + gone.Socket},
		{"denied", denied.Socket, "denied", exitDenied, "it is refused"},
		{"unknown", refusing(ipc.ErrNotFound), "not_found", exitNotFound, "it is refused; did you mean db?"},
		{"failed", refusing(ipc.ErrFailed), "failed", exitFailed, "it is refused"},
		{"invalid", refusing(ipc.ErrInvalid), "invalid", exitUsage, "it is refused"},
		{"too late", refusing(ipc.ErrTimeout), "timeout", exitTimeout, "it is refused"},
		{"silent", silent.Socket, "timeout", exitTimeout, "timed out after 50ms"},
	}
	for _, cmd := range commands() {
		how, ok := everyCommand[cmd.name]
		if !ok {
			t.Errorf("say in everyCommand how %s is called", cmd.name)
			continue
		}
		args := strings.Fields(cmd.name + " " + strings.NewReplacer("%", "db", "FILE", file, "DIR", t.TempDir()).Replace(how.args))
		if usage := zinit(t, append(args, "--nonsense")); usage.code != exitUsage || !strings.Contains(usage.stderr, "nonsense") || usage.stdout != "" {
			t.Errorf("%s with an unknown flag: %+v", cmd.name, usage)
		}
		for _, test := range tests {
			if how.local || how.slow && test.name == "silent" {
				continue
			}
			full := append([]string{"--socket", test.socket}, args...)
			if test.name == "silent" {
				full = append([]string{"--timeout", "50ms"}, full...)
			}
			r := zinit(t, full)
			if !strings.HasPrefix(r.stderr, "zinit: ") || !strings.Contains(r.stderr, test.words) || r.code != test.code || r.stdout != "" {
				t.Errorf("%s, %s: %+v", cmd.name, test.name, r)
			}
			if hint := "\nStart one with: zinit-server --config-dir DIR\n"; strings.HasSuffix(r.stderr, hint) != (test.name == "absent") {
				t.Errorf("%s, %s: hint in %q", cmd.name, test.name, r.stderr)
			}
			r = zinit(t, append([]string{"--json"}, full...))
			var e struct {
				Error struct{ Kind, Message string }
			}
			if err := json.Unmarshal([]byte(r.stderr), &e); err != nil || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("%s --json, %s: %q is no JSON object on a line, %v", cmd.name, test.name, r.stderr, err)
			}
			if e.Error.Kind != test.kind || !strings.Contains(e.Error.Message, test.words) || r.code != test.code {
				t.Errorf("%s --json, %s: exit code %d, %+v", cmd.name, test.name, r.code, e)
			}
			// What was done before it failed is data: here, nothing.
			if r.stdout != "" && r.stdout != "[]\n" {
				t.Errorf("%s --json, %s: prints %q", cmd.name, test.name, r.stdout)
			}
		}
	}
}

// A reader that has had enough ends a command as it ends any other tool.
func TestEveryCommandEndsWithItsReader(t *testing.T) {
	s := ipctest.Serve(t, answer)
	file := filepath.Join(t.TempDir(), "db.toml")
	if err := os.WriteFile(file, []byte("nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, how := range everyCommand {
		if !how.prints {
			continue
		}
		for _, flag := range []string{"--no-color", "--json"} {
			if name == "help" && flag == "--json" || name == "check" && flag == "--no-color" {
				continue
			}
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			read.Close()
			args := strings.Fields(name + " " + strings.NewReplacer("%", "db", "FILE", file).Replace(how.args))
			cmd := process(append([]string{"--socket", s.Socket, flag}, args...)...)
			var stderr strings.Builder
			cmd.Stdout, cmd.Stderr = write, &stderr
			cmd.Run()
			write.Close()
			status := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !status.Signaled() || status.Signal() != syscall.SIGPIPE || stderr.Len() > 0 {
				t.Errorf("%s %s: it ended with %v and said %q, want SIGPIPE and nothing", name, flag, cmd.ProcessState, stderr.String())
			}
		}
	}
}
