package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/ipc"
)

// criLine is what log shippers take for a line: the time in UTC with nine digits,
// the stream, whether the line is whole, and the text.
var criLine = regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) (stdout|stderr) ([FP]) (.*)$`)

// readCRI returns the texts of a log file, and fails for anything in it that is
// not exactly the format, or not in the order of time.
func readCRI(t *testing.T, path string) (texts []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		t.Errorf("%s ends with half a line: %q", path, b[max(0, len(b)-100):])
	}
	last := ""
	for line := range strings.Lines(string(b)) {
		m := criLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			t.Errorf("%s has a line of another format: %q", path, line)
			continue
		}
		if _, err := time.Parse(time.RFC3339Nano, m[1]); err != nil || m[1] < last || m[3] != "F" {
			t.Errorf("%s has a line that is not whole, or earlier than the one before: %q, %v", path, line, err)
		}
		last = m[1]
		texts = append(texts, m[4])
	}
	return texts
}

// A log file is rotated all the time while the supervisor is killed, told to
// open it anew, and while others move the file or its directory away: each line
// is in one of the files, once, whole, and in order.
func TestLogFileUnderFire(t *testing.T) {
	const lines = 4000
	l := newLive(t)
	dir := filepath.Join(l.work, "log")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "app.log")
	l.write(map[string]string{"app": fmt.Sprintf("[service]\nexec = \"svc lines=%d:200us exit=0\"\noneshot = true\n"+
		"[logging]\nfile = %q\nmax_size = \"8KiB\"\nmax_files = 1000\n", lines, file)})
	l.up()
	dirs := []string{dir}
	done := func() bool {
		s := l.list()["app"]
		return s.State == ipc.StateExited || s.State == ipc.StateFailed
	}
	for n := 0; !done(); n++ {
		switch n % 5 {
		case 0, 3:
			l.kill("zinit-server")
		case 1:
			syscall.Kill(l.pid1(), syscall.SIGHUP)
		case 2: // as logrotate does
			if err := os.Rename(file, filepath.Join(dir, fmt.Sprintf("moved-%d", n))); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		case 4:
			gone := filepath.Join(l.work, fmt.Sprintf("log-%d", n))
			if err := os.Rename(dir, gone); err != nil {
				t.Fatal(err)
			}
			dirs = append(dirs, gone)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(dirs) < 3 {
		t.Fatalf("the service was too fast: its directory was moved %d times only", len(dirs)-1)
	}
	if err := eventually(patience, func() error {
		b, err := os.ReadFile(file)
		if !strings.HasSuffix(string(b), fmt.Sprintf(" line %d\n", lines)) {
			return fmt.Errorf("the last line is not written: %v", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	where := map[int]string{}
	for _, d := range dirs {
		files, err := filepath.Glob(filepath.Join(d, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			before := 0
			for _, text := range readCRI(t, path) {
				n, err := strconv.Atoi(strings.TrimPrefix(text, "line "))
				switch {
				case err != nil:
					t.Errorf("%s has %q, which the service did not print", path, text)
				case n <= before:
					t.Errorf("%s has line %d after line %d", path, n, before)
				case where[n] != "":
					t.Errorf("line %d is in %s and in %s", n, where[n], path)
				}
				where[n], before = path, n
			}
		}
	}
	for n := 1; n <= lines; n++ {
		if where[n] == "" {
			t.Fatalf("line %d is missing: the one before is in %s", n, where[n-1])
		}
	}
}
