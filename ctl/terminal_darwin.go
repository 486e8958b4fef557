package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// terminalWidth says whether a file is a terminal, and how many columns it has.
func terminalWidth(f *os.File) (columns int, terminal bool) {
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TIOCGETA); err != nil {
		return 0, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, true
	}
	return int(size.Col), true
}
