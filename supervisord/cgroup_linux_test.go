package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/supervisord/core"
)

func TestParseCgroup(t *testing.T) {
	const (
		unified   = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
		hybrid    = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		partial   = "50 40 0:26 /docker/1f /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
		outside   = "50 40 0:26 /.. /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
		elsewhere = "60 40 0:26 / /mnt/a\\040b rw - cgroup2 cgroup rw\n"
	)
	for _, c := range []struct{ mounts, self, own, path string }{
		{unified, "0::/\n", "/sys/fs/cgroup", "/"},
		{unified, "0::/system.slice/zinit.service\n", "/sys/fs/cgroup/system.slice/zinit.service", "/system.slice/zinit.service"},
		{hybrid, "4:memory:/x\n1:cpu:/y\n0::/z\n", "/sys/fs/cgroup/unified/z", "/z"},
		{partial, "0::/docker/1f\n", "/sys/fs/cgroup", "/docker/1f"},
		{partial, "0::/docker/1f/a\n", "/sys/fs/cgroup/a", "/docker/1f/a"},
		{partial + elsewhere, "0::/docker/1fa\n", "/mnt/a b/docker/1fa", "/docker/1fa"},
		{outside, "0::/../b\n", "/sys/fs/cgroup/b", "/../b"},
		{partial, "0::/docker/2\n", "", ""},
		{unified, "4:memory:/x\n", "", ""},
		{"", "0::/\n", "", ""},
	} {
		site, err := parseCgroup(c.mounts, c.self)
		if site.own != c.own || site.path != c.path || (err == nil) != (c.own != "") {
			t.Errorf("%q in %q is %+v, %v; expected %s, %s", c.self, c.mounts, site, err, c.own, c.path)
		}
	}
}

func TestCgroupLimits(t *testing.T) {
	for cores, want := range map[float64]string{
		1.5: "150000 100000", 0.01: "1000 100000", 0.002: "2000 1000000", 0.00001: "1000 1000000", 64: "6400000 100000",
	} {
		if got := cpuMax(cores); got != want {
			t.Errorf("%v cores are %q, expected %q", cores, got, want)
		}
	}
	l := &spec.Limits{MemoryMax: 1 << 20, CPUMax: 2, PidsMax: 7}
	var keys []string
	for _, limit := range cgroupLimits(l) {
		keys = append(keys, limit.key)
	}
	if want := []string{"memory_max", "cpu_max", "pids_max"}; !slices.Equal(keys, want) {
		t.Errorf("the limits are %q, expected %q", keys, want)
	}
	c := &cgroups{missing: map[string]error{"cpu": errors.New("no cpu")}}
	if unmet := c.unmetLimits(l, nil); len(unmet) != 1 || unmet["cpu_max"] == nil {
		t.Errorf("without a controller: %v", unmet)
	}
	none := errors.New("nothing")
	if unmet := (*cgroups)(nil).unmetLimits(l, none); len(unmet) != 3 || unmet["pids_max"] != none {
		t.Errorf("without cgroups: %v", unmet)
	}
	if unmet := (*cgroups)(nil).unmetLimits(&spec.Limits{}, none); len(unmet) != 0 {
		t.Errorf("without limits: %v", unmet)
	}
}

func TestWhoMayDivideACgroup(t *testing.T) {
	own := t.TempDir()
	root := cgroupSite{own: own, path: "/", systemd: "/"}
	if err := root.mayDivide(100); err == nil || !strings.Contains(err.Error(), "Delegate=yes") {
		t.Errorf("the root of systemd's tree: %v", err)
	}
	if err := root.mayDivide(1); err != nil {
		t.Errorf("as init: %v", err)
	}
	root.systemd = own + "/none"
	if err := root.mayDivide(100); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	if err := os.WriteFile(own+"/cgroup.type", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, may := range map[string]bool{"/": true, "/user.slice": false} {
		if err := (cgroupSite{own: own, path: path, systemd: "/"}).mayDivide(100); (err == nil) != may {
			t.Errorf("in %s of its namespace: %v", path, err)
		}
	}
}

// The tree is made of plain directories here, so that any user may try.
func TestCgroupsOfRuns(t *testing.T) {
	runtimeDir, own := t.TempDir(), t.TempDir()
	open := func(known ...core.RunID) *cgroups {
		t.Helper()
		m := map[core.RunID]bool{}
		for _, run := range known {
			m[run] = true
		}
		c, err := openCgroups(cgroupSite{own: own, path: "/", systemd: own + "/none"}, runtimeDir, m, []int{os.Getpid()}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := open()
	var paths []string
	for run, name := range []string{1: "web", 2: "web.2", 3: "memory.max"} {
		if name == "" {
			continue
		}
		path := c.reserve(core.Spawn{Run: core.RunID(run), Service: &spec.Service{Name: name}})
		if made, err := c.make(path, &spec.Limits{}); made != path || err != nil {
			t.Errorf("making %s: %s, %v", path, made, err)
		}
		paths = append(paths, path)
	}
	nowhere := filepath.Join(own, "missing", "x")
	if _, err := c.make(nowhere, &spec.Limits{PidsMax: 1}); err == nil {
		t.Error("a service with a limit is started without it")
	}
	if made, err := c.make(nowhere, &spec.Limits{}); made != "" || err != nil {
		t.Errorf("a service without limits: %q, %v", made, err)
	}
	events := "low 0\noom_kill 2\noom_group_kill 1\n"
	if err := os.WriteFile(paths[0]+"/memory.events", []byte(events), 0o644); err != nil {
		t.Fatal(err)
	}
	if !c.outOfMemory(1) || c.outOfMemory(2) || c.outOfMemory(9) {
		t.Error("the end for want of memory is not told from others")
	}
	os.Remove(paths[0] + "/memory.events")

	// After a crash: two runs are known, the third is gone.
	c = open(1, 3)
	if exists(paths[1]) || !exists(paths[0]) || c.path(3) != paths[2] || len(c.services) != 2 {
		t.Errorf("after a crash there are %v", subdirs(c.dir))
	}
	c.forget(1)
	c.work.wait()
	if exists(paths[0]) {
		t.Error("a run is forgotten and its cgroup is there")
	}
	c.close()
	if left := subdirs(own); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestLineKeepsTheOrder(t *testing.T) {
	var l line
	var got []int
	for i := range 100 {
		l.do(func() { got = append(got, i) })
	}
	l.wait()
	if len(got) != 100 || !slices.IsSorted(got) {
		t.Errorf("done in the order %v", got)
	}
}
