// Package ipctest has a server for tests of clients: a real socket and real
// frames, with answers that the test gives.
package ipctest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/threefoldtech/zinit/ipc"
)

// Server listens on Socket until the test ends.
type Server struct {
	Socket string

	listener *ipc.Listener
	handle   func(*Request)
	running  sync.WaitGroup

	mu    sync.Mutex
	conns map[*ipc.Conn]bool
	deny  *ipc.Error
	asked []string
}

// Serve starts a server that calls handle for each request, in a goroutine of
// its own.
func Serve(t testing.TB, handle func(*Request)) *Server {
	t.Helper()
	// t.TempDir may be too long for a socket.
	dir, err := os.MkdirTemp("", "zinit")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Socket: filepath.Join(dir, "zinit.sock"), handle: handle, conns: map[*ipc.Conn]bool{}}
	fd, err := ipc.Listen(s.Socket, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if s.listener, err = ipc.NewListener(fd); err != nil {
		t.Fatal(err)
	}
	s.running.Go(s.accept)
	t.Cleanup(func() {
		s.End()
		s.running.Wait()
		os.RemoveAll(dir)
	})
	return s
}

// Deny has the server refuse each client that comes from now on.
func (s *Server) Deny(err *ipc.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deny = err
}

// Asked returns the requests so far and forgets them, each as its method and
// parameters: "service.list map[state:failed]".
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func (s *Server) note(r ipc.Request) {
	params := map[string]any{}
	msgpack.Unmarshal(r.Params, &params)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, fmt.Sprint(r.Method, " ", params))
}

// Cut ends all connections, as the death of a supervisor does: the socket
// goes on listening.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
		delete(s.conns, c)
	}
}

// End ends the server and removes the socket, as a shutdown does.
func (s *Server) End() {
	os.Remove(s.Socket)
	s.listener.Close()
	s.Cut()
}

func (s *Server) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		s.running.Go(func() { s.serve(c) })
	}
}

func (s *Server) serve(c *ipc.Conn) {
	defer c.Close()
	if _, err := ipc.ReadHello(c, ipc.RoleClient); err != nil {
		return
	}
	s.mu.Lock()
	deny := s.deny
	s.mu.Unlock()
	if deny != nil {
		c.Send(ipc.KindError, ipc.ErrorAnswer{Error: *deny})
		c.Flush()
		return
	}
	c.Send(ipc.KindHello, ipc.Hello{Protocol: ipc.Protocol, Role: ipc.RoleSupervisor, Version: "0.0.1-test"})
	cancels := map[uint64]chan struct{}{}
	defer func() {
		for _, canceled := range cancels {
			close(canceled)
		}
	}()
	for {
		f, err := c.Read()
		if err != nil {
			return
		}
		switch f.Kind {
		case ipc.KindRequest:
			var r ipc.Request
			if err := f.Decode(&r); err != nil {
				return
			}
			s.note(r)
			canceled := make(chan struct{})
			cancels[r.ID] = canceled
			s.running.Go(func() {
				s.handle(&Request{Method: r.Method, Canceled: canceled, server: s, conn: c, id: r.ID, params: r.Params})
			})
		case ipc.KindCancel:
			var r ipc.Cancel
			if err := f.Decode(&r); err != nil {
				return
			}
			if canceled := cancels[r.ID]; canceled != nil {
				close(canceled)
				delete(cancels, r.ID)
			}
		}
	}
}

// Request is what a client asks for.
type Request struct {
	Method string
	// Canceled is closed when the client does not listen any more, and when
	// its connection ends.
	Canceled <-chan struct{}

	server *Server
	conn   *ipc.Conn
	id     uint64
	params msgpack.RawMessage
}

// Params decodes the parameters.
func (r *Request) Params(into any) error { return msgpack.Unmarshal(r.params, into) }

// Respond gives the one answer.
func (r *Request) Respond(result any) {
	r.conn.Send(ipc.KindResponse, ipc.Response{ID: r.id, Result: result})
}

// Fail answers with an error.
func (r *Request) Fail(err *ipc.Error) {
	r.conn.Send(ipc.KindError, ipc.ErrorAnswer{ID: r.id, Error: *err})
}

// Item sends one part of a stream.
func (r *Request) Item(item any) {
	r.conn.Send(ipc.KindItem, ipc.Item{ID: r.id, Item: item})
	r.conn.WaitDrained()
}

// End ends a stream.
func (r *Request) End() { r.conn.Send(ipc.KindEnd, ipc.End{ID: r.id}) }

// Cut sees to it that what was sent is with the kernel and ends all
// connections.
func (r *Request) Cut() {
	r.conn.Flush()
	r.server.Cut()
}

// Items answers with a whole stream.
func Items[T any](r *Request, items []T) {
	for _, item := range items {
		r.Item(item)
	}
	r.End()
}
