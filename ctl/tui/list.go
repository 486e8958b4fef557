package tui

import (
	"cmp"
	"slices"
	"strings"

	"github.com/threefoldtech/zinit/ipc"
)

// listView is the table of services.
type listView struct {
	filter string
	// plain orders by name alone; else those in attention come first.
	plain bool

	shown       []ipc.Service
	selected    string
	cursor, top int

	// table is what was printed last, and of when and how wide that is.
	table []string
	of    tableKey
	fresh bool
}

type tableKey struct {
	width  int
	second int64
}

// arrange chooses the services to be shown, and puts them in order. The cursor
// stays on its service.
func (m *Model) arrange() {
	l := &m.list
	words := strings.Fields(strings.ToLower(l.filter))
	l.shown = l.shown[:0]
	for _, s := range m.services {
		if matches(s, words) {
			l.shown = append(l.shown, s)
		}
	}
	if !l.plain {
		slices.SortStableFunc(l.shown, byAttention)
	}
	if i := slices.IndexFunc(l.shown, func(s ipc.Service) bool { return s.Name == l.selected }); i >= 0 {
		l.cursor = i
	}
	l.fresh = false
	m.moveTo(l.cursor)
}

// inAttention says that somebody should look at a service: it has failed or
// keeps failing, is not healthy, or cannot start.
func inAttention(s ipc.Service) bool {
	return s.State == ipc.StateFailed || s.State == ipc.StateBlocked || s.Restarts > 0 ||
		s.Health != nil && s.Health.Status == "unhealthy"
}

// byAttention orders services, those to be looked at first.
func byAttention(a, b ipc.Service) int {
	rank := func(s ipc.Service) int {
		if inAttention(s) {
			return 0
		}
		return 1
	}
	return cmp.Or(rank(a)-rank(b), strings.Compare(a.Name, b.Name))
}

// matches says that each word is in the name, the state, the health or the note.
func matches(s ipc.Service, words []string) bool {
	if len(words) == 0 {
		return true
	}
	text := strings.ToLower(s.Name + "\n" + string(s.State) + "\n" + s.Note)
	if s.Health != nil {
		text += "\n" + s.Health.Status
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

func (m *Model) moveTo(row int) {
	l := &m.list
	l.cursor = clamp(row, len(l.shown))
	if len(l.shown) > 0 {
		l.selected = l.shown[l.cursor].Name
	} else {
		l.selected = ""
	}
	l.top = scrolled(l.top, l.cursor, len(l.shown), m.listRows())
}

// listRows is how many services the screen shows.
func (m *Model) listRows() int { return max(1, m.body()-1) }

func (m *Model) setFilter(text string) {
	m.list.filter, m.notice = text, notice{}
	m.arrange()
}

func (m *Model) listKey(k Key) {
	if row, ok := cursor(k, m.list.cursor, len(m.list.shown), m.listRows()); ok {
		m.moveTo(row)
		return
	}
	switch k {
	case "/":
		before := m.list.filter
		m.input = &input{
			label: "/", text: before, does: "keep", changed: m.setFilter,
			done: func(text string) { m.setFilter(text) }, cancelled: func() { m.setFilter("") },
		}
	case "o":
		m.list.plain = !m.list.plain
		m.arrange()
		if m.list.plain {
			m.say("In the order of names.")
		} else {
			m.say("Those that need attention first.")
		}
	}
}

func (m *Model) clickList(row int) {
	if row >= len(m.list.shown) {
		return
	}
	if row == m.list.cursor {
		m.key("enter")
		return
	}
	m.moveTo(row)
}

// besideFrom is how wide a terminal is on which the details of the selected
// service are beside the list.
const besideFrom = 120

// beside is how many columns they have, 0 for none.
func (m *Model) beside() int {
	if m.width < besideFrom {
		return 0
	}
	return m.width * 2 / 5
}

func (m *Model) viewList() []string {
	beside := m.beside()
	width := m.width
	if beside > 0 {
		width -= beside + 3
	}
	l := &m.list
	rows := m.listRows()
	l.top = scrolled(l.top, l.cursor, len(l.shown), rows)
	table := m.printTable(width)
	lines := make([]string, 0, rows+1)
	switch {
	case !m.loaded:
	case len(m.services) == 0:
		lines = append(lines, "", "There are no services in "+m.look.Clean(m.info.ConfigDir)+".",
			m.look.Dim("zinit init NAME writes a service file, zinit reload (or R here) reads them."))
	case len(l.shown) == 0:
		lines = append(lines, "", "No service is like that.")
	default:
		lines = append(lines, table[0])
		for i := l.top; i < min(l.top+rows, len(l.shown)); i++ {
			line := table[1+i]
			if i == l.cursor {
				line = marked(line, width)
			}
			lines = append(lines, line)
		}
	}
	if beside == 0 || l.selected == "" {
		return lines
	}
	stroke := " | "
	if m.look.UTF8() {
		stroke = " │ "
	}
	right := m.detailLines(l.selected, beside, m.body(), false)
	both := make([]string, m.body())
	for i := range both {
		left := ""
		if i < len(lines) {
			left = lines[i]
		}
		both[i] = pad(left, width) + m.look.Dim(stroke)
		if i < len(right) {
			both[i] += right[i]
		}
	}
	return both
}

// printTable prints the list as wide as it may be, unless it is as it was.
func (m *Model) printTable(width int) []string {
	l := &m.list
	if key := (tableKey{width, m.now.Unix()}); !l.fresh || l.of != key {
		aged := make([]ipc.Service, len(l.shown))
		for i, s := range l.shown {
			aged[i] = m.aged(s)
		}
		l.table, l.of, l.fresh = m.look.Table(aged, width), key, true
	}
	return l.table
}
