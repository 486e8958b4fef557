package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

func helpCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, args []string) error {
		if len(args) == 0 {
			overview(a.out)
			return nil
		}
		if group := below(args[0]); len(args) == 1 && group != nil {
			listCommands(a.out, group)
			return nil
		}
		cmd, _, err := find(args)
		if err != nil {
			return err
		}
		describe(a.out, cmd)
		return nil
	}
}

// overview lists the commands.
func overview(w io.Writer) {
	fmt.Fprint(w, "zinit controls services. It talks to zinit-server.\n\nUsage: zinit [flags] COMMAND [arguments]\n\nCommands:\n")
	listCommands(w, commands())
	fmt.Fprint(w, "\nFlags, before or after the command:\n")
	globalUsages(w)
	fmt.Fprint(w, `
Exit codes: 0 done, 1 failed, 2 usage, 3 server cannot be reached, 4 no such
service, 5 permission denied, 6 timed out, 130 interrupted.

See zinit help COMMAND.
`)
}

func listCommands(w io.Writer, list []command) {
	width := 0
	for _, c := range list {
		width = max(width, len(c.name))
	}
	for _, c := range list {
		fmt.Fprintf(w, "  %-*s %s\n", width+1, c.name, c.summary)
	}
}

// below are the commands of a group, such as those of xinet.
func below(group string) (list []command) {
	for _, c := range commands() {
		if strings.HasPrefix(c.name, group+" ") {
			list = append(list, c)
		}
	}
	return list
}

// describe prints the help of one command.
func describe(w io.Writer, c command) {
	fmt.Fprintf(w, "zinit %s: %s.\n\nUsage:", c.name, c.summary)
	wrap(w, len("Usage:"), len("Usage: zinit "), c.usage())
	fmt.Fprintf(w, "\n%s\n", c.help)
	own := newFlagSet()
	c.setup(own)
	if own.HasFlags() {
		fmt.Fprint(w, "\nFlags:\n")
		flagUsages(w, own)
	}
	fmt.Fprint(w, "\nFlags of all commands:\n")
	globalUsages(w)
}

func globalUsages(w io.Writer) {
	flags := newFlagSet()
	new(app).globals(flags)
	flagUsages(w, flags)
}

// flagUsages lists flags.
func flagUsages(w io.Writer, flags *pflag.FlagSet) {
	const indent = 23
	flags.VisitAll(func(f *pflag.Flag) {
		left := "      --" + f.Name
		if f.Shorthand != "" {
			left = "  -" + f.Shorthand + ", --" + f.Name
		}
		value, usage := pflag.UnquoteUsage(f)
		if f.Value.Type() != "bool" {
			left += " " + value
		}
		left += " " // two before the usage, even where it is long
		fmt.Fprintf(w, "%-*s", indent-1, left)
		wrap(w, max(indent-1, len(left)), indent, usage)
	})
}

// wrap ends a line that has so many columns already with the words of text,
// and goes on below, indented, at 80 columns.
func wrap(w io.Writer, column, indent int, text string) {
	for _, word := range strings.Fields(text) {
		if column+1+len(word) > 80 {
			fmt.Fprintf(w, "\n%*s", indent-1, "")
			column = indent - 1
		}
		fmt.Fprint(w, " ", word)
		column += 1 + len(word)
	}
	fmt.Fprintln(w)
}
