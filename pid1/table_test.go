package main

import (
	"fmt"
	"slices"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/threefoldtech/zinit/ipc"
)

// TestTable drives the table through random lives of runs, with pids that are
// used again, beside a model that only remembers who is who.
func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := newTable()
		now := 1000 * time.Second
		next := ipc.RunID(1)
		alive := map[int]ipc.RunID{} // processes that are not reaped
		orphan := map[int]childEnd{} // reaped before their fork was answered
		forks := map[ipc.RunID]int{} // forked, and not answered: pid
		since := map[ipc.RunID]time.Duration{}
		seqs := map[uint64]bool{}

		some := func(label string, state ipc.RunState) *run {
			for id := ipc.RunID(1); id < next; id++ {
				r := tab.runs[id]
				if r == nil || r.State != state || state == ipc.RunSpawning && forks[id] == 0 {
					continue
				}
				if rapid.Bool().Draw(t, label) {
					return r
				}
			}
			return nil
		}
		noteSeq := func(seq uint64) {
			if seq == 0 || seqs[seq] {
				t.Fatalf("message number %d is used twice", seq)
			}
			seqs[seq] = true
		}
		t.Repeat(map[string]func(*rapid.T){
			"spawn": func(t *rapid.T) {
				now++
				tab.add(&ipc.Spawn{Run: next, Tag: fmt.Sprint(next)})
				pid := rapid.IntRange(2, 9).Draw(t, "pid")
				for {
					_, used := alive[pid]
					_, left := groupOwner(tab, pid)
					if !used && !left {
						break
					}
					pid++
				}
				alive[pid], forks[next], since[next] = next, pid, now
				next++
			},
			"reaped before the answer": func(t *rapid.T) {
				now++
				r := some("which", ipc.RunSpawning)
				if r == nil {
					return
				}
				pid := forks[r.ID]
				if _, dead := orphan[pid]; dead || alive[pid] != r.ID {
					return
				}
				end := childEnd{pid: pid, code: int(r.ID), at: now}
				orphan[pid] = end
				delete(alive, pid)
				tab.noteEarly(end)
			},
			"answered": func(t *rapid.T) {
				now++
				r := some("which", ipc.RunSpawning)
				if r == nil {
					return
				}
				pid := forks[r.ID]
				for _, old := range tab.forked(r, pid, since[r.ID]) {
					tab.becomeEmpty(old)
				}
				delete(forks, r.ID)
				tab.becomeRunning(r, 1, 1)
				end, dead := orphan[pid]
				dead = dead && alive[pid] != r.ID && end.code == int(r.ID)
				if dead != (r.early != nil) {
					t.Fatalf("run %d as pid %d: ended early %v, noted %+v", r.ID, pid, dead, r.early)
				}
				if r.early != nil {
					if r.early.code != int(r.ID) {
						t.Fatalf("run %d got the end of run %d", r.ID, r.early.code)
					}
					delete(orphan, pid)
					tab.becomeExited(r, *r.early)
					r.early = nil
					noteSeq(r.Exited.Seq)
				}
			},
			"ended": func(t *rapid.T) {
				now++
				r := some("which", ipc.RunRunning)
				if r == nil {
					return
				}
				pid := r.Spawned.Pid
				if tab.pids[pid] != r {
					t.Fatalf("pid %d of running run %d belongs to %+v", pid, r.ID, tab.pids[pid])
				}
				tab.becomeExited(r, childEnd{pid: pid, code: int(r.ID), at: now})
				noteSeq(r.Exited.Seq)
				delete(alive, pid)
			},
			"emptied": func(t *rapid.T) {
				if r := some("which", ipc.RunExited); r != nil && !r.Emptied {
					tab.becomeEmpty(r)
				}
			},
			"forgotten": func(t *rapid.T) {
				if r := some("which", ipc.RunExited); r != nil && r.Emptied {
					tab.remove(r)
				}
			},
			"acknowledged": func(t *rapid.T) {
				if r := some("which", ipc.RunExited); r != nil {
					tab.ack(r.Exited.Seq)
				}
			},
			"requested": func(t *rapid.T) {
				sig := rapid.IntRange(1, 4).Draw(t, "signal")
				_, pending := tab.requests[sig]
				seq, fresh := tab.request(sig, now)
				if fresh == pending {
					t.Fatalf("signal %d pending %v is fresh %v", sig, pending, fresh)
				}
				if fresh {
					noteSeq(seq)
				}
				if rapid.Bool().Draw(t, "ack") {
					tab.ack(seq)
				}
			},
			"": func(t *rapid.T) {
				for pid, r := range tab.pids {
					if tab.runs[r.ID] != r || r.Spawned.Pid != pid || r.State == ipc.RunExited {
						t.Fatalf("pid %d leads %+v, which it cannot", pid, r)
					}
				}
				for id, r := range tab.left {
					if tab.runs[id] != r || r.State != ipc.RunExited || r.Emptied {
						t.Fatalf("run %d is among those that left something: %+v", id, r)
					}
				}
				for seq := range tab.unacked {
					if !seqs[seq] {
						t.Fatalf("message %d is unacknowledged and was never made", seq)
					}
				}
				if _, ok := tab.oldest(); ok {
					t.Fatal("something was told, and nobody told it")
				}
			},
		})
	})
}

// groupOwner says whether a number is still that of a process group, so that
// the kernel would not give it as a pid.
func groupOwner(tab *table, pid int) (ipc.RunID, bool) {
	for id, r := range tab.left {
		if slices.Contains(r.Groups, pid) {
			return id, true
		}
	}
	return 0, false
}

func TestOldestUnacknowledgedMessage(t *testing.T) {
	tab := newTable()
	t0 := 1000 * time.Second
	a, b, c := tab.number(), tab.number(), tab.number()
	tab.told(b, t0+time.Second)
	tab.told(a, t0+2*time.Second)
	if at, ok := tab.oldest(); !ok || at != t0+time.Second {
		t.Errorf("oldest is %v", at)
	}
	tab.ack(b)
	tab.told(b, t0) // a message that was acknowledged meanwhile
	if at, ok := tab.oldest(); !ok || at != t0+2*time.Second {
		t.Errorf("oldest is %v", at)
	}
	tab.ack(a)
	if _, ok := tab.oldest(); ok || len(tab.unacked) != 1 {
		t.Errorf("message %d was not told and counts", c)
	}
}

func TestAnEarlyEndOfAnEarlierProcessIsNotTaken(t *testing.T) {
	tab := newTable()
	t0 := 1000 * time.Second
	tab.noteEarly(childEnd{pid: 7, at: t0})
	r := tab.add(&ipc.Spawn{Run: 1})
	tab.forked(r, 7, t0+1)
	if r.early != nil {
		t.Error("the end of an earlier pid 7 was taken for its own")
	}
}

func TestEarlyEndsAreBounded(t *testing.T) {
	tab := newTable()
	for pid := range 2 * maxEarly {
		tab.noteEarly(childEnd{pid: pid})
	}
	if len(tab.early) != maxEarly || !tab.lost {
		t.Errorf("%d early ends are kept, lost %v", len(tab.early), tab.lost)
	}
	tab.forksDone()
	if len(tab.early) != 0 || tab.lost {
		t.Error("early ends are kept although no fork is under way")
	}
}

func TestANewProcessProvesAnOldGroupEmpty(t *testing.T) {
	tab := newTable()
	old := tab.add(&ipc.Spawn{Run: 1})
	tab.forked(old, 7, 0)
	tab.becomeRunning(old, 1, 1)
	tab.becomeExited(old, childEnd{pid: 7})
	if empty := tab.forked(tab.add(&ipc.Spawn{Run: 2}), 7, 0); len(empty) != 1 || empty[0] != old {
		t.Errorf("a process got the number of an old group, but that is not empty: %v", empty)
	}
}

func TestStoreIsBounded(t *testing.T) {
	s := fdStore{}
	for name, ok := range map[string]bool{"a": true, "": false, string(make([]byte, maxFdName)): true, string(make([]byte, maxFdName+1)): false} {
		fd, err := dup(0)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.put(name, fd); (err == nil) != ok {
			t.Errorf("name of %d bytes: %v", len(name), err)
		}
	}
	for i := range maxStored {
		s[fmt.Sprint(i)] = -1
	}
	fd, err := dup(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.put("one more", fd); err == nil {
		t.Error("there is no limit")
	}
}

// TestRunsLieApart: the allocator puts objects of a size together, and a run stays when
// the order and the job that were made with it have gone.
func TestRunsLieApart(t *testing.T) {
	class := func(size uintptr) int { return cap(append([]byte(nil), make([]byte, size)...)) }
	r := class(unsafe.Sizeof(run{}))
	if j := class(unsafe.Sizeof(job{})); j == r {
		t.Errorf("a job takes %d bytes, as a run does", j)
	}
	if r > 288 {
		t.Errorf("a run takes %d bytes: there is one for each service", r)
	}
}
