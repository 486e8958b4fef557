package tui

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pty is a terminal of its own and what was written to it.
type pty struct {
	user, program *os.File

	mu      sync.Mutex
	written strings.Builder
}

func newPty(t *testing.T) *pty {
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	p := &pty{user: user, program: program}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := user.Read(b)
			if err != nil {
				return
			}
			p.mu.Lock()
			p.written.Write(b[:n])
			p.mu.Unlock()
		}
	}()
	return p
}

func (p *pty) termios(t *testing.T) unix.Termios {
	s, err := unix.IoctlGetTermios(int(p.program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

// got waits for what was written.
func (p *pty) got(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		p.mu.Lock()
		all := p.written.String()
		p.mu.Unlock()
		if strings.Contains(all, text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q was not written, but %q", text, all)
		}
		time.Sleep(time.Millisecond) // between two looks
	}
}

// brokenLook panics whatever it is asked for.
type brokenLook struct{ Look }

// A bug ends the program, but first the terminal is given back.
func TestPanicGivesTheTerminalBack(t *testing.T) {
	for name, run := range map[string]func(*program) error{
		"in the loop":    func(p *program) error { return p.draw() },
		"in a goroutine": func(p *program) error { p.spawn(func() { panic("a bug") }); return p.handle(<-p.events) },
	} {
		t.Run(name, func(t *testing.T) {
			tty := newPty(t)
			before := tty.termios(t)
			p := &program{
				terminal: &terminal{in: tty.program, out: tty.program}, events: make(chan any, 1), ended: make(chan struct{}),
				model: New(brokenLook{}, time.Now()), size: Resize{80, 24},
			}
			func() {
				defer func() {
					if v := recover(); v == nil {
						t.Error("nothing is said of the bug")
					}
				}()
				if err := p.hold(func() error {
					if tty.termios(t) == before {
						t.Error("the terminal is not taken")
					}
					return run(p)
				}); err != nil {
					panic(err)
				}
			}()
			tty.got(t, leaveScreen)
			if after := tty.termios(t); after != before {
				t.Errorf("it was %+v and is %+v", before, after)
			}
		})
	}
}

// A terminal that takes nothing any more gets back what it can.
func TestAbandonedTerminal(t *testing.T) {
	tty := newPty(t)
	before := tty.termios(t)
	term := &terminal{in: tty.program, out: tty.program}
	if err := term.enter(); err != nil {
		t.Fatal(err)
	}
	term.abandon()
	if after := tty.termios(t); after != before {
		t.Errorf("it was %+v and is %+v", before, after)
	}
	tty.got(t, leaveScreen)
}
