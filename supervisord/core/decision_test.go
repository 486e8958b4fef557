package core

import (
	"testing"
	"time"

	"github.com/threefoldtech/zinit/common/spec"
)

// TestDecisionOfAFailure: what a failure is followed by is said with it.
func TestDecisionOfAFailure(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*spec.Service)
		before []Event // while it runs
		event  Event
		want   string
	}{
		{"restart", func(*spec.Service) {}, nil, Exited{End: End{Code: 3}}, "restarted in 940ms (1st in a row)"},
		{"max_restarts", func(s *spec.Service) { s.Lifecycle.MaxRestarts = 5 }, nil, Exited{End: End{Code: 3}}, "restarted in 940ms (1st of 5 in a row)"},
		{"never", func(s *spec.Service) { s.Lifecycle.Restart = spec.RestartNever }, nil, Exited{End: End{Code: 3}}, "not restarted: restart = never"},
		{"ignore", func(s *spec.Service) { s.Status = spec.StatusIgnore }, nil, Exited{End: End{Signal: 11}}, "not restarted: status = ignore"},
		{"no_restart_exit_codes", func(s *spec.Service) { s.Lifecycle.NoRestartExitCodes = []int{3} }, nil, Exited{End: End{Code: 3}}, "not restarted: 3 is one of no_restart_exit_codes"},
		{"stop by hand", func(*spec.Service) {}, []Event{Wish{Op: OpStop, Names: []string{"web"}}, Tick{}}, Exited{End: End{Signal: 9}}, "not restarted: it was stopped by hand"},
		{"shutdown", func(*spec.Service) {}, []Event{Stop{Action: "exit", Within: Time(time.Hour)}, Tick{}}, Exited{End: End{Signal: 9}}, "not restarted: zinit is shutting down"},
		{"restart by hand", func(*spec.Service) {}, []Event{Wish{Op: OpRestart, Names: []string{"web"}}, Tick{}}, Exited{End: End{Signal: 9}}, "started again as soon as nothing is in the way"},
	} {
		t.Run(test.name, func(t *testing.T) {
			sp := spec.Default("web")
			sp.Exec = spec.Literal([]string{"web"})
			sp.Lifecycle.StopTimeout = time.Second
			test.change(sp)
			c := New(map[string]*spec.Service{"web": sp}, Options{})
			now := Time(time.Second)
			c.Step(now, Wish{Op: OpStart, Names: []string{"web"}})
			v, _ := c.View(now, "web")
			run := v.LastMain
			c.Step(now, Spawned{Run: run, Pid: 7})
			for _, ev := range test.before {
				c.Step(now, ev)
				now += Time(2 * time.Second) // beyond the stop timeout
			}
			end := test.event.(Exited)
			end.Run = run
			got := Changed{}
			for _, a := range c.Step(now, end) {
				if ch, ok := a.(Changed); ok && ch.To == StateFailed {
					got = ch
				}
			}
			if got.Decision != test.want || got.Run != run {
				t.Errorf("run %d: %q, want run %d: %q", got.Run, got.Decision, run, test.want)
			}
		})
	}
}

func TestDecisionWhenRestartsAreUsedUp(t *testing.T) {
	sp := spec.Default("web")
	sp.Lifecycle.MaxRestarts = 2
	c := New(map[string]*spec.Service{"web": sp}, Options{})
	now := Time(time.Second)
	actions := c.Step(now, Wish{Op: OpStart, Names: []string{"web"}})
	var got []string
	for range 3 {
		for _, a := range actions {
			if sp, ok := a.(Spawn); ok {
				c.Step(now, Spawned{Run: sp.Run, Pid: 7})
				for _, a := range c.Step(now, Exited{Run: sp.Run, End: End{Code: 1}}) {
					if ch, ok := a.(Changed); ok && ch.To == StateFailed {
						got = append(got, ch.Decision)
					}
				}
			}
		}
		now += Time(time.Minute)
		actions = c.Step(now, Tick{})
	}
	want := []string{"restarted in 940ms (1st of 2 in a row)", "restarted in 2s (2nd of 2 in a row)", "stays failed: max_restarts = 2 used up"}
	if len(got) != 3 || got[0] != want[0] || got[2] != want[2] {
		t.Errorf("decisions are %q, want %q", got, want)
	}
}

func TestDecisionOfAServiceThatCannotStart(t *testing.T) {
	web, db := spec.Default("web"), spec.Default("db")
	web.Requires = []string{"db"}
	db.Lifecycle.Restart = spec.RestartNever
	c := New(map[string]*spec.Service{"web": web, "db": db}, Options{})
	now := Time(time.Second)
	c.Step(now, Wish{Op: OpStart, Names: []string{"web"}})
	v, _ := c.View(now, "db")
	got := map[string]string{}
	for _, a := range c.Step(now, SpawnFailed{Run: v.LastMain, Message: "there is no db"}) {
		if ch, ok := a.(Changed); ok && ch.To == StateFailed {
			got[ch.Service] = ch.Decision
		}
	}
	if got["db"] != "not restarted: restart = never" || got["web"] != "started as soon as db is up" {
		t.Errorf("decisions are %q", got)
	}
}

func TestOrdinals(t *testing.T) {
	for n, want := range map[int]string{1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 13: "13th", 21: "21st", 102: "102nd", 111: "111th"} {
		if got := ordinal(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}
