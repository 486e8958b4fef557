package tui

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What is asked of the terminal while the program has it, and taken back: the
// other screen (1049), no cursor (25), clicks and the wheel (1000) as numbers
// (1006), and pastes that can be told from typing (2004). A terminal passes over
// what it does not know.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?1000h\x1b[?1006h\x1b[?2004h\x1b[2J"
	leaveScreen = "\x1b[?2026l\x1b[?2004l\x1b[?1006l\x1b[?1000l\x1b[0m\x1b[?25h\x1b[?1049l"
)

// terminal is the one that the program has for itself between enter and leave.
type terminal struct {
	in, out *os.File

	mu    sync.Mutex
	saved *unix.Termios // nil while it is as it was found
}

func (t *terminal) enter() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	saved, err := unix.IoctlGetTermios(int(t.in.Fd()), getTermios)
	if err != nil {
		return err
	}
	raw := *saved // cfmakeraw(3)
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(t.in.Fd()), setTermios, &raw); err != nil {
		return err
	}
	t.saved = saved
	_, err = t.out.WriteString(enterScreen)
	return err
}

// leave gives the terminal back as it was. It may be called again and from any
// goroutine.
func (t *terminal) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved == nil {
		return
	}
	t.out.WriteString(leaveScreen)
	unix.IoctlSetTermios(int(t.in.Fd()), setTermios, t.saved)
	t.saved = nil
}

// abandon gives back what it can of a terminal that takes no output any more.
func (t *terminal) abandon() {
	if saved := t.saved; saved != nil {
		unix.SetNonblock(int(t.out.Fd()), true)
		unix.Write(int(t.out.Fd()), []byte(leaveScreen))
		unix.SetNonblock(int(t.out.Fd()), false)
		unix.IoctlSetTermios(int(t.in.Fd()), setTermiosNow, saved)
	}
}

// size is how many columns and rows it has, 80 and 24 where it does not say.
func (t *terminal) size() Resize {
	ws, err := unix.IoctlGetWinsize(int(t.out.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return Resize{80, 24}
	}
	return Resize{int(ws.Col), int(ws.Row)}
}

// escapeDelay is how long the rest of a sequence may take: what comes after
// that is not of the same key.
const escapeDelay = 50 * time.Millisecond

// read hands on what is typed, until the terminal is gone.
func (t *terminal) read(event func(any)) {
	var pending []byte
	chunk := make([]byte, 4096)
	for {
		last := false
		if len(pending) > 0 {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(t.in.Fd()), Events: unix.POLLIN}}, int(escapeDelay.Milliseconds()))
			if err == unix.EINTR {
				continue
			}
			last = n == 0
		}
		if !last {
			n, err := t.in.Read(chunk)
			if err != nil {
				return
			}
			pending = append(pending, chunk[:n]...)
		}
		for len(pending) > 0 {
			ev, n := decode(pending, last)
			if n == 0 {
				break
			}
			if pending = pending[n:]; ev != nil {
				event(ev)
			}
		}
	}
}
