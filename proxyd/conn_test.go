package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

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

// bytesEach is how much goes each way through each combination of sockets.
var bytesEach = flag.Int("bytes", 4<<20, "bytes each way in TestEveryByteArrivesInBothDirections")

func TestEveryByteArrivesInBothDirections(t *testing.T) {
	size := *bytesEach
	for _, listen := range networks {
		for _, backend := range networks {
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
				if s.ToBackend != uint64(size) || s.FromBackend != uint64(size) {
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

func TestSlowReadersHoldUpNobodyAndTakeLittleMemory(t *testing.T) {
	b := serve(t, "tcp", func(c net.Conn) {
		first := make([]byte, 1)
		c.Read(first)
		if first[0] == 'e' {
			echo(c)
			return
		}
		for block := make([]byte, 64<<10); ; {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	tr := try(t, b, []string{"tcp"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	const readers = 1000
	for range readers {
		tr.dial(0).Write([]byte("s")) // and reads nothing
	}
	c := tr.dial(0)
	c.Write([]byte("e"))
	for range 20 {
		answers(t, c, "quick")
	}
	stuck := func() (n int) {
		for c := range tr.proxy.conns {
			if !c.client.writable {
				n++
			}
		}
		return n
	}
	tr.until("all of them are stuck", func() bool { return stuck() == readers })
	tr.in(func() {
		pipes := 0
		for c := range tr.proxy.conns {
			if len(c.down.rest) > len(tr.loop.buffer) || c.down.held > pipeSize {
				t.Errorf("%d + %d bytes are held for one reader", len(c.down.rest), c.down.held)
			}
			if c.up.pipe != noPipe {
				pipes++
			}
		}
		if pipes > 0 {
			t.Errorf("%d connections hold a pipe for a direction in which nothing moves", pipes)
		}
	})
	answers(t, c, "still quick")
}

func TestWhatAClientLeavesBehindReachesTheBackend(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			got := make(chan string, 1)
			b := serve(t, "unix", func(c net.Conn) {
				text, _ := io.ReadAll(c)
				got <- string(text)
			})
			tr := try(t, b, []string{network}, nil)
			// Before its backend is there, so that the end is seen first.
			if err := os.Rename(b.Address, b.Address+".not-yet"); err != nil {
				t.Fatal(err)
			}
			tr.gate(ipc.Gate{State: ipc.GateOpen})
			c := tr.dial(0)
			io.WriteString(c, "for the record")
			c.Close()
			tr.until("the end was seen", func() bool {
				for c := range tr.proxy.conns {
					return c.state == retrying && c.client.last
				}
				return false
			})
			if err := os.Rename(b.Address+".not-yet", b.Address); err != nil {
				t.Fatal(err)
			}
			if text := <-got; text != "for the record" {
				t.Errorf("the backend got %q", text)
			}
		})
	}
}

func TestResetAfterAHalfCloseIsPassedOn(t *testing.T) {
	ended := make(chan error, 1)
	b := serve(t, "tcp", func(c net.Conn) {
		io.Copy(io.Discard, c) // the client has said all, and waits for the answer
		c.Write([]byte("x"))
		_, err := c.Read(make([]byte, 1))
		for err == io.EOF { // its half-close; a write tells the reset
			_, err = c.Write([]byte("y"))
		}
		for err == nil {
			_, err = c.Write([]byte("y"))
		}
		ended <- err
	})
	tr := try(t, b, []string{"tcp"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	c := tr.dial(0)
	c.(*net.TCPConn).CloseWrite()
	c.Read(make([]byte, 1))
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the backend saw %v, want a reset", err)
	}
	tr.until("it is over", func() bool { return len(tr.proxy.conns) == 0 })
}

func TestClientThatOnlyWritesLearnsOfTheDeathOfTheBackend(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			b := serve(t, network, func(c net.Conn) { c.Read(make([]byte, 1)) })
			tr := try(t, b, []string{network}, nil)
			tr.gate(ipc.Gate{State: ipc.GateOpen})
			c := tr.dial(0)
			var err error
			for line := []byte("a line of a log\n"); err == nil; {
				_, err = c.Write(line)
			}
			if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v, want a broken pipe", err)
			}
			tr.until("it is over", func() bool { return len(tr.proxy.conns) == 0 })
		})
	}
}

func TestConversationsOfAllSizes(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			tr := try(t, serve(t, network, echo), []string{network}, nil)
			tr.gate(ipc.Gate{State: ipc.GateOpen})
			c := tr.dial(0)
			for _, size := range []int{1, 65535, 65536, 65537, 3, 200_000, 65536, 1, 1 << 20, 16384, 16383, 2} {
				text := make([]byte, size)
				noise(uint64(size), size).Read(text)
				go c.Write(text)
				got := make([]byte, size)
				if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, text) {
					t.Fatalf("%d bytes did not come back: %v", size, err)
				}
			}
		})
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
		"full tcp":       full(t, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
		"full unix":      full(t, &unix.SockaddrUnix{Name: anyAddress(t, "unix")}),
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

// full is the address of a server that accepts nobody, and whose backlog is full.
func full(t *testing.T, at unix.Sockaddr) ipc.Address {
	t.Helper()
	family := unix.AF_INET
	if _, ok := at.(*unix.SockaddrUnix); ok {
		family = unix.AF_UNIX
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err == nil {
		t.Cleanup(func() { unix.Close(fd) })
		if err = unix.Bind(fd, at); err == nil {
			err = unix.Listen(fd, 0)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if at, err = unix.Getsockname(fd); err != nil {
		t.Fatal(err)
	}
	for {
		c, err := unix.Socket(family, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(c) })
		unix.SetNonblock(c, true)
		err = unix.Connect(c, at)
		if err == unix.EINPROGRESS { // over the loopback interface, the time for an answer is none
			poll := []unix.PollFd{{Fd: int32(c), Events: unix.POLLOUT}}
			if n, _ := unix.Poll(poll, 50); n > 0 {
				err = nil
			}
		}
		if err != nil {
			break
		}
	}
	if u, ok := at.(*unix.SockaddrUnix); ok {
		return ipc.Address{Network: "unix", Address: u.Name}
	}
	return ipc.Address{Network: "tcp", Address: fmt.Sprint("127.0.0.1:", at.(*unix.SockaddrInet4).Port)}
}

func TestNamesAreLookedUp(t *testing.T) {
	for host, network := range map[string]string{"localhost": "tcp4", "[::1%lo]": "tcp6"} {
		_, port, _ := net.SplitHostPort(serve(t, network, echo).Address)
		tr := try(t, ipc.Address{Network: "tcp", Address: host + ":" + port}, []string{"tcp"}, nil)
		tr.gate(ipc.Gate{State: ipc.GateOpen})
		answers(t, tr.dial(0), "hello")
	}
}

func TestClientsThatLeaveBeforeTheyAreAccepted(t *testing.T) {
	for _, network := range networks {
		tr := try(t, serve(t, network, echo), []string{network}, nil)
		for range 20 {
			c := tr.dial(0)
			c.Write([]byte("hello"))
			if tcp, ok := c.(*net.TCPConn); ok {
				tcp.SetLinger(0)
			}
			c.Close()
		}
		tr.gate(ipc.Gate{State: ipc.GateOpen})
		answers(t, tr.dial(0), "hello")
		tr.until("only the last is there", func() bool { return len(tr.proxy.conns) == 1 })
	}
}
