package logs

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pipeSize = 64 << 10 // of a pipe, unless changed (pipe(7))
	// maxTurn bounds the bytes that one pipe moves before others have their
	// turn.
	maxTurn = 1 << 20
	// sameChunk is the time within which successive chunks of one stream share
	// a record, and so a time, when no other stream had one in between.
	sameChunk = int64(100 * time.Microsecond)
)

// maxSegment is the size at which the next segment is begun; a variable so
// that tests have many.
var maxSegment int64 = 1 << 20

// Capture stores the output of services.
type Capture struct {
	options     Options
	log         *slog.Logger
	segmentSize int64
	poll        *poller
	null        int
	closed      chan struct{} // closed when the loop has ended

	// owner is held by whoever writes, rotates and deletes: the loop between two
	// waits, or do. It guards what follows, and is taken before mu.
	owner    sync.Mutex
	closing  bool
	pipes    []*pipe // by descriptor
	ages     ages    // services that have segments, by the age of the oldest one
	used     int64   // bytes of all files, in whole pages
	latest   *pipe   // of the newest chunk of all
	dirty    []*service
	scratch  []byte
	enlarged int       // pipes larger than pipeSize
	copying  bool      // it was said that splice is refused
	dropped  time.Time // when it was last said that output is dropped

	following atomic.Int32   // number of followers
	blocking  int            // log files that services wait for; guarded by owner
	writers   chan struct{}  // a place for each log file that is being written
	writing   sync.WaitGroup // the goroutines of log files

	mu        sync.Mutex             // the owner holds it to write what follows, all others to read it
	services  map[string]*service    // and of each: segments, lines, file
	followers map[*follower]struct{} // and their cursors
}

type streamKey struct {
	run    uint64
	stream Stream
}

// pipe is the read end of one stream of one run. There are two for each service, so
// it is kept small.
type pipe struct {
	fd       int
	run      uint64
	service  *service
	stream   Stream
	copied   bool  // splice is refused: read and write
	enlarged bool  // it holds fastPipe bytes
	full     uint8 // turns in a row that found the pipe full

	// Where its newest byte went: segment number, 0 = none or not known, and
	// the offset behind it.
	segment uint32
	end     int64
	// What its next record has to say: it begins in the middle of a line (told
	// once a segment), bytes were discarded, and with them so many lines.
	mid, gap bool
	lost     uint32
}

// validName says whether a service may have this name, which becomes that of a
// directory.
func validName(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("_.@:-", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// Open starts capturing into o.Dir and takes up what an earlier process has
// left there. Lines of services that nobody Configures are all kept.
func Open(o Options) (*Capture, error) {
	if o.Memory <= 0 {
		o.Memory = 64 << 20
	}
	if o.PerService <= 0 {
		o.PerService = 8 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	// Without it services are heard and not kept, which is better than not heard.
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		o.Logger.Error("cannot create the log directory: output is dropped until it can be had", "error", err)
	}
	null, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		null = -1 // there is no /dev: what is dropped is read
	}
	poll, err := newPoller()
	if err != nil {
		unix.Close(null)
		return nil, err
	}
	c := &Capture{
		options: o,
		log:     o.Logger,
		// Small enough that dropping one leaves most of the chain.
		segmentSize: max(64<<10, min(maxSegment, o.Memory/4, o.PerService/4)),
		poll:        poll,
		null:        null,
		closed:      make(chan struct{}),
		services:    map[string]*service{},
		followers:   map[*follower]struct{}{},
		writers:     make(chan struct{}, maxWriters),
	}
	if err := c.recover(); err != nil {
		poll.close()
		unix.Close(null)
		return nil, err
	}
	go c.loop()
	return c, nil
}

// Configure sets how many of the newest lines of a service readers are shown;
// negative = all, 0 = none, and nothing is stored but for the log file.
func (c *Capture) Configure(service string, bufferLines int) {
	c.do(func() {
		s := c.service(service)
		c.mu.Lock()
		s.lines = bufferLines
		c.mu.Unlock()
		if !s.stores() {
			for len(s.segments) > 0 {
				c.dropOldest(s)
			}
		}
	})
}

// Add takes over fd, the read end of a pipe that a run of service writes to,
// unless it returns an error.
func (c *Capture) Add(service string, run uint64, s Stream, fd int) error {
	if !validName(service) {
		return fmt.Errorf("cannot capture %s of service %q: not a service name", s, service)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("cannot capture %s of service %s: descriptor %d: %w", s, service, fd, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return fmt.Errorf("cannot capture %s of service %s: descriptor %d is not a pipe", s, service, fd)
	}
	var err error
	closed := c.do(func() {
		o := c.services[service]
		if o != nil && slices.ContainsFunc(o.pipes, func(p *pipe) bool { return p.run == run && p.stream == s }) {
			err = fmt.Errorf("cannot capture %s of service %s: run %d has one already", s, service, run)
			return
		}
		if o == nil || !o.waiting {
			if err = c.poll.add(fd); err != nil {
				err = fmt.Errorf("cannot capture %s of service %s: %w", s, service, err)
				return
			}
		}
		o = c.service(service)
		p := &o.own[s]
		if p.service != nil { // of an earlier run
			p = new(pipe)
		}
		*p = pipe{fd: fd, run: run, stream: s, service: o}
		o.pipes = append(o.pipes, p)
		if fd >= len(c.pipes) {
			c.pipes = append(c.pipes, make([]*pipe, fd+1-len(c.pipes))...)
		}
		c.pipes[fd] = p
	})
	if closed != nil {
		return closed
	}
	return err
}

// Drain returns when everything that was in the pipes of runs at the time of
// the call is stored. What is written meanwhile may be, too. It does not wait
// for a log file.
func (c *Capture) Drain(runs ...uint64) {
	wanted := make(map[uint64]bool, len(runs))
	for _, run := range runs {
		wanted[run] = true
	}
	c.do(func() {
		for _, p := range c.pipes {
			if p == nil || !wanted[p.run] {
				continue
			}
			for n := buffered(p.fd); n > 0; {
				m, err := c.store(p, n)
				if m <= 0 || err != nil {
					break
				}
				n -= m
			}
		}
	})
}

// Remove deletes what is kept of a service and forgets its name. Pipes that
// still have a writer are emptied until the last one goes. A log file stays;
// what is stored is written to it first, if that is possible within a second.
func (c *Capture) Remove(service string) {
	c.flush(time.After(flushOnEnd), service)
	c.do(func() {
		s := c.services[service]
		if s == nil {
			return
		}
		c.endFile(s)
		s.removed = true
		for len(s.segments) > 0 {
			c.dropOldest(s)
		}
		c.mu.Lock()
		delete(c.services, service)
		for f := range c.followers {
			delete(f.cursors, s)
			f.mark(s)
		}
		c.mu.Unlock()
		os.Remove(c.dir(s)) // not where a stranger has put something into it
	})
}

// Mend begins new segments where somebody has deleted the present ones, with
// all the lines that are gone, and says whether that was so.
func (c *Capture) Mend() (deleted bool) {
	c.do(func() {
		if err := os.MkdirAll(c.options.Dir, 0o700); err != nil {
			return // what is printed is dropped until it can be had
		}
		for _, s := range c.services {
			if seg := s.last(); seg != nil {
				var st unix.Stat_t
				if unix.Lstat(c.path(s, seg.number, "log"), &st) == unix.ENOENT {
					deleted = true
					for len(s.segments) > 0 {
						c.dropOldest(s)
					}
				}
			}
		}
	})
	return deleted
}

// Yield closes all files but log files. Those that are needed are opened again
// when something is printed.
func (c *Capture) Yield() {
	c.do(func() {
		for _, s := range c.services {
			s.closeFiles()
		}
	})
}

// Services returns the names that are configured or have lines, sorted.
func (c *Capture) Services() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]string, 0, len(c.services))
	for name := range c.services {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Close ends capturing and closes the pipes. The files stay; what is not in
// the log files yet will be written by the next process.
func (c *Capture) Close() {
	c.owner.Lock()
	if !c.closing {
		c.closing = true
		c.poll.wake()
	}
	c.owner.Unlock()
	<-c.closed
	c.mu.Lock()
	for _, s := range c.services {
		if s.file != nil {
			s.file.end()
		}
	}
	c.mu.Unlock()
	c.writing.Wait()
}

// do runs f while the loop rests.
func (c *Capture) do(f func()) error {
	c.owner.Lock()
	defer c.owner.Unlock()
	if c.closing {
		return ErrClosed
	}
	f()
	c.announce()
	return nil
}

func (c *Capture) loop() {
	for closing := false; !closing; {
		events := c.poll.wait()
		c.owner.Lock()
		c.poll.each(events, c.turn)
		c.announce()
		closing = c.closing
		c.owner.Unlock()
	}
	for _, p := range c.pipes {
		if p != nil {
			unix.Close(p.fd)
		}
	}
	for _, s := range c.services {
		s.closeFiles()
	}
	unix.Close(c.null)
	c.poll.close() // nobody wakes it any more: closing is set
	close(c.closed)
}

// service returns the service of that name, making it where there is none.
func (c *Capture) service(name string) *service {
	s := c.services[name]
	if s == nil {
		s = &service{name: name, lines: -1, next: 1, data: -1, index: -1, place: -1}
		s.pipes = s.two[:0]
		c.mu.Lock()
		c.services[name] = s
		c.mu.Unlock()
	}
	return s
}

// turn moves what is in a pipe that is ready; without data its writers have
// gone and it is empty.
func (c *Capture) turn(fd int, data bool) {
	if fd >= len(c.pipes) || c.pipes[fd] == nil {
		return
	}
	p := c.pipes[fd]
	if !data {
		c.end(p)
		return
	}
	if c.mustWait(p.service) {
		return
	}
	n, err := c.store(p, maxTurn)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
	case err != nil:
		c.log.Error("cannot read output, giving it up", "service", p.service.name, "stream", p.stream, "error", err)
		c.end(p)
	case n == 0:
		c.end(p)
	default:
		c.watchSpeed(p, n)
	}
}

// end lets go of a pipe that has no writer any more.
func (c *Capture) end(p *pipe) {
	c.storeEnd(p)
	c.poll.remove(p.fd)
	unix.Close(p.fd)
	c.pipes[p.fd] = nil
	if c.latest == p {
		c.latest = nil
	}
	s := p.service
	s.pipes = slices.DeleteFunc(s.pipes, func(o *pipe) bool { return o == p })
	if p.enlarged {
		c.enlarged--
	}
	if c.options.EOF != nil {
		c.options.EOF(p.run, p.stream)
	}
	*p = pipe{}
}

// store moves up to limit bytes from the pipe to the chain of its service, or
// away where they cannot be kept; it leaves a service waiting only for a log
// file.
func (c *Capture) store(p *pipe, limit int) (int, error) {
	if !p.service.stores() {
		n, err := spliceAway(p.fd, c.null, limit)
		if err != unix.EINVAL {
			return n, err
		}
		_, n, err = c.read(p, limit)
		return n, err
	}
	for {
		n, err := c.append(p, limit)
		switch {
		case err == nil || err == unix.EAGAIN:
			return n, err
		case err == unix.EINTR || c.makeRoom(p.service, err):
			continue
		}
		if s := p.service; s.file != nil && s.file.options.Block && c.behind(s) > 0 {
			// What is stored makes room when it is in the log file.
			c.pause(s, 0)
			return 0, unix.EAGAIN
		}
		c.say(p.service, err)
		b, n, err := c.read(p, limit)
		if n > 0 {
			p.lose(b)
		}
		return n, err
	}
}

// read takes what is in the pipe, up to limit and 64 KiB, without waiting.
func (c *Capture) read(p *pipe, limit int) ([]byte, int, error) {
	if c.scratch == nil {
		c.scratch = make([]byte, 64<<10)
	}
	n := min(limit, buffered(p.fd), len(c.scratch))
	if n == 0 {
		return nil, 0, unix.EAGAIN
	}
	n, err := unix.Read(p.fd, c.scratch[:n])
	return c.scratch[:max(n, 0)], n, err
}

// lose notes that b was discarded.
func (p *pipe) lose(b []byte) {
	for _, ch := range b {
		if ch == '\n' && p.lost < ^uint32(0) {
			p.lost++
		}
	}
	p.gap = true
	p.mid = b[len(b)-1] != '\n'
}

// say warns that output is dropped, at most once a minute.
func (c *Capture) say(s *service, err error) {
	if now := time.Now(); now.Sub(c.dropped) > time.Minute {
		c.dropped = now
		c.log.Warn("cannot store output, dropping it until it can be", "service", s.name, "dir", c.options.Dir, "error", err)
	}
}

// buffered returns how many bytes are in a pipe.
func buffered(fd int) int {
	n, err := unix.IoctlGetInt(fd, fionread)
	if err != nil {
		return 0
	}
	return n
}
