package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/ipc"
)

func probe(service string, run ipc.RunID, interval time.Duration) ipc.Probe {
	return ipc.Probe{ProbeID: ipc.ProbeID{Service: service, Run: run}, Interval: int64(interval), Timeout: int64(time.Second), Type: "tcp"}
}

func starting(p ipc.Probe) ipc.Probe {
	p.Starting = true
	return p
}

func newSchedule() *schedule { return &schedule{entries: map[string]*entry{}} }

// popped returns when probes began until a moment, each of which takes so long.
func popped(s *schedule, now *int64, until int64, takes time.Duration) (began []int64) {
	for {
		at, ok := s.wake()
		if !ok || at > until {
			*now = until
			return began
		}
		*now = max(*now, at)
		e := s.pop(*now)
		began = append(began, *now)
		if again := s.pop(*now); again != nil && again.Service == e.Service {
			panic("a probe of " + e.Service + " begins while one is under way")
		}
		*now += int64(takes)
		s.done(*now, e)
	}
}

func seconds(list []int64) (out []string) {
	for _, t := range list {
		out = append(out, time.Duration(t).String())
	}
	return out
}

func TestStartingProbesBeginAtOnce(t *testing.T) {
	s, now := newSchedule(), int64(7*time.Second)
	s.set(now, starting(probe("web", 1, 500*time.Millisecond)))
	got := popped(s, &now, int64(8*time.Second), time.Millisecond)
	if want := "[7s 7.5s 8s]"; fmt.Sprint(seconds(got)) != want {
		t.Errorf("began at %v, expected %s", seconds(got), want)
	}
	// One that is slower than its interval follows at once, and never overlaps.
	got = popped(s, &now, int64(10*time.Second), 700*time.Millisecond)
	if want := "[8.5s 9.2s 9.9s]"; fmt.Sprint(seconds(got)) != want {
		t.Errorf("slow ones began at %v, expected %s", seconds(got), want)
	}
}

func TestProbesAreSpreadOverTheInterval(t *testing.T) {
	const services = 1000
	s, now := newSchedule(), int64(time.Hour)
	for i := range services {
		s.set(now, probe(fmt.Sprint("s", i), ipc.RunID(i), time.Second))
	}
	start := now
	buckets := map[int64]int{}
	began := popped(s, &now, start+3*int64(time.Second), 0)
	for _, at := range began {
		buckets[(at-start)/int64(20*time.Millisecond)]++
	}
	if len(began) != 3*services {
		t.Errorf("%d probes in 3 s, expected %d", len(began), 3*services)
	}
	for b, n := range buckets {
		if n > 60 { // 20 on average
			t.Errorf("%d probes begin in the 20 ms from %v", n, time.Duration(b)*20*time.Millisecond)
		}
	}
}

func TestProbesKeepTheirTimes(t *testing.T) {
	times := func(from time.Duration) []string {
		s, now := newSchedule(), int64(from)
		s.set(now, probe("web", 1, 10*time.Second))
		return seconds(popped(s, &now, int64(time.Minute), 3*time.Second))
	}
	// Another zinit-healthd, begun later, goes on where the first was killed.
	all := times(0)
	if late := times(35 * time.Second); fmt.Sprint(all[len(all)-len(late):]) != fmt.Sprint(late) {
		t.Errorf("from 0 %v, from 35 s %v", all, late)
	}
	if len(all) < 5 {
		t.Errorf("only %d probes in a minute", len(all))
	}
}

func TestSetAndDrop(t *testing.T) {
	s, now := newSchedule(), int64(time.Second)
	s.set(now, starting(probe("web", 1, time.Second)))
	e := s.pop(now)
	cancelled := false
	e.cancel = func() { cancelled = true }
	// The same again, while it is under way, changes nothing.
	s.set(now, starting(probe("web", 1, time.Second)))
	if at, ok := s.wake(); ok || cancelled {
		t.Errorf("due at %d while it is under way, cancelled %v", at, cancelled)
	}
	s.done(now, e)
	if at, _ := s.wake(); at != now+int64(time.Second) {
		t.Errorf("due again at %v", time.Duration(at))
	}
	// Another interval counts from the last time, and again when it is due only.
	s.set(now, starting(probe("web", 1, 300*time.Millisecond)))
	if at, _ := s.wake(); at != now+int64(300*time.Millisecond) {
		t.Errorf("with another interval due at %v", time.Duration(at))
	}
	// Another run ends what is under way, and nobody wants its result.
	e = s.pop(now + int64(time.Second))
	e.cancel = func() { cancelled = true }
	s.set(now, starting(probe("web", 2, time.Second)))
	if !cancelled || !e.dropped {
		t.Errorf("the probe of another run goes on: cancelled %v, dropped %v", cancelled, e.dropped)
	}
	s.done(now, e)
	if e := s.pop(now); e == nil || e.Run != 2 || len(s.heap) != 0 {
		t.Errorf("%+v is due, and %d more", e, len(s.heap))
	}
	s.drop("web")
	s.drop("nobody")
	if len(s.entries) != 0 || len(s.heap) != 0 {
		t.Errorf("%d probes are left", len(s.entries))
	}
	// A command comes by itself, and for this run only.
	p := starting(probe("job", 3, time.Second))
	p.Type = "exec"
	s.set(now, p)
	s.arm(now, ipc.ProbeCommand{ProbeID: ipc.ProbeID{Service: "job", Run: 2}})
	if _, ok := s.wake(); ok {
		t.Error("a probe without its command is due")
	}
	s.arm(now, ipc.ProbeCommand{ProbeID: p.ProbeID, Argv: []string{"true"}})
	if e := s.pop(now); e == nil || e.command.Argv[0] != "true" {
		t.Errorf("with its command %+v is due", e)
	}
}
