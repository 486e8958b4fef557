package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A directory that is missing for a while: the ring goes on, nothing is lost
// from it or from the file, and it is said once.
func TestLogFileReopen(t *testing.T) {
	f := open(t, Options{})
	path := filepath.Join(t.TempDir(), "dir", "web.log")
	f.setFile("web", FileOptions{Path: path})
	w := f.add("web", 1, Stdout)
	for i := range 3 {
		f.write(w, fmt.Sprintf("%d\n", i))
		f.Drain(1)
		f.Flush(time.Minute)
	}
	f.expect(all, "web/1/stdout 0", "web/1/stdout 1", "web/1/stdout 2")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	f.Reopen()
	f.expectFile(path, "stdout F 0", "stdout F 1", "stdout F 2")
	f.Close()
	if log := f.log.String(); strings.Count(log, "\n") != 2 || strings.Count(log, "its directory does not exist") != 1 || !strings.Contains(log, "written again") {
		t.Errorf("logged: %s", log)
	}
}

// A file that cannot keep up says how much is missing, to the byte.
func TestLogFileSaysWhatIsMissing(t *testing.T) {
	smallSegments(t)
	f := open(t, Options{PerService: 256 << 10})
	dir := f.options.Dir
	path := filepath.Join(t.TempDir(), "dir", "web.log")
	f.setFile("web", FileOptions{Path: path})
	out, err := f.add("web", 1, Stdout), f.add("web", 1, Stderr)
	const many = 100_000
	total := 0
	flood := func(from int) {
		var text [2]strings.Builder
		for i := range many {
			fmt.Fprintf(&text[i%2], "line %d of the flood\n", from+i)
		}
		total += text[0].Len() + text[1].Len()
		for a, b := text[0].String(), text[1].String(); len(a)+len(b) > 0; {
			n, m := min(len(a), 10_001), min(len(b), 7_777)
			f.write(out, a[:n])
			f.Drain(1)
			f.write(err, b[:m])
			f.Drain(1)
			a, b = a[n:], b[m:]
		}
	}
	// Some of it is lost before a crash, some after it.
	flood(0)
	f.Flush(time.Minute)
	f.Close()
	f = open(t, Options{Dir: dir, PerService: 256 << 10})
	f.setFile("web", FileOptions{Path: path})
	out, err = f.add("web", 2, Stdout), f.add("web", 2, Stderr)
	flood(many)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	f.Reopen()
	f.Flush(time.Minute)
	f.write(out, "end\n")
	total += 4
	f.Drain(1)
	f.end(out)
	f.end(err)
	f.Flush(time.Minute)

	got, missing, missingLines, notices := 0, 0, 0, 0
	lines := readLog(t, path)
	for _, l := range lines {
		var bytes, n int
		if k, _ := fmt.Sscanf(l.text, "zinit: %d bytes (%d lines) are missing", &bytes, &n); k == 2 && l.stream == "stderr" {
			missing += bytes
			missingLines += n
			notices++
			continue
		}
		got += len(l.text) + 1
	}
	if missing == 0 || got+missing != total || len(lines)-notices+missingLines != 2*many+1 {
		t.Errorf("%d bytes of %d are there, %d missing; %d lines of %d, %d missing", got, total, missing, len(lines)-notices, 2*many+1, missingLines)
	}
	if last := lines[len(lines)-1]; last.text != "end" {
		t.Errorf("the last line is %s", last)
	}
	t.Logf("%d bytes are missing, said in %d lines", missing, notices)
}

// With Block a service waits for its file, and goes on when it can.
func TestLogFileBlocks(t *testing.T) {
	smallSegments(t)
	f := open(t, Options{PerService: 1 << 20, Memory: 1 << 20})
	path := filepath.Join(t.TempDir(), "dir", "web.log")
	f.setFile("web", FileOptions{Path: path, Block: true})
	f.Configure("web", 10)
	w := f.add("web", 1, Stdout)
	waits := func() (yes bool) {
		f.do(func() { yes = f.services["web"].waiting })
		return yes
	}
	fd := int(w.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	n := 0
	var rest []byte
	// put writes lines until the pipe is full.
	put := func() {
		for {
			if len(rest) == 0 {
				rest = fmt.Appendf(nil, "line %d\n", n)
				n++
			}
			m, err := unix.Write(fd, rest)
			if err == unix.EAGAIN {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[m:]
		}
	}
	for !waits() {
		put()
	}
	put()
	// Another service is not held up, and its lines drop nothing of this one.
	chatty := f.add("chatty", 2, Stdout)
	f.write(chatty, strings.Repeat("nobody waits for this line\n", 100_000))
	f.end(chatty)
	stuck := n
	put()
	if n != stuck || !waits() {
		t.Errorf("the service did not wait: %d lines, then %d", stuck, n)
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	f.Reopen()
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	f.write(w, string(rest))
	for range 10_000 {
		f.write(w, fmt.Sprintf("line %d\n", n))
		n++
	}
	f.end(w)
	f.Flush(time.Minute)
	lines := readLog(t, path)
	for i, l := range lines {
		if l.text != fmt.Sprintf("line %d", i) {
			t.Fatalf("line %d is %s", i, l)
		}
	}
	if len(lines) != n || n < 50_000 {
		t.Errorf("%d lines in the file, %d were written", len(lines), n)
	}

	// One that waits and is to wait no more goes on as well.
	f.setFile("web", FileOptions{Path: filepath.Dir(path) + "/no/such.log", Block: true})
	w = f.add("web", 3, Stdout)
	f.write(w, "x\n")
	f.Drain(3)
	f.Flush(time.Minute)
	fd = int(w.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for !waits() {
		put()
	}
	f.setFile("web", FileOptions{Path: filepath.Dir(path) + "/no/such.log"})
	f.end(w)
}

// A full disk: what is written is whole lines, and the rest comes when there
// is room again.
func TestLogFileFullDisk(t *testing.T) {
	cmd := helper(t, "filenospace "+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		if !userNamespaces() {
			cmd = helper(t, "filenogrow "+t.TempDir())
		}
	}
	run(t, cmd)
}

func TestLogFileSizeLimit(t *testing.T) { run(t, helper(t, "filenogrow "+t.TempDir())) }

// helperFileNoSpace fills a tmpfs of 64 KiB with a log file.
func helperFileNoSpace(args []string) {
	disk := filepath.Join(args[0], "disk")
	must(os.Mkdir(disk, 0o755))
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(unix.Mount("zinit-test", disk, "tmpfs", 0, "size=64k"))
	fillUp(args[0], filepath.Join(disk, "web.log"), func() { must(unix.Mount("", disk, "", unix.MS_REMOUNT, "size=8m")) })
}

// helperFileNoGrow lets no file grow beyond 64 KiB.
func helperFileNoGrow(args []string) {
	var old unix.Rlimit
	must(unix.Getrlimit(unix.RLIMIT_FSIZE, &old))
	limit := func(n uint64) {
		must(unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: min(n, old.Max), Max: old.Max}))
	}
	fillUp(args[0], filepath.Join(args[0], "web.log"), func() { limit(old.Max) }, func() { limit(64 << 10) })
}

// fillUp writes more than there is room for; enough makes room.
func fillUp(dir, path string, enough func(), first ...func()) {
	w := newWorld(filepath.Join(dir, "logs"))
	must(w.SetFile("web", FileOptions{Path: path}))
	for _, f := range first {
		f()
	}
	w.add("web", 1)
	const lines = 5000
	for i := range 5 {
		w.lines("web", i*lines/5, (i+1)*lines/5)
		w.Drain(1)
		w.Flush(time.Minute)
	}
	check := func() int {
		data, err := os.ReadFile(path)
		must(err)
		got, err := parseCRI(data)
		must(err)
		for i, l := range got {
			if l.text != fmt.Sprintf("web %d", i) {
				must(fmt.Errorf("line %d is %s", i, l))
			}
		}
		return len(got)
	}
	if n := check(); n < 500 || n == lines {
		must(fmt.Errorf("%d lines of %d fit", n, lines))
	}
	enough()
	w.Reopen()
	w.Flush(time.Minute)
	if n := check(); n != lines {
		must(fmt.Errorf("%d lines of %d are there at last", n, lines))
	}
	w.Close()
	if n := strings.Count(w.log.String(), "\n"); n != 2 {
		must(fmt.Errorf("%d lines in the log: %s", n, &w.log))
	}
}
