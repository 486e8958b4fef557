package tui

import "strings"

// helpText is what ? shows, in two columns where they fit: a key and what it
// does, or a heading.
var helpText = [2][][2]string{{
	{"", "Services"},
	{"Enter", "all about the service"},
	{"l  L", "its log, all logs"},
	{"t", "what it requires"},
	{"/", "filter: name, state, note"},
	{"o", "order by name, or not"},
	{"", "Actions"},
	{"s", "start"},
	{"x", "stop; asks first"},
	{"r", "restart; asks first"},
	{"K", "send a signal"},
	{"R", "reload; shows the plan"},
	{"", "Mouse"},
	{"click", "select; again: open"},
	{"wheel", "move"},
	{"", "States above and keys below"},
	{"", "can be clicked. With Shift"},
	{"", "the terminal selects text."},
}, {
	{"", "Logs"},
	{"Space", "pause, follow"},
	{"/", "search"},
	{"n  N", "match before, after"},
	{"a", "one service, all"},
	{"w  T", "wrap; times"},
	{"", "Tree"},
	{"Tab", "what requires it"},
	{"a", "this service, all"},
	{"/ n N", "search by name"},
	{"", "Everywhere"},
	{"arrows", "move, also j k g G"},
	{"Esc", "back, no filter"},
	{"Ctrl-L", "paint anew"},
	{"Ctrl-Z", "suspend; fg goes on"},
	{"q", "back, then quit"},
	{"Ctrl-C", "quit"},
}}

func (m *Model) helpKey(k Key) {
	if top, ok := cursor(k, m.help, 1<<20, m.body()); ok {
		m.help = top
		return
	}
	m.back()
}

// twoColumns is how wide the help is.
const twoColumns = 72

func (m *Model) viewHelp() []string {
	left, right := m.helpColumn(helpText[0]), m.helpColumn(helpText[1])
	lines := left
	if m.width < twoColumns {
		lines = append(left, right...)
	} else {
		for i, line := range right {
			if i == len(lines) {
				lines = append(lines, "")
			}
			lines[i] = pad(lines[i], twoColumns/2) + line
		}
	}
	m.help = max(0, min(m.help, len(lines)-m.body()))
	return lines[m.help:]
}

func (m *Model) helpColumn(rows [][2]string) []string {
	var lines []string
	for _, row := range rows {
		switch {
		case row[0] != "":
			lines = append(lines, "  "+pad(row[0], 7)+m.look.Dim(row[1]))
		case strings.Contains(row[1], " "):
			lines = append(lines, "  "+m.look.Dim(row[1]))
		default:
			lines = append(lines, m.look.Bold(row[1]))
		}
	}
	return lines
}
