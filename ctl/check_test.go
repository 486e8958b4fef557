package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("good/web.toml", "[service]\nexec = \"true\"\n[dependencies]\nrequires = [\"db\"]\n")
	write("good/db.toml", "[service]\nexec = \"true\"\n")
	write("good/all.toml", "[target]\n[dependencies]\nrequires = [\"web\"]\n")
	bad := write("bad/web.toml", "[service]\nexce = \"/bin/web\"\n")
	write("half/api.toml", "[service]\nexec = \"true\"\n[dependencies]\nrequires = [\"web\"]\n")
	write("half/web.toml", "[service]\nexce = \"/bin/web\"\n")
	cycle := write("cycle/a.toml", "[service]\nexec = \"a\"\n[dependencies]\nrequires = [\"b\"]\n")
	write("cycle/b.toml", "[service]\nexec = \"b\"\n[dependencies]\nrequires = [\"a\"]\n")
	missing := write("missing/a.toml", "[service]\nexec = \"true\"\n[dependencies]\nrequires = [\"nobody\"]\n")
	for _, test := range []struct {
		paths  []string
		code   int
		stdout []string // parts of it
	}{
		{[]string{"good"}, exitDone, []string{"2 services, 1 target: no errors"}},
		{[]string{"good/web.toml"}, exitDone, []string{"1 service: no errors"}},
		{[]string{"bad"}, exitFailed, []string{bad + ":", "exce", "error"}},
		{[]string{"good", "bad/web.toml"}, exitFailed, []string{bad + ":", "2 services, 1 target: "}},
		{[]string{"half"}, exitFailed, []string{"1 service: 1 error\n"}},
		{[]string{"cycle"}, exitFailed, []string{cycle + ":4:12: ", "a -> b -> a", "2 services: 1 error"}},
		{[]string{"good", "cycle"}, exitFailed, []string{"4 services, 1 target: 1 error"}},
		{[]string{"good/web.toml", "good/web.toml"}, exitFailed, []string{"already a service named web"}},
		{[]string{"missing"}, exitDone, []string{missing + ":4:12: warning: ", "nobody", "1 service: no errors, 1 warning"}},
		{[]string{"missing/a.toml"}, exitDone, []string{"1 service: no errors"}},
		{[]string{"nowhere"}, exitFailed, nil},
	} {
		args := []string{"check"}
		for _, p := range test.paths {
			args = append(args, filepath.Join(dir, p))
		}
		r := zinit(t, args)
		if r.code != test.code {
			t.Errorf("%v: exit code %d, want %d: %s", test.paths, r.code, test.code, r.stderr)
		}
		for _, part := range test.stdout {
			if !strings.Contains(r.stdout, part) {
				t.Errorf("%v: %q is not in\n%s", test.paths, part, r.stdout)
			}
		}
	}
	r := zinit(t, []string{"check", "--json", filepath.Join(dir, "missing")})
	if !strings.HasPrefix(r.stdout, `{"errors":[],"warnings":[{"file":"`+missing) {
		t.Errorf("JSON: %s", r.stdout)
	}
}
