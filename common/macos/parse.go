package macos

import (
	"bytes"
	"encoding/binary"
)

// What the kernel answers is read here, so that it can be tested elsewhere as well.

// splitArgs takes apart what KERN_PROCARGS2 says: the number of arguments, the path of
// the program, NULs up to a multiple of eight bytes, the arguments, the environment.
func splitArgs(b []byte) (command, environ []string) {
	if len(b) < 4 {
		return nil, nil
	}
	n := int(binary.NativeEndian.Uint32(b))
	_, b, _ = bytes.Cut(b[4:], []byte{0})
	b = bytes.TrimLeft(b, "\x00")
	for len(b) > 0 {
		var word []byte
		word, b, _ = bytes.Cut(b, []byte{0})
		switch {
		case len(command) < n:
			command = append(command, string(word))
		case len(word) == 0: // what follows is for the loader
			return command, environ
		default:
			environ = append(environ, string(word))
		}
	}
	return command, environ
}

// Listener is a TCP socket that listens.
type Listener struct {
	Port uint16
	Pid  int // of who used it last, 0 where the kernel does not tell
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
