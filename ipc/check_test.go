package ipc

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

func TestCheckRefusesWhatWouldHurtADecoder(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("\x91", n) + "\xc0" }
	for _, c := range []struct {
		name, bytes string
		want        error
	}{
		{"nothing", "", errTruncated},
		{"an array that announces 16 million elements", "\xdd\x00\xff\xff\xff", errTruncated},
		{"an array of the largest length", "\xdd\xff\xff\xff\xff\xc0", errTruncated},
		{"a map of the largest length", "\xdf\xff\xff\xff\xff\xc0\xc0", errTruncated},
		{"a string longer than the frame", "\xdb\x00\x00\x01\x00abc", errTruncated},
		{"an extension longer than the frame", "\xc9\x00\x00\x01\x00\x05abc", errTruncated},
		{"half a number", "\xcf\x01\x02", errTruncated},
		{"a length cut in two", "\xda\x01", errTruncated},
		{"two values", "\xc0\xc0", errTrailing},
		{"nesting of 17", nested(17), errDepth},
		{"nesting of a million", nested(1 << 20), errDepth},
		{"the byte that no type has", "\xc1", errReserved},
		{"the same inside", "\x91\xc1", errReserved},
		{"nesting of 16", nested(16), nil},
		{"all kinds of values", "\x9a\xc0\xc2\xc3\x7f\xff\xcc\x01\xcd\x01\x02\xca\x00\x00\x00\x00\xa1a\x81\xa1a\xc4\x01b", nil},
	} {
		if got := Check([]byte(c.bytes)); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// What passes is decoded with memory in proportion to its size.
func FuzzCheck(f *testing.F) {
	seed := func(v any) {
		b, err := msgpack.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	seed([]any{1, Spawn{Run: 1, Argv: []string{"a"}, Pipes: []Pipe{{"log/1/stdout/a", 1}}}})
	seed([]any{2, map[string]any{"id": 1, "result": []any{1.5, true, nil, "x", []byte("y")}}})
	f.Add([]byte("\xdd\x00\xff\xff\xff\xc0"))
	f.Add([]byte(strings.Repeat("\x91", 40)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > MaxFrame || Check(b) != nil {
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var m Spawn
		msgpack.Unmarshal(b, &m)
		var v any
		msgpack.Unmarshal(b, &v)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20+200*uint64(len(b)) {
			t.Fatalf("decoding %d bytes took %d bytes of memory", len(b), used)
		}
	})
}

func TestNumbersAndLengthsMayHaveAnyWidth(t *testing.T) {
	for _, kind := range []string{"\x05", "\xcc\x05", "\xcd\x00\x05", "\xce\x00\x00\x00\x05", "\xd0\x05", "\xd1\x00\x05", "\xd3\x00\x00\x00\x00\x00\x00\x00\x05"} {
		if k, _, _, err := parsePayload([]byte("\x92" + kind + "\x80")); err != nil || k != 5 {
			t.Errorf("kind %x is read as %d, %v", kind, k, err)
		}
	}
	for _, head := range []string{"\x92", "\xdc\x00\x02", "\xdd\x00\x00\x00\x02"} {
		if k, body, _, err := parsePayload([]byte(head + "\x05\xde\x00\x00")); err != nil || k != 5 || len(body) != 3 {
			t.Errorf("an array that begins with %x is read as kind %d, %v", head, k, err)
		}
	}
	for _, kind := range []string{"\xff", "\xd0\xfb", "\xcd\x01\x05", "\xd1\xff\xff", "\xcb\x00\x00\x00\x00\x00\x00\x00\x00", "\xc0"} {
		if k, _, _, err := parsePayload([]byte("\x92" + kind + "\x80")); err == nil {
			t.Errorf("kind %x is read as %d", kind, k)
		}
	}
}

func TestAnswersAreReadInAnyWidthAndOrder(t *testing.T) {
	for _, c := range []struct {
		body, value string
		id          uint64
		fails       bool
	}{
		{body: "\x82\xa2id\x07\xa4item\x81\xa1a\x01", id: 7, value: "\x81\xa1a\x01"},
		{body: "\x82\xa6result\xa1x\xa2id\xcd\x01\x00", id: 256, value: "\xa1x"},
		{body: "\xde\x00\x01\xd9\x02id\xcf\x7f\xff\xff\xff\xff\xff\xff\xff", id: 1<<63 - 1},
		{body: "\xdf\x00\x00\x00\x02\xda\x00\x02id\xd0\x05\xdb\x00\x00\x00\x03new\x91\xc0", id: 5},
		{body: "\x81\xa4kind\xa6denied"},
		{body: "\x80"},
		{body: "\x81\xa2id\xff", fails: true},     // -1
		{body: "\x81\xa2id\xd0\x80", fails: true}, // -128
		{body: "\x81\xa2id\xa17", fails: true},
		{body: "\x81\x01\x02", fails: true},
	} {
		if err := Check([]byte(c.body)); err != nil {
			t.Fatalf("%x: %v", c.body, err)
		}
		id, value, err := Frame{Kind: KindItem, Body: []byte(c.body)}.Answer()
		if id != c.id || string(value) != c.value || (err != nil) != c.fails {
			t.Errorf("%x: got id %d, value %x, error %v", c.body, id, value, err)
		}
	}
}

func FuzzPayload(f *testing.F) {
	f.Add([]byte("\x92\x10\x80"))
	f.Add([]byte("\x93\x10\x81\xa1a\x01\x02"))
	f.Add([]byte("\x92\xcc\xff\xde\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, body, fds, err := parsePayload(b)
		if err != nil {
			return
		}
		if fds < 0 || fds > MaxFds || !bytes.Contains(b, body) || Check(body) != nil {
			t.Fatalf("payload %x is read as kind %d, body %x, %d descriptors", b, kind, body, fds)
		}
		if _, value, err := (Frame{Kind: kind, Body: body}).Answer(); err == nil && value != nil && Check(value) != nil {
			t.Fatalf("the answer in %x has the value %x", body, value)
		}
	})
}

// A peer that sends nonsense is told apart from one that has gone, and nothing
// it sends is waited for twice.
func TestReadRefusesBadFrames(t *testing.T) {
	frame := func(payload string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"oversized", binary.BigEndian.AppendUint32(nil, MaxFrame+1), "larger than"},
		{"not an array", frame("\x80"), "not an array"},
		{"an array of one", frame("\x91\x01"), "not an array"},
		{"a kind that is a string", frame("\x92\xa1a\x80"), "kind of frame"},
		{"a kind over 255", frame("\x92\xcd\x01\x00\x80"), "kind of frame"},
		{"a body that is a list", frame("\x92\x01\x90"), "not a map"},
		{"descriptors that did not come", frame("\x93\x01\x80\x02"), "announces 2 descriptors"},
		{"too many descriptors", frame("\x93\x01\x80\x41"), "number of descriptors"},
		{"cut in the middle", frame("\x92\x01\x81\xa1a")[:6], "unexpected EOF"},
	} {
		a, b := linked(t)
		a.file.Write(c.data)
		a.Close()
		if _, err := b.Read(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		b.Close()
	}
}

// A peer that keeps sending a byte now and then has no more time for a frame
// than one that has stopped.
func TestFrameMustBeWholeInTime(t *testing.T) {
	for name, every := range map[string]time.Duration{"stops": time.Hour, "drips": time.Millisecond} {
		a, b := linked(t)
		b.Stall = 50 * time.Millisecond
		a.file.Write([]byte("\x00\x10\x00\x00"))
		drip := time.NewTicker(every)
		go func() {
			for range drip.C {
				if _, err := a.file.Write([]byte("x")); err != nil {
					return
				}
			}
		}()
		if _, err := b.Read(); err == nil || err.Error() != "a frame was begun and is not whole after 50ms" {
			t.Errorf("%s: %v", name, err)
		}
		b.Close()
		a.Close()
		drip.Stop()
	}
}

func TestFirstFrameMustComeInTime(t *testing.T) {
	_, b := linked(t)
	b.Stall = 50 * time.Millisecond
	if _, err := b.Read(); err == nil || err.Error() != "nothing was said within 50ms" {
		t.Error(err)
	}
}

// Time passes between frames, and while one waits that came with another.
func TestTimeBetweenFramesIsNotCounted(t *testing.T) {
	a, b := linked(t)
	b.Stall = 300 * time.Millisecond
	const frame = "\x00\x00\x00\x03\x92\x01\x80"
	a.file.Write([]byte(frame + frame[:3]))
	if _, err := b.Read(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(b.Stall + b.Stall/4) // nobody reads
	a.file.Write([]byte(frame[3:]))
	if _, err := b.Read(); err != nil {
		t.Errorf("a frame whose beginning came with the one before: %v", err)
	}
	time.AfterFunc(b.Stall+b.Stall/4, func() { a.file.Write([]byte(frame)) })
	if _, err := b.Read(); err != nil {
		t.Errorf("a frame after a long silence: %v", err)
	}
}

// Who is turned away learns why, although what it sends is not read any more.
func TestLastWordsAreRead(t *testing.T) {
	for range 100 {
		a, b := linked(t)
		a.Send(KindError, ErrorAnswer{Error: *Errorf(ErrDenied, "no")})
		a.Close()
		for b.Send(KindHello, Hello{}) == nil { // until it is known that nobody reads
		}
		if f, err := b.Read(); err != nil || f.Kind != KindError {
			t.Fatalf("got %+v, %v", f, err)
		}
		b.Close()
	}
}

func TestSendToAPeerThatDoesNotReadDisconnects(t *testing.T) {
	a, _ := linked(t)
	chunk := map[string]string{"x": strings.Repeat("x", MaxFrame/2)}
	var err error
	for range 3 * maxQueue / MaxFrame * 2 {
		if err = a.Send(1, chunk); err != nil {
			break
		}
	}
	if err != ErrOverflow {
		t.Fatalf("got %v, want %v", err, ErrOverflow)
	}
	if err := a.Send(1, chunk); err != ErrOverflow {
		t.Fatalf("after that: got %v, want %v", err, ErrOverflow)
	}
}
