package memory

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// TestProgramIsUnmapped looks whether what a program needs once leaves its memory,
// and comes back when it is called again.
func TestProgramIsUnmapped(t *testing.T) {
	resident := func() int {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`RssFile:\s+(\d+) kB`).FindSubmatch(b)
		if m == nil {
			t.Fatalf("no RssFile in %s", b)
		}
		n, _ := strconv.Atoi(string(m[1]))
		return n
	}
	before := resident()
	unmapProgram()
	after := resident()
	if after > before/2 {
		t.Errorf("%d of %d KiB of the program are still mapped", after, before)
	}
	if again := resident(); again < 64 {
		t.Errorf("%d KiB of the program are mapped, though it runs", again)
	}
}
