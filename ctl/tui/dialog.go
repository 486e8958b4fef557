package tui

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
)

// dialog asks before something is done, or, without an effect, says something
// that does not fit into the notice.
type dialog struct {
	title  string
	lines  []string
	does   string // what y does, in a word
	effect Effect
	top    int
}

// answer is a key while there is a dialog.
func (m *Model) answer(k Key) {
	d := m.dialog
	switch k {
	case "y", "Y", "enter":
		m.dialog = nil
		if do, ok := d.effect.(Do); ok {
			m.do(do)
		}
	case "n", "N", "q", "esc":
		m.dialog = nil
	default:
		d.top, _ = cursor(k, d.top, 1<<20, 5)
	}
}

// viewDialog is the dialog as lines at the bottom, in at most so many rows.
func (m *Model) viewDialog(rows int) []string {
	d := m.dialog
	lines := []string{m.rule(m.width), m.look.Bold(d.title)}
	var text []string
	for _, line := range d.lines {
		text = append(text, wrap(line, m.width, 2, 10)...)
	}
	if room := rows - len(lines) - 1; len(text) > room {
		room = max(1, room-1)
		d.top = max(0, min(d.top, len(text)-room))
		shown := text[d.top:min(d.top+room, len(text))]
		lines = append(append(lines, shown...), m.look.Dim(fmt.Sprintf("  %d of %d lines, the arrows move", d.top+len(shown), len(text))))
	} else {
		lines = append(lines, text...)
	}
	lines = append(lines, "")
	return lines[:min(len(lines), rows)]
}

// do does something and says so.
func (m *Model) do(d Do) {
	m.say(m.look.Dim(strings.TrimSpace(d.Verb+" "+d.Name) + " ..."))
	m.want(d)
}

// along are the services that stop when one does, because they require it or
// another one that stops. A oneshot that has done its work needs nothing any
// more, and what is down passes the stop on.
func (m *Model) along(name string) []ipc.Service {
	users := map[string][]ipc.Service{}
	for _, s := range m.services {
		for _, required := range s.Requires {
			users[required] = append(users[required], s)
		}
	}
	seen := map[string]bool{name: true}
	var stopping []ipc.Service
	for todo := []string{name}; len(todo) > 0; todo = todo[1:] {
		for _, s := range users[todo[0]] {
			if seen[s.Name] || s.Oneshot && s.State == ipc.StateExited && s.Desired == "up" {
				continue
			}
			seen[s.Name] = true
			todo = append(todo, s.Name)
			if s.State == ipc.StateRunning || s.State == ipc.StateStarting {
				stopping = append(stopping, s)
			}
		}
	}
	slices.SortFunc(stopping, func(a, b ipc.Service) int { return strings.Compare(a.Name, b.Name) })
	return stopping
}

// confirmStop asks before a stop or a restart, and says what goes along.
func (m *Model) confirmStop(verb, name string) {
	m.dialog = &dialog{
		title: fmt.Sprintf("%s %s?", strings.ToUpper(verb[:1])+verb[1:], name), does: verb,
		effect: Do{Verb: verb, Name: name}, lines: m.stopLines(verb, name),
	}
}

// stopLines say what goes along with a stop or a restart.
func (m *Model) stopLines(verb, name string) []string {
	var lines []string
	along := m.along(name)
	switch n := len(along); {
	case n == 0:
		lines = []string{m.look.Dim("No other service stops with it.")}
	case verb == "restart":
		lines = []string{count(n, "other service, which needs it, stops and starts with it:", "other services, which need it, stop and start with it:")}
	default:
		lines = []string{count(n, "other service, which needs it, is stopped first:", "other services, which need it, are stopped first:")}
	}
	for _, s := range along {
		lines = append(lines, "  "+m.look.Symbol(s.State)+" "+m.look.Clean(s.Name))
	}
	return lines
}

// renew brings what a dialog says up to date.
func (m *Model) renew() {
	if m.dialog == nil {
		return
	}
	if do, ok := m.dialog.effect.(Do); ok && (do.Verb == "stop" || do.Verb == "restart") {
		m.dialog.lines = m.stopLines(do.Verb, do.Name)
	}
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// askSignal asks which signal to send.
func (m *Model) askSignal(name string) {
	m.input = &input{
		label: "signal for " + name + ": ", text: "TERM", does: "send",
		changed: func(string) {}, cancelled: func() {},
		done: func(text string) {
			number, err := spec.SignalNumber(strings.TrimSpace(text))
			if err != nil {
				m.say(m.look.Bad(m.look.Clean(err.Error())))
				return
			}
			signal := spec.SignalName(number)
			d := &dialog{title: fmt.Sprintf("Send %s to %s?", signal, name), does: "send", effect: Do{"kill", name, signal}}
			d.lines = []string{m.look.Dim("To its process group. If it ends, it is restarted as its configuration says.")}
			if along := m.along(name); len(along) > 0 {
				d.lines = append(d.lines, m.look.Dim("Should it stay down, so do these, which require it:"))
				for _, s := range along {
					d.lines = append(d.lines, "  "+m.look.Symbol(s.State)+" "+m.look.Clean(s.Name))
				}
			}
			m.dialog = d
		},
	}
}

// planned shows what a reload would do.
func (m *Model) planned(p Planned) {
	if p.Err != nil {
		m.failed("reload", p.Err)
		return
	}
	m.dialog = &dialog{title: "Reload?", lines: m.look.Plan(p.Plan), does: "reload", effect: Do{Verb: "reload"}}
	if len(p.Plan.Added)+len(p.Plan.Removed)+len(p.Plan.Changed) == 0 {
		m.dialog = nil
		m.say("Nothing in the service directory has changed.")
	}
}

// done says how an action went.
func (m *Model) done(d Done) {
	what := strings.TrimSpace(d.Verb + " " + d.Name)
	if d.Err != nil {
		m.failed(what, d.Err)
		return
	}
	text, others := "", []string{}
	for _, moved := range d.Moved {
		switch line := m.look.Moved(moved); {
		case moved.Name == d.Name && line != "":
			text = line
		case moved.Name != d.Name && line != "" && !slices.Contains(others, moved.Name):
			others = append(others, moved.Name)
		}
	}
	if text == "" {
		text = "Done: " + what + "."
	}
	if len(others) > 0 {
		text += m.look.Dim(", and with it: " + strings.Join(others, ", "))
	}
	for _, note := range d.Notes {
		text += m.look.Dim("; " + note)
	}
	m.say(text)
}

// failed says what went wrong: where there is room, or in a dialog.
func (m *Model) failed(what string, err error) {
	message := what + ": " + m.look.Explain(err)
	if !strings.Contains(message, "\n") && Columns(message) <= m.width {
		m.say(m.look.Bad(m.look.Clean(message)))
		return
	}
	d := &dialog{title: what + " was not done"}
	for line := range strings.SplitSeq(m.look.Explain(err), "\n") {
		d.lines = append(d.lines, m.look.Clean(line))
	}
	m.notice = notice{}
	m.dialog = d
}

// input is a line that is being typed.
type input struct {
	label, text string
	does        string       // what Enter does, in a word
	changed     func(string) // at each key
	done        func(string)
	cancelled   func()
}

// maxInput bounds what is typed.
const maxInput = 200

func (in *input) insert(text string) {
	for _, r := range text {
		if r >= ' ' && r != 0x7f && len(in.text) < maxInput {
			in.text += string(r)
		}
	}
	in.changed(in.text)
}

// typed is a key while there is an input.
func (m *Model) typed(k Key) {
	in := m.input
	switch k {
	case "enter":
		m.input = nil
		in.done(in.text)
	case "esc":
		m.input = nil
		in.cancelled()
	case "backspace":
		_, size := utf8.DecodeLastRuneInString(in.text)
		in.text = in.text[:len(in.text)-size]
		in.changed(in.text)
	case "ctrl+u", "ctrl+w":
		in.text = ""
		in.changed("")
	case "up", "down", "pgup", "pgdown":
		if m.place() == atList {
			m.listKey(k)
		}
	default:
		if utf8.RuneCountInString(string(k)) == 1 {
			in.insert(string(k))
		}
	}
}

// inputHint is what there is to know beside what was typed.
func (m *Model) inputHint() string {
	if m.place() == atList && m.input.does == "keep" {
		return fmt.Sprintf("  %d of %d", len(m.list.shown), len(m.services))
	}
	return ""
}
