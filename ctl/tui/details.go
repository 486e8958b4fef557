package tui

import (
	"slices"

	"github.com/threefoldtech/zinit/ipc"
)

// detailsView is everything on one service.
type detailsView struct {
	name  string
	top   int
	facts Inspected // of the service that it names
	stale bool      // they are to be asked for again
}

// lastFailures is how many of the failures before are shown.
const lastFailures = 3

func (m *Model) openDetails(name string) {
	m.details.name, m.details.top = name, 0
	m.open(atDetails)
}

func (m *Model) detailsKey(k Key) {
	if top, ok := cursor(k, m.details.top, 1<<20, m.body()); ok {
		m.details.top = top
	}
}

func (m *Model) viewDetails() []string {
	lines := m.detailLines(m.details.name, m.width, m.body(), true)
	m.details.top = max(0, min(m.details.top, len(lines)-m.body()))
	return lines[m.details.top:]
}

// detailLines is what there is on a service, and the end of its log in the rows
// that are left. Only what can be scrolled may have more lines than height.
func (m *Model) detailLines(name string, width, height int, scrolls bool) []string {
	s, ok := m.byName[name]
	if !ok {
		return []string{"There is no service " + name + " any more."}
	}
	const (
		indent = 8
		inner  = "      "
	)
	var lines []string
	add := func(line string) { lines = append(lines, wrap(line, width, indent, 20)...) }
	for _, line := range m.look.Service(m.aged(s), m.byName, m.now, width) {
		add(line)
	}
	if facts := m.details.facts; facts.Name == name {
		// What it waits for stands above already; here is why that is so.
		if slices.ContainsFunc(facts.Why.BlockedBy, func(b ipc.Block) bool { return b.Because != nil }) {
			add("    " + m.look.Dim("why"))
			for _, line := range m.look.Why(facts.Why, width-len(inner)) {
				add(inner + line)
			}
		}
		m.addFailures(facts.Incidents, add)
	}
	const least = 5 // lines of the log
	room := height - len(lines) - 1
	if room < least {
		room = least
		if !scrolls {
			lines = lines[:max(1, height-least-1)]
		}
	}
	if len(m.logs.names) != 1 || m.logs.names[0] != name {
		return lines
	}
	if tail := m.tail(width-6, room); len(tail) > 0 {
		lines = append(lines, "    "+m.look.Dim("log"))
		for _, line := range tail {
			lines = append(lines, "      "+line)
		}
	}
	return lines
}

// addFailures adds the last failures, the newest first.
func (m *Model) addFailures(incidents []ipc.Incident, add func(string)) {
	for i, in := range slices.Backward(incidents) {
		if i == len(incidents)-1 {
			add("    " + m.look.Dim("failures"))
		}
		if i < len(incidents)-lastFailures {
			return
		}
		text := "failed"
		if in.Reason != nil {
			text = in.Reason.Message
		}
		if in.Decision != "" {
			text += ": " + in.Decision
		}
		add("      " + m.look.Dim(m.look.Clock(in.At)) + " " + m.look.Clean(text))
	}
}
