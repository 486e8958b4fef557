package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// defaultLines is how many lines are shown where neither -n nor --since says.
const defaultLines = 100

// lineCount is the value of -n.
type lineCount int

// String is what help shows as the default.
func (n *lineCount) String() string {
	if *n < 0 {
		return "all"
	}
	return strconv.Itoa(int(*n))
}

// Type is the placeholder in help.
func (n *lineCount) Type() string { return "N" }

// Set is called by pflag.
func (n *lineCount) Set(text string) error {
	if text == "all" {
		*n = -1
		return nil
	}
	v, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return errors.New(`expected a number or "all"`)
	}
	*n = lineCount(v)
	return nil
}

func logsCommand(flags *pflag.FlagSet) func(*app, []string) error {
	lines := lineCount(defaultLines)
	flags.VarP(&lines, "lines", "n", "how many of the newest lines, or all (default 100, with --since all)")
	follow := flags.BoolP("follow", "f", false, "go on with new lines as they come, until Ctrl-C")
	since := flags.String("since", "", "only lines after `T`: so long ago (10m, 90) or a moment (2026-11-22T18:24:00Z or, local, 2026-11-22 18:24:00)")
	grep := flags.String("grep", "", "only lines that match the regular expression `RE`")
	stdout := flags.Bool("stdout", false, "only standard output")
	stderr := flags.Bool("stderr", false, "only standard error")
	timestamps := flags.Bool("timestamps", false, "with the time of each line")
	previous := flags.Bool("previous", false, "of the run before the present one")
	return func(a *app, names []string) error {
		params := ipc.LogsParams{Names: names, Lines: int(lines), Grep: *grep, Previous: *previous}
		switch {
		case *stdout && *stderr:
			return usagef("logs: choose --stdout or --stderr, not both; without either both are shown")
		case *stdout:
			params.Stream = "stdout"
		case *stderr:
			params.Stream = "stderr"
		}
		if *previous && *follow {
			return usagef("logs: the previous run is over, it cannot be followed with -f")
		}
		if *since != "" {
			at, err := a.moment(*since)
			if err != nil {
				return err
			}
			params.Since = &at
			if !flags.Changed("lines") {
				params.Lines = -1
			}
		}
		p := a.newLogPrinter(len(names) == 1)
		p.timestamps = *timestamps
		if !*follow {
			return a.ask(func(ctx context.Context, c *client.Client) error {
				if err := p.prepare(ctx, c, names); err != nil {
					return err
				}
				if err := p.finish(c.Logs(ctx, params, p.print)); err != nil || p.printed {
					return err
				}
				a.hintAtNothing(ctx, c, params)
				return nil
			})
		}
		return a.askWithoutEnd(func(ctx context.Context, c *client.Client) error {
			if err := p.prepare(ctx, c, names); err != nil {
				return err
			}
			err := p.finish(c.FollowLogs(ctx, params, func(l ipc.LogLine) error {
				if err := p.print(l); err != nil {
					return err
				}
				return a.out.Flush()
			}))
			if err == nil && len(names) > 0 {
				a.out.Flush()
				a.hint("%s removed: nothing more will come", isOrAre(names))
			}
			return err
		})
	}
}

// hintAtNothing says why there may be no lines.
func (a *app) hintAtNothing(ctx context.Context, c *client.Client, params ipc.LogsParams) {
	if params.Previous {
		a.hint("there is nothing of a run before the present one, since zinit began")
		return
	}
	for _, name := range params.Names {
		config, err := c.Get(ctx, name, false)
		if err == nil && regexp.MustCompile(`(?m)^buffer_lines = 0$`).MatchString(config.TOML) {
			a.hint("nothing is kept of %s: its logging.buffer_lines is 0", name)
		}
	}
}

// hint is for who wonders at what there is not on standard output.
func (a *app) hint(format string, args ...any) {
	if !a.json {
		fmt.Fprintf(a.stderr, "zinit: %s\n", clean(fmt.Sprintf(format, args...)))
	}
}

func isOrAre(names []string) string {
	if len(names) == 1 {
		return names[0] + " was"
	}
	return strings.Join(names, ", ") + " were"
}

// moment reads a duration before now, an RFC 3339 time or, as other commands print
// it, a local one.
func (a *app) moment(text string) (ipc.Time, error) {
	if d, err := parseDuration(text); err == nil {
		return ipc.Time(a.now().Add(-d)), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		at, err = time.ParseInLocation(time.DateTime, text, a.zone)
	}
	if err != nil {
		return ipc.Time{}, usagef("--since: %q is neither a duration such as 10m nor a time such as 2026-11-22T18:24:00Z or 2026-11-22 18:24:00 (local)", text)
	}
	return ipc.Time(at), nil
}

// logPrinter prints lines of logs.
type logPrinter struct {
	a          *app
	bare       bool // no name in front
	timestamps bool
	width      int // of the names so far
	styles     map[string]style
	printed    bool
	// open is the stream whose last piece did not end its line.
	open string
}

func (a *app) newLogPrinter(bare bool) *logPrinter {
	return &logPrinter{a: a, bare: bare, styles: map[string]style{}}
}

// prepare finds how wide the names are, of all services where none is named.
func (p *logPrinter) prepare(ctx context.Context, c *client.Client, names []string) error {
	if len(names) == 0 && !p.a.json {
		services, err := c.List(ctx, client.Filter{})
		if err != nil {
			return err
		}
		for _, s := range services {
			names = append(names, s.Name)
		}
	}
	for _, name := range names {
		p.width = max(p.width, len(name))
	}
	return nil
}

func (p *logPrinter) print(l ipc.LogLine) error {
	a := p.a
	p.printed = true
	switch {
	case a.json:
		return printJSON(a.out, l)
	case l.Missed > 0:
		a.out.Flush()
		fmt.Fprintf(a.stderr, "zinit: %s lines of %s were missed, too many came at once\n", strconv.FormatInt(l.Missed, 10), clean(l.Service))
		return nil
	}
	key := l.Service + "/" + l.Stream
	if p.open != key {
		if p.open != "" {
			a.out.WriteByte('\n')
		}
		if p.timestamps && l.Time != nil {
			fmt.Fprintf(a.out, "%s ", a.paint(dim, l.Time.String()))
		}
		if !p.bare {
			p.width = max(p.width, len(l.Service))
			fmt.Fprintf(a.out, "%s ", a.paint(p.nameStyle(l.Service), fmt.Sprintf("%-*s |", p.width, clean(l.Service))))
		}
	}
	text := l.Text
	if a.terminal {
		text = clean(text)
	}
	a.out.WriteString(text)
	if l.Partial {
		p.open = key
		return nil
	}
	p.open = ""
	return a.out.WriteByte('\n')
}

// indented prints a line below the block of a service.
func (p *logPrinter) indented(l ipc.LogLine) error {
	_, err := fmt.Fprintf(p.a.out, "      %s\n", clean(l.Text))
	return err
}

// finish ends a line that is open.
func (p *logPrinter) finish(err error) error {
	if p.open != "" {
		p.a.out.WriteByte('\n')
	}
	return err
}

// nameStyle gives each service a colour, in the order in which they come; the
// colours of states are left out.
func (p *logPrinter) nameStyle(name string) style {
	colors := [...]style{"36", "35", "34", "96", "95", "94"}
	s, ok := p.styles[name]
	if !ok {
		s = colors[len(p.styles)%len(colors)]
		p.styles[name] = s
	}
	return s
}
