package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/ipctest"
)

// The output of whole commands is compared with testdata/*.txt. With -update
// the files are written instead: look at each change before you keep it.
var update = flag.Bool("update", false, "rewrite testdata")

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs.\ngot:\n%s\nwant:\n%s", file, got, want)
	}
}

// goldenOutput compares all that a command prints with a file of testdata.
// Colours are made readable.
func goldenOutput(t *testing.T, s *ipctest.Server, name, command string, options ...option) {
	t.Helper()
	r := zinit(t, append([]string{"--socket", s.Socket}, strings.Fields(command)...), options...)
	got := fmt.Sprintf("$ zinit %s\n%s", command, strings.NewReplacer("\x1b[0m", "}", "\x1b[", "{").Replace(r.stdout))
	if r.stderr != "" {
		got += "-- stderr --\n" + r.stderr
	}
	if r.code != 0 {
		got += fmt.Sprintf("-- exit code %d --\n", r.code)
	}
	golden(t, name, got)
}

// TestOutputOfCommands shows what people see, on terminals of several widths
// and without one.
func TestOutputOfCommands(t *testing.T) {
	s := ipctest.Serve(t, answer)
	noColor := withEnv("NO_COLOR", "1")
	utf8 := withEnv("LANG", "de_DE.UTF-8")
	for _, test := range []struct {
		name    string
		command string
		options []option
	}{
		{"list-pipe", "list", nil},
		{"list-40", "list", []option{onTerminal(40), noColor}},
		{"list-60", "list", []option{onTerminal(60), noColor}},
		{"list-80", "list", []option{onTerminal(80), noColor}},
		{"list-120", "list", []option{onTerminal(120), noColor}},
		{"list-color", "list", []option{onTerminal(80)}},
		{"list-failed", "list --state failed", nil},
		{"list-quiet", "list -q", nil},
		{"list-json", "list --json", nil},
		{"status", "status", nil},
		{"status-40", "status", []option{onTerminal(40), noColor}},
		{"status-80", "status", []option{onTerminal(80), noColor}},
		{"status-json", "status --json", nil},
		{"status-all", "status api cache db logger migrate multi-user scratch web", nil},
		{"status-color", "status api", []option{onTerminal(80)}},
		{"status-name-json", "status cache --json", nil},
		{"start", "start db web", nil},
		{"start-no-wait", "start db web --no-wait", nil},
		{"start-json", "start db web --json", nil},
		{"stop", "stop db", []option{onTerminal(80)}},
		{"restart", "restart db", nil},
		{"restart-json", "restart db --json", nil},
		{"kill", "kill db HUP", nil},
		{"why", "why api", nil},
		{"why-40", "why api", []option{onTerminal(40), utf8, noColor}},
		{"why-utf8", "why api", []option{onTerminal(80), utf8, noColor}},
		{"why-json", "why api --json", nil},
		{"tree", "tree", nil},
		{"tree-utf8", "tree", []option{onTerminal(80), utf8, noColor}},
		{"tree-color", "tree", []option{onTerminal(80)}},
		{"tree-json", "tree --json", nil},
		{"graph", "graph", nil},
		{"graph-40", "graph", []option{onTerminal(40), noColor}},
		{"graph-color", "graph", []option{onTerminal(80)}},
		{"graph-json", "graph --json", nil},
		{"graph-dot", "graph --dot", nil},
		{"graph-svg", "graph --svg -", nil},
		{"boot", "boot", nil},
		{"boot-40", "boot", []option{onTerminal(40), noColor, utf8}},
		{"boot-color", "boot", []option{onTerminal(80), utf8}},
		{"boot-json", "boot --json", nil},
		{"boot-svg", "boot --svg -", nil},
		{"logs-one", "logs db", nil},
		{"logs-all", "logs", nil},
		{"logs-timestamps", "logs cache db --timestamps", nil},
		{"logs-terminal", "logs -f", []option{onTerminal(80)}},
		{"logs-json", "logs -f --json", nil},
		{"xinet-list", "xinet list", nil},
		{"xinet-list-60", "xinet list", []option{onTerminal(60), noColor}},
		{"xinet-status", "xinet status", []option{onTerminal(80)}},
		{"xinet-json", "xinet list --json", nil},
		{"wait", "wait db", nil},
		{"wait-json", "wait migrate --for exited --json", nil},
		{"not-found", "status dbb", nil},
		{"not-found-json", "status dbb --json", nil},
		{"help", "help", nil},
		{"help-logs", "logs -h", nil},
		{"help-xinet", "help xinet", nil},
	} {
		t.Run(test.name, func(t *testing.T) { goldenOutput(t, s, test.name, test.command, test.options...) })
	}
}

func TestListFitsEveryWidth(t *testing.T) {
	s := ipctest.Serve(t, func(r *ipctest.Request) {
		if r.Method == "system.info" {
			r.Respond(ipc.Info{})
			return
		}
		answer(r)
	})
	for width := 8; width < 150; width++ {
		r := zinit(t, []string{"--socket", s.Socket, "list"}, onTerminal(width), withEnv("NO_COLOR", "1"))
		lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
		if len(lines) != 1+len(services()) {
			t.Fatalf("%d columns: %d lines", width, len(lines))
		}
		for _, line := range lines {
			if len([]rune(line)) > width {
				t.Errorf("%d columns: %q has %d", width, line, len(line))
			}
		}
	}
}

// TestLongLinesAreFolded sees that the lines of a terminal are those of a pipe,
// broken between words wherever one would be too long.
func TestLongLinesAreFolded(t *testing.T) {
	s := ipctest.Serve(t, answer)
	style := regexp.MustCompile("\x1b\\[[0-9;]*m")
	for _, command := range []string{"status api cache", "status", "why api"} {
		args := append([]string{"--socket", s.Socket}, strings.Fields(command)...)
		words := func(text string) string {
			return strings.Join(strings.Fields(strings.ReplaceAll(text, "|", "")), " ")
		}
		piped := zinit(t, args).stdout
		for width := 50; width < 130; width++ {
			got := zinit(t, args, onTerminal(width), withEnv("NO_COLOR", "1")).stdout
			// The table of the summary is cut instead.
			if table := strings.Index(got, "\n\n    NAME"); command == "status" {
				got, piped = got[:table], strings.Split(piped, "\n\n    NAME")[0]
			}
			if words(got) != words(piped) {
				t.Fatalf("zinit %s, %d columns:\n%s\nin a pipe:\n%s", command, width, got, piped)
			}
			for line := range strings.Lines(got) {
				if n := len([]rune(line)) - 1; n > width {
					t.Errorf("zinit %s, %d columns: %q has %d", command, width, line, n)
				}
			}
			if colored := style.ReplaceAllString(zinit(t, args, onTerminal(width)).stdout, ""); !strings.HasPrefix(colored, got) {
				t.Errorf("zinit %s, %d columns, is folded otherwise with colours:\n%s", command, width, colored)
			}
		}
	}
}

func TestColorOnlyWhereItIsWanted(t *testing.T) {
	s := ipctest.Serve(t, answer)
	tree := []string{"--socket", s.Socket, "tree"}
	for _, test := range []struct {
		name    string
		args    []string
		options []option
		want    bool
	}{
		{"pipe", tree, nil, false},
		{"terminal", tree, []option{onTerminal(80)}, true},
		{"NO_COLOR", tree, []option{onTerminal(80), withEnv("NO_COLOR", "1")}, false},
		{"empty NO_COLOR", tree, []option{onTerminal(80), withEnv("NO_COLOR", "")}, true},
		{"dumb terminal", tree, []option{onTerminal(80), withEnv("TERM", "dumb")}, false},
		{"--no-color", append(tree, "--no-color"), []option{onTerminal(80)}, false},
		{"--no-color before", append([]string{"--no-color"}, tree...), []option{onTerminal(80)}, false},
		{"--json", append(tree, "--json"), []option{onTerminal(80)}, false},
	} {
		if got := strings.Contains(zinit(t, test.args, test.options...).stdout, "\x1b["); got != test.want {
			t.Errorf("%s: coloured %v, want %v", test.name, got, test.want)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90": 90 * time.Second, "2s": 2 * time.Second, "1m30s": 90 * time.Second, "0.5": 500 * time.Millisecond,
		"": 0, "0": 0, "-1": 0, "5x": 0,
	} {
		if got, err := parseDuration(text); got != want || (err != nil) != (want == 0) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m 1s", 2*time.Hour + 3*time.Minute: "2h 3m", 75 * time.Hour: "3d 3h",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func FuzzDuration(f *testing.F) {
	for _, text := range []string{"90", "2s", "1m30s", "0.5", "", "-1", "5x", "10000000000", "1e9", ".s", "+1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseDuration(text)
		if (err == nil) != (d > 0) {
			t.Fatalf("%q: %v, %v", text, d, err)
		}
		if again, err := parseDuration(d.String()); d > 0 && (again != d || err != nil) {
			t.Fatalf("%q is %v, which is %v, %v", text, d, again, err)
		}
	})
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"plain ü €\t.":      "plain ü €\t.",
		"\x1b[31m\r\n\x00":  `\x1b[31m\x0d\x0a\x00`,
		"\xff|\u009b|\x7f":  `\xff|\x9b|\x7f`,
		"a\u202eb\u2066c":   `a\u202eb\u2066c`,
		"\uFFFD is allowed": "\uFFFD is allowed",
	} {
		if got := clean(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
