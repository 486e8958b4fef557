package main

import (
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the data path. None of them blocks, so they skip what Go does
// around calls that may: telling the scheduler costs as much as some of them.

// splice moves up to n bytes between a socket and a pipe without copying them
// to user space. 0 is the end of the stream.
func splice(from, to, n int) (int, syscall.Errno) {
	m, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n),
		unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	return int(m), errno
}

func recv(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), 0, 0, 0)
	return int(n), errno
}

// send sends p; last says that shutdown follows: the end of the stream goes with
// it in one packet.
func send(fd int, p []byte, last bool) (int, syscall.Errno) {
	flags := uintptr(unix.MSG_NOSIGNAL)
	if last {
		flags |= unix.MSG_MORE
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), flags, 0, 0)
	return int(n), errno
}

// joinHandshake has what a client has said by now go to its backend with the last
// packet of that handshake.
func joinHandshake(backend, client int) {
	if unread(client) > 0 {
		setTCP(backend, unix.TCP_QUICKACK, 0)
	}
}

// unread is how many bytes there are to read. Asking takes no error away from
// the events of the socket, as peeking would.
func unread(fd int) int32 {
	var n int32
	syscall.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCINQ, uintptr(unsafe.Pointer(&n)))
	return n
}

func setTCP(fd, option int, value int32) {
	syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, uintptr(option), uintptr(unsafe.Pointer(&value)), 4, 0)
}

// shutdown says to the peer that this was all.
func shutdown(fd int) {
	syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
}

// socketID is the number that the kernel has for a socket.
func socketID(fd int) (uint64, error) {
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
}

func accept(fd int) (int, syscall.Errno) {
	c, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int(c), errno
}

// another is one more descriptor of fd, -1 where there is none left.
func another(fd int) int {
	d, _, _ := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return int(d)
}

func (a *address) socket() (int, syscall.Errno) {
	fd, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, uintptr(a.family), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	return int(fd), errno
}

func (a *address) connect(fd int) syscall.Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(a.size))
	return errno
}

// address is where to connect, as the kernel wants it.
type address struct {
	family int
	remote bool // on another machine, as far as can be told
	size   uint32
	raw    unix.RawSockaddrAny
}

// tcpAddress makes an address; zone is the index of an interface, 0 for any.
func tcpAddress(ap netip.AddrPort, zone uint32) *address {
	port := ap.Port()>>8 | ap.Port()<<8 // in network order
	ip := ap.Addr().Unmap()
	if ip.Is4() {
		a := &address{family: unix.AF_INET, remote: !ip.IsLoopback(), size: unix.SizeofSockaddrInet4}
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw)) = unix.RawSockaddrInet4{
			Family: unix.AF_INET, Port: port, Addr: ip.As4(),
		}
		return a
	}
	a := &address{family: unix.AF_INET6, remote: !ip.IsLoopback(), size: unix.SizeofSockaddrInet6}
	*(*unix.RawSockaddrInet6)(unsafe.Pointer(&a.raw)) = unix.RawSockaddrInet6{
		Family: unix.AF_INET6, Port: port, Addr: ip.As16(), Scope_id: zone,
	}
	return a
}

func unixAddress(path string) (*address, error) {
	a := &address{family: unix.AF_UNIX}
	raw := (*unix.RawSockaddrUnix)(unsafe.Pointer(&a.raw))
	if len(path) >= len(raw.Path) {
		return nil, fmt.Errorf("the path of a unix socket has at most %d bytes: %s", len(raw.Path)-1, path)
	}
	raw.Family = unix.AF_UNIX
	for i := range len(path) {
		raw.Path[i] = int8(path[i])
	}
	a.size = uint32(unsafe.Offsetof(raw.Path)) + uint32(len(path)) + 1
	return a, nil
}

// newPipe says false where there are no descriptors for one, or no memory: all
// pipes of an ordinary user together are limited, and one beyond that holds two
// pages (pipe(7)), which is slower than copying.
func newPipe(to *pipe) bool {
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return false
	}
	got := pipe{fds[0], fds[1]}
	if _, err := unix.FcntlInt(uintptr(got.w), unix.F_SETPIPE_SZ, pipeSize); err != nil {
		got.close()
		return false
	}
	*to = got
	return true
}
