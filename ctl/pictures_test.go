package main

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/threefoldtech/zinit/ipc"
)

const (
	pictures      = "../docs/pictures"
	screenColumns = 96
)

// shop is what the pictures show.
var shop = map[string]string{
	"db":      readyAfter("0.62", ""),
	"cache":   readyAfter("0.2", ""),
	"migrate": "[service]\noneshot = true\nexec = \"sleep 0.41\"\n[dependencies]\nrequires = [\"db\"]\n",
	"web":     readyAfter("0.35", "requires = [\"db\", \"cache\"]\nafter = [\"migrate\"]\n"),
	"worker":  readyAfter("0.15", "requires = [\"db\", \"migrate\"]\nwants = [\"cache\"]\n"),
	"mail": "[service]\noneshot = true\nexec = \"sh -c 'echo smtp.example.org: no route to host; exit 1'\"\n" +
		"[lifecycle]\nrestart_delay_ms = 600000\nrestart_delay_max_ms = 600000\n[dependencies]\nafter = [\"db\"]\n",
	"news": "[service]\nexec = \"sleep 1000\"\n[dependencies]\nrequires = [\"mail\", \"db\"]\n",
	"shop": "[target]\n[dependencies]\nrequires = [\"web\", \"worker\"]\n",
}

// readyAfter is a service that is ready after so many seconds.
func readyAfter(seconds, dependencies string) string {
	return fmt.Sprintf("[service]\nexec = \"sh -c 'sleep %s; echo >&3; exec sleep 1000'\"\n[lifecycle]\nready = \"fd\"\n[dependencies]\n%s", seconds, dependencies)
}

// TestPicturesOfDocs draws the pictures of the docs from a real zinit, which
// -update keeps. They show times, so they differ a little each time.
func TestPicturesOfDocs(t *testing.T) {
	l := newLive(t)
	l.write(shop)
	l.up()
	l.settled("the shop is up", func(all map[string]ipc.Service) error {
		for name, want := range map[string]ipc.State{"shop": ipc.StateRunning, "mail": ipc.StateFailed, "news": ipc.StateBlocked} {
			if s := all[name]; s.State != want {
				return fmt.Errorf("%s is %s: %v", name, s.State, s.BlockedBy)
			}
		}
		return nil
	})
	of := func(args ...string) string {
		r := zinit(t, append([]string{"--socket", l.socket}, args...), onTerminal(screenColumns), withEnv("LANG", "C.UTF-8"))
		if r.code != 0 {
			t.Fatalf("%q: %s", args, r.stderr)
		}
		return r.stdout
	}
	drawings := map[string]string{"graph.svg": of("graph", "--svg", "-"), "boot.svg": of("boot", "--svg", "-")}
	if _, err := exec.LookPath("tmux"); err == nil {
		drawings["tui.svg"] = terminalPicture(fullScreen(l))
	}
	screen := ""
	for _, command := range []string{"list", "why news", "stop db"} {
		screen += "\x1b[1m$ zinit " + command + "\x1b[0m\n" + of(strings.Fields(command)...) + "\n"
	}
	drawings["terminal.svg"] = terminalPicture(screen)
	for name, picture := range drawings {
		d := xml.NewDecoder(strings.NewReader(picture))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if len(picture) > 20<<10 {
			t.Errorf("%s has %d bytes", name, len(picture))
		}
		if *update {
			if err := os.MkdirAll(pictures, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(pictures, name), []byte(picture), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// fullScreen is zinit tui, as it stands on a terminal that has just begun it.
func fullScreen(l *live) (screen string) {
	tmux := func(args ...string) string {
		cmd := exec.Command("tmux", append([]string{"-f", "/dev/null", "-S", filepath.Join(l.work, "tmux")}, args...)...)
		cmd.Dir, cmd.Env = l.work, append(l.env, "TERM=screen-256color", "LANG=C.UTF-8", "PATH="+livePrograms(l.t)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			l.t.Fatalf("tmux %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	tmux("new-session", "-d", "-x", strconv.Itoa(screenColumns), "-y", "14", "zinit", "tui")
	defer func() {
		tmux("kill-server") // which does not wait for it
		if err := eventually(patience, func() error {
			for _, p := range l.own() {
				if p.name == "zinit" || strings.HasPrefix(p.name, "tmux") {
					return fmt.Errorf("%s goes on", p)
				}
			}
			return nil
		}); err != nil {
			l.t.Error(err)
		}
	}()
	if err := eventually(patience, func() error {
		if screen = tmux("capture-pane", "-e", "-p"); !strings.Contains(screen, "news") {
			return fmt.Errorf("it shows\n%s", screen)
		}
		return nil
	}); err != nil {
		l.t.Fatal(err)
	}
	return screen
}

// Colours of a dark terminal, by number of SGR (ECMA-48).
var sgrColors = map[int]string{31: "#ff7b72", 32: "#7ee787", 33: "#e3b341", 34: "#79c0ff", 35: "#d2a8ff", 36: "#76e3ea", 90: "#8b949e"}

var sgr = regexp.MustCompile("\x1b\\[([0-9;]*)m")

// terminalPicture draws what a terminal shows.
func terminalPicture(screen string) string {
	const column, line, edge, bar = 8.0, 18.0, 16.0, 30.0
	lines := strings.Split(strings.TrimRight(screen, "\n"), "\n")
	width, height := screenColumns*column+2*edge, float64(len(lines))*line+bar+edge
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img">`, width, height, width, height)
	b.WriteString("<title>zinit in a terminal</title><style>text { font: 13px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre; fill: #d7dde4 }</style>\n")
	fmt.Fprintf(&b, `<rect width="%.0f" height="%.0f" rx="8" fill="#16191d"/>`+"\n", width, height)
	for i, color := range []string{"#ff5f57", "#febc2e", "#28c840"} {
		fmt.Fprintf(&b, `<circle cx="%d" cy="15" r="5.5" fill="%s"/>`+"\n", 20+18*i, color)
	}
	var look struct {
		bold, faint, reverse bool
		color                string
	}
	for row, text := range lines {
		x, top := 0, bar+float64(row)*line
		put := func(part string) {
			n := utf8.RuneCountInString(part)
			left, style := edge+float64(x)*column, ""
			if look.reverse && n > 0 {
				fmt.Fprintf(&b, `<rect x="%.0f" y="%.0f" width="%.0f" height="%.0f" fill="#39424e"/>`+"\n", left, top, float64(n)*column, line)
			}
			if look.bold {
				style += ` font-weight="bold"`
			}
			if look.faint {
				style += ` opacity="0.65"`
			}
			if look.color != "" {
				style += ` style="fill:` + look.color + `"`
			}
			if word := strings.TrimSpace(part); word != "" {
				left += float64(strings.Index(part, word)) * column
				fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" textLength="%.0f"%s>%s</text>`+"\n", left, top+13,
					float64(utf8.RuneCountInString(word))*column, style, escapeXML(word))
			}
			x += n
		}
		for m := sgr.FindStringSubmatchIndex(text); m != nil; m = sgr.FindStringSubmatchIndex(text) {
			put(text[:m[0]])
			for code := range strings.SplitSeq(text[m[2]:m[3]], ";") {
				switch n, _ := strconv.Atoi(code); n {
				case 0:
					look.bold, look.faint, look.reverse, look.color = false, false, false, ""
				case 1:
					look.bold = true
				case 2:
					look.faint = true
				case 7:
					look.reverse = true
				case 22:
					look.bold, look.faint = false, false
				case 27:
					look.reverse = false
				case 39:
					look.color = ""
				default:
					look.color = cmp.Or(sgrColors[n], look.color)
				}
			}
			text = text[m[1]:]
		}
		put(text)
	}
	return b.String() + "</svg>\n"
}
