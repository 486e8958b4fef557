// Package memory keeps a daemon small once it has started. A start allocates and
// runs much that is never needed again.
package memory

import (
	"runtime/debug"
	"time"
)

// Settled is the time from the start after which memory is kept small.
const Settled = 3 * time.Second

// startPercent has a start collect for the first time at 8 MiB, in percent of the
// least heap of the runtime, 4 MiB.
const startPercent = 200

// Keep is called once, at the start. Until that has settled, collecting is rare:
// what there is then is mostly garbage, and short. Afterwards the heap may grow by
// percent before it is collected, and what the start has touched goes back to the
// kernel.
func Keep(percent int) {
	debug.SetGCPercent(startPercent)
	time.AfterFunc(Settled, func() {
		debug.SetGCPercent(percent)
		debug.FreeOSMemory()
		unmapProgram()
	})
}
