package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

func whyCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, args []string) error {
		return a.ask(func(ctx context.Context, c *client.Client) error {
			why, err := c.Why(ctx, args[0])
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(a.out, why)
			}
			a.printTree([]node{whyNode(why)})
			return nil
		})
	}
}

// whyNode is the chain of causes as a tree.
func whyNode(w ipc.Why) node {
	n := node{name: w.Name, state: w.State, detail: w.Detail}
	if w.Reason != nil && !strings.Contains(w.Detail, w.Reason.Message) {
		n.detail = w.Reason.Message
	}
	for _, b := range w.BlockedBy {
		child := node{name: b.Name, state: b.State, detail: b.Detail}
		switch {
		case b.Because == nil:
		case b.Because.Name != b.Name: // folded: what lies between is left out
			because := whyNode(*b.Because)
			because.relation = "because of"
			child.detail, child.children = "", []node{because}
		default:
			because := whyNode(*b.Because)
			child.state, child.children = because.state, because.children
			child.detail = cmp.Or(because.detail, b.Detail)
		}
		child.relation = b.Kind
		// Said in the same line: api requires db, which does not exist.
		child.detail = strings.TrimPrefix(strings.TrimPrefix(child.detail, b.Kind+" "+b.Name+", "), "which ")
		n.children = append(n.children, child)
	}
	return n
}

func treeCommand(flags *pflag.FlagSet) func(*app, []string) error {
	reverse := flags.BoolP("reverse", "r", false, "show what requires it instead")
	return func(a *app, args []string) error {
		name := ""
		if len(args) > 0 {
			name = args[0]
		}
		return a.ask(func(ctx context.Context, c *client.Client) error {
			trees, err := c.Tree(ctx, name, *reverse)
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(a.out, trees)
			}
			a.printTree(treeNodes(trees))
			return nil
		})
	}
}

func treeNodes(trees []ipc.Tree) []node {
	var nodes []node
	for _, t := range trees {
		n := node{name: t.Name, state: t.State, children: treeNodes(t.Requires)}
		if t.Missing {
			n.state, n.detail = "", "missing"
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// node is a service in a tree.
type node struct {
	relation string // to the one above, "" where all have the same
	name     string
	state    ipc.State // "" where it is no service or does not exist
	detail   string
	children []node
}

// printTree prints trees, one below the other.
func (a *app) printTree(roots []node) {
	strokes := strokes{"|- ", "`- ", "|  ", "   "}
	if a.utf8() {
		strokes.child, strokes.last, strokes.below = "├─ ", "└─ ", "│  "
	}
	for _, root := range roots {
		a.printNode(strokes, "", "", root)
	}
}

// strokes are the lines of a tree: to a child, to the last child, and what
// stands below each.
type strokes struct{ child, last, below, belowLast string }

// printNode prints a node and its children. The strokes before it are those of
// its branch in its first line, and below in all others.
func (a *app) printNode(s strokes, branch, below string, n node) {
	hanging := below + s.below
	if len(n.children) == 0 {
		hanging = below + s.belowLast
	}
	fmt.Fprintln(a.out, a.fold(a.paint(dim, branch)+a.nodeText(n), a.paint(dim, hanging+" ")))
	for i, child := range n.children {
		if i < len(n.children)-1 {
			a.printNode(s, below+s.child, below+s.below, child)
		} else {
			a.printNode(s, below+s.last, below+s.belowLast, child)
		}
	}
}

// nodeText is all that is said of a node itself.
func (a *app) nodeText(n node) string {
	var b strings.Builder
	if n.relation != "" {
		b.WriteString(n.relation + " ")
	}
	if n.state != "" {
		b.WriteString(a.paint(stateStyle(n.state), symbolOf(n.state)) + " ")
	}
	b.WriteString(clean(n.name))
	if n.state != "" {
		b.WriteString("  " + a.paint(stateStyle(n.state), string(n.state)))
	}
	if n.detail != "" && n.detail != string(n.state) {
		b.WriteString(": " + clean(n.detail))
	}
	return b.String()
}
