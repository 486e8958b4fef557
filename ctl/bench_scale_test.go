//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"text/tabwriter"

	"github.com/threefoldtech/zinit/common/fdlimit"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// BenchmarkScale shows what one more service costs where there are many:
//
//	go test ./ctl -run '^$' -bench Scale -benchtime 1x
//
// It goes as far as the limit on open files does: each service has two pipes,
// in zinit-pid1 as in zinit-server.
func BenchmarkScale(b *testing.B) {
	s := newBenchStage(b)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\nservices\tboot, ms\teach\tmemory, KiB\teach\tlist, ms\treload, ms\tof one change\trestart, ms\tshutdown, ms\t")
	one := s.scale(b, 1)
	for _, n := range []int{1000, 2000, 4000, 8000} {
		if n > fdlimit.Pipes()/2 {
			break
		}
		r := s.scale(b, n)
		fmt.Fprintf(w, "%d\t%.0f\t%.3f\t%.0f\t%.2f\t%.1f\t%.1f\t%.1f\t%.1f\t%.0f\t\n", n,
			r.boot, r.boot/float64(n), r.memory, (r.memory-one.memory)/float64(n-1), r.list, r.reload, r.change, r.restart, r.down)
	}
	b.ReportMetric(0, "ns/op")
	w.Flush()
}

// benchScale are milliseconds, and KiB of memory.
type benchScale struct{ boot, memory, list, reload, change, restart, down float64 }

// scale takes the figures of so many services. Clients are connected, so that
// the time of a process that is one is not among them.
func (s *benchStage) scale(b *testing.B, services int) (out benchScale) {
	z := s.startZinit(b, services)
	out.boot = z.boot(services)
	z.settle()
	info := z.info()
	out.memory = benchPSS(b, info.KeeperPid) + benchPSS(b, info.Pid)
	ctx, cancel := context.WithTimeout(context.Background(), benchPatience)
	defer cancel()
	timed := func(what string, f func() error) float64 {
		start := benchNow()
		if err := f(); err != nil {
			b.Fatalf("cannot %s: %v", what, err)
		}
		return float64(benchNow()-start) / 1e6
	}
	var list, reload, change, restart []float64
	file := filepath.Join(z.dir, "services", "s0.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	reloaded := func(changed int) func() error {
		return func() error {
			r, err := z.client.Reload(ctx, false)
			if err == nil && (len(r.Changed) != changed || len(r.Added)+len(r.Removed) > 0) {
				err = fmt.Errorf("want %d changed services, got %+v", changed, r)
			}
			return err
		}
	}
	timed("reload", reloaded(0)) // files that were new at boot are read again once
	for i := range 9 {
		list = append(list, timed("list", func() error {
			all, err := z.client.List(ctx, client.Filter{})
			if err == nil && len(all) != services {
				err = fmt.Errorf("want %d services, got %d", services, len(all))
			}
			return err
		}))
		reload = append(reload, timed("reload", reloaded(0)))
		if err := os.WriteFile(file, fmt.Appendf(nil, "%s[limits]\nnice = %d\n", text, i+1), 0o644); err != nil {
			b.Fatal(err)
		}
		change = append(change, timed("reload", reloaded(1)))
		z.next()
		restart = append(restart, timed("restart", func() error {
			return z.client.Restart(ctx, client.Options{}, func(ipc.Moved) {}, "s0")
		}))
		z.next()
	}
	out.list, out.reload, out.change, out.restart = benchMedian(list), benchMedian(reload), benchMedian(change), benchMedian(restart)
	out.down = z.end()
	return out
}
