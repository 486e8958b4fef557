//go:build failpoint

// Package failpoint kills or stops the process at named places; see failpoint.go.
package failpoint

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

var (
	mu sync.Mutex
	// left is how often each place is still passed before it kills.
	left = map[string]int{}
	// stop names those where it stops.
	stop = map[string]bool{}
	mark = os.Getenv("ZINIT_FAILPOINT_MARK")
)

func init() {
	b, _ := os.ReadFile(mark)
	done := strings.Fields(string(b))
	for _, p := range strings.Fields(os.Getenv("ZINIT_FAILPOINTS")) {
		name, how, _ := strings.Cut(p, ":")
		count, stops := strings.CutSuffix(":"+how, ":stop")
		n := 1
		if count = strings.TrimPrefix(count, ":"); count != "" {
			if _, err := fmt.Sscan(count, &n); err != nil {
				panic("ZINIT_FAILPOINTS: " + p)
			}
		}
		stop[name] = stops
		if !slices.Contains(done, name) {
			left[name] = n
		}
	}
}

// Hit is a place to be killed or stopped at. What is given is done only then, just before.
func Hit(name string, before ...func()) {
	mu.Lock()
	defer mu.Unlock()
	if left[name]--; left[name] != 0 {
		return
	}
	f, err := os.OpenFile(mark, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(f, name)
	f.Close()
	for _, do := range before {
		do()
	}
	if stop[name] {
		// This very thread, which therefore gets no further.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
		return
	}
	unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}
