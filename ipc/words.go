package ipc

import (
	"errors"
	"unsafe"

	"github.com/vmihailenco/msgpack/v5"
)

// Words are strings, such as a command or an environment. They are decoded into one
// piece of memory that all of them share, and not into as many as there are: zinit-pid1
// gets an environment with each order.
type Words []string

var errNoWords = errors.New("want an array of strings")

// DecodeMsgpack implements msgpack.CustomDecoder.
func (w *Words) DecodeMsgpack(d *msgpack.Decoder) error {
	raw, err := d.DecodeRaw()
	if err != nil {
		return err
	}
	n, rest := arrayLen(raw)
	if uint64(n) > uint64(len(rest)) {
		return errNoWords
	}
	all := unsafe.String(unsafe.SliceData(raw), len(raw)) // which nobody else has
	list := make(Words, n)
	for i := range list {
		head := stringHead(rest)
		next, err := skip(rest, 1)
		if head == 0 || err != nil {
			return errNoWords
		}
		list[i] = all[len(raw)-len(rest)+head : len(raw)-len(next)]
		rest = next
	}
	*w = list
	return nil
}

// stringHead is how many bytes precede the text of a string, 0 for what is none.
func stringHead(b []byte) int {
	switch {
	case len(b) == 0:
	case b[0]&0xe0 == 0xa0:
		return 1
	case b[0] == 0xd9:
		return 2
	case b[0] == 0xda:
		return 3
	case b[0] == 0xdb:
		return 5
	}
	return 0
}
