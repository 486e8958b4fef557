//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/threefoldtech/zinit/ipc"
)

// Checks of a world that has settled or has ended: the journals of the services
// say what was, and zinit has to say the same.

// events reads what zinit events prints, or has printed to the follower where
// no command is given.
func (w *stormWorld) events(command string) (list []ipc.Event) {
	var text []byte
	if command == "" {
		text, _ = os.ReadFile(w.path("events"))
	} else {
		text = w.zinit(strings.Fields(command)...)
	}
	for line := range bytes.Lines(text) {
		var e ipc.Event
		if json.Unmarshal(line, &e) == nil { // the last line may be half of one
			list = append(list, e)
		}
	}
	return list
}

// stormAttempt is one start of a service, from Starting to its end, as events
// tell of it.
type stormAttempt struct {
	begin, end *ipc.Event // end is nil while it is up
	stopping   *ipc.Event
	running    *ipc.Event
	starts     int
	hooks      int // how often its pre_start was run
	ended      *stormRecord
}

// look compares journals with events, incidents and counts.
func (w *stormWorld) look() {
	events := w.events("")
	w.counts.events += len(events)
	attempts := map[string][]*stormAttempt{}
	state := map[string]ipc.State{}
	for i := range events {
		e := &events[i]
		if e.Seq != uint64(i+1) {
			w.violate("event %d is in the place of event %d: %+v", e.Seq, i+1, *e)
			return
		}
		was, ok := state[e.Service]
		if ok && was != e.From || !ok && e.From != ipc.StateInactive {
			w.violate("event %d says that %s goes from %s to %s, but it was %q", e.Seq, e.Service, e.From, e.To, was)
		}
		state[e.Service] = e.To
		list := attempts[e.Service]
		var last *stormAttempt
		if len(list) > 0 && list[len(list)-1].end == nil {
			last = list[len(list)-1]
		}
		switch {
		case e.To == ipc.StateStarting:
			attempts[e.Service] = append(list, &stormAttempt{begin: e})
		case last == nil:
		case e.To == ipc.StateRunning:
			last.running = e
		case e.To == ipc.StateStopping:
			last.stopping = e
		case e.To == ipc.StateExited || e.To == ipc.StateFailed || e.To == ipc.StateInactive:
			last.end = e
		}
	}
	for name, s := range w.services {
		if !s.target {
			w.lookAt(s, attempts[name], w.journal(name))
		}
	}
}

// lookAt compares what a service has noted with what zinit has told.
func (w *stormWorld) lookAt(s *stormService, attempts []*stormAttempt, records []stormRecord) {
	at := func(r stormRecord) *stormAttempt {
		for i := len(attempts) - 1; i >= 0; i-- {
			if r.wall >= time.Time(*attempts[i].begin.Time).UnixNano() {
				return attempts[i]
			}
		}
		return nil
	}
	starts := map[int]*stormAttempt{}
	for i, r := range records {
		switch r.what {
		case "pre":
			if a := at(r); a != nil {
				a.hooks++
			}
		case "start":
			a := at(r)
			if a == nil {
				w.violate("%s was started (pid %d), and no event says so", s.name, r.pid)
				return
			}
			if a.starts++; a.starts > 1 {
				w.violate("%s was started twice for one start that events tell of (pid %d)", s.name, r.pid)
			}
			if a.running != nil && a.running.Pid != r.pid {
				w.violate("%s runs as pid %d, but the event says %d", s.name, r.pid, a.running.Pid)
			}
			starts[r.run] = a
			w.counts.starts++
		case "end":
			if a := starts[r.run]; a != nil {
				a.ended = &records[i]
			}
		}
	}
	for i, a := range attempts {
		w.judge(s, a, i == len(attempts)-1)
		if s.name == "app" && (a.hooks > 1 || a.hooks < a.starts) { // a stop may come between the two
			w.violate("%s was started %d times by event %d, its pre_start %d times", s.name, a.starts, a.begin.Seq, a.hooks)
		}
	}
	if s.flags == "-stop 300ms" || s.name == "app" || s.name == "db" {
		if t, e := stormCount(records, "term"), stormCount(records, "end"); t != e {
			w.violate("%s was told to stop %d times, and could do so %d times", s.name, t, e)
		}
	}
	if hooks, terms := stormCount(records, "stop"), stormCount(records, "term"); s.name == "web" && hooks != terms {
		w.violate("%s was stopped %d times, its stop_exec was run %d times", s.name, terms, hooks)
	}
	if n := stormCount(records, "usr1"); s.name == "hit" && (n < w.model.hitsLeast || n > w.model.hitsMost) {
		w.violate("hit has got USR1 %d times, expected %d to %d times", n, w.model.hitsLeast, w.model.hitsMost)
	}
	if !s.touched {
		w.lookAtPlan(s, attempts, records)
	}
}

// judge compares the end of one run with what the event says of it.
func (w *stormWorld) judge(s *stormService, a *stormAttempt, last bool) {
	told := "it is up"
	if a.end != nil {
		w.counts.ends++
		told = string(a.end.To)
		if a.end.Reason != nil {
			told = a.end.Reason.Kind + " " + a.end.Reason.Message
		}
	}
	noted := "nothing"
	if a.ended != nil {
		noted = a.ended.details[0]
	}
	wrong := func() {
		w.violate("%s, started by event %d: it has noted %q for its end, and zinit says %q", s.name, a.begin.Seq, noted, told)
	}
	switch {
	case a.end == nil:
		if !last || a.ended != nil {
			wrong()
		}
	case a.stopping != nil: // how it ends then is the stop's affair
		took := time.Time(*a.end.Time).Sub(time.Time(*a.stopping.Time))
		if s.name == "stubborn" && (took < stormStubborn-50*time.Millisecond || took > stormStubborn+patience) {
			w.violate("stubborn was killed %s after it was told to stop, expected %s", took, stormStubborn)
		}
	case a.end.To == ipc.StateExited:
		if noted != "0" {
			wrong()
		}
	case a.end.Reason == nil:
		wrong()
	case a.end.Reason.Kind == "exit_code":
		if a.end.Reason.Code == nil || noted != strconv.Itoa(*a.end.Reason.Code) {
			wrong()
		}
	case a.end.Reason.Kind == "signal":
		if name := "SIG" + strings.TrimPrefix(a.end.Reason.Signal, "SIG"); noted != name && (s.name != "hit" || noted != "nothing") {
			wrong()
		}
	default:
		wrong()
	}
}

// lookAtPlan checks a service that no wish has touched: each of its planned
// ends was seen once, and it was started again when it was due.
func (w *stormWorld) lookAtPlan(s *stormService, attempts []*stormAttempt, records []stormRecord) {
	var ends, codes []string
	var previous *stormRecord
	for i, r := range records {
		switch r.what {
		case "end":
			previous = &records[i]
			ends = append(ends, r.details[0])
		case "start":
			if previous != nil {
				delay := s.delay
				for n := 1; n < r.run-1 && delay < s.most; n++ {
					delay = min(2*delay, s.most)
				}
				d := time.Duration(r.mono - previous.mono)
				if d < delay-delay/10 || d > delay+delay/10+patience {
					w.violate("%s was started again after %s, expected %s with a tenth more or less", s.name, d, delay)
				}
			}
		}
	}
	var want []string
	for _, step := range s.plan {
		if _, how, ok := strings.Cut(strings.TrimSuffix(step, "+child"), ":"); ok {
			want = append(want, how)
		} else {
			want = append(want, "0") // it is stopped for its silence
		}
	}
	if !slices.Equal(ends, want) {
		w.violate("%s has ended with %v, expected %v", s.name, ends, want)
	}
	failures := 0
	for _, a := range attempts {
		if a.end != nil && a.end.To == ipc.StateFailed {
			failures++
			codes = append(codes, a.end.Reason.Message)
		}
		if a.stopping != nil && a.stopping.Time != nil {
			since := a.begin
			if s.name == "hang" && a.running != nil {
				since = a.running
			}
			if d := time.Time(*a.stopping.Time).Sub(time.Time(*since.Time)); d < stormSilence-50*time.Millisecond || d > stormSilence+patience {
				w.violate("%s was stopped after %s, expected %s", s.name, d, stormSilence)
			}
		}
	}
	restarts := len(s.plan)
	if s.oneshot {
		restarts--
	}
	if got := w.list[s.name].RestartsTotal; got != restarts || len(attempts) != restarts+1 {
		w.violate("%s was started %d times and has %d restarts, expected %d", s.name, len(attempts), got, restarts)
	}
	w.lookAtIncidents(s, codes, records)
}

// lookAtIncidents expects one incident for each failure, with the last lines of
// that run.
func (w *stormWorld) lookAtIncidents(s *stormService, reasons []string, records []stormRecord) {
	var list []ipc.Incident
	if err := json.Unmarshal(w.zinit("incidents", s.name, "--json"), &list); err != nil {
		w.fatal("cannot read incidents: %v", err)
	}
	w.counts.incidents += len(list)
	var got []string
	for _, i := range list {
		got = append(got, i.Reason.Message)
	}
	if !slices.Equal(got, reasons) {
		w.violate("%s has the incidents %q, expected %q", s.name, got, reasons)
		return
	}
	var failed []stormRecord
	for _, r := range records {
		if r.what == "end" && r.details[0] != "0" {
			failed = append(failed, r)
		}
	}
	for i, r := range failed {
		if len(failed) != len(list) {
			break
		}
		isLast := func(l string) bool {
			return strings.HasPrefix(l, fmt.Sprintf("%d %s ", r.run, r.details[1])) || strings.HasPrefix(l, fmt.Sprintf("%d %s ", r.run, r.details[2]))
		}
		if r.details[1] != "0" && !slices.ContainsFunc(list[i].Lines, isLast) {
			w.violate("%s: the incident of run %d has no last line, number %s or %s, but %q", s.name, r.run, r.details[1], r.details[2], list[i].Lines)
		}
	}
}

// stormLines checks that the lines of one stream come once and in order.
type stormLines struct {
	run, line int
	had       map[int]int // lines by run
	wrong     string
}

func (l *stormLines) add(text string) {
	var run, line int
	if _, err := fmt.Sscanf(text, "%d %d", &run, &line); err != nil && l.wrong == "" {
		l.wrong = fmt.Sprintf("%q is no line of a service", text)
		return
	}
	if (run != l.run || line != l.line+1) && (run <= l.run || line != 1) && l.wrong == "" {
		l.wrong = fmt.Sprintf("line %d of run %d comes after line %d of run %d", line, run, l.line, l.run)
	}
	l.run, l.line = run, line
	if l.had == nil {
		l.had = map[int]int{}
	}
	l.had[run]++
}

var stormStreams = []string{"stdout", "stderr"}

// complete compares what was read of a stream with what its service has noted.
func (l *stormLines) complete(records []stormRecord, stream int) error {
	if l.wrong != "" {
		return errors.New(l.wrong)
	}
	for key, n := range stormPrinted(records) {
		if run := key[0]; key[1] == stream && l.had[run] != n {
			return fmt.Errorf("%d lines of run %d are there, it has printed %d", l.had[run], run, n)
		}
	}
	return nil
}

// stormPrinted is how many lines a service has noted, by run and stream.
func stormPrinted(records []stormRecord) map[[2]int]int {
	counts := map[[2]int]int{}
	for _, r := range records {
		if r.what != "end" && r.what != "printed" {
			continue
		}
		for stream, text := range r.details[len(r.details)-2:] {
			if n, err := strconv.Atoi(text); err == nil && n >= 0 { // -1: it is not known
				counts[[2]int{r.run, stream}] = n
			}
		}
	}
	return counts
}

// readAll compares what zinit logs -f has printed with what was written.
func (w *stormWorld) readAll() error {
	f, err := os.Open(w.path("follow"))
	if err != nil {
		return err
	}
	defer f.Close()
	streams := map[string]*stormLines{}
	n := 0
	for in := bufio.NewScanner(f); in.Scan(); n++ {
		var l ipc.LogLine
		if json.Unmarshal(in.Bytes(), &l) != nil {
			break // half a line
		}
		if l.Missed > 0 {
			return fmt.Errorf("zinit logs -f has missed %d lines of %s", l.Missed, l.Service)
		}
		key := l.Service + " " + l.Stream
		if streams[key] == nil {
			streams[key] = &stormLines{}
		}
		streams[key].add(l.Text)
	}
	w.counts.followed = n
	return w.compareLines("zinit logs -f", w.printers(true), streams)
}

func (w *stormWorld) compareLines(what string, names []string, streams map[string]*stormLines) error {
	for _, name := range names {
		records := w.journal(name)
		for i, stream := range stormStreams {
			l := streams[name+" "+stream]
			if l == nil {
				l = &stormLines{}
			}
			if err := l.complete(records, i); err != nil {
				return fmt.Errorf("%s of %s, %s: %w", what, name, stream, err)
			}
		}
	}
	return nil
}

// checkAll looks at what is left when zinit has ended.
func (w *stormWorld) checkAll() {
	streams := map[string]*stormLines{}
	for _, name := range w.printers(false) {
		files, _ := filepath.Glob(w.path("log", name+"*"))
		number := func(path string) int { // 0 is the newest
			n, _ := strconv.Atoi(strings.TrimPrefix(strings.TrimPrefix(path, w.path("log", name)), "."))
			return n
		}
		slices.SortFunc(files, func(a, b string) int { return number(b) - number(a) })
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				w.fatal("%v", err)
			}
			for line := range strings.Lines(string(text)) {
				part := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
				if len(part) < 4 || part[2] != "F" {
					w.violate("%s has the line %q", file, line)
					break
				}
				key := name + " " + part[1]
				if streams[key] == nil {
					streams[key] = &stormLines{}
				}
				streams[key].add(part[3])
				w.counts.stored++
			}
		}
		for _, n := range stormPrinted(w.journal(name)) {
			w.counts.printed += n
		}
	}
	if err := w.compareLines("the log file", w.printers(false), streams); err != nil {
		w.violate("%v", err)
	}
	log, err := os.ReadFile(w.path("zinit.log"))
	if err != nil {
		w.fatal("%v", err)
	}
	for line := range strings.Lines(string(log)) {
		// The second is one that was killed before it had saved anything.
		if strings.Contains(line, " ERR ") && !strings.Contains(line, "the supervisor has ended") && !strings.Contains(line, "there is no saved state: what is configured is begun as at boot") {
			w.violate("its log has: %s", strings.TrimSpace(line))
		}
	}
	for name := range w.services {
		for _, r := range w.journal(name) {
			if slices.Contains([]string{"double", "lacks", "bears", "error"}, r.what) {
				w.violate("%s (pid %d, run %d): %s %s", name, r.pid, r.run, r.what, strings.Join(r.details, " "))
			}
		}
	}
}

// compare says what is otherwise than in a world without kills.
func (w *stormWorld) compare(quiet *stormWorld) {
	if w.list == nil || quiet.list == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(quiet.list)) {
		q, s := quiet.list[name], w.list[name]
		for _, v := range []*ipc.Service{&q, &s} {
			v.Pid, v.Since, v.UptimeMS, v.NextStart, v.Note = 0, nil, 0, nil, ""
			v.Origin.File = filepath.Base(v.Origin.File)
			if v.Exit != nil {
				v.Exit.At = ipc.Time{}
			}
			if name == "hit" { // an unanswered signal may have come or not
				v.Restarts, v.RestartsTotal, v.Reason = 0, 0, nil
			}
		}
		a, _ := json.Marshal(q)
		b, _ := json.Marshal(s)
		if !bytes.Equal(a, b) {
			w.violate("%s is\n%s\nand in a quiet world\n%s", name, b, a)
		}
		if w.gets[name] != quiet.gets[name] {
			w.violate("%s is configured as\n%s\nand in a quiet world as\n%s", name, w.gets[name], quiet.gets[name])
		}
	}
	if len(w.list) != len(quiet.list) {
		w.violate("there are %d services, in a quiet world %d", len(w.list), len(quiet.list))
	}
	if w.fds > quiet.fds+2 {
		w.violate("zinit-pid1 has %d descriptors, in a quiet world %d", w.fds, quiet.fds)
	}
}
