// Package sdnotify reads the messages of the sd_notify(3) protocol, by which
// a service tells its supervisor how it is. It is a pure function.
package sdnotify

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// MaxSize is the largest message, in bytes; systemd takes no more either
// (NOTIFY_BUFFER_MAX). A longer one is to be dropped as a whole.
const MaxSize = 4096

// Message is what one datagram said.
type Message struct {
	Ready, Stopping bool
	// Status is nil where nothing was said.
	Status *string
	// Watchdog is WATCHDOG=1, Trigger WATCHDOG=trigger.
	Watchdog, Trigger bool
	// MainPid is 0, Extend 0, Errno 0 where nothing was said.
	MainPid int
	Extend  time.Duration
	Errno   int
	// Barrier says that the sender waits until the descriptor that comes with
	// it is closed.
	Barrier bool
}

// Parse reads a datagram: lines of KEY=value, of which unknown ones and ones
// with bad values are passed over. It returns false for a datagram with a NUL
// in it, which no sender means.
func Parse(b []byte) (m Message, ok bool) {
	if bytes.IndexByte(b, 0) >= 0 {
		return m, false
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		key, value, found := strings.Cut(line, "=")
		if !found {
			continue
		}
		switch key {
		case "READY":
			m.Ready = m.Ready || value == "1"
		case "STOPPING":
			m.Stopping = m.Stopping || value == "1"
		case "STATUS":
			m.Status = &value
		case "WATCHDOG":
			m.Watchdog = m.Watchdog || value == "1"
			m.Trigger = m.Trigger || value == "trigger"
		case "MAINPID":
			if n, err := strconv.ParseInt(value, 10, 32); err == nil && n > 1 {
				m.MainPid = int(n)
			}
		case "EXTEND_TIMEOUT_USEC":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && n > 0 && n < int64(24*time.Hour/time.Microsecond)*365 {
				m.Extend = time.Duration(n) * time.Microsecond
			}
		case "ERRNO":
			if n, err := strconv.ParseInt(value, 10, 16); err == nil && n > 0 {
				m.Errno = int(n)
			}
		case "BARRIER":
			m.Barrier = m.Barrier || value == "1"
		}
	}
	return m, true
}
