//go:build linux

package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// The table of `make bench-peers`: zinit beside other supervisors, those that
// are installed, and beside the least that C can do. What is counted is all of
// a supervisor, its helpers, loggers and the shells it keeps, and none of its
// services. The peers take turns, so that what else the machine does falls on
// all of them. No figure fails anything.

var peersSVG = flag.String("bench.svg", "", "draw boot time and memory of all peers into `file`")

var (
	// peerSizes are the numbers of services of the picture.
	peerSizes = []int{1, 10, 100, 1000}
	// peerRounds is how often each is measured; the median counts.
	peerRounds = 3
)

const (
	// peerUp is how long services are up before they are killed: several
	// supervisors wait before they restart what died sooner.
	peerUp     = 3 * time.Second
	peerKilled = 30
)

// A peer is a supervisor as it is set up by those who want it quick.
type peer struct {
	name    string
	needs   []string // programs; without one of them the peer is left out
	version []string // a command that prints it
	// lay writes what starts the services into the directory of r, and returns
	// the command that runs the supervisor in the foreground.
	lay    func(r *peerRun) []string
	status func(r *peerRun, service string) []string
	stop   unix.Signal
	chains bool // knows dependencies
	cgroup bool // needs a cgroup that it may write to
	silent bool // does not store what services print, or next to nothing of it
}

// peerRun is one supervisor with its services.
type peerRun struct {
	*benchRun
	peer     *peer
	services int
	chain    bool     // each service needs the one before
	print    []string // what the services are told beside their names
}

var peers = []*peer{
	{name: "C floor", stop: unix.SIGTERM, lay: func(r *peerRun) []string {
		if r.print != nil {
			return []string{r.s.floor, "store", r.path("out"), r.s.service, r.fifoPath(), "s0", r.print[0]}
		}
		return []string{r.s.floor, "supervise", strconv.Itoa(r.services), r.s.service, r.fifoPath()}
	}},
	{name: "C, isolated", stop: unix.SIGTERM, cgroup: true, silent: true, lay: func(r *peerRun) []string {
		return []string{r.s.floor, "supervise", strconv.Itoa(r.services), r.s.service, r.fifoPath(), r.s.cgroup}
	}},
	{name: "zinit", stop: unix.SIGTERM, chains: true, version: []string{"zinit", "--version"},
		lay: func(r *peerRun) []string {
			r.each(func(i int, command string) (string, string) {
				text := fmt.Sprintf("[service]\nexec = %q\n[lifecycle]\nrestart = \"always\"\nrestart_delay_ms = 0\n", command)
				if r.chain && i > 0 {
					text += fmt.Sprintf("[dependencies]\nrequires = [\"s%d\"]\n", i-1)
				}
				return fmt.Sprintf("services/s%d.toml", i), text
			})
			return []string{filepath.Join(r.s.bin, "zinit-server"), "--config-dir", r.path("services"), "--socket", r.socket(), "--log-level", "warn"}
		},
		status: func(r *peerRun, service string) []string {
			return []string{filepath.Join(r.s.bin, "zinit"), "--socket", r.socket(), "status", service}
		}},
	{name: "dinit", stop: unix.SIGTERM, chains: true, needs: []string{"dinit", "dinitctl"}, version: []string{"dinit", "--version"},
		lay: func(r *peerRun) []string {
			boot := "type = internal\n"
			r.each(func(i int, command string) (string, string) {
				boot += fmt.Sprintf("waits-for = s%d\n", i)
				text := "type = process\ncommand = " + command + "\nrestart = true\nsmooth-recovery = true\nrestart-delay = 0\nrestart-limit-count = 0\n"
				if r.print != nil {
					text += "log-type = buffer\nlog-buffer-size = 1048576\n"
				}
				if r.chain && i > 0 {
					text += fmt.Sprintf("depends-on = s%d\n", i-1)
				}
				return fmt.Sprintf("dinit.d/s%d", i), text
			})
			r.write("dinit.d/boot", boot)
			return []string{"dinit", "--container", "--quiet", "--services-dir", r.path("dinit.d"), "--socket-path", r.socket(), "--log-file", "/dev/null", "boot"}
		},
		status: func(r *peerRun, service string) []string {
			return []string{"dinitctl", "--socket-path", r.socket(), "status", service}
		}},
	{name: "s6", stop: unix.SIGTERM, needs: []string{"s6-svscan", "s6-supervise", "s6-svstat", "s6-log"}, version: []string{"dpkg-query", "-W", "s6"},
		lay: func(r *peerRun) []string {
			r.scripts("s6-log", "n3", "s268000000")
			return []string{"s6-svscan", "-c", "1200", "-t", "0", r.path("scan")}
		},
		status: func(r *peerRun, service string) []string { return []string{"s6-svstat", r.path("scan/" + service)} }},
	{name: "runit", stop: unix.SIGHUP, needs: []string{"runsvdir", "runsv", "sv", "svlogd"}, version: []string{"dpkg-query", "-W", "runit"},
		lay: func(r *peerRun) []string {
			r.scripts("svlogd", "-b", "65536")
			time.Sleep(1100 * time.Millisecond) // it waits until its directory is a second old
			return []string{"runsvdir", "-P", r.path("scan")}
		},
		status: func(r *peerRun, service string) []string { return []string{"sv", "status", r.path("scan/" + service)} }},
	{name: "nitro", stop: unix.SIGTERM, needs: []string{"nitro", "nitroctl", "s6-log"},
		lay: func(r *peerRun) []string {
			r.each(func(i int, command string) (string, string) {
				return fmt.Sprintf("scan/s%d/run", i), "#!/bin/sh\nexec " + command + "\n"
			})
			if r.print != nil {
				r.logger("scan/LOG/run", "s6-log", "n3", "s268000000")
			}
			os.Setenv("NITRO_SOCK", r.socket())
			return []string{"nitro", r.path("scan")}
		},
		status: func(_ *peerRun, service string) []string { return []string{"nitroctl", "pidof", service} }},
	{name: "supervisord", stop: unix.SIGTERM, needs: []string{"supervisord", "supervisorctl"}, version: []string{"supervisord", "--version"},
		lay: func(r *peerRun) []string {
			conf := fmt.Sprintf(`[supervisord]
minfds=12000
logfile=/dev/null
logfile_maxbytes=0
pidfile=%[1]s/pid
childlogdir=%[1]s
[unix_http_server]
file=%[2]s
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://%[2]s
`, r.dir, r.socket())
			out := "NONE"
			if r.print != nil {
				out = r.path("out")
			}
			for i := range r.services {
				conf += fmt.Sprintf("[program:s%d]\ncommand=%s\nstartsecs=0\nautorestart=true\nstdout_logfile=%s\nstdout_logfile_maxbytes=0\nstderr_logfile=NONE\n", i, r.command(i), out)
			}
			r.write("conf", conf)
			return []string{"supervisord", "--nodaemon", "--configuration", r.path("conf")}
		},
		status: func(r *peerRun, service string) []string {
			return []string{"supervisorctl", "-c", r.path("conf"), "status", service}
		}},
	{name: "pebble", stop: unix.SIGTERM, chains: true, silent: true, needs: []string{"pebble"}, version: []string{"pebble", "version", "--client"},
		lay: func(r *peerRun) []string {
			var plan strings.Builder
			plan.WriteString("services:\n")
			for i := range r.services {
				fmt.Fprintf(&plan, "  s%d:\n    override: replace\n    command: %s\n    startup: enabled\n    backoff-delay: 1ms\n", i, r.command(i))
				if r.chain && i > 0 {
					fmt.Fprintf(&plan, "    requires: [s%d]\n    after: [s%[1]d]\n", i-1)
				}
			}
			r.write("pebble/layers/001-all.yaml", plan.String())
			os.Setenv("PEBBLE", r.path("pebble"))
			return []string{"pebble", "run"}
		},
		status: func(_ *peerRun, service string) []string { return []string{"pebble", "services", service} }},
	{name: "process-compose", stop: unix.SIGTERM, chains: true, needs: []string{"process-compose"}, version: []string{"process-compose", "version", "--short"},
		lay: func(r *peerRun) []string {
			var plan strings.Builder
			plan.WriteString("version: \"0.5\"\nprocesses:\n")
			for i := range r.services {
				fmt.Fprintf(&plan, "  s%d:\n    entrypoint: [%s]\n    availability: {restart: always, backoff_seconds: 1}\n", i, strings.ReplaceAll(r.command(i), " ", ", "))
				if r.print != nil {
					fmt.Fprintf(&plan, "    log_location: %s\n", r.path("out"))
				}
				if r.chain && i > 0 {
					fmt.Fprintf(&plan, "    depends_on: {s%d: {condition: process_started}}\n", i-1)
				}
			}
			r.write("plan.yaml", plan.String())
			return []string{"process-compose", "up", "--tui=false", "--config", r.path("plan.yaml"), "--disable-dotenv", "--log-file", r.path("log"), "--unix-socket", r.socket()}
		},
		status: func(r *peerRun, service string) []string {
			return []string{"process-compose", "--log-file", r.path("log2"), "--unix-socket", r.socket(), "process", "get", service}
		}},
}

func (r *peerRun) path(name string) string { return filepath.Join(r.dir, name) }

func (r *peerRun) command(i int) string {
	return strings.Join(append([]string{r.s.service, r.fifoPath(), fmt.Sprintf("s%d", i)}, r.print...), " ")
}

func (r *peerRun) write(name, text string) {
	r.b.Helper()
	path := r.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		r.b.Fatal(err)
	}
}

// each writes a file for each service.
func (r *peerRun) each(file func(i int, command string) (name, text string)) {
	for i := range r.services {
		r.write(file(i, r.command(i)))
	}
}

// scripts writes directories as daemontools has them. A service that prints has
// a logger; its directory for what it stores is its last argument.
func (r *peerRun) scripts(logger string, args ...string) {
	r.each(func(i int, command string) (string, string) {
		if r.print != nil {
			r.logger(fmt.Sprintf("scan/s%d/log/run", i), logger, args...)
		}
		return fmt.Sprintf("scan/s%d/run", i), "#!/bin/sh\nexec " + command + "\n"
	})
}

func (r *peerRun) logger(script, logger string, args ...string) {
	r.write("out/config", "s4000000000\nn3\n") // of svlogd, which else rotates all the time
	r.write(script, "#!/bin/sh\nexec "+strings.Join(append([]string{logger}, args...), " ")+" "+r.path("out")+"\n")
}

func (s *benchStage) startPeer(b *testing.B, p *peer, services int, change func(*peerRun)) *peerRun {
	b.Helper()
	r := &peerRun{benchRun: s.newRun(b), peer: p, services: services}
	if change != nil {
		change(r)
	}
	argv := p.lay(r)
	r.start(argv[0], argv[1:]...)
	return r
}

// processes returns all that this peer has started, its services only if they
// are asked for.
func (r *peerRun) processes(services bool) []int {
	r.b.Helper()
	children := map[int][]int{}
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		r.b.Fatal(err)
	}
	for _, file := range all {
		var ppid int
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		fmt.Sscanf(string(text[strings.LastIndexByte(string(text), ')')+1:]), " %c %d", new(rune), &ppid)
		children[ppid] = append(children[ppid], pid)
	}
	var found []int
	for todo := []int{os.Getpid()}; len(todo) > 0; todo = todo[1:] {
		for _, pid := range children[todo[0]] {
			todo = append(todo, pid)
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && (services || exe != r.s.service) {
				found = append(found, pid)
			}
		}
	}
	return found
}

// memory returns the proportional set size of the supervisor in MiB.
func (r *peerRun) memory() float64 {
	r.b.Helper()
	time.Sleep(time.Duration(r.lastStart-benchNow()) + benchSettle) // the period is what is defined
	sum := 0.0
	for _, pid := range r.processes(false) {
		sum += benchPSS(r.b, pid)
	}
	return sum / 1024
}

// end asks for an orderly end and returns how long it was until the last
// process had gone, in milliseconds.
func (r *peerRun) end() float64 {
	r.b.Helper()
	var left []unix.PollFd
	pids := r.processes(true)
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			defer unix.Close(fd)
			left = append(left, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	start := benchNow()
	if err := r.cmd.Process.Signal(r.peer.stop); err != nil {
		r.b.Fatal(err)
	}
	// The end of the supervisor may be an exit code of its own.
	go r.cmd.Wait()
	for i := range left {
		for {
			n, err := unix.Poll(left[i:i+1], int(benchPatience.Milliseconds()))
			if err == unix.EINTR {
				continue
			}
			if n == 0 {
				r.b.Fatalf("%s has not ended pid %d within %v", r.peer.name, pids[i], benchPatience)
			}
			break
		}
	}
	took := float64(benchNow()-start) / 1e6
	r.ended = true
	for _, pid := range pids {
		if pid != r.cmd.Process.Pid {
			unix.Wait4(pid, nil, unix.WNOHANG, nil) // what came to us when its parent had ended
		}
	}
	return took
}

// peerTable has the figures, by what is measured and by peer.
type peerTable struct {
	peers   []*peer
	rows    []string
	samples map[string]map[*peer][]float64
}

func (t *peerTable) add(row string, p *peer, v float64) {
	if t.samples[row] == nil {
		t.rows = append(t.rows, row)
		t.samples[row] = map[*peer][]float64{}
	}
	t.samples[row][p] = append(t.samples[row][p], v)
}

func (t *peerTable) median(row string, p *peer) (float64, bool) {
	v := t.samples[row][p]
	if len(v) == 0 {
		return 0, false
	}
	return benchMedian(v), true
}

func BenchmarkPeers(b *testing.B) {
	s := newBenchStage(b)
	// What loses its parent comes to us, so that nothing is missed or left.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		b.Fatal(err)
	}
	t := &peerTable{samples: map[string]map[*peer][]float64{}}
	var missing []string
	for _, p := range peers {
		if p.cgroup && s.cgroup == "" || slices.ContainsFunc(p.needs, func(program string) bool { _, err := exec.LookPath(program); return err != nil }) {
			missing = append(missing, p.name)
		} else {
			t.peers = append(t.peers, p)
		}
	}
	for _, n := range peerSizes {
		for round := range peerRounds {
			for _, p := range t.peers {
				r := s.startPeer(b, p, n, nil)
				t.add(rowBoot(n), p, r.boot(n))
				if round == 0 {
					t.add(rowMemory(n), p, r.memory())
				}
				t.add(fmt.Sprintf("shutdown of %d, ms", n), p, r.end())
			}
		}
	}
	const chain = "boot of a chain of 100, ms"
	for range peerRounds {
		for _, p := range t.peers {
			if before, _ := t.median(chain, p); !p.chains || before > 10_000 {
				continue // seconds do not have to be measured twice
			}
			r := s.startPeer(b, p, 100, func(r *peerRun) { r.chain = true })
			t.add(chain, p, r.boot(100))
			r.end()
		}
	}
	s.peersRestart(b, t)
	s.peersStatus(b, t)
	s.peersIdle(b, t)
	s.peersLogs(b, t)
	t.print(missing)
	if *peersSVG != "" {
		if err := os.WriteFile(*peersSVG, []byte(t.svg()), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(0, "ns/op")
}

func rowBoot(n int) string   { return fmt.Sprintf("boot of %d, ms", n) }
func rowMemory(n int) string { return fmt.Sprintf("memory at %d, MiB", n) }

// peersRestart measures from the death of a service to its replacement.
func (s *benchStage) peersRestart(b *testing.B, t *peerTable) {
	for _, p := range t.peers {
		r := s.startPeer(b, p, peerKilled, nil)
		r.boot(peerKilled)
		time.Sleep(time.Duration(r.lastStart-benchNow()) + peerUp)
		var times []float64
		for i := range peerKilled {
			times = append(times, r.kill(fmt.Sprintf("s%d", i)))
		}
		r.end()
		t.add("SIGKILL to replacement, median, ms", p, benchMedian(times))
		t.add("SIGKILL to replacement, slowest, ms", p, slices.Max(times))
	}
}

func (s *benchStage) peersStatus(b *testing.B, t *peerTable) {
	for _, p := range t.peers {
		if p.status == nil {
			continue
		}
		r := s.startPeer(b, p, 20, nil)
		r.boot(20)
		argv := p.status(r, "s7")
		for range benchRuns {
			start := benchNow()
			if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
				b.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
			}
			t.add("status as a process, ms", p, float64(benchNow()-start)/1e6)
		}
		r.end()
	}
}

// peersIdle counts how often a supervisor is woken while nothing happens.
func (s *benchStage) peersIdle(b *testing.B, t *peerTable) {
	for _, p := range t.peers {
		r := s.startPeer(b, p, 100, nil)
		r.boot(100)
		time.Sleep(benchSettle)
		before := r.switches()
		time.Sleep(benchIdle) // the period is what is defined
		t.add(fmt.Sprintf("context switches in %v with 100", benchIdle), p, float64(r.switches()-before))
		r.end()
	}
}

func (r *peerRun) switches() (n int64) {
	for _, pid := range r.processes(false) {
		n += benchSwitches(r.b, pid)
	}
	return n
}

// peersLogs measures how fast 200 MiB of lines are taken.
func (s *benchStage) peersLogs(b *testing.B, t *peerTable) {
	size := strconv.Itoa(benchOutput)
	for range peerRounds {
		for _, p := range t.peers {
			if p.silent {
				continue
			}
			r := s.startPeer(b, p, 1, func(r *peerRun) { r.print = []string{size} })
			first := r.next()
			last := r.next()
			cpu := 0.0
			for _, pid := range r.processes(false) {
				cpu += benchCPU(b, pid)
			}
			t.add("200 MiB of output, MB/s", p, benchOutput/float64(last.At-first.At)*1e3)
			t.add("CPU for that, s/GB", p, cpu*1e9/benchOutput)
			r.end()
		}
	}
}

var versionNumber = regexp.MustCompile(`[0-9]+(\.[0-9]+)+`)

// print prints the table as Markdown.
func (t *peerTable) print(missing []string) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	line := func(cells ...string) { fmt.Fprintln(w, "| "+strings.Join(cells, "\t| ")+"\t|") }
	head, rule := []string{""}, []string{"---"}
	for _, p := range t.peers {
		name := p.name
		if p.version != nil {
			out, _ := exec.Command(p.version[0], p.version[1:]...).Output()
			name = strings.TrimRight(name+" "+versionNumber.FindString(string(out)), " ")
		}
		head, rule = append(head, name), append(rule, "--:")
	}
	fmt.Println()
	line(head...)
	line(rule...)
	for _, row := range t.rows {
		cells := []string{row}
		for _, p := range t.peers {
			cell := "–"
			if v, ok := t.median(row, p); ok {
				cell = benchFigure(v)
			}
			cells = append(cells, cell)
		}
		line(cells...)
	}
	w.Flush()
	if len(missing) > 0 {
		fmt.Printf("\nNot to be had here: %s.\n", strings.Join(missing, ", "))
	}
	fmt.Println()
}
