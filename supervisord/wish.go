package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// defaultWait bounds a wait for which the client names no time.
const defaultWait = 60 * time.Second

// outcome is how far a service is on the way to a goal.
type outcome uint8

const (
	pending outcome = iota
	reached
	missed // it has failed, or nothing is under way that could bring it there
)

// waiter waits for services to reach a goal, and collects what moves
// meanwhile. It belongs to the loop; done is closed there.
type waiter struct {
	names []string
	judge func(w *waiter, v core.View) outcome
	// left are the names that are pending, nil before this was first asked.
	left    map[string]bool
	changed []core.Changed
	own     map[string][]core.Changed // of changed, those of names that were left
	// related are the services that a wish for these may move; what others do
	// meanwhile is not its doing. See concerns.
	related map[string]bool
	result  map[string]outcome
	done    chan struct{}
	closed  bool
}

func newWaiter(judge func(*waiter, core.View) outcome, names ...string) *waiter {
	return &waiter{names: names, judge: judge, own: map[string][]core.Changed{}, result: map[string]outcome{}, done: make(chan struct{})}
}

// note takes down what moves.
func (w *waiter) note(ch core.Changed) {
	w.changed = append(w.changed, ch)
	if w.left == nil || w.left[ch.Service] {
		w.own[ch.Service] = append(w.own[ch.Service], ch)
	}
}

// noteNews keeps for the waiters whose records have changed.
func (s *server) noteNews(ch core.Changes) {
	if len(s.waiters) == 0 {
		return
	}
	for i := range ch.Records {
		s.news[ch.Records[i].Name] = true
	}
	for _, n := range ch.Removed {
		s.news[n] = true
	}
}

// askWaiters looks whether somebody's wait is over.
func (s *server) askWaiters() {
	for w := range s.waiters {
		s.ask(w)
	}
	s.moved, s.allMoved, s.news = false, false, map[string]bool{}
}

// ask looks at those of the names that are pending and of which there is news:
// a wait for all services would otherwise cost the square of their number.
func (s *server) ask(w *waiter) {
	look := s.news
	if w.left == nil {
		w.left = make(map[string]bool, len(w.names))
		for _, n := range w.names {
			w.left[n] = true
		}
		look = w.left
	} else if s.allMoved {
		look = w.left
	}
	for n := range look {
		if !w.left[n] {
			continue
		}
		v, ok := s.core.View(s.now(), n)
		if !ok {
			v = core.View{Record: core.Record{Name: n, Removed: true}}
		}
		if w.result[n] = w.judge(w, v); w.result[n] != pending {
			delete(w.left, n)
		}
	}
	if len(w.left) > 0 {
		return
	}
	for _, ch := range w.changed {
		if v, ok := s.core.View(s.now(), ch.Service); ok && s.concerns(w, ch.Service) && stillMoving(v) {
			return
		}
	}
	if !w.closed {
		w.closed = true
		delete(s.waiters, w)
		close(w.done)
	}
}

// concerns says that a service is one of those that the wish may move: named,
// or tied to such a one by a dependency or a conflict, in whatever direction,
// when this was first asked.
func (s *server) concerns(w *waiter, name string) bool {
	if w.related == nil {
		w.related = map[string]bool{}
		for todo := slices.Clone(w.names); len(todo) > 0; todo = todo[1:] {
			n := todo[0]
			if w.related[n] {
				continue
			}
			w.related[n] = true
			if v, ok := s.core.View(s.now(), n); ok {
				for _, tied := range [][]string{v.Spec.Requires, v.Spec.Wants, v.Spec.Conflicts, v.Dependents} {
					todo = append(todo, tied...)
				}
			}
		}
	}
	return w.related[name]
}

// stillMoving says that a service which a wish has moved is about to move on
// by itself.
func stillMoving(v core.View) bool {
	return v.State == core.StateStopping || v.State == core.StateStarting || v.UnderWay && v.State == core.StateBlocked
}

// started judges a start. What the service did before the wish does not
// count: a failure does only once it was tried again.
func started(w *waiter, v core.View) outcome {
	if v.Removed {
		return missed
	}
	tried := false
	for _, ch := range w.own[v.Name] {
		switch ch.To {
		case core.StateStarting, core.StateBlocked:
			tried = true
		case core.StateRunning:
			return reached
		case core.StateExited:
			if tried {
				return reached
			}
		case core.StateFailed:
			if tried || ch.From != core.StateStopping {
				return missed
			}
		case core.StateInactive, core.StateStopping:
		}
	}
	switch v.State {
	case core.StateRunning:
		if v.Halt == core.HaltNone {
			return reached
		}
	case core.StateExited:
		if v.Done && !v.Due {
			return reached
		}
	case core.StateFailed:
		if !v.UnderWay && v.Halt == core.HaltNone {
			return missed
		}
	case core.StateBlocked:
		if !v.UnderWay {
			return missed
		}
	case core.StateInactive, core.StateStarting, core.StateStopping:
	}
	return pending
}

// stopped judges a stop: nothing of the service is left.
func stopped(_ *waiter, v core.View) outcome {
	if v.Removed {
		return reached
	}
	if v.State == core.StateStarting || v.State == core.StateRunning || v.State == core.StateStopping || len(v.Runs) > 0 {
		return pending
	}
	return reached
}

// removed judges a removal: the core does not know it any more.
func removed(_ *waiter, v core.View) outcome {
	if v.Removed && v.Spec == nil {
		return reached
	}
	return pending
}

// wish asks the core for something and waits until it is done, has failed, or
// the time is over.
func (s *server) wish(ctx context.Context, op core.Op, p ipc.NamesParams) ([]ipc.Moved, error) {
	judge := started
	if op == core.OpStop {
		judge = stopped
	}
	w := newWaiter(judge)
	var refused *ipc.Error
	before := map[string]core.State{}
	err := s.in(ctx, func() {
		if s.core.ShuttingDown() {
			refused = ipc.Errorf(ipc.ErrShuttingDown, "zinit is shutting down")
			return
		}
		if len(p.Names) == 0 {
			refused = ipc.Errorf(ipc.ErrInvalid, "no service is named")
			return
		}
		if w.names, refused = s.known(p.Names); refused != nil {
			return
		}
		for _, n := range w.names {
			v, _ := s.core.View(s.now(), n)
			before[n] = v.State
		}
		s.waiters[w] = true
		s.step(core.Wish{Op: op, Names: w.names})
		s.moved = true
	})
	if err != nil || refused != nil {
		return nil, cmpError(refused, err)
	}
	verb := "start"
	if op == core.OpStop {
		verb = "stop"
	}
	return s.await(ctx, w, before, p, verb)
}

// await waits for a waiter that is registered, and says what moved.
func (s *server) await(ctx context.Context, w *waiter, before map[string]core.State, p ipc.NamesParams, verb string) ([]ipc.Moved, error) {
	timedOut := false
	if !p.NoWait {
		wait := defaultWait
		if p.TimeoutMS > 0 {
			wait = time.Duration(p.TimeoutMS) * time.Millisecond
		}
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-w.done:
		case <-t.C:
			timedOut = true
		case <-ctx.Done():
		}
	}
	var moved []ipc.Moved
	var failure *ipc.Error
	err := s.in(context.WithoutCancel(ctx), func() {
		delete(s.waiters, w)
		moved = s.summary(w, before)
		if !p.NoWait {
			failure = s.verdict(w, verb, timedOut)
		}
	})
	if failure != nil {
		failure.Moved = moved
	}
	return moved, cmpError(failure, err)
}

func cmpError(e *ipc.Error, err error) error {
	if e != nil {
		return e
	}
	return err
}

// summary says what moved: for each service from where to where, in the order
// in which they came to rest. Services that were named but had not to move
// come last.
func (s *server) summary(w *waiter, before map[string]core.State) []ipc.Moved {
	var out []ipc.Moved
	from, last := map[string]core.State{}, map[string]int{}
	for i, ch := range w.changed {
		if _, known := last[ch.Service]; !known {
			from[ch.Service] = ch.From
		}
		last[ch.Service] = i
	}
	for i, ch := range w.changed {
		if last[ch.Service] != i || !s.concerns(w, ch.Service) {
			continue
		}
		m := ipc.Moved{Name: ch.Service, From: ipc.State(from[ch.Service].String()), To: ipc.State(ch.To.String()), Reason: reasonOf(ch.Reason)}
		v, _ := s.viewOf(ch.Service)
		m.Note, m.Pid = v.Note, v.Pid
		if s.core.Spec(ch.Service) == nil {
			m.Note = "removed"
		}
		out = append(out, m)
	}
	for _, n := range w.names {
		if _, moved := last[n]; !moved {
			v, _ := s.viewOf(n)
			out = append(out, ipc.Moved{Name: n, From: ipc.State(before[n].String()), To: v.State, Reason: v.Reason, Note: v.Note, Pid: v.Pid})
		}
	}
	return out
}

// verdict is the error of a wish that was not fulfilled.
func (s *server) verdict(w *waiter, verb string, timedOut bool) *ipc.Error {
	for _, n := range w.names {
		v, _ := s.viewOf(n)
		switch w.result[n] {
		case reached:
			if verb == "start" && v.State == ipc.StateFailed { // it was up, for a moment
				return &ipc.Error{Kind: ipc.ErrFailed, Service: n, Message: fmt.Sprintf("cannot start %s: %s", n, failureOf(w, n, v))}
			}
			continue
		case missed:
			e := &ipc.Error{Kind: ipc.ErrFailed, Service: n}
			if v.State == ipc.StateBlocked {
				e.Kind = ipc.ErrBlocked
				e.Message = fmt.Sprintf("cannot start %s: %s", n, blocksOf(v))
			} else {
				e.Message = fmt.Sprintf("cannot start %s: %s", n, failureOf(w, n, v))
			}
			return e
		case pending:
			if !timedOut {
				return ipc.Errorf(ipc.ErrUnavailable, "stopped waiting for %s", n)
			}
			e := ipc.Errorf(ipc.ErrTimeout, "cannot %s %s within the time: it is %s", verb, n, v.State)
			e.Service = n
			if b := blocksOf(v); b != "" {
				e.Message += ": " + b
			} else if v.Note != "" {
				e.Message += ": " + v.Note
			}
			return e
		}
	}
	return nil
}

func blocksOf(v ipc.Service) string {
	var all []string
	for _, b := range v.BlockedBy {
		all = append(all, b.Detail)
	}
	return strings.Join(all, "; ")
}

// failureOf is the failure that ended a start; the service may have been tried
// again since.
func failureOf(w *waiter, name string, v ipc.Service) string {
	for _, ch := range w.changed {
		if ch.Service == name && ch.To == core.StateFailed && ch.Reason != nil {
			return ch.Reason.Message
		}
	}
	if v.Reason != nil {
		return v.Reason.Message
	}
	return "is " + string(v.State)
}

// over says that a service has ended and that zinit will not start it again
// on its own.
func over(v core.View) bool {
	return (v.State == core.StateFailed || v.State == core.StateExited) && v.Next == 0 && !v.UnderWay
}

// wait waits until services are as asked for, or cannot be any more.
func (s *server) wait(ctx context.Context, p ipc.NamesParams) ([]ipc.Service, error) {
	var judge func(*waiter, core.View) outcome
	if p.For == "" {
		p.For = "running"
	}
	switch p.For {
	case "running":
		judge = func(_ *waiter, v core.View) outcome {
			switch {
			case v.State == core.StateRunning && v.Halt == core.HaltNone || v.State == core.StateExited && v.Done:
				return reached
			case over(v):
				return missed
			}
			return pending
		}
	case "exited":
		judge = func(_ *waiter, v core.View) outcome {
			switch {
			case v.State == core.StateExited:
				return reached
			case v.State == core.StateFailed && over(v):
				return missed
			}
			return pending
		}
	case "inactive":
		judge = stopped
	case "healthy":
		judge = func(_ *waiter, v core.View) outcome {
			switch {
			case v.State == core.StateRunning && v.Halt == core.HaltNone &&
				(v.Health.Status == core.HealthHealthy || v.Health.Status == core.HealthNone):
				return reached
			case over(v):
				return missed
			}
			return pending
		}
	default:
		return nil, ipc.Errorf(ipc.ErrInvalid, "cannot wait for %q: choose running, exited, healthy or inactive", p.For)
	}
	w := newWaiter(judge)
	var refused *ipc.Error
	if err := s.in(ctx, func() {
		if len(p.Names) == 0 {
			refused = ipc.Errorf(ipc.ErrInvalid, "no service is named")
			return
		}
		if w.names, refused = s.known(p.Names); refused == nil {
			s.waiters[w] = true
			s.moved = true
		}
	}); err != nil || refused != nil {
		return nil, cmpError(refused, err)
	}
	wait := defaultWait
	if p.TimeoutMS > 0 {
		wait = time.Duration(p.TimeoutMS) * time.Millisecond
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	var failure error
	select {
	case <-w.done:
	case <-t.C:
		failure = errors.New("time")
	case <-ctx.Done():
		failure = ctx.Err()
	}
	var out []ipc.Service
	err := s.in(context.WithoutCancel(ctx), func() {
		delete(s.waiters, w)
		for _, n := range w.names {
			v, _ := s.explained(n, false)
			out = append(out, v)
			switch {
			case w.result[n] == missed && failure == nil:
				e := ipc.Errorf(ipc.ErrFailed, "%s is %s, and is not started again by itself", n, v.State)
				e.Service = n
				if v.Note != "" {
					e.Message += ": " + v.Note
				}
				failure = e
			case w.result[n] == pending && failure != nil:
				e := ipc.Errorf(ipc.ErrTimeout, "%s is %s, not %s, after %s", n, v.State, p.For, wait.Round(10*time.Millisecond)) // of which the client has taken a bit
				e.Service = n
				if v.Note != "" {
					e.Message += ": " + v.Note
				}
				failure = e
			}
		}
	})
	return out, errors.Join(failure, err)
}
