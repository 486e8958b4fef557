package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/ctl/script"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

func scriptCommand(flags *pflag.FlagSet) func(*app, []string) error {
	list := flags.Bool("builtin", false, "list the scripts that are built in")
	return func(a *app, args []string) error {
		if *list && len(args) == 0 {
			return a.listBuiltins()
		}
		if len(args) == 0 {
			return usagef("script: it needs a file, a directory, or the name of a script that is built in (zinit script --builtin lists them)")
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		err := script.Run(ctx, args[0], script.Options{
			Dial: func(ctx context.Context, socket string) (*client.Client, error) {
				if socket != "" {
					return client.Dial(ctx, socket)
				}
				return a.dial(ctx)
			},
			Explain: func(err error) (ipc.ErrorKind, string, int) {
				kind, message, _, code := a.explain(err)
				return kind, message, code
			},
			Timeout: a.limit(),
			Stdin:   os.Stdin,
			Stdout:  a.out,
			Clean:   a.cleanLines,
			Args:    args[1:],
		})
		var exit *script.Exit
		if errors.As(err, &exit) {
			return silent(exit.Code)
		}
		return err
	}
}

// cleanLines is clean for text of several lines, on a terminal.
func (a *app) cleanLines(text string) string {
	if !a.terminal {
		return text
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = clean(line)
	}
	return strings.Join(lines, "\n")
}

func (a *app) listBuiltins() error {
	if a.json {
		return printJSON(a.out, script.Builtins())
	}
	for _, b := range script.Builtins() {
		name := strings.TrimSpace(b.Name + " " + b.Usage)
		fmt.Fprintf(a.out, "%s\n    %s\n", name, b.Summary)
	}
	return nil
}
