package logs

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// smallSegments makes segments of 64 KiB for the rest of a test.
func smallSegments(t testing.TB) {
	old := maxSegment
	maxSegment = 64 << 10
	t.Cleanup(func() { maxSegment = old })
}

func TestLongLineIsSplit(t *testing.T) {
	smallSegments(t)
	f := open(t, Options{PerService: 32 << 20})
	w := f.add("web", 1, Stdout)
	random := rand.NewChaCha8([32]byte{1})
	long := make([]byte, 10<<20)
	random.Read(long)
	long = bytes.ReplaceAll(long, []byte("\n"), []byte{0})
	f.write(w, string(long)+"\nshort\n"+string(long[:MaxLine])+"\n")
	f.end(w)
	var pieces int
	var got []byte
	var rest []string
	err := f.Tail(all, func(l Line) error {
		if len(l.Text) > MaxLine {
			t.Errorf("a piece of %d bytes", len(l.Text))
		}
		if len(got) == len(long) {
			rest = append(rest, string(l.Text))
		} else {
			got = append(got, l.Text...)
			pieces++
		}
		if want := pieces < len(long)/MaxLine; l.Partial != want {
			t.Fatalf("piece %d: partial is %v", pieces, l.Partial)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, long) {
		t.Error("the pieces are not the line")
	}
	if !slices.Equal(rest, []string{"short", string(long[:MaxLine])}) {
		t.Errorf("%d lines follow", len(rest))
	}
}

func TestRunsThatOverlap(t *testing.T) {
	f := open(t, Options{})
	old, new := f.add("web", 1, Stdout), f.add("web", 2, Stdout)
	steps := []struct {
		w    *os.File
		text string
	}{{old, "grand"}, {new, "hel"}, {old, "child\nby"}, {new, "lo\n"}}
	for i, s := range steps {
		f.write(s.w, s.text)
		f.Drain(uint64(i%2 + 1))
	}
	f.end(old)
	f.end(new)
	f.expect(all, "web/1/stdout grandchild", "web/2/stdout hello", "web/1/stdout by")
	run := func(n uint64) Query {
		return Query{Lines: -1, Runs: func(string) (uint64, uint64) { return n, n }}
	}
	f.expect(run(1), "web/1/stdout grandchild", "web/1/stdout by")
	f.expect(run(2), "web/2/stdout hello")
	if err := f.Add("web", 3, Stdout, int(old.Fd())); err == nil {
		t.Error("a closed descriptor was accepted")
	}
}

func TestServicesAreMergedByTime(t *testing.T) {
	f := open(t, Options{})
	var want []string
	pipes := map[string]*os.File{}
	for i := range 30 {
		name := fmt.Sprintf("s%d", i%3)
		if pipes[name] == nil {
			pipes[name] = f.add(name, uint64(i+1), Stdout)
		}
		f.write(pipes[name], fmt.Sprintf("%d\n", i))
		f.Drain(uint64(i%3 + 1))
		want = append(want, fmt.Sprintf("%s/%d/stdout %d", name, i%3+1, i))
	}
	f.expect(all, want...)
	f.expect(Query{Lines: 7}, want[23:]...)
	f.expect(Query{Lines: 2, Services: []string{"s1"}}, want[25], want[28])
	if got := f.Services(); !slices.Equal(got, []string{"s0", "s1", "s2"}) {
		t.Errorf("services are %q", got)
	}
}

func TestBufferLines(t *testing.T) {
	f := open(t, Options{})
	f.Configure("few", 2)
	f.Configure("none", 0)
	few, none := f.add("few", 1, Stdout), f.add("none", 2, Stdout)
	f.write(none, "unheard\n")
	f.Drain(2)
	f.write(few, "1\n2\n3\n4\n")
	f.Drain(1)
	f.expect(all, "few/1/stdout 3", "few/1/stdout 4")
	f.expect(Query{Lines: 5, Grep: func(b []byte) bool { return b[0] != '4' }}, "few/1/stdout 3")
	f.expect(Query{Lines: 1}, "few/1/stdout 4")
	f.Configure("few", -1)
	f.expect(Query{Lines: 3}, "few/1/stdout 2", "few/1/stdout 3", "few/1/stdout 4")
	f.Configure("few", 0)
	f.expect(all)
	f.write(few, "5\n")
	f.Drain(1)
	if names, _ := files(t, f.options.Dir); len(names) > 0 {
		t.Errorf("files %q", names)
	}
	f.end(few)
	f.end(none)
}

func TestRemove(t *testing.T) {
	f := open(t, Options{})
	w := f.add("web", 1, Stdout)
	f.write(w, "gone\n")
	f.Drain(1)
	f.Remove("web")
	f.Remove("never")
	f.write(w, strings.Repeat("nobody wants this, and it blocks nobody\n", 10_000))
	f.end(w)
	f.expect(all)
	if got := f.Services(); len(got) > 0 {
		t.Errorf("services are %q", got)
	}
	if names, err := os.ReadDir(f.options.Dir); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

func TestAddRefuses(t *testing.T) {
	f := open(t, Options{})
	r, _ := pipePair(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for want, err := range map[string]error{
		`not a service name`: f.Add("../web", 1, Stdout, r),
		`not a pipe`:         f.Add("web", 1, Stdout, int(file.Fd())),
		`<nil>`:              f.Add("web", 1, Stdout, r),
		`has one already`:    f.Add("web", 1, Stdout, r),
	} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
}

// What nobody reads takes no more disk and memory than it may, and what is
// kept is the newest.
func TestFloodIsBounded(t *testing.T) {
	const total, limit = 256 << 20, 8 << 20
	f := open(t, Options{})
	w := f.add("web", 1, Stdout)
	flood := helper(t, fmt.Sprintf("flood %d 4096", total), w)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := flood.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	<-f.eof
	runtime.ReadMemStats(&after)
	if err := flood.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
	names, size := files(t, f.options.Dir)
	if size > limit || size < limit/2 {
		t.Errorf("%d bytes in %d files", size, len(names))
	}
	lines := 0
	want := strings.Repeat("x", 99)
	f.Tail(all, func(l Line) error {
		// Chunks of 4,096 bytes end in the 96th column.
		if text := string(l.Text); text != want && text != want[:96]+want && text != want[:96] {
			t.Fatalf("line %d is %q", lines, text)
		}
		lines++
		return nil
	})
	if lines < limit/2/100 {
		t.Errorf("%d lines", lines)
	}
}

// A follower that stops reading holds up nobody, and every line is either
// received or counted.
func TestFollowerThatStopsReading(t *testing.T) {
	smallSegments(t)
	f := open(t, Options{PerService: 256 << 10})
	out, err := f.add("web", 1, Stdout), f.add("web", 1, Stderr)
	f.write(out, "line 0 of the flood\n")
	f.Drain(1)

	started, resume, done := make(chan bool), make(chan bool), make(chan error)
	received, missed, notices := 0, 0, 0
	last := [2]int{-1, -1}
	go func() {
		done <- f.Follow(t.Context(), all, func(l Line) error {
			if l.Missed > 0 {
				missed += int(l.Missed)
				notices++
				return nil
			}
			received++
			if received == 1 {
				close(started)
			}
			if received%3000 == 1 {
				<-resume
			}
			if string(l.Text) == "end" {
				return io.EOF
			}
			var n int
			if _, err := fmt.Sscanf(string(l.Text), "line %d of the", &n); err != nil || !strings.HasSuffix(string(l.Text), "flood") {
				return fmt.Errorf("got %q", l.Text)
			}
			if n <= last[l.Stream] {
				return fmt.Errorf("line %d after %d", n, last[l.Stream])
			}
			last[l.Stream] = n
			return nil
		})
	}()
	<-started
	random := rand.New(rand.NewPCG(3, 4))
	written := 1
	for range 6 {
		var buf [2][]byte
		for range 60_000 {
			s := random.IntN(2)
			buf[s] = fmt.Appendf(buf[s], "line %d of the flood\n", written)
			written++
		}
		// In pieces that end in the middle of lines.
		for w := out; len(buf[0])+len(buf[1]) > 0; {
			s := random.IntN(2)
			if w = out; s == 1 {
				w = err
			}
			n := min(len(buf[s]), random.IntN(20_000))
			f.write(w, string(buf[s][:n]))
			buf[s] = buf[s][n:]
		}
		f.Drain(1)
		resume <- true
	}
	close(resume)
	f.write(out, "end\n")
	if err := <-done; err != io.EOF {
		t.Fatal(err)
	}
	if received+missed != written+1 || missed < written/2 || received < 1000 {
		t.Errorf("%d lines were written, %d received, %d missed", written+1, received, missed)
	}
	t.Logf("%d lines, %d received, %d missed in %d notices", written+1, received, missed, notices)
}

func TestManyServices(t *testing.T) {
	const services, limit = 1000, 4 << 20
	f := open(t, Options{Memory: limit})
	name := func(i int) string { return fmt.Sprintf("service-%d", i) }
	for i := range services {
		w := f.add(name(i), uint64(i+1), Stdout)
		f.write(w, "one\ntwo\n")
		f.end(w)
	}
	// 8 KiB each, as whole pages: the first are the oldest, and have gone.
	kept := limit / (8 << 10)
	var want []string
	for i := services - kept; i < services; i++ {
		want = append(want, fmt.Sprintf("%s/%d/stdout one", name(i), i+1), fmt.Sprintf("%s/%d/stdout two", name(i), i+1))
	}
	f.expect(all, want...)
	f.expect(Query{Lines: 3}, want[len(want)-3:]...)
	f.Close()
	if err := f.Tail(all, func(Line) error { return nil }); err != ErrClosed {
		t.Errorf("Tail of what is closed returned %v", err)
	}
	if err := f.Add("late", 1, Stdout, 0); err == nil {
		t.Error("Add to what is closed succeeded")
	}

	// The same is there again, with less memory less of it.
	f = open(t, Options{Dir: f.options.Dir, Memory: limit / 2})
	got := f.tail(all)
	if len(got) != kept {
		t.Errorf("%d lines are kept, want %d", len(got), kept)
	}
}

func TestSpliceRefused(t *testing.T) {
	real := splice
	splice = func(int, int, int64, int) (int, error) { return -1, unix.EINVAL }
	smallSegments(t)
	f := open(t, Options{PerService: 1 << 20})
	t.Cleanup(func() { f.Close(); splice = real })
	w := f.add("web", 1, Stdout)
	var want []string
	var text strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&text, "line %d\n", i)
		want = append(want, fmt.Sprintf("web/1/stdout line %d", i))
	}
	f.write(w, text.String())
	f.end(w)
	f.expect(all, want...)
	if n := strings.Count(f.log.String(), "\n"); n != 1 || !strings.Contains(f.log.String(), "refuses splice") {
		t.Errorf("logged: %s", &f.log)
	}
}
