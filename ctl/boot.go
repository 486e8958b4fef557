package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// bootReport is what zinit boot says, as JSON.
type bootReport struct {
	Started  *ipc.Time         `json:"started,omitempty"`
	Services []ipc.BootService `json:"services"`
	// CriticalPath is why the boot took so long: each of these waited for the
	// one before, and the last one was ready last.
	CriticalPath []string `json:"critical_path"`

	states map[string]ipc.State
	boot   []ipc.BootService // in the order of their starts
	later  []ipc.BootService // what was first wanted when the boot was over
	total  float64           // how long the boot took, in milliseconds
}

func bootCommand(flags *pflag.FlagSet) func(*app, []string) error {
	picture := flags.String("svg", "", "draw it into this `FILE`, or - for standard output")
	return func(a *app, _ []string) error {
		return a.ask(func(ctx context.Context, c *client.Client) error {
			services, err := c.Boot(ctx)
			if err != nil {
				return err
			}
			info, err := c.Info(ctx)
			if err != nil {
				return err
			}
			list, err := c.List(ctx, client.Filter{})
			if err != nil {
				return err
			}
			b := newBootReport(services, info.Started, list)
			switch {
			case a.json:
				return printJSON(a.out, b)
			case *picture != "":
				return a.writePicture(*picture, b.svg())
			case len(b.boot) == 0:
				fmt.Fprintln(a.stderr, "No service was started yet.")
			default:
				a.printBoot(b)
			}
			return nil
		})
	}
}

// newBootReport tells the boot from what came later: the boot is over at the
// first moment at which nothing that was wanted by then was on its way.
func newBootReport(services []ipc.BootService, started *ipc.Time, list []ipc.Service) *bootReport {
	b := &bootReport{Started: started, Services: services, CriticalPath: []string{}, states: map[string]ipc.State{}}
	for _, s := range list {
		b.states[s.Name] = s.State
	}
	byName := map[string]ipc.BootService{}
	b.boot = slices.SortedStableFunc(slices.Values(services), func(x, y ipc.BootService) int {
		return cmp.Compare(x.WantedAtMS, y.WantedAtMS)
	})
	last := "" // to be ready
	for i, s := range b.boot {
		if i > 0 && s.WantedAtMS > b.total {
			b.boot, b.later = b.boot[:i], b.boot[i:]
			break
		}
		byName[s.Name] = s
		b.total = max(b.total, s.WantedAtMS, ofMS(s.SpawnedAtMS))
		if s.ReadyAtMS != nil && (last == "" || *s.ReadyAtMS > *byName[last].ReadyAtMS) {
			last = s.Name
		}
		b.total = max(b.total, ofMS(s.ReadyAtMS))
	}
	slices.SortStableFunc(b.boot, func(x, y ipc.BootService) int {
		return cmp.Or(cmp.Compare(begin(x), begin(y)), cmp.Compare(ready(x), ready(y)))
	})
	for name := last; name != "" && !slices.Contains(b.CriticalPath, name); name = byName[name].WaitedFor {
		if _, ok := byName[name]; !ok {
			break
		}
		b.CriticalPath = append(b.CriticalPath, name)
	}
	slices.Reverse(b.CriticalPath)
	return b
}

func ofMS(ms *float64) float64 {
	if ms == nil {
		return 0
	}
	return *ms
}

// begin is when a service became a process, a target ready: what has come to
// neither stands last.
func begin(s ipc.BootService) float64 {
	if s.SpawnedAtMS != nil {
		return *s.SpawnedAtMS
	}
	return ready(s)
}

func ready(s ipc.BootService) float64 {
	if s.ReadyAtMS != nil {
		return *s.ReadyAtMS
	}
	return math.MaxFloat64
}

// outcome says of a service that is not ready what it is instead.
func (b *bootReport) outcome(s ipc.BootService) string {
	if s.ReadyAtMS != nil {
		return ""
	}
	return string(b.states[s.Name])
}

func (b *bootReport) critical(s ipc.BootService) bool { return slices.Contains(b.CriticalPath, s.Name) }

// milliseconds is a time of a boot for people.
func milliseconds(ms float64) string {
	switch {
	case ms == 0:
		return "0 ms"
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	case ms < 60_000:
		return fmt.Sprintf("%.2f s", ms/1000)
	}
	return duration(time.Duration(ms * float64(time.Millisecond)))
}

// printBoot prints a line with a bar for each service, as wide as the terminal.
func (a *app) printBoot(b *bootReport) {
	const timeWidth = 8 // "starting"
	width, names := 80, 0
	if a.terminal && a.width > 0 {
		width = a.width
	}
	for _, s := range b.boot {
		names = max(names, utf8.RuneCountInString(s.Name))
	}
	names = min(names, max(8, width/3))
	bars := max(1, width-names-timeWidth-4)
	fmt.Fprintf(a.out, "%s in %s\n\n", count(len(b.boot), "service", "services"), milliseconds(b.total))
	for _, s := range b.boot {
		mark, style := " ", green
		if b.critical(s) {
			mark, style = "*", red
		}
		name := a.cut(s.Name, names)
		end := milliseconds(ofMS(s.ReadyAtMS))
		endStyle := plain
		if s.ReadyAtMS == nil {
			end, endStyle = b.outcome(s), stateStyle(b.states[s.Name])
		}
		fmt.Fprintf(a.out, "%s %s%s %s %s\n", a.paint(style, mark), name, strings.Repeat(" ", names-utf8.RuneCountInString(name)),
			a.bar(b, s, bars, style), a.paint(endStyle, fmt.Sprintf("%*s", timeWidth, end)))
	}
	fmt.Fprintf(a.out, "\n%s\n", a.paint(dim, "dots: it waited   * critical path:"))
	a.printCriticalPath(b, width)
	if len(b.later) > 0 {
		fmt.Fprintf(a.out, "\nFirst wanted later: %s\n", count(len(b.later), "service", "services"))
	}
}

// bar shows when a service waited and when it was starting.
func (a *app) bar(b *bootReport, s ipc.BootService, width int, style style) string {
	wait, work := ".", "#"
	if a.utf8() {
		wait, work = "·", "█"
	}
	column := func(ms float64) int {
		return min(width, int(math.Round(ms/max(b.total, 0.001)*float64(width))))
	}
	wanted, up := column(s.WantedAtMS), width
	if s.ReadyAtMS != nil {
		up = max(1, column(*s.ReadyAtMS))
	}
	from := up // it was never a process
	if s.SpawnedAtMS != nil {
		from = min(column(*s.SpawnedAtMS), up-1)
	}
	wanted = min(wanted, from)
	return strings.Repeat(" ", wanted) + a.paint(dim, strings.Repeat(wait, from-wanted)) +
		a.paint(style, strings.Repeat(work, up-from)) + strings.Repeat(" ", width-up)
}

// printCriticalPath prints who waited for whom, and what each has taken.
func (a *app) printCriticalPath(b *bootReport, width int) {
	column := 0
	for i, name := range b.CriticalPath {
		s := b.boot[slices.IndexFunc(b.boot, func(s ipc.BootService) bool { return s.Name == name })]
		took := milliseconds(max(0, ofMS(s.ReadyAtMS)-begin(s)))
		text := clean(name) + " " + took
		if i > 0 {
			text = "> " + text
		}
		length := utf8.RuneCountInString(text) + 1
		if column > 0 && column+length > width {
			fmt.Fprintln(a.out)
			column = 0
		}
		if column == 0 {
			fmt.Fprint(a.out, " ")
		}
		fmt.Fprint(a.out, " "+text)
		column += length
	}
	fmt.Fprintln(a.out)
}

// svg draws the boot: a row for each service, and an arrow from what it waited
// for.
func (b *bootReport) svg() string {
	const row, bars, head, side = 26.0, 760.0, 66.0, 90.0
	names := 60.0
	for _, s := range b.boot {
		names = max(names, textWidth(s.Name)+8)
	}
	left, top := pageMargin+names, pageMargin+head
	bottom := top + row*float64(len(b.boot))
	p := newSVG(left+bars+side+pageMargin, bottom+64, "boot")
	p.text(pageMargin, pageMargin+10, "title", fmt.Sprintf("Boot: %s in %s", count(len(b.boot), "service", "services"), milliseconds(b.total)))
	if b.Started != nil {
		p.text(pageMargin, pageMargin+30, "small", time.Time(*b.Started).UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	total := max(b.total, 0.001)
	x := func(ms float64) float64 { return left + ms/total*bars }
	for step, ms := gridStep(total), 0.0; ms <= total; ms += step {
		p.line(x(ms), top-6, x(ms), bottom+6, "grid")
		p.text(x(ms), top-12, "small middle", milliseconds(ms))
	}
	rows := map[string]int{}
	for i, s := range b.boot {
		rows[s.Name] = i
	}
	for i, s := range b.boot {
		y := top + row*float64(i)
		class := "work"
		if b.critical(s) {
			class = "critical"
		}
		up := min(ready(s), total)
		from := min(begin(s), up)
		p.printf("<g><title>%s</title>", escapeXML(b.describe(s)))
		p.text(left-8, y+17, "end", s.Name)
		p.rect(x(s.WantedAtMS), y+9, max(0, x(from)-x(s.WantedAtMS)), 8, "waiting")
		if s.ReadyAtMS != nil {
			p.rect(x(up), y+9, max(0, x(total)-x(up)), 8, "ready")
		}
		if begin(s) <= total {
			p.rect(x(from), y+5, max(2, x(up)-x(from)), 16, class)
		}
		label := cmp.Or(b.outcome(s), milliseconds(ofMS(s.ReadyAtMS)))
		p.text(left+bars+8, y+17, "small", label)
		p.printf("</g>")
	}
	for i, s := range b.boot {
		j, ok := rows[s.WaitedFor]
		if !ok || begin(s) > total {
			continue
		}
		class := "edge"
		if b.critical(s) {
			class = "edge hot"
		}
		from, to := top+row*float64(j)+13, top+row*float64(i)+13
		at := x(min(ready(b.boot[j]), begin(s)))
		p.printf(`<path d="M%.1f,%.1f V%.1f H%.1f" class="%s"/>`, at, from, to, x(begin(s)), class)
	}
	at := pageMargin
	for _, key := range [][2]string{{"waiting", "waits"}, {"work", "starts"}, {"critical", "starts, and the boot waits for it"}, {"ready", "is ready"}} {
		p.rect(at, bottom+28, 22, 10, key[0])
		p.text(at+30, bottom+37, "small", key[1])
		at += 60 + textWidth(key[1])
	}
	return p.end()
}

// describe is a service in a sentence.
func (b *bootReport) describe(s ipc.BootService) string {
	text := fmt.Sprintf("%s: wanted at %s", s.Name, milliseconds(s.WantedAtMS))
	if s.WaitedFor != "" {
		text += ", waited for " + s.WaitedFor
	}
	if s.SpawnedAtMS != nil {
		text += ", spawned at " + milliseconds(*s.SpawnedAtMS)
	}
	if s.ReadyAtMS != nil {
		return text + ", ready at " + milliseconds(*s.ReadyAtMS)
	}
	return text + ", now " + b.outcome(s)
}

// gridStep is a round number of milliseconds, so that there are up to ten steps.
func gridStep(total float64) float64 {
	step := math.Pow(10, math.Floor(math.Log10(total)))
	switch n := total / step; {
	case n <= 2:
		return step / 5
	case n <= 5:
		return step / 2
	}
	return step
}
