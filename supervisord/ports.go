package main

import (
	"fmt"
)

// holder is who listens on a TCP port.
type holder struct {
	port uint16
	// pid is 0 where it cannot be told: another user's process, or another
	// namespace's.
	pid     int
	command string
}

func (h holder) String() string {
	if h.pid == 0 {
		return fmt.Sprintf("port %d is in use by a process that cannot be seen from here", h.port)
	}
	return fmt.Sprintf("port %d is in use by pid %d, %s", h.port, h.pid, h.command)
}
