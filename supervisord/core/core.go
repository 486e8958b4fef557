// Package core decides what should happen to services. It has no clock, no
// goroutines and no I/O: all it learns comes in as an Event, all it wants done
// goes out as an Action.
//
// The caller steps it with every event it has, saves what Changes returns,
// and only then performs the actions, in order. If it dies in between, Recover
// makes a core from what was saved and from what pid1 knows, and the world
// ends up as if nothing had happened: this is tested by crashing simulated
// worlds at every step.
//
// Not safe for concurrent use. Tests: the golden transition table, scenario
// files in testdata, and the simulated world.
package core

import (
	"slices"

	"github.com/threefoldtech/zinit/common/spec"
)

// Time is CLOCK_MONOTONIC in nanoseconds, comparable between processes of one
// boot. 0 means never.
type Time int64

// OnCritical is what follows when a critical service has failed for good.
type OnCritical uint8

// What may follow.
const (
	CriticalStays OnCritical = iota // nothing
	CriticalExits                   // zinit ends with code 1
	CriticalShell                   // an emergency shell is asked for
)

// Options are what the core has to know beside the services.
type Options struct {
	// Main names the service whose exit code zinit ends with, if it has run.
	Main       string
	OnCritical OnCritical
	// ShutdownTimeout bounds a shutdown that a service brings about.
	ShutdownTimeout Time
	// FirstRun is a run id that is greater than all that were used, for want of
	// a saved one.
	FirstRun RunID
	// Broken is that of Load.
	Broken map[string]string
}

// Core is the state of all services.
//
// A service has a wish (Up) and a state. Three more facts carry what is under
// way: Due says that a start is pending, Halt that a stop is and for whose
// sake, Deadline when something is to happen by itself; what, follows from the
// state. Events change one service and touch it and its neighbours in the
// graph; settle then looks at the touched ones, and at those that this
// touches, until nothing changes: first at stops, so that a wish has reached
// everybody before anything is started.
type Core struct {
	opts     Options
	services map[string]*service
	graph

	touched  map[string]bool
	runs     map[RunID]*service
	strays   map[RunID]bool // runs of nobody, being ended
	deadline deadlines
	lastRun  RunID
	shutdown *Shutdown
	// requested is the number of the last Requested.
	requested uint64
	// removing names the services that are Removed.
	removing map[string]bool
	// watched counts the services for which zinit-healthd is needed; healthUp
	// says that it is there, since healthSince, healthWhy why it is not.
	watched     int
	healthUp    bool
	healthSince Time
	healthWhy   string
	// proxies by name, and by service; gates names the services whose proxies
	// are to be looked at; gateSeq is that of the last order.
	proxies   map[string]*proxy
	proxiesOf map[string][]*proxy
	gates     map[string]bool
	gateSeq   uint64

	now     Time
	actions []Action
	dirty   map[string]bool
	// dirtyGlobal says that one of lastRun, strays, shutdown and requested changed.
	dirtyGlobal bool
}

// graph is what link finds out.
type graph struct {
	// requiredBy, afterBy and conflicts are the edges of the graph backwards,
	// by name, also of names that no service has; conflicts is symmetric.
	requiredBy map[string][]string
	afterBy    map[string][]string
	conflicts  map[string][]string
	ports      map[uint16][]string
	// givesWay holds, for each service, those with which it conflicts and that
	// go first when both are about to start.
	givesWay map[string][]string

	early early
}

// Step takes one event and returns what is to be done for it, in order.
func (c *Core) Step(now Time, ev Event) []Action {
	c.now = max(c.now, now)
	c.apply(ev)
	return c.finish()
}

// finish does what follows from an event at once, also from times that are
// over as soon as they are set, and returns all actions since the last one.
func (c *Core) finish() []Action {
	for {
		c.expire()
		c.settle()
		c.settleGates()
		if len(c.touched) > 0 {
			continue
		}
		if t, ok := c.NextWake(); !ok || t > c.now {
			break
		}
	}
	out := c.actions
	c.actions = nil
	return out
}

// NextWake returns the earliest deadline, at which a Tick is wanted.
func (c *Core) NextWake() (Time, bool) {
	t, ok := c.deadline.min()
	if s := c.shutdown; s != nil && s.Deadline > 0 && (!ok || s.Deadline < t) {
		return s.Deadline, true
	}
	return t, ok
}

// New returns a core with the services of a plan, none of them wished for.
// Boot begins with the event Boot.
func New(services map[string]*spec.Service, o Options) *Core {
	c := unlinked(services, o)
	c.link()
	return c
}

func unlinked(services map[string]*spec.Service, o Options) *Core {
	c := &Core{
		opts:     o,
		services: make(map[string]*service, len(services)),
		touched:  make(map[string]bool, len(services)),
		runs:     map[RunID]*service{},
		strays:   map[RunID]bool{},
		removing: map[string]bool{},
		proxies:  map[string]*proxy{},
		gates:    map[string]bool{},
		dirty:    make(map[string]bool, len(services)),

		dirtyGlobal: true,
	}
	for name, sp := range services {
		c.add(name, sp)
	}
	return c
}

func (c *Core) add(name string, sp *spec.Service) *service {
	s := &service{Record: Record{Name: name}, spec: sp, heapIndex: -1}
	c.services[name] = s
	c.dirty[name] = true
	return s
}

// Names returns the names of all services, sorted.
func (c *Core) Names() []string {
	names := make([]string, 0, len(c.services))
	for n := range c.services {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// sorted returns the services of a set of names in the order of their names,
// so that traces reproduce.
func (c *Core) sorted(set map[string]bool) []*service {
	out := make([]*service, 0, len(set))
	for n := range set {
		if s := c.services[n]; s != nil {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, byName)
	return out
}

func (c *Core) do(a Action) { c.actions = append(c.actions, a) }
