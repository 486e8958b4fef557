package ipc

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// transplant does what an execve would: it goes on with a connection at rest
// in a new one, whose descriptors are the only ones left.
func transplant(t *testing.T, c *Conn) *Conn {
	t.Helper()
	s, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	kept := Suspended{In: append([]byte(nil), s.In...), Out: append([]byte(nil), s.Out...)}
	for _, m := range s.Marks {
		kept.Marks = append(kept.Marks, mark{m.Off, dups(t, m.Fds)})
	}
	kept.Fd, kept.InFds = dups(t, []int{s.Fd})[0], dups(t, s.InFds)
	if n := len(kept.Fds()); n != len(s.Fds()) {
		t.Fatalf("%d descriptors of %d", n, len(s.Fds()))
	}
	c.Close()
	closeAll(s.InFds)
	next, err := Restore(kept)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func dups(t *testing.T, fds []int) []int {
	t.Helper()
	out, err := dupAll(fds)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestASuspendedConnectionLosesNothing(t *testing.T) {
	a, b := linked(t)
	const frames = 600
	body := func(i int) string { return string(make([]byte, i*97%(30<<10))) }
	sent := 0
	send := func(n int) {
		for ; n > 0 && sent < frames; n-- {
			var fds []int
			if sent%3 == 0 {
				var p [2]int
				if err := unix.Pipe(p[:]); err != nil {
					t.Fatal(err)
				}
				unix.Write(p[1], []byte{byte(sent), byte(sent >> 8)})
				unix.Close(p[1])
				fds = p[:1]
			}
			if err := a.Send(KindFd, Fd{Name: body(sent)}, fds...); err != nil {
				t.Fatal(err)
			}
			closeAll(fds)
			sent++
		}
	}
	queued, pieces := 0, 0
	for i := 0; i < frames; {
		// More than a socket takes, so that a frame is half written.
		send(60)
		a.Suspend()
		if _, err := a.Read(); !errors.Is(err, ErrSuspended) {
			t.Fatalf("a read at rest gives %v", err)
		}
		send(1)
		if s, _ := a.State(); len(s.Out) > 0 {
			queued++
		}
		if i%2 == 0 {
			a = transplant(t, a)
		} else {
			a.Resume()
		}
		for stop := i + 61; i < frames && i < stop; {
			if i%7 == 3 {
				b.Suspend()
			}
			f, err := b.Read()
			if errors.Is(err, ErrSuspended) {
				if s, _ := b.State(); len(s.In) > 0 {
					pieces++
				}
				b = transplant(t, b)
				f, err = b.Read()
			}
			if err != nil {
				t.Fatalf("frame %d: %v", i, err)
			}
			var m Fd
			if err := f.Decode(&m); err != nil || m.Name != body(i) {
				t.Fatalf("frame %d has %d bytes, want %d: %v", i, len(m.Name), len(body(i)), err)
			}
			if len(f.Fds) == 1 != (i%3 == 0) {
				t.Fatalf("frame %d came with %d descriptors", i, len(f.Fds))
			}
			for _, fd := range f.Fds {
				var got [2]byte
				unix.Read(fd, got[:])
				if int(got[0])+int(got[1])<<8 != i {
					t.Fatalf("frame %d came with the descriptor of %v", i, got)
				}
			}
			f.CloseFds()
			i++
			b.Resume()
		}
	}
	if queued == 0 || pieces == 0 {
		t.Errorf("%d times something was queued, %d times half a frame was read", queued, pieces)
	}
	a.Close()
	b.Close()
}
