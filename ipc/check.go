package ipc

import (
	"encoding/binary"
	"errors"
)

// maxDepth is how deep arrays and maps may be nested in a frame. The deepest
// message, an answer to why, is folded to stay below it.
const maxDepth = 16

var (
	errTruncated = errors.New("frame ends in the middle of a value")
	errTrailing  = errors.New("frame has bytes after its value")
	errDepth     = errors.New("frame is nested too deeply")
	errReserved  = errors.New("frame has a byte that is no msgpack type")
)

// Check says whether b is exactly one well-formed msgpack value whose declared
// lengths fit into b and whose nesting is bounded. It must pass before a
// decoder sees the bytes: msgpack/v5 allocates gigabytes for an 11-byte frame
// that announces a long array, and overflows its stack on deep nesting. Check
// itself allocates nothing and reads each byte at most once.
func Check(b []byte) error {
	rest, err := skip(b, 0)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return errTrailing
	}
	return nil
}

// skip returns what follows the first value of b, which stands at that depth.
func skip(b []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	if len(b) == 0 {
		return nil, errTruncated
	}
	t := b[0]
	b = b[1:]
	switch {
	case t <= 0x7f || t >= 0xe0: // fixint
		return b, nil
	case t <= 0x8f: // fixmap
		return skipN(b, 2*uint64(t&0x0f), depth)
	case t <= 0x9f: // fixarray
		return skipN(b, uint64(t&0x0f), depth)
	case t <= 0xbf: // fixstr
		return cut(b, uint64(t&0x1f))
	}
	switch t {
	case 0xc0, 0xc2, 0xc3: // nil, false, true
		return b, nil
	case 0xcc, 0xd0:
		return cut(b, 1)
	case 0xcd, 0xd1:
		return cut(b, 2)
	case 0xca, 0xce, 0xd2:
		return cut(b, 4)
	case 0xcb, 0xcf, 0xd3:
		return cut(b, 8)
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8: // fixext 1 to 16, and its type
		return cut(b, 1+1<<(t-0xd4))
	case 0xc4, 0xd9:
		return sized(b, 1, 0)
	case 0xc5, 0xda:
		return sized(b, 2, 0)
	case 0xc6, 0xdb:
		return sized(b, 4, 0)
	case 0xc7:
		return sized(b, 1, 1)
	case 0xc8:
		return sized(b, 2, 1)
	case 0xc9:
		return sized(b, 4, 1)
	case 0xdc, 0xdd, 0xde, 0xdf: // array 16, 32, map 16, 32
		n, b, err := length(b, 2<<(t&1))
		if err != nil {
			return nil, err
		}
		if t >= 0xde {
			n *= 2
		}
		return skipN(b, n, depth)
	}
	return nil, errReserved
}

// skipN skips n values inside a container. Each needs at least a byte, so a
// count beyond the rest is refused before the loop.
func skipN(b []byte, n uint64, depth int) ([]byte, error) {
	if n > uint64(len(b)) {
		return nil, errTruncated
	}
	var err error
	for ; n > 0; n-- {
		if b, err = skip(b, depth+1); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func sized(b []byte, width int, extra uint64) ([]byte, error) {
	n, b, err := length(b, width)
	if err != nil {
		return nil, err
	}
	return cut(b, n+extra)
}

func length(b []byte, width int) (uint64, []byte, error) {
	if len(b) < width {
		return 0, nil, errTruncated
	}
	switch width {
	case 1:
		return uint64(b[0]), b[1:], nil
	case 2:
		return uint64(binary.BigEndian.Uint16(b)), b[2:], nil
	}
	return uint64(binary.BigEndian.Uint32(b)), b[4:], nil
}

func cut(b []byte, n uint64) ([]byte, error) {
	if n > uint64(len(b)) {
		return nil, errTruncated
	}
	return b[n:], nil
}
