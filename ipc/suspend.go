package ipc

import (
	"errors"
	"os"
	"time"
)

// ErrSuspended is returned by Read on a connection that rests.
var ErrSuspended = errors.New("the link is suspended")

// Suspended is a connection at rest: all that a process needs to go on with it
// after an execve, in the middle of a frame if need be. The descriptors are
// those of the connection, close-on-exec as ever.
type Suspended struct {
	Fd int `msgpack:"fd"`
	// In is received and not yet a whole frame, InFds came with it.
	In    []byte `msgpack:"in,omitempty"`
	InFds []int  `msgpack:"in_fds,omitempty"`
	// Out is queued and not yet written, Marks are the descriptors in it.
	Out   []byte `msgpack:"out,omitempty"`
	Marks []mark `msgpack:"marks,omitempty"`
}

// Suspend puts a connection without Stall to rest: Read returns ErrSuspended
// instead of waiting, and nothing is written that has to wait. Until Resume,
// Send and Close are as ever.
func (c *Conn) Suspend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resting = true
	c.file.SetDeadline(time.Unix(1, 0)) // wakes both sides; long over
	for c.sending > 0 {
		c.cond.Wait()
	}
}

// Resume ends a rest.
func (c *Conn) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resting = false
	c.file.SetDeadline(time.Time{})
	c.cond.Broadcast()
}

// State returns what there is of a connection at rest, after Read has returned
// ErrSuspended.
func (c *Conn) State() (s Suspended, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return s, c.err
	}
	s = Suspended{In: c.buf[c.start:], InFds: c.fds, Out: c.queue, Marks: c.marks}
	err = c.raw.Control(func(fd uintptr) { s.Fd = int(fd) })
	return s, err
}

// Restore goes on with a connection that another program has put to rest.
func Restore(s Suspended) (*Conn, error) {
	c, err := NewConn(s.Fd)
	if err != nil {
		return nil, err
	}
	c.buf, c.fds, c.queue, c.marks = s.In, s.InFds, s.Out, s.Marks
	if len(c.queue) > 0 {
		c.started = true
		go c.writeLoop()
	}
	return c, nil
}

// Fds are all descriptors of a connection at rest.
func (s *Suspended) Fds() []int {
	fds := append([]int{s.Fd}, s.InFds...)
	for _, m := range s.Marks {
		fds = append(fds, m.Fds...)
	}
	return fds
}

// suspended says whether a read has failed only because of a rest.
func (c *Conn) suspended(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resting && errors.Is(err, os.ErrDeadlineExceeded)
}

// putBack queues again what the writer had taken and not written. Called with
// the lock held.
func (c *Conn) putBack(queue []byte, marks []mark) {
	queue = append([]byte(nil), queue...)
	for _, m := range c.marks {
		marks = append(marks, mark{m.Off + len(queue), m.Fds})
	}
	c.queue, c.marks = append(queue, c.queue...), marks
}
