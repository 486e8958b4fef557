package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// grace is how much longer than a server that ends the wait a command waits: its
// answer says what it waited for.
const grace = 2 * time.Second

// askInterruptibly is ask for what goes on when nobody waits for it: Ctrl-C
// ends the wait, and says so. A terminal is told what it waits for. A server that
// ends the wait by itself has so much more time for that.
func (a *app) askInterruptibly(see string, more time.Duration, f func(context.Context, *client.Client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), a.limit()+more)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	a.progress = a.showProgress(ctx)
	err := func() error {
		defer a.progress.end()
		c, err := a.dialInTime(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		a.more = more
		return f(ctx, c)
	}()
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		a.out.Flush()
		if !a.json {
			fmt.Fprintf(a.stderr, "\nzinit: not waiting any more; the server goes on with it, see %s\n", see)
		}
		return silent(exitInterrupted)
	}
	return err
}

// moveCommand makes start, stop and restart.
func moveCommand(verb string) func(*pflag.FlagSet) func(*app, []string) error {
	return func(flags *pflag.FlagSet) func(*app, []string) error {
		noWait := flags.Bool("no-wait", false, "return at once")
		return func(a *app, names []string) error {
			moved := []ipc.Moved{}
			err := a.askInterruptibly("zinit status "+strings.Join(names, " "), grace, func(ctx context.Context, c *client.Client) error {
				do := map[string]func(context.Context, client.Options, func(ipc.Moved), ...string) error{
					"start": c.Start, "stop": c.Stop, "restart": c.Restart,
				}[verb]
				err := do(ctx, client.Options{NoWait: *noWait, Timeout: a.limit()}, func(m ipc.Moved) {
					if a.json {
						moved = append(moved, m)
						return
					}
					a.printMoved(m, *noWait)
				}, names...)
				if err == nil && verb == "stop" && !a.json {
					a.printArmed(ctx, c, names)
				}
				return err
			})
			if a.json && !unanswered(err) {
				printJSON(a.out, moved)
			}
			return err
		}
	}
}

// unanswered says that an error came before the server could do anything.
func unanswered(err error) bool {
	var refused *ipc.Error
	return err != nil && !errors.As(err, &refused)
}

// printMoved prints what happened to a service at once. What is only on its
// way to a state is left to the line of that state, unless nobody waits.
func (a *app) printMoved(m ipc.Moved, transient bool) {
	if !transient && (m.To == ipc.StateStarting || m.To == ipc.StateStopping) && m.Note == "" {
		return
	}
	words, detail := string(m.To), m.Note
	if m.Reason != nil && !strings.Contains(m.Note, m.Reason.Message) {
		detail = m.Reason.Message
		if m.Note != "" {
			detail += ", " + m.Note
		}
	}
	if strings.HasPrefix(detail, words) { // failed its health check
		words, detail = detail, ""
	}
	if m.Pid > 0 {
		words += fmt.Sprintf(" (pid %d)", m.Pid)
	}
	if detail != "" {
		words += ": " + detail
	}
	a.progress.above(func() {
		line := fmt.Sprintf("%s %s  %s", a.paint(stateStyle(m.To), symbolOf(m.To)), m.Name, clean(words))
		fmt.Fprintln(a.out, a.fold(line, "    "))
		a.out.Flush()
	})
}

func killCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, args []string) error {
		sig := ""
		if len(args) == 2 {
			sig = args[1]
			if _, err := spec.SignalNumber(sig); err != nil {
				return usagef("kill: %v", err)
			}
		}
		return a.ask(func(ctx context.Context, c *client.Client) error {
			return c.Kill(ctx, args[0], sig)
		})
	}
}

// goals are what wait can wait for.
var goals = []string{client.ForRunning, client.ForExited, client.ForHealthy, client.ForInactive}

func waitCommand(flags *pflag.FlagSet) func(*app, []string) error {
	goal := flags.String("for", client.ForRunning, "what to wait for: "+strings.Join(goals, ", "))
	return func(a *app, names []string) error {
		if err := oneOf("for", *goal, goals...); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), a.limit()+grace)
		defer cancel()
		c, err := a.dialInTime(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		a.more = grace
		services, err := c.Wait(ctx, client.Options{Timeout: a.limit()}, *goal, names...)
		if err != nil || !a.json {
			return err
		}
		return printJSON(a.out, services)
	}
}

func isRunningCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, args []string) error {
		return a.ask(func(ctx context.Context, c *client.Client) error {
			services, err := c.Status(ctx, args[0])
			if err != nil {
				return err
			}
			for _, s := range services {
				if s.State == ipc.StateRunning {
					return nil
				}
			}
			return silent(exitFailed)
		})
	}
}

// endCommand makes the commands that end zinit, and maybe the machine.
func endCommand(end func(*client.Client, context.Context) error) func(*pflag.FlagSet) func(*app, []string) error {
	return func(*pflag.FlagSet) func(*app, []string) error {
		return func(a *app, _ []string) error {
			return a.askInterruptibly("zinit status", 0, func(ctx context.Context, c *client.Client) error {
				err := end(c, ctx)
				if unreachable := (*client.Unreachable)(nil); errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &unreachable) {
					return ipc.Errorf(ipc.ErrTimeout, "zinit has not ended within %v; it goes on with that, see zinit status", a.limit())
				}
				if err == nil && !a.json {
					fmt.Fprintln(a.out, "All services are stopped and zinit has ended.")
				}
				return err
			})
		}
	}
}

func upgradeCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, _ []string) error {
		return a.askInterruptibly("zinit status", 0, func(ctx context.Context, c *client.Client) error {
			u, err := c.Upgrade(ctx)
			switch {
			case err != nil:
				return err
			case a.json:
				return printJSON(a.out, u)
			}
			what := fmt.Sprintf("upgraded from %s to %s", u.From, u.To)
			if u.From == u.To {
				what = "replaced by the same version, " + u.To + ","
			}
			fmt.Fprintf(a.out, "zinit-server was %s within %.1f ms. No service was touched.\n", clean(what), u.TookMS)
			return nil
		})
	}
}
