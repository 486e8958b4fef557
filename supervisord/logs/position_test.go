package logs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helperCaptureFile DIR PATH SIZE captures descriptors 3 and 4 and writes them to a
// log file that is rotated at SIZE bytes, until both have ended.
func helperCaptureFile(args []string) {
	limit, err := strconv.ParseInt(args[2], 10, 64)
	must(err)
	captureBoth(args[0], "web", 7, func(c *Capture) {
		must(c.SetFile("web", FileOptions{Path: args[1], MaxSize: limit, MaxFiles: 1 << 20}))
	})
}

// The process is killed again and again while it writes and rotates the log
// file as fast as it can, and every line is there once, in order.
func TestLogFileWhenKilled(t *testing.T) {
	const kills = 110
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "web.log")
	c := startCounting(t)
	command := fmt.Sprintf("capturefile %s %s %d", dir, path, 128<<10)
	c.kill(kills, 2*time.Millisecond, command)
	if err := helper(t, command, c.reads[:]...).Run(); err != nil {
		t.Fatal(err)
	}
	if err := c.writer.Wait(); err != nil {
		t.Fatal(err)
	}
	lines := readLog(t, path)
	expectCounted(t, lines, -1)
	t.Logf("%d kills, %d lines, %d files", kills, len(lines), len(rotated(path)))
}

// killedWhile makes what a process leaves that was killed while it wrote line
// "b" to the file, with so many bytes of it written, and returns what there is
// of that line.
func killedWhile(t *testing.T, dir, path string, written func(line []byte) int) {
	f := open(t, Options{Dir: dir})
	f.setFile("web", FileOptions{Path: path})
	w := f.add("web", 1, Stdout)
	f.write(w, "a\n")
	f.Drain(1)
	f.Flush(time.Minute)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f.write(w, "b\nunfini")
	f.Drain(1)
	f.Flush(time.Minute)
	file := f.services["web"].file
	f.Close()
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The newest mark says that the line is written: let it say instead that it
	// is about to be.
	m := file.mark
	m.Size, m.Length = int64(len(before)), int64(len(after)-len(before))
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	id := idOf(&st)
	m.Dev, m.Inode = id.dev, id.inode
	marks, err := os.OpenFile(f.positionPath("web"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer marks.Close()
	// The mark before that of the settled one is that with the bytes, and that
	// before it is settled, too; it has to be in the other slot again.
	var old mark
	var lines map[streamKey]*begun
	seg := f.services["web"].segments[0]
	old = mark{Seq: m.Seq - 1, Segment: uint64(seg.number), Records: 1, Offset: 2}
	if _, err := marks.WriteAt(old.encode(nil, lines), int64(old.Seq%2)*slotSize); err != nil {
		t.Fatal(err)
	}
	if _, err := marks.WriteAt(m.encode(nil, file.lines), int64(m.Seq%2)*slotSize); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, m.Size+int64(written(after[len(before):]))); err != nil {
		t.Fatal(err)
	}
}

func TestLogFileRecovery(t *testing.T) {
	for name, c := range map[string]struct {
		written func(line []byte) int
		meddle  func(t *testing.T, path, position string)
		want    []string
	}{
		"nothing was written": {func([]byte) int { return 0 }, nil, nil},
		"half a line was":     {func(b []byte) int { return len(b) / 2 }, nil, nil},
		"all but a byte was":  {func(b []byte) int { return len(b) - 1 }, nil, nil},
		"all was":             {func(b []byte) int { return len(b) }, nil, nil},
		"the file is gone": {func([]byte) int { return 0 }, func(t *testing.T, path, _ string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, []string{"stdout F b", "stdout F unfinished", "stdout F c"}},
		"the file was emptied": {func([]byte) int { return 0 }, func(t *testing.T, path, _ string) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		}, []string{"stdout F b", "stdout F unfinished", "stdout F c"}},
		"the position is gone": {func(b []byte) int { return len(b) }, func(t *testing.T, _, position string) {
			if err := os.Remove(position); err != nil {
				t.Fatal(err)
			}
		}, []string{"stdout F a", "stdout F b", "stdout F shed", "stdout F c"}},
		"the position is garbage": {func(b []byte) int { return len(b) }, func(t *testing.T, _, position string) {
			if err := os.WriteFile(position, bytes.Repeat([]byte("garbage"), 500_000), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"stdout F a", "stdout F b", "stdout F shed", "stdout F c"}},
		"all segments are gone": {func(b []byte) int { return len(b) }, func(t *testing.T, _, position string) {
			segments, err := filepath.Glob(filepath.Dir(position) + "/0*")
			if err != nil || len(segments) != 2 {
				t.Fatal(segments, err)
			}
			for _, name := range segments {
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
		}, []string{"stdout F a", "stdout F b", "stdout F unfinished", "stdout F c"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, path := t.TempDir(), filepath.Join(t.TempDir(), "web.log")
			killedWhile(t, dir, path, c.written)
			if c.meddle != nil {
				c.meddle(t, path, filepath.Join(dir, "web", "position"))
			}
			want := c.want
			if want == nil {
				want = []string{"stdout F a", "stdout F b", "stdout F unfinished", "stdout F c"}
			}
			f := open(t, Options{Dir: dir})
			f.setFile("web", FileOptions{Path: path})
			w := f.add("web", 1, Stdout)
			f.write(w, "shed\nc\n")
			f.end(w)
			f.expectFile(path, want...)
			f.Close()
			f = open(t, Options{Dir: dir})
			f.setFile("web", FileOptions{Path: path})
			f.expectFile(path, want...)
		})
	}
}

// Any position file does no harm.
func FuzzPosition(f *testing.F) {
	lines := map[streamKey]*begun{{9, Stderr}: {5, []byte("text")}, {10, Stdout}: {6, nil}}
	m := mark{Seq: 2, Segment: 1, Records: 1, Offset: 2, Length: 3, Stated: loss{1, 1}}
	f.Add(m.encode(nil, lines)[headerSize:], m.encode(nil, nil)[headerSize:])
	f.Add([]byte("short"), []byte{})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		if len(one) > 1<<16 || len(two) > 1<<16 {
			return
		}
		var slots [2][]byte
		sound := false
		for i, body := range [][]byte{one, two} {
			slots[i] = seal(append(make([]byte, headerSize), body...))
			var m, again mark
			if lines, ok := m.decode(slots[i]); ok {
				sound = true
				if got, ok := again.decode(m.encode(nil, lines)); !ok || again != m || !reflect.DeepEqual(got, lines) {
					t.Fatalf("%+v became %+v", m, again)
				}
			}
		}
		if !sound {
			return // TestLogFileRecovery has one of those
		}
		dir := lay(t, map[string][]byte{"00000001.log": []byte("a\nb"), "00000001.idx": index(record{run: 9})})
		position, err := os.Create(filepath.Join(dir, "web", "position"))
		if err != nil {
			t.Fatal(err)
		}
		for i, sealed := range [][]byte{slots[0], slots[1], slots[0]} {
			if _, err := position.WriteAt(sealed, int64(i)*slotSize); err != nil {
				t.Fatal(err)
			}
		}
		position.Close()
		path := filepath.Join(t.TempDir(), "web.log")
		c := open(t, Options{Dir: dir})
		c.setFile("web", FileOptions{Path: path})
		w := c.add("web", 1<<63, Stdout)
		c.write(w, "new\n")
		c.end(w)
		c.Flush(time.Minute)
		n := 0
		for _, l := range readLog(t, path) {
			if l.text == "new" && l.tag == "F" {
				n++
			}
		}
		if n > 1 {
			t.Fatalf("a new line is there %d times", n)
		}
	})
}
