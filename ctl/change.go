package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// Commands that change the configuration while services run.

func reloadCommand(flags *pflag.FlagSet) func(*app, []string) error {
	dryRun := flags.Bool("dry-run", false, "only say what would change")
	return func(a *app, _ []string) error {
		return a.ask(func(ctx context.Context, c *client.Client) error {
			r, err := c.Reload(ctx, *dryRun)
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(a.out, r)
			}
			a.printReloaded(r)
			return nil
		})
	}
}

// printReloaded prints the plan: + added, - removed, ~ changed.
func (a *app) printReloaded(r ipc.Reloaded) {
	for _, n := range r.Added {
		fmt.Fprintln(a.out, a.paint(stateStyle(ipc.StateRunning), "+"), n)
	}
	for _, n := range r.Removed {
		fmt.Fprintln(a.out, a.paint(stateStyle(ipc.StateFailed), "-"), n)
	}
	for _, ch := range r.Changed {
		how := "in place"
		switch {
		case ch.Restart:
			how = "restarted"
		case ch.Stop:
			how = "stopped"
		}
		fmt.Fprintf(a.out, "%s %s  %s: %s\n", a.paint(stateStyle(ipc.StateStarting), "~"), ch.Name, how, strings.Join(ch.Fields, ", "))
	}
	for _, n := range r.Along {
		fmt.Fprintf(a.out, "%s %s  goes down with what it requires, and comes back with it\n", a.paint(stateStyle(ipc.StateStarting), "~"), n)
	}
	if len(r.Added)+len(r.Removed)+len(r.Changed) == 0 {
		fmt.Fprintln(a.out, "Nothing has changed.")
	}
}

// changing runs a request that moves services, and prints what moved.
func (a *app) changing(noWait bool, do func(context.Context, *client.Client, client.Options, func(ipc.Moved)) error) error {
	moved := []ipc.Moved{}
	err := a.askInterruptibly("zinit list", grace, func(ctx context.Context, c *client.Client) error {
		return do(ctx, c, client.Options{NoWait: noWait, Timeout: a.limit()}, func(m ipc.Moved) {
			if a.json {
				moved = append(moved, m)
				return
			}
			a.printMoved(m, noWait)
		})
	})
	if a.json && !unanswered(err) {
		printJSON(a.out, moved)
	}
	return err
}

func addCommand(flags *pflag.FlagSet) func(*app, []string) error {
	persist := flags.Bool("persist", false, "write it into the service directory")
	noWait := flags.Bool("no-wait", false, "return at once")
	build := serviceFlags(flags)
	return func(a *app, args []string) error {
		config, name, err := build(args)
		if err != nil {
			return err
		}
		return a.changing(*noWait, func(ctx context.Context, c *client.Client, o client.Options, moved func(ipc.Moved)) error {
			return c.Add(ctx, o, config, name, *persist, moved)
		})
	}
}

func setCommand(flags *pflag.FlagSet) func(*app, []string) error {
	noWait := flags.Bool("no-wait", false, "return at once")
	return func(a *app, args []string) error {
		config, name, err := readConfig(args[0])
		if err != nil {
			return err
		}
		return a.changing(*noWait, func(ctx context.Context, c *client.Client, o client.Options, moved func(ipc.Moved)) error {
			return c.Set(ctx, o, config, name, moved)
		})
	}
}

func removeCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, args []string) error {
		return a.changing(false, func(ctx context.Context, c *client.Client, _ client.Options, moved func(ipc.Moved)) error {
			return c.Remove(ctx, args[0], moved)
		})
	}
}

// bulkCommand makes start-all, stop-all and delete-all.
func bulkCommand(do func(*client.Client, context.Context, client.Options, func(ipc.Moved)) error) func(*pflag.FlagSet) func(*app, []string) error {
	return func(flags *pflag.FlagSet) func(*app, []string) error {
		noWait := flags.Bool("no-wait", false, "return at once")
		return func(a *app, _ []string) error {
			return a.changing(*noWait, func(ctx context.Context, c *client.Client, o client.Options, moved func(ipc.Moved)) error {
				return do(c, ctx, o, moved)
			})
		}
	}
}

// readConfig reads a service file, or standard input for -, and what the
// service is called if it does not say.
func readConfig(path string) (config, name string, err error) {
	if path == "-" {
		b, err := io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
		if err != nil {
			return "", "", fmt.Errorf("cannot read standard input: %w", err)
		}
		return withoutSecrets(string(b)), "", nil
	}
	if fi, err := os.Stat(path); err == nil && fi.Mode()&os.ModeNamedPipe != 0 {
		return "", "", usagef("%s is a FIFO: use - and standard input", path)
	}
	// Judged here as well: its mistakes are told with the file's own name.
	if _, _, problems := spec.LoadFile(path); len(problems) > 0 {
		e := ipc.Errorf(ipc.ErrInvalid, "%s has errors: nothing was changed", path)
		for _, p := range problems {
			e.Problems = append(e.Problems, ipc.Problem{File: p.File, Line: p.Line, Column: p.Column, Message: p.Message})
		}
		return "", "", e
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", "", fmt.Errorf("cannot read the service file: %w", err)
	}
	return withoutSecrets(string(b)), strings.TrimSuffix(filepath.Base(path), ".toml"), nil
}

// serviceFlags declares the flags that describe a service, and returns what
// makes a service file of them, or of the file that is named instead.
func serviceFlags(flags *pflag.FlagSet) func(args []string) (config, name string, err error) {
	called := flags.String("name", "", "its `name`")
	command := flags.String("exec", "", "its `command`")
	dir := flags.String("dir", "", "its working `directory`")
	oneshot := flags.Bool("oneshot", false, "run once; exit 0 is success")
	env := flags.StringArrayP("env", "e", nil, "`KEY=VALUE` for its environment")
	after := flags.StringArray("after", nil, "`service` to start after")
	requires := flags.StringArray("requires", nil, "`service` that has to be up")
	wants := flags.StringArray("wants", nil, "`service` to start along with it")
	conflicts := flags.StringArray("conflicts", nil, "`service` that must not run at the same time")
	restart := flags.String("restart", "", "always, on-failure or never")
	delay := flags.Int("restart-delay", -1, "`milliseconds` before the first restart")
	most := flags.Int("max-restarts", -1, "so many restarts in a row, 0 = unlimited")
	return func(args []string) (string, string, error) {
		if len(args) == 1 {
			for _, f := range describing {
				if flags.Changed(f.flag) {
					return "", "", usagef("add-service: give a file, or --name, --exec and so on: --%s belongs to those", f.flag)
				}
			}
			return readConfig(args[0])
		}
		if *called == "" || *command == "" {
			return "", "", usagef("add-service: give a file, - for standard input, or --name and --exec")
		}
		sp := spec.Default(*called)
		var err error
		if sp.Exec, err = spec.SplitWords(*command); err != nil {
			return "", "", usagef("add-service: --exec: %v", err)
		}
		sp.Dir, sp.Oneshot = *dir, *oneshot
		for _, kv := range *env {
			key, value, ok := strings.Cut(kv, "=")
			if !ok || key == "" {
				return "", "", usagef("add-service: --env %s: want KEY=VALUE", kv)
			}
			sp.Env = append(sp.Env, spec.EnvVar{Name: key, Value: value})
		}
		sp.After, sp.Requires, sp.Wants, sp.Conflicts = *after, *requires, *wants, *conflicts
		if *restart != "" {
			sp.Lifecycle.Restart = spec.Restart(*restart)
		}
		if flags.Changed("restart-delay") {
			const tooLong = 1 << 40 // and no overflow
			sp.Lifecycle.RestartDelay = time.Duration(min(*delay, tooLong)) * time.Millisecond
		}
		if flags.Changed("max-restarts") {
			sp.Lifecycle.MaxRestarts = *most
		}
		sp.FillDefaults(func(field string) bool {
			return field == "lifecycle.max_restarts" && flags.Changed("max-restarts")
		})
		config := sp.Source()
		if _, _, problems := spec.Parse("", []byte(config)); len(problems) > 0 {
			message := problems[0].Message
			for _, f := range describing {
				if rest, ok := strings.CutPrefix(message, f.field); ok && rest[0] != '_' {
					message = "--" + f.flag + rest
				}
			}
			return "", "", usagef("add-service: %s", message)
		}
		return config, *called, nil
	}
}

// describing are the flags of serviceFlags, and the fields that they set.
var describing = []struct{ flag, field string }{
	{"name", "service.name"}, {"exec", "service.exec"}, {"dir", "service.dir"}, {"oneshot", "service.oneshot"},
	{"env", "service.env"}, {"after", "dependencies.after"}, {"requires", "dependencies.requires"},
	{"wants", "dependencies.wants"}, {"conflicts", "dependencies.conflicts"}, {"restart", "lifecycle.restart"},
	{"restart-delay", "lifecycle.restart_delay_ms"}, {"max-restarts", "lifecycle.max_restarts"},
}
