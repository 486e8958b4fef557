package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// progress is the line at the bottom of a terminal that says what a command
// waits for, once it has waited for a while. It is written over, and is gone
// when the command ends. The watch goroutine draws it, so all that is printed
// meanwhile goes through above.
type progress struct {
	a     *app
	begin time.Time
	stop  context.CancelFunc

	mu    sync.Mutex
	drawn bool
	ended bool
}

const (
	progressDelay    = 700 * time.Millisecond
	progressInterval = 500 * time.Millisecond
)

// eraseLine goes to the beginning of the line and empties it (ECMA-48 EL).
const eraseLine = "\r\x1b[K"

// showProgress begins, where there is a terminal to draw on.
func (a *app) showProgress(ctx context.Context) *progress {
	ctx, stop := context.WithCancel(ctx)
	p := &progress{a: a, begin: a.now(), stop: stop}
	if a.terminal && !a.json && a.getenv("TERM") != "dumb" {
		go p.watch(ctx)
	}
	return p
}

// watch asks what is under way until the context ends, on a connection of its
// own. It is a courtesy: without an answer there is no line.
func (p *progress) watch(ctx context.Context) {
	timer := time.NewTimer(progressDelay)
	defer timer.Stop()
	var c *client.Client
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if c == nil {
			var err error
			if c, err = p.a.dial(ctx); err != nil {
				return
			}
			defer c.Close()
		}
		services, err := c.List(ctx, client.Filter{})
		if err != nil {
			return
		}
		p.draw(services)
		timer.Reset(progressInterval)
	}
}

func (p *progress) draw(services []ipc.Service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	line := p.a.progressLine(services, p.a.now().Sub(p.begin))
	fmt.Fprint(p.a.stdout, eraseLine+line)
	p.drawn = true
}

// progressLine says how many services are in which state on their way, and
// which these are.
func (a *app) progressLine(services []ipc.Service, waited time.Duration) string {
	var counts, names []string
	for _, state := range []ipc.State{ipc.StateStarting, ipc.StateStopping, ipc.StateBlocked} {
		n := 0
		for _, s := range services {
			if s.State == state {
				n++
				names = append(names, s.Name)
			}
		}
		if n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, state))
		}
	}
	running := 0
	for _, s := range services {
		if s.State == ipc.StateRunning {
			running++
		}
	}
	counts = append(counts, fmt.Sprintf("%d running", running))
	line := fmt.Sprintf("%s  %s  %s", duration(waited), strings.Join(counts, ", "), strings.Join(names, " "))
	if a.width > 0 {
		line = a.cut(line, a.width-1) // the last column would begin a new line
	}
	return a.paint(dim, line)
}

// above prints something in the place of the line, if there is any.
func (p *progress) above(print func()) {
	if p == nil {
		print()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	print()
}

func (p *progress) erase() {
	if p.drawn {
		fmt.Fprint(p.a.stdout, eraseLine)
		p.drawn = false
	}
}

// end removes the line for good.
func (p *progress) end() {
	p.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	p.ended = true
}
