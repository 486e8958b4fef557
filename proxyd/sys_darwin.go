package main

import (
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/macos"
	"github.com/threefoldtech/zinit/ipc"
)

// The calls of the data path. None of them blocks.

// splice is for pipes, of which there are none: bytes go through the buffer.
func splice(from, to, n int) (int, syscall.Errno) { return -1, unix.ENOTSUP }

func newPipe(*pipe) bool { return false }

func recv(fd int, p []byte) (int, syscall.Errno) {
	n, err := unix.Read(fd, p)
	return n, errno(err)
}

// send sends p. That shutdown follows cannot be said.
func send(fd int, p []byte, _ bool) (int, syscall.Errno) {
	n, err := unix.SendmsgN(fd, p, nil, nil, unix.MSG_NOSIGNAL)
	return n, errno(err)
}

// joinHandshake cannot be done: the last packet of a handshake does not wait.
func joinHandshake(backend, client int) {}

func setTCP(fd, option int, value int32) {
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, option, int(value))
}

// shutdown says to the peer that this was all.
func shutdown(fd int) { unix.Shutdown(fd, unix.SHUT_WR) }

// socketID is the number that the kernel has for a socket.
func socketID(fd int) (uint64, error) { return macos.SocketID(fd) }

func accept(fd int) (int, syscall.Errno) {
	c, _, err := unix.Accept(fd)
	if err != nil {
		return -1, errno(err)
	}
	return c, ready(c)
}

// another is one more descriptor of fd, -1 where there is none left.
func another(fd int) int {
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return d
}

func (a *address) socket() (int, syscall.Errno) {
	fd, err := unix.Socket(a.family, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, errno(err)
	}
	return fd, ready(fd)
}

// ready makes a new socket one that does not block. zinit-proxyd has no children that
// could inherit it.
func ready(fd int) syscall.Errno {
	err := unix.SetNonblock(fd, true)
	if err != nil {
		unix.Close(fd)
	}
	return errno(err)
}

func (a *address) connect(fd int) syscall.Errno { return errno(unix.Connect(fd, a.to)) }

// address is where to connect.
type address struct {
	family int
	remote bool // on another machine, as far as can be told
	to     unix.Sockaddr
}

// tcpAddress makes an address; zone is the index of an interface, 0 for any.
func tcpAddress(ap netip.AddrPort, zone uint32) *address {
	ip := ap.Addr().Unmap()
	if ip.Is4() {
		return &address{unix.AF_INET, !ip.IsLoopback(), &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ip.As4()}}
	}
	return &address{unix.AF_INET6, !ip.IsLoopback(), &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ip.As16(), ZoneId: zone}}
}

func unixAddress(path string) (*address, error) {
	if len(path) > ipc.MaxSocketPath {
		return nil, fmt.Errorf("the path of a unix socket has at most %d bytes: %s", ipc.MaxSocketPath, path)
	}
	return &address{unix.AF_UNIX, false, &unix.SockaddrUnix{Name: path}}, nil
}

func errno(err error) syscall.Errno {
	e, _ := err.(syscall.Errno)
	return e
}
