package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
)

// noise is n bytes that no accident repeats.
func noise(seed uint64, n int) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}), int64(n))
}

func sum(t *testing.T, r io.Reader) string {
	t.Helper()
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		t.Errorf("after %d bytes: %v", n, err)
	}
	return fmt.Sprintf("%d bytes, %x", n, h.Sum(nil))
}

func TestEveryByteArrivesInBothDirections(t *testing.T) {
	const size = 8 << 20
	for _, listen := range []string{"tcp", "unix"} {
		for _, backend := range []string{"tcp", "unix"} {
			t.Run(listen+" to "+backend, func(t *testing.T) {
				up := make(chan string, 1)
				b := serve(t, backend, func(c net.Conn) {
					var sent sync.WaitGroup
					sent.Go(func() {
						io.Copy(c, noise(2, size))
						c.(interface{ CloseWrite() error }).CloseWrite()
					})
					up <- sum(t, c)
					sent.Wait()
				})
				tr := try(t, b, []string{listen}, nil)
				tr.gate(ipc.Gate{State: ipc.GateOpen})
				c := tr.dial(0)
				var sent sync.WaitGroup
				sent.Go(func() {
					io.Copy(c, noise(1, size))
					c.(interface{ CloseWrite() error }).CloseWrite()
				})
				down := sum(t, c)
				sent.Wait()
				if want := sum(t, noise(1, size)); <-up != want {
					t.Error("the backend got something else than the client has sent")
				}
				if want := sum(t, noise(2, size)); down != want {
					t.Error("the client got something else than the backend has sent")
				}
				s := tr.stats()
				if s.ToBackend != size || s.FromBackend != size {
					t.Errorf("counted %d bytes to and %d from the backend, want %d each", s.ToBackend, s.FromBackend, size)
				}
			})
		}
	}
}

func TestEndOfOneDirectionLeavesTheOtherOpen(t *testing.T) {
	b := serve(t, "tcp", func(c net.Conn) {
		text, _ := io.ReadAll(c) // until the client has said all
		fmt.Fprintf(c, "you said %s", text)
	})
	tr := try(t, b, []string{"tcp"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	c := tr.dial(0)
	io.WriteString(c, "hello")
	c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "you said hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestBytesOfOneAtATime(t *testing.T) {
	tr := try(t, serve(t, "tcp", echo), []string{"tcp"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	c := tr.dial(0)
	for i := range 500 {
		answers(t, c, string(rune('a'+i%26)))
	}
}

func TestResetIsPassedOn(t *testing.T) {
	ended := make(chan error, 1)
	b := serve(t, "tcp", func(c net.Conn) {
		c.Write([]byte("x"))
		_, err := io.Copy(io.Discard, c)
		ended <- err
	})
	tr := try(t, b, []string{"tcp"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	c := tr.dial(0)
	c.Read(make([]byte, 1))
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the backend saw %v, want a reset", err)
	}
}

func TestDeathOfTheBackendClosesTheClient(t *testing.T) {
	b := serve(t, "tcp", func(c net.Conn) { c.Read(make([]byte, 1)) })
	tr := try(t, b, []string{"tcp"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	c := tr.dial(0)
	c.Write([]byte("x"))
	hungUp(t, c)
}

func TestAnswerOfABackendThatReadsNoMoreArrives(t *testing.T) {
	b := serve(t, "unix", func(c net.Conn) {
		c.(*net.UnixConn).CloseRead()
		c.Read(make([]byte, 1))
		io.WriteString(c, "too large")
	})
	tr := try(t, b, []string{"unix"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	c := tr.dial(0)
	io.Copy(c, bytes.NewReader(make([]byte, 1<<20)))
	c.(*net.UnixConn).CloseWrite()
	if got, _ := io.ReadAll(c); string(got) != "too large" {
		t.Errorf("got %q", got)
	}
}

func TestSlowReadersHoldUpNobody(t *testing.T) {
	b := serve(t, "tcp", func(c net.Conn) {
		first := make([]byte, 1)
		c.Read(first)
		if first[0] == 'e' {
			echo(c)
			return
		}
		for block := make([]byte, 1<<20); ; {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	tr := try(t, b, []string{"tcp"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	for range 50 {
		tr.dial(0).Write([]byte("s")) // and reads nothing
	}
	c := tr.dial(0)
	c.Write([]byte("e"))
	for range 20 {
		answers(t, c, "quick")
	}
}

func TestBackendIsTriedUntilItAnswers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	tr := try(t, ipc.Address{Network: "tcp", Address: address}, []string{"tcp"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	c := tr.dial(0)
	tr.until("was refused", func() bool {
		for c := range tr.proxy.conns {
			return errors.Is(c.failure, syscall.ECONNREFUSED)
		}
		return false
	})
	ln, err = net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			echo(c)
		}
	}()
	answers(t, c, "hello")
}

func TestClientOfABackendThatNeverAnswersIsClosed(t *testing.T) {
	for name, address := range map[string]ipc.Address{
		"nobody listens": {Network: "unix", Address: "/nonexistent/zinit-test"},
		"no such name":   {Network: "tcp", Address: "no-such-host.invalid:1"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := try(t, address, []string{"unix"}, func(s *ipc.Proxy) { s.ConnectTimeout = 30e6 })
			tr.gate(ipc.Gate{State: ipc.GateOpen})
			hungUp(t, tr.dial(0))
			s := tr.stats()
			if s.Failed != 1 || s.Active != 0 || !strings.Contains(s.LastError, "cannot connect to "+address.String()) {
				t.Errorf("got %+v", s)
			}
		})
	}
}

func TestNamesAreLookedUp(t *testing.T) {
	b := serve(t, "tcp", echo)
	_, port, _ := net.SplitHostPort(b.Address)
	tr := try(t, ipc.Address{Network: "tcp", Address: "localhost:" + port}, []string{"tcp"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	answers(t, tr.dial(0), "hello")
}
