//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// Benchmarks of the real programs, side by side with floors in C
// (testdata/bench): the least that has to be done for the same thing.
//
//	go test ./ctl -run '^$' -bench Zinit -benchtime 1x
//
// Both do their work in turn, so that what else the machine does falls on
// both; the ratio says more than the times. Times are CLOCK_MONOTONIC, taken
// by the services themselves, and so without the delay of the benchmark. No
// figure fails a benchmark, but that something did not happen does.
//
// ZINIT_TEST_BIN is a directory with the programs; else they are built.

const (
	// benchPatience is how long anything may take before it has failed.
	benchPatience = 30 * time.Second
	// benchSettle is the time from the last start to the look at memory.
	benchSettle = 5 * time.Second
	benchIdle   = 10 * time.Second
	// benchRuns is the number of samples where one takes milliseconds.
	benchRuns = 50
	// benchStable is the stability period of the services.
	benchStable = 100 * time.Millisecond
	// benchOutput is how much the service that prints prints, in bytes.
	benchOutput = 200 << 20
)

func BenchmarkZinit(b *testing.B) {
	s := newBenchStage(b)
	for _, c := range []struct{ services, runs int }{{1, 9}, {100, 5}, {1000, 3}} {
		b.Run(fmt.Sprintf("services=%d", c.services), func(b *testing.B) { s.life(b, c.services, c.runs) })
	}
	b.Run("restart", s.restart)
	b.Run("status", s.status)
	b.Run("logs", s.logs)
	b.Run("health", s.health)
	s.print()
}

// benchStage is where the benchmarks are played.
type benchStage struct {
	dir string // in memory, so that no disk is measured
	bin string // has the programs of zinit
	// service and floor are the C programs.
	service, floor string
	cgroup         string // the directory of an empty one, "" where there is none
	rows           []benchRow
}

type benchRow struct {
	what, unit   string
	zinit, floor float64
	against      string // what the floor is; "" for none
}

func newBenchStage(b *testing.B) *benchStage {
	parent := "/dev/shm"
	if unix.Access(parent, unix.W_OK) != nil {
		parent = os.TempDir()
	}
	dir, err := os.MkdirTemp(parent, "z")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	s := &benchStage{dir: dir, bin: os.Getenv("ZINIT_TEST_BIN")}
	if s.bin == "" {
		s.bin = dir
		for program, folder := range map[string]string{"zinit": "ctl", "zinit-server": "supervisord", "zinit-pid1": "pid1", "zinit-healthd": "healthd"} {
			build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, program), "../"+folder)
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
			benchMust(b, build)
		}
	}
	if s.bin, err = filepath.Abs(s.bin); err != nil {
		b.Fatal(err)
	}
	compile := func(name string) string {
		out := filepath.Join(dir, name)
		benchMust(b, exec.Command("gcc", "-O2", "-static", "-o", out, filepath.Join("testdata", "bench", name+".c")))
		return out
	}
	s.service, s.floor = compile("service"), compile("floor")
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(root, &st) != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		if dir, err := os.MkdirTemp(root, "zinit-bench"); err == nil {
			s.cgroup = dir
			b.Cleanup(func() { os.Remove(dir) })
		}
	}
	return s
}

func benchMust(b *testing.B, cmd *exec.Cmd) {
	b.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("cannot run %s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
}

// add adds a figure to the table and to the benchmark's own line.
func (s *benchStage) add(b *testing.B, metric string, r benchRow) {
	s.rows = append(s.rows, r)
	unit := strings.ReplaceAll(r.unit, " ", "-")
	b.ReportMetric(r.zinit, metric+"-"+unit)
	if r.against != "" {
		b.ReportMetric(r.floor, metric+"-floor-"+unit)
	}
	b.ReportMetric(0, "ns/op")
}

func (s *benchStage) print() {
	var u unix.Utsname
	unix.Uname(&u)
	load, _ := os.ReadFile("/proc/loadavg")
	load, _, _ = bytes.Cut(load, []byte(" "))
	fmt.Printf("\nzinit and the least that C can do, in turn; medians.\nLinux %s, load %s at the end.\n\n", unix.ByteSliceToString(u.Release[:]), load)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "zinit\tfloor\tunit\tratio\t  what; floor")
	for _, r := range s.rows {
		floor, ratio := "", ""
		if r.against != "" {
			floor, ratio = benchFigure(r.floor), fmt.Sprintf("%.2f", r.zinit/r.floor)
			r.what += "; " + r.against
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t  %s\n", benchFigure(r.zinit), floor, r.unit, ratio, r.what)
	}
	w.Flush()
	fmt.Println()
}

func benchFigure(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// benchRun is one zinit or one floor, and the FIFO in which its services say
// that they are up.
type benchRun struct {
	b       *testing.B
	s       *benchStage
	dir     string
	cmd     *exec.Cmd
	stderr  bytes.Buffer
	fifo    *os.File
	started int64 // CLOCK_MONOTONIC, nanoseconds
	ended   bool
	// pids holds the running services. The last start was at lastStart.
	pids      map[string]int
	lastStart int64
	client    *client.Client
}

// benchRecord is what a service says; see testdata/bench/service.c.
type benchRecord struct {
	At   int64
	Pid  int32
	Name [20]byte
}

func (r *benchRecord) name() string { return string(bytes.TrimRight(r.Name[:], "\x00")) }

func benchNow() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail: clock_gettime(2)
	return ts.Nano()
}

// newRun makes the place for a zinit or a floor.
func (s *benchStage) newRun(b *testing.B) *benchRun {
	dir, err := os.MkdirTemp(s.dir, "r")
	if err != nil {
		b.Fatal(err)
	}
	r := &benchRun{b: b, s: s, dir: dir, pids: map[string]int{}}
	if err := unix.Mkfifo(r.fifoPath(), 0o600); err != nil {
		b.Fatal(err)
	}
	// Open for writing as well, it neither waits for a writer nor ends.
	if r.fifo, err = os.OpenFile(r.fifoPath(), os.O_RDWR|unix.O_NONBLOCK, 0); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(r.cleanup)
	return r
}

func (r *benchRun) fifoPath() string { return filepath.Join(r.dir, "up") }
func (r *benchRun) socket() string   { return filepath.Join(r.dir, "z.sock") }

// startZinit starts zinit with services s0, s1, …; args are for each of them.
func (s *benchStage) startZinit(b *testing.B, services int, args ...string) *benchRun {
	return s.startWith(b, services, "", args...)
}

// startWith starts zinit with services that have more tables than others.
func (s *benchStage) startWith(b *testing.B, services int, tables string, args ...string) *benchRun {
	r := s.newRun(b)
	config := filepath.Join(r.dir, "services")
	if err := os.Mkdir(config, 0o755); err != nil {
		b.Fatal(err)
	}
	for i := range services {
		text := fmt.Sprintf("[service]\nexec = \"%s %s s%d %s\"\n[lifecycle]\nrestart = \"always\"\nrestart_delay_ms = 0\nstability_period_ms = %d\n%s",
			s.service, r.fifoPath(), i, strings.Join(args, " "), benchStable.Milliseconds(), tables)
		if err := os.WriteFile(filepath.Join(config, fmt.Sprintf("s%d.toml", i)), []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	r.start(filepath.Join(s.bin, "zinit-server"), "--config-dir", config, "--socket", r.socket(), "--log-level", "warn")
	return r
}

// startFloor starts a floor with the same services.
func (s *benchStage) startFloor(b *testing.B, services int) *benchRun {
	r := s.newRun(b)
	r.start(s.floor, "supervise", strconv.Itoa(services), s.service, r.fifoPath())
	return r
}

func (r *benchRun) start(program string, args ...string) {
	r.b.Helper()
	r.cmd = exec.Command(program, args...)
	r.cmd.Stderr = &r.stderr
	// Services of a floor hold its stderr, too: the end is that of the process.
	r.cmd.WaitDelay = time.Second
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.started = benchNow()
	if err := r.cmd.Start(); err != nil {
		r.b.Fatal(err)
	}
}

// cleanup ends what a failure has left.
func (r *benchRun) cleanup() {
	if r.client != nil {
		r.client.Close()
	}
	if r.cmd != nil && !r.ended {
		r.cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(benchPatience, func() { r.cmd.Process.Kill() })
		r.cmd.Wait()
		timer.Stop()
		for _, pid := range r.pids {
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && exe == r.s.service {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
	r.fifo.Close()
	os.RemoveAll(r.dir)
}

// next waits until a service says that it is up.
func (r *benchRun) next() benchRecord {
	r.b.Helper()
	r.fifo.SetReadDeadline(time.Now().Add(benchPatience))
	var rec benchRecord
	b := make([]byte, binary.Size(rec))
	if _, err := io.ReadFull(r.fifo, b); err != nil {
		r.b.Fatalf("%d services are up, no other came within %v: %v\n%s", len(r.pids), benchPatience, err, r.stderr.Bytes())
	}
	binary.Decode(b, binary.NativeEndian, &rec)
	r.pids[rec.name()] = int(rec.Pid)
	r.lastStart = max(r.lastStart, rec.At)
	return rec
}

// boot waits until so many services are up, and returns how long that took, in
// milliseconds.
func (r *benchRun) boot(services int) float64 {
	r.b.Helper()
	for range services {
		r.next()
	}
	if len(r.pids) != services {
		r.b.Fatalf("%d services said that they are up, %d did: some were started twice", services, len(r.pids))
	}
	return float64(r.lastStart-r.started) / 1e6
}

// kill ends a service and returns how long it was until it was up again, in
// milliseconds.
func (r *benchRun) kill(name string) float64 {
	r.b.Helper()
	old := r.pids[name]
	start := benchNow()
	if err := unix.Kill(old, unix.SIGKILL); err != nil {
		r.b.Fatal(err)
	}
	rec := r.next()
	if rec.name() != name || int(rec.Pid) == old {
		r.b.Fatalf("%s was killed, %s is up again", name, rec.name())
	}
	return float64(rec.At-start) / 1e6
}

// end sends SIGTERM and returns how long it was until all were gone, in
// milliseconds.
func (r *benchRun) end() float64 {
	r.b.Helper()
	start := benchNow()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.b.Fatal(err)
	}
	timer := time.AfterFunc(benchPatience, func() { r.cmd.Process.Kill() })
	err := r.cmd.Wait()
	took := float64(benchNow()-start) / 1e6
	r.ended = true
	if !timer.Stop() || err != nil {
		r.b.Fatalf("it did not end within %v: %v\n%s", benchPatience, err, r.stderr.Bytes())
	}
	for name, pid := range r.pids {
		if unix.Kill(pid, 0) == nil {
			r.b.Fatalf("%s (pid %d) is left after the end", name, pid)
		}
	}
	return took
}

// info asks zinit for its processes and how its services are.
func (r *benchRun) info() ipc.Info {
	r.b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), benchPatience)
	defer cancel()
	if r.client == nil {
		c, err := client.Dial(ctx, r.socket())
		if err != nil {
			r.b.Fatal(err)
		}
		r.client = c
	}
	info, err := r.client.Info(ctx)
	if err != nil {
		r.b.Fatal(err)
	}
	return info
}

// run executes zinit and returns how long that took, in milliseconds, and what
// it printed.
func (r *benchRun) run(args ...string) (float64, string) {
	r.b.Helper()
	cmd := exec.Command(filepath.Join(r.s.bin, "zinit"), append([]string{"--socket", r.socket()}, args...)...)
	start := benchNow()
	out, err := cmd.Output()
	took := float64(benchNow()-start) / 1e6
	if err != nil {
		r.b.Fatalf("zinit %s: %v", strings.Join(args, " "), err)
	}
	return took, string(out)
}

// life measures from boot to shutdown.
func (s *benchStage) life(b *testing.B, services, runs int) {
	var boot, bootFloor, down, downFloor, takeover, list []float64
	name := fmt.Sprintf("%d services", services)
	if services == 1 {
		name = "1 service"
	}
	for i := range runs {
		f := s.startFloor(b, services)
		bootFloor = append(bootFloor, f.boot(services))
		downFloor = append(downFloor, f.end())

		z := s.startZinit(b, services)
		boot = append(boot, z.boot(services))
		if i == runs-1 {
			defer z.memory(b, name)()
		}
		if services == 100 && i == runs-1 {
			defer z.idle(b, name)()
		}
		if services == 1000 {
			ms, out := z.run("list", "--quiet")
			list = append(list, ms)
			takeover = append(takeover, z.takeover(services, out))
		}
		down = append(down, z.end())
	}
	s.add(b, "boot", benchRow{"boot of " + name, "ms", benchMedian(boot), benchMedian(bootFloor), "vfork and exec in a loop"})
	if services == 1000 {
		s.add(b, "shutdown", benchRow{"shutdown of " + name, "ms", benchMedian(down), benchMedian(downFloor), "kill and waitpid"})
		s.add(b, "takeover", benchRow{"zinit-server killed until zinit list answers, " + name, "ms", benchMedian(takeover), benchMedian(list), "zinit list"})
	}
}

// settle waits until it is so long since the last start that memory is looked at.
func (r *benchRun) settle() {
	time.Sleep(time.Duration(r.lastStart-benchNow()) + benchSettle) // the period is what is defined
}

// memory measures the memory of the zinit processes, and returns what adds it
// to the table.
func (r *benchRun) memory(b *testing.B, name string) func() {
	b.Helper()
	r.settle()
	info := r.info()
	keeper, server := benchPSS(b, info.KeeperPid), benchPSS(b, info.Pid)
	return func() {
		r.s.add(b, "memory", benchRow{what: "memory (PSS) of zinit-server and zinit-pid1, " + name, unit: "KiB", zinit: keeper + server})
		r.s.add(b, "memory-server", benchRow{what: "of these zinit-server", unit: "KiB", zinit: server})
		r.s.add(b, "memory-pid1", benchRow{what: "of these zinit-pid1", unit: "KiB", zinit: keeper})
	}
}

// benchPSS returns the proportional set size of a process in KiB.
func benchPSS(b *testing.B, pid int) float64 {
	b.Helper()
	return float64(benchProcField(b, fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:"))
}

// benchProcField returns the number behind a name in a file of /proc.
func benchProcField(b *testing.B, file, field string) int64 {
	b.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == field {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatalf("%s has no %s", file, field)
	return 0
}

// idle counts the context switches of the zinit processes while nothing
// happens, and returns what adds them to the table.
func (r *benchRun) idle(b *testing.B, name string) func() {
	b.Helper()
	info := r.info()
	r.client.Close()
	r.client = nil
	count := func() int64 { return benchSwitches(b, info.KeeperPid) + benchSwitches(b, info.Pid) }
	time.Sleep(benchSettle) // the collector's last work
	before := count()
	time.Sleep(benchIdle) // the period is what is defined
	switches := float64(count() - before)
	return func() {
		r.s.add(b, "idle", benchRow{what: fmt.Sprintf("context switches in %v, %s, nothing happening", benchIdle, name), unit: "switches", zinit: switches})
	}
}

// benchSwitches returns how often the threads of a process have been switched to
// and from.
func benchSwitches(b *testing.B, pid int) (n int64) {
	b.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		b.Fatalf("pid %d has ended", pid)
	}
	for _, file := range threads {
		n += benchProcField(b, file, "voluntary_ctxt_switches:") + benchProcField(b, file, "nonvoluntary_ctxt_switches:")
	}
	return n
}

// takeover kills zinit-server and returns how long it was until zinit list
// answered as before, in milliseconds.
func (r *benchRun) takeover(services int, before string) float64 {
	r.b.Helper()
	old := r.info()
	start := benchNow()
	if err := unix.Kill(old.Pid, unix.SIGKILL); err != nil {
		r.b.Fatal(err)
	}
	_, after := r.run("list", "--quiet")
	took := float64(benchNow()-start) / 1e6
	info := r.info()
	switch {
	case info.Pid == old.Pid:
		r.b.Fatal("zinit-server was not killed")
	case after != before:
		r.b.Fatal("zinit list is not as before after zinit-server was killed")
	case info.Services[string(ipc.StateRunning)] != services:
		r.b.Fatalf("want %d running services after zinit-server was killed, got %v", services, info.Services)
	}
	for name, pid := range r.pids {
		if unix.Kill(pid, 0) != nil {
			r.b.Fatalf("%s has ended with zinit-server", name)
		}
	}
	return took
}

// restart measures from the death of a service to its replacement.
func (s *benchStage) restart(b *testing.B) {
	f, z := s.startFloor(b, benchRuns), s.startZinit(b, benchRuns)
	f.boot(benchRuns)
	z.boot(benchRuns)
	time.Sleep(time.Duration(z.lastStart-benchNow()) + 2*benchStable) // until each is stable
	var times, floor []float64
	for i := range benchRuns {
		name := fmt.Sprintf("s%d", i)
		floor = append(floor, f.kill(name))
		times = append(times, z.kill(name))
	}
	f.end()
	z.end()
	what := fmt.Sprintf("SIGKILL of a service until its next start, of %d ", benchRuns)
	s.add(b, "restart-p50", benchRow{what + "the median", "ms", benchMedian(times), benchMedian(floor), "waitpid and vfork"})
	s.add(b, "restart-p99", benchRow{what + "the slowest", "ms", slices.Max(times), slices.Max(floor), "waitpid and vfork"})
}

// status measures the client as a process.
func (s *benchStage) status(b *testing.B) {
	z := s.startZinit(b, 1)
	z.boot(1)
	// Nobody accepts: its backlog is enough.
	path := filepath.Join(z.dir, "f.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var times, floor []float64
	for range benchRuns {
		start := benchNow()
		if err := exec.Command(s.floor, "connect", path).Run(); err != nil {
			b.Fatal(err)
		}
		floor = append(floor, float64(benchNow()-start)/1e6)
		ms, out := z.run("status", "s0")
		if !strings.Contains(out, "running") {
			b.Fatalf("zinit status does not say that s0 is running:\n%s", out)
		}
		times = append(times, ms)
	}
	z.end()
	s.add(b, "status", benchRow{"zinit status NAME as a process", "ms", benchMedian(times), benchMedian(floor), "exec and connect"})
}

// logs measures how fast output is stored, and at what cost.
func (s *benchStage) logs(b *testing.B) {
	var rate, rateFloor, cost, costFloor []float64
	for range 3 {
		f := s.newRun(b)
		file := filepath.Join(f.dir, "out")
		f.start(s.floor, "store", file, s.service, f.fifoPath(), "s0", strconv.Itoa(benchOutput))
		mbs, cpu := f.output(func() int { return f.cmd.Process.Pid })
		rateFloor, costFloor = append(rateFloor, mbs), append(costFloor, cpu)
		if st, err := os.Stat(file); err != nil || st.Size() < benchOutput {
			b.Fatalf("the floor did not store all output: %v", err)
		}
		f.end()
		os.Remove(file)

		z := s.startZinit(b, 1, strconv.Itoa(benchOutput))
		mbs, cpu = z.output(func() int { return z.info().Pid })
		rate, cost = append(rate, mbs), append(cost, cpu)
		if _, out := z.run("logs", "s0", "-n", "1"); strings.TrimSpace(out) != "last" {
			b.Fatalf("the last line was not stored: %q", out)
		}
		z.end()
	}
	what := fmt.Sprintf("%d MiB of 100-byte lines until all are stored", benchOutput>>20)
	s.add(b, "logs", benchRow{what, "MB/s", benchMedian(rate), benchMedian(rateFloor), "splice to a file"})
	s.add(b, "logs-cpu", benchRow{"CPU time of zinit-server for that", "s/GB", benchMedian(cost), benchMedian(costFloor), "splice to a file"})
}

// output waits until a service has printed and all is stored. It returns the
// rate in MB/s and the CPU time of the process that stores it in seconds for
// each GB.
func (r *benchRun) output(storedBy func() int) (rate, cost float64) {
	r.b.Helper()
	first := r.next()
	pid := storedBy()
	last := r.next()
	if first.Pid != last.Pid {
		r.b.Fatal("the service that prints was started twice")
	}
	return benchOutput / float64(last.At-first.At) * 1e3, benchCPU(r.b, pid) * 1e9 / benchOutput
}

// benchMedian returns the middle of some figures.
func benchMedian(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
