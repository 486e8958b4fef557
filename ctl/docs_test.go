package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ctl/script"
)

// TestDocsAreUpToDate compares pages of docs and the man pages with the tables
// of commands, flags, fields and functions of scripts. What stands between two
// markers is generated, and -update writes it anew; the rest is written by hand.
func TestDocsAreUpToDate(t *testing.T) {
	for file, generated := range map[string]map[string]string{
		"cli.md":               {"commands": commandDocs(), "flags": flagDocs()},
		"services.md":          fieldDocs(),
		"scripting.md":         {"functions": script.Reference(), "builtin": builtinDocs()},
		"man/zinit.1":          {"commands": commandPages(), "flags": flagPage(globalUsages)},
		"man/zinit-services.5": fieldPages(),
		"man/zinit-server.8":   {"flags": programFlags(t, "zinit-server")},
		"man/zinit-healthd.8":  {"flags": programFlags(t, "zinit-healthd")},
		"man/zinit-proxyd.8":   {"flags": programFlags(t, "zinit-proxyd")},
	} {
		file = "../docs/" + file
		old, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := string(old)
		for name, block := range generated {
			begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->\n"
			if !strings.HasSuffix(file, ".md") {
				begin, end = ".\\\" "+name+"\n", ".\\\" end of "+name+"\n"
			}
			before, rest, ok := strings.Cut(text, begin)
			_, after, ok2 := strings.Cut(rest, end)
			if !ok || !ok2 {
				t.Errorf("%s has no place for %s: a line %q and one %q", file, name, begin, end)
				continue
			}
			text = before + begin + block + end + after
		}
		switch {
		case text == string(old):
		case *update:
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("%s is stale: go test ./ctl -run DocsAreUpToDate -update", file)
		}
	}
}

// TestExamplesInDocsAreValid reads every piece of a service file that the docs
// show.
func TestExamplesInDocsAreValid(t *testing.T) {
	files, err := filepath.Glob("../docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no docs", err)
	}
	examples := 0
	for _, file := range append(files, "../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("```toml\\b.*\n").Split(string(text), -1)[1:] {
			example, _, _ := strings.Cut(block, "```")
			examples++
			whole := example
			if !regexp.MustCompile(`(?m)^ *\[(service|target|xinet)\]`).MatchString(example) {
				whole = "[service]\nexec = \"x\"\n" + example
			}
			if _, _, problems := spec.Parse("example.toml", []byte(whole)); len(problems) > 0 {
				t.Errorf("%s shows a file with errors: %v\n%s", file, problems, example)
			}
		}
	}
	if examples == 0 {
		t.Error("the docs have no examples")
	}
}

// TestCommandsInDocsAreAccepted reads every zinit command that the docs and the
// help show, but does not run it.
func TestCommandsInDocsAreAccepted(t *testing.T) {
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	accept := func(where, line string) {
		shown++
		if err := acceptable(line); err != nil {
			t.Errorf("%s shows a command that is refused: %s\n%v", where, line, err)
		}
	}
	inline := regexp.MustCompile("`(zinit(?:\\s[^`]+)?)`")
	anyBlock := regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	for _, file := range append(files, "../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range pageBlock.FindAllStringSubmatch(string(text), -1) {
			if m[1] != "sh" && m[1] != "console" {
				continue
			}
			for line := range strings.SplitSeq(strings.ReplaceAll(m[3], "\\\n", ""), "\n") {
				line = strings.TrimPrefix(strings.TrimPrefix(line, "$ "), "bin/")
				if strings.HasPrefix(line, "zinit ") {
					accept(file, line)
				}
			}
		}
		for _, m := range inline.FindAllStringSubmatch(anyBlock.ReplaceAllString(string(text), ""), -1) {
			accept(file, strings.Join(strings.Fields(m[1]), " "))
		}
	}
	for _, c := range commands() {
		_, examples, _ := strings.Cut(c.help, "Examples:\n")
		if strings.TrimSpace(examples) == "" {
			t.Errorf("the help of %s has no examples", c.name)
		}
	}
	if shown < 100 {
		t.Errorf("only %d commands are found", shown)
	}
}

// TestLinksInDocsLeadSomewhere looks for the files behind links and pictures, and
// for a link to each page in the README.
func TestLinksInDocsLeadSomewhere(t *testing.T) {
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	linked := map[string]bool{}
	for _, file := range append(files, "../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			target := filepath.Join(filepath.Dir(file), m[1])
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which is not there", file, m[1])
			}
			linked[target] = linked[target] || file == "../README.md"
		}
	}
	for _, file := range files {
		if !linked[file] {
			t.Errorf("the README has no link to %s", file)
		}
	}
}

var (
	quoted = regexp.MustCompile(`'[^']*'|"[^"]*"`)
	// shellWord ends the words of a command.
	shellWord = regexp.MustCompile(`^([|&;#]+|[0-9]*>.*)$`)
)

// acceptable says whether zinit would run a command line, which may be a usage.
func acceptable(line string) error {
	words := strings.Fields(quoted.ReplaceAllString(line, "x"))
	if i := slices.IndexFunc(words, shellWord.MatchString); i >= 0 {
		words = words[:i]
	}
	a := new(app)
	flags := newFlagSet()
	flags.SetInterspersed(false)
	a.globals(flags)
	if err := parse(flags, words[1:]); err != nil {
		return err
	}
	args := flags.Args()
	if len(args) > 0 && args[0] == "ctl" {
		args = args[1:]
	}
	if len(args) == 0 || len(args) == 1 && (args[0] == "COMMAND" || below(args[0]) != nil) {
		return nil
	}
	c, n, err := find(args)
	if err != nil {
		return err
	}
	flags = newFlagSet()
	c.setup(flags)
	a.globals(flags)
	if err := parse(flags, args[n:]); err != nil {
		return err
	}
	if c.max >= 0 && flags.NArg() > c.max {
		return fmt.Errorf("it takes no %q", flags.Arg(c.max))
	}
	return nil
}

func commandDocs() string {
	var b strings.Builder
	for _, c := range commands() {
		fmt.Fprintf(&b, "\n### %s\n\n```\n%s\n```\n\n", c.name, c.usage())
		help, examples, _ := strings.Cut(c.help, "Examples:\n")
		fmt.Fprintf(&b, "%s.\n", strings.ToUpper(c.summary[:1])+c.summary[1:])
		// What is indented is laid out by hand.
		for _, paragraph := range strings.Split(strings.TrimSpace(help), "\n\n") {
			switch {
			case paragraph == "":
			case strings.HasPrefix(paragraph, "  "):
				fmt.Fprintf(&b, "\n```\n%s\n```\n", paragraph)
			default:
				fmt.Fprintf(&b, "\n%s\n", asMarkdown(paragraph))
			}
		}
		own := newFlagSet()
		c.setup(own)
		if own.HasFlags() {
			var flags strings.Builder
			flagUsages(&flags, own)
			fmt.Fprintf(&b, "\n```\n%s```\n", flags.String())
		}
		fmt.Fprintf(&b, "\n```sh\n%s\n```\n", strings.ReplaceAll(strings.TrimSpace(examples), "\n  ", "\n"))
	}
	return b.String() + "\n"
}

func flagDocs() string {
	var flags strings.Builder
	globalUsages(&flags)
	return "\n```\n" + flags.String() + "```\n\n"
}

// builtinDocs lists the scripts that are built in.
func builtinDocs() string {
	var b strings.Builder
	b.WriteString("\n| script | |\n|---|---|\n")
	for _, s := range script.Builtins() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", strings.TrimSpace(s.Name+" "+s.Usage), s.Summary)
	}
	return b.String() + "\n"
}

// asMarkdown keeps what would be markup as it is.
func asMarkdown(text string) string {
	return strings.NewReplacer("*", `\*`, "_", `\_`, "<", `\<`).Replace(text)
}

// fieldDocs has a block for each table of a file.
func fieldDocs() map[string]string {
	blocks := map[string]string{}
	for _, f := range spec.Fields() {
		if blocks[f.Table] == "" {
			blocks[f.Table] = "\n| key | value | default | |\n|---|---|---|---|\n"
		}
		value, standard := f.Type.String(), "–"
		if f.Type == spec.TypeEnum {
			value = "`" + strings.ReplaceAll(f.Values, " ", "`, `") + "`"
		}
		if f.Default != "" {
			standard = "`" + f.Default + "`"
		}
		blocks[f.Table] += fmt.Sprintf("| `%s` | %s | %s | %s |\n", f.Key, inTable(value), inTable(standard), inTable(f.Doc))
	}
	for table := range blocks {
		blocks[table] += "\n"
	}
	return blocks
}

// inTable keeps text in its cell.
func inTable(text string) string {
	text = strings.ReplaceAll(text, "|", `\|`)
	if strings.Contains(text, "`") {
		return text
	}
	return asMarkdown(text)
}
