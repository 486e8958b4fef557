package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/common/spec"
)

func TestInitWritesAFileThatIsValid(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "web@1.toml")
	if r := zinit(t, []string{"init", "web@1", "--dir", dir}); r.code != exitDone || !strings.Contains(r.stdout, "zinit check "+path) {
		t.Fatalf("%+v", r)
	}
	if r := zinit(t, []string{"check", path}); r.code != exitDone || !strings.Contains(r.stdout, "1 service: no errors") {
		t.Errorf("check: %+v", r)
	}
	service, _, problems := spec.LoadFile(path)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if service.Name != "web@1" || service.Source() != "[service]\nname = \"web@1\"\nexec = \"/usr/bin/web@1\"\n" {
		t.Errorf("it sets more than what is required:\n%s", service.Source())
	}
}

func TestInitLeavesWhatExists(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "web.toml")
	if err := os.WriteFile(path, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := zinit(t, []string{"init", "web", "--dir", dir})
	if b, _ := os.ReadFile(path); r.code != exitFailed || !strings.Contains(r.stderr, "it exists already") || string(b) != "mine" {
		t.Errorf("%+v, and the file has %q", r, b)
	}
	if r := zinit(t, []string{"init", "../web", "--dir", dir}); r.code != exitUsage || !strings.Contains(r.stderr, "is not a valid name") {
		t.Errorf("a path in place of a name: %+v", r)
	}
}

// TestEachLineOfInitMayBeUncommented: what is shown for a key is valid as it
// stands, in a table with what that requires.
func TestEachLineOfInitMayBeUncommented(t *testing.T) {
	text := skeleton("web")
	for line := range strings.Lines(text) {
		if n := len(strings.TrimSuffix(line, "\n")); n > 80 && !strings.Contains(line, " = ") {
			t.Errorf("line of %d columns: %s", n, line)
		}
	}
	for _, f := range spec.Fields() {
		line := f.Key + " = " + sample(f, "web") + "\n"
		if f.Table == "target" || f.Table == "service" && f.Key == "exec" || f.Table == "xinet" && (f.Key == "name" || f.Key == "service") {
			continue
		}
		if !strings.Contains(text, "#"+line) {
			t.Errorf("%s.%s is not there as #%s", f.Table, f.Key, line)
			continue
		}
		file := "[service]\nexec = \"web\"\n"
		if f.Table != "service" {
			file += "[" + f.Table + "]\n"
		}
		switch {
		case f.Table == "health" && f.Key == "command":
			file += "type = \"exec\"\n"
		case f.Table == "health" && f.Key == "type":
			file += "endpoint = \"http://localhost:8080/health\"\n"
		case f.Table == "health" && f.Key == "endpoint":
			file += "type = \"http\"\n"
		case f.Table == "health":
			file += "type = \"http\"\nendpoint = \"http://localhost:8080/health\"\n"
		case f.Table == "xinet":
			if f.Key != "listen" {
				file += "listen = [\"tcp:127.0.0.1:5432\"]\n"
			}
			if f.Key != "backend" {
				file += "backend = \"unix:/run/web.sock\"\n"
			}
		}
		if _, _, problems := spec.Parse("web.toml", []byte(file+line)); len(problems) > 0 {
			t.Errorf("%s.%s: %v\n%s", f.Table, f.Key, problems, file+line)
		}
	}
}
