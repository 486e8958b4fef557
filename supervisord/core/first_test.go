package core

import (
	"testing"

	"github.com/threefoldtech/zinit/common/spec"
)

// TestFirstStart: when a service was first wanted, spawned and ready, and what
// it waited for last, is found out once and survives a crash.
func TestFirstStart(t *testing.T) {
	service := func(name string, change func(*spec.Service)) *spec.Service {
		s := spec.Default(name)
		s.Exec = spec.Literal([]string{name})
		change(s)
		return s
	}
	services := map[string]*spec.Service{
		"disk": service("disk", func(s *spec.Service) { s.Oneshot = true }),
		"net":  service("net", func(s *spec.Service) { s.Oneshot = true }),
		"web":  service("web", func(s *spec.Service) { s.Requires, s.After = []string{"disk"}, []string{"net"} }),
	}
	c := New(services, Options{})
	runs := map[string]RunID{}
	step := func(at Time, ev Event) {
		for _, a := range c.Step(at, ev) {
			if a, ok := a.(Spawn); ok {
				runs[a.Service.Name] = a.Run
			}
		}
	}
	step(10, Boot{})
	step(20, Spawned{Run: runs["disk"], Pid: 1})
	step(21, Spawned{Run: runs["net"], Pid: 2})
	step(30, Exited{Run: runs["disk"]})

	all := c.All()
	var facts []Fact
	facts = append(facts, Fact{Run: runs["net"], Service: "net", Pid: 2})
	c, _, _ = Recover(35, services, Options{}, *all.Global, all.Records, facts)

	step(40, Exited{Run: runs["net"]})
	step(50, Spawned{Run: runs["web"], Pid: 3})
	step(60, Exited{Run: runs["web"], End: End{Code: 1}})
	step(10_000_000_000, Tick{})
	step(10_000_000_001, Spawned{Run: runs["web"], Pid: 4})
	for name, want := range map[string]First{
		"disk": {Wanted: 10, Spawned: 20, Ready: 30},
		"net":  {Wanted: 10, Spawned: 21, Ready: 40},
		"web":  {Wanted: 10, Spawned: 50, Ready: 50, WaitedFor: "net"},
	} {
		if v, _ := c.View(70, name); v.First != want {
			t.Errorf("%s: %+v, want %+v", name, v.First, want)
		}
	}
}
