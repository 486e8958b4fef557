//go:build linux

package main

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// init makes this binary the program storm where it has that name: the service
// of the storm. It keeps a journal of its own, DIR/NAME.journal, and holds a
// lock, DIR/NAME.lock, as long as it or a child that it leaves behind is there.
//
// A plan says how its runs end, separated by commas; the last one is for all
// runs that follow:
//
//	AFTER:N, AFTER:SIGNAL  exit with code N, or by a signal; with +child it leaves a child behind
//	mute                   never gets ready
//	hang                   gets ready, but does not tell the watchdog for long
//	stay                   stays until it is told to go
func init() {
	if filepath.Base(os.Args[0]) == "storm" {
		stormMain()
		os.Exit(0)
	}
}

// stormProgram is one run of a service of the storm.
type stormProgram struct {
	dir, name string
	run       int
	journal   *os.File
	lock      *os.File
	// stop is closed when the writers are to end; ended has the counts of each.
	stop    chan struct{}
	writers sync.WaitGroup
	lines   [2]int
}

func stormMain() {
	flags := flag.NewFlagSet("storm", flag.ExitOnError)
	dir := flags.String("dir", "", "of journals and locks")
	plan := flags.String("plan", "stay", "how its runs end")
	lines := flags.Int("lines", 0, "how many lines it prints on each stream")
	wide := flags.Bool("wide", false, "longer ones")
	ready := flags.String("ready", "", "notify or fd")
	beat := flags.Duration("beat", 0, "how often it tells the watchdog")
	stop := flags.Duration("stop", 0, "how long it takes to stop; negative: it does not")
	needs := flags.String("needs", "", "services that have to be there when it starts")
	bears := flags.String("bears", "", "services that have to be gone when it is told to stop")
	hook := flags.String("hook", "", "only note that it was called: pre or stop")
	child := flags.Bool("child", false, "be what a service leaves behind")
	flags.Parse(os.Args[1:])
	signals := make(chan os.Signal, 16)
	if *child {
		<-signals
	}
	// From the first record on no signal ends it unnoticed.
	signal.Notify(signals, unix.SIGTERM, unix.SIGUSR1)
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	p := &stormProgram{dir: *dir, name: os.Getenv("ZINIT_SERVICE"), stop: make(chan struct{})}
	p.open()
	if *hook != "" {
		if *hook == "pre" && stormLocked(p.lock) {
			p.note("double", "before pre_start")
		}
		p.note(*hook)
		return
	}
	p.begin(strings.FieldsFunc(*needs, isComma))
	steps := strings.Split(*plan, ",")
	step, leave := strings.CutSuffix(steps[min(p.run, len(steps))-1], "+child")
	switch {
	case step == "mute":
	case *ready == "notify":
		p.notify("READY=1")
	case *ready == "fd":
		p.must(os.NewFile(3, "ready").WriteString("\n"))
	}
	if *lines > 0 {
		p.print(*lines, *wide)
	}
	var over <-chan time.Time
	after, how, ends := strings.Cut(step, ":")
	if ends {
		d, err := time.ParseDuration(after)
		p.check(err)
		over = time.After(d)
	}
	var beats <-chan time.Time
	if *beat > 0 && step != "hang" {
		beats = time.Tick(*beat)
	}
	for {
		select {
		case <-over:
			if leave {
				p.leave()
			}
			p.end(how, true)
		case <-beats:
			p.notify("WATCHDOG=1")
		case sig := <-signals:
			if sig == unix.SIGUSR1 {
				p.note("usr1")
				continue
			}
			p.note("term")
			for _, name := range strings.FieldsFunc(*bears, isComma) {
				if p.there(name) {
					p.note("bears", name)
				}
			}
			if *stop < 0 {
				continue
			}
			time.Sleep(*stop) // as a service that has to tidy up
			p.end("0", false)
		}
	}
}

func isComma(r rune) bool { return r == ',' }

func (p *stormProgram) check(err error) {
	if err != nil {
		p.note("error", err.Error())
		os.Exit(98)
	}
}

func (p *stormProgram) must(_ int, err error) { p.check(err) }

func (p *stormProgram) open() {
	const flags = os.O_RDWR | os.O_CREATE | os.O_APPEND
	var err error
	if p.journal, err = os.OpenFile(filepath.Join(p.dir, p.name+".journal"), flags, 0o644); err == nil {
		p.lock, err = os.OpenFile(filepath.Join(p.dir, p.name+".lock"), flags, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "storm:", err)
		os.Exit(97)
	}
}

// note appends a record to the journal, by one write(2):
// WHAT PID RUN MONOTONIC WALL DETAIL...
func (p *stormProgram) note(what string, details ...string) {
	record := fmt.Sprintf("%s %d %d %d %d %s\n", what, os.Getpid(), p.run, benchNow(), time.Now().UnixNano(), strings.Join(details, " "))
	if _, err := p.journal.WriteString(record); err != nil {
		os.Exit(97)
	}
}

// stormLocked says whether somebody holds a lock, without taking it.
func stormLocked(f *os.File) bool {
	probe := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &probe) == nil && probe.Type != unix.F_UNLCK
}

// begin takes the lock and finds out which run this is.
func (p *stormProgram) begin(needs []string) {
	// An open file description's lock (fcntl(2)): a child that has it inherited
	// holds it on.
	if unix.FcntlFlock(p.lock.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}) != nil {
		p.note("double")
		os.Exit(99)
	}
	records, err := stormJournal(p.dir, p.name)
	p.check(err)
	p.run = 1 + stormCount(records, "start")
	for _, name := range needs {
		if !p.there(name) {
			p.note("lacks", name)
		}
	}
	p.note("start", os.Getenv("VERSION"))
}

// there says whether a process of another service is there.
func (p *stormProgram) there(name string) bool {
	f, err := os.OpenFile(filepath.Join(p.dir, name+".lock"), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return stormLocked(f)
}

func (p *stormProgram) notify(text string) {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	p.check(err)
	p.must(conn.Write([]byte(text)))
	conn.Close()
}

// print writes numbered lines to both streams, most of them as fast as it can.
func (p *stormProgram) print(n int, wide bool) {
	for i, f := range []*os.File{os.Stdout, os.Stderr} {
		p.writers.Go(func() { p.lines[i] = p.printTo(f, n, wide) })
	}
	go func() {
		p.writers.Wait()
		if p.lines == [2]int{n, n} {
			p.note("printed", strconv.Itoa(n), strconv.Itoa(n))
		}
	}()
}

// printTo returns how many lines were written whole: a write of up to 4,096
// bytes to a pipe is done or not (pipe(7)).
func (p *stormProgram) printTo(f *os.File, n int, wide bool) (written int) {
	var buf []byte
	width := 61
	if wide {
		width = 701
	}
	for i := 1; i <= n; i++ {
		select {
		case <-p.stop:
			return written
		default:
		}
		buf = fmt.Appendf(buf, "%d %d %s\n", p.run, i, strings.Repeat("x", i*7%width))
		slow := i > n*9/10
		if i == n || slow || len(buf) > 3300 {
			if _, err := f.Write(buf); err != nil {
				return written
			}
			buf, written = buf[:0], i
		}
		if slow {
			time.Sleep(time.Millisecond) // so that there is something under way for longer
		}
	}
	return written
}

// leave starts a child of the same process group that holds the lock.
func (p *stormProgram) leave() {
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{"storm", "-child"}, ExtraFiles: []*os.File{p.lock}}
	p.check(cmd.Start())
}

// end notes how it ends and how much it has printed, -1 where it does not wait
// for that, and ends.
func (p *stormProgram) end(how string, wait bool) {
	close(p.stop)
	counts := [2]int{-1, -1}
	all := make(chan struct{})
	go func() {
		p.writers.Wait()
		close(all)
	}()
	var limit <-chan time.Time
	if !wait {
		limit = time.After(100 * time.Millisecond) // the pipe may be full
	}
	select {
	case <-all:
		counts = p.lines
	case <-limit:
	}
	p.note("end", how, strconv.Itoa(counts[0]), strconv.Itoa(counts[1]))
	if code, err := strconv.Atoi(how); err == nil {
		os.Exit(code)
	}
	sig := unix.SignalNum(how)
	signal.Reset(sig)
	unix.Kill(os.Getpid(), sig)
	select {}
}

// stormRecord is a record of a journal. Times are in nanoseconds.
type stormRecord struct {
	what       string
	pid, run   int
	mono, wall int64
	details    []string
}

// stormJournal reads the journal of a service, which need not be there.
func stormJournal(dir, name string) ([]stormRecord, error) {
	f, err := os.Open(filepath.Join(dir, name+".journal"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var records []stormRecord
	for in := bufio.NewScanner(f); in.Scan(); {
		var r stormRecord
		fields := strings.Fields(in.Text())
		if len(fields) < 5 {
			return nil, fmt.Errorf("the journal of %s has the record %q", name, in.Text())
		}
		r.what, r.details = fields[0], fields[5:]
		r.pid, _ = strconv.Atoi(fields[1])
		r.run, _ = strconv.Atoi(fields[2])
		r.mono, _ = strconv.ParseInt(fields[3], 10, 64)
		r.wall, _ = strconv.ParseInt(fields[4], 10, 64)
		records = append(records, r)
	}
	return records, nil
}

func stormCount(records []stormRecord, what string) (n int) {
	for _, r := range records {
		if r.what == what {
			n++
		}
	}
	return n
}
