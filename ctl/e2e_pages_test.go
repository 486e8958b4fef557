package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// playedPages are those that TestPages does.
var playedPages = []struct {
	name        string
	installed   bool   // the programs are in PATH, else in bin of the clone
	user, needs string // who reads it instead of root, with which program
	ports       []string
}{
	{"docs/getting-started.md", false, "postgres", "pg_ctlcluster", []string{"6543", "6544"}},
	{"docs/guide.md", true, "nobody", "bash", nil},
	{"docs/health.md", true, "nobody", "redis-server", []string{"6379", "8080"}},
	{"docs/sockets.md", true, "nobody", "redis-server", []string{"6379", "6380", "8080"}},
	{"docs/scripting.md", true, "nobody", "bash", nil},
}

// TestPages does what pages for newcomers say, from top to bottom, in an empty
// home directory:
//
//   - toml blocks whose first line is a comment with a path become that file;
//   - sh blocks are run by bash, whose variables and directory go on to the next;
//   - console blocks are commands behind "$ " and what they print. Numbers and
//     the width of columns do not matter, a line "..." stands for any lines.
//
// What stands behind the language of a block says why it is not run. TCP ports
// are replaced by free ones, /home/you by the directory.
func TestPages(t *testing.T) {
	for _, page := range playedPages {
		t.Run(page.name, func(t *testing.T) {
			if _, err := exec.LookPath(page.needs); err != nil {
				t.Skip(err)
			}
			if _, err := user.LookupId(strconv.Itoa(os.Getuid())); err != nil && page.user == "postgres" {
				t.Skip("PostgreSQL runs as a user with a name only:", err)
			}
			text, err := os.ReadFile(filepath.Join("..", page.name))
			if err != nil {
				t.Fatal(err)
			}
			r := newReader(t, page.user)
			if page.installed {
				r.path = livePrograms(t) + ":" + r.path
			}
			replace := []string{"/home/you", r.home}
			for _, port := range page.ports {
				replace = append(replace, port, strconv.Itoa(r.port()))
			}
			blocks := pageBlock.FindAllStringSubmatch(strings.NewReplacer(replace...).Replace(string(text)), -1)
			for _, m := range blocks {
				switch language, why, body := m[1], m[2], m[3]; {
				case why != "":
				case language == "toml":
					r.save(body)
				case language == "sh":
					r.run(body)
				case language == "console":
					for _, step := range strings.Split("\n"+body, "\n$ ")[1:] {
						command, want, _ := strings.Cut(step, "\n")
						r.expect(command, want)
					}
				}
			}
		})
	}
}

// TestCommandsInDocsAreRun finds the pages whose commands nobody runs.
func TestCommandsInDocsAreRun(t *testing.T) {
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	// The examples of cli.md are those of the help, for services that everybody
	// has to imagine; every_test.go runs the commands.
	played := map[string]bool{"../docs/cli.md": true}
	for _, page := range playedPages {
		played["../"+page.name] = true
	}
	for _, file := range append(files, "../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range pageBlock.FindAllStringSubmatch(string(text), -1) {
			why, marked := strings.CutPrefix(m[2], "not run: ")
			if m[2] != "" && (!marked || why == "") {
				t.Errorf("%s: %q says nothing about why it is not run", file, m[2])
			}
			if (m[1] == "sh" || m[1] == "console") && !marked && !played[file] {
				t.Errorf("%s shows commands that are not run, and does not say why:\n%s", file, m[3])
			}
		}
	}
}

var pageBlock = regexp.MustCompile("(?ms)^```(\\w+) ?([^\n]*)\n(.*?)^```$")

// reader is somebody who types what a page says.
type reader struct {
	*live
	home string
	path string
	as   *syscall.SysProcAttr
}

func newReader(t *testing.T, name string) *reader {
	r := &reader{live: newLive(t), path: os.Getenv("PATH")}
	r.home = filepath.Join(r.work, "home")
	for _, dir := range []string{r.home, r.home + "/zinit"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(livePrograms(t), r.home+"/zinit/bin"); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"env": "", "cwd": r.home + "/zinit"} {
		if err := os.WriteFile(filepath.Join(r.home, "."+file), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 {
		u, err := user.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		r.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		err = filepath.WalkDir(r.home, func(path string, _ os.DirEntry, err error) error { return os.Lchown(path, uid, gid) })
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			r.bash("zinit shutdown")
		}
		// The command is done when the supervisor is; its parent goes next.
		eventually(patience, func() error {
			if left := r.processes(); len(left) > 0 {
				return fmt.Errorf("there are still %v", left)
			}
			return nil
		})
	})
	return r
}

// bash runs a script as if it were typed behind those before.
func (r *reader) bash(script string) (string, error) {
	cmd := exec.Command("bash", "-c", `. ~/.env; cd "$(cat ~/.cwd)"; set -e
`+script+`
export -p >~/.env; pwd >~/.cwd`)
	cmd.Dir, cmd.SysProcAttr = r.home, r.as
	cmd.Env = []string{r.mark, "HOME=" + r.home, "PATH=" + r.path, "XDG_RUNTIME_DIR=" + r.home,
		"ZINIT_SOCKET=" + r.home + "/zinit.sock", "ZINIT_CONFIG_DIR=" + r.home + "/.config/zinit/services"}
	// Not a pipe: what goes on in the background would hold it open.
	out, err := os.Create(filepath.Join(r.work, "out"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	text, _ := os.ReadFile(out.Name())
	return string(text), err
}

func (r *reader) run(script string) {
	r.t.Helper()
	if out, err := r.bash(script); err != nil {
		r.t.Fatalf("%s\n%s%v", script, out, err)
	}
}

// looking are the commands that people give again when they see that something
// is still under way.
var looking = regexp.MustCompile(`^zinit (list|status|why|tree|graph|boot|logs|events|incidents|stats|xinet list|xinet status)\b`)

func (r *reader) expect(command, want string) {
	r.t.Helper()
	if strings.HasSuffix(command, "&") {
		r.run(command + "\nwhile ! zinit list >/dev/null 2>&1; do kill -0 $!; sleep 0.02; done")
		return
	}
	pattern := regexp.MustCompile(printed(want))
	try := func() error {
		out, err := r.bash(command)
		if err != nil || !pattern.MatchString(comparable(out)) {
			return fmt.Errorf("it printed\n%sbut the page says\n%s%v", out, want, err)
		}
		return nil
	}
	var err error
	if looking.MatchString(command) {
		err = eventually(patience, try)
	} else {
		err = try()
	}
	if err != nil {
		r.t.Fatalf("%s: %v", command, err)
	}
}

// save writes a file that the page shows.
func (r *reader) save(text string) {
	r.t.Helper()
	line, _, _ := strings.Cut(text, "\n")
	path, ok := strings.CutPrefix(line, "# ~/")
	if !ok {
		return
	}
	path = filepath.Join(r.home, path)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

var (
	digits = regexp.MustCompile(`[0-9]+(\.[0-9]+)?`)
	blanks = regexp.MustCompile(` +`)
)

// comparable is output without what is different each time.
func comparable(text string) string {
	return blanks.ReplaceAllString(digits.ReplaceAllString(strings.TrimRight(text, "\n")+"\n", "0"), " ")
}

// printed is a pattern for output that a page shows.
func printed(text string) string {
	return "^" + strings.ReplaceAll(regexp.QuoteMeta(comparable(text)), regexp.QuoteMeta("...\n"), "(.*\n)*") + "$"
}
