package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/common/spec"
)

// What is generated in docs/man, in the macros of man(7): see TestDocsAreUpToDate.

// TestManPagesAreWellFormed has both of the formatters that systems use read the
// pages.
func TestManPagesAreWellFormed(t *testing.T) {
	pages, err := filepath.Glob("../docs/man/*")
	if err != nil || len(pages) != 6 {
		t.Fatal("the pages are not all there:", pages, err)
	}
	checked := false
	for _, checker := range [][]string{
		{"mandoc", "-T", "lint", "-W", "warning"},
		{"groff", "-man", "-Tutf8", "-Kutf8", "-ww", "-z"},
	} {
		if _, err := exec.LookPath(checker[0]); err != nil {
			continue
		}
		checked = true
		for _, page := range pages {
			if out, err := exec.Command(checker[0], append(checker[1:], page)...).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%v %s: %v\n%s", checker, page, err, out)
			}
		}
	}
	if !checked {
		t.Skip("there is neither mandoc nor groff")
	}
}

func TestSystemdUnitIsValid(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip(err)
	}
	unit, err := os.ReadFile("../docs/zinit.service")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "zinit.service")
	here := strings.ReplaceAll(string(unit), "/usr/local/bin", livePrograms(t))
	if err := os.WriteFile(file, []byte(here), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

func commandPages() string {
	var b strings.Builder
	for _, c := range commands() {
		fmt.Fprintf(&b, ".SS %s\n.B %s\n.PP\n%s.\n", roff(c.name), roff(c.usage()), roff(strings.ToUpper(c.summary[:1])+c.summary[1:]))
		help, examples, _ := strings.Cut(c.help, "Examples:\n")
		for paragraph := range strings.SplitSeq(strings.TrimSpace(help), "\n\n") {
			switch {
			case paragraph == "":
			case strings.HasPrefix(paragraph, "  "):
				fmt.Fprintf(&b, ".PP\n.EX\n%s\n.EE\n", roff(paragraph))
			default:
				fmt.Fprintf(&b, ".PP\n%s\n", roff(paragraph))
			}
		}
		own := newFlagSet()
		c.setup(own)
		b.WriteString(flagPage(func(w io.Writer) { flagUsages(w, own) }))
		fmt.Fprintf(&b, ".PP\n.EX\n%s\n.EE\n", roff(strings.TrimRight(examples, "\n")))
	}
	return b.String()
}

// flagLine is the first line of a flag in help: names and value, explanation.
var flagLine = regexp.MustCompile(`^ +(-.*?)(?:   ? *(\S.*))?$`)

// flagPage makes of flags as help lists them a list of a page.
func flagPage(usages func(io.Writer)) string {
	var help, b strings.Builder
	usages(&help)
	for line := range strings.Lines(help.String()) {
		line = strings.TrimRight(line, "\n")
		if m := flagLine.FindStringSubmatch(line); m != nil {
			fmt.Fprintf(&b, ".TP\n.B %s\n", roff(m[1]))
			line = m[2]
		}
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(&b, "%s\n", roff(line))
		}
	}
	return b.String()
}

// programFlags are those of another program, as its own help has them.
func programFlags(t *testing.T, program string) string {
	out, err := exec.Command(filepath.Join(livePrograms(t), program), "--help").Output()
	if err != nil {
		t.Fatalf("%s --help: %v", program, err)
	}
	_, flags, _ := strings.Cut(string(out), "\n      --")
	flags, _, _ = strings.Cut("      --"+flags, "\n\n")
	return flagPage(func(w io.Writer) { io.WriteString(w, flags) })
}

// fieldPages has a list for each table of a file.
func fieldPages() map[string]string {
	blocks := map[string]string{}
	for _, f := range spec.Fields() {
		value := f.Type.String()
		if f.Type == spec.TypeEnum {
			value = strings.ReplaceAll(f.Values, " ", " | ")
		}
		if f.Default != "" {
			value += "; default " + f.Default
		}
		blocks[f.Table] += fmt.Sprintf(".TP\n.BR %s \" (\" \"%s\" )\n%s\n", f.Key, strings.ReplaceAll(roff(value), `"`, `\(dq`), roff(f.Doc))
	}
	return blocks
}

// roff keeps text as it is: a hyphen would be typeset as one that no shell
// knows, and a line that begins with a dot would be a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n.", "\n\\&.", "\n'", "\n\\&'").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
