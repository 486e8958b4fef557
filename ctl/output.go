package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/threefoldtech/zinit/ctl/tui"
	"github.com/threefoldtech/zinit/ipc"
)

// style is an SGR parameter of ECMA-48; plain is none.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

// color says whether output is coloured: on a terminal that can, unless the
// user does not want it (no-color.org).
func (a *app) color() bool {
	return a.terminal && !a.noColor && !a.json && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
}

// paint puts text in a style.
func (a *app) paint(s style, text string) string {
	if s == plain || text == "" || !a.color() {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// allStates in the order of summaries: the good ones first.
var allStates = [...]ipc.State{
	ipc.StateRunning, ipc.StateStarting, ipc.StateStopping, ipc.StateBlocked,
	ipc.StateFailed, ipc.StateExited, ipc.StateInactive,
}

func symbolOf(s ipc.State) string {
	switch s {
	case ipc.StateInactive:
		return "[-]"
	case ipc.StateBlocked:
		return "[?]"
	case ipc.StateStarting:
		return "[>]"
	case ipc.StateRunning:
		return "[+]"
	case ipc.StateStopping:
		return "[!]"
	case ipc.StateExited:
		return "[.]"
	case ipc.StateFailed:
		return "[X]"
	}
	return "[ ]" // of a newer server
}

func stateStyle(s ipc.State) style {
	switch s {
	case ipc.StateRunning:
		return green
	case ipc.StateStarting, ipc.StateBlocked, ipc.StateStopping:
		return yellow
	case ipc.StateFailed:
		return red
	case ipc.StateInactive, ipc.StateExited:
		return dim
	}
	return plain
}

func healthStyle(status string) style {
	switch status {
	case "healthy":
		return green
	case "unhealthy":
		return red
	}
	return yellow
}

// duration is short for people: two units at most.
func duration(d time.Duration) string {
	s := int64(d / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 60*60:
		return fmt.Sprintf("%dm %ds", s/60, s%60)
	case s < 24*60*60:
		return fmt.Sprintf("%dh %dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd %dh", s/86400, s/3600%24)
}

// clean makes text from elsewhere safe for a terminal: control characters,
// bytes that are no UTF-8 and marks that change the direction of writing are
// shown as escapes. Tabs stay.
func clean(text string) string {
	bad := strings.IndexFunc(text, unsafe)
	if bad < 0 {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case !unsafe(r) || r == utf8.RuneError:
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// unsafe includes RuneError, which stands for a broken byte or for itself.
func unsafe(r rune) bool {
	return r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError ||
		r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

// cut shortens text to so many columns.
func (a *app) cut(text string, columns int) string {
	if utf8.RuneCountInString(text) <= columns {
		return text
	}
	ellipsis := ".."
	if a.utf8() {
		ellipsis = "…"
	}
	keep := max(0, columns-utf8.RuneCountInString(ellipsis))
	return string(append([]rune(text)[:keep], []rune(ellipsis)...)[:columns])
}

// table is rows of cells below a header. Columns without any content are left
// out.
type table struct {
	header []string
	rows   [][]cell
	right  []int // columns that are aligned to the right
	last   int   // the column that is cut to what is left of the terminal
	drop   []drop
}

// drop is a column to leave out when the last one would have less room than
// that. They go in the order of the table.
type drop struct{ column, room int }

type cell struct {
	text  string
	style style
}

func (a *app) printTable(t table) {
	widths := make([]int, len(t.header))
	for _, row := range t.rows {
		for i := range row {
			row[i].text = strings.ReplaceAll(clean(row[i].text), "\t", " ")
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	for i, h := range t.header {
		if widths[i] > 0 {
			widths[i] = max(widths[i], len(h))
		}
	}
	if a.terminal && a.width > 0 {
		a.fit(t, widths)
	}
	header := make([]cell, len(t.header))
	for i, h := range t.header {
		header[i] = cell{h, dim}
	}
	a.printRow(t, widths, header)
	for _, row := range t.rows {
		a.printRow(t, widths, row)
	}
}

// fit makes the table as narrow as the terminal: columns get the width 0 until
// the last one has room, which is then cut, and in the end the name is.
func (a *app) fit(t table, widths []int) {
	spare := func() int {
		total := -3 // no gap after the last column, a narrow one after the symbol
		for _, w := range widths {
			if w > 0 {
				total += w + 2
			}
		}
		return a.width - total
	}
	for _, d := range t.drop {
		if spare()+max(0, widths[t.last]-d.room) >= 0 {
			break
		}
		widths[d.column] = 0
	}
	const least = 6 // of the last column; with less it says nothing
	if widths[t.last] = widths[t.last] + min(0, spare()); widths[t.last] < least {
		widths[t.last] = 0
	}
	widths[1] = max(1, widths[1]+min(0, spare()))
}

func (a *app) printRow(t table, widths []int, row []cell) {
	var line strings.Builder
	pending := 0 // spaces, which are not printed at the end of a line
	for i, c := range row {
		if widths[i] == 0 {
			continue
		}
		text := a.cut(c.text, widths[i])
		pad := widths[i] - utf8.RuneCountInString(text)
		if slices.Contains(t.right, i) {
			pending, pad = pending+pad, 0
		}
		if text != "" {
			line.WriteString(strings.Repeat(" ", pending))
			line.WriteString(a.paint(c.style, text))
			pending = 0
		}
		pending += pad + 2
		if i == 0 {
			pending-- // the symbol stands close to the name
		}
	}
	fmt.Fprintln(a.out, line.String())
}

// fold breaks a line between words where the terminal would break it anywhere,
// and begins each new line with indent. A word that is longer than a line stays
// whole: who copies a path gets all of it.
func (a *app) fold(line, indent string) string {
	hang := tui.Columns(indent)
	if !a.terminal || hang >= a.width/2 || tui.Columns(line) <= a.width {
		return line
	}
	var b strings.Builder
	column, gap := 0, 0 // the gap is of spaces that are not printed at the end of a line
	for i, word := range strings.Split(line, " ") {
		if i > 0 {
			gap++
		}
		if word == "" {
			continue
		}
		columns := tui.Columns(word)
		if column > hang && column+gap+columns > a.width {
			b.WriteString("\n" + indent)
			column, gap = hang, 0
		}
		b.WriteString(strings.Repeat(" ", gap) + word)
		column, gap = column+gap+columns, 0
	}
	return b.String()
}

// fields is a block of labels and values, indented.
type fields struct {
	a    *app
	rows [][2]string
}

// add adds a value that is printed as it is; a row without a label continues
// the one above.
func (f *fields) add(label, value string) { f.rows = append(f.rows, [2]string{label, value}) }

// addClean adds text from elsewhere, unless it is empty.
func (f *fields) addClean(label, value string) {
	if value != "" {
		f.add(label, clean(value))
	}
}

func (f *fields) print() {
	width := 0
	for _, row := range f.rows {
		width = max(width, len(row[0]))
	}
	hanging := strings.Repeat(" ", 4+width+2+2) // what begins with the other values is one of them
	for _, row := range f.rows {
		label := fmt.Sprintf("%-*s", width, row[0])
		line := fmt.Sprintf("    %s  %s", f.a.paint(dim, label), row[1])
		fmt.Fprintln(f.a.out, f.a.fold(line, hanging))
	}
}

// utf8 says whether the locale has more than ASCII.
func (a *app) utf8() bool {
	locale := strings.ToLower(cmp.Or(a.getenv("LC_ALL"), a.getenv("LC_CTYPE"), a.getenv("LANG")))
	return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
}

// printJSON prints a value on one line.
func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}
