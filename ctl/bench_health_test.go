//go:build linux

package main

import (
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// benchProbes is how many http probes there are in a second: one of each of so
// many services.
const benchProbes = 1000

// health measures what probes cost: processor and memory of zinit-healthd, which
// looks, and of zinit-server, which counts.
func (s *benchStage) health(b *testing.B) {
	var asked atomic.Int64
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusNoContent)
	})}
	go web.Serve(l)
	defer web.Close()
	r := s.startWith(b, benchProbes, fmt.Sprintf("[health]\ntype = \"http\"\nendpoint = \"http://%s/\"\ninterval_ms = 1000\n", l.Addr()))
	r.boot(benchProbes)
	info := r.info()
	for began := time.Now(); info.Services[string(ipc.StateRunning)] < benchProbes; info = r.info() {
		if time.Since(began) > benchPatience {
			b.Fatalf("%d services are ready", info.Services[string(ipc.StateRunning)])
		}
		time.Sleep(10 * time.Millisecond)
	}
	healthd := 0
	for _, p := range allProcesses() {
		if p.parent == info.KeeperPid && p.name == "zinit-healthd" {
			healthd = p.pid
		}
	}
	time.Sleep(benchSettle)
	start, before := benchNow(), asked.Load()
	cpuHealthd, cpuServer := benchCPU(b, healthd), benchCPU(b, info.Pid)
	time.Sleep(benchIdle) // the period is what is defined
	seconds := float64(benchNow()-start) / 1e9
	rate := float64(asked.Load()-before) / seconds
	if rate < 0.9*benchProbes || rate > 1.1*benchProbes {
		b.Fatalf("%.0f probes in a second, want %d", rate, benchProbes)
	}
	percent := func(pid int, before float64) float64 { return (benchCPU(b, pid) - before) / seconds * 100 }
	what := fmt.Sprintf("%.0f http probes in a second: ", rate)
	s.add(b, "health-cpu", benchRow{what: what + "CPU of zinit-healthd", unit: "% of one", zinit: percent(healthd, cpuHealthd)})
	s.add(b, "health-cpu-server", benchRow{what: "CPU of zinit-server for that", unit: "% of one", zinit: percent(info.Pid, cpuServer)})
	s.add(b, "health-memory", benchRow{what: "memory (PSS) of zinit-healthd", unit: "KiB", zinit: benchPSS(b, healthd)})
	s.add(b, "health-memory-server", benchRow{what: "memory (PSS) of zinit-server", unit: "KiB", zinit: benchPSS(b, info.Pid)})
	r.end()
}

// benchCPU is the processor time that a process has used, in seconds, by the
// clock that its pid names (clock_getcpuclockid(3)).
func benchCPU(b *testing.B, pid int) float64 {
	b.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		b.Fatal(err)
	}
	return float64(ts.Nano()) / 1e9
}
