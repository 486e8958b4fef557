package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// MaxFds is the largest number of descriptors of one frame.
	MaxFds = 64
	// maxQueue bounds what may wait to be written on a connection, in bytes.
	// The peer that lets more pile up is disconnected.
	maxQueue = 16 << 20
	// lowWater is the queue length below which WaitDrained returns, in bytes.
	lowWater = 64 << 10
	// writeChunk is about how many bytes go into one sendmsg.
	writeChunk = 128 << 10
	// holdMost is how many bytes Hold collects: the peer is to begin soon.
	holdMost = 16 << 10
)

// ErrOverflow is returned by Send when the peer does not read and the queue is
// full. The connection is closed then.
var ErrOverflow = errors.New("peer does not read its messages: disconnected")

// Conn is one end of a link. Read belongs to one goroutine; Send, Hold,
// Release, WaitDrained and Close may be called from any.
type Conn struct {
	file *os.File
	raw  syscall.RawConn

	// Stall is how long the peer may take from the first Read to the end of
	// its first frame, and from the first byte of each further one to its last;
	// 0 is for ever. It is set before the first Read.
	Stall time.Duration
	// NoFds refuses descriptors: a frame that comes with some ends the
	// connection. It is set before the first Read.
	NoFds bool

	// Owned by the reader.
	buf     []byte // received and not yet parsed: buf[start:]
	start   int
	heard   bool      // a whole frame has come
	begun   time.Time // since when a frame is under way, zero if none is
	armed   bool      // the socket has a deadline for it
	fds     []int     // received and not yet claimed by a frame
	control []byte

	mu      sync.Mutex
	cond    *sync.Cond // signalled when any of the following changes
	queue   []byte     // empty while nothing has to wait: Send writes by itself
	held    bool       // between Hold and Release
	marks   []mark
	sending int  // bytes that the writer has taken and not yet written
	started bool // the writer goroutine runs
	resting bool // after Suspend
	closed  bool
	err     error // why nothing can be sent any more
}

// mark attaches descriptors to the frame that starts at an offset of the
// queue. They are duplicates that the queue owns.
type mark struct {
	Off int   `msgpack:"off"`
	Fds []int `msgpack:"fds"`
}

// NewConn takes over a connected stream socket.
func NewConn(fd int) (*Conn, error) {
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot use descriptor %d as a link: %w", fd, err)
	}
	return newConn(fd)
}

// newConn is NewConn of a descriptor that has its flags.
func newConn(fd int) (*Conn, error) {
	f := os.NewFile(uintptr(fd), "link")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot use descriptor %d as a link: %w", fd, err)
	}
	c := &Conn{file: f, raw: raw}
	c.cond = sync.NewCond(&c.mu)
	return c, nil
}

// Pair returns the two ends of a new socket pair, both close-on-exec: one as
// a link, the other as a descriptor for a child.
func Pair() (*Conn, int, error) {
	p, err := SocketPair()
	if err != nil {
		return nil, -1, fmt.Errorf("cannot make a socket pair: %w", err)
	}
	c, err := NewConn(p[0])
	if err != nil {
		unix.Close(p[1])
		return nil, -1, err
	}
	return c, p[1], nil
}

// Credentials say who a process is.
type Credentials struct {
	Pid      int // 0 for one of another pid namespace
	Uid, Gid int
}

// Peer returns the credentials of the process at the other end, as they were
// when it connected.
func (c *Conn) Peer() (peer Credentials, err error) {
	cerr := c.raw.Control(func(fd uintptr) { peer, err = credentials(int(fd)) })
	if err = errors.Join(cerr, err); err != nil {
		return Credentials{}, fmt.Errorf("cannot tell who is connected: %w", err)
	}
	return peer, nil
}

// Fd returns the number of the socket, -1 when it is closed.
func (c *Conn) Fd() int {
	n := -1
	c.raw.Control(func(fd uintptr) { n = int(fd) })
	return n
}

// Read returns the next frame. io.EOF means that the peer closed the
// connection between two frames; every other error is final as well.
func (c *Conn) Read() (f Frame, err error) {
	defer func() {
		if err != nil && err != ErrSuspended { // descriptors whose frame never came
			closeAll(c.fds)
			c.fds = nil
		}
	}()
	for {
		f, ok, err := c.next()
		if ok || err != nil {
			c.heard, c.begun = true, time.Time{}
			if c.armed {
				c.armed = false
				c.file.SetReadDeadline(time.Time{})
			}
			return f, err
		}
		// From the first byte on: who sends one now and then stalls as well.
		if c.Stall > 0 && c.begun.IsZero() && (!c.heard || len(c.buf) > c.start) {
			c.begun = time.Now()
		}
		if err := c.fill(); err != nil {
			switch {
			case c.suspended(err):
				return Frame{}, ErrSuspended
			case err == io.EOF && len(c.buf) > c.start:
				err = io.ErrUnexpectedEOF
			case errors.Is(err, os.ErrDeadlineExceeded) && len(c.buf) == c.start:
				err = fmt.Errorf("nothing was said within %v", c.Stall)
			case errors.Is(err, os.ErrDeadlineExceeded):
				err = fmt.Errorf("a frame was begun and is not whole after %v", c.Stall)
			}
			return Frame{}, err
		}
	}
}

// ReadAll returns the next frame and those that have come whole with it.
func (c *Conn) ReadAll() ([]Frame, error) {
	f, err := c.Read()
	if err != nil {
		return nil, err
	}
	frames := []Frame{f}
	for {
		f, ok, err := c.next()
		if !ok || err != nil { // which the next call finds again
			return frames, nil
		}
		frames = append(frames, f)
	}
}

// Pending says whether Read will return at once, since a frame has come with the
// one before. It belongs to the goroutine that reads.
func (c *Conn) Pending() bool {
	have := c.buf[c.start:]
	return len(have) >= headerSize && uint32(len(have)-headerSize) >= binary.BigEndian.Uint32(have)
}

// next takes one whole frame from the buffer, if there is one.
func (c *Conn) next() (Frame, bool, error) {
	have := c.buf[c.start:]
	if len(have) < headerSize {
		return Frame{}, false, nil
	}
	size := binary.BigEndian.Uint32(have)
	if size > MaxFrame {
		return Frame{}, false, ErrTooLarge
	}
	end := headerSize + int(size)
	if len(have) < end {
		return Frame{}, false, nil
	}
	kind, body, n, err := parsePayload(have[headerSize:end])
	if err != nil {
		return Frame{}, false, err
	}
	if n > len(c.fds) {
		return Frame{}, false, fmt.Errorf("frame of kind %d announces %d descriptors, %d came", kind, n, len(c.fds))
	}
	f := Frame{Kind: kind, Body: append([]byte(nil), body...)}
	if n > 0 {
		f.Fds = append([]int(nil), c.fds[:n]...)
		c.fds = append(c.fds[:0], c.fds[n:]...)
	}
	c.start += end
	return f, true, nil
}

// fill reads once from the socket, into a buffer that grows to the largest
// frame under way and shrinks again when it is empty.
func (c *Conn) fill() error {
	if c.start == len(c.buf) {
		c.start, c.buf = 0, c.buf[:0]
		if cap(c.buf) > 64<<10 {
			c.buf = nil
		}
	} else if c.start > 0 {
		c.buf = c.buf[:copy(c.buf, c.buf[c.start:])]
		c.start = 0
	}
	if len(c.buf) == cap(c.buf) {
		grown := make([]byte, len(c.buf), max(4<<10, 2*cap(c.buf)))
		copy(grown, c.buf)
		c.buf = grown
	}
	if c.control == nil && !c.NoFds {
		c.control = make([]byte, unix.CmsgSpace(4*MaxFds))
	}
	var n, flags int
	var rights []int
	var err error
	rerr := c.raw.Read(func(fd uintptr) bool {
		n, rights, flags, err = recv(int(fd), c.buf[len(c.buf):cap(c.buf)], c.control)
		if err == unix.EAGAIN && !c.begun.IsZero() && !c.armed {
			// Only now: a timer costs more than a frame that is there.
			c.armed = true
			c.file.SetReadDeadline(c.begun.Add(c.Stall))
		}
		return err != unix.EAGAIN
	})
	c.fds = append(c.fds, rights...)
	switch {
	case rerr != nil:
		return fmt.Errorf("cannot read: %w", rerr)
	case err != nil:
		return fmt.Errorf("cannot read: %w", err)
	case flags&unix.MSG_CTRUNC != 0 && c.NoFds:
		return errors.New("descriptors are not taken on this link")
	case flags&unix.MSG_CTRUNC != 0:
		return errors.New("descriptors of a message were lost: no descriptors left in this process?")
	case len(c.fds) > 4*MaxFds:
		return errors.New("descriptors came that no frame announced")
	case n == 0:
		return io.EOF
	}
	c.buf = c.buf[:len(c.buf)+n]
	return nil
}

// recv is one recvmsg, with the descriptors taken out of its control data. A
// nil control buffer makes the kernel discard descriptors and set MSG_CTRUNC.
func recv(fd int, p, control []byte) (n int, rights []int, flags int, err error) {
	var oobn int
	for {
		n, oobn, flags, err = recvmsg(fd, p, control)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil || oobn == 0 {
		return n, nil, flags, err
	}
	msgs, err := unix.ParseSocketControlMessage(control[:oobn])
	if err != nil {
		return n, nil, flags, err
	}
	for _, m := range msgs {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			rights = append(rights, got...)
		}
	}
	return n, rights, flags, nil
}

// Send writes or queues a message and returns; it never blocks. The caller may
// close the descriptors at once.
func (c *Conn) Send(kind Kind, body any, fds ...int) error {
	if len(fds) > MaxFds {
		return fmt.Errorf("cannot send %d descriptors with one frame, at most %d", len(fds), MaxFds)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	off := len(c.queue)
	q, err := appendFrame(c.queue, kind, body, len(fds))
	if err != nil {
		return err
	}
	if c.held && len(fds) == 0 {
		c.queue = q
		if len(q) >= holdMost {
			c.pushLocked()
		}
		return nil
	}
	if off == 0 && c.sending == 0 {
		// Nothing is before it. The writer would be a switch of threads away.
		n := c.sendNow(q, fds)
		if n == len(q) {
			c.queue = reuse(q)
			return nil
		}
		if n > 0 {
			q, fds = q[:copy(q, q[n:])], nil
		}
	}
	dups, err := dupAll(fds)
	if err != nil {
		c.queue = q[:off]
		return err
	}
	c.queue = q
	if len(dups) > 0 {
		c.marks = append(c.marks, mark{Off: off, Fds: dups})
	}
	return c.queuedLocked()
}

// queuedLocked has the writer write what was queued.
func (c *Conn) queuedLocked() error {
	if len(c.queue) > maxQueue {
		c.closeLocked(ErrOverflow)
		return ErrOverflow
	}
	if !c.started {
		c.started = true
		go c.writeLoop()
	}
	c.cond.Broadcast()
	return nil
}

// Hold collects messages without descriptors until Release, or until they are
// many: one call of the kernel then serves all of them at either end.
func (c *Conn) Hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
}

// Release writes or queues what was held.
func (c *Conn) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
	c.pushLocked()
}

func (c *Conn) pushLocked() {
	if len(c.queue) == 0 || c.err != nil {
		return
	}
	if c.sending == 0 && len(c.marks) == 0 {
		n := c.sendNow(c.queue, nil)
		if n == len(c.queue) {
			c.queue = reuse(c.queue)
			return
		}
		c.queue = c.queue[:copy(c.queue, c.queue[n:])]
	}
	c.queuedLocked()
}

// WaitDrained blocks until little is waiting to be written, so that a stream
// goes as fast as its reader. It returns the error that ended the connection.
func (c *Conn) WaitDrained() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && len(c.queue)+c.sending > lowWater {
		c.cond.Wait()
	}
	return c.err
}

// Flush blocks until all that was sent is with the kernel, held or not.
func (c *Conn) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pushLocked()
	for c.err == nil && len(c.queue)+c.sending > 0 {
		c.cond.Wait()
	}
	return c.err
}

// Close ends the connection; what was queued and not yet written is dropped.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked(os.ErrClosed)
}

func (c *Conn) closeLocked(err error) {
	c.muteLocked(err)
	if !c.closed {
		c.closed = true
		c.file.Close()
	}
}

// muteLocked ends the sending. What the peer said before it hung up can still
// be read: it may be why.
func (c *Conn) muteLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	for _, m := range c.marks {
		closeAll(m.Fds)
	}
	c.queue, c.marks = nil, nil
	c.cond.Broadcast()
}

// writeLoop writes what Send queued, many frames at a time.
func (c *Conn) writeLoop() {
	var spare []byte
	for {
		c.mu.Lock()
		for (len(c.queue) == 0 || c.resting) && c.err == nil {
			c.cond.Wait()
		}
		if c.err != nil {
			c.mu.Unlock()
			return
		}
		queue, marks := c.queue, c.marks
		c.queue, c.marks, c.sending = spare[:0], nil, len(queue)
		c.mu.Unlock()

		n, left, err := c.write(queue, marks)

		c.mu.Lock()
		c.sending = 0
		if err != nil && c.resting && c.err == nil {
			c.putBack(queue[n:], left)
		} else if err != nil {
			for _, m := range left {
				closeAll(m.Fds)
			}
			c.muteLocked(err)
		}
		c.cond.Broadcast()
		c.mu.Unlock()
		spare = reuse(queue)
	}
}

// reuse returns a written queue empty, or nothing in place of a large one,
// which few moments need.
func reuse(queue []byte) []byte {
	if cap(queue) > lowWater {
		return nil
	}
	return queue[:0]
}

// write sends a run of frames. Descriptors travel with the bytes of the first
// frame of a chunk that has some: never later than their frame, which is all
// that a reader needs, who takes them from a queue. It returns how many bytes
// it has written, and with an error the descriptors that have not gone, by
// their place after those bytes.
func (c *Conn) write(queue []byte, marks []mark) (off int, left []mark, err error) {
	for off < len(queue) {
		end := min(len(queue), off+writeChunk)
		var rights []int
		taken := 0
		for _, m := range marks {
			if m.Off >= end {
				break
			}
			if len(rights)+len(m.Fds) > MaxFds {
				end = m.Off
				break
			}
			rights = append(rights, m.Fds...)
			taken++
		}
		var control []byte
		if len(rights) > 0 {
			control = unix.UnixRights(rights...)
		}
		n, err := c.send(queue[off:end], control)
		if err != nil {
			for _, m := range marks {
				left = append(left, mark{m.Off - off, m.Fds})
			}
			return off, left, fmt.Errorf("cannot write: %w", err)
		}
		for _, m := range marks[:taken] {
			closeAll(m.Fds)
		}
		marks = marks[taken:]
		off += n
	}
	return off, nil, nil
}

// sendNow writes what the kernel takes at once, and returns how much. What
// went wrong the writer finds out, too.
func (c *Conn) sendNow(p []byte, fds []int) (n int) {
	var control []byte
	if len(fds) > 0 {
		control = unix.UnixRights(fds...)
	}
	c.raw.Control(func(fd uintptr) {
		n, _ = unix.SendmsgN(int(fd), p, control, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	})
	return max(n, 0)
}

func (c *Conn) send(p, control []byte) (n int, err error) {
	for {
		werr := c.raw.Write(func(fd uintptr) bool {
			n, err = unix.SendmsgN(int(fd), p, control, nil, unix.MSG_NOSIGNAL)
			return err != unix.EAGAIN
		})
		switch {
		case werr != nil:
			return 0, werr
		case err == unix.EINTR:
		case err == unix.ETOOMANYREFS:
			// An ordinary user may have only so many descriptors on their way
			// (RLIMIT_NOFILE); they are there again when the peer has read.
			time.Sleep(5 * time.Millisecond)
		default:
			return n, err
		}
	}
}

func dupAll(fds []int) ([]int, error) {
	var dups []int
	for _, fd := range fds {
		d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			closeAll(dups)
			return nil, fmt.Errorf("cannot duplicate descriptor %d: %w", fd, err)
		}
		dups = append(dups, d)
	}
	return dups, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// CloseFds closes the descriptors of a frame that is refused.
func (f Frame) CloseFds() { closeAll(f.Fds) }
