package tui

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/threefoldtech/zinit/ipc"
)

// place is what the screen shows.
type place int

const (
	atList place = iota
	atDetails
	atLogs
	atTree
	atHelp
)

// Model is what the screen shows, and what follows from keys, clicks and news.
// It does no I/O and does not read the clock. Update and View belong to one
// goroutine.
type Model struct {
	look          Look
	width, height int
	now           time.Time

	services []ipc.Service          // by name
	byName   map[string]ipc.Service // the same
	info     ipc.Info
	at       time.Time // when they were asked for
	loaded   bool
	lost     error

	places  []place // the last one is shown, those before are where Esc leads
	list    listView
	details detailsView
	logs    logView
	tree    treeView
	help    int // how far it is scrolled

	dialog *dialog
	input  *input
	notice notice
	zones  []zone // of the last view

	effects   []Effect
	recounted time.Time // when that was asked for last
}

// notice is one line on what has happened, until some time.
type notice struct {
	text  string
	until time.Time
}

// noticeTime is how long a notice is shown.
const noticeTime = 10 * time.Second

// zone is where a click means something.
type zone struct {
	y, from, to int
	event       any
}

// filterBy is a click on a number of services: only those are wanted.
type filterBy string

// New makes a model that knows nothing yet.
func New(look Look, now time.Time) *Model {
	m := &Model{look: look, now: now, width: 80, height: 24, places: []place{atList}}
	m.logs.wrap = true
	return m
}

// Update tells the model of an event and returns what it wants done for that.
func (m *Model) Update(event any) []Effect {
	m.effects = nil
	switch ev := event.(type) {
	case Resize:
		m.width, m.height = ev.Width, ev.Height
	case Tick:
		m.tick(ev.Now)
	case Snapshot:
		m.take(ev)
	case Recounted:
		m.takeAgain(ev)
	case Lost:
		m.lost = ev.Err
	case Lines:
		m.logs.take(ev)
	case Inspected:
		if ev.Name == m.details.facts.Name {
			m.details.facts = ev
		}
	case Trees:
		m.tree.take(m, ev)
	case Planned:
		m.planned(ev)
	case Done:
		m.done(ev)
	case Key:
		m.key(ev)
	case Paste:
		if m.input != nil {
			m.input.insert(string(ev))
		}
	case Mouse:
		m.mouse(ev)
	}
	m.follow()
	m.inspect()
	return m.effects
}

// want orders an effect.
func (m *Model) want(e Effect) { m.effects = append(m.effects, e) }

func (m *Model) place() place { return m.places[len(m.places)-1] }

// open shows something, with what is shown now to come back to.
func (m *Model) open(p place) {
	if m.place() != p {
		m.places, m.notice = append(m.places, p), notice{}
	}
}

// back shows what was shown before.
func (m *Model) back() { m.places = m.places[:max(1, len(m.places)-1)] }

// take replaces all that is known.
func (m *Model) take(s Snapshot) {
	if m.loaded {
		m.compare(s.Info)
	}
	before := m.byName[m.details.facts.Name]
	m.services, m.info, m.at, m.now = s.Services, s.Info, s.At, s.At
	m.loaded, m.lost = true, nil
	m.index()
	m.renew()
	if m.place() == atTree {
		m.want(m.tree.asked)
	}
	m.details.stale = m.details.stale || changed(before, m.byName[m.details.facts.Name])
}

// changed says that there may be more to say on a service than before; on one
// that is blocked there always is, by what it waits for.
func changed(before, now ipc.Service) bool {
	return now.State == ipc.StateBlocked || before.State != now.State || before.RestartsTotal != now.RestartsTotal || !reflect.DeepEqual(before.Since, now.Since)
}

func (m *Model) index() {
	m.byName = make(map[string]ipc.Service, len(m.services))
	for _, s := range m.services {
		m.byName[s.Name] = s
	}
	m.arrange()
}

// compare says so when it is another supervisor that answers.
func (m *Model) compare(info ipc.Info) {
	switch n := len(info.Replaced); {
	case info.KeeperPid != m.info.KeeperPid:
		m.say(m.look.Warn("Another zinit answers now."))
	case info.ServerRestarts > m.info.ServerRestarts && n > 0:
		what := "no service was touched"
		switch {
		case info.StateLost:
			what = "it found no saved state"
		case info.Replaced[n-1].StateCut:
			what = "it could not read the end of the saved state"
		case !info.Replaced[n-1].Untouched():
			what = "it found an old state"
		}
		m.say("zinit-server was replaced (" + m.look.Clean(info.Replaced[n-1].Why) + "): " + what + ".")
	}
}

// takeAgain replaces some of the services.
func (m *Model) takeAgain(r Recounted) {
	for _, s := range r.Services {
		if i, ok := slices.BinarySearchFunc(m.services, s.Name, func(s ipc.Service, name string) int { return strings.Compare(s.Name, name) }); ok {
			if s.UptimeMS > 0 { // counted from the same moment as that of the others
				s.UptimeMS = max(1, s.UptimeMS-r.At.Sub(m.at).Milliseconds())
			}
			m.services[i] = s
		}
	}
	m.index()
}

// aged is a service with the uptime that it has by now.
func (m *Model) aged(s ipc.Service) ipc.Service {
	if s.UptimeMS > 0 {
		s.UptimeMS += m.now.Sub(m.at).Milliseconds()
	}
	return s
}

// countsDown says that the words on a service have a time in them that runs.
func countsDown(s ipc.Service) bool {
	return s.NextStart != nil || s.State == ipc.StateStarting || s.State == ipc.StateStopping
}

func (m *Model) tick(now time.Time) {
	m.now = now
	if m.notice.text != "" && !now.Before(m.notice.until) {
		m.notice = notice{}
	}
	if m.lost != nil || now.Sub(m.recounted) < time.Second {
		return
	}
	var names []string
	for _, s := range m.visible() {
		if countsDown(s) {
			names = append(names, s.Name)
		}
	}
	if len(names) > 0 {
		m.recounted = now
		m.want(Recount{names})
	}
}

// visible are the services that the screen says something about.
func (m *Model) visible() []ipc.Service {
	switch m.place() {
	case atList:
		first := min(m.list.top, len(m.list.shown))
		return m.list.shown[first:min(first+m.body(), len(m.list.shown))]
	case atDetails:
		return []ipc.Service{m.byName[m.details.name]}
	}
	return nil
}

// Pause is for how long the picture stays as it is if nothing happens: until
// the next second, or for longer where no number on it changes so often.
func (m *Model) Pause() time.Duration {
	if m.notice.text != "" {
		return time.Second
	}
	const hour = 3_600_000 // from then on there are no seconds in a duration
	if m.loaded && m.place() != atHelp && m.info.UptimeMS < hour {
		return time.Second
	}
	for _, s := range m.visible() {
		if s.UptimeMS > 0 && s.UptimeMS < hour || countsDown(s) || m.place() == atDetails {
			return time.Second
		}
	}
	return 30 * time.Second
}

// say shows a notice.
func (m *Model) say(text string) { m.notice = notice{text, m.now.Add(noticeTime)} }

// current is the service that actions are about, "" for none.
func (m *Model) current() string {
	name := ""
	switch m.place() {
	case atList:
		name = m.list.selected
	case atDetails:
		name = m.details.name
	case atLogs:
		if len(m.logs.names) == 1 {
			name = m.logs.names[0]
		}
	case atTree:
		name = m.tree.current()
	}
	if _, ok := m.byName[name]; !ok {
		return ""
	}
	return name
}

// follow asks for the log that the screen shows a part of.
func (m *Model) follow() {
	wanted, none := m.logs.names, false
	switch p := m.place(); {
	case p == atLogs:
	case p == atDetails:
		wanted = []string{m.details.name}
	case p == atList && m.beside() > 0 && m.list.selected != "":
		wanted = []string{m.list.selected}
	case p == atHelp:
		return
	default:
		wanted, none = nil, true
	}
	l := &m.logs
	if none == l.none && l.id > 0 && slices.Equal(wanted, l.names) && (wanted == nil) == (l.names == nil) {
		return
	}
	if none && l.id == 0 {
		return
	}
	l.begin(wanted, none)
	m.want(Follow{ID: l.id, Names: wanted, None: none})
}

// inspect asks for the details of the service that the screen shows.
func (m *Model) inspect() {
	name := ""
	switch p := m.place(); {
	case p == atDetails:
		name = m.details.name
	case p == atList && m.beside() > 0:
		name = m.list.selected
	}
	if _, known := m.byName[name]; !known || m.lost != nil {
		return
	}
	d := &m.details
	if d.facts.Name != name {
		d.facts, d.stale = Inspected{Name: name}, true
	}
	if d.stale {
		d.stale = false
		m.want(Inspect{name})
	}
}

// key is a key that was pressed.
func (m *Model) key(k Key) {
	switch {
	case k == "ctrl+c":
		m.want(Quit{})
		return
	case k == "ctrl+z":
		m.want(Suspend{})
		return
	case k == "ctrl+l":
		m.want(Redraw{})
		return
	case m.input != nil:
		m.typed(k)
		return
	case m.dialog != nil:
		m.answer(k)
		return
	case m.place() == atHelp:
		m.helpKey(k)
		return
	}
	if m.act(k) {
		return
	}
	switch m.place() {
	case atList:
		m.listKey(k)
	case atDetails:
		m.detailsKey(k)
	case atLogs:
		m.logsKey(k)
	case atTree:
		m.treeKey(k)
	case atHelp:
	}
}

// act is a key that means the same everywhere.
func (m *Model) act(k Key) bool {
	name := m.current()
	onService := func(f func()) bool {
		if name == "" {
			m.say(m.look.Warn("No service is selected."))
		} else {
			f()
		}
		return true
	}
	switch k {
	case "?":
		m.help = 0
		m.open(atHelp)
	case "s":
		return onService(func() { m.do(Do{Verb: "start", Name: name}) })
	case "x":
		return onService(func() { m.confirmStop("stop", name) })
	case "r":
		return onService(func() { m.confirmStop("restart", name) })
	case "K":
		return onService(func() { m.askSignal(name) })
	case "R":
		m.want(Plan{})
	case "l":
		if m.place() == atLogs {
			return false
		}
		return onService(func() { m.openLogs([]string{name}) })
	case "L":
		if m.place() == atLogs {
			return false
		}
		m.openLogs(nil)
	case "t":
		if m.place() == atTree {
			return false
		}
		return onService(func() { m.openTree(name) })
	case "enter":
		if m.place() == atDetails || m.place() == atLogs {
			return false
		}
		return onService(func() { m.openDetails(name) })
	case "q", "esc", "backspace":
		if len(m.places) == 1 {
			return m.leaveList(k)
		}
		m.back()
	default:
		return false
	}
	return true
}

// leaveList is Esc, which takes the filter away, or q.
func (m *Model) leaveList(k Key) bool {
	switch {
	case k == "q":
		m.want(Quit{})
	case m.list.filter != "":
		m.setFilter("")
	}
	return true
}

func (m *Model) mouse(e Mouse) {
	if e.Wheel != 0 {
		for range 3 {
			if e.Wheel < 0 {
				m.key("up")
			} else {
				m.key("down")
			}
		}
		return
	}
	for _, z := range m.zones {
		if e.Y == z.y && e.X >= z.from && e.X < z.to {
			if state, ok := z.event.(filterBy); ok {
				m.setFilter(string(state))
			} else {
				m.key(z.event.(Key))
			}
			return
		}
	}
	row := e.Y - 2 // below the title and the header
	if m.dialog != nil || m.input != nil || row < 0 || row >= m.body()-1 {
		return
	}
	switch m.place() {
	case atList:
		if b := m.beside(); b == 0 || e.X < m.width-b {
			m.clickList(m.list.top + row)
		}
	case atTree:
		m.clickTree(m.tree.top + row)
	case atDetails, atLogs, atHelp:
	}
}

// body is how many rows there are for what is shown, with its own title: all
// but the header on top, the notice and the keys below.
func (m *Model) body() int { return max(1, m.height-3) }

// cursor moves a cursor over so many rows by a key, as everywhere.
func cursor(k Key, at, rows, page int) (int, bool) {
	switch k {
	case "up", "k":
		at--
	case "down", "j":
		at++
	case "pgup", "ctrl+b", "ctrl+u":
		at -= page
	case "pgdown", "ctrl+f", "ctrl+d", " ":
		at += page
	case "home", "g":
		at = 0
	case "end", "G":
		at = rows - 1
	default:
		return at, false
	}
	return clamp(at, rows), true
}

// clamp makes it one of so many rows.
func clamp(at, rows int) int { return max(0, min(at, rows-1)) }

// scrolled is the first row shown, such that the cursor is among those shown.
func scrolled(top, cursor, rows, page int) int {
	top = min(max(top, cursor-page+1), cursor)
	return max(0, min(top, rows-page))
}
