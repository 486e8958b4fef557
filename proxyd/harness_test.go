package main

import (
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// within is how long anything in a test may take.
const within = 20 * time.Second

// networks are the kinds of sockets that a proxy connects.
var networks = []string{"tcp4", "tcp6", "unix"}

// anyAddress is where to listen on a network.
func anyAddress(t *testing.T, network string) string {
	switch network {
	case "unix":
		dir, err := os.MkdirTemp("", "p") // shorter than that of a test with a long name
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		return filepath.Join(dir, "s")
	case "tcp6":
		return "[::1]:0"
	}
	return "127.0.0.1:0"
}

// trial is one proxy in a loop of its own, with real sockets.
type trial struct {
	t     *testing.T
	loop  *loop
	proxy *proxy
	spec  ipc.Proxy
	told  chan any // what the proxy says of itself
	ended chan struct{}
}

// try starts a proxy that listens on the networks ("tcp", "unix") in listen.
func try(t *testing.T, backend ipc.Address, listen []string, change func(*ipc.Proxy)) *trial {
	t.Helper()
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	tr := &trial{t: t, loop: l, told: make(chan any, 100), ended: make(chan struct{})}
	tr.spec = ipc.Proxy{Name: "p", Service: "s", Backend: backend, ConnectTimeout: within}
	var fds []int
	for _, network := range listen {
		ln, err := net.Listen(network, anyAddress(t, network))
		if err != nil {
			t.Fatal(err)
		}
		if u, ok := ln.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		tr.spec.Listen = append(tr.spec.Listen, ipcAddress(ln.Addr()))
		fds = append(fds, duplicate(t, ln))
		ln.Close()
	}
	if change != nil {
		change(&tr.spec)
	}
	tr.proxy = newProxy(l, func(_ ipc.Kind, body any) { tr.told <- body }, slog.New(slog.DiscardHandler))
	go func() {
		l.run()
		close(tr.ended)
	}()
	tr.in(func() {
		if err := tr.proxy.configure(tr.spec, fds); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		tr.in(tr.proxy.close)
		l.stop()
		select {
		case <-tr.ended:
		case <-time.After(within):
			t.Error("the loop does not end")
		}
	})
	return tr
}

// in has f called by the loop, and waits for it.
func (tr *trial) in(f func()) {
	done := make(chan struct{})
	tr.loop.do(func() { f(); close(done) })
	select {
	case <-done:
	case <-time.After(within):
		tr.t.Fatal("the loop does not answer")
	}
}

// gate sets the gate and returns the answer.
func (tr *trial) gate(g ipc.Gate) ipc.GateAck {
	tr.t.Helper()
	g.Name = "p"
	tr.loop.do(func() { tr.proxy.set(g) })
	ack := hear[ipc.GateAck](tr)
	if ack.Seq != g.Seq {
		tr.t.Fatalf("acknowledged %d, ordered %d", ack.Seq, g.Seq)
	}
	return ack
}

// hear waits for the next thing that the proxy says, which has to be a T.
func hear[T any](tr *trial) T {
	tr.t.Helper()
	select {
	case v := <-tr.told:
		got, ok := v.(T)
		if !ok {
			tr.t.Fatalf("the proxy said %#v, want a %T", v, got)
		}
		return got
	case <-time.After(within):
		var want T
		tr.t.Fatalf("the proxy does not say %T", want)
		return want
	}
}

// dial connects to the i-th listener.
func (tr *trial) dial(i int) net.Conn {
	tr.t.Helper()
	a := tr.spec.Listen[i]
	c, err := net.DialTimeout(a.Network, a.Address, within)
	if err != nil {
		tr.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(within))
	tr.t.Cleanup(func() { c.Close() })
	return c
}

func (tr *trial) stats() (s ipc.ProxyStats) {
	tr.in(func() { s = tr.proxy.stats() })
	return s
}

// ipcAddress is that of a socket, as the supervisor tells it.
func ipcAddress(a net.Addr) ipc.Address {
	if a.Network() == "unix" {
		return ipc.Address{Network: "unix", Address: a.String()}
	}
	return ipc.Address{Network: "tcp", Address: a.String()}
}

// serve runs a backend; handle gets each connection and need not close it.
func serve(t *testing.T, network string, handle func(net.Conn)) ipc.Address {
	t.Helper()
	ln, err := net.Listen(network, anyAddress(t, network))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(within))
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	return ipcAddress(ln.Addr())
}

// echo sends back what comes, and the end too.
func echo(c net.Conn) {
	io.Copy(c, c)
	c.(interface{ CloseWrite() error }).CloseWrite()
}

// hungUp waits until c is closed by the other side without a byte.
func hungUp(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Fatal("got a byte from a connection that should have been closed")
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Fatal("the connection is still open")
	}
}

// answers checks that text comes back.
func answers(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("sent %q, got %q, %v", text, got, err)
	}
}

// duplicate returns a descriptor of a listener.
func duplicate(t *testing.T, ln net.Listener) int {
	t.Helper()
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
