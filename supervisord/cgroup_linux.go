package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// cgroups is zinit's part of the cgroup v2 tree:
//
//	OWN                     the cgroup that zinit was started in
//	  zinit-DEVICE-INODE    one for each runtime directory
//	    supervisor          zinit's own processes, unless OWN is the root
//	    web.1763849321002   one run of one command of a service, with its limits
//
// A run has a cgroup of its own because its counters then tell of nothing but
// that run, and because on Linux 6.18 whoever is cloned into a cgroup that
// cgroup.kill was once used on is killed at birth. Nothing of it is saved: names
// say it all, so what a crash leaves is found again.
//
// The nil pointer stands for none. Its methods belong to the loop but for make
// and close.
type cgroups struct {
	site cgroupSite
	dir  string // zinit-DEVICE-INODE
	// services names whose run it is, of those that have a cgroup.
	services map[core.RunID]string
	// missing says of controllers why they are not there for runs.
	missing map[string]error
	log     *slog.Logger
	work    line
	making  sync.Mutex // or as many threads as services would wait for the kernel's lock
	failed  sync.Once
}

// cgroupControllers are those that limits need.
var cgroupControllers = []string{"memory", "cpu", "pids"}

// leafName is the cgroup of zinit's own processes. Names of runs have a dot.
const leafName = "supervisor"

// orphanGrace is the time between SIGTERM and SIGKILL for what a zinit that was
// killed has left.
const orphanGrace = 5 * time.Second

// openCgroups makes or finds the cgroups of services.
func (s *server) openCgroups() (*cgroups, error) {
	site, err := findCgroup()
	if err != nil {
		return nil, err
	}
	known := map[core.RunID]bool{}
	for _, r := range s.keeper.runs {
		known[core.RunID(r.Run)] = true
	}
	return openCgroups(site, s.paths.RuntimeDir, known, []int{s.keeper.hello.Pid, os.Getpid()}, s.log)
}

// openCgroups makes zinit's part of the tree, or finds it again. What is there
// of runs that pid1 does not know is ended and removed. pids are zinit's own
// processes.
func openCgroups(site cgroupSite, runtimeDir string, known map[core.RunID]bool, pids []int, log *slog.Logger) (*cgroups, error) {
	var st unix.Stat_t
	if err := unix.Stat(runtimeDir, &st); err != nil {
		return nil, fmt.Errorf("cannot look at %s: %w", runtimeDir, err)
	}
	name := fmt.Sprintf("zinit-%x-%x", st.Dev, st.Ino)
	taken := false
	if own, ok := strings.CutSuffix(site.own, "/"+name+"/"+leafName); ok { // a supervisor before this one was here
		site.own, site.path, taken = own, filepath.Join("/", strings.TrimSuffix(site.path, "/"+name+"/"+leafName)), true
	}
	if err := site.mayDivide(pids[0]); err != nil {
		return nil, err
	}
	c := &cgroups{
		site: site, dir: filepath.Join(site.own, name), services: map[core.RunID]string{},
		missing: map[string]error{}, log: log,
	}
	if err := os.Mkdir(c.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot make a cgroup: %w", err)
	}
	c.sweep(known)
	if !taken && !site.root() {
		if err := c.moveIn(pids); err != nil {
			c.close()
			return nil, err
		}
	}
	for _, name := range cgroupControllers {
		if err := c.enable(name); err != nil {
			c.missing[name] = err
		}
	}
	return c, nil
}

// sweep takes over the cgroups of runs that pid1 knows, and ends and removes
// all others.
func (c *cgroups) sweep(known map[core.RunID]bool) {
	var old []string
	for _, name := range subdirs(c.dir) {
		dot := strings.LastIndexByte(name, '.')
		run, err := strconv.ParseUint(name[dot+1:], 10, 64)
		switch {
		case dot < 0 || err != nil: // zinit's own, or somebody else's
		case known[core.RunID(run)]:
			c.services[core.RunID(run)] = name[:dot]
		default:
			old = append(old, filepath.Join(c.dir, name))
		}
	}
	alive := slices.DeleteFunc(slices.Clone(old), func(path string) bool { return !populated(path) })
	if len(alive) > 0 {
		c.log.Warn("services of a zinit-pid1 that was killed are still there: ending them", "cgroups", len(alive))
	}
	for _, path := range alive {
		for _, pid := range members(path) {
			unix.Kill(pid, unix.SIGTERM)
			unix.Kill(pid, unix.SIGCONT)
		}
	}
	deadline := time.Now().Add(orphanGrace)
	for _, path := range alive {
		if waitEmpty(path, deadline) {
			continue
		}
		writeCgroup(path, "cgroup.kill", "1")
		if !waitEmpty(path, time.Now().Add(orphanGrace)) {
			c.log.Error("cannot end processes of the zinit before", "cgroup", path, "pids", fmt.Sprint(members(path)))
		}
	}
	for _, path := range old {
		removeCgroup(path)
	}
}

// moveIn puts zinit's own processes into a leaf: below the root a cgroup that
// hands controllers on must have no processes (cgroups(7), "no internal
// processes").
func (c *cgroups) moveIn(pids []int) error {
	leaf := filepath.Join(c.dir, leafName)
	// A fresh one: cgroup.kill may have been used on the one that is there.
	unix.Rmdir(leaf)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot make a cgroup: %w", err)
	}
	for _, pid := range pids {
		if err := writeCgroup(leaf, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("cannot move process %d of zinit to a cgroup of its own: %w", pid, err)
		}
	}
	return nil
}

// enable has a controller for the cgroups of runs.
func (c *cgroups) enable(name string) error {
	for _, dir := range []string{c.site.own, c.dir} {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err != nil {
			return err
		}
		if !slices.Contains(strings.Fields(string(b)), name) {
			return fmt.Errorf("%s does not have the controller %s", dir, name)
		}
		if err := writeCgroup(dir, "cgroup.subtree_control", "+"+name); err != nil {
			return fmt.Errorf("cannot enable the controller %s: %w", name, err)
		}
	}
	return nil
}

// close removes zinit's part of the tree, which has no services any more.
func (c *cgroups) close() {
	if c == nil {
		return
	}
	c.work.wait()
	for _, name := range subdirs(c.dir) {
		if name != leafName {
			removeCgroup(filepath.Join(c.dir, name))
		}
	}
	if leaf := filepath.Join(c.dir, leafName); exists(leaf) {
		if len(subdirs(c.site.own)) == 1 {
			for _, name := range cgroupControllers { // else nobody may go back there
				writeCgroup(c.site.own, "cgroup.subtree_control", "-"+name)
			}
		}
		for _, pid := range members(leaf) {
			writeCgroup(c.site.own, "cgroup.procs", strconv.Itoa(pid))
		}
	}
	if err := removeCgroup(c.dir); err != nil {
		c.log.Warn("cannot remove zinit's cgroup", "error", err)
	}
}

// reserve returns the path of the cgroup that a run is to have, "" for none.
func (c *cgroups) reserve(a core.Spawn) string {
	if c == nil {
		return ""
	}
	c.services[a.Run] = a.Service.Name
	return c.path(a.Run)
}

// path is that of the cgroup of a run, "" for none.
func (c *cgroups) path(run core.RunID) string {
	if c == nil {
		return ""
	}
	service, ok := c.services[run]
	if !ok {
		return ""
	}
	return filepath.Join(c.dir, fmt.Sprintf("%s.%d", service, run))
}

// make makes the cgroup of a run. A service that asks for no limit can do
// without.
func (c *cgroups) make(path string, l *spec.Limits) (string, error) {
	c.making.Lock()
	defer c.making.Unlock()
	wanted := cgroupLimits(l)
	err := os.Mkdir(path, 0o755)
	switch {
	case err == nil || errors.Is(err, fs.ErrExist):
	case len(wanted) == 0:
		c.failed.Do(func() {
			c.log.Warn("cannot make a cgroup: what leaves its session would outlive its service", "error", err)
		})
		return "", nil
	default:
		return "", fmt.Errorf("cannot make a cgroup: %w", err)
	}
	for _, limit := range wanted {
		if c.missing[limit.controller] != nil {
			continue
		}
		for _, f := range limit.files {
			err := writeCgroup(path, f.name, f.text)
			if err != nil && !(f.optional && errors.Is(err, fs.ErrNotExist)) {
				return "", fmt.Errorf("cannot set %s: %w", limit.key, err)
			}
		}
	}
	return path, nil
}

// forget removes the cgroup of a run of which nothing is left, unless pid1 has.
func (c *cgroups) forget(run core.RunID) {
	if path := c.path(run); path != "" {
		delete(c.services, run)
		c.work.do(func() { removeCgroup(path) })
	}
}

// removed notes that pid1 has removed the cgroup of a run.
func (c *cgroups) removed(run core.RunID) {
	if c != nil {
		delete(c.services, run)
	}
}

// outOfMemory says whether the kernel has killed a process of a run because
// memory was short, of the run or of the system.
func (c *cgroups) outOfMemory(run core.RunID) bool {
	path := c.path(run)
	return path != "" && cgroupNumber(path, "memory.events", "oom_kill") > 0
}

// cgroupLimit is a field of [limits] and the files that make it come true.
type cgroupLimit struct {
	key, controller string
	files           []cgroupFile
}

// cgroupFile is what to write into a file, which may be missing if it is
// optional.
type cgroupFile struct {
	name, text string
	optional   bool
}

// cgroupLimits are the limits of a service that need a cgroup.
func cgroupLimits(l *spec.Limits) []cgroupLimit {
	var out []cgroupLimit
	if l.MemoryMax > 0 {
		out = append(out, cgroupLimit{"memory_max", "memory", []cgroupFile{
			{"memory.max", strconv.FormatInt(l.MemoryMax, 10), false},
			// Else a service that leaks would fill the swap before it is ended;
			// the file is missing where the kernel has no swap.
			{"memory.swap.max", "0", true},
			// All or nothing: half a service is no service. Linux 4.19.
			{"memory.oom.group", "1", true},
		}})
	}
	if l.CPUMax > 0 {
		out = append(out, cgroupLimit{"cpu_max", "cpu", []cgroupFile{{"cpu.max", cpuMax(l.CPUMax), false}}})
	}
	if l.PidsMax > 0 {
		out = append(out, cgroupLimit{"pids_max", "pids", []cgroupFile{{"pids.max", strconv.Itoa(l.PidsMax), false}}})
	}
	return out
}

// cpuMax is a number of cores as a quota of microseconds in a period. The
// kernel takes no quota under 1 ms and no period over 1 s.
func cpuMax(cores float64) string {
	period := 100_000
	if cores*float64(period) < 1000 {
		period = 1_000_000
	}
	return fmt.Sprintf("%d %d", max(1000, int(cores*float64(period))), period)
}

// unmetLimits are the limits of a service that cannot be applied, each with
// why. without is why there are no cgroups at all.
func (c *cgroups) unmetLimits(l *spec.Limits, without error) map[string]error {
	unmet := map[string]error{}
	for _, limit := range cgroupLimits(l) {
		switch {
		case c == nil:
			unmet[limit.key] = without
		case c.missing[limit.controller] != nil:
			unmet[limit.key] = c.missing[limit.controller]
		}
	}
	return unmet
}

func populated(path string) bool { return cgroupNumber(path, "cgroup.events", "populated") > 0 }

// waitEmpty waits until no process is in a cgroup. The kernel tells of changes
// by POLLPRI.
func waitEmpty(path string, deadline time.Time) bool {
	f, err := os.Open(filepath.Join(path, "cgroup.events"))
	if err != nil {
		return true
	}
	defer f.Close()
	b := make([]byte, 256)
	for {
		n, _ := f.ReadAt(b, 0)
		left := time.Until(deadline)
		if !strings.Contains(string(b[:n]), "populated 1") || left <= 0 {
			return left > 0
		}
		unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, int(left/time.Millisecond)+1)
	}
}

// members are the processes in a cgroup and below it.
func members(path string) []int {
	var pids []int
	b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	for f := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 { // 0 is of another pid namespace
			pids = append(pids, pid)
		}
	}
	for _, name := range subdirs(path) {
		pids = append(pids, members(filepath.Join(path, name))...)
	}
	return pids
}

// removeCgroup removes a cgroup and what was made below it.
func removeCgroup(path string) error {
	err := unix.Rmdir(path)
	if err != unix.EBUSY {
		return err
	}
	for _, name := range subdirs(path) {
		removeCgroup(filepath.Join(path, name))
	}
	if err := unix.Rmdir(path); err != nil {
		return fmt.Errorf("cannot remove %s: %w", path, err)
	}
	return nil
}

func subdirs(path string) []string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Nlink == 2 { // cgroupfs counts them there
		return nil
	}
	entries, _ := os.ReadDir(path)
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// cgroupNumber reads a value of a file of "name value" lines, 0 if there is
// none.
func cgroupNumber(path, file, name string) int64 {
	b, _ := os.ReadFile(filepath.Join(path, file))
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return n
		}
	}
	return 0
}

// writeCgroup writes into a file of a cgroup, by one write(2).
func writeCgroup(path, file, text string) error {
	f, err := os.OpenFile(filepath.Join(path, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// line runs functions in their order, in a goroutine that exists only while
// there are some.
type line struct {
	mu   sync.Mutex
	todo []func()
	wg   sync.WaitGroup
}

func (l *line) do(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wg.Add(1)
	l.todo = append(l.todo, f)
	if len(l.todo) == 1 {
		go l.run()
	}
}

func (l *line) run() {
	for {
		l.mu.Lock()
		f := l.todo[0]
		l.mu.Unlock()
		f()
		l.wg.Done()
		l.mu.Lock()
		l.todo[0] = nil
		l.todo = l.todo[1:]
		last := len(l.todo) == 0
		l.mu.Unlock()
		if last {
			return
		}
	}
}

// wait waits until all is done.
func (l *line) wait() { l.wg.Wait() }
