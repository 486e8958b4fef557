package logs

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Disks are filled in mount namespaces, which only Linux has.
func init() {
	helpers["nospace"], helpers["nogrow"], helpers["nofiles"] = helperNoSpace, helperNoGrow, helperNoFiles
	helpers["filenospace"], helpers["filenogrow"] = helperFileNoSpace, helperFileNoGrow
}

// world is a Capture in a helper process, where limits can be set.
type world struct {
	*Capture
	log   bytes.Buffer
	write map[string]*os.File
}

func newWorld(dir string) *world {
	w := &world{write: map[string]*os.File{}}
	c, err := Open(Options{Dir: dir, Logger: slog.New(slog.NewTextHandler(&w.log, nil))})
	must(err)
	w.Capture = c
	return w
}

func (w *world) add(service string, run uint64) {
	var p [2]int
	must(unix.Pipe2(p[:], unix.O_CLOEXEC))
	must(w.Add(service, run, Stdout, p[0]))
	w.write[service] = os.NewFile(uintptr(p[1]), service)
}

// lines writes lines from..to-1 of a service; it never waits for long, since
// a service is never held up.
func (w *world) lines(service string, from, to int) {
	var b []byte
	for i := from; i < to; i++ {
		b = fmt.Appendf(b, "%s %d\n", service, i)
	}
	_, err := w.write[service].Write(b)
	must(err)
}

func (w *world) tail(service string) (text []string) {
	must(w.Tail(Query{Lines: -1, Services: []string{service}}, func(l Line) error {
		if l.Missed > 0 {
			text = append(text, fmt.Sprintf("missed %d", l.Missed))
		} else {
			text = append(text, string(l.Text))
		}
		return nil
	}))
	return text
}

func (w *world) expect(service string, want ...string) {
	if got := w.tail(service); strings.Join(got, "|") != strings.Join(want, "|") {
		if len(got) > 20 {
			got = append(got[:20], "…")
		}
		must(fmt.Errorf("got %q, want %q", got, want))
	}
}

func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Run(); err != nil {
		t.Errorf("%v: see above", err)
	}
}

// A disk of 1 MiB: old lines make room for new ones, and where a stranger has
// taken all of it, lines are counted instead until he gives it back.
func TestFullDisk(t *testing.T) {
	cmd := helper(t, "nospace "+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if os.Geteuid() != 0 && !userNamespaces() {
		t.Skip("needs root or user namespaces; TestFileSizeLimit is about the same without")
	}
	run(t, cmd)
}

func userNamespaces() bool { return exec.Command("unshare", "-Ur", "true").Run() == nil }

func helperNoSpace(args []string) {
	dir := args[0]
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(unix.Mount("zinit-test", dir, "tmpfs", 0, "size=1m"))
	maxSegment = 64 << 10
	w := newWorld(filepath.Join(dir, "logs"))
	w.add("old", 1)
	w.add("web", 2)
	w.lines("old", 0, 3)
	w.Drain(1)
	w.expect("old", "old 0", "old 1", "old 2")
	const many = 400_000
	w.lines("web", 0, many)
	w.Drain(2)
	got := w.tail("web")
	if len(got) < 10_000 || got[len(got)-1] != fmt.Sprintf("web %d", many-1) || got[0] != fmt.Sprintf("web %d", many-len(got)) {
		must(fmt.Errorf("%d lines are kept of the newest, up to %q", len(got), got[len(got)-1]))
	}

	w.Remove("web")
	w.Remove("old")
	stranger, err := os.Create(filepath.Join(dir, "stranger"))
	must(err)
	for chunk := make([]byte, 4096); err == nil; {
		_, err = stranger.Write(chunk)
	}
	w.add("db", 3)
	w.lines("db", 0, 70)
	w.Drain(3)
	w.expect("db")
	must(os.Remove(stranger.Name()))
	must(stranger.Close())
	w.lines("db", 70, 72)
	w.Drain(3)
	w.expect("db", "missed 70", "db 70", "db 71")
	if n := strings.Count(w.log.String(), "\n"); n != 1 {
		must(fmt.Errorf("%d lines in the log: %s", n, &w.log))
	}
	w.Close()
}

// Files that may not grow (RLIMIT_FSIZE): a segment ends where it must, and
// where nothing can be written at all, lines are counted.
func TestFileSizeLimit(t *testing.T) {
	run(t, helper(t, "nogrow "+t.TempDir()))
}

func helperNoGrow(args []string) {
	w := newWorld(args[0])
	limit := func(n uint64) {
		var old unix.Rlimit
		must(unix.Getrlimit(unix.RLIMIT_FSIZE, &old))
		must(unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: min(n, old.Max), Max: old.Max}))
	}
	w.add("web", 1)
	limit(32 << 10)
	const many = 20_000
	w.lines("web", 0, many)
	w.Drain(1)
	got := w.tail("web")
	for i, text := range got {
		if want := fmt.Sprintf("web %d", i); text != want {
			must(fmt.Errorf("got %q, want %q", text, want))
		}
	}
	if len(got) != many {
		must(fmt.Errorf("%d lines of %d are kept", len(got), many))
	}
	if w.log.Len() > 0 {
		must(fmt.Errorf("logged: %s", &w.log))
	}

	limit(0)
	w.add("db", 2)
	w.lines("db", 0, 5)
	_, err := io.WriteString(w.write["db"], "db 5, cut ")
	must(err)
	w.Drain(2)
	limit(1 << 20)
	_, err = io.WriteString(w.write["db"], "in two\ndb 6\n")
	must(err)
	w.Drain(2)
	w.expect("db", "missed 6", "db 6")
	if n := strings.Count(w.log.String(), "\n"); n != 1 {
		must(fmt.Errorf("%d lines in the log: %s", n, &w.log))
	}
	w.Close()
}

// With fewer descriptors than files the services that wrote least recently
// give up theirs, and something is left for others.
func TestFewDescriptors(t *testing.T) {
	run(t, helper(t, "nofiles "+t.TempDir()))
}

func helperNoFiles(args []string) {
	w := newWorld(args[0])
	const services = 150
	name := func(i int) string { return fmt.Sprintf("s%d", i) }
	for i := range services {
		w.add(name(i), uint64(i+1))
	}
	next := func() int { // the lowest that is free
		fd, err := unix.Dup(0)
		must(err)
		must(unix.Close(fd))
		return fd
	}
	first := next()
	var old unix.Rlimit
	must(unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	// Descriptors are given out lowest first: so many more can be had.
	must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(first + 40), Max: old.Max}))
	for round := range 3 {
		for i := range services {
			w.lines(name(i), round, round+1)
			w.Drain(uint64(i + 1))
		}
		next()
		if round == 1 {
			// A pipe that the loop heard of and Drain emptied is looked at once
			// more, for which the files of its service are opened.
			for tries := 0; tries == 0 || tries < 3 && next() > first+1; tries++ {
				w.Yield()
			}
			if fd := next(); fd > first+1 {
				must(fmt.Errorf("descriptor %d is the next, before it was %d", fd, first))
			}
		}
	}
	must(unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
	for i := range services {
		n := name(i)
		w.expect(n, n+" 0", n+" 1", n+" 2")
	}
	if w.log.Len() > 0 {
		must(fmt.Errorf("logged: %s", &w.log))
	}
	w.Close()
}
