package tui

import "golang.org/x/sys/unix"

// The second throws away what was typed and not read, such as the rest of a
// report of the mouse; the third does not wait for the output.
const (
	getTermios    = unix.TIOCGETA
	setTermios    = unix.TIOCSETAF
	setTermiosNow = unix.TIOCSETA
)
