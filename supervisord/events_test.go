package main

import (
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// happen adds changes of services s1, s2, … as the loop does.
func told(a core.Action) change {
	ch, _ := changeOf(a)
	return ch
}

func happen(t *testing.T, h *history, n int) {
	t.Helper()
	for range n {
		fail(t, h, core.Changed{Service: "s" + strconv.FormatUint(h.last()+1, 10), From: core.StateStarting, To: core.StateRunning, Pid: 7})
	}
}

func fail(t *testing.T, h *history, ch core.Changed) {
	t.Helper()
	events, err := h.encode(time.Unix(5, 0), []change{told(ch)})
	if err != nil {
		t.Fatal(err)
	}
	h.add(events)
	h.announce()
}

func decode(t *testing.T, events []msgpack.RawMessage) []change {
	t.Helper()
	var out []change
	for _, raw := range events {
		var ch change
		if err := msgpack.Unmarshal(raw, &ch); err != nil {
			t.Fatal(err)
		}
		out = append(out, ch)
	}
	return out
}

func TestReadersOfEventsSeeEachOnceOrHowManyAreMissing(t *testing.T) {
	const total = 5*maxEvents + 123
	h := &history{}
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			seq := uint64(0)
			for first := true; seq < total; {
				events, missed, more := h.after(seq)
				if len(events) > maxEvents {
					t.Errorf("%d events at once", len(events))
				}
				if !first || missed > 0 {
					seq += missed
				}
				for _, ch := range decode(t, events) {
					if ch.Seq != seq+1 && !first || ch.Service != "s"+strconv.FormatUint(ch.Seq, 10) {
						t.Errorf("event %d of %s came after %d", ch.Seq, ch.Service, seq)
						return
					}
					seq, first = ch.Seq, false
				}
				if more != nil {
					<-more
				}
			}
		})
	}
	happen(t, h, total)
	readers.Wait()
	if kept := h.kept(); len(kept) != maxEvents {
		t.Errorf("%d events are kept, want %d", len(kept), maxEvents)
	}
}

func TestSlowReaderOfEventsIsToldHowManyItMissed(t *testing.T) {
	h := &history{}
	happen(t, h, 10+maxEvents)
	events, missed, _ := h.after(3)
	if got := decode(t, events); missed != 7 || len(got) != maxEvents || got[0].Seq != 11 {
		t.Errorf("missed %d, then %d events from %d; want 7 and those from 11", missed, len(got), got[0].Seq)
	}
}

func TestEventsOfAnotherLifeDoNotCount(t *testing.T) {
	h := &history{}
	happen(t, h, 2)
	if events, missed, _ := h.after(500); len(events) != 2 || missed != 0 {
		t.Errorf("%d events, %d missed; want 2 and none", len(events), missed)
	}
}

// TestEventsSurviveTheSupervisor: they are in the journal with what they tell
// of, and the numbers go on.
func TestEventsSurviveTheSupervisor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	h := &history{}
	st := newStore(path)
	st.put(recordHeader, header{Format: stateFormat})
	if err := st.rewrite(); err != nil {
		t.Fatal(err)
	}
	reason := &core.Reason{Kind: core.ReasonExitCode, Message: "ended with exit code 3", End: &core.End{Code: 3}}
	events, err := h.encode(time.Unix(5, 0), []change{
		told(core.Changed{Service: "db", From: core.StateRunning, To: core.StateFailed, Reason: reason, Run: 8, Decision: "restarted"}),
		told(core.Changed{Service: "web", From: core.StateInactive, To: core.StateStarting}),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if err := st.put(recordEvent, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.append(); err != nil {
		t.Fatal(err)
	}
	old, err := loadState(path)
	if err != nil {
		t.Fatal(err)
	}
	again := &history{}
	if err := again.restore(old.Events); err != nil {
		t.Fatal(err)
	}
	happen(t, again, 1)
	got, _, _ := again.after(0)
	all := decode(t, got)
	if len(all) != 3 || all[2].Seq != 3 {
		t.Fatalf("%d events, the last is %+v; want three", len(all), all[len(all)-1])
	}
	first := all[0]
	if first.Seq != 1 || first.Service != "db" || first.From != ipc.StateRunning || first.To != ipc.StateFailed ||
		first.Run != 8 || first.Decision != "restarted" || first.Reason == nil || *first.Reason.Code != 3 {
		t.Errorf("the first event is %+v", first)
	}
}
