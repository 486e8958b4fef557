package memory

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// TestStartHasRoomUntilItCollects looks how much a heap may grow: a start that goes
// on and on is not to have so much each time.
func TestStartHasRoomUntilItCollects(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	Keep(32<<20, 50)
	if got := percent(); got != 800 {
		t.Errorf("at the start the heap may grow by %d %%, want 800: 32 MiB are 8 times 4 MiB", got)
	}
	runtime.GC()
	for deadline := time.Now().Add(time.Minute); percent() != busyPercent; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("after a collection the heap may grow by %d %%, want %d", percent(), busyPercent)
		}
	}
}

// percent is by how much the heap may grow before it is collected.
func percent() uint64 {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
