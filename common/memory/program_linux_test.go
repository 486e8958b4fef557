package memory

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProgramIsUnmapped looks whether what a program needs once leaves its memory,
// and what it needs comes back.
func TestProgramIsUnmapped(t *testing.T) {
	// The collector needs much of the program, and so does a stack that grows.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	program := programPages()
	program.advise(unix.MADV_POPULATE_READ)
	before := resident(t)
	program.unmap()
	after := resident(t)
	if after > before*7/8 {
		t.Errorf("%d of %d KiB of the program are still mapped", after, before)
	}
	if after < 64 {
		t.Errorf("%d KiB of the program are mapped, though it runs", after)
	}
}

// resident is how much of files is mapped, in KiB.
func resident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	size, _, _ := strings.Cut(rest, "kB")
	n, err := strconv.Atoi(strings.TrimSpace(size))
	if err != nil {
		t.Fatalf("cannot find RssFile in %s", status)
	}
	return n
}
