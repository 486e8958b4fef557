package tui

import (
	"fmt"
	"strings"

	"github.com/threefoldtech/zinit/ipc"
)

// View is the screen: as many lines as it has rows, none wider than it is.
func (m *Model) View() []string {
	m.zones = m.zones[:0]
	var body []string
	switch m.place() {
	case atList:
		body = m.viewList()
	case atDetails:
		body = m.viewDetails()
	case atLogs:
		body = m.viewLogs()
	case atTree:
		body = m.viewTree()
	case atHelp:
		body = m.viewHelp()
	}
	body = append(body, make([]string, max(0, m.body()-len(body)))...)[:m.body()]
	if m.dialog != nil {
		box := m.viewDialog(m.body())
		copy(body[len(body)-len(box):], box)
	}
	lines := append(append([]string{m.viewHeader()}, body...), m.viewNotice(), m.viewKeys())
	if m.height < 4 { // what matters first
		lines, m.zones = lines[1:], nil
	}
	lines = lines[:m.height]
	for i, line := range lines {
		lines[i] = cut(line, m.width)
	}
	return lines
}

// viewHeader is the line on top: how many services are in which state, and how
// long zinit is up, or that it does not answer.
func (m *Model) viewHeader() string {
	right := ""
	switch {
	case m.lost != nil:
		right = m.look.Bad("no connection, trying again")
	case !m.loaded:
		right = m.look.Dim("connecting")
	case m.info.ShuttingDown:
		right = m.look.Warn("shutting down")
	default:
		up := m.info.UptimeMS + m.now.Sub(m.at).Milliseconds()
		right = m.look.Dim("up " + m.look.Duration(up))
	}
	counts := map[ipc.State]int{}
	for _, s := range m.services {
		counts[s.State]++
	}
	room := m.width - Columns(right) - 2
	line := m.look.Bold("zinit")
	for _, words := range []bool{true, false} {
		line, m.zones = m.look.Bold("zinit"), m.zones[:0]
		for _, s := range m.look.States() {
			n := counts[s]
			if n == 0 {
				continue
			}
			text := fmt.Sprintf("%s %d", m.look.Symbol(s), n)
			if words {
				text += " " + string(s)
			}
			from := Columns(line) + 2
			line += "  " + text
			m.zones = append(m.zones, zone{0, from, Columns(line), filterBy(s)})
		}
		if Columns(line) <= room {
			break
		}
	}
	return pad(line, max(0, m.width-Columns(right))) + right
}

func (m *Model) viewNotice() string {
	switch {
	case m.input != nil:
		return m.input.label + m.input.text + reverse + " " + reset + m.look.Dim(m.inputHint())
	case m.lost != nil:
		return m.ellipsis(m.look.Bad(m.look.Clean(m.lost.Error())), m.width)
	case m.notice.text != "":
		return m.ellipsis(m.notice.text, m.width)
	case m.place() == atList && m.list.filter != "":
		return m.look.Dim(fmt.Sprintf("filter: %s (%d of %d), Esc shows all", m.look.Clean(m.list.filter), len(m.list.shown), len(m.services)))
	case m.place() == atList && m.info.Unsaved != "":
		return m.ellipsis(m.look.Bad("The state cannot be saved: "+m.look.Clean(m.info.Unsaved)), m.width)
	case m.place() == atList:
		return m.ellipsis(m.look.NotLoaded(m.info.ConfigErrors), m.width)
	}
	return ""
}

// hint is a key and what it does. A click on it is the key.
type hint struct{ key, does string }

// viewKeys is the line at the bottom: as many keys as there is room for, the
// last one always.
func (m *Model) viewKeys() string {
	hints := m.hints()
	width := func(h hint) int { return len(h.key) + 1 + len(h.does) + 2 }
	room := m.width + 2
	for i := len(hints) - 1; i >= 0; i-- {
		room -= width(hints[i])
	}
	for room < 0 && len(hints) > 1 {
		room += width(hints[len(hints)-2])
		hints = append(hints[:len(hints)-2], hints[len(hints)-1])
	}
	var b strings.Builder
	at := 0
	for _, h := range hints {
		if at > 0 {
			b.WriteString("  ")
		}
		b.WriteString(m.look.Bold(h.key) + " " + m.look.Dim(h.does))
		m.zones = append(m.zones, zone{m.height - 1, at, at + width(h) - 2, keyOf(h.key)})
		at += width(h)
	}
	return b.String()
}

// keyOf is the key that a hint names.
func keyOf(name string) Key {
	if len(name) > 1 {
		name = strings.ToLower(name)
	}
	if name == "space" {
		name = " "
	}
	return Key(name)
}

func (m *Model) hints() []hint {
	help := hint{"?", "help"}
	switch {
	case m.input != nil:
		return []hint{{"Enter", m.input.does}, {"Esc", "cancel"}}
	case m.dialog != nil && m.dialog.effect != nil:
		return []hint{{"y", m.dialog.does}, {"n", "cancel"}}
	case m.dialog != nil:
		return []hint{{"Enter", "close"}}
	}
	switch m.place() {
	case atDetails:
		return []hint{{"Esc", "back"}, {"l", "logs"}, {"t", "tree"}, {"s", "start"}, {"x", "stop"}, {"r", "restart"}, {"K", "kill"}, help}
	case atLogs:
		space := "pause"
		if m.logs.paused {
			space = "follow"
		}
		return []hint{{"Esc", "back"}, {"Space", space}, {"/", "search"}, {"a", m.logs.other()}, {"w", "wrap"}, {"T", "times"}, help}
	case atTree:
		return []hint{{"Esc", "back"}, {"Enter", "details"}, {"Tab", m.tree.other()}, {"a", m.tree.scope()}, {"/", "search"}, help}
	case atHelp:
		return []hint{{"Esc", "back"}}
	case atList:
	}
	return []hint{{"Enter", "open"}, {"l", "logs"}, {"t", "tree"}, {"s", "start"}, {"x", "stop"}, {"r", "restart"}, {"/", "filter"}, {"q", "quit"}, {"R", "reload"}, help}
}

// rule is a line across.
func (m *Model) rule(width int) string {
	stroke := "-"
	if m.look.UTF8() {
		stroke = "─"
	}
	return m.look.Dim(strings.Repeat(stroke, max(0, width)))
}

// title is the first line of what is shown.
func (m *Model) title(text, right string) string {
	if right == "" {
		return m.look.Bold(text)
	}
	return pad(m.look.Bold(text), max(0, m.width-Columns(right)-1)) + " " + right
}
