package main

import (
	"slices"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

func TestLogPipesOfEarlierRunsAreTakenFirst(t *testing.T) {
	k := &keeper{fds: map[string]int{
		"log/10/stdout/web": 5, "log/9/stdout/web": 6, "log/9/stderr/web": 7, "log/1000/stdout/db": 8, "listen/web/0": 9,
	}}
	var got []int
	k.takeLogs(func(_ string, fd int) { got = append(got, fd) })
	if want := []int{7, 6, 5, 8}; !slices.Equal(got, want) {
		t.Errorf("taken in the order of %v, want %v", got, want)
	}
	if len(k.fds) != 1 {
		t.Errorf("left are %v, want the listener", k.fds)
	}
}

// linked returns the ends of a link.
func linked(t *testing.T) (conn, pid1 *ipc.Conn) {
	t.Helper()
	conn, fd, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if pid1, err = ipc.NewConn(fd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pid1.Close)
	return conn, pid1
}

// What is forgotten need not be acknowledged, unless it cannot be forgotten yet.
func TestAForgottenRunIsNotAcknowledged(t *testing.T) {
	s := savingServer(t)
	conn, pid1 := linked(t)
	s.keeper.conn, s.notify = conn, &notifier{}
	said := func() (kinds []ipc.Kind) {
		s.act()
		s.keeper.send(ipc.KindReady, ipc.Ready{})
		for {
			f, err := pid1.Read()
			if err != nil {
				t.Fatal(err)
			}
			if f.Kind == ipc.KindReady {
				return kinds
			}
			kinds = append(kinds, f.Kind)
		}
	}
	s.acks = []ack{{seq: 1}, {seq: 2, run: 7}, {seq: 3, run: 8}}
	s.pending = []core.Action{core.Forget{Run: 7}}
	if got, want := said(), []ipc.Kind{ipc.KindForget, ipc.KindAck, ipc.KindAck}; !slices.Equal(got, want) {
		t.Errorf("pid1 is told %v, want %v", got, want)
	}
	s.unsaved = true
	s.acks = []ack{{seq: 4, run: 9}}
	s.pending = []core.Action{core.Forget{Run: 9}}
	if got, want := said(), []ipc.Kind{ipc.KindAck}; !slices.Equal(got, want) {
		t.Errorf("with a state that cannot be saved pid1 is told %v, want %v", got, want)
	}
}

// TestBaseIsToldOnce: to a pid1 that takes it, and any other gets it with each order.
func TestBaseIsToldOnce(t *testing.T) {
	for _, takes := range []bool{true, false} {
		conn, pid1 := linked(t)
		k := &keeper{conn: conn, hello: ipc.KeeperHello{Bases: takes}}
		k.tellBase(ipc.Words{"A=base", "B=base"})
		if err := k.spawn(ipc.Spawn{Run: 1, Env: ipc.Words{"B=own"}, Based: true}); err != nil {
			t.Fatal(err)
		}
		var base ipc.Base
		var order ipc.Spawn
		for order.Run == 0 {
			f, err := pid1.Read()
			if err != nil {
				t.Fatal(err)
			}
			var into any = &order
			if f.Kind == ipc.KindBase {
				into = &base
			}
			if err := f.Decode(into); err != nil {
				t.Fatal(err)
			}
		}
		if told := base.Env != nil; told != takes || order.Based != takes {
			t.Errorf("a pid1 that takes a base (%v) is told %q, and the order %+v", takes, base.Env, order)
		}
		if len(order.Env) == 2 == takes {
			t.Errorf("a pid1 that takes a base (%v) gets the environment %q", takes, order.Env)
		}
		if got, want := order.Env.Over(base.Env), (ipc.Words{"A=base", "B=own"}); !slices.Equal(got, want) {
			t.Errorf("the environment is %q, want %q", got, want)
		}
	}
}
