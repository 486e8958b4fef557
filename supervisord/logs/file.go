package logs

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// FileOptions says where the output of a service is written to beside the
// segments, in the format of the Kubernetes CRI: time, stream, F or P for a
// piece of a line that goes on, text.
type FileOptions struct {
	// Path is absolute; "" = no file. The directory has to be there. Symbolic
	// links and what is not a regular file are refused.
	Path string
	// MaxSize is the size in bytes at which the file becomes Path.1 and that
	// Path.2, and so on; 0 = never.
	MaxSize int64
	// MaxFiles is the number of the oldest one that is kept.
	MaxFiles int
	// Block lets the service wait when the file is too far behind, instead of
	// saying in the file what is missing.
	Block bool
}

// maxWriters bounds the log files that are written at the same time, and with
// them the threads that a slow disk can hold.
const maxWriters = 16

// A failing log file is tried again after retryAfter, then after twice as
// long, up to retryMax; only while there is something to write.
const (
	retryAfter = time.Second
	retryMax   = 30 * time.Second
)

// logFile copies the chain of a service to a file. It reads the segments as a
// follower does, in a goroutine that is there only while there is something to
// write, and opens its files only for so long: what others do to the file in
// between, moving or removing it, needs no further attention.
//
// Its state is the mark that holds (position.go), what the loop dropped unread
// (lost), and the bytes formatted since (out). Whatever fails, it goes back to
// the mark, so a failure takes the same way as a kill. While bytes are being
// written the cursor is behind them already: if the loop drops their segment
// meanwhile they do not count as lost, unless the write then fails.
type logFile struct {
	capture *Capture
	service *service

	// Guarded by Capture.mu; options are written by the loop.
	options FileOptions
	cursor  position // up to where the chain is written, or being written
	lost    loss     // dropped before it was written, in all
	more    bool     // there may be something to write
	running bool     // writeLoop is
	ended   bool     // it may not be started, and has to end
	done    chan struct{}
	retry   *time.Timer // not nil while it waits to be tried again
	pause   time.Duration

	// waiting is set by the loop while the service waits for the file.
	waiting atomic.Bool

	// Of writeLoop.
	path       string
	maxSize    int64
	maxFiles   int
	src        *source // src.at: everything before is written, in out or in lines
	based      position
	lines      map[streamKey]*begun
	unfinished int  // bytes in lines
	stated     loss // of lost
	took       loss // of the chain, since the mark
	mark       mark
	held, next []byte  // mark, and room for the next one, encoded
	unsure     *unsure // until it is resolved
	marks      int     // the open position file, or -1
	fd         int     // the open log file, or -1
	id         fileID
	size       int64 // of the log file
	limit      int64 // size at which it is rotated
	buf        []byte
	out        []byte
	stamp      []byte // stampOf as text
	stampOf    int64
	failing    bool // it was said that it cannot be written
	stuck      bool // it was said that it cannot be rotated
}

// SetFile sets the file that the output of a service is written to. It goes on
// where it, or an earlier process, has stopped, also in another file; without
// either it begins with what comes next. At the start it has to be called
// before Configure and Add, which may let go of what is not yet written. Where
// o.Path is empty, what is stored is written before, as Remove does. A service
// whose file is given to another one writes no more until it gets a new one.
func (c *Capture) SetFile(service string, o FileOptions) error {
	if o.Path == "" {
		c.mu.Lock()
		s := c.services[service]
		none := s == nil || s.file == nil && s.trouble == ""
		c.mu.Unlock()
		if none {
			return nil
		}
		c.flush(time.After(flushOnEnd), service)
	}
	var err error
	closed := c.do(func() {
		s := c.services[service]
		if o.Path == "" {
			if s != nil {
				c.endFile(s)
			}
			return
		}
		for _, other := range c.services {
			if other.file != nil && other.name != service && other.file.options.Path == o.Path {
				c.log.Warn("the log file is no longer that of another service", "service", service, "file", o.Path, "other", other.name)
				c.setOptions(other, FileOptions{})
			}
		}
		err = c.setFile(c.service(service), o)
	})
	if closed != nil {
		return closed
	}
	return err
}

func (c *Capture) setFile(s *service, o FileOptions) error {
	w := s.file
	if w == nil {
		w = &logFile{
			capture: c, service: s, marks: -1, fd: -1, lines: map[streamKey]*begun{},
			src: &source{service: s, files: &fileCache{capture: c, open: map[fileKey]*segmentFiles{}}},
		}
		if err := w.load(); err != nil {
			c.mu.Lock()
			s.trouble = err.Error()
			c.mu.Unlock()
			return fmt.Errorf("cannot write the log of %s to %s: %w", s.name, o.Path, err)
		}
		c.mu.Lock()
		s.file = w
		c.mu.Unlock()
	}
	c.setOptions(s, o)
	return nil
}

func (c *Capture) setOptions(s *service, o FileOptions) {
	w := s.file
	if w.options.Block {
		c.blocking--
	}
	if o.Block {
		c.blocking++
	}
	c.mu.Lock()
	w.options = o
	w.more = true
	w.tryNow()
	w.start()
	c.mu.Unlock()
	c.mayGoOn(s)
}

// endFile lets go of the log file of s, where it has one, whatever is not
// written yet.
func (c *Capture) endFile(s *service) {
	unix.Unlink(c.positionPath(s.name))
	w := s.file
	c.mu.Lock()
	s.file, s.trouble = nil, ""
	if w == nil {
		c.mu.Unlock()
		return
	}
	w.end()
	c.mu.Unlock()
	if w.options.Block {
		c.blocking--
	}
	c.mayGoOn(s)
	if !s.stores() {
		for len(s.segments) > 0 {
			c.dropOldest(s)
		}
	}
}

// end keeps w from going on; the caller holds Capture.mu.
func (w *logFile) end() {
	w.ended = true
	if w.retry != nil {
		w.retry.Stop()
	}
}

// FileTrouble says in words why the log file of a service is not written, and
// whether the service waits for it; "" where nothing is wrong.
func (c *Capture) FileTrouble(service string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.services[service]
	if s == nil || s.trouble == "" {
		return ""
	}
	why := "its log file cannot be written: " + s.trouble
	if s.file != nil && s.file.waiting.Load() {
		why += "; its output waits for that"
	}
	return why
}

// Reopen tries log files that could not be written again now. Those that were
// moved are found out without it.
func (c *Capture) Reopen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.services {
		if s.file != nil {
			s.file.tryNow()
		}
	}
}

// flushOnEnd bounds how long a log file may take that is let go of.
const flushOnEnd = time.Second

// Flush waits until all that is stored is in the log files, or they fail, or
// the time is over.
func (c *Capture) Flush(within time.Duration) {
	c.flush(time.After(within), c.Services()...)
}

func (c *Capture) flush(over <-chan time.Time, services ...string) {
	c.do(c.announce) // what is stored is known to the log files from here on
	for _, name := range services {
		for tried := false; ; {
			c.mu.Lock()
			s := c.services[name]
			if s == nil || s.file == nil || s.file.retry != nil && tried {
				c.mu.Unlock()
				break
			}
			w := s.file
			w.tryNow()
			tried = true
			running, done := w.running, w.done
			c.mu.Unlock()
			if !running {
				break
			}
			select {
			case <-done:
			case <-over:
				return
			}
		}
	}
}

// kick tells w that there may be more to write; the caller holds Capture.mu.
func (w *logFile) kick() {
	w.more = true
	if w.retry == nil {
		w.start()
	}
}

// tryNow ends the pause after a failure; the caller holds Capture.mu.
func (w *logFile) tryNow() {
	if w.retry != nil {
		w.retry.Stop()
		w.retry = nil
		w.start()
	}
}

// start runs writeLoop unless it is; the caller holds Capture.mu.
func (w *logFile) start() {
	if w.running || w.ended {
		return
	}
	w.running = true
	w.done = make(chan struct{})
	w.capture.writing.Add(1)
	go w.writeLoop()
}

// writeLoop writes what there is and ends.
func (w *logFile) writeLoop() {
	c := w.capture
	defer c.writing.Done()
	c.writers <- struct{}{}
	defer func() { <-c.writers }()
	b := buffers.Get().(*[2][]byte)
	defer buffers.Put(b)
	for {
		w.buf, w.out = b[0], b[1][:0]
		err := w.rounds()
		b[1] = w.out[:0]
		w.buf, w.out = nil, nil
		w.close()
		if w.marks >= 0 {
			unix.Close(w.marks)
			w.marks = -1
		}
		w.src.files.closeAll()
		if err != nil && !w.failing {
			w.failing = true
			c.log.Warn("the log file cannot be written, trying again until it can", "service", w.service.name, "error", err)
		}

		c.mu.Lock()
		if err == nil && w.more && !w.ended {
			c.mu.Unlock()
			continue
		}
		w.running = false
		w.service.trouble = ""
		close(w.done)
		w.pause = min(max(2*w.pause, retryAfter), retryMax)
		switch {
		case err == nil:
			w.pause = 0
		case !w.ended:
			w.more = true
			w.service.trouble = err.Error()
			w.retry = time.AfterFunc(w.pause, func() {
				c.mu.Lock()
				w.tryNow()
				c.mu.Unlock()
			})
		}
		c.mu.Unlock()
		return
	}
}

// buffers are for reading, and for lines to be written.
var buffers = sync.Pool{New: func() any { return &[2][]byte{make([]byte, 128<<10), nil} }}

// errDropped says that the loop has dropped what was about to be written.
var errDropped = errors.New("dropped")

// rounds writes until there is nothing more.
func (w *logFile) rounds() error {
	c := w.capture
	for {
		c.mu.Lock()
		more, ended := w.more, w.ended
		w.more = false
		o := w.options
		segments := w.service.numbers()
		c.mu.Unlock()
		if ended {
			return nil
		}
		if !more || o.Path == "" {
			return w.settle()
		}
		if o.Path != w.path {
			w.close()
			w.path = o.Path
		}
		w.maxSize, w.maxFiles = o.MaxSize, o.MaxFiles
		if w.unsure != nil {
			if err := w.resolve(); err != nil {
				return err
			}
		}
		if err := w.round(segments); err != nil {
			w.restore()
			if err != errDropped {
				return err
			}
			c.mu.Lock()
			w.more = true
			c.mu.Unlock()
		}
	}
}

// round writes what is in these segments.
func (w *logFile) round(segments []uint32) error {
	if err := w.catchUp(); err != nil {
		return err
	}
	w.src.begin(segments)
	for loaded := uint32(0); ; {
		p, ok := w.src.peek()
		if !ok {
			break
		}
		if loaded != 0 && w.src.loaded != loaded {
			w.src.files.closeAll() // deleted segments take no room longer than needed
		}
		loaded = w.src.loaded
		data, _, ok := w.src.take(p, w.buf)
		if !ok {
			continue
		}
		if err := w.feed(p, data); err != nil {
			return err
		}
	}
	if err := w.src.files.err; err != nil {
		w.src.files.err = nil
		return fmt.Errorf("cannot read what is stored: %w", err)
	}
	return w.commit()
}
