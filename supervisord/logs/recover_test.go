package logs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// index encodes records: offset, run and flags of each.
func index(records ...record) []byte {
	var all []byte
	for i, r := range records {
		var b [recordSize]byte
		r.time = int64(i + 1)
		r.encode(&b)
		all = append(all, b[:]...)
	}
	return all
}

// lay makes the folder of service web with these files.
func lay(t testing.TB, files map[string][]byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "web"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, "web", name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Whatever an interrupted process has left, the next one goes on with it.
func TestRecovery(t *testing.T) {
	first := record{run: 9}
	at := func(offset int64) record { return record{offset: offset, run: 9} }
	beyond := at(1000)
	for name, c := range map[string]struct {
		files map[string][]byte
		kept  string // before "new" is written
	}{
		"nothing": {nil, ""},
		"whole": {map[string][]byte{
			"00000001.log": []byte("a\nb\n"), "00000001.idx": index(first, at(2)),
		}, "a b"},
		"killed before the bytes were moved": {map[string][]byte{
			"00000001.log": []byte("a\n"), "00000001.idx": index(first, at(2), at(2), at(2)),
		}, "a"},
		"killed before the first bytes were moved": {map[string][]byte{
			"00000001.log": nil, "00000001.idx": index(first),
		}, ""},
		"half a record": {map[string][]byte{
			"00000001.log": []byte("a\n"), "00000001.idx": append(index(first), 1, 2, 3),
		}, "a"},
		"an unfinished line": {map[string][]byte{
			"00000001.log": []byte("a\nit is "), "00000001.idx": index(first),
		}, "a it is +"},
		"only the data of a new segment": {map[string][]byte{
			"00000001.log": []byte("a\n"), "00000001.idx": index(first), "00000002.log": nil,
		}, "a"},
		"only the index of a new segment": {map[string][]byte{
			"00000001.log": []byte("a\n"), "00000001.idx": index(first), "00000002.idx": nil,
		}, "a"},
		"half deleted": {map[string][]byte{
			"00000001.idx": index(first), "00000002.log": []byte("b\n"), "00000002.idx": index(first),
		}, "b"},
		"a line without its beginning": {map[string][]byte{
			"00000007.log": []byte("cut\nwhole\n"), "00000007.idx": index(record{run: 9, flags: flagMid}),
		}, "whole"},
		"data without an index": {map[string][]byte{"00000001.log": []byte("whose\n")}, ""},
		"data cut off": {map[string][]byte{
			"00000001.log": []byte("a\n"), "00000001.idx": index(first, beyond),
		}, "a"},
		"garbage in the index": {map[string][]byte{
			"00000001.log": []byte("a\n"), "00000001.idx": bytes.Repeat([]byte("garbage"), 100),
		}, ""},
		"a hole in the chain": {map[string][]byte{
			"00000001.log": []byte("a\nb"), "00000001.idx": index(first),
			"00000005.log": []byte("c\n"), "00000005.idx": index(first),
		}, "a c"},
		"strange files": {map[string][]byte{
			"00000001.log": []byte("a\n"), "00000001.idx": index(first),
			"notes": nil, "1.log": nil, "00000002.log.gz": nil, "99999999999.log": nil, "00000000.log": nil,
		}, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			text := func(lines []string) string {
				for i := range lines {
					lines[i] = strings.TrimPrefix(lines[i], "web/9/stdout ")
				}
				return strings.Join(lines, " ")
			}
			dir := lay(t, c.files)
			f := open(t, Options{Dir: dir})
			if got := text(f.tail(all)); got != c.kept {
				t.Errorf("found %q, want %q", got, c.kept)
			}
			w := f.add("web", 9, Stdout)
			f.write(w, "new\n")
			f.end(w)
			want := strings.TrimSpace(strings.TrimSuffix(c.kept, "+") + "new")
			if !strings.HasSuffix(c.kept, "+") {
				want = strings.TrimSpace(c.kept + " new")
			}
			for range 2 {
				if got := text(f.tail(all)); got != want {
					t.Errorf("after one more line %q, want %q", got, want)
				}
				f.Close()
				f = open(t, Options{Dir: dir})
			}
			for name := range c.files {
				if _, err := os.Stat(filepath.Join(dir, "web", name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// The end of a stream is kept: its last line is no longer unfinished, and a
// silent run leaves nothing.
func TestEndIsKept(t *testing.T) {
	f := open(t, Options{})
	w := f.add("web", 1, Stdout)
	f.write(w, "no newline")
	f.end(w)
	f.end(f.add("silent", 2, Stderr))
	dir := f.options.Dir
	f.Close()
	f = open(t, Options{Dir: dir})
	f.expect(all, "web/1/stdout no newline")
	if names, _ := files(t, dir); !slices.Equal(names, []string{"web/00000001.idx", "web/00000001.log"}) {
		t.Errorf("files %q", names)
	}
}

// Any bytes in the files of a service are read without harm, and it goes on.
func FuzzFiles(f *testing.F) {
	f.Add([]byte("a\nb\n"), index(record{run: 9}, record{offset: 2, run: 9, flags: flagStderr}), 1)
	f.Add([]byte("a\nb"), index(record{run: 9}, record{offset: 9, run: 9}, record{offset: 1, flags: flagEnd | flagGap, lost: 7}), 2)
	f.Add(bytes.Repeat([]byte("x"), 2*MaxLine+5), index(record{run: 9, flags: flagMid}, record{offset: MaxLine, flags: flagMid}), 3)
	f.Add([]byte("data"), []byte("short"), 4)
	f.Fuzz(func(t *testing.T, data, idx []byte, lines int) {
		dir := lay(t, map[string][]byte{
			"00000001.log": data, "00000001.idx": idx,
			"00000002.log": data[len(data)/2:], "00000002.idx": idx[len(idx)/2:],
		})
		c := open(t, Options{Dir: dir})
		for _, q := range []Query{all, {Lines: lines}, {Lines: lines, Streams: []Stream{Stderr}}} {
			n, size := 0, 0
			if err := c.Tail(q, func(l Line) error {
				if l.Missed == 0 {
					n++
					size += len(l.Text)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if size > 2*len(data) || lines >= 0 && q.Lines == lines && n > lines {
				t.Fatalf("%d lines of %d bytes, of %d bytes", n, size, len(data))
			}
		}
		run := uint64(1 << 63)
		for bytes.Contains(idx, binary.LittleEndian.AppendUint64(nil, run)) {
			run++ // of that one a line may be unfinished
		}
		w := c.add("web", run, Stdout)
		c.write(w, "new\n")
		c.end(w)
		found := 0
		c.Tail(all, func(l Line) error {
			if l.Run == run && string(l.Text) == "new" && !l.Partial {
				found++
			}
			return nil
		})
		if found != 1 {
			t.Fatal(fmt.Errorf("a new line was found %d times", found))
		}
	})
}
