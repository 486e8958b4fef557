// Package ipc is how the zinit processes talk to each other: msgpack frames
// over Unix stream sockets, with descriptors passed alongside.
//
// frame.go and check.go say what a frame is, conn.go moves frames and
// descriptors, hello.go opens a link, and there is one file of message types
// for each link: keeper.go (pid1 and supervisord), health.go (supervisord and
// zinit-healthd) and control.go (supervisord and its clients). The protocol is written down for other languages in
// docs/ipc.md.
//
// The package does not import net, because zinit-pid1 links it and has to
// stay small.
package ipc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/vmihailenco/msgpack/v5"
)

// MaxFrame is the largest payload of a frame, in bytes. Whatever may be larger
// is sent as items and an end.
const MaxFrame = 1 << 20

// headerSize is the length that precedes each payload: a big-endian uint32.
const headerSize = 4

// Kind says what the body of a frame is. The numbers belong to a link and are
// listed in its file; a number is never used again for something else.
type Kind uint8

// Frame is one received message.
type Frame struct {
	Kind Kind
	// Body is the msgpack map of the message. It has passed Check, so
	// decoding it allocates no more than a bounded multiple of its size.
	Body []byte
	// Fds are the descriptors that came with the frame, close-on-exec. They
	// belong to whoever got the frame.
	Fds []int
}

// Decode reads the body into a message struct. Fields that the struct does
// not know are skipped, so that a newer peer may add some.
func (f Frame) Decode(into any) error {
	d := decodings.Get().(*decoding)
	d.body.reset(f.Body)
	d.Reset(&d.body)
	d.UsePreallocateValues(true)
	err := d.Decoder.Decode(into)
	d.body.reset(nil)
	decodings.Put(d)
	if err != nil {
		return fmt.Errorf("cannot decode frame of kind %d: %w", f.Kind, err)
	}
	return nil
}

// bodyReader reads a body, and shows what is left of it.
type bodyReader struct {
	bytes.Reader
	body []byte
}

func (r *bodyReader) reset(body []byte) {
	r.Reset(body)
	r.body = body
}

func (r *bodyReader) rest() []byte { return r.body[len(r.body)-r.Len():] }

// decoding and encoding are what a frame needs for a moment. They are used again:
// what stays would lie among such garbage, and keep its pages.
type decoding struct {
	*msgpack.Decoder
	body bodyReader
}

type encoding struct {
	*msgpack.Encoder
	out bytes.Buffer
}

var (
	decodings = sync.Pool{New: func() any { return &decoding{Decoder: msgpack.NewDecoder(nil)} }}
	encodings = sync.Pool{New: func() any { return &encoding{Encoder: msgpack.NewEncoder(nil)} }}
)

// ErrTooLarge is returned for a frame over MaxFrame, sent or received.
var ErrTooLarge = errors.New("frame is larger than " + strconv.Itoa(MaxFrame) + " bytes")

// appendFrame appends the wire form of a message: [kind, body], or, where
// descriptors go with it, [kind, body, number of descriptors].
func appendFrame(dst []byte, kind Kind, body any, fds int) ([]byte, error) {
	start := len(dst)
	enc := encodings.Get().(*encoding)
	enc.out = *bytes.NewBuffer(append(dst, 0, 0, 0, 0))
	enc.Reset(&enc.out)
	defer func() {
		enc.out = bytes.Buffer{} // it is the caller's
		encodings.Put(enc)
	}()
	n := 2
	if fds > 0 {
		n = 3
	}
	enc.UseCompactInts(true)
	err := errors.Join(enc.EncodeArrayLen(n), enc.EncodeUint(uint64(kind)), enc.Encode(body))
	if fds > 0 {
		err = errors.Join(err, enc.EncodeUint(uint64(fds)))
	}
	if err != nil {
		return dst, fmt.Errorf("cannot encode frame of kind %d: %w", kind, err)
	}
	out := enc.out.Bytes()
	size := len(out) - start - headerSize
	if size > MaxFrame {
		return dst, ErrTooLarge
	}
	binary.BigEndian.PutUint32(out[start:], uint32(size))
	return out, nil
}

// parsePayload splits a payload into kind, body and number of descriptors,
// after Check has seen it.
func parsePayload(b []byte) (kind Kind, body []byte, fds int, err error) {
	if err := Check(b); err != nil {
		return 0, nil, 0, err
	}
	// Check has seen one whole value, so the bytes that are looked at exist.
	n, b := arrayLen(b)
	if n < 2 || n > 3 {
		return 0, nil, 0, errors.New("frame is not an array of kind and body")
	}
	k, rest, ok := smallUint(b)
	if !ok {
		return 0, nil, 0, errors.New("kind of frame is not a number from 0 to 255")
	}
	if t := rest[0]; t&0xf0 != 0x80 && t != 0xde && t != 0xdf {
		return 0, nil, 0, errors.New("body of frame is not a map")
	}
	tail, err := skip(rest, 1)
	if err != nil {
		return 0, nil, 0, err
	}
	body = rest[:len(rest)-len(tail)]
	if n == 3 {
		v, _, ok := smallUint(tail)
		if !ok || v > MaxFds {
			return 0, nil, 0, fmt.Errorf("number of descriptors of a frame is not from 0 to %d", MaxFds)
		}
		fds = int(v)
	}
	return Kind(k), body, fds, nil
}

// arrayLen reads the head of an array, in whichever width the sender chose. It
// returns 0 for what is none.
func arrayLen(b []byte) (n uint32, rest []byte) {
	switch t := b[0]; {
	case t&0xf0 == 0x90:
		return uint32(t & 0x0f), b[1:]
	case t == 0xdc:
		return uint32(binary.BigEndian.Uint16(b[1:])), b[3:]
	case t == 0xdd:
		return binary.BigEndian.Uint32(b[1:]), b[5:]
	}
	return 0, b
}

// smallUint reads a msgpack integer from 0 to 255, in whichever width the
// sender chose.
func smallUint(b []byte) (v uint8, rest []byte, ok bool) {
	n, rest, ok := readUint(b)
	return uint8(n), rest, ok && n <= 0xff
}

// readUint reads a msgpack integer that is not negative.
func readUint(b []byte) (v uint64, rest []byte, ok bool) {
	switch t := b[0]; {
	case t <= 0x7f:
		return uint64(t), b[1:], true
	case t >= 0xcc && t <= 0xcf || t >= 0xd0 && t <= 0xd3: // uint and int, 8 to 64 bits
		width := 1 << (t & 3)
		for _, c := range b[1 : 1+width] {
			v = v<<8 | uint64(c)
		}
		signed := t >= 0xd0 && b[1] >= 0x80
		return v, b[1+width:], !signed
	}
	return 0, nil, false
}

// readString reads a msgpack string.
func readString(b []byte) (s, rest []byte, ok bool) {
	var n uint64
	switch t := b[0]; {
	case t&0xe0 == 0xa0:
		n, rest = uint64(t&0x1f), b[1:]
	case t >= 0xd9 && t <= 0xdb:
		n, rest, _ = length(b[1:], 1<<(t-0xd9))
	default:
		return nil, nil, false
	}
	return rest[:n], rest[n:], true
}

// mapLen reads the head of a map. It returns 0 for what is none.
func mapLen(b []byte) (n uint32, rest []byte) {
	switch t := b[0]; {
	case t&0xf0 == 0x80:
		return uint32(t & 0x0f), b[1:]
	case t == 0xde:
		return uint32(binary.BigEndian.Uint16(b[1:])), b[3:]
	case t == 0xdf:
		return binary.BigEndian.Uint32(b[1:]), b[5:]
	}
	return 0, b
}
