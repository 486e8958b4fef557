package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// tuiScreen is zinit tui in a terminal of tmux's, as a person has it: keys go
// in, and what stands on the screen is waited for.
type tuiScreen struct {
	*live
	tmux []string
	env  []string
}

// screenServices are what the tests look at: shop needs db, and flaky fails.
var screenServices = map[string]string{
	"db":    "[service]\nexec = \"sleep 100000\"\n",
	"shop":  "[service]\nexec = \"sleep 100000\"\n[dependencies]\nrequires = [\"db\"]\n",
	"flaky": "[service]\nexec = \"sh -c 'echo all is lost; exit 3'\"\n[lifecycle]\nrestart = \"never\"\n",
	"talker": `[service]
exec = '''sh -c 'trap "echo poked" USR1; echo ready to talk; while :; do sleep 1000 & wait $!; done' '''
`,
}

// newTuiScreen starts zinit and a shell in a terminal of that size.
func newTuiScreen(t *testing.T, width, height int) *tuiScreen {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip(err)
	}
	s := &tuiScreen{live: newLive(t)}
	s.tmux = []string{"-S", filepath.Join(s.work, "t"), "-f", "/dev/null", "-u"}
	for _, kv := range s.live.env {
		if kv != s.mark && !strings.HasPrefix(kv, "TMUX") { // tmux ends by itself, and needs not be waited for
			s.env = append(s.env, kv)
		}
	}
	s.env = append(s.env, "LC_ALL=C.UTF-8", "SHELL=/bin/sh", "PS1=$ ", "NO_COLOR=")
	s.write(screenServices)
	s.up()
	s.settled("they are where they are to be", func(all map[string]ipc.Service) error {
		if all["shop"].State != ipc.StateRunning || all["talker"].State != ipc.StateRunning || all["flaky"].State != ipc.StateFailed {
			return fmt.Errorf("%v", all)
		}
		return nil
	})
	t.Cleanup(func() { s.tell("kill-server") })
	s.ask("new-session", "-d", "-x", strconv.Itoa(width), "-y", strconv.Itoa(height), "sh")
	return s
}

// tell runs a command of tmux.
func (s *tuiScreen) tell(args ...string) (string, error) {
	cmd := exec.Command("tmux", append(s.tmux, args...)...)
	cmd.Dir, cmd.Env = s.work, s.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *tuiScreen) ask(args ...string) string {
	s.t.Helper()
	out, err := s.tell(args...)
	if err != nil {
		s.t.Fatalf("tmux %v: %v\n%s", args, err, out)
	}
	return out
}

// keys presses keys, as tmux calls them.
func (s *tuiScreen) keys(keys ...string) {
	s.t.Helper()
	s.ask(append([]string{"send-keys"}, keys...)...)
}

// prompt is a shell that waits, at the end of the screen.
const prompt = `\$\s*\z`

// begin types a command line that shows the services, and leaves what the
// terminal was like before and after it in files.
func (s *tuiScreen) begin() {
	s.t.Helper()
	s.shows(prompt)
	s.ask("send-keys", "-l", `stty -g >before; sh -c 'echo $$ >pid; exec zinit tui'; echo "code $?"; stty -g >after; echo over`)
	s.keys("Enter")
	s.shows(`zinit .*running`)
}

// pid is the process of the last begin.
func (s *tuiScreen) pid() int {
	s.t.Helper()
	text, _ := os.ReadFile(filepath.Join(s.work, "pid"))
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

// shows waits until all of the patterns are on the screen, lacks until it is
// none.
func (s *tuiScreen) shows(patterns ...string) { s.t.Helper(); s.look(patterns, true) }
func (s *tuiScreen) lacks(patterns ...string) { s.t.Helper(); s.look(patterns, false) }

func (s *tuiScreen) look(patterns []string, want bool) {
	s.t.Helper()
	screen := ""
	if err := eventually(patience, func() error {
		screen = s.ask("capture-pane", "-p")
		for _, p := range patterns {
			if regexp.MustCompile("(?m)"+p).MatchString(screen) != want {
				return fmt.Errorf("%q on the screen: want %v", p, want)
			}
		}
		return nil
	}); err != nil {
		s.t.Fatalf("%v:\n%s", err, screen)
	}
}

// over waits until the program has ended with that code, and the terminal is as
// it was.
func (s *tuiScreen) over(code int) {
	s.t.Helper()
	s.shows(fmt.Sprintf(`^code %d$`, code), `^over$`)
	if alternate := s.ask("display-message", "-p", "#{alternate_on} #{mouse_any_flag} #{cursor_flag}"); alternate != "0 0 1\n" {
		s.t.Errorf("alternate screen, mouse, cursor: %q, want none, none and one", alternate)
	}
	before, _ := os.ReadFile(filepath.Join(s.work, "before"))
	after, _ := os.ReadFile(filepath.Join(s.work, "after"))
	if len(before) == 0 || string(before) != string(after) {
		s.t.Errorf("stty -g says %q, said %q before", after, before)
	}
}

// A person finds what has failed, reads why, looks at logs, and stops something.
func TestFullScreen(t *testing.T) {
	s := newTuiScreen(t, 80, 24)
	s.begin()
	if s.ask("display-message", "-p", "#{alternate_on}") != "1\n" {
		t.Error("it is not on the alternate screen")
	}
	// What has failed comes first, and the cursor is there.
	s.shows(`^    NAME .*\n\[X\] flaky .*exit code 3`)
	s.keys("Enter")
	s.shows(`^\[X\] flaky  failed`, `reason .*exit code 3`, `all is lost`)
	s.keys("Escape")

	s.keys("/")
	s.ask("send-keys", "-l", "talk")
	s.shows(`^/talk.* 1 of 4`, `talker`)
	s.lacks(`flaky`)
	s.keys("Enter")
	s.shows(`filter: talk \(1 of 4\)`)
	s.keys("l")
	s.shows(`^logs of talker .*following`, `^ready to talk`)
	// A line that comes is shown without a key.
	s.keys("K")
	s.shows(`^signal for talker: TERM`)
	s.keys("C-u")
	s.ask("send-keys", "-l", "usr1")
	s.keys("Enter")
	s.shows(`Send SIGUSR1 to talker\?`)
	s.keys("y")
	s.shows(`^poked`)
	s.keys("Space")
	s.shows(`paused`)
	s.keys("a")
	s.shows(`^logs of all services`, `^flaky +\| all is lost`, `^talker +\| poked`)
	s.keys("Escape")
	s.keys("Escape")
	s.shows(`flaky`, `shop`)

	s.keys("?")
	s.shows(`^Services +Logs`, `stop; asks first`)
	s.keys("Escape")
	s.lacks(`stop; asks first`)

	s.ask("resize-window", "-x", "40", "-y", "12")
	s.shows(`^Enter open .* \? help$`, `^\[\+\] db`)
	s.ask("resize-window", "-x", "140", "-y", "30")
	s.shows(`│ \[\+\] talker  running`, `│ +poked`, `R reload`)
	s.ask("resize-window", "-x", "80", "-y", "24")
	s.lacks(`│`)

	s.keys("Home", "Down", "x")
	s.shows(`^Stop db\?`, `1 other service, which needs it, is stopped first`, `^  \[\+\] shop`)
	s.keys("n")
	s.lacks(`Stop db\?`)
	s.shows(`\[\+\] shop +running`)
	s.keys("x")
	s.shows(`^Stop db\?`)
	s.keys("y")
	s.shows(`\[\?\] shop +blocked`, `\[\.\] db +exited`, `exited, and with it: shop`)
	s.keys("t")
	s.shows(`^what db requires`)
	s.keys("Tab")
	s.shows(`^what requires db`, `└─ \[\?\] shop`)
	s.keys("Escape")
	s.keys("s")
	s.shows(`\[\+\] shop +running`, `\[\+\] db +running`)

	// A new file is read after a look at what that changes.
	s.write(map[string]string{"extra": screenServices["db"]})
	s.keys("R")
	s.shows(`^Reload\?`, `^\+ extra`)
	s.keys("Enter")
	s.shows(`\[\+\] extra +running`)

	// Clicks: on a state above, on a row, on a key below.
	s.click(9, 0) // the first number
	s.shows(`filter: running \(4 of 5\)`)
	s.keys("Escape")
	s.click(8, 2)
	s.click(8, 2)
	s.shows(`^\[X\] flaky  failed`)
	s.click(1, 23) // Esc back
	s.shows(`NAME +STATE`)
	s.keys("q")
	s.over(0)
}

// click presses the left button on a cell, as a terminal reports it (mode 1006).
func (s *tuiScreen) click(x, y int) {
	s.t.Helper()
	for _, end := range []string{"M", "m"} {
		s.ask("send-keys", "-l", fmt.Sprintf("\x1b[<0;%d;%d%s", x+1, y+1, end))
	}
}

// The supervisor is killed, ends, and comes again: the picture stays and goes on.
func TestFullScreenGoesOn(t *testing.T) {
	s := newTuiScreen(t, 80, 24)
	s.begin()
	s.shows(`\[\+\] shop +running`)
	s.kill("zinit-server")
	s.shows(`zinit-server was replaced \(killed by SIGKILL\): no service was touched`, `\[\+\] shop +running`)
	// It hears of what happens then.
	if err := s.client.Stop(s.ctx, client.Options{}, nil, "shop"); err != nil {
		t.Fatal(err)
	}
	s.shows(`\[\.\] shop +exited`)

	pid1 := s.keepers[len(s.keepers)-1]
	pid1.cmd.Process.Signal(syscall.SIGTERM)
	s.shows(`no connection, trying again$`, `db`, `^cannot reach zinit-server`)
	<-pid1.ended
	s.client.Close()
	s.up()
	s.shows(`Another zinit answers now`, `\[\+\] shop +running`)
	s.lacks(`no connection`)
	s.keys("C-c")
	s.over(0)
}

// However it ends, the terminal is as it was.
func TestFullScreenGivesTheTerminalBack(t *testing.T) {
	s := newTuiScreen(t, 80, 24)
	for signal, code := range map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGHUP: 129, syscall.SIGINT: 130} {
		s.begin()
		syscall.Kill(s.pid(), signal)
		s.over(code)
		s.ask("send-keys", "-l", "clear")
		s.keys("Enter")
		s.shows(`\A` + prompt)
	}
	s.begin()
	s.keys("C-z")
	s.shows(`Stopped`, prompt)
	if s.ask("display-message", "-p", "#{alternate_on}") != "0\n" {
		t.Error("suspended, it keeps the alternate screen")
	}
	s.ask("send-keys", "-l", `clear; fg; echo "code $?"; stty -g >after; echo over`)
	s.keys("Enter")
	s.shows(`NAME +STATE`)
	s.keys("q")
	s.over(0)
}

// Without a terminal it says so, and so it does without a server.
func TestFullScreenNeedsATerminal(t *testing.T) {
	cmd := process("tui")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "have to be a terminal") || cmd.ProcessState.ExitCode() != exitFailed {
		t.Errorf("%v, %s", err, out)
	}
}
