package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExampleScripts runs each of testdata/scripts in a zinit of its own, which
// has no services before and none after it. What it prints stands at its end.
func TestExampleScripts(t *testing.T) {
	folder, err := filepath.Abs("../testdata/scripts")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Glob(filepath.Join(folder, "*.star"))
	if err != nil || len(examples) == 0 {
		t.Fatalf("there are no examples in %s: %v", folder, err)
	}
	for _, example := range examples {
		t.Run(filepath.Base(example), func(t *testing.T) {
			source, err := os.ReadFile(example)
			if err != nil {
				t.Fatal(err)
			}
			_, comment, ok := strings.Cut(string(source), "\n# Output:\n")
			if !ok {
				t.Fatal("it does not end with a comment Output: and what it prints")
			}
			want := strings.TrimPrefix(strings.ReplaceAll("\n"+comment, "\n# ", "\n"), "\n")
			l := newLive(t)
			l.up()
			out, err := l.command("zinit", "script", example).CombinedOutput()
			if err != nil || string(out) != want {
				t.Errorf("%v, it prints\n%s\nand not\n%s", err, out, want)
			}
			if left, err := l.command("zinit", "list", "-q").Output(); err != nil || len(left) > 0 {
				t.Errorf("it leaves services: %s%v", left, err)
			}
		})
	}
}

// TestScriptsInDocs runs what docs/scripting.md shows, one after the other.
func TestScriptsInDocs(t *testing.T) {
	page, err := os.ReadFile("../docs/scripting.md")
	if err != nil {
		t.Fatal(err)
	}
	l := newLive(t)
	l.write(map[string]string{
		"web": "[service]\nexec = \"sh -c 'echo listening; exec sleep 1000'\"\n",
		"bad": "[service]\nexec = \"false\"\n[lifecycle]\nrestart = \"never\"\n",
	})
	if err := os.Mkdir(filepath.Join(l.work, "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.work, "lib", "names.star"), []byte(`fleet = ["web"]`), 0o644); err != nil {
		t.Fatal(err)
	}
	l.up()
	blocks := strings.Split(string(page), "```python\n")[1:]
	if len(blocks) == 0 {
		t.Fatal("it shows no scripts")
	}
	for _, block := range blocks {
		text, _, _ := strings.Cut(block, "```")
		if err := os.WriteFile(filepath.Join(l.work, "shown.star"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := l.command("zinit", "script", "shown.star").CombinedOutput(); err != nil {
			t.Errorf("%v: %s\n%s", err, out, text)
		}
	}
}
