package logs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// criLine is a line of a log file.
type criLine struct {
	at     time.Time
	stream string
	tag    string
	text   string
}

func (l criLine) String() string { return l.stream + " " + l.tag + " " + l.text }

// parseCRI is what a log shipper does.
func parseCRI(data []byte) (lines []criLine, err error) {
	if len(data) > 0 && data[len(data)-1] != '\n' {
		return nil, fmt.Errorf("it does not end with a line: %q", data[max(0, len(data)-100):])
	}
	for row := range bytes.Lines(data) {
		fields := strings.SplitN(strings.TrimSuffix(string(row), "\n"), " ", 4)
		if len(fields) != 4 || fields[1] != "stdout" && fields[1] != "stderr" || fields[2] != "F" && fields[2] != "P" {
			return nil, fmt.Errorf("not a line of the CRI format: %.200q", row)
		}
		at, err := time.Parse(time.RFC3339Nano, fields[0])
		if err != nil || len(fields[0]) != len("2026-11-22T18:24:00.123456789Z") {
			return nil, fmt.Errorf("not a time: %q", fields[0])
		}
		lines = append(lines, criLine{at, fields[1], fields[2], fields[3]})
	}
	return lines, nil
}

// rotated returns the names of a log file and what it was before, oldest first.
func rotated(path string) (names []string) {
	names = []string{path}
	for i := 1; ; i++ {
		name := path + "." + strconv.Itoa(i)
		if _, err := os.Stat(name); err != nil {
			break
		}
		names = append(names, name)
	}
	slices.Reverse(names)
	return names
}

// readLog reads a log file with all that was rotated.
func readLog(t testing.TB, path string) (lines []criLine) {
	t.Helper()
	for _, name := range rotated(path) {
		data, err := os.ReadFile(name)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		more, err := parseCRI(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		lines = append(lines, more...)
	}
	return lines
}

func (f *fixture) setFile(service string, o FileOptions) {
	f.t.Helper()
	if err := f.SetFile(service, o); err != nil {
		f.t.Fatal(err)
	}
}

// expectFile compares the log file with lines such as "stdout F text".
func (f *fixture) expectFile(path string, want ...string) {
	f.t.Helper()
	f.Flush(time.Minute)
	var got []string
	for _, l := range readLog(f.t, path) {
		got = append(got, l.String())
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("%s has %.1000q\nwant %.1000q", filepath.Base(path), got, want)
	}
}

func TestLogFile(t *testing.T) {
	f := open(t, Options{})
	path := filepath.Join(t.TempDir(), "web.log")
	f.setFile("web", FileOptions{Path: path})
	before := time.Now().Add(-time.Millisecond)
	out, err := f.add("web", 1, Stdout), f.add("web", 1, Stderr)
	f.write(out, "one\n\ntwo\r\nhal")
	f.Drain(1)
	f.write(err, "oops\n")
	f.Drain(1)
	f.write(out, "f\nlast")
	f.Drain(1)
	f.expectFile(path, "stdout F one", "stdout F ", "stdout F two\r", "stderr F oops", "stdout F half")
	f.end(out)
	f.expectFile(path, "stdout F one", "stdout F ", "stdout F two\r", "stderr F oops", "stdout F half", "stdout F last")
	for _, l := range readLog(t, path) {
		if l.at.Before(before) || l.at.After(time.Now()) {
			t.Errorf("line %s has time %v", l, l.at)
		}
	}
	info, e := os.Stat(path)
	if e != nil || info.Mode() != 0o640 {
		t.Errorf("the file has mode %v, %v", info.Mode(), e)
	}
	if f.log.Len() > 0 {
		t.Errorf("logged: %s", &f.log)
	}
}

func TestLogFileSplitsLongLines(t *testing.T) {
	f := open(t, Options{})
	path := filepath.Join(t.TempDir(), "web.log")
	f.setFile("web", FileOptions{Path: path})
	w := f.add("web", 1, Stdout)
	long := strings.Repeat("0123456789", 20_000)
	f.write(w, long+"\n"+long[:MaxLine]+"\n")
	f.end(w)
	f.expectFile(path,
		"stdout P "+long[:MaxLine], "stdout P "+long[MaxLine:2*MaxLine], "stdout P "+long[2*MaxLine:3*MaxLine], "stdout F "+long[3*MaxLine:],
		"stdout F "+long[:MaxLine])
}

// More unfinished lines than are kept in memory are written in pieces.
func TestLogFileOfManyUnfinishedLines(t *testing.T) {
	f := open(t, Options{})
	path := filepath.Join(t.TempDir(), "web.log")
	f.setFile("web", FileOptions{Path: path})
	part := strings.Repeat("x", MaxLine-1)
	const runs = 2 * maxUnfinished / MaxLine
	for i := range uint64(runs) {
		f.write(f.add("web", i+1, Stdout), part)
		f.Drain(i + 1)
	}
	f.Flush(time.Minute)
	// A line that was read in the middle of its write is in two pieces.
	written := 0
	for _, l := range readLog(t, path) {
		if l.tag != "P" || l.text == "" || strings.Trim(l.text, "x") != "" {
			t.Fatalf("line is %.80s", l)
		}
		written += len(l.text)
	}
	if all := runs * len(part); written < all-maxUnfinished || written >= all {
		t.Errorf("%d of %d bytes of unfinished lines are written, at most %d may be kept", written, all, maxUnfinished)
	}
}

// What is wanted only by the log file is not kept.
func TestLogFileWithoutRing(t *testing.T) {
	smallSegments(t)
	f := open(t, Options{})
	path := filepath.Join(t.TempDir(), "web.log")
	f.setFile("web", FileOptions{Path: path})
	f.Configure("web", 0)
	w := f.add("web", 1, Stdout)
	const lines = 40_000
	for i := range lines {
		f.write(w, fmt.Sprintf("line %d\n", i))
		if i%1000 == 0 {
			f.Drain(1)
			f.Flush(time.Minute)
		}
	}
	f.end(w)
	f.expect(all)
	f.Flush(time.Minute)
	if n := len(readLog(t, path)); n != lines {
		t.Errorf("%d of %d lines", n, lines)
	}
	if _, size := files(t, filepath.Join(f.options.Dir, "web")); size > 3*maxSegment+lostAt {
		t.Errorf("%d bytes are kept", size)
	}
	f.setFile("web", FileOptions{})
	if names, _ := files(t, f.options.Dir); len(names) > 0 {
		t.Errorf("left: %q", names)
	}
}

// A file that is rotated all the time has every line once, in order.
func TestRotationUnderFire(t *testing.T) {
	smallSegments(t)
	f := open(t, Options{PerService: 1 << 20})
	path := filepath.Join(t.TempDir(), "web.log")
	const limit, lines = 8 << 10, 30_000
	f.setFile("web", FileOptions{Path: path, MaxSize: limit, MaxFiles: 100_000, Block: true})
	var writers [2]*os.File
	for i := range writers {
		writers[i] = f.add("web", 1, Stream(i))
		go func() {
			for n := range lines {
				fmt.Fprintf(writers[i], "line %d\n", n)
			}
			writers[i].Close()
		}()
	}
	<-f.eof
	<-f.eof
	f.Flush(time.Minute)
	expectCounted(t, readLog(t, path), lines)
	names := rotated(path)
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.Size() > limit {
			t.Errorf("%s: %v, %d bytes", name, err, info.Size())
		}
	}
	if len(names) < 2*lines*40/limit {
		t.Errorf("only %d files", len(names))
	}
}

// expectCounted checks that each stream is "line 0" and so on; lines < 0 = as
// many as there are, the same of both.
func expectCounted(t testing.TB, got []criLine, lines int) {
	t.Helper()
	next := map[string]int{}
	for _, l := range got {
		if want := fmt.Sprintf("line %d", next[l.stream]); l.text != want || l.tag != "F" {
			t.Fatalf("got %s, want %q", l, want)
		}
		next[l.stream]++
	}
	if lines < 0 {
		lines = next["stdout"]
	}
	if lines == 0 || next["stdout"] != lines || next["stderr"] != lines {
		t.Errorf("%v lines, want %d of each", next, lines)
	}
}

func TestRotationKeepsSoMany(t *testing.T) {
	f := open(t, Options{})
	dir := t.TempDir()
	path := filepath.Join(dir, "web.log")
	w := f.add("web", 1, Stdout)
	line := 0
	rotate := func(keep, lines int) {
		f.setFile("web", FileOptions{Path: path, MaxSize: 60, MaxFiles: keep})
		for range lines {
			f.write(w, fmt.Sprintf("%d\n", line))
			f.Drain(1)
			line++
		}
		f.Flush(time.Minute)
	}
	expect := func(want ...string) {
		t.Helper()
		var got []string
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			data, _ := os.ReadFile(filepath.Join(dir, e.Name()))
			lines, err := parseCRI(data)
			if err != nil || len(lines) != 1 {
				t.Fatalf("%s: %v, %q", e.Name(), err, data)
			}
			got = append(got, e.Name()+"="+lines[0].text)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	rotate(3, 6)
	expect("web.log=5", "web.log.1=4", "web.log.2=3", "web.log.3=2")
	if err := os.Chmod(path, 0o604); err != nil {
		t.Fatal(err)
	}
	rotate(1, 1)
	expect("web.log=6", "web.log.1=5")
	rotate(0, 1)
	expect("web.log=7")
	rotate(2, 2)
	expect("web.log=9", "web.log.1=8", "web.log.2=7")
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o604 {
		t.Errorf("the mode was not kept: %v, %v", info.Mode(), err)
	}
}

func TestShiftGoesOnAfterKill(t *testing.T) {
	for name, c := range map[string]struct {
		files string
		keep  int
		want  string
	}{
		"first":                  {"f", 3, "f.1=f"},
		"some":                   {"f f.1", 3, "f.1=f f.2=f.1"},
		"all":                    {"f f.1 f.2 f.3", 3, "f.1=f f.2=f.1 f.3=f.2"},
		"killed after the third": {"f f.1 f.2 f.4", 4, "f.1=f f.2=f.1 f.3=f.2 f.4=f.4"},
		"killed after the first": {"f f.2 f.3 f.4", 4, "f.1=f f.2=f.2 f.3=f.3 f.4=f.4"},
		"fewer than before":      {"f f.1 f.2 f.3 f.4", 2, "f.1=f f.2=f.1"},
		"no file":                {"f.1", 2, "f.2=f.1"},
		"none kept":              {"f f.1", 0, ""},
	} {
		dir := t.TempDir()
		for _, file := range strings.Fields(c.files) {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := shift(filepath.Join(dir, "f"), c.keep); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		names, _ := files(t, dir)
		for _, file := range names {
			data, _ := os.ReadFile(filepath.Join(dir, file))
			got = append(got, file+"="+string(data))
		}
		slices.Sort(got)
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", name, s, c.want)
		}
	}
}

// logrotate and administrators move files, empty them and remove them.
func TestLogFileMovedByOthers(t *testing.T) {
	f := open(t, Options{})
	path := filepath.Join(t.TempDir(), "web.log")
	f.setFile("web", FileOptions{Path: path})
	w := f.add("web", 1, Stdout)
	line := func(text string) {
		f.write(w, text+"\n")
		f.Drain(1)
		f.Flush(time.Minute)
	}
	line("one")
	if err := os.Rename(path, path+"-old"); err != nil {
		t.Fatal(err)
	}
	line("two")
	f.expectFile(path, "stdout F two")
	f.expectFile(path+"-old", "stdout F one")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	line("three")
	f.expectFile(path, "stdout F three")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	line("four")
	f.expectFile(path, "stdout F four")

	other := filepath.Join(t.TempDir(), "other.log")
	f.setFile("web", FileOptions{Path: other})
	line("five")
	f.expectFile(path, "stdout F four")
	f.expectFile(other, "stdout F five")
	f.setFile("web", FileOptions{})
	line("six")
	f.setFile("web", FileOptions{Path: path})
	line("seven")
	f.expectFile(path, "stdout F four", "stdout F seven")
	f.Remove("web")
	f.expectFile(path, "stdout F four", "stdout F seven")
}

// A file that is moved while it is written fast loses nothing either.
func TestLogFileMovedUnderFire(t *testing.T) {
	f := open(t, Options{})
	dir := t.TempDir()
	path := filepath.Join(dir, "web.log")
	f.setFile("web", FileOptions{Path: path, Block: true})
	const lines = 60_000
	var writers [2]*os.File
	for i := range writers {
		writers[i] = f.add("web", 1, Stream(i))
		go func() {
			var b []byte
			for n := range lines {
				if b = fmt.Appendf(b, "line %d\n", n); len(b) > 4000 || n == lines-1 {
					writers[i].Write(b)
					b = b[:0]
				}
			}
			writers[i].Close()
		}()
	}
	var moved []string
	for ends := 0; ends < 2; {
		select {
		case <-f.eof:
			ends++
		default:
			name := fmt.Sprintf("%s/moved-%d", dir, len(moved))
			if os.Rename(path, name) == nil {
				moved = append(moved, name)
			}
		}
	}
	f.Flush(time.Minute)
	var got []criLine
	for _, name := range append(moved, path) {
		got = append(got, readLog(t, name)...)
	}
	expectCounted(t, got, lines)
	t.Logf("moved %d times", len(moved))
}

func TestLogFileIsNoRegularFile(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "target"), link); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/dev/null": "not a regular file", link: "a symbolic link", fifo: "not a regular file", dir: "is a directory",
		dir + "/missing/log": "its directory does not exist",
	} {
		f := open(t, Options{})
		f.setFile("web", FileOptions{Path: path, MaxSize: 1, MaxFiles: 1})
		w := f.add("web", 1, Stdout)
		f.write(w, "text\n")
		f.end(w)
		f.Flush(time.Minute)
		f.Flush(time.Minute)
		f.expect(all, "web/1/stdout text")
		f.Close()
		if log := f.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, want) || !strings.Contains(log, path) {
			t.Errorf("%s: logged %q, want %q", path, log, want)
		}
	}
	if names, _ := files(t, dir); len(names) != 2 {
		t.Errorf("left: %q", names)
	}
}

// Two services swap their files, one after the other: nothing is lost. Of two
// with the same file one has it.
func TestLogFileOfAnotherService(t *testing.T) {
	f := open(t, Options{})
	one, two := filepath.Join(t.TempDir(), "one.log"), filepath.Join(t.TempDir(), "two.log")
	pipes := map[string]*os.File{"a": f.add("a", 1, Stdout), "b": f.add("b", 2, Stdout)}
	line := func(service, text string) {
		f.write(pipes[service], text+"\n")
		f.Drain(1)
		f.Drain(2)
		f.Flush(time.Minute)
	}
	f.setFile("a", FileOptions{Path: one, Block: true})
	f.setFile("b", FileOptions{Path: two})
	line("a", "a1")
	line("b", "b1")
	f.setFile("a", FileOptions{Path: two, Block: true})
	line("a", "a2")
	line("b", "b2")
	f.setFile("b", FileOptions{Path: one})
	line("b", "b3")
	f.expectFile(one, "stdout F a1", "stdout F b2", "stdout F b3")
	f.expectFile(two, "stdout F b1", "stdout F a2")
	f.Close()
	if log := f.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "no longer that of another service") {
		t.Errorf("logged: %s", log)
	}
}

// FileTrouble tells why a file is not written for as long as it is not.
func TestLogFileTrouble(t *testing.T) {
	f := open(t, Options{})
	path := filepath.Join(t.TempDir(), "dir", "web.log")
	f.setFile("web", FileOptions{Path: path})
	w := f.add("web", 1, Stdout)
	expect := func(want string) {
		t.Helper()
		f.Drain(1)
		f.Flush(time.Minute)
		if got := f.FileTrouble("web"); got != want {
			t.Errorf("the trouble is %q, want %q", got, want)
		}
	}
	missing := "its log file cannot be written: cannot open " + path + ": its directory does not exist"
	expect("")
	f.write(w, "text\n")
	expect(missing)
	f.write(w, "more\n")
	expect(missing)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	expect("")
	f.expectFile(path, "stdout F text", "stdout F more")
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	f.write(w, "text\n")
	expect(missing)
	if err := f.SetFile("web", FileOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("")
	f.Close()
}

// So it does where there is no room for the position of the file.
func TestLogFileWithoutPosition(t *testing.T) {
	f := open(t, Options{})
	if err := os.MkdirAll(filepath.Join(f.options.Dir, "web", "position"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.SetFile("web", FileOptions{Path: filepath.Join(t.TempDir(), "web.log")}); err == nil {
		t.Fatal("the file is written without a position")
	}
	if got := f.FileTrouble("web"); !strings.Contains(got, "its log file cannot be written: cannot open its position") {
		t.Errorf("the trouble is %q", got)
	}
	f.Close()
}
