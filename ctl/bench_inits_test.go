//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// The table of `make compare-init`: zinit-pid1 with a main command side by side
// with tini, dumb-init and catatonit, those that are installed, in pid
// namespaces of their own. Times are from the start of unshare(1), which all of
// them have in common, or from SIGTERM to the end of all.

const (
	initRuns    = 15
	initOrphans = 4000
	// initPatience is how long a situation may take before the init hangs in
	// it: twice what zinit takes for one that has to be killed.
	initPatience = 4 * time.Second
)

func BenchmarkInits(b *testing.B) {
	dir, err := os.MkdirTemp("", "z")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	bin, err := filepath.Abs(os.Getenv("ZINIT_TEST_BIN"))
	if err != nil {
		b.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "svc")); err != nil {
		b.Fatal(err)
	}
	benchMust(b, exec.Command("gcc", "-O2", "-static", "-o", filepath.Join(dir, "orphans"), "testdata/bench/orphans.c"))
	t := &initTable{b: b, dir: dir, path: dir + ":" + bin, inits: []initProgram{zinitAsInit}}
	for _, p := range []initProgram{
		{"tini", []string{"tini", "--"}},
		{"dumb-init", []string{"dumb-init", "--"}},
		{"catatonit", []string{"catatonit", "--"}},
	} {
		if _, err := exec.LookPath(p.name); err == nil {
			t.inits = append(t.inits, p)
		}
	}
	t.print()
	b.ReportMetric(0, "ns/op")
}

type initTable struct {
	b     *testing.B
	dir   string
	path  string // where the programs are
	inits []initProgram
}

func (t *initTable) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	row := func(what string, cell func(initProgram) string) {
		fmt.Fprint(w, what)
		for _, p := range t.inits {
			fmt.Fprint(w, "\t", cell(p))
		}
		fmt.Fprintln(w)
	}
	fmt.Println()
	row("", func(p initProgram) string { return p.name })
	start, stop, memory := t.lives()
	figures := func(of map[string][]float64) func(initProgram) string {
		return func(p initProgram) string { return benchFigure(benchMedian(of[p.name])) }
	}
	row("start until the command runs, ms", figures(start))
	row("SIGTERM until all is gone, ms", figures(stop))
	row("memory (PSS), KiB", figures(memory))
	row("orphans reaped a second", func(p initProgram) string {
		out := t.try(p, situation{command: []string{"orphans", strconv.Itoa(initOrphans)}}, benchPatience)
		var us, code float64
		if _, err := fmt.Sscan(out, &us, &code); err != nil || code != 0 {
			t.b.Fatalf("%s: it came to %q", p.name, out)
		}
		return fmt.Sprintf("%.0f", initOrphans/us*1e6)
	})
	for _, s := range situations {
		row(s.name, func(p initProgram) string {
			if got := t.try(p, s, initPatience); got != s.want {
				return "no: " + got
			}
			return "yes"
		})
	}
	w.Flush()
	fmt.Println()
}

// try returns what an init comes to in a situation.
func (t *initTable) try(p initProgram, s situation, limit time.Duration) string {
	return t.start(p, s, limit).outcome(s)
}

func (t *initTable) start(p initProgram, s situation, limit time.Duration) *trial {
	dir, err := os.MkdirTemp(t.dir, "")
	if err != nil {
		t.b.Fatal(err)
	}
	trial, err := startTrial(dir, t.path, p, s, limit)
	if err != nil {
		t.b.Fatal(err)
	}
	return trial
}

// lives starts and stops each init in turn, and returns for each of them, by
// name, how long that took in milliseconds and its memory in KiB.
func (t *initTable) lives() (start, stop, memory map[string][]float64) {
	start, stop, memory = map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	add := func(to map[string][]float64, p initProgram, v float64) { to[p.name] = append(to[p.name], v) }
	for range initRuns {
		for _, p := range t.inits {
			begin := time.Now()
			tr := t.start(p, situation{script: "echo up; exec sleep 1000"}, benchPatience)
			for !strings.Contains(tr.output(), "up") && time.Since(begin) < benchPatience {
				time.Sleep(100 * time.Microsecond) // the resolution of the figure
			}
			add(start, p, time.Since(begin).Seconds()*1e3)
			kib := 0.0
			init := tr.init()
			for _, pr := range tr.own() {
				if pr.pid == init || pr.name == "zinit-server" {
					kib += benchPSS(t.b, pr.pid)
				}
			}
			add(memory, p, kib)
			begin = time.Now()
			unix.Kill(init, unix.SIGTERM)
			if !tr.ended() {
				t.b.Fatalf("%s does not end", p.name)
			}
			add(stop, p, time.Since(begin).Seconds()*1e3)
		}
	}
	return start, stop, memory
}
