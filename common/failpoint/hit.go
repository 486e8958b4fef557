//go:build failpoint

// Package failpoint kills the process at named places; see failpoint.go.
package failpoint

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
)

var (
	mu sync.Mutex
	// left is how often each place is still passed before it kills.
	left = map[string]int{}
	mark = os.Getenv("ZINIT_FAILPOINT_MARK")
)

func init() {
	b, _ := os.ReadFile(mark)
	done := strings.Fields(string(b))
	for _, p := range strings.Fields(os.Getenv("ZINIT_FAILPOINTS")) {
		name, count, _ := strings.Cut(p, ":")
		n := 1
		if _, err := fmt.Sscan(count, &n); count != "" && err != nil {
			panic("ZINIT_FAILPOINTS: " + p)
		}
		if !slices.Contains(done, name) {
			left[name] = n
		}
	}
}

// Hit is a place to be killed at. What is given is done only then, just before.
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
	for _, do := range before {
		do()
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
