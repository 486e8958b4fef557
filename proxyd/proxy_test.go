package main

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// until waits for something that the loop brings about by itself.
func (tr *trial) until(what string, ok func() bool) {
	tr.t.Helper()
	for end := time.Now().Add(within); ; {
		var yes bool
		tr.in(func() { yes = ok() })
		if yes {
			return
		}
		if time.Now().After(end) {
			tr.t.Fatal("never came true: " + what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestClientsWaitForTheServiceAndRaiseOneDemand(t *testing.T) {
	tr := try(t, serve(t, "tcp", echo), []string{"tcp", "unix"}, nil)
	if ack := tr.gate(ipc.Gate{State: ipc.GateHold, Seq: 7}); ack.Busy {
		t.Error("busy without a client")
	}
	clients := []net.Conn{tr.dial(0), tr.dial(1), tr.dial(0)}
	if d := hear[ipc.Demand](tr); d.Name != "p" || d.Seq != 7 {
		t.Errorf("got %+v", d)
	}
	if s := tr.stats(); s.Total != 0 {
		t.Errorf("%d clients were accepted: they should wait in the backlog, where a killed proxyd does not lose them", s.Total)
	}
	tr.gate(ipc.Gate{State: ipc.GateOpen, Seq: 8})
	for _, c := range clients {
		answers(t, c, "hello")
	}
	if s := tr.stats(); s.Total != 3 || s.Active != 3 || s.LastActivity == 0 {
		t.Errorf("got %+v", s)
	}
}

func TestWaitingClientsAreRefusedWithTheReason(t *testing.T) {
	tr := try(t, serve(t, "tcp", echo), []string{"tcp"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateHold, Seq: 1})
	c := tr.dial(0)
	hear[ipc.Demand](tr)
	tr.gate(ipc.Gate{State: ipc.GateHold, Seq: 2, Refuse: true, Reason: "service s is failed: exit code 1"})
	hungUp(t, c)
	if s := tr.stats(); s.Failed != 1 || s.LastError != "service s is failed: exit code 1" {
		t.Errorf("got %+v", s)
	}
	tr.dial(0)
	hear[ipc.Demand](tr) // the next one asks again
}

func TestClientsDoNotWaitForEver(t *testing.T) {
	tr := try(t, serve(t, "tcp", echo), []string{"tcp"}, func(s *ipc.Proxy) { s.ConnectTimeout = 30 * time.Millisecond })
	tr.gate(ipc.Gate{State: ipc.GateHold})
	c := tr.dial(0)
	hear[ipc.Demand](tr)
	hungUp(t, c)
	if s := tr.stats(); !strings.Contains(s.LastError, "service s was not ready within 30ms") {
		t.Errorf("got %+v", s)
	}
	tr.dial(0)
	hear[ipc.Demand](tr)
}

func TestIdleIsSaidAfterTheLastConnection(t *testing.T) {
	tr := try(t, serve(t, "tcp", echo), []string{"tcp"}, func(s *ipc.Proxy) { s.IdleTimeout = 50 * time.Millisecond })
	tr.gate(ipc.Gate{State: ipc.GateOpen, Seq: 3})
	hear[ipc.Idle](tr) // nobody ever came
	c := tr.dial(0)
	answers(t, c, "hello")
	if ack := tr.gate(ipc.Gate{State: ipc.GateHold, Seq: 4}); !ack.Busy {
		t.Error("a connection is open, and the proxy says that it is not busy")
	}
	tr.gate(ipc.Gate{State: ipc.GateOpen, Seq: 5})
	answers(t, c, "still here")
	c.Close()
	if idle := hear[ipc.Idle](tr); idle.Seq != 5 {
		t.Errorf("got %+v", idle)
	}
}

func TestClientThatComesDuringTheIdleHandshakeKeepsTheServiceUp(t *testing.T) {
	tr := try(t, serve(t, "tcp", echo), []string{"tcp"}, func(s *ipc.Proxy) { s.IdleTimeout = time.Millisecond })
	tr.gate(ipc.Gate{State: ipc.GateOpen, Seq: 1})
	hear[ipc.Idle](tr)
	var c net.Conn
	tr.in(func() {
		c = tr.dial(0) // connected by the kernel, not yet seen by the loop
		tr.proxy.set(ipc.Gate{Name: "p", State: ipc.GateHold, Seq: 2})
	})
	if ack := hear[ipc.GateAck](tr); !ack.Busy {
		t.Error("a client waits, and the proxy says that it is not busy")
	}
	hear[ipc.Demand](tr)
	tr.gate(ipc.Gate{State: ipc.GateOpen, Seq: 3})
	answers(t, c, "hello")
}

func TestSingleConnection(t *testing.T) {
	tr := try(t, serve(t, "tcp", echo), []string{"tcp"}, func(s *ipc.Proxy) { s.SingleConnection = true })
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	first := tr.dial(0)
	answers(t, first, "hello")
	hungUp(t, tr.dial(0))
	answers(t, first, "still here")
	first.Close()
	tr.until("the first has gone", func() bool { return len(tr.proxy.conns) == 0 })
	answers(t, tr.dial(0), "hello again")
}

func TestListenersThatStayAreNotTouchedByAChange(t *testing.T) {
	tr := try(t, serve(t, "tcp", echo), []string{"tcp", "unix"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	before := tr.dial(0)
	answers(t, before, "hello")
	changed := tr.spec
	changed.Backend = serve(t, "unix", func(c net.Conn) { c.Write([]byte("other")) })
	changed.Listen = tr.spec.Listen[:1]
	tr.in(func() {
		fd, err := unix.FcntlInt(uintptr(tr.proxy.listeners[0].fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
		}
		if err := tr.proxy.configure(changed, []int{fd}); err != nil {
			t.Error(err)
		}
	})
	answers(t, before, "as before")
	got := make([]byte, 5)
	if _, err := tr.dial(0).Read(got); err != nil || string(got) != "other" {
		t.Errorf("got %q, %v from the new backend", got, err)
	}
	if _, err := net.Dial("unix", tr.spec.Listen[1].Address); err == nil {
		t.Error("a listener that was taken away still takes clients")
	}
}

func TestDescriptorsReturnToWhereTheyWere(t *testing.T) {
	tr := try(t, serve(t, "tcp", echo), []string{"tcp"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	open := func() int {
		names, err := os.ReadDir("/dev/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names) - 2*len(tr.loop.pipes) // which are for the next ones
	}
	visit := func() {
		c := tr.dial(0)
		answers(t, c, "hello")
		c.Close()
	}
	visit()
	tr.until("the first has gone", func() bool { return len(tr.proxy.conns) == 0 })
	var before int
	tr.in(func() { before = open() })
	for range 100 {
		visit()
	}
	// The backend, in this process too, closes its own when it gets to it.
	tr.until("no more descriptors than before", func() bool { return open() <= before })
}

func TestTimeOfThoseWhoWaitDoesNotBeginAnew(t *testing.T) {
	tr := try(t, ipc.Address{Network: "unix", Address: "/nonexistent/zinit-test"}, []string{"tcp4"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateHold, Seq: 1})
	tr.dial(0)
	hear[ipc.Demand](tr)
	var until, deadline int64
	tr.in(func() { until = tr.proxy.until })
	tr.gate(ipc.Gate{State: ipc.GateHold, Seq: 2}) // as a new supervisor orders
	hear[ipc.Demand](tr)
	tr.gate(ipc.Gate{State: ipc.GateOpen, Seq: 3})
	tr.until("the backend is tried", func() bool {
		for c := range tr.proxy.conns {
			deadline = c.deadline
			return true
		}
		return false
	})
	if until == 0 || deadline != until {
		t.Errorf("a client has time until %d, had until %d when it came", deadline, until)
	}
	// The service has gone again: who is not connected waits for its next start.
	if ack := tr.gate(ipc.Gate{State: ipc.GateClosed, Seq: 4}); !ack.Busy {
		t.Error("not busy with a client")
	}
	tr.loop.do(func() { tr.proxy.set(ipc.Gate{Name: "p", State: ipc.GateHold, Seq: 5}) })
	if d := hear[ipc.Demand](tr); d.Seq != 5 {
		t.Errorf("got %+v", d)
	}
}

func TestIdleTimeIsTheSameAfterAChange(t *testing.T) {
	tr := try(t, serve(t, "tcp4", echo), []string{"tcp4"}, func(s *ipc.Proxy) { s.IdleTimeout = time.Hour })
	tr.gate(ipc.Gate{State: ipc.GateOpen, Seq: 1})
	var due int64
	tr.in(func() { due = tr.proxy.at.due })
	tr.gate(ipc.Gate{State: ipc.GateOpen, Seq: 1}) // told again because another proxy has changed
	tr.in(func() {
		if tr.proxy.at.due != due {
			t.Error("the idle time has begun anew")
		}
	})
	if ack := tr.gate(ipc.Gate{State: ipc.GateHold, Seq: 2}); !ack.Busy {
		t.Error("idle before its time")
	}
}

func TestListenersOfAServiceThatAcceptsItself(t *testing.T) {
	tr := try(t, ipc.Address{}, nil, nil)
	// A port that is chosen by number stays with a socket that was shut down.
	free, err := net.Listen("tcp4", "127.47.11.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	ln, err := net.Listen("tcp4", free.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tr.spec.Listen = []ipc.Address{ipcAddress(ln.Addr())}
	tr.in(func() {
		if err := tr.proxy.configure(tr.spec, []int{duplicate(t, ln)}); err != nil {
			t.Error(err)
		}
	})
	ln.Close()
	tr.gate(ipc.Gate{State: ipc.GateHold, Seq: 1})
	c := tr.dial(0)
	hear[ipc.Demand](tr)
	tr.in(func() {
		tr.proxy.set(ipc.Gate{Name: "p", State: ipc.GateClosed, Seq: 2})
		tr.proxy.listeners[0].ready(pollIn) // which the kernel had told before
	})
	hear[ipc.GateAck](tr)
	own := tr.proxy.listeners[0].fd
	fd, errno := accept(own)
	if errno != 0 {
		t.Fatal("the client is not there for the service:", errno)
	}
	unix.Close(fd)
	hungUp(t, c)

	// The service ends its socket: no event for ever, and the next one works.
	unix.Shutdown(own, unix.SHUT_RDWR)
	tr.gate(ipc.Gate{State: ipc.GateClosed, Seq: 3})
	tr.gate(ipc.Gate{State: ipc.GateHold, Seq: 4})
	tr.dial(0)
	if d := hear[ipc.Demand](tr); d.Seq != 4 {
		t.Errorf("got %+v", d)
	}
}

func TestClientsThatNobodyConnectsAnyMoreAreClosed(t *testing.T) {
	tr := try(t, ipc.Address{Network: "unix", Address: "/nonexistent/zinit-test"}, []string{"tcp4"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	c := tr.dial(0)
	tr.until("it is accepted", func() bool { return len(tr.proxy.conns) == 1 })
	tr.in(func() {
		same, err := unix.FcntlInt(uintptr(tr.proxy.listeners[0].fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
		}
		passing := tr.spec
		passing.Backend = ipc.Address{}
		if err := tr.proxy.configure(passing, []int{same}); err != nil {
			t.Error(err)
		}
	})
	hungUp(t, c)
	if s := tr.stats(); s.Failed != 1 || s.LastError != "service s accepts its clients itself now" {
		t.Errorf("got %+v", s)
	}
}
