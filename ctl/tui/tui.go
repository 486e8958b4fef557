// Package tui is the full screen of the zinit command.
//
// A Model is what the screen shows. It is told of keys, clicks and news of the
// server (Update), says what it wants done (Effect), and draws itself (View);
// it does no I/O, so that tests drive it like a function. Run is the shell
// around it: one goroutine tells the model and writes to the terminal, others
// read keys and speak with the server.
//
// News come as events of the control socket; at each, what there is is asked
// for anew, since one change of state changes the words on others. That is done
// at most so often that it takes a tenth of the time.
//
// How a service looks is not decided here: the command prints it, as zinit list
// and zinit status do (Look). The package has no terminal library: linking one
// made every zinit command start a third slower.
package tui

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// Look is how things are printed: as the commands do it, with the same words,
// symbols and colours. Lines may have SGR sequences and nothing else of the kind.
type Look interface {
	// Table is the list of services: a header, and a line for each.
	Table(services []ipc.Service, width int) []string
	// Service is everything on one, and Why what is in its way, both folded at
	// width; all are needed for the states of others.
	Service(s ipc.Service, all map[string]ipc.Service, now time.Time, width int) []string
	Why(w ipc.Why, width int) []string
	// Trees are lines, and the name of the service in each.
	Trees([]ipc.Tree) (lines, names []string)
	Plan(ipc.Reloaded) []string
	// Moved is what happened to a service, "" where that says nothing.
	Moved(ipc.Moved) string
	// NotLoaded is a line on errors in configuration files, "" for none.
	NotLoaded([]ipc.Problem) string
	// Explain is the message of an error.
	Explain(error) string
	// States are all in the order of summaries.
	States() []ipc.State
	Symbol(ipc.State) string
	// Name is text in the colour that logs give a service.
	Name(service, text string) string
	Clock(ipc.Time) string
	Duration(ms int64) string
	// Clean makes text from elsewhere safe for a terminal.
	Clean(string) string
	UTF8() bool

	Bold(string) string
	Dim(string) string
	Good(string) string
	Warn(string) string
	Bad(string) string
}

// frameTime is the least time between two pictures, for eyes and slow lines.
const frameTime = 40 * time.Millisecond

// Signaled says that the program ended because of a signal.
type Signaled struct{ Signal syscall.Signal }

func (s Signaled) Error() string { return "ended by " + s.Signal.String() }

// Run shows the services of the server that dial connects to, until the user
// quits or a signal comes, which is a Signaled. The terminal is as it was when
// it returns.
func Run(dial func(context.Context) (*client.Client, error), look Look) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c, err := dial(ctx) // what is wrong is said without taking the screen
	if err != nil {
		return err
	}
	p := &program{
		terminal:  &terminal{in: os.Stdin, out: os.Stdout},
		events:    make(chan any, 64),
		signalled: make(chan os.Signal, 8),
		ended:     make(chan struct{}),
		model:     New(look, time.Now()),
	}
	p.server = &server{ctx: ctx, dial: dial, c: c, tell: p.tell, dirty: make(chan struct{}, 1)}
	defer c.Close()
	// Before the terminal is taken, so that none ends us without its return.
	signal.Notify(p.signalled, syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT)
	return p.hold(p.run)
}

// program is the shell around a model.
type program struct {
	terminal  *terminal
	server    *server
	model     *Model
	events    chan any
	signalled chan os.Signal
	ended     chan struct{}

	screen []string // what the terminal shows
	size   Resize
	quit   bool
}

// crash is a panic of another goroutine.
type crash struct {
	value any
	stack []byte
}

// hold runs something that has the terminal, and gives that back even of a panic.
func (p *program) hold(run func() error) error {
	if err := p.terminal.enter(); err != nil {
		return fmt.Errorf("cannot use the terminal: %w", err)
	}
	defer p.terminal.leave()
	defer close(p.ended)
	return run()
}

// tell hands an event to the loop.
func (p *program) tell(event any) {
	select {
	case p.events <- event:
	case <-p.ended:
	}
}

// spawn runs f on a goroutine. Its panic becomes one of the loop, which gives
// the terminal back first.
func (p *program) spawn(f func()) {
	go func() {
		defer func() {
			if v := recover(); v != nil {
				p.tell(crash{v, debug.Stack()})
			}
		}()
		f()
	}()
}

func (p *program) run() error {
	p.server.spawn = p.spawn
	p.spawn(p.signals)
	p.spawn(func() {
		p.terminal.read(p.tell)
		p.tell(Signaled{syscall.SIGHUP})
	})
	p.spawn(p.server.watch)
	p.spawn(p.server.refresh)
	p.size = p.terminal.size()
	p.model.Update(p.size)

	// A picture is drawn at once after an event, unless the last one is too
	// fresh, and without one when the time on it has gone on.
	dirty, drawn := true, time.Time{}
	for !p.quit {
		wait := p.model.Pause()
		if dirty {
			wait = frameTime
		}
		if wait -= time.Since(drawn); wait <= 0 {
			p.perform(p.model.Update(Tick{time.Now()}))
			if err := p.draw(); err != nil {
				return Signaled{syscall.SIGHUP}
			}
			dirty, drawn = false, time.Now()
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case event := <-p.events:
			if err := p.handle(event); err != nil {
				return err
			}
			dirty = true
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// handle is one event.
func (p *program) handle(event any) error {
	switch ev := event.(type) {
	case Signaled:
		return ev
	case crash:
		return fmt.Errorf("bug: %v\n%s", ev.value, ev.stack)
	case Resize:
		p.size, p.screen = ev, nil
	case resumed:
		p.redraw()
		return nil
	}
	p.perform(p.model.Update(event))
	return nil
}

// draw brings the terminal up to date.
func (p *program) draw() error {
	view := p.model.View()
	text := repaint(p.screen, view, p.size.Width)
	if p.screen == nil {
		text = "\x1b[0m\x1b[2J" + text
	}
	p.screen = view
	if text == "" {
		return nil
	}
	_, err := p.terminal.out.WriteString(text)
	return err
}

// redraw paints everything anew.
func (p *program) redraw() {
	p.size, p.screen = p.terminal.size(), nil
	p.perform(p.model.Update(p.size))
}

// perform does what the model wants; none of it waits.
func (p *program) perform(effects []Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case Quit:
			p.quit = true
		case Redraw:
			p.redraw()
			p.server.poke()
		case Suspend:
			p.suspend()
		default:
			p.server.perform(e)
		}
	}
}

// resumed says that the shell has continued us.
type resumed struct{}

// suspend stops this job as Ctrl-Z does elsewhere.
func (p *program) suspend() {
	p.terminal.leave()
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	syscall.Kill(0, syscall.SIGTSTP)
	select {
	case <-continued:
	case <-time.After(200 * time.Millisecond): // nobody is there who could continue us, so we are not stopped
	}
	if err := p.terminal.enter(); err != nil {
		p.quit = true
		return
	}
	p.redraw()
}

// lastWord is how long the loop may take to give the terminal back.
const lastWord = time.Second

// signals hands on what the kernel says. A terminal that takes no output holds
// the loop up; then it is given back from here.
func (p *program) signals() {
	for s := range p.signalled {
		switch s := s.(syscall.Signal); s {
		case syscall.SIGWINCH:
			p.tell(p.terminal.size())
		case syscall.SIGCONT:
			p.tell(resumed{})
		default:
			time.AfterFunc(lastWord, func() {
				p.terminal.abandon()
				os.Exit(128 + int(s))
			})
			p.tell(Signaled{s})
		}
	}
}

// lostBy says that an error is the loss of the server, not its refusal.
func lostBy(err error) bool {
	var refused *ipc.Error
	return err != nil && !errors.As(err, &refused) && !errors.Is(err, context.Canceled)
}
