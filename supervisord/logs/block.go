package logs

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// This is the part of the loop in log files: it counts what it has to drop
// before they have it, and with on_full = "block" it rather lets the service
// wait, by not reading its pipes.

// pass moves the cursor of w behind a segment that is about to be dropped, and
// counts what is lost; the caller holds Capture.mu.
func (w *logFile) pass(seg *segment) {
	if w.cursor.segment > seg.number {
		return
	}
	if w.cursor.segment < seg.number {
		w.cursor = position{segment: seg.number}
	}
	n := seg.data - w.cursor.offset
	if n > 0 {
		w.lost.Bytes += n
		if fd, err := unix.Open(w.capture.path(w.service, seg.number, "log"), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err == nil {
			w.lost.Lines += countNewlines(fd, w.cursor.offset)
			unix.Close(fd)
		}
	}
	w.cursor = position{segment: seg.number + 1}
	if n > 0 {
		w.saveLost() // where it cannot be, a crash would forget the number
	}
}

func countNewlines(fd int, at int64) (lines int64) {
	buf := make([]byte, 128<<10)
	for {
		n, _ := unix.Pread(fd, buf, at)
		if n <= 0 {
			return lines
		}
		lines += int64(bytes.Count(buf[:n], []byte{'\n'}))
		at += int64(n)
	}
}

// behind returns how many bytes of the chain the log file of s has not got.
func (c *Capture) behind(s *service) (n int64) {
	c.mu.Lock()
	at := s.file.cursor
	c.mu.Unlock()
	for i := len(s.segments) - 1; i >= 0 && s.segments[i].number >= at.segment; i-- {
		n += s.segments[i].data
		if s.segments[i].number == at.segment {
			n -= at.offset
		}
	}
	return n
}

// owed reports whether the oldest segment of s must be kept for a log file
// that the service waits for.
func (c *Capture) owed(s *service) bool {
	return s.file != nil && s.file.options.Block && c.unread(s)
}

// unread reports whether the log file of s has not got all of its oldest
// segment.
func (c *Capture) unread(s *service) bool {
	c.mu.Lock()
	at := s.file.cursor
	c.mu.Unlock()
	seg := s.segments[0]
	return at.segment < seg.number || at.segment == seg.number && (at.offset < seg.data || at.records < seg.index/recordSize)
}

// maxBehind is how many bytes a log file may be behind before the service has
// to wait. The waiting services have half of the memory together.
func (c *Capture) maxBehind() int64 {
	return max(pipeSize, min(c.options.PerService/2, c.options.Memory/2/int64(c.blocking)))
}

// mustWait reports whether the service of a pipe has to wait for its log file,
// and stops reading its pipes then.
func (c *Capture) mustWait(s *service) bool {
	if s.file == nil || !s.file.options.Block || c.behind(s) < c.maxBehind() {
		return false
	}
	c.pause(s, c.maxBehind()/2)
	return s.waiting
}

// pause stops reading the pipes of s until its log file is so many bytes
// behind at most.
func (c *Capture) pause(s *service, behind int64) {
	s.waiting, s.goOnAt = true, behind
	for _, p := range s.pipes {
		c.poll.remove(p.fd)
	}
	s.file.waiting.Store(true)
	// The last commit may have come before it could know.
	c.mayGoOn(s)
}

// mayGoOn reads the pipes of s again if they are no longer to wait.
func (c *Capture) mayGoOn(s *service) {
	if !s.waiting || s.file != nil && s.file.options.Block && c.behind(s) > s.goOnAt {
		return
	}
	s.waiting = false
	if s.file != nil {
		s.file.waiting.Store(false)
	}
	for _, p := range s.pipes {
		if err := c.poll.add(p.fd); err != nil {
			c.log.Error("cannot read output any more", "service", s.name, "stream", p.stream, "error", err)
		}
	}
}
