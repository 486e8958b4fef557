package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// brokenFiles is a directory of service files each of which has a mistake: each
// field once with a value that no field can have and once misspelt, and what
// else can be wrong with a file. Those in others are well by themselves.
func brokenFiles() (broken, others map[string]string) {
	broken = map[string]string{}
	for i, f := range spec.Fields() {
		text := "[service]\nexec = \"true\"\n"
		switch f.Table {
		case "service":
		case "target":
			text = "[target]\n"
		default:
			text += "[" + f.Table + "]\n"
		}
		if f.Table+"."+f.Key == "service.exec" {
			text = "[service]\n"
		}
		name := fmt.Sprintf("f%03d-%s", i, f.Key)
		broken[name+"-type"] = text + f.Key + " = 1979-05-27\n"
		broken[name+"-key"] = text + f.Key[:1] + f.Key + " = 1\n"
	}
	for name, text := range map[string]string{
		"empty":        "",
		"no-main":      "[lifecycle]\nrestart = \"always\"\n",
		"two-mains":    "[service]\nexec = \"true\"\n[target]\n",
		"twice":        "[service]\nexec = \"true\"\nexec = \"false\"\n",
		"unclosed":     "[service]\nexec = \"true\n",
		"not-toml":     "#!/bin/sh\necho hello\n",
		"bytes":        "[service]\nexec = \"\xff\xfe\"\n",
		"a name":       "[service]\nexec = \"true\"\n",
		"many":         "[service]\nexec = \"true\"\n[service.env]\n" + manyKeys(80),
		"value":        "[service]\nexec = \"true\"\nstatus = \"stpo\"\n[lifecycle]\nstop_signal = \"SIGTREM\"\nrestart = \"on-falure\"\n",
		"rules":        "[service]\nexec = \"true\"\noneshot = true\n[lifecycle]\nready = \"notify\"\nwatchdog_ms = 1\n[health]\ntype = \"tcp\"\n",
		"self":         "[service]\nexec = \"true\"\n[dependencies]\nrequires = [\"self\"]\nafter = [\"x\", \"x\"]\n",
		"proxy":        "[xinet]\nlisten = [\"nowhere\"]\n",
		"control":      "[service]\nexec = \"a\\u0000b\"\ndir = \"\x1b[31m\"\n",
		"long":         "[service]\nexec = \"true\"\n" + strings.Repeat("k", 5000) + " = 1\n",
		"escaped-line": "[service]\nexec = \"\"\"\na\\\n  b\"\"\"\n\tuser = \"a b\"\n",
	} {
		broken[name] = text
	}
	service := "[service]\nexec = \"true\"\nstatus = \"stop\"\n"
	others = map[string]string{
		"good":    service,
		"ring-a":  service + "[dependencies]\nafter = [\"ring-b\"]\n",
		"ring-b":  service + "[dependencies]\nrequires = [\"ring-c\"]\n",
		"ring-c":  service + "[dependencies]\nafter = [\"ring-a\"]\n",
		"log-a":   service + "[logging]\nfile = \"/var/log/same.log\"\n",
		"log-b":   service + "[logging]\nfile = \"/var/log/../log/same.log\"\n",
		"log-c":   service + "[logging]\nfile = \"/var/log/same.log.3\"\n",
		"same-1":  service + "name = \"same\"\n",
		"same-2":  service + "name = \"same\"\n",
		"zz-last": service,
	}
	return broken, others
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "K%d = %d\n", i, i)
	}
	return b.String()
}

// Whoever reads a file with a mistake says the same of it: check, the start of
// zinit and its log, status, reload, set and add-service.
func TestMistakesAreToldTheSameEverywhere(t *testing.T) {
	l := newLive(t)
	broken, others := brokenFiles()
	l.write(broken)
	l.write(others)
	// Files that cannot be read, too.
	if err := errors.Join(
		os.Mkdir(filepath.Join(l.services, "dir.toml"), 0o755),
		os.Symlink("nowhere", filepath.Join(l.services, "dangling.toml")),
		os.WriteFile(filepath.Join(l.services, "large.toml"), make([]byte, 1<<20+1), 0o644),
	); err != nil {
		t.Fatal(err)
	}

	out, err := l.command("zinit", "check", "--json").Output()
	var checked struct{ Errors []ipc.Problem }
	if json.Unmarshal(out, &checked) != nil || len(checked.Errors) < len(broken) {
		t.Fatalf("zinit check: %v: %s", err, out)
	}
	byFile := map[string][]ipc.Problem{}
	for _, p := range checked.Errors {
		name := strings.TrimSuffix(filepath.Base(p.File), ".toml")
		byFile[name] = append(byFile[name], p)
	}
	for name := range broken {
		if len(byFile[name]) == 0 {
			t.Errorf("zinit check finds nothing wrong with %s.toml", name)
		}
	}
	for i, f := range spec.Fields() {
		name := fmt.Sprintf("f%03d-%s", i, f.Key)
		line := strings.Count(broken[name+"-type"], "\n")
		if got, want := problems(byFile[name+"-type"]), fmt.Sprintf(":%d:%d: %s.%s: must be ", line, len(f.Key)+4, f.Table, f.Key); !strings.Contains(got, want) || !strings.Contains(got, "not a date or a time") {
			t.Errorf("a value of another type says\n%s, want%s…", got, want)
		}
		if got, want := problems(byFile[name+"-key"]), fmt.Sprintf("unknown key %s%s in [%s]: did you mean %q?\n", f.Key[:1], f.Key, f.Table, f.Key); !strings.Contains(got, want) {
			t.Errorf("a misspelt key says\n%s, want %s", got, want)
		}
	}
	for _, p := range checked.Errors {
		if strings.ContainsFunc(p.Message, func(r rune) bool { return r < ' ' }) || len(p.Message) > 400 {
			t.Errorf("this is no message for a terminal: %q", p.Message)
		}
	}
	want := problems(checked.Errors)
	if out, _ := l.command("zinit", "check").Output(); !strings.Contains(string(out), want) {
		t.Errorf("zinit check says\n%s\nand with --json\n%s", out, want)
	}

	l.up()
	info, err := l.client.Info(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := problems(info.ConfigErrors); got != want {
		t.Errorf("zinit check says\n%s\nand the start\n%s", want, got)
	}
	log := l.log()
	for _, p := range checked.Errors {
		if !strings.Contains(log, "configuration: "+p.Message+" ") {
			t.Errorf("the log does not say: %s", p.Message)
		}
	}
	if got := slices.Sorted(maps.Keys(l.list())); fmt.Sprint(got) != "[good log-a log-b log-c ring-a ring-b ring-c same zz-last]" {
		t.Errorf("beside what is broken there are %v", got)
	}
	if out, _ := l.command("zinit", "status", "value").CombinedOutput(); !strings.Contains(string(out), strings.TrimSpace(problems(byFile["value"]))) {
		t.Errorf("zinit status says\n%s\nand check\n%s", out, problems(byFile["value"]))
	}

	for range 2 { // a refused reload changes nothing, so the next one says the same
		_, err = l.client.Reload(l.ctx, false)
		if got := problems(problemsOf(err)); got != want {
			t.Errorf("zinit check says\n%s\nand reload\n%s (%v)", want, got, err)
		}
	}

	for name, text := range broken {
		want := regexp.MustCompile(`(?m)^/.+?\.toml:(\d+):(\d+): `).ReplaceAllString(problems(byFile[name]), "line $1, column $2: ")
		want = regexp.MustCompile(`(?m)^/.+?\.toml: `).ReplaceAllString(want, "") // it is no file here
		ignore := func(ipc.Moved) {}
		if got := problems(problemsOf(l.client.Set(l.ctx, client.Options{}, text, name, ignore))); got != want {
			t.Errorf("check says\n%s\nand set\n%s", want, got)
		}
		if got := problems(problemsOf(l.client.Add(l.ctx, client.Options{}, text, name, true, ignore))); got != want {
			t.Errorf("check says\n%s\nand add-service\n%s", want, got)
		}
	}
	// What is wrong only together is told by set as well.
	for file, name := range map[string]string{"ring-b": "ring-a", "log-b": "log-b", "log-c": "log-c"} {
		if got, want := problems(problemsOf(l.client.Set(l.ctx, client.Options{}, others[file], file, func(ipc.Moved) {}))), problems(byFile[name]); got != want {
			t.Errorf("check says\n%s\nand set\n%s", want, got)
		}
	}
	if _, err := os.Stat(filepath.Join(l.services, "ring-b.toml")); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(filepath.Join(l.services, "value.toml")); string(got) != broken["value"] {
		t.Errorf("what was refused has changed a file: %s", got)
	}
}

// problemsOf are those of an answer that refuses something.
func problemsOf(err error) []ipc.Problem {
	var refused *ipc.Error
	if !errors.As(err, &refused) {
		return nil
	}
	return refused.Problems
}
