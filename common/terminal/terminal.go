// Package terminal tells terminals from other files.
package terminal

import "golang.org/x/sys/unix"

// Is says whether a descriptor is one of a terminal (termios(3)).
func Is(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, getTermios)
	return err == nil
}

// Columns is how wide the terminal of a descriptor is, 0 where that is not
// known.
func Columns(fd int) int {
	size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
