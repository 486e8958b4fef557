package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

func eventsCommand(flags *pflag.FlagSet) func(*app, []string) error {
	follow := flags.BoolP("follow", "f", false, "go on with what happens")
	return func(a *app, _ []string) error {
		print := func(ctx context.Context, c *client.Client) error {
			width := 0
			if !a.json {
				services, err := c.List(ctx, client.Filter{})
				if err != nil {
					return err
				}
				for _, s := range services {
					width = max(width, len(s.Name))
				}
			}
			return c.Events(ctx, *follow, func(e ipc.Event) error {
				width = max(width, len(e.Service))
				if err := a.printEvent(e, width); err != nil || !*follow {
					return err
				}
				return a.out.Flush()
			})
		}
		if *follow {
			return a.askWithoutEnd(print)
		}
		return a.ask(print)
	}
}

// askWithoutEnd is ask for what goes on until it is ended, nobody reads its output
// any more, or until --timeout where that is given.
func (a *app) askWithoutEnd(f func(context.Context, *client.Client) error) error {
	ctx, end := context.WithCancelCause(context.Background())
	defer end(nil)
	if out, ok := a.stdout.(*os.File); ok {
		go func() { end(awaitNoReader(out)) }()
	}
	if a.timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, a.limit())
		defer cancel()
		ctx = limited
	}
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	err = f(ctx, c)
	if cause := context.Cause(ctx); errors.Is(cause, syscall.EPIPE) {
		return cause
	}
	return err
}

// awaitNoReader waits until nobody reads a pipe any more. That ends the process as
// the next line would, which may be long in coming.
func awaitNoReader(out *os.File) error {
	for {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(out.Fd())}}, -1); err != unix.EINTR {
			_, err := out.WriteString("\n")
			return err
		}
	}
}

// printEvent prints a change on a line, with the name in so many columns.
func (a *app) printEvent(e ipc.Event, width int) error {
	switch {
	case a.json:
		return printJSON(a.out, e)
	case e.Missed > 0:
		a.out.Flush()
		fmt.Fprintf(a.stderr, "zinit: %d changes were missed, too many came at once\n", e.Missed)
		return nil
	}
	at := ""
	if e.Time != nil {
		at = time.Time(*e.Time).In(a.zone).Format("2006-01-02 15:04:05.000")
	}
	text := fmt.Sprintf("%s -> %s", e.From, a.paint(stateStyle(e.To), string(e.To)))
	if h := e.Health; h != nil {
		text = a.paint(healthStyle(h.Status), clean(h.Status))
		if h.Message != "" {
			text += ": " + clean(h.Message)
		}
	}
	if e.Pid > 0 {
		text += fmt.Sprintf(" (pid %d)", e.Pid)
	}
	if e.Reason != nil {
		text += ": " + clean(e.Reason.Message)
	}
	_, err := fmt.Fprintf(a.out, "%s %s %-*s  %s\n", a.paint(dim, at),
		a.paint(stateStyle(e.To), symbolOf(e.To)), width, clean(e.Service), text)
	return err
}

func statsCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, names []string) error {
		return a.ask(func(ctx context.Context, c *client.Client) error {
			stats, err := c.Stats(ctx, names...)
			switch {
			case err != nil:
				return err
			case a.json:
				return printJSON(a.out, stats)
			case len(stats) == 0:
				fmt.Fprintln(a.stderr, "No service has a process.")
				return nil
			}
			a.statsTable(stats)
			return nil
		})
	}
}

func (a *app) statsTable(stats []ipc.Stats) {
	const (
		_ = iota // in the place of a symbol
		name
		pid
		cpu
		cpuTime
		memory
		processes
		fds
		columns
	)
	t := table{
		header: []string{"", "NAME", "PID", "CPU%", "CPU TIME", "MEMORY", "PROCESSES", "FDS"},
		right:  []int{pid, cpu, cpuTime, memory, processes, fds},
		last:   fds,
		drop:   []drop{{pid, 6}, {processes, 6}, {cpuTime, 6}, {fds, 6}, {cpu, 0}},
	}
	for _, s := range stats {
		row := make([]cell, columns)
		row[name] = cell{s.Name, plain}
		row[processes] = cell{strconv.Itoa(s.Processes), plain}
		if s.Pid > 0 {
			row[pid] = cell{strconv.Itoa(s.Pid), plain}
		}
		if s.Processes > 0 {
			style := plain
			if s.CPUPercent >= 90 {
				style = yellow
			}
			row[cpu] = cell{strconv.FormatFloat(s.CPUPercent, 'f', 1, 64), style}
			row[cpuTime] = cell{shortTime(time.Duration(s.CPUTimeMS) * time.Millisecond), plain}
			row[memory] = cell{size(s.MemoryBytes), plain}
		}
		if s.Fds != nil {
			row[fds] = cell{strconv.Itoa(*s.Fds), plain}
		}
		t.rows = append(t.rows, row)
	}
	a.printTable(t)
}

// shortTime is duration with parts of a second where it is short.
func shortTime(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.2fs", d.Seconds())
	}
	return duration(d)
}

// size is a number of bytes for people.
func size(n int64) string {
	const units = "KMGT"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value := float64(n) / (1 << 10)
	unit := 0
	for ; value >= 1000 && unit < len(units)-1; unit++ {
		value /= 1 << 10
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

func incidentsCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, args []string) error {
		name := strings.Join(args, "")
		return a.ask(func(ctx context.Context, c *client.Client) error {
			incidents, err := c.Incidents(ctx, name)
			switch {
			case err != nil:
				return err
			case a.json:
				return printJSON(a.out, incidents)
			case len(incidents) == 0:
				fmt.Fprintln(a.stderr, "Nothing has failed.")
				return nil
			}
			for i, in := range incidents {
				if i > 0 {
					fmt.Fprintln(a.out)
				}
				a.printIncident(in)
			}
			return nil
		})
	}
}

func (a *app) printIncident(in ipc.Incident) {
	message := "failed"
	if in.Reason != nil {
		message = in.Reason.Message
	}
	line := fmt.Sprintf("%s %s  %s", a.paint(red, symbolOf(ipc.StateFailed)), a.paint(bold, clean(in.Name)), a.paint(red, clean(message)))
	fmt.Fprintln(a.out, a.fold(line, "    "))
	f := fields{a: a}
	f.add("when", a.when(in.At))
	f.addClean("then", in.Decision)
	f.print()
	if len(in.Lines) > 0 {
		fmt.Fprintf(a.out, "    %s\n", a.paint(dim, "last log lines"))
	}
	for _, line := range in.Lines {
		fmt.Fprintf(a.out, "      %s\n", clean(line))
	}
}

func getCommand(flags *pflag.FlagSet) func(*app, []string) error {
	reveal := flags.Bool("reveal", false, "with what is in secret files and in env_file")
	return func(a *app, args []string) error {
		return a.ask(func(ctx context.Context, c *client.Client) error {
			config, err := c.Get(ctx, args[0], *reveal)
			if err != nil {
				return err
			}
			if a.json {
				if len(config.Secrets) > 0 {
					config.Config["secrets"] = config.Secrets
				}
				return printJSON(a.out, config.Config)
			}
			a.printConfig(config)
			return nil
		})
	}
}

// secretsHeading stands before what is in other files.
const secretsHeading = "# variables from files, read at each start:"

// withoutSecrets is a configuration as get --reveal prints it, without what it has
// revealed: that is for who reads it, and not for the service file, which others may
// read.
func withoutSecrets(config string) string {
	before, after, found := strings.Cut(config, "\n"+secretsHeading+"\n")
	if !found {
		return config
	}
	for line := range strings.Lines(after) {
		if !strings.HasPrefix(line, "# ") || !strings.Contains(line, "  from ") {
			before += line
		}
	}
	return before
}

// printConfig prints a file that is valid as it stands: what is in other files
// is a comment.
func (a *app) printConfig(config ipc.Config) {
	const mark = " # default"
	for line := range strings.Lines(config.TOML) {
		line = strings.TrimSuffix(line, "\n")
		text, standard := strings.CutSuffix(line, mark)
		if text = clean(text); standard {
			text = a.paint(dim, text+mark)
		}
		fmt.Fprintln(a.out, text)
	}
	for i, s := range config.Secrets {
		if i == 0 {
			fmt.Fprintln(a.out, "\n"+secretsHeading)
		}
		text := s.Value
		if s.Error != "" {
			text = "(" + s.Error + ")"
		}
		if s.Name != "" {
			text = s.Name + "=" + text
		}
		fmt.Fprintf(a.out, "# %s  from %s\n", clean(text), clean(s.File))
	}
}
