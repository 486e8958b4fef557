package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fixture is a Capture whose ends of streams can be waited for.
type fixture struct {
	*Capture
	t   testing.TB
	eof chan streamKey
	log bytes.Buffer
}

func open(t testing.TB, o Options) *fixture {
	t.Helper()
	f := &fixture{t: t, eof: make(chan streamKey, 10_000)}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(&f.log, nil))
	}
	o.EOF = func(run uint64, s Stream) { f.eof <- streamKey{run, s} }
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	f.Capture = c
	t.Cleanup(c.Close)
	return f
}

// add makes a pipe, captures its read end and returns the other.
func (f *fixture) add(service string, run uint64, s Stream) *os.File {
	f.t.Helper()
	r, w := pipePair(f.t)
	if err := f.Add(service, run, s, r); err != nil {
		f.t.Fatal(err)
	}
	return w
}

func pipePair(t testing.TB) (r int, w *os.File) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		t.Fatal(err)
	}
	unix.CloseOnExec(p[0])
	unix.CloseOnExec(p[1])
	w = os.NewFile(uintptr(p[1]), "pipe")
	t.Cleanup(func() { w.Close() })
	return p[0], w
}

func (f *fixture) write(w *os.File, text string) {
	f.t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		f.t.Fatal(err)
	}
}

// end closes the only writer and waits until its bytes are stored.
func (f *fixture) end(w *os.File) {
	f.t.Helper()
	w.Close()
	<-f.eof
}

// show renders a line as the tests expect it.
func show(l Line) string {
	if l.Missed > 0 {
		return fmt.Sprintf("%s missed %d", l.Service, l.Missed)
	}
	mark := ""
	if l.Partial {
		mark = "+"
	}
	return fmt.Sprintf("%s/%d/%s %s%s", l.Service, l.Run, l.Stream, l.Text, mark)
}

func (f *fixture) tail(q Query) []string {
	f.t.Helper()
	var got []string
	if err := f.Tail(q, func(l Line) error { got = append(got, show(l)); return nil }); err != nil {
		f.t.Fatal(err)
	}
	return got
}

func (f *fixture) expect(q Query, want ...string) {
	f.t.Helper()
	if got := f.tail(q); !slices.Equal(got, want) {
		f.t.Errorf("got %q\nwant %q", got, want)
	}
}

var all = Query{Lines: -1}

func TestLinesOfBothStreams(t *testing.T) {
	f := open(t, Options{})
	out, err := f.add("web", 1, Stdout), f.add("web", 1, Stderr)
	before := time.Now().Add(-time.Millisecond)
	f.write(out, "one\ntwo\r\n\n")
	f.Drain(1)
	f.write(err, "oops\nhalf")
	f.Drain(1)
	f.write(out, "three\n")
	f.Drain(1)
	f.expect(all, "web/1/stdout one", "web/1/stdout two\r", "web/1/stdout ", "web/1/stderr oops", "web/1/stdout three", "web/1/stderr half+")
	f.write(err, " a line\nlast")
	f.end(err)
	f.end(out)
	f.expect(all, "web/1/stdout one", "web/1/stdout two\r", "web/1/stdout ", "web/1/stderr oops", "web/1/stdout three", "web/1/stderr half a line", "web/1/stderr last")
	f.expect(Query{Lines: 2}, "web/1/stderr half a line", "web/1/stderr last")
	f.expect(Query{Lines: 1, Streams: []Stream{Stdout}}, "web/1/stdout three")
	f.expect(Query{Lines: 5, Grep: func(b []byte) bool { return bytes.HasPrefix(b, []byte("t")) }}, "web/1/stdout two\r", "web/1/stdout three")
	f.expect(Query{Lines: 0})
	f.expect(Query{Lines: -1, Services: []string{"db"}})
	f.expect(Query{Lines: -1, Since: time.Now()})
	f.Tail(all, func(l Line) error {
		if l.Time.Before(before) || l.Time.After(time.Now()) {
			t.Errorf("line %s has time %v", show(l), l.Time)
		}
		return nil
	})
	if f.log.Len() > 0 {
		t.Errorf("logged: %s", &f.log)
	}
}

func TestFollow(t *testing.T) {
	f := open(t, Options{})
	w := f.add("a", 1, Stdout)
	f.write(w, "old\nbegun")
	f.Drain(1)
	got := make(chan string)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- f.Follow(ctx, Query{Lines: 1}, func(l Line) error { got <- show(l); return nil })
	}()
	expect := func(want string) {
		t.Helper()
		if s := <-got; s != want {
			t.Errorf("got %q, want %q", s, want)
		}
	}
	expect("a/1/stdout old")
	f.write(w, " line\n")
	expect("a/1/stdout begun line")
	v := f.add("b", 2, Stderr)
	f.write(v, "of a new service\nend")
	expect("b/2/stderr of a new service")
	f.end(v)
	expect("b/2/stderr end")
	f.Remove("b")
	f.write(f.add("b", 3, Stdout), "again\n")
	expect("b/3/stdout again")
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("Follow returned %v", err)
	}
}

func files(t testing.TB, dir string) (names []string, bytes int64) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names, bytes
}
