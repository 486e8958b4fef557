package macos

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Listener is a TCP socket that listens.
type Listener struct {
	Port uint16
	Pid  int // of who used it last, 0 where the kernel does not tell
}

// Listeners returns all TCP sockets that listen.
func Listeners() ([]Listener, error) {
	b, err := unix.SysctlRaw("net.inet.tcp.pcblist_n")
	if err != nil {
		return nil, err
	}
	return listeners(b), nil
}

// listeners reads the answer of net.inet.tcp.pcblist_n: after a head, for each socket
// a few records, of which each begins with its length and its kind and is filled up
// to a multiple of eight bytes. The last of a socket is that of TCP. The same head
// ends the list.
func listeners(b []byte) []Listener {
	// Kinds and offsets are those of xsocket_n, xinpcb_n and xtcpcb_n, which
	// netstat(1) reads as well.
	const (
		socket, internet, tcp     = 0x1, 0x10, 0x20
		lastPid, localPort, state = 68, 18, 36
		listen                    = 1 // TCPS_LISTEN
	)
	var all []Listener
	var at Listener
	head := true
	for len(b) >= 8 {
		size, kind := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:])
		padded := (int(size) + 7) &^ 7
		if size < 8 || padded > len(b) {
			break
		}
		record := b[:padded]
		b = b[padded:]
		switch {
		case head:
			head = false
		case kind == internet && len(record) >= localPort+2:
			at = Listener{Port: binary.BigEndian.Uint16(record[localPort:])}
		case kind == socket && len(record) >= lastPid+4:
			at.Pid = int(binary.NativeEndian.Uint32(record[lastPid:]))
		case kind == tcp && len(record) >= state+4:
			if binary.NativeEndian.Uint32(record[state:]) == listen {
				all = append(all, at)
			}
			at = Listener{}
		}
	}
	return all
}
