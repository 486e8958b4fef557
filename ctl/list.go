package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// lastLines is how many log lines the status of a failed service shows.
const lastLines = 10

func listCommand(flags *pflag.FlagSet) func(*app, []string) error {
	state := flags.String("state", "", "only those in this `state`")
	class := flags.String("class", "", "only those of this `class`: user or system")
	quiet := flags.BoolP("quiet", "q", false, "only their names")
	return func(a *app, _ []string) error {
		states := make([]string, len(allStates))
		for i, s := range allStates {
			states[i] = string(s)
		}
		if err := cmp.Or(oneOf("state", *state, states...), oneOf("class", *class, "user", "system")); err != nil {
			return err
		}
		filter := client.Filter{State: ipc.State(*state), Class: *class}
		return a.ask(func(ctx context.Context, c *client.Client) error {
			services, err := c.List(ctx, filter)
			switch {
			case err != nil:
				return err
			case a.json:
				return printJSON(a.out, services)
			case *quiet:
				for _, s := range services {
					fmt.Fprintln(a.out, s.Name)
				}
				return nil
			}
			info, err := c.Info(ctx)
			if err != nil {
				return err
			}
			a.table(services)
			a.out.Flush()
			switch {
			case len(services) > 0:
			case filter != client.Filter{}:
				fmt.Fprintln(a.stderr, "No service is like that.")
			default:
				fmt.Fprintf(a.stderr, "There are no services in %s.\n", clean(info.ConfigDir))
			}
			if line := notLoaded(info.ConfigErrors); line != "" {
				fmt.Fprintln(a.stderr, line)
			}
			if info.Unsaved != "" {
				fmt.Fprintln(a.stderr, clean("The state cannot be saved: "+info.Unsaved))
			}
			return nil
		})
	}
}

// notLoaded is a line on errors in configuration files, "" for none.
func notLoaded(problems []ipc.Problem) string {
	switch n := len(problems); n {
	case 0:
		return ""
	case 1:
		if problems[0].Loaded {
			return "Loaded with an error: " + problem(problems[0])
		}
		return "Not loaded: " + problem(problems[0])
	default:
		return fmt.Sprintf("There are %d errors in the configuration, see zinit status.", n)
	}
}

// table prints the list, as wide as the terminal allows.
func (a *app) table(services []ipc.Service) {
	if len(services) == 0 {
		return
	}
	const (
		symbol = iota
		name
		state
		pid
		uptime
		restarts
		health
		note
		columns
	)
	t := table{
		header: []string{"", "NAME", "STATE", "PID", "UPTIME", "RESTARTS", "HEALTH", "NOTE"},
		right:  []int{pid, restarts},
		last:   note,
		// What says least goes first; the state is in the symbol, too.
		drop: []drop{{restarts, 24}, {pid, 20}, {health, 16}, {uptime, 14}, {state, 10}},
	}
	for _, s := range services {
		style := stateStyle(s.State)
		row := make([]cell, columns)
		row[symbol] = cell{symbolOf(s.State), style}
		row[name] = cell{s.Name, plain}
		row[state] = cell{string(s.State), style}
		row[note] = cell{noteOf(s), dim}
		if s.Pid > 0 {
			row[pid] = cell{strconv.Itoa(s.Pid), plain}
		}
		if s.RestartsTotal > 0 {
			row[restarts] = cell{strconv.Itoa(s.RestartsTotal), plain}
		}
		if s.UptimeMS > 0 {
			row[uptime] = cell{duration(time.Duration(s.UptimeMS) * time.Millisecond), plain}
		}
		if s.Health != nil && s.Health.Status != "none" {
			row[health] = cell{s.Health.Status, healthStyle(s.Health.Status)}
		}
		t.rows = append(t.rows, row)
	}
	a.printTable(t)
}

// noteOf is the one line that says most about a service.
func noteOf(s ipc.Service) string {
	if s.Note == "" && s.Reason != nil {
		return s.Reason.Message
	}
	return cmp.Or(s.Note, s.StatusText)
}

func statusCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, names []string) error {
		return a.ask(func(ctx context.Context, c *client.Client) error {
			if len(names) == 0 {
				return a.systemStatus(ctx, c)
			}
			services, err := c.Status(ctx, names...)
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(a.out, services)
			}
			states := map[string]ipc.Service{}
			if slices.ContainsFunc(services, hasNeighbours) {
				all, err := c.List(ctx, client.Filter{})
				if err != nil {
					return err
				}
				for _, s := range all {
					states[s.Name] = s
				}
			}
			for i, s := range services {
				if i > 0 {
					fmt.Fprintln(a.out)
				}
				a.serviceStatus(s, states)
				if s.State == ipc.StateFailed {
					if err := a.lastLines(ctx, c, s.Name); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
}

// hasNeighbours says whether serviceStatus names other services.
func hasNeighbours(s ipc.Service) bool {
	return len(s.Requires)+len(s.After)+len(s.Wants)+len(s.Conflicts)+len(s.Dependents) > 0
}

// systemStatus is the summary without a name.
func (a *app) systemStatus(ctx context.Context, c *client.Client) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, info)
	}
	services, err := c.List(ctx, client.Filter{})
	if err != nil {
		return err
	}
	title := fmt.Sprintf("zinit %s  up %s  (%s, pid %d", clean(info.Version), duration(time.Duration(info.UptimeMS)*time.Millisecond), clean(info.Mode), info.Pid)
	if info.KeeperPid > 0 {
		title += fmt.Sprintf(", keeper %d", info.KeeperPid)
	}
	fmt.Fprintln(a.out, a.fold(title+")", "    "))
	if info.ShuttingDown {
		fmt.Fprintln(a.out, a.paint(yellow, "It is shutting down."))
	}
	var counts []string
	for _, s := range allStates {
		if n := info.Services[string(s)]; n > 0 {
			counts = append(counts, fmt.Sprintf("%s %d %s", a.paint(stateStyle(s), symbolOf(s)), n, s))
		}
	}
	if len(counts) == 0 {
		counts = []string{"none"}
	}
	f := fields{a: a}
	f.add("services", strings.Join(counts, "  "))
	if info.SystemDir != "" {
		f.addClean("system", info.SystemDir)
	}
	f.addClean("config", info.ConfigDir)
	f.addClean("socket", info.Socket)
	f.addClean("runtime", info.RuntimeDir)
	if since := info.UnsavedSince; since != nil {
		f.add("state", a.paint(red, clean("cannot be saved: "+info.Unsaved)))
		f.add("", "since "+a.when(*since)+"; what is decided meanwhile is lost if zinit-server dies")
	}
	a.addReplaced(&f, info)
	for _, p := range info.ConfigErrors {
		f.add("error", a.paint(red, problem(p)))
	}
	f.print()
	attention := slices.DeleteFunc(services, func(s ipc.Service) bool {
		unhealthy := s.Health != nil && s.Health.Status == "unhealthy"
		return s.State != ipc.StateFailed && s.State != ipc.StateBlocked && !unhealthy
	})
	if len(attention) > 0 {
		fmt.Fprintln(a.out)
		a.table(attention)
	}
	return nil
}

// lastReplaced is how many times the supervisor was replaced that status lists.
const lastReplaced = 3

// addReplaced says how often the supervisor was replaced, and of the last times
// when, why, and how long it took.
func (a *app) addReplaced(f *fields, info ipc.Info) {
	n := info.ServerRestarts
	if n == 0 {
		return
	}
	latest := info.Replaced[max(0, len(info.Replaced)-lastReplaced):]
	var last ipc.Replaced
	if len(latest) > 0 {
		last = latest[len(latest)-1]
	}
	kept := "it kept what ran"
	if last.Ended > 0 {
		kept = fmt.Sprintf("it ended %d that nothing was known of, kept what else ran", last.Ended)
	}
	what := "no service was touched"
	switch {
	case info.StateLost:
		what = "the last one found no saved state: " + kept + ", and began all else as at boot"
	case last.StateCut:
		what = "the last one could not read the end of the saved state: " + kept + ", and what was decided last is lost"
	case !last.Untouched():
		what = "the last one found a saved state older than what ran: " + kept + ", and what was decided since is lost"
	case slices.ContainsFunc(info.Replaced, func(r ipc.Replaced) bool { return !r.Untouched() }):
		what = "the last time no service was touched"
	}
	f.add("supervisor", fmt.Sprintf("was replaced %s, %s", times(n), what))
	for _, r := range latest {
		at := ""
		if r.At != nil {
			at = a.when(*r.At) + ": "
		}
		f.addClean("", fmt.Sprintf("%s%s, took %.1f ms", at, r.Why, r.TookMS))
	}
}

// serviceStatus is everything on one service; states has
// those that it names.
func (a *app) serviceStatus(s ipc.Service, states map[string]ipc.Service) {
	fmt.Fprintf(a.out, "%s %s  %s", a.paint(stateStyle(s.State), symbolOf(s.State)), a.paint(bold, s.Name), a.paint(stateStyle(s.State), string(s.State)))
	if s.Kind == "target" {
		fmt.Fprint(a.out, "  (target)")
	}
	fmt.Fprintln(a.out)

	f := fields{a: a}
	reason := ""
	if s.Reason != nil {
		reason = s.Reason.Message
	}
	if reason != "" && strings.Contains(s.Note, reason) {
		f.addClean("reason", s.Note)
	} else {
		f.addClean("reason", reason)
		if s.Note != s.StatusText { // or it stands below
			f.addClean("note", s.Note)
		}
	}
	for i, b := range s.BlockedBy {
		f.addClean(onlyFirst(i, "waits for"), fmt.Sprintf("%s %s: %s", b.Kind, b.Name, b.Detail))
	}
	if s.Note == s.StatusText || !strings.Contains(s.Note, s.StatusText) {
		f.addClean("says", s.StatusText)
	}
	if s.Since != nil {
		f.add("since", a.when(*s.Since))
	}
	if s.NextStart != nil {
		f.add("next start", a.when(*s.NextStart))
	}
	if s.Pid > 0 {
		f.add("pid", strconv.Itoa(s.Pid))
	}
	if s.RestartsTotal > 0 {
		text := strconv.Itoa(s.RestartsTotal)
		if s.Restarts > 0 {
			text += fmt.Sprintf(", %d in a row", s.Restarts)
		}
		f.add("restarts", text)
	}
	if s.Exit != nil {
		end := "signal " + s.Exit.Signal
		if s.Exit.Code != nil {
			end = "exit code " + strconv.Itoa(*s.Exit.Code)
		}
		if end != reason {
			f.addClean("last end", end+", "+a.when(s.Exit.At))
		}
	}
	if h := s.Health; h != nil && h.Status != "none" {
		text := a.paint(healthStyle(h.Status), clean(h.Status))
		if h.Failures > 0 {
			text += fmt.Sprintf(", failed %s in a row", times(h.Failures))
		}
		if h.LatencyMS > 0 {
			text += fmt.Sprintf(", %.1f ms", h.LatencyMS)
		}
		if h.CheckedAt != nil {
			text += ", checked " + a.when(*h.CheckedAt)
		}
		f.add("health", text)
		f.addClean("", h.Message)
	}
	for _, deps := range []struct {
		label string
		names []string
	}{
		{"requires", s.Requires}, {"after", s.After}, {"wants", s.Wants},
		{"conflicts", s.Conflicts}, {"needed by", s.Dependents},
	} {
		for i, name := range deps.names {
			text := a.paint(red, "[ ] ") + name + "  missing"
			if other, ok := states[name]; ok {
				text = fmt.Sprintf("%s %s  %s", a.paint(stateStyle(other.State), symbolOf(other.State)), name, other.State)
			}
			f.add(onlyFirst(i, deps.label), text)
		}
	}
	if s.Class == "system" {
		f.add("class", s.Class)
	}
	f.add("wanted", fmt.Sprintf("%s (status = %q)", s.Desired, s.Status))
	if s.Origin.Ephemeral {
		f.add("file", "none: added at run time, not kept")
	} else {
		f.addClean("file", s.Origin.File)
	}
	f.print()
}

// lastLines prints the last lines of the log of a service.
func (a *app) lastLines(ctx context.Context, c *client.Client, name string) error {
	printer := a.newLogPrinter(true)
	first := true
	return c.Logs(ctx, ipc.LogsParams{Names: []string{name}, Lines: lastLines}, func(l ipc.LogLine) error {
		if first {
			fmt.Fprintf(a.out, "    %s\n", a.paint(dim, "last log lines"))
			first = false
		}
		return printer.indented(l)
	})
}

// when is a moment in local time and how far away it is.
func (a *app) when(t ipc.Time) string {
	at := time.Time(t).In(a.zone)
	d := a.now().Sub(at)
	text := at.Format(time.DateTime)
	if d < 0 {
		return fmt.Sprintf("%s (in %s)", text, duration(-d))
	}
	return fmt.Sprintf("%s (%s ago)", text, duration(d))
}

// problem is an error in a file as compilers show it.
func problem(p ipc.Problem) string {
	where := p.File
	switch {
	case p.File == "" && p.Line == 0:
		return clean(p.Message)
	case p.File == "":
		where = fmt.Sprintf("line %d, column %d", p.Line, p.Column)
	case p.Line > 0:
		where += ":" + strconv.Itoa(p.Line)
		if p.Column > 0 {
			where += ":" + strconv.Itoa(p.Column)
		}
	}
	return clean(where + ": " + p.Message)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func onlyFirst(i int, label string) string {
	if i > 0 {
		return ""
	}
	return label
}
