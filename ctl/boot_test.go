package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/ipctest"
)

func TestCriticalPath(t *testing.T) {
	at := func(ms float64) *float64 { return &ms }
	service := func(name, waited string, wanted, spawned, ready float64) ipc.BootService {
		s := ipc.BootService{Name: name, WantedAtMS: wanted, WaitedFor: waited}
		if spawned > 0 {
			s.SpawnedAtMS = at(spawned)
		}
		if ready > 0 {
			s.ReadyAtMS = at(ready)
		}
		return s
	}
	for _, test := range []struct {
		name        string
		services    []ipc.BootService
		path, later string
		total       float64
	}{
		{"nothing", nil, "", "", 0},
		{"one that never came up", []ipc.BootService{service("a", "b", 1, 0, 0)}, "", "", 1},
		{"a chain", []ipc.BootService{
			service("a", "", 1, 2, 10), service("b", "a", 1, 11, 20), service("c", "", 1, 2, 15), service("d", "b", 1, 21, 21.5),
		}, "a b d", "", 21.5},
		{"wanted while it was under way, and later", []ipc.BootService{
			service("a", "", 1, 2, 10), service("b", "", 9, 9.5, 12), service("c", "a", 13, 14, 15),
		}, "b", "c", 12},
		{"what it waited for is no more", []ipc.BootService{service("a", "gone", 1, 2, 10)}, "a", "", 10},
		{"what it waited for failed", []ipc.BootService{service("a", "b", 1, 5, 10), service("b", "", 1, 2, 0)}, "b a", "", 10},
		{"each waited for the other once", []ipc.BootService{service("a", "b", 1, 5, 10), service("b", "a", 1, 5, 9)}, "b a", "", 10},
	} {
		b := newBootReport(test.services, nil, nil)
		var later []string
		for _, s := range b.later {
			later = append(later, s.Name)
		}
		if !slices.Equal(b.CriticalPath, strings.Fields(test.path)) || strings.Join(later, " ") != test.later || b.total != test.total {
			t.Errorf("%s: path %q, later %q, %v ms", test.name, b.CriticalPath, later, b.total)
		}
		if err := wellFormed(b.svg()); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestBootFitsEveryWidth(t *testing.T) {
	s := ipctest.Serve(t, answer)
	for width := 24; width < 130; width++ {
		r := zinit(t, []string{"--socket", s.Socket, "boot"}, onTerminal(width), withEnv("NO_COLOR", "1"), withEnv("LANG", "C.UTF-8"))
		table, _, _ := strings.Cut(r.stdout, "\n\ndots")
		for line := range strings.Lines(table) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > width {
				t.Errorf("%d columns: %q has %d", width, line, n)
			}
		}
	}
}

func TestGridHasUpToTenSteps(t *testing.T) {
	for total := 0.001; total < 1e8; total *= 1.17 {
		if n := total / gridStep(total); n < 2 || n > 10.01 {
			t.Errorf("%v ms: %v steps of %v", total, n, gridStep(total))
		}
	}
	for ms, want := range map[float64]string{0: "0 ms", 0.04: "0.0 ms", 9.96: "10.0 ms", 14.2: "14 ms", 1240: "1.24 s", 90_000: "1m 30s"} {
		if got := milliseconds(ms); got != want {
			t.Errorf("%v: %q, want %q", ms, got, want)
		}
	}
}
