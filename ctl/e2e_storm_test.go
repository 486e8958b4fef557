package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/ipc"
)

// While services crash, files change and come and go and reloads come as fast
// as a hundred a second, no process is lost or doubled, and the end is what was
// written last.
func TestReloadStorm(t *testing.T) {
	const (
		services = 12
		reloads  = 150
	)
	l := newLive(t)
	name := func(i int) string { return fmt.Sprintf("s%02d", i) }
	// Each holds a lock on its file: a second process of it would say "double".
	file := func(i, version int) string {
		end := "sleep"
		if i%3 == 0 {
			end = "pause=30ms exit=1"
		}
		requires := ""
		if i%4 == 1 {
			requires = fmt.Sprintf("%q", name(i-1-version%2*i%3))
		}
		return fmt.Sprintf("[service]\nexec = \"svc lock=%s.lock append=%s.log:%d %s\"\n[dependencies]\nrequires = [%s]\n"+
			"[lifecycle]\nrestart = \"always\"\nrestart_delay_ms = 0\nstop_timeout_ms = %d\n", name(i), name(i), version, end, requires, 5000+version%2)
	}
	for i := range services {
		l.write(map[string]string{name(i): file(i, 0)})
	}
	l.up()
	measure := func() (fds, kib int) {
		for _, p := range l.own() {
			if p.name == "zinit-server" || p.name == "zinit-pid1" {
				entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
				fds += len(entries)
				kib += residentKiB(p.pid)
			}
		}
		return fds, kib
	}

	storm := func(from int) {
		beat := time.NewTicker(10 * time.Millisecond)
		defer beat.Stop()
		for n := from; n < from+reloads; n++ {
			i := n % services
			path := filepath.Join(l.services, name(i)+".toml")
			switch {
			case n%10 == 7:
				os.Remove(path)
			case n%10 == 9:
				os.WriteFile(path, []byte("[service]\nexce = 1\n"), 0o644)
			default:
				l.write(map[string]string{name(i): file(i, n)})
			}
			<-beat.C
			if _, err := l.client.Reload(l.ctx, n%5 == 0); err != nil && len(problemsOf(err)) == 0 {
				t.Fatal(err)
			}
			if n%50 == 25 { // a supervisor that is killed takes part
				l.kill("zinit-server")
			}
		}
	}
	// calm ends the storm: every service is a plain one that runs.
	calm := func(version int) {
		for i := range services {
			l.write(map[string]string{name(i): fmt.Sprintf("[service]\nexec = \"svc lock=%s.lock append=%s.log:%d sleep\"\n", name(i), name(i), version)})
		}
		if _, err := l.client.Reload(l.ctx, false); err != nil {
			t.Fatal(err)
		}
		l.settled("it is calm", func(all map[string]ipc.Service) error {
			pids := map[int]bool{}
			for _, s := range all {
				if s.State != ipc.StateRunning || s.Pid == 0 {
					return fmt.Errorf("%s is %s: %s", s.Name, s.State, s.Note)
				}
				pids[s.Pid] = true
			}
			found := 0
			for _, p := range l.own() {
				if p.name == "svc" {
					found++
					if !pids[p.pid] {
						return fmt.Errorf("nobody knows %s", p)
					}
				}
			}
			if len(all) != services || found != services {
				return fmt.Errorf("%d services with %d processes", len(all), found)
			}
			for i := range services {
				log, err := os.ReadFile(filepath.Join(l.work, name(i)+".log"))
				if !strings.HasSuffix("\n"+string(log), fmt.Sprintf("\n%d\n", version)) {
					return fmt.Errorf("%s does not run what was written last: %v", name(i), err)
				}
			}
			return nil
		})
		for i := range services {
			if b, _ := os.ReadFile(filepath.Join(l.work, name(i)+".lock")); len(b) > 0 {
				t.Errorf("%s ran twice at the same time", name(i))
			}
		}
	}

	calm(1)
	storm(1000)
	calm(2)
	fds, kib := measure()
	storm(2000)
	calm(3)
	if now, nowKiB := measure(); now > fds+2 || nowKiB > kib+16<<10 {
		t.Errorf("after a storm there are %d descriptors and %d KiB, before it %d and %d", now, nowKiB, fds, kib)
	}
}
