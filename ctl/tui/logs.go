package tui

import (
	"fmt"
	"slices"
	"strings"

	"github.com/threefoldtech/zinit/ipc"
)

// Bounds of what is kept of a log here; zinit-server has more.
const (
	maxLines = 5000
	maxBytes = 16 << 20
	// maxNames is how wide the names of services before lines may be.
	maxNames = 20
)

// logView is a log as it grows: of one service, or of all.
type logView struct {
	id    int      // of what was asked for last
	names []string // nil: all services
	none  bool     // nothing is asked for

	lines []logLine
	first int // the number of lines[0], counted from the first that came
	bytes int
	err   error // why there are no more

	// paused shows the lines before the one of number end, else the newest are.
	paused bool
	end    int
	search string // in lower case

	wrap, times bool
}

type logLine struct {
	at      *ipc.Time
	service string
	stream  string
	text    string
	partial bool // the next one goes on with it
	notice  bool // it is not the service's
}

// begin forgets one log and awaits another.
func (l *logView) begin(names []string, none bool) {
	*l = logView{id: l.id + 1, names: names, none: none, wrap: l.wrap, times: l.times}
}

// after is the number of the line after the newest.
func (l *logView) after() int { return l.first + len(l.lines) }

func (l *logView) take(news Lines) {
	if news.ID != l.id {
		return
	}
	if news.Again {
		l.lines, l.bytes, l.first = nil, 0, l.after()
	}
	l.err = news.Err
	for _, line := range news.Lines {
		l.add(line)
	}
	// Much at once, so that moving the rest costs little for each.
	if len(l.lines) > maxLines*5/4 || l.bytes > maxBytes*5/4 {
		drop := max(0, len(l.lines)-maxLines)
		for i, line := range l.lines {
			if i >= drop && l.bytes <= maxBytes {
				break
			}
			l.bytes -= len(line.text)
			drop = max(drop, i+1)
		}
		l.lines, l.first = append([]logLine(nil), l.lines[drop:]...), l.first+drop
	}
	l.end = max(l.end, l.first)
}

func (l *logView) add(line ipc.LogLine) {
	if line.Missed > 0 {
		l.lines = append(l.lines, logLine{service: line.Service, notice: true, text: fmt.Sprintf("%d lines were missed, too many came at once", line.Missed)})
		return
	}
	l.bytes += len(line.Text)
	if n := len(l.lines); n > 0 {
		last := &l.lines[n-1]
		if last.partial && last.service == line.Service && last.stream == line.Stream && len(last.text) < maxBytes/16 {
			last.text, last.partial = last.text+line.Text, line.Partial
			return
		}
	}
	l.lines = append(l.lines, logLine{at: line.Time, service: line.Service, stream: line.Stream, text: line.Text, partial: line.Partial})
}

func (m *Model) openLogs(names []string) {
	m.open(atLogs)
	if l := &m.logs; l.id == 0 || l.none || len(l.names) != len(names) || len(names) > 0 && l.names[0] != names[0] {
		l.begin(names, false)
		m.want(Follow{ID: l.id, Names: names})
	}
	m.logs.paused, m.logs.search = false, ""
}

// other names what the key a shows.
func (l *logView) other() string {
	if l.names == nil {
		return "one service"
	}
	return "all services"
}

func (m *Model) logsKey(k Key) {
	l := &m.logs
	page := m.body() - 1
	at := l.after()
	if l.paused {
		at = l.end
	}
	switch k {
	case "up", "k":
		l.scroll(at - 1)
	case "down", "j":
		l.scroll(at + 1)
	case "pgup", "ctrl+b", "ctrl+u":
		l.scroll(at - page)
	case "pgdown", "ctrl+f", "ctrl+d":
		l.scroll(at + page)
	case "home", "g":
		l.scroll(l.first + page)
	case "end", "G", "f":
		l.paused = false
	case " ", "p":
		l.paused, l.end = !l.paused, l.after()
	case "w":
		l.wrap = !l.wrap
	case "T":
		l.times = !l.times
	case "a":
		if l.names != nil {
			m.openLogs(nil)
		} else if name := m.list.selected; name != "" {
			m.openLogs([]string{name})
		}
	case "/":
		m.input = &input{
			label: "search: ", does: "search",
			changed:   func(string) {},
			cancelled: func() {},
			done: func(text string) {
				l.search = foldASCII(text)
				m.find(at, -1)
			},
		}
	case "n":
		m.find(at-1, -1)
	case "N":
		m.find(at, 1)
	}
}

// scroll shows the lines before that one.
func (l *logView) scroll(end int) {
	l.end = max(l.first+1, end)
	l.paused = l.end < l.after()
}

// find goes to the next line before or after one where the text is.
func (m *Model) find(from, step int) {
	l := &m.logs
	if l.search == "" {
		return
	}
	if step < 0 {
		from--
	}
	for n := from; n >= l.first && n < l.after(); n += step {
		if indexFold(m.logText(l.lines[n-l.first]), l.search) >= 0 {
			l.paused, l.end = true, n+1
			return
		}
	}
	m.say(m.look.Warn("Nothing more is found."))
}

// logText is a line for people: what is in it cannot control the terminal.
func (m *Model) logText(l logLine) string {
	return strings.ReplaceAll(m.look.Clean(l.text), "\t", "    ")
}

// prefix is what stands before a line.
func (m *Model) prefix(line logLine, width int) string {
	l := &m.logs
	text := ""
	if l.times && line.at != nil {
		text = m.look.Dim(m.look.Clock(*line.at)) + " "
	}
	if width > 0 {
		text += m.look.Name(line.service, pad(m.look.Clean(line.service), width)+" |") + " "
	}
	return text
}

// tail is the end of the log in at most so many rows.
func (m *Model) tail(width, rows int) []string {
	return m.before(m.logs.after(), width, rows, 0)
}

// before prints the lines before one in at most so many rows.
func (m *Model) before(end, width, rows, names int) []string {
	l := &m.logs
	var out []string // from the last row to the first
	for n := end - 1; n >= l.first && len(out) < rows; n-- {
		line := l.lines[n-l.first]
		prefix := m.prefix(line, names)
		indent := Columns(prefix)
		room := max(1, width-indent)
		most := 1
		if l.wrap {
			most = rows
		}
		// No more of a long line than there is room for.
		if limit := 4 * room * most; len(line.text) > limit {
			line.text = strings.ToValidUTF8(line.text[:limit], "")
		}
		text := m.logText(line)
		if line.notice {
			text = m.look.Warn(text)
		} else {
			text = highlight(text, l.search)
		}
		some := []string{m.ellipsis(text, room)}
		if l.wrap {
			some = wrap(text, room, 0, most)
		}
		for i := range some {
			some[i] = prefix + some[i]
			prefix = strings.Repeat(" ", indent)
		}
		for i := len(some) - 1; i >= 0 && len(out) < rows; i-- {
			out = append(out, some[i])
		}
	}
	slices.Reverse(out)
	return out
}

// ellipsis cuts text and shows that it did.
func (m *Model) ellipsis(text string, width int) string {
	if Columns(text) <= width {
		return text
	}
	mark := ".."
	if m.look.UTF8() {
		mark = "…"
	}
	return cut(text, max(0, width-Columns(mark))) + m.look.Dim(mark)
}

func (m *Model) viewLogs() []string {
	l := &m.logs
	what := "logs of all services"
	names := 0
	if len(l.names) == 1 {
		what = "logs of " + l.names[0]
	} else {
		for _, s := range m.services {
			names = max(names, len(s.Name))
		}
		names = min(names, maxNames, m.width/3)
	}
	right := m.look.Good("following")
	end := l.after()
	if l.paused {
		end = min(l.end, end)
		right = m.look.Warn("paused")
		if more := l.after() - end; more > 0 {
			right += m.look.Dim(fmt.Sprintf(", %d below", more))
		}
	}
	if l.search != "" {
		right = m.look.Dim("/"+m.look.Clean(l.search)+", n older, N newer  ") + right
	}
	rows := m.body() - 1
	lines := m.before(end, m.width, rows, names)
	switch {
	case l.err != nil:
		lines = append(lines, m.look.Bad(m.look.Explain(l.err)))
		lines = lines[max(0, len(lines)-rows):]
	case len(l.lines) == 0:
		lines = []string{m.look.Dim("Nothing was printed yet.")}
	}
	return append([]string{m.title(what, right)}, lines...)
}
