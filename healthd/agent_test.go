package main

import (
	"net"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/ipc"
)

// supervisor is the other end of the link of an agent.
type supervisor struct {
	t      *testing.T
	agent  *agent
	conn   *ipc.Conn     // ours
	other  *ipc.Conn     // the agent's
	served chan struct{} // closed when the agent has left the connection
}

func newSupervisor(t *testing.T) *supervisor {
	s := &supervisor{t: t, agent: newAgent()}
	go s.agent.run()
	t.Cleanup(func() {
		s.agent.end()
		s.conn.Close()
		s.other.Close()
	})
	s.connect()
	return s
}

// connect replaces the supervisor by another.
func (s *supervisor) connect() {
	if s.conn != nil {
		s.conn.Close()
		<-s.served
		s.other.Close()
	}
	conn, fd, err := ipc.Pair()
	if err != nil {
		s.t.Fatal(err)
	}
	if s.other, err = ipc.NewConn(fd); err != nil {
		s.t.Fatal(err)
	}
	s.conn = conn
	other, served := s.other, make(chan struct{})
	s.served = served
	go func() {
		s.agent.serve(other)
		close(served)
	}()
}

// tell sends a complete set.
func (s *supervisor) tell(probes ...ipc.Probe) {
	s.conn.Send(ipc.KindProbes, ipc.Probes{})
	for _, p := range probes {
		s.conn.Send(ipc.KindProbe, p)
	}
	s.conn.Send(ipc.KindProbesEnd, ipc.ProbesEnd{})
}

func (s *supervisor) result() ipc.Result {
	s.t.Helper()
	defer time.AfterFunc(long, s.conn.Close).Stop()
	f, err := s.conn.Read()
	var r ipc.Result
	if err != nil || f.Kind != ipc.KindResult || f.Decode(&r) != nil {
		s.t.Fatalf("no result but kind %d, %v", f.Kind, err)
	}
	return r
}

// silence says that nothing is told before the answer to another probe.
func (s *supervisor) silence(service string) {
	s.t.Helper()
	p := starting(probe("after-"+service, 99, time.Hour))
	p.Endpoint = "127.0.0.1:1"
	s.conn.Send(ipc.KindProbe, p)
	if r := s.result(); r.Service != p.Service {
		s.t.Fatalf("%s is probed", r.Service)
	}
}

func TestResultsAreToldUntilTheyAreAcknowledged(t *testing.T) {
	s := newSupervisor(t)
	web := starting(probe("web", 1, time.Hour))
	web.Endpoint = peer(t, func(net.Conn) {})
	s.tell(web)
	first := s.result()
	if !first.OK || first.ProbeID != web.ProbeID || first.Took <= 0 || first.At > monotonic() {
		t.Errorf("%+v", first)
	}
	s.connect()
	if again := s.result(); again != first {
		t.Errorf("after a crash of the supervisor %+v, before it %+v", again, first)
	}
	// What goes on is not begun anew.
	s.tell(web)
	s.conn.Send(ipc.KindResultAck, ipc.Ack{Seq: first.Seq})
	s.silence("ack")
	s.connect()
	if r := s.result(); r.Service != "after-ack" {
		t.Errorf("%+v is told again", r)
	}
}

func TestWhatIsNotNamedEnds(t *testing.T) {
	s := newSupervisor(t)
	began := make(chan net.Conn, 1)
	web := starting(probe("web", 1, time.Millisecond))
	web.Type, web.Method, web.Timeout = "http", "GET", int64(long)
	web.Endpoint = "http://" + peer(t, func(c net.Conn) { began <- c; silent(c) })
	s.tell(web)
	<-began
	// It is under way, and nobody wants its result any more.
	s.tell()
	s.silence("set")
	s.tell(web)
	<-began
	s.conn.Send(ipc.KindDropProbe, ipc.DropProbe{Service: "web"})
	s.silence("drop")
}

func TestManyHangingProbesDoNotHoldUpOthersForEver(t *testing.T) {
	s := newSupervisor(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // it accepts nobody: connections wait in its backlog
	var probes []ipc.Probe
	for i := range atOnce + 10 {
		p := starting(probe(string(rune('a'+i%26))+time.Duration(i).String(), ipc.RunID(i+1), time.Hour))
		p.Type, p.Endpoint, p.Method, p.Timeout = "http", "http://"+l.Addr().String(), "GET", int64(short)
		probes = append(probes, p)
	}
	s.tell(probes...)
	for range probes {
		if r := s.result(); r.OK {
			t.Fatalf("%+v", r)
		}
	}
}
