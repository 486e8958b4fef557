package core

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/common/spec"
)

const many = 10000

var shapes = []struct {
	name  string
	build func(n int) map[string]*spec.Service
}{
	{"independent", func(n int) map[string]*spec.Service { return build(n, func(int) []string { return nil }) }},
	{"chain", func(n int) map[string]*spec.Service {
		return build(n, func(i int) []string {
			if i == 0 {
				return nil
			}
			return []string{nth(i - 1)}
		})
	}},
	{"star", func(n int) map[string]*spec.Service {
		return build(n, func(i int) []string {
			if i == 0 {
				return nil
			}
			return []string{nth(0)}
		})
	}},
	{"early", func(n int) map[string]*spec.Service { // a twentieth of all, as on a machine
		services := build(n, func(int) []string { return nil })
		for i := range n / 20 {
			services[nth(i)].Early = true
		}
		return services
	}},
}

func nth(i int) string { return fmt.Sprintf("service-%05d", i) }

func build(n int, requires func(i int) []string) map[string]*spec.Service {
	services := map[string]*spec.Service{}
	for i := range n {
		s := spec.Default(nth(i))
		s.Requires = requires(i)
		services[s.Name] = s
	}
	return services
}

// bootAll boots until all are running.
func bootAll(services map[string]*spec.Service) *Core {
	c := New(services, Options{})
	for queue := c.Step(epoch, Boot{}); len(queue) > 0; queue = queue[1:] {
		if a, ok := queue[0].(Spawn); ok {
			queue = append(queue, c.Step(epoch, Spawned{Run: a.Run, Pid: int(a.Run)})...)
		}
	}
	return c
}

func BenchmarkBoot(b *testing.B) {
	for _, shape := range shapes {
		b.Run(shape.name, func(b *testing.B) {
			services := shape.build(many)
			for b.Loop() {
				c := bootAll(services)
				if s := c.services[nth(many-1)]; s.State != StateRunning {
					b.Fatalf("the last service is %v", s.State)
				}
			}
		})
	}
}

// One service in the middle crashes and is started again.
func BenchmarkStep(b *testing.B) {
	for _, shape := range shapes {
		b.Run(shape.name, func(b *testing.B) {
			c := bootAll(shape.build(many))
			c.Changes()
			now := epoch
			for b.Loop() {
				now = crashOnce(c, now)
			}
		})
	}
}

func crashOnce(c *Core, now Time) Time {
	s := c.services[nth(len(c.services)/2)]
	c.Step(now, Exited{Run: s.Runs[0].ID, End: End{Code: 1}})
	now, _ = c.NextWake()
	c.Step(now, Tick{})
	c.Step(now, Spawned{Run: s.Runs[0].ID, Pid: 1})
	c.Changes()
	return now
}

// A stop of all, each process ending at once, is part of every shutdown.
func BenchmarkShutdown(b *testing.B) {
	for _, shape := range shapes {
		b.Run(shape.name, func(b *testing.B) {
			services := shape.build(many)
			for b.Loop() {
				b.StopTimer()
				c := bootAll(services)
				b.StartTimer()
				halted := false
				for queue := c.Step(epoch, Stop{Action: "exit", Within: 60e9}); len(queue) > 0; queue = queue[1:] {
					switch a := queue[0].(type) {
					case Signal:
						queue = append(queue, c.Step(epoch, Exited{Run: a.Run})...)
					case Halt:
						halted = true
					}
				}
				if !halted {
					b.Fatal("no halt")
				}
			}
		})
	}
}

// TestStepsDoNotDependOnTheNumberOfServices counts what a step allocates, which
// follows what it looks at, also while a removal is under way.
func TestStepsDoNotDependOnTheNumberOfServices(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			cost := func(n int) float64 {
				services := shape.build(n)
				services[nth(n-1)].Lifecycle.StopTimeout = time.Hour
				c := bootAll(services)
				rest := maps.Clone(services)
				delete(rest, nth(n-1))
				c.Step(epoch, Load{Services: rest})
				c.Changes()
				now := epoch
				return testing.AllocsPerRun(5, func() { now = crashOnce(c, now) })
			}
			few, more := cost(50), cost(1000)
			if more > 2*few+20 {
				t.Errorf("a crash and a restart allocate %v times with 50 services, %v times with 1000", few, more)
			}
		})
	}
}

// One of many services changes in place.
func BenchmarkLoad(b *testing.B) {
	for _, shape := range shapes {
		b.Run(shape.name, func(b *testing.B) {
			c := bootAll(shape.build(many))
			c.Changes()
			services := shape.build(0)
			for n, s := range c.services {
				services[n] = s.spec
			}
			for b.Loop() {
				changed := *services[nth(many/2)]
				lifecycle := *changed.Lifecycle
				lifecycle.StopTimeout++
				changed.Lifecycle = &lifecycle
				services[changed.Name] = &changed
				if out := c.Step(epoch, Load{Services: services}); len(out) > 0 {
					b.Fatalf("a change in place does %v", out)
				}
				if ch := c.Changes(); len(ch.Records) != 1 {
					b.Fatalf("a change of one saves %d records", len(ch.Records))
				}
			}
		})
	}
}

// What a reload of one of many services would stop is foreseen.
func BenchmarkForesee(b *testing.B) {
	for _, shape := range shapes {
		b.Run(shape.name, func(b *testing.B) {
			c := bootAll(shape.build(many))
			services := shape.build(0)
			for n, s := range c.services {
				services[n] = s.spec
			}
			last := nth(many - 1)
			changed := *services[last]
			services[last] = &changed
			ev := Load{Services: services, Restart: map[string]bool{last: true}}
			for b.Loop() {
				if stopped := c.Foresee(epoch, ev); len(stopped) != 1 || !stopped[last] {
					b.Fatalf("a restart of one stops %v", stopped)
				}
			}
		})
	}
}

// All services go but the one that the others require.
func BenchmarkRemoveAll(b *testing.B) {
	services := shapes[2].build(many)
	for b.Loop() {
		b.StopTimer()
		c := bootAll(services)
		b.StartTimer()
		queue := c.Step(epoch, Load{Services: map[string]*spec.Service{nth(0): services[nth(0)]}})
		for ; len(queue) > 0; queue = queue[1:] {
			if a, ok := queue[0].(Signal); ok {
				queue = append(queue, c.Step(epoch, Exited{Run: a.Run})...)
			}
		}
		if n := len(c.services); n != 1 {
			b.Fatalf("%d services are left", n)
		}
	}
}
