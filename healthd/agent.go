package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/threefoldtech/zinit/common/clock"
	"github.com/threefoldtech/zinit/ipc"
)

const (
	// atOnce bounds the probes that are under way.
	atOnce = 256
	// maxUnacked bounds the results that wait for a supervisor, the oldest of
	// which are dropped: some minutes of a great many services.
	maxUnacked = 4096
	// maxMessage is the longest message of a result, in bytes.
	maxMessage = 512
)

// agent runs the probes that are due. One goroutine, run, owns it; each probe
// that is under way has one of its own, which sends an outcome.
type agent struct {
	inbox    chan any // frames of the supervisor, linked, unlinked
	outcomes chan outcome
	timer    *time.Timer
	schedule schedule
	free     int // how many probes more may be under way
	conn     *ipc.Conn
	// named are the services of a complete set that is being told.
	named   map[string]bool
	unacked []ipc.Result // oldest first
	seq     uint64
	quit    chan struct{} // closed to end it
	over    chan struct{} // closed when it has ended
}

// outcome is what has become of a probe. It comes twice where the process of a
// probe outlives its time: first with the result, then when the process is gone.
type outcome struct {
	entry  *entry
	result *ipc.Result
	done   bool
}

// linked and unlinked tell the agent of its link.
type (
	linked   struct{ conn *ipc.Conn }
	unlinked struct{ conn *ipc.Conn }
)

// serve hands on what one supervisor says, until it has gone.
func (a *agent) serve(conn *ipc.Conn) {
	conn.NoFds = true
	a.inbox <- linked{conn}
	for {
		f, err := conn.Read()
		if err != nil {
			break
		}
		a.inbox <- f
	}
	a.inbox <- unlinked{conn}
}

func newAgent() *agent {
	return &agent{
		inbox: make(chan any, 64), outcomes: make(chan outcome, 64), timer: time.NewTimer(time.Hour),
		schedule: schedule{entries: map[string]*entry{}}, free: atOnce,
		quit: make(chan struct{}), over: make(chan struct{}),
	}
}

// run is the loop.
func (a *agent) run() {
	for {
		for now := monotonic(); a.free > 0; {
			e := a.schedule.pop(now)
			if e == nil {
				break
			}
			a.begin(e)
		}
		a.setTimer()
		select {
		case m := <-a.inbox:
			a.handle(m)
		case o := <-a.outcomes:
			a.ended(o)
		case <-a.timer.C:
		case <-a.quit:
			for service := range a.schedule.entries {
				a.schedule.drop(service)
			}
			for a.free < atOnce {
				a.ended(<-a.outcomes)
			}
			close(a.over)
			return
		}
	}
}

// end cancels the probes and waits until their processes are gone.
func (a *agent) end() {
	close(a.quit)
	<-a.over
}

// setTimer arms the one timer for the probe that is due first.
func (a *agent) setTimer() {
	at, ok := a.schedule.wake()
	if !ok || a.free == 0 {
		a.timer.Stop()
		return
	}
	a.timer.Reset(time.Duration(max(0, at-monotonic())))
}

// handle takes one message. What it cannot read it leaves: the supervisor is of
// another release, and says so when it connects.
func (a *agent) handle(m any) {
	switch m := m.(type) {
	case linked:
		a.conn = m.conn
		for _, r := range a.unacked {
			a.conn.Send(ipc.KindResult, r)
		}
	case unlinked:
		a.conn = nil
	case ipc.Frame:
		a.onFrame(m)
	}
}

func (a *agent) onFrame(f ipc.Frame) {
	now := monotonic()
	switch f.Kind {
	case ipc.KindProbes:
		a.named = map[string]bool{}
	case ipc.KindProbe:
		var p ipc.Probe
		if f.Decode(&p) != nil || p.Interval <= 0 {
			return
		}
		if a.named != nil {
			a.named[p.Service] = true
		}
		a.schedule.set(now, p)
	case ipc.KindProbesEnd:
		for service := range a.schedule.entries {
			if !a.named[service] {
				a.schedule.drop(service)
			}
		}
		a.named = nil
	case ipc.KindDropProbe:
		var m ipc.DropProbe
		if f.Decode(&m) == nil {
			a.schedule.drop(m.Service)
		}
	case ipc.KindProbeCommand:
		var c ipc.ProbeCommand
		if f.Decode(&c) == nil {
			a.schedule.arm(now, c)
		}
	case ipc.KindResultAck:
		var m ipc.Ack
		if f.Decode(&m) == nil {
			n, _ := slices.BinarySearchFunc(a.unacked, m.Seq+1, func(r ipc.Result, seq uint64) int { return int(r.Seq - seq) })
			a.unacked = slices.Delete(a.unacked, 0, n)
		}
	}
}

// begin starts a probe that is due.
func (a *agent) begin(e *entry) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(e.Timeout))
	e.cancel = cancel
	a.free--
	p, command := e.Probe, e.command
	go func() {
		defer cancel()
		start := monotonic()
		message, gone, err := look(ctx, p, command)
		now := monotonic()
		r := &ipc.Result{ProbeID: p.ProbeID, OK: err == nil, At: now, Took: now - start, Message: message}
		if err != nil {
			r.Message = complaint(ctx, time.Duration(p.Timeout), err)
		}
		r.Message = clip(r.Message)
		if gone == nil {
			a.outcomes <- outcome{e, r, true}
			return
		}
		a.outcomes <- outcome{e, r, false}
		<-gone
		a.outcomes <- outcome{e, nil, true}
	}()
}

// look runs a probe. It returns what there was to see, or why it failed; gone,
// where it is set, is closed when the process of the probe is no more.
func look(ctx context.Context, p ipc.Probe, command *ipc.ProbeCommand) (message string, gone <-chan struct{}, err error) {
	switch p.Type {
	case "tcp":
		message, err = probeDial(ctx, "tcp", p.Endpoint)
	case "unix":
		message, err = probeDial(ctx, "unix", p.Endpoint)
	case "http":
		message, err = probeHTTP(ctx, p)
	case "exec":
		return probeExec(ctx, command)
	default:
		err = fmt.Errorf("zinit-healthd knows no probe of type %q", p.Type)
	}
	return message, nil, err
}

// ended takes an outcome.
func (a *agent) ended(o outcome) {
	if o.result != nil && !o.entry.dropped {
		a.report(*o.result)
	}
	if o.done {
		a.free++
		a.schedule.done(monotonic(), o.entry)
	}
}

// report tells a result, now and until it is acknowledged.
func (a *agent) report(r ipc.Result) {
	a.seq++
	r.Seq = a.seq
	if len(a.unacked) == maxUnacked {
		a.unacked = slices.Delete(a.unacked, 0, maxUnacked/4)
	}
	a.unacked = append(a.unacked, r)
	if a.conn != nil {
		a.conn.Send(ipc.KindResult, r)
	}
}

// clip makes one line of bounded length of what may come from anybody.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), maxMessage)], "\ufffd"))
	return strings.TrimSpace(s)
}

// monotonic is CLOCK_MONOTONIC in nanoseconds, comparable with that of the
// supervisor.
func monotonic() int64 { return int64(clock.Monotonic()) }
