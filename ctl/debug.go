package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

func debugStateCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, _ []string) error {
		return a.ask(func(ctx context.Context, c *client.Client) error {
			parts, err := c.DebugState(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(a.out, parts)
			}
			for _, p := range parts {
				title := fmt.Sprint(p["part"])
				if name, ok := p["name"]; ok {
					title += fmt.Sprint(" ", name)
				}
				delete(p, "part")
				delete(p, "name")
				fmt.Fprintln(a.out, a.paint(bold, clean(title)))
				f := fields{a: a}
				f.flatten("", p)
				f.print()
			}
			return nil
		})
	}
}

// flatten adds what is in a value, each under its path: runs.0.pid.
func (f *fields) flatten(path string, value any) {
	join := func(key string) string { return strings.TrimPrefix(path+"."+key, ".") }
	switch v := value.(type) {
	case nil:
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			f.flatten(join(key), v[key])
		}
	case []any:
		for i, element := range v {
			f.flatten(join(fmt.Sprint(i)), element)
		}
	default:
		f.addClean(path, fmt.Sprint(v))
	}
}

func debugProcsCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, args []string) error {
		return a.ask(func(ctx context.Context, c *client.Client) error {
			trees, err := c.Processes(ctx, args[0])
			switch {
			case err != nil:
				return err
			case a.json:
				return printJSON(a.out, trees)
			case len(trees) == 0:
				fmt.Fprintf(a.stderr, "%s has no process.\n", clean(args[0]))
				return nil
			}
			a.printTree(processNodes(trees))
			return nil
		})
	}
}

func processNodes(trees []ipc.Process) []node {
	var nodes []node
	for _, t := range trees {
		nodes = append(nodes, node{name: fmt.Sprintf("%d  %s", t.Pid, t.Command), children: processNodes(t.Children)})
	}
	return nodes
}
