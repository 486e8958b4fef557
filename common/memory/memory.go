// Package memory keeps a daemon small once it has started. A start allocates and
// runs much that is never needed again.
package memory

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Settled is the time from the start after which memory is kept small, unless the
// start is not over yet: it is when less than busy of a processor was used in the
// second before, and after so many looks at the latest.
const (
	Settled = 3 * time.Second
	busy    = 100 * time.Millisecond
	looks   = 60
)

// A start collects for the first time at a multiple of the least heap of the runtime,
// 4 MiB. From then on the heap may grow by busyPercent.
const (
	leastHeap   = 4 << 20
	busyPercent = 200
)

// worthIt is how much memory of its own a process has, in bytes, from which on it is
// collected. The runtime keeps lists for each size of objects, and first touches
// most of them, 0.4 MiB or more, when it collects: a small heap has less garbage.
const worthIt = 3 << 20

var (
	mu sync.Mutex
	// settled says that the start is over.
	settled bool
)

// Keep is called once, at the start. Until that has settled, collecting is rare:
// what there is then is mostly garbage, and short. It begins when the heap has start
// bytes. Afterwards the heap may grow by percent before it is collected, and what the
// start has touched goes back to the kernel.
func Keep(start, percent int) {
	debug.SetGCPercent(100 * start / leastHeap)
	runtime.AddCleanup(new(*int), collected, struct{}{})
	time.AfterFunc(Settled-time.Second, func() { settle(percent, looks) })
}

// collected is called when the first collection finds what Keep has thrown away.
func collected(struct{}) {
	mu.Lock()
	defer mu.Unlock()
	if !settled {
		debug.SetGCPercent(busyPercent)
	}
}

// settle keeps memory small in a second, or looks again then.
func settle(percent, looks int) {
	before := used()
	time.AfterFunc(time.Second, func() {
		if used()-before > busy && looks > 0 {
			settle(percent, looks-1)
			return
		}
		program := programPages()
		if own() > worthIt {
			// Each processor of the runtime has up to 512 KiB of free memory for itself.
			n := runtime.GOMAXPROCS(1)
			debug.FreeOSMemory()
			runtime.GOMAXPROCS(n)
		}
		mu.Lock()
		settled = true
		debug.SetGCPercent(percent) // no sooner, or it might collect as well
		mu.Unlock()
		program.unmap()
		// A goroutine that ends looks up what it was, in tables of the program which
		// all others can do without.
		select {}
	})
}

// used is the processor time that this process has used.
func used() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
