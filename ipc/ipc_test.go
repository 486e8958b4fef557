package ipc

import (
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sys/unix"
)

func TestTimeIsTextOnTheWire(t *testing.T) {
	at := Time(time.Unix(1, 5))
	b, err := msgpack.Marshal(map[string]any{"at": at})
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := msgpack.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	if m["at"] != "1970-01-01T00:00:01.000000005Z" {
		t.Fatalf("got %#v", m["at"])
	}
	var s struct {
		At *Time `msgpack:"at"`
	}
	if err := msgpack.Unmarshal(b, &s); err != nil || s.At.String() != at.String() {
		t.Fatal(s, err)
	}
}

// linked returns both ends of a link that ends with the test.
func linked(t *testing.T) (a, b *Conn) {
	t.Helper()
	a, fd, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	if b, err = NewConn(fd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return a, b
}

func TestFramesAndDescriptorsArriveTogether(t *testing.T) {
	a, b := linked(t)
	const frames = 3000
	go func() {
		for i := range frames {
			var p [2]int
			if err := unix.Pipe(p[:]); err != nil {
				t.Error(err)
				return
			}
			unix.Write(p[1], []byte{byte(i), byte(i >> 8)})
			unix.Close(p[1])
			var fds []int
			if i%3 > 0 {
				fds = append(fds, p[0])
			}
			if err := a.Send(KindFd, Fd{Name: string(make([]byte, i%700))}, fds...); err != nil {
				t.Error(err)
			}
			unix.Close(p[0])
			if i%100 == 0 {
				a.Flush()
			}
		}
	}()
	for i := range frames {
		f, err := b.Read()
		if err != nil {
			t.Fatal(err)
		}
		var m Fd
		if err := f.Decode(&m); err != nil || len(m.Name) != i%700 {
			t.Fatal(i, len(m.Name), err)
		}
		if (len(f.Fds) == 1) != (i%3 > 0) {
			t.Fatalf("frame %d came with %d descriptors", i, len(f.Fds))
		}
		for _, fd := range f.Fds {
			var got [2]byte
			unix.Read(fd, got[:])
			if int(got[0])+int(got[1])<<8 != i {
				t.Fatalf("frame %d came with the descriptor of %v", i, got)
			}
			unix.Close(fd)
		}
	}
}

func TestFramesThatCameTogetherAreReadTogether(t *testing.T) {
	a, b := linked(t)
	a.Hold()
	for seq := range uint64(3) {
		if err := a.Send(KindAck, Ack{Seq: seq}); err != nil {
			t.Fatal(err)
		}
	}
	a.Release()
	frames, err := b.ReadAll()
	if err != nil || len(frames) != 3 {
		t.Fatalf("%d frames, %v; want 3", len(frames), err)
	}
	for i, f := range frames {
		var m Ack
		if err := f.Decode(&m); err != nil || m.Seq != uint64(i) {
			t.Errorf("frame %d is %+v, %v", i, m, err)
		}
	}
	// What cannot be read comes after what can.
	good, err := appendFrame(nil, KindAck, Ack{Seq: 9}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := a.sendNow(append(good, 0, 0, 0, 1, 0xc1), nil); n != len(good)+5 {
		t.Fatalf("%d bytes were sent", n)
	}
	if frames, err := b.ReadAll(); err != nil || len(frames) != 1 {
		t.Errorf("%d frames, %v; want 1", len(frames), err)
	}
	if frames, err := b.ReadAll(); err == nil || len(frames) != 0 {
		t.Errorf("%d frames of what is none", len(frames))
	}
}
