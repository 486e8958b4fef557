package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// relation is a kind of dependency, as it is called in a service file.
type relation string

const (
	requires  relation = "requires"
	after     relation = "after"
	wants     relation = "wants"
	conflicts relation = "conflicts"
)

// relations are all, the strongest first: of several between two services one
// is drawn.
var relations = [...]relation{requires, after, wants, conflicts}

// orders says that a relation decides who starts first.
func (r relation) orders() bool { return r == requires || r == after }

// graph is all services and what is between them.
type graph struct {
	nodes  []*graphNode // by name
	edges  []graphEdge
	levels int
}

// graphNode is a service, or a name that others use and nobody has.
type graphNode struct {
	name  string
	state ipc.State // "" for nobody's
	// early says that it is of the system directory: it starts before all that
	// are not.
	early bool
	// level is how many others have to start before it, one after the other.
	level int
	edges []graphEdge // from it
}

// Levels of a node that has none yet.
const (
	unranked    = -1
	beingRanked = -2
)

// graphEdge is what one service has with another.
type graphEdge struct {
	from, to *graphNode
	kind     relation
}

func graphCommand(flags *pflag.FlagSet) func(*app, []string) error {
	dot := flags.Bool("dot", false, "print it for Graphviz")
	picture := flags.String("svg", "", "draw it into this `FILE`, or - for standard output")
	return func(a *app, _ []string) error {
		if *dot && *picture != "" {
			return usagef("graph: --dot or --svg, not both")
		}
		return a.ask(func(ctx context.Context, c *client.Client) error {
			services, err := c.List(ctx, client.Filter{})
			if err != nil {
				return err
			}
			info, err := c.Info(ctx)
			if err != nil {
				return err
			}
			g := newGraph(services, info.SystemDir)
			switch {
			case a.json:
				return printJSON(a.out, g.json())
			case *picture != "":
				return a.writePicture(*picture, g.svg())
			case *dot:
				a.out.WriteString(g.dot())
			default:
				a.printGraph(g)
			}
			return nil
		})
	}
}

// newGraph makes it of all services; systemDir is "" where there is none.
func newGraph(services []ipc.Service, systemDir string) *graph {
	g := &graph{}
	byName := map[string]*graphNode{}
	node := func(name string) *graphNode {
		n := byName[name]
		if n == nil {
			n = &graphNode{name: name, level: unranked}
			byName[name] = n
			g.nodes = append(g.nodes, n)
		}
		return n
	}
	for _, s := range services {
		n := node(s.Name)
		n.state, n.early = s.State, systemDir != "" && filepath.Dir(s.Origin.File) == systemDir
	}
	for _, s := range services {
		from := node(s.Name)
		seen := map[string]bool{}
		for i, names := range [][]string{s.Requires, s.After, s.Wants, s.Conflicts} {
			for _, name := range names {
				if !seen[name] {
					seen[name] = true
					e := graphEdge{from, node(name), relations[i]}
					from.edges, g.edges = append(from.edges, e), append(g.edges, e)
				}
			}
		}
	}
	slices.SortFunc(g.nodes, func(a, b *graphNode) int { return strings.Compare(a.name, b.name) })
	for _, early := range []bool{true, false} {
		least := g.levels
		for _, n := range g.nodes {
			if n.early == early {
				g.levels = max(g.levels, n.rank(least)+1)
			}
		}
	}
	return g
}

// rank finds out the level of a node, which is not below least. What leads back
// in a cycle, which is an error of the configuration, does not count.
func (n *graphNode) rank(least int) int {
	if n.level >= 0 {
		return n.level
	}
	n.level = beingRanked
	level := least
	for _, e := range n.edges {
		if e.kind.orders() && e.to.level != beingRanked {
			level = max(level, e.to.rank(least)+1)
		}
	}
	n.level = level
	return level
}

// graphService is a node as JSON.
type graphService struct {
	Name      string    `json:"name"`
	State     ipc.State `json:"state,omitempty"` // absent where there is no such service
	Level     int       `json:"level"`
	Requires  []string  `json:"requires,omitempty"`
	After     []string  `json:"after,omitempty"`
	Wants     []string  `json:"wants,omitempty"`
	Conflicts []string  `json:"conflicts,omitempty"`
}

func (g *graph) json() []graphService {
	all := []graphService{}
	for _, n := range g.nodes {
		all = append(all, graphService{
			Name: n.name, State: n.state, Level: n.level, Requires: n.names(requires),
			After: n.names(after), Wants: n.names(wants), Conflicts: n.names(conflicts),
		})
	}
	return all
}

// names are those that it has such a relation to.
func (n *graphNode) names(kind relation) (names []string) {
	for _, e := range n.edges {
		if e.kind == kind {
			names = append(names, e.to.name)
		}
	}
	return names
}

// printGraph prints the levels, and below each service what it has to do with
// others.
func (a *app) printGraph(g *graph) {
	for level := range g.levels {
		title := "level 0: start at once"
		if level > 0 {
			title = fmt.Sprintf("level %d: wait for level %d", level, level-1)
		}
		fmt.Fprintln(a.out, a.paint(dim, title))
		for _, n := range g.nodes {
			if n.level != level {
				continue
			}
			fmt.Fprintf(a.out, "  %s\n", a.graphLabel(n, true))
			for _, kind := range relations {
				a.printEdges(n, kind)
			}
		}
	}
}

// graphLabel is a service with its symbol, and maybe its state.
func (a *app) graphLabel(n *graphNode, withState bool) string {
	if n.state == "" {
		return a.paint(red, "[ ] ") + clean(n.name) + a.paint(red, " missing")
	}
	text := a.paint(stateStyle(n.state), symbolOf(n.state)) + " " + clean(n.name)
	if withState {
		text += "  " + a.paint(stateStyle(n.state), string(n.state))
	}
	return text
}

// printEdges prints those of one kind, on as many lines as it takes.
func (a *app) printEdges(n *graphNode, kind relation) {
	const indent = "      "
	width := 80
	if a.terminal && a.width > 0 {
		width = a.width
	}
	column := 0
	for _, e := range n.edges {
		if e.kind != kind {
			continue
		}
		label := a.graphLabel(e.to, false)
		need := len("[+] , ") + len([]rune(e.to.name))
		switch {
		case column == 0:
			fmt.Fprintf(a.out, "%s%s %s", indent, a.paint(dim, fmt.Sprintf("%-9s", kind)), label)
			column = len(indent) + len(conflicts) + 1 + need
		case column+need > width:
			fmt.Fprintf(a.out, "\n%s%*s %s", indent, len(conflicts), "", label)
			column = len(indent) + len(conflicts) + 1 + need
		default:
			fmt.Fprintf(a.out, "  %s", label)
			column += need
		}
	}
	if column > 0 {
		fmt.Fprintln(a.out)
	}
}

// dot is the graph in the language of Graphviz. An arrow points to what is
// needed.
func (g *graph) dot() string {
	fill := map[ipc.State]string{
		ipc.StateRunning: "#e3f9e5", ipc.StateStarting: "#fff8db", ipc.StateStopping: "#fff8db",
		ipc.StateBlocked: "#fff1d6", ipc.StateFailed: "#ffe3e3", ipc.StateExited: "#eef2f7", ipc.StateInactive: "#f5f7fa",
	}
	style := map[relation]string{
		requires: "style=solid", after: "style=dashed", wants: "style=dotted, constraint=false",
		conflicts: `color="#d64545", dir=both, constraint=false`,
	}
	quote := func(text string) string {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
	}
	var b strings.Builder
	b.WriteString("digraph zinit {\n  rankdir=RL\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\"]\n")
	for _, n := range g.nodes {
		if n.state == "" {
			fmt.Fprintf(&b, "  %s [style=dashed, color=\"#d64545\"]\n", quote(n.name))
			continue
		}
		fmt.Fprintf(&b, "  %s [fillcolor=\"%s\", tooltip=%s]\n", quote(n.name), fill[n.state], quote(string(n.state)))
	}
	for _, e := range g.edges {
		fmt.Fprintf(&b, "  %s -> %s [%s]\n", quote(e.from.name), quote(e.to.name), style[e.kind])
	}
	b.WriteString("}\n")
	return b.String()
}
