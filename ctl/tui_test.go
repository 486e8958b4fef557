package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/ctl/tui"
	"github.com/threefoldtech/zinit/ipc"
)

// newScreen is a full screen of that size, on a terminal with colours or
// without, that has heard of the services of answer.
func newScreen(width, height int, env map[string]string) *tui.Model {
	a := &app{world: world{
		terminal: true, getenv: func(key string) string { return env[key] },
		now: func() time.Time { return testNow }, zone: time.UTC,
	}}
	m := tui.New(newScreenLook(a), testNow)
	m.Update(tui.Resize{Width: width, Height: height})
	m.Update(tui.Snapshot{Services: services(), Info: info(), At: testNow})
	return m
}

// press tells of keys, and returns what is wanted for them.
func press(m *tui.Model, keys ...string) []tui.Effect {
	var all []tui.Effect
	for _, k := range keys {
		for _, e := range m.Update(tui.Key(k)) {
			all = append(all, e)
			answerEffect(m, e)
		}
	}
	return all
}

// answerEffect is what the server says.
func answerEffect(m *tui.Model, e tui.Effect) {
	switch e := e.(type) {
	case tui.Follow:
		lines := logLines()
		if e.Names != nil {
			lines = slices.DeleteFunc(lines, func(l ipc.LogLine) bool { return l.Service != e.Names[0] })
		}
		if !e.None {
			m.Update(tui.Lines{ID: e.ID, Lines: lines})
		}
	case tui.Inspect:
		in := tui.Inspected{Name: e.Name, Why: ipc.Why{Name: e.Name}}
		switch e.Name {
		case "api":
			in.Why = ipc.Why{Name: "api", State: ipc.StateBlocked, BlockedBy: []ipc.Block{{Kind: "requires", Name: "cache", State: ipc.StateFailed, Detail: "failed, retry in 4 s",
				Because: &ipc.Why{Name: "cache", State: ipc.StateFailed, Reason: &ipc.Reason{Message: "exit code 1"}, Detail: "exit code 1, retry in 4 s"}}}}
		case "cache":
			in.Incidents = []ipc.Incident{{Name: "cache", At: *ago(4 * time.Second), Reason: &ipc.Reason{Message: "exit code 1"}, Decision: "restarted in 4 s"}}
		}
		m.Update(in)
	case tui.AskTrees:
		m.Update(tui.Trees{AskTrees: e, Trees: []ipc.Tree{{Name: "db", State: ipc.StateRunning, Requires: []ipc.Tree{
			{Name: "api", State: ipc.StateBlocked}, {Name: "multi-user", State: ipc.StateRunning}}}}})
	case tui.Plan:
		m.Update(tui.Planned{Plan: ipc.Reloaded{
			Added: []string{"new"}, Removed: []string{"old"},
			Changed: []ipc.Change{{Name: "db", Fields: []string{"service.exec"}, Restart: true}}, Along: []string{"api"},
		}})
	}
}

// TestFullScreenPictures compares screens with files of testdata. Keys lead to
// each.
func TestFullScreenPictures(t *testing.T) {
	utf8, plain := map[string]string{"LANG": "C.UTF-8", "NO_COLOR": "1"}, map[string]string{"NO_COLOR": "1"}
	for _, test := range []struct {
		name          string
		width, height int
		env           map[string]string
		keys          string
	}{
		{"list", 80, 24, utf8, ""},
		{"list-color", 80, 24, map[string]string{"LANG": "C.UTF-8"}, ""},
		{"list-ascii", 80, 24, plain, "down"},
		{"list-40", 40, 12, utf8, ""},
		{"list-140", 140, 30, utf8, "down"},
		{"list-by-name", 80, 24, utf8, "o"},
		{"filter", 80, 24, utf8, "/ r u n enter"},
		{"filter-typing", 80, 24, utf8, "/ z z"},
		{"details", 80, 24, utf8, "enter"},
		{"details-failures", 80, 24, utf8, "down enter"},
		{"details-40", 40, 12, utf8, "enter"},
		{"logs", 80, 24, utf8, "down l"},
		{"logs-all", 80, 24, utf8, "L"},
		{"logs-search", 80, 24, utf8, "L T / B y T enter"},
		{"tree", 80, 24, utf8, "end k k k k k t tab"},
		{"stop", 80, 24, utf8, "down down x"},
		{"stop-40", 40, 12, utf8, "down down x"},
		{"restart", 80, 24, utf8, "down r"},
		{"kill", 80, 24, utf8, "down down K ctrl+u 9 enter"},
		{"kill-misspelt", 80, 24, utf8, "K S enter"},
		{"reload", 80, 24, utf8, "R"},
		{"help", 80, 24, utf8, "?"},
		{"help-40", 40, 12, utf8, "? end"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newScreen(test.width, test.height, test.env)
			press(m, strings.Fields(test.keys)...)
			golden(t, "tui-"+test.name, picture(m))
		})
	}
}

// picture is a screen that can be read: lines without the spaces at their ends,
// and colours as in the other files.
func picture(m *tui.Model) string {
	var b strings.Builder
	for _, line := range m.View() {
		b.WriteString(strings.TrimRight(strings.NewReplacer("\x1b[7m", "{7m", "\x1b[0m", "}", "\x1b[", "{").Replace(line), " ") + "\n")
	}
	return b.String()
}

// What is done is asked for once, and only after the answer.
func TestFullScreenAsksFirst(t *testing.T) {
	m := newScreen(80, 24, nil)
	does := func(effects []tui.Effect) []tui.Do {
		var all []tui.Do
		for _, e := range effects {
			if do, ok := e.(tui.Do); ok {
				all = append(all, do)
			}
		}
		return all
	}
	press(m, "down", "down") // db
	for _, test := range []struct {
		keys string
		want []tui.Do
	}{
		{"x n", nil},
		{"x esc", nil},
		{"x q", nil},
		{"x y", []tui.Do{{Verb: "stop", Name: "db"}}},
		{"r enter", []tui.Do{{Verb: "restart", Name: "db"}}},
		{"s", []tui.Do{{Verb: "start", Name: "db"}}},
		{"K enter n", nil},
		{"K ctrl+u H U P enter y", []tui.Do{{Verb: "kill", Name: "db", Signal: "SIGHUP"}}},
		{"R n", nil},
		{"R y", []tui.Do{{Verb: "reload"}}},
		{"y", nil},
		{"/ x enter esc", nil}, // typed, no command
	} {
		if got := does(press(m, strings.Fields(test.keys)...)); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.keys, got, test.want)
		}
	}
	if got := does(m.Update(tui.Paste("xyxyxy"))); got != nil {
		t.Errorf("pasted: %v", got)
	}
}

// A stop names everything that goes along, however far away, and nothing else.
func TestFullScreenNamesWhatStopsAlong(t *testing.T) {
	m := newScreen(80, 24, map[string]string{"NO_COLOR": "1"})
	on := func(name string, state ipc.State, requires ...string) ipc.Service {
		return ipc.Service{Name: name, Kind: "service", State: state, Desired: "up", Requires: requires}
	}
	done := on("c-done", ipc.StateExited, "a")
	done.Oneshot = true
	m.Update(tui.Snapshot{At: testNow, Services: []ipc.Service{
		on("a", ipc.StateRunning), on("b-uses-a", ipc.StateStarting, "a"), done, on("d-uses-done", ipc.StateRunning, "c-done"),
		on("e-down", ipc.StateInactive, "a"), on("f-uses-down", ipc.StateRunning, "e-down"), on("g-uses-f-and-b", ipc.StateRunning, "b-uses-a", "f-uses-down"),
		on("h-other", ipc.StateRunning),
	}})
	press(m, "x")
	_, dialog, _ := strings.Cut(picture(m), "Stop a?\n")
	want := `3 other services, which need it, are stopped first:
  [>] b-uses-a
  [+] f-uses-down
  [+] g-uses-f-and-b

`
	if !strings.HasPrefix(dialog, want) {
		t.Errorf("got\n%s\nwant\n%s", dialog, want)
	}
	// What has changed since is in it, too.
	m.Update(tui.Snapshot{At: testNow, Services: []ipc.Service{on("a", ipc.StateRunning), on("b-uses-a", ipc.StateInactive, "a")}})
	if got := picture(m); !strings.Contains(got, "Stop a?\nNo other service stops with it.\n") {
		t.Errorf("after a change:\n%s", got)
	}
}

// What happened is said in a line, or where that has no room in a dialog.
func TestFullScreenSaysWhatHappened(t *testing.T) {
	m := newScreen(80, 24, map[string]string{"NO_COLOR": "1"})
	for _, test := range []struct {
		event any
		want  string
	}{
		{tui.Done{Do: tui.Do{Verb: "stop", Name: "db"}, Moved: []ipc.Moved{
			{Name: "api", To: ipc.StateBlocked}, {Name: "db", To: ipc.StateStopping}, {Name: "db", To: ipc.StateExited}}},
			"\n[.] db  exited, and with it: api\n"},
		{tui.Done{Do: tui.Do{Verb: "kill", Name: "db", Signal: "HUP"}}, "\nDone: kill db.\n"},
		{tui.Done{Do: tui.Do{Verb: "start", Name: "db"}, Err: errors.New("no memory")}, "\nstart db: no memory\n"},
		{tui.Done{Do: tui.Do{Verb: "reload"}, Err: &ipc.Error{Kind: ipc.ErrInvalid, Message: "there are errors", Problems: []ipc.Problem{{File: "a.toml", Line: 3, Message: "unknown key"}}}},
			"\nreload was not done\nthere are errors\na.toml:3: unknown key\n"},
		{tui.Lost{Err: errors.New("cannot reach zinit-server at /z: \x1bgone")}, "\ncannot reach zinit-server at /z: \\x1bgone\n"},
	} {
		m.Update(tui.Key("esc")) // the dialog before
		m.Update(test.event)
		if got := picture(m); !strings.Contains(got, test.want) {
			t.Errorf("%+v: want %q in\n%s", test.event, test.want, got)
		}
	}
	if got := picture(m); !strings.Contains(got, "no connection, trying again\n") || !strings.Contains(got, "[+] db") {
		t.Errorf("the picture is not kept:\n%s", got)
	}
	again := info()
	again.ServerRestarts++
	m.Update(tui.Snapshot{Services: services(), Info: again, At: testNow})
	if got := picture(m); strings.Contains(got, "no connection") || !strings.Contains(got, "was replaced (upgrade from 0.0.9 to 0.1.0): no service was touched") {
		t.Errorf("after the loss:\n%s", got)
	}
	again.ServerRestarts++
	again.Replaced = append(again.Replaced, ipc.Replaced{Why: "killed by SIGKILL", StateOld: true})
	again.Unsaved = "no space left"
	m.Update(tui.Snapshot{Services: services(), Info: again, At: testNow})
	if got := picture(m); !strings.Contains(got, "was replaced (killed by SIGKILL): it found an old state.") {
		t.Errorf("after one that found an old state:\n%s", got)
	}
	m.Update(tui.Tick{Now: testNow.Add(time.Minute)}) // what was said is read
	if got := picture(m); !strings.Contains(got, "\nThe state cannot be saved: no space left\n") {
		t.Errorf("where the state cannot be saved:\n%s", got)
	}
}

// The cursor stays on its service, wherever that goes.
func TestFullScreenCursorStays(t *testing.T) {
	m := newScreen(80, 10, map[string]string{"NO_COLOR": "1"})
	press(m, "end") // web
	on := func(name string) {
		t.Helper()
		if got := picture(m); !strings.Contains(got, "{7m[") || !strings.Contains(got[strings.Index(got, "{7m["):][:20], name) {
			t.Errorf("the cursor is not on %s:\n%s", name, got)
		}
	}
	on("web")
	list := services()
	list[len(list)-1].State = ipc.StateFailed // now among the first
	m.Update(tui.Snapshot{Services: list, Info: info(), At: testNow})
	on("web")
	press(m, "o")
	on("web")
	press(m, "/", "d", "b")
	on("db")
	press(m, "esc")
	on("db")
	m.Update(tui.Snapshot{Services: list[3:], Info: info(), At: testNow}) // it is removed
	press(m, "home")
	on("logger")
}

// While a log is paused it stands still, whatever comes; what is kept has a
// limit.
func TestFullScreenLogStandsStill(t *testing.T) {
	m := newScreen(80, 24, map[string]string{"NO_COLOR": "1"})
	press(m, "L", " ")
	before := m.View()[2:20]
	var id int
	for _, e := range press(m, "a", "a") { // one, and all again
		if f, ok := e.(tui.Follow); ok {
			id = f.ID
		}
	}
	press(m, " ")
	for n := range 30 {
		news := tui.Lines{ID: id}
		for i := range 500 {
			news.Lines = append(news.Lines, ipc.LogLine{Service: "db", Text: fmt.Sprint("line ", n, " ", i)})
		}
		m.Update(news)
		if n == 0 && !slices.Equal(m.View()[2:20], before) {
			t.Fatalf("it moves while it is paused:\n%s", picture(m))
		}
	}
	if got := picture(m); !strings.Contains(got, "paused, ") {
		t.Errorf("it does not say how much there is below:\n%s", got)
	}
	m.Update(tui.Lines{ID: id - 1, Lines: []ipc.LogLine{{Text: "of another log"}}})
	press(m, "G")
	if got := picture(m); !strings.Contains(got, "line 29 499\n") || strings.Contains(got, "another log") {
		t.Errorf("it does not follow again:\n%s", got)
	}
}

// Whatever the size, the screen is filled and no line is too wide.
func TestFullScreenFitsEverySize(t *testing.T) {
	list := services()
	list[0].Note = strings.Repeat("wide 漢字 and é\u0301 ", 20)
	for _, keys := range []string{"", "enter", "L", "t", "?", "x", "K", "R", "/"} {
		for _, height := range []int{1, 2, 3, 4, 5, 8, 24, 50} {
			for width := 1; width < 150; width += 7 {
				m := newScreen(width, height, map[string]string{"LANG": "C.UTF-8"})
				m.Update(tui.Snapshot{Services: list, Info: info(), At: testNow})
				press(m, strings.Fields(keys)...)
				lines := m.View()
				if len(lines) != height {
					t.Fatalf("%q at %d×%d: %d lines", keys, width, height, len(lines))
				}
				for _, line := range lines {
					if n := tui.Columns(line); n > width {
						t.Errorf("%q at %d×%d: %q has %d columns", keys, width, height, line, n)
					}
				}
			}
		}
	}
}

// Whatever is pressed, clicked and heard, there is a picture.
func TestFullScreenAtRandom(t *testing.T) {
	keys := []string{"up", "down", "pgup", "pgdown", "home", "end", "enter", "esc", "tab", "backspace", "ctrl+u", " ",
		"q", "l", "L", "t", "a", "s", "x", "r", "K", "R", "o", "w", "T", "n", "N", "/", "?", "y", "e", "ü"}
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 1))
		m := newScreen(80, 24, map[string]string{"LANG": "C.UTF-8"})
		width, height := 80, 24
		for range 300 {
			switch random.IntN(20) {
			case 0:
				width, height = 1+random.IntN(160), 1+random.IntN(50)
				m.Update(tui.Resize{Width: width, Height: height})
			case 1, 2:
				for _, e := range m.Update(tui.Mouse{X: random.IntN(width), Y: random.IntN(height), Wheel: random.IntN(3) - 1}) {
					answerEffect(m, e)
				}
			case 3:
				list := services()
				random.Shuffle(len(list), func(i, j int) { list[i].State, list[j].State = list[j].State, list[i].State })
				m.Update(tui.Snapshot{Services: list[random.IntN(len(list)):], Info: info(), At: testNow})
			case 4:
				m.Update(tui.Lost{Err: errors.New("gone")})
			case 5:
				m.Update(tui.Tick{Now: testNow.Add(time.Duration(random.IntN(100)) * time.Second)})
			default:
				press(m, keys[random.IntN(len(keys))])
			}
			if lines := m.View(); len(lines) != height {
				t.Fatalf("seed %d: %d lines of %d", seed, len(lines), height)
			}
			if m.Pause() <= 0 {
				t.Fatalf("seed %d: it never rests", seed)
			}
		}
	}
}

func BenchmarkFullScreenOf1000(b *testing.B) {
	m := newScreen(100, 40, map[string]string{"LANG": "C.UTF-8"})
	var many []ipc.Service
	for i := range 1000 {
		s := services()[i%8]
		s.Name = fmt.Sprintf("%s-%04d", s.Name, i)
		many = append(many, s)
	}
	slices.SortFunc(many, func(a, b ipc.Service) int { return strings.Compare(a.Name, b.Name) })
	for i := range b.N {
		m.Update(tui.Snapshot{Services: many, Info: info(), At: testNow.Add(time.Duration(i) * time.Second)})
		m.View()
	}
}
