package ipc

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// MaxSocketPath is the longest path of a Unix socket, in bytes (unix(4):
// sun_path is 104 with its terminating NUL).
const MaxSocketPath = 103

// No child inherits a descriptor that is made here. That takes two steps, between
// which nothing may be forked.

// streamSocket makes a Unix socket.
func streamSocket() (fd int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
		unix.CloseOnExec(fd)
	}
	return fd, err
}

// SocketPair returns the ends of a new pair of Unix stream sockets.
func SocketPair() (fds [2]int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	return fds, err
}

// accept is for a listener that does not block, and returns a socket that does not
// either: it is as the listener.
func accept(listener int) (fd int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if fd, _, err = unix.Accept(listener); err == nil {
		unix.CloseOnExec(fd)
	}
	return fd, err
}

// recvmsg is recvmsg(2), of a socket that does not block.
func recvmsg(fd int, p, control []byte) (n, oobn, flags int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if n, oobn, flags, _, err = unix.Recvmsg(fd, p, control, 0); err != nil || oobn == 0 {
		return n, oobn, flags, err
	}
	// What cannot be parsed the caller refuses.
	messages, _ := unix.ParseSocketControlMessage(control[:oobn])
	for _, m := range messages {
		rights, _ := unix.ParseUnixRights(&m)
		for _, r := range rights {
			unix.CloseOnExec(r)
		}
	}
	return n, oobn, flags, nil
}

func credentials(fd int) (Credentials, error) {
	x, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Credentials{}, err
	}
	pid, err := unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	return Credentials{Pid: pid, Uid: int(x.Uid), Gid: int(x.Groups[0])}, err
}
