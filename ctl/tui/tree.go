package tui

// treeView is the tree of what requires what.
type treeView struct {
	asked       AskTrees
	lines       []string
	names       []string // of the service in each line
	cursor, top int
	search      string // in lower case
}

func (m *Model) openTree(name string) {
	m.tree = treeView{asked: AskTrees{Name: name, Reverse: m.tree.asked.Reverse}}
	m.open(atTree)
	m.want(m.tree.asked)
}

func (t *treeView) take(m *Model, answer Trees) {
	if answer.AskTrees != t.asked {
		return
	}
	if answer.Err != nil {
		t.lines, t.names = []string{m.look.Bad(m.look.Explain(answer.Err))}, []string{""}
		return
	}
	t.lines, t.names = m.look.Trees(answer.Trees)
	t.cursor = clamp(t.cursor, len(t.lines))
}

func (t *treeView) current() string {
	if t.cursor < len(t.names) {
		return t.names[t.cursor]
	}
	return ""
}

// other names what the key Tab shows.
func (t *treeView) other() string {
	if t.asked.Reverse {
		return "what it requires"
	}
	return "what requires it"
}

// scope names what the key a shows.
func (t *treeView) scope() string {
	if t.asked.Name == "" {
		return "this one"
	}
	return "all services"
}

// ask asks for another tree.
func (m *Model) askTree(asked AskTrees) {
	m.tree.asked, m.tree.cursor, m.tree.top = asked, 0, 0
	m.want(asked)
}

func (m *Model) treeKey(k Key) {
	t := &m.tree
	if row, ok := cursor(k, t.cursor, len(t.lines), m.body()-1); ok {
		t.cursor = row
		return
	}
	switch k {
	case "tab":
		m.askTree(AskTrees{t.asked.Name, !t.asked.Reverse})
	case "a":
		name := ""
		if t.asked.Name == "" {
			name = m.current()
		}
		m.askTree(AskTrees{name, t.asked.Reverse})
	case "/":
		m.input = &input{
			label: "search: ", does: "search", changed: func(string) {}, cancelled: func() {},
			done: func(text string) {
				t.search = foldASCII(text)
				m.findInTree(0, 1)
			},
		}
	case "n":
		m.findInTree(1, 1)
	case "N":
		m.findInTree(-1, -1)
	}
}

// findInTree goes to a line with the text, from so far after the cursor.
func (m *Model) findInTree(skip, step int) {
	t := &m.tree
	if t.search == "" {
		return
	}
	for i, n := t.cursor+skip, 0; n < len(t.lines); i, n = i+step, n+1 {
		row := (i%len(t.lines) + len(t.lines)) % len(t.lines)
		if indexFold(t.names[row], t.search) >= 0 {
			t.cursor = row
			return
		}
	}
	m.say(m.look.Warn("No service in the tree is called like that."))
}

func (m *Model) clickTree(row int) {
	switch {
	case row >= len(m.tree.lines):
	case row == m.tree.cursor:
		m.key("enter")
	default:
		m.tree.cursor = row
	}
}

func (m *Model) viewTree() []string {
	t := &m.tree
	what := "what all services require"
	switch {
	case t.asked.Name != "" && t.asked.Reverse:
		what = "what requires " + t.asked.Name
	case t.asked.Name != "":
		what = "what " + t.asked.Name + " requires"
	case t.asked.Reverse:
		what = "what requires each service"
	}
	rows := max(1, m.body()-1)
	t.top = scrolled(t.top, t.cursor, len(t.lines), rows)
	lines := []string{m.title(what, "")}
	for i := t.top; i < min(t.top+rows, len(t.lines)); i++ {
		line := t.lines[i]
		if i == t.cursor {
			line = marked(line, m.width)
		}
		lines = append(lines, line)
	}
	return lines
}
