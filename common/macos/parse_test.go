package macos

import (
	"encoding/binary"
	"slices"
	"testing"
)

func TestCommandsAndEnvironments(t *testing.T) {
	answer := func(n uint32, text string) []byte { return append(binary.NativeEndian.AppendUint32(nil, n), text...) }
	for _, c := range []struct {
		answer           []byte
		command, environ []string
	}{
		{answer(2, "/bin/sleep\x00\x00\x00\x00sleep\x0010\x00HOME=/h\x00A=\x00\x00\x00ptr_munge=\x00"), []string{"sleep", "10"}, []string{"HOME=/h", "A="}},
		{answer(3, "/bin/echo\x00echo\x00\x00two\x00"), []string{"echo", "", "two"}, nil},
		{answer(2, "/bin/echo\x00echo"), []string{"echo"}, nil},
		{answer(1, ""), nil, nil},
		{nil, nil, nil},
	} {
		command, environ := splitArgs(c.answer)
		if !slices.Equal(command, c.command) || !slices.Equal(environ, c.environ) {
			t.Errorf("%q is taken apart into %q and %q, want %q and %q", c.answer, command, environ, c.command, c.environ)
		}
	}
}

// record is one of net.inet.tcp.pcblist_n, with values of four bytes by offset.
func record(size, kind int, values map[int]uint32) []byte {
	b := make([]byte, (size+7)&^7)
	binary.NativeEndian.PutUint32(b, uint32(size))
	binary.NativeEndian.PutUint32(b[4:], uint32(kind))
	for at, v := range values {
		binary.NativeEndian.PutUint32(b[at:], v)
	}
	return b
}

func TestListeners(t *testing.T) {
	socket := func(port uint16, pid, state uint32) (all []byte) {
		internet := record(104, 0x10, nil)
		binary.BigEndian.PutUint16(internet[18:], port)
		for _, r := range [][]byte{
			internet, record(104, 0x1, map[int]uint32{68: pid}), record(36, 0x2, nil), record(36, 0x4, nil),
			record(136, 0x8, nil), record(204, 0x20, map[int]uint32{36: state}),
		} {
			all = append(all, r...)
		}
		return all
	}
	head := record(24, 3, nil)
	const listens, connected = 1, 4
	all := slices.Concat(head, socket(8080, 7, listens), socket(9090, 8, connected), socket(5432, 9, listens), head)
	want := []Listener{{8080, 7}, {5432, 9}}
	if got := listeners(all); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for n := range all { // however it is cut off, it is read as far as it goes
		if got := listeners(all[:n]); len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
			t.Errorf("of the first %d bytes it makes %v", n, got)
		}
	}
}
