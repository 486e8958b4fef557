package tui

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// server is what the program has of zinit-server: two connections, one for the
// log, which may come faster than it is read. Its goroutines tell events.
type server struct {
	ctx   context.Context
	dial  func(context.Context) (*client.Client, error)
	c     *client.Client
	tell  func(any)
	spawn func(func())

	dirty     chan struct{} // something has changed
	snapshots atomic.Int64  // how many were told

	unfollow context.CancelFunc // ends the log that is followed; of the loop
	logs     struct {
		sync.Mutex
		c *client.Client
	}
}

const (
	// doubtTime is how long a server may be silent that has cut the connection.
	doubtTime = 300 * time.Millisecond
	// retryDelay is the pause between attempts to reach a server that is gone.
	retryDelay = 500 * time.Millisecond
	// quiet is the least time between two questions for all services; it is
	// more where the answer takes longer than a tenth of it.
	quiet = 100 * time.Millisecond
	// batchTime and batchLines bound what is taken of a log at a time: the rest
	// waits with the server, which forgets what is too much.
	batchTime  = 50 * time.Millisecond
	batchLines = 500
	// oldLines is how many lines of a log are asked for that were there before.
	oldLines = 1000
	// settleTime is how long the cursor rests on a service before its log is
	// asked for.
	settleTime = 80 * time.Millisecond
)

// poke says that something has changed.
func (s *server) poke() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// sleep waits, and says whether the program still runs.
func (s *server) sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// watch hears of each change, and of the loss of the server.
func (s *server) watch() {
	for s.ctx.Err() == nil {
		err := s.c.Stream(s.ctx, "events.subscribe", ipc.EventsParams{Follow: true}, func(client.Item) error {
			s.poke()
			return nil
		})
		s.poke() // there may be another one already
		switch {
		case errors.Is(err, client.ErrLost):
			s.doubt(err)
		case lostBy(err):
			s.tell(Lost{err})
			s.sleep(s.ctx, retryDelay)
		case err != nil:
			s.sleep(s.ctx, retryDelay)
		}
	}
}

// doubt says that the server is lost unless it answers soon: one that takes the
// place of another does so within milliseconds, which is not worth a word.
func (s *server) doubt(err error) {
	had := s.snapshots.Load()
	s.spawn(func() {
		if s.sleep(s.ctx, doubtTime) && s.snapshots.Load() == had {
			s.tell(Lost{err})
		}
	})
}

// refresh asks for everything when something has changed.
func (s *server) refresh() {
	s.poke()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.dirty:
		}
		began := time.Now()
		snapshot, err := s.snapshot()
		switch {
		case s.ctx.Err() != nil:
			return
		case err == nil:
			s.snapshots.Add(1)
			s.tell(snapshot)
			s.sleep(s.ctx, max(quiet, 10*time.Since(began)))
		default:
			s.tell(Lost{err})
			s.sleep(s.ctx, retryDelay)
			s.poke()
		}
	}
}

func (s *server) snapshot() (Snapshot, error) {
	services, err := s.c.List(s.ctx, client.Filter{})
	if err != nil {
		return Snapshot{}, err
	}
	at := time.Now()
	info, err := s.c.Info(s.ctx)
	return Snapshot{services, info, at}, err
}

// perform does what takes time on a goroutine of its own.
func (s *server) perform(e Effect) {
	switch e := e.(type) {
	case Follow:
		if s.unfollow != nil {
			s.unfollow()
		}
		ctx, cancel := context.WithCancel(s.ctx)
		s.unfollow = cancel
		if !e.None {
			s.spawn(func() { s.follow(ctx, e) })
		}
	case Inspect:
		s.spawn(func() {
			answer := Inspected{Name: e.Name}
			answer.Why, _ = s.c.Why(s.ctx, e.Name)
			answer.Incidents, _ = s.c.Incidents(s.ctx, e.Name)
			s.tell(answer)
		})
	case Recount:
		s.spawn(func() {
			if services, err := s.c.Status(s.ctx, e.Names...); err == nil {
				s.tell(Recounted{services, time.Now()})
			}
		})
	case AskTrees:
		s.spawn(func() {
			trees, err := s.c.Tree(s.ctx, e.Name, e.Reverse)
			s.tell(Trees{e, trees, err})
		})
	case Plan:
		s.spawn(func() {
			plan, err := s.c.Reload(s.ctx, true)
			s.tell(Planned{plan, err})
		})
	case Do:
		s.spawn(func() { s.tell(s.do(e)) })
	}
}

// do waits until it is done, as the commands do.
func (s *server) do(d Do) Done {
	done := Done{Do: d}
	moved := func(m ipc.Moved) { done.Moved = append(done.Moved, m) }
	switch d.Verb {
	case "start":
		done.Err = s.c.Start(s.ctx, client.Options{}, moved, d.Name)
	case "stop":
		done.Err = s.c.Stop(s.ctx, client.Options{}, moved, d.Name)
	case "restart":
		done.Err = s.c.Restart(s.ctx, client.Options{}, moved, d.Name)
	case "kill":
		done.Err = s.c.Kill(s.ctx, d.Name, d.Signal)
	case "reload":
		_, done.Err = s.c.Reload(s.ctx, false)
	}
	s.poke() // not every change of configuration changes a state
	if proxies, err := s.c.Proxies(s.ctx); d.Verb == "stop" && done.Err == nil && err == nil {
		for _, p := range proxies {
			if p.Service == d.Name {
				done.Notes = append(done.Notes, "the next connection to "+p.Name+" starts it again")
			}
		}
	}
	return done
}

// logClient is the connection for logs.
func (s *server) logClient(ctx context.Context) (*client.Client, error) {
	s.logs.Lock()
	defer s.logs.Unlock()
	if s.logs.c == nil {
		c, err := s.dial(ctx)
		if err != nil {
			return nil, err
		}
		s.logs.c = c
	}
	return s.logs.c, nil
}

// follow tells of the lines of a log until its context ends.
func (s *server) follow(ctx context.Context, f Follow) {
	if !s.sleep(ctx, settleTime) {
		return
	}
	for again := false; ; again = true {
		err := s.followOnce(ctx, f, again)
		if ctx.Err() != nil {
			return
		}
		if !lostBy(err) {
			s.tell(Lines{ID: f.ID, Err: err})
			return
		}
		if !s.sleep(ctx, retryDelay) {
			return
		}
	}
}

func (s *server) followOnce(ctx context.Context, f Follow, again bool) error {
	c, err := s.logClient(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := make(chan ipc.LogLine, batchLines)
	s.spawn(func() { s.batch(ctx, f.ID, again, lines) })
	return c.FollowLogs(ctx, ipc.LogsParams{Names: f.Names, Lines: oldLines}, func(l ipc.LogLine) error {
		select {
		case lines <- l:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// batch tells of lines, many at a time, and not more often than they can be
// shown.
func (s *server) batch(ctx context.Context, id int, again bool, lines <-chan ipc.LogLine) {
	for {
		news := Lines{ID: id, Again: again}
		select {
		case <-ctx.Done():
			return
		case l := <-lines:
			news.Lines = append(news.Lines, l)
		}
		for more := true; more && len(news.Lines) < batchLines; {
			select {
			case l := <-lines:
				news.Lines = append(news.Lines, l)
			default:
				more = false
			}
		}
		again = false
		s.tell(news)
		if !s.sleep(ctx, batchTime) {
			return
		}
	}
}
