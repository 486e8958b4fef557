package ipc

import "golang.org/x/sys/unix"

// MaxSocketPath is the longest path of a Unix socket, in bytes (unix(7):
// sun_path is 108 with its terminating NUL).
const MaxSocketPath = 107

// No child inherits a descriptor that is made here.

// streamSocket makes a Unix socket.
func streamSocket() (fd int, err error) {
	return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}

// SocketPair returns the ends of a new pair of Unix stream sockets.
func SocketPair() (fds [2]int, err error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}

// accept returns a socket that does not block.
func accept(listener int) (fd int, err error) {
	fd, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	return fd, err
}

// recvmsg is recvmsg(2).
func recvmsg(fd int, p, control []byte) (n, oobn, flags int, err error) {
	n, oobn, flags, _, err = unix.Recvmsg(fd, p, control, unix.MSG_CMSG_CLOEXEC)
	return n, oobn, flags, err
}

func credentials(fd int) (Credentials, error) {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Credentials{}, err
	}
	return Credentials{Pid: int(c.Pid), Uid: int(c.Uid), Gid: int(c.Gid)}, nil
}
