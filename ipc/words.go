package ipc

import (
	"errors"
	"io"
	"slices"
	"strings"
	"unsafe"

	"github.com/vmihailenco/msgpack/v5"
)

// Words are strings, such as a command or an environment. They are decoded in place,
// and share the memory of their frame.
type Words []string

// Over returns an environment, KEY=value, with these variables in place of those of
// the same name, or after all others.
func (w Words) Over(base Words) Words {
	all := make(Words, len(base), len(base)+len(w))
	copy(all, base)
	for _, kv := range w {
		name, _, _ := strings.Cut(kv, "=")
		if i := base.Find(name); i >= 0 {
			all[i] = kv
		} else {
			all = append(all, kv)
		}
	}
	return all
}

// Find returns the place of a variable in an environment, -1 where it has none.
func (w Words) Find(name string) int {
	return slices.IndexFunc(w, func(kv string) bool {
		return len(kv) > len(name) && kv[len(name)] == '=' && kv[:len(name)] == name
	})
}

var errNoWords = errors.New("want an array of strings")

// DecodeMsgpack implements msgpack.CustomDecoder.
func (w *Words) DecodeMsgpack(d *msgpack.Decoder) error {
	raw, err := rawValue(d)
	if err != nil {
		return err
	}
	n, rest := arrayLen(raw)
	if uint64(n) > uint64(len(rest)) {
		return errNoWords
	}
	all := unsafe.String(unsafe.SliceData(raw), len(raw)) // which nobody changes
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

// rawValue returns the next value as it stands in the body of a frame, or a copy of
// it from elsewhere.
func rawValue(d *msgpack.Decoder) ([]byte, error) {
	r, ok := d.Buffered().(*bodyReader)
	if !ok {
		return d.DecodeRaw()
	}
	raw := r.rest()
	tail, err := skip(raw, 1)
	if err != nil {
		return nil, err
	}
	raw = raw[:len(raw)-len(tail)]
	_, err = r.Seek(int64(len(raw)), io.SeekCurrent)
	return raw, err
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
