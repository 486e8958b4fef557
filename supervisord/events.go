package main

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// maxEvents is how many changes of states are kept.
const maxEvents = 1000

// usualChange is about how long a change is when it is encoded, in bytes.
const usualChange = 128

// change is an event with what only the supervisor wants to know of it.
type change struct {
	ipc.Event
	Run      core.RunID `msgpack:"run,omitempty"`
	Decision string     `msgpack:"decision,omitempty"`
}

// history keeps the newest changes and lets any number of readers follow, each
// with a cursor of its own: the number of the last one that it has had. There
// is no queue for a reader, so a slow one delays nobody and costs nothing; it
// is told how many it has missed.
//
// The changes are part of the saved state, in the write that saves what they
// tell of, so none is lost or told twice when the supervisor is replaced. They
// stay encoded: most are never looked at.
//
// Safe for concurrent use.
type history struct {
	mu     sync.Mutex
	events []msgpack.RawMessage // oldest first; trimmed when twice as many
	seq    uint64               // of the newest
	more   chan struct{}        // closed when there are more; nil while nobody waits
	// unheard says that some were added and not announced.
	unheard bool
}

// restore begins with what was saved, oldest first.
func (h *history) restore(events []msgpack.RawMessage) error {
	if len(events) == 0 {
		return nil
	}
	var last change
	if err := msgpack.Unmarshal(events[len(events)-1], &last); err != nil {
		return err
	}
	h.seq = last.Seq
	for _, e := range events[max(0, len(events)-maxEvents):] {
		h.events = append(h.events, bytes.Clone(e)) // or the whole journal would stay in memory
	}
	return nil
}

// encode numbers changes that follow those there are. They count once they are
// added.
func (h *history) encode(at time.Time, changes []change) ([]msgpack.RawMessage, error) {
	if len(changes) == 0 {
		return nil, nil
	}
	h.mu.Lock()
	seq := h.seq
	h.mu.Unlock()
	// In one piece of memory, which stays as long as the last of them.
	var all bytes.Buffer
	all.Grow(usualChange * len(changes))
	enc := msgpack.NewEncoder(&all)
	moment := ipc.Time(at)
	ends := make([]int, len(changes))
	for i := range changes {
		ch := &changes[i]
		ch.Seq, ch.Time = seq+uint64(i)+1, &moment
		if err := enc.Encode(ch); err != nil {
			return nil, err
		}
		ends[i] = all.Len()
	}
	out := make([]msgpack.RawMessage, len(changes))
	for i, end := range ends {
		out[i] = all.Bytes()[:end:end]
		if i > 0 {
			out[i] = out[i][ends[i-1]:]
		}
	}
	return out, nil
}

// add takes what was encoded, when it is saved. Those who wait for it are told by
// announce.
func (h *history) add(events []msgpack.RawMessage) {
	if len(events) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, events...)
	h.seq += uint64(len(events))
	if len(h.events) >= 2*maxEvents {
		h.events = append([]msgpack.RawMessage(nil), h.events[len(h.events)-maxEvents:]...)
	}
	h.unheard = true
}

// announce wakes those who wait for what was added. It is apart because they would run
// at once, where what the changes bring about is yet to be ordered.
func (h *history) announce() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.unheard && h.more != nil {
		close(h.more)
		h.more = nil
	}
	h.unheard = false
}

// kept returns those that are kept, oldest first.
func (h *history) kept() []msgpack.RawMessage {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.events[max(0, len(h.events)-maxEvents):]
}

// last returns the number of the newest change.
func (h *history) last() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seq
}

// after returns the changes after a number, and how many are missing before
// them. If there are none, more is closed as soon as that is no longer so. A
// number that is yet to come is one of another life of zinit, and counts as 0.
func (h *history) after(seq uint64) (events []msgpack.RawMessage, missed uint64, more <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if seq > h.seq {
		seq = 0
	}
	kept := h.events[max(0, len(h.events)-maxEvents):]
	oldest := h.seq - uint64(len(kept)) // the last one that is not kept
	switch {
	case seq == h.seq:
		if h.more == nil {
			h.more = make(chan struct{})
		}
		return nil, 0, h.more
	case seq == 0: // whatever there is
		return kept, 0, nil
	case seq < oldest:
		return kept, oldest - seq, nil
	}
	return kept[seq-oldest:], 0, nil
}

// changeOf is the event of an action, if it is one.
func changeOf(a core.Action) (change, bool) {
	switch a := a.(type) {
	case core.Changed:
		return change{
			Event: ipc.Event{
				Service: a.Service, From: ipc.State(a.From.String()), To: ipc.State(a.To.String()),
				Pid: a.Pid, Reason: reasonOf(a.Reason),
			},
			Run: a.Run, Decision: a.Decision,
		}, true
	case core.HealthChanged:
		state := ipc.State(a.State.String())
		return change{Event: ipc.Event{Service: a.Service, From: state, To: state, Health: healthOf(a.Health)}}, true
	}
	return change{}, false
}

// newEvents encodes the changes that the steps have brought since it was
// called last in this turn.
func (s *server) newEvents() []msgpack.RawMessage {
	var changes []change
	for _, a := range s.pending[s.told:] {
		if ch, ok := changeOf(a); ok {
			changes = append(changes, ch)
		}
	}
	s.told = len(s.pending)
	events, err := s.history.encode(time.Now(), changes)
	if err != nil {
		s.log.Error("cannot encode events", "error", err)
	}
	return events
}

func eventsSubscribe(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.EventsParams](r)
	if err != nil {
		return nil, err
	}
	seq := p.After
	send := func(e ipc.Event) error {
		if err := c.conn.Send(ipc.KindItem, ipc.Item{ID: r.ID, Item: e}); err != nil {
			return err
		}
		return c.conn.WaitDrained()
	}
	for ctx.Err() == nil {
		events, missed, more := c.s.history.after(seq)
		if missed > 0 {
			if err := send(ipc.Event{Missed: missed}); err != nil {
				return nil, err
			}
		}
		for _, raw := range events {
			if ctx.Err() != nil {
				break
			}
			var ch change
			if err := msgpack.Unmarshal(raw, &ch); err != nil {
				return nil, err
			}
			if err := send(ch.Event); err != nil {
				return nil, err
			}
			seq = ch.Seq
		}
		if !p.Follow {
			break
		}
		if more != nil {
			select {
			case <-more:
			case <-ctx.Done():
			}
		}
	}
	return stream{}, nil
}
