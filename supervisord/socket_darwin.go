package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// newSocket makes a socket that does not block and that no child inherits. That takes
// two steps, between which nothing may be forked.
func newSocket(family, kind int) (fd int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if fd, err = unix.Socket(family, kind, 0); err == nil {
		unix.CloseOnExec(fd)
		err = unix.SetNonblock(fd, true)
	}
	return fd, err
}

// lowPorts says who may listen on them.
const lowPorts = "ports below 1024 are for root, but on all addresses"
