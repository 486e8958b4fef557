package macos

import "golang.org/x/sys/unix"

// Listeners returns all TCP sockets that listen.
func Listeners() ([]Listener, error) {
	b, err := unix.SysctlRaw("net.inet.tcp.pcblist_n")
	if err != nil {
		return nil, err
	}
	return listeners(b), nil
}
