package main

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/common/terminal"
	"github.com/threefoldtech/zinit/ctl/tui"
	"github.com/threefoldtech/zinit/ipc"
)

func tuiCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, _ []string) error {
		switch {
		case a.json:
			return usagef("tui: it has no --json; list, status and events do")
		case !a.terminal || !terminal.Is(int(os.Stdin.Fd())):
			return errors.New("tui: standard input and output have to be a terminal; for scripts there are list, status and events")
		case a.getenv("TERM") == "dumb":
			return errors.New("tui: this terminal cannot show a full screen (TERM is dumb); list and status do without")
		}
		err := tui.Run(a.dial, newScreenLook(a))
		var signaled tui.Signaled
		if errors.As(err, &signaled) {
			return silent(128 + int(signaled.Signal))
		}
		return err
	}
}

// screenLook prints for the full screen what the commands print.
type screenLook struct {
	a    app // on a terminal, with its output in text
	text *bytes.Buffer
	logs *logPrinter
}

func newScreenLook(a *app) *screenLook {
	l := &screenLook{a: *a, text: &bytes.Buffer{}}
	l.a.out, l.a.terminal = bufio.NewWriter(l.text), true
	l.logs = l.a.newLogPrinter(false)
	return l
}

// whole is the width for what is printed in lines that are not folded.
const whole = 0

// lines is what a command prints on a terminal of that width.
func (l *screenLook) lines(width int, print func()) []string {
	l.a.width = width
	print()
	l.a.out.Flush()
	text := strings.TrimSuffix(l.text.String(), "\n")
	l.text.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func (l *screenLook) Table(services []ipc.Service, width int) []string {
	return l.lines(width, func() { l.a.table(services) })
}

func (l *screenLook) Service(s ipc.Service, all map[string]ipc.Service, now time.Time, width int) []string {
	l.a.now = func() time.Time { return now }
	return l.lines(width, func() { l.a.serviceStatus(s, all) })
}

func (l *screenLook) Why(w ipc.Why, width int) []string {
	return l.lines(width, func() { l.a.printTree([]node{whyNode(w)}) })
}

func (l *screenLook) Trees(trees []ipc.Tree) (lines, names []string) {
	nodes := treeNodes(trees)
	var add func([]node)
	add = func(nodes []node) {
		for _, n := range nodes {
			names = append(names, n.name)
			add(n.children)
		}
	}
	add(nodes)
	return l.lines(whole, func() { l.a.printTree(nodes) }), names
}

func (l *screenLook) Plan(r ipc.Reloaded) []string {
	return l.lines(whole, func() { l.a.printReloaded(r) })
}

func (l *screenLook) Moved(m ipc.Moved) string {
	return strings.Join(l.lines(whole, func() { l.a.printMoved(m, false) }), " ")
}

func (l *screenLook) NotLoaded(problems []ipc.Problem) string {
	return l.a.paint(red, notLoaded(problems))
}

func (l *screenLook) Explain(err error) string {
	_, message, _, _ := l.a.explain(err)
	return message
}

func (l *screenLook) States() []ipc.State       { return allStates[:] }
func (l *screenLook) Symbol(s ipc.State) string { return l.a.paint(stateStyle(s), symbolOf(s)) }
func (l *screenLook) Name(service, text string) string {
	return l.a.paint(l.logs.nameStyle(service), text)
}
func (l *screenLook) Clock(t ipc.Time) string  { return time.Time(t).In(l.a.zone).Format(time.TimeOnly) }
func (l *screenLook) Duration(ms int64) string { return duration(time.Duration(ms) * time.Millisecond) }
func (l *screenLook) Clean(text string) string { return clean(text) }
func (l *screenLook) UTF8() bool               { return l.a.utf8() }
func (l *screenLook) Bold(text string) string  { return l.a.paint(bold, text) }
func (l *screenLook) Dim(text string) string   { return l.a.paint(dim, text) }
func (l *screenLook) Good(text string) string  { return l.a.paint(green, text) }
func (l *screenLook) Warn(text string) string  { return l.a.paint(yellow, text) }
func (l *screenLook) Bad(text string) string   { return l.a.paint(red, text) }
