package ipc

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unready marks the name of a socket that nobody can connect to yet.
const unready = "~"

// queue is how many connections wait at most to be accepted.
const queue = 1024

// Listener accepts links on a Unix socket.
type Listener struct {
	file *os.File
	raw  syscall.RawConn
}

// Listen binds a new Unix stream socket, which gets that mode, and listens.
// The path must not exist; it is there once the socket can be connected to, so
// that who waits for it is not refused. The descriptor is close-on-exec.
func Listen(path string, mode os.FileMode) (fd int, err error) {
	if len(path) > MaxSocketPath {
		return -1, fmt.Errorf("cannot listen on %s: the path has %d bytes, a socket's may have %d; choose a shorter one with --socket", path, len(path), MaxSocketPath)
	}
	if _, err := os.Lstat(path); err == nil {
		return -1, fmt.Errorf("cannot listen on %s: the file exists", path)
	}
	if fd, err = streamSocket(); err != nil {
		return -1, fmt.Errorf("cannot make a socket: %w", err)
	}
	bound := path
	if len(path) < MaxSocketPath {
		bound += unready
		unix.Unlink(bound) // of somebody who was killed here
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			unix.Unlink(bound)
		}
	}()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: bound}); err != nil {
		return -1, fmt.Errorf("cannot bind %s: %w", path, err)
	}
	// Until now the umask has decided who may connect, but nobody could: that
	// takes listen(2).
	if err := os.Chmod(bound, mode); err != nil {
		return -1, fmt.Errorf("cannot set the mode of %s: %w", path, err)
	}
	if err := unix.Listen(fd, queue); err != nil {
		return -1, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	if err := os.Rename(bound, path); err != nil {
		return -1, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	return fd, nil
}

// ListensOn returns the path that a descriptor of Listen was made for, "" for
// any other.
func ListensOn(fd int) string {
	addr, err := unix.Getsockname(fd)
	if a, ok := addr.(*unix.SockaddrUnix); ok && err == nil {
		return strings.TrimSuffix(a.Name, unready)
	}
	return ""
}

// NewListener takes over a listening descriptor, as Listen or the descriptor
// store gave it.
func NewListener(fd int) (*Listener, error) {
	// Once more for what the store gave: who connects from now on is told the pid of
	// this process, and not of the one before (SO_PEERCRED, unix(7)).
	err := unix.Listen(fd, queue)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot use descriptor %d as a listener: %w", fd, err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot use descriptor %d as a listener: %w", fd, err)
	}
	return &Listener{f, raw}, nil
}

// Accept waits for the next connection. It returns an error only when the
// listener is closed: what a single connection does wrong, and a lack of
// descriptors, must not end the service.
func (l *Listener) Accept() (*Conn, error) {
	for {
		var fd int
		var err error
		rerr := l.raw.Read(func(lfd uintptr) bool {
			fd, err = accept(int(lfd))
			return err != unix.EAGAIN
		})
		if rerr != nil {
			return nil, rerr
		}
		switch err {
		case nil:
			if c, err := newConn(fd); err == nil {
				return c, nil
			}
		case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS:
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// Close ends Accept. The socket file stays.
func (l *Listener) Close() { l.file.Close() }

// Dial connects to a Unix socket, within the given time when its backlog is
// full.
func Dial(path string, timeout time.Duration) (*Conn, error) {
	if len(path) > MaxSocketPath {
		err := fmt.Errorf("the path has %d bytes, a socket's may have %d", len(path), MaxSocketPath)
		return nil, &os.PathError{Op: "connect to", Path: path, Err: err}
	}
	fd, err := streamSocket()
	if err != nil {
		return nil, fmt.Errorf("cannot make a socket: %w", err)
	}
	// On a blocking Unix socket SO_SNDTIMEO bounds connect(2), too; BSD systems
	// refuse at once when the backlog is full.
	tv := unix.NsecToTimeval(int64(max(timeout, time.Millisecond)))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	for {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		// That is refused, too, as if there had been a server.
		if file, e := os.Stat(path); e == nil && file.Mode().Type() != os.ModeSocket {
			err = errors.New("it is no socket")
		}
		return nil, &os.PathError{Op: "connect to", Path: path, Err: err}
	}
	return NewConn(fd)
}
