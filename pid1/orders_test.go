package main

import (
	"os"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// FuzzOrders has a keeper obey whatever passes the check of frames, and looks
// that its bounds hold and that no descriptor is lost. The input is a list of
// frames: a byte for the kind, whose high bit sends a descriptor along, a byte
// for the length of the body, and the body. Kind 0 is no frame: the oldest
// spawn under way comes out, well or badly, or ends.
//
// Nothing is forked and nobody is signalled: the children have pids beyond what
// Linux gives (PID_MAX_LIMIT, 1 << 22), and Halt, which signals the children of
// this process, is left out.
func FuzzOrders(f *testing.F) {
	frame := func(kind ipc.Kind, body any) []byte {
		b, err := msgpack.Marshal(body)
		if err != nil || len(b) > 255 {
			f.Fatalf("a seed of kind %d has %d bytes, %v", kind, len(b), err)
		}
		return append([]byte{byte(kind), byte(len(b))}, b...)
	}
	const withFd = 0x80
	spawn := ipc.Spawn{
		Run: 1, Tag: "web", Argv: []string{"/bin/true"}, Env: []string{"A=1"},
		Pipes: []ipc.Pipe{{Name: ipc.LogFd(1, "stdout", "web"), Fd: 1}}, Fds: []ipc.FdUse{{Name: "listen/a", Fd: 3}},
	}
	store := frame(ipc.KindStore, ipc.Store{Name: "listen/a"})
	store[0] |= withFd
	var life []byte
	for _, part := range [][]byte{
		store, frame(ipc.KindSpawn, spawn), frame(ipc.KindSignal, ipc.Signal{Run: 1, Sig: 15, Scope: ipc.ScopeGroup}),
		{0, 0}, frame(ipc.KindMain, ipc.Main{Run: 1, Pid: 1 << 23}), frame(ipc.KindSpawn, spawn),
		frame(ipc.KindSignal, ipc.Signal{Run: 1, Sig: 9, Scope: ipc.ScopeAll}), {0, 2},
		frame(ipc.KindAck, ipc.Ack{Seq: 1}), frame(ipc.KindForget, ipc.Forget{Run: 1}), frame(ipc.KindDrop, ipc.Drop{Name: "listen/a"}),
	} {
		life = append(life, part...)
		f.Add(part)
	}
	f.Add(life)
	f.Add(append(append(store[:len(store):len(store)], store...), 0, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := openFds(t)
		k := &keeper{
			log: &logger{queue: make(chan record, 64)}, pid: unix.Getpid(),
			table: newTable(), store: fdStore{}, empties: newEmptyWatch(), null: -1,
			forking: atOnce, // so that jobs stay where they are
		}
		k.sup.Greeted, k.sup.told = true, true
		for len(b) > 1 {
			kind, n := ipc.Kind(b[0]&^withFd), min(int(b[1]), len(b)-2)
			frame := ipc.Frame{Kind: kind, Body: b[2 : 2+n]}
			choice, fd := b[1], b[0]&withFd != 0
			b = b[2+n:]
			switch {
			case kind == 0:
				k.comesOut(choice)
				continue
			case kind == ipc.KindHalt || ipc.Check(frame.Body) != nil:
				continue
			case fd:
				d, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				frame.Fds = []int{d}
			}
			k.received(inbound{frames: []ipc.Frame{frame}})
			k.sup.condemned = false
		}
		if len(k.store) > maxStored || len(k.table.runs) > maxRuns {
			t.Fatalf("%d descriptors, %d runs", len(k.store), len(k.table.runs))
		}
		for _, r := range k.table.runs {
			if len(r.Signals) > lastSignal || r.State == ipc.RunSpawning != (r.Spawned.Pid == 0) {
				t.Fatalf("run %d: %+v", r.ID, r)
			}
		}
		for _, j := range k.waiting {
			j.close(true)
		}
		for name := range k.store {
			k.store.drop(name)
		}
		if after := openFds(t); after != before {
			t.Fatalf("%d descriptors are open, %d were", after, before)
		}
	})
}

// comesOut makes up what became of the oldest spawn, or of the run that it
// made.
func (k *keeper) comesOut(choice byte) {
	if len(k.waiting) == 0 {
		for _, r := range k.table.runs {
			if r.State == ipc.RunRunning && choice%2 == 0 {
				k.table.becomeExited(r, childEnd{pid: r.Spawned.Pid, code: int(choice)})
				k.becomeEmpty(r)
				return
			}
		}
		return
	}
	j := k.waiting[0]
	k.waiting = k.waiting[1:]
	r := k.table.runs[j.Spawn.Run]
	if r == nil {
		j.close(true)
		return
	}
	if choice%2 == 1 {
		j.close(true)
		k.runLaunched(r, outcome{job: j, done: true, fail: &ipc.SpawnFailed{Run: r.ID, Stage: ipc.StageExec}})
		return
	}
	if err := j.makePipes(); err != nil {
		panic(err)
	}
	j.close(false)
	k.runLaunched(r, outcome{job: j, done: true, pid: 1<<23 + int(r.ID%(1<<20))})
}

// openFds counts the descriptors of this process.
func openFds(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
