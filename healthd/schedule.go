package main

import (
	"container/heap"
	"context"
	"hash/fnv"

	"github.com/threefoldtech/zinit/ipc"
)

// entry is the probe of one service.
type entry struct {
	ipc.Probe
	// command is that of an exec probe, which is not due before it is known.
	command *ipc.ProbeCommand
	// due is when it begins next, and index its place in the heap, -1 while it
	// is under way or waits for its command.
	due   int64
	index int
	// begun is when it began last.
	begun int64
	// cancel ends the probe that is under way, nil if none is. dropped says that
	// nobody wants its result.
	cancel  context.CancelFunc
	dropped bool
}

// schedule says which probe is due when, in CLOCK_MONOTONIC nanoseconds. It has
// no clock: the caller says how late it is.
type schedule struct {
	entries map[string]*entry // by service
	heap    entryHeap
}

// set adds a probe, or replaces that of the service. One with the same ID goes
// on as it was.
func (s *schedule) set(now int64, p ipc.Probe) {
	e := s.entries[p.Service]
	if e == nil || e.ProbeID != p.ProbeID {
		s.drop(p.Service)
		e = &entry{Probe: p, index: -1}
		s.entries[p.Service] = e
		if p.Type != "exec" {
			s.plan(e, e.first(now))
		}
		return
	}
	same := e.Starting == p.Starting && e.Interval == p.Interval
	e.Probe = p
	if !same && e.index >= 0 {
		s.plan(e, e.next(now))
	}
}

// arm gives an exec probe its command.
func (s *schedule) arm(now int64, c ipc.ProbeCommand) {
	e := s.entries[c.Service]
	if e == nil || e.ProbeID != c.ProbeID {
		return
	}
	first := e.command == nil
	e.command = &c
	if first {
		s.plan(e, e.first(now))
	}
}

// drop ends the probe of a service.
func (s *schedule) drop(service string) {
	e := s.entries[service]
	if e == nil {
		return
	}
	delete(s.entries, service)
	if e.index >= 0 {
		heap.Remove(&s.heap, e.index)
	}
	e.dropped = true
	if e.cancel != nil {
		e.cancel()
	}
}

// pop takes a probe that is due, nil if none is. It is not due again before it
// is done.
func (s *schedule) pop(now int64) *entry {
	if len(s.heap) == 0 || s.heap[0].due > now {
		return nil
	}
	e := heap.Pop(&s.heap).(*entry)
	e.begun = now
	return e
}

// done plans the next time of a probe that is over.
func (s *schedule) done(now int64, e *entry) {
	e.cancel = nil
	if !e.dropped {
		s.plan(e, e.next(now))
	}
}

// wake is when the next probe is due.
func (s *schedule) wake() (at int64, ok bool) {
	if len(s.heap) == 0 {
		return 0, false
	}
	return s.heap[0].due, true
}

func (s *schedule) plan(e *entry, due int64) {
	e.due = due
	if e.index >= 0 {
		heap.Fix(&s.heap, e.index)
		return
	}
	heap.Push(&s.heap, e)
}

// first is when a probe begins for the first time.
func (e *entry) first(now int64) int64 {
	if e.Starting {
		return now
	}
	return e.slot(now)
}

// next is when it begins again.
func (e *entry) next(now int64) int64 {
	if e.Starting {
		return max(now, e.begun+e.Interval)
	}
	return e.slot(now)
}

// slot is the next moment of a service that is starting no more. Its phase
// depends on the name alone, so that many services are spread over the interval
// and keep their times over the life of a zinit-healthd.
func (e *entry) slot(now int64) int64 {
	h := fnv.New64a()
	h.Write([]byte(e.Service))
	phase := int64(h.Sum64()>>1) % e.Interval
	since := (now - phase) % e.Interval
	if since < 0 {
		since += e.Interval
	}
	return now - since + e.Interval
}

// entryHeap has the probe that is due first on top.
type entryHeap []*entry

func (h entryHeap) Len() int           { return len(h) }
func (h entryHeap) Less(i, j int) bool { return h[i].due < h[j].due }

func (h entryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *entryHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

func (h *entryHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.index = -1
	return e
}
