package main

import "golang.org/x/sys/unix"

// newSocket makes a socket that does not block and that no child inherits.
func newSocket(family, kind int) (fd int, err error) {
	return unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}

// lowPorts says who may listen on them.
const lowPorts = "ports below net.ipv4.ip_unprivileged_port_start (1024) are for root, or for who has the capability net_bind_service"
