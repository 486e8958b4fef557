package logs

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Tail calls yield for the newest lines that q asks for, ordered by time
// across services and exactly within a stream. A line whose end has not been
// written comes last, marked Partial. An error of yield ends it and is
// returned.
func (c *Capture) Tail(q Query, yield func(Line) error) error {
	select {
	case <-c.closed:
		return ErrClosed
	default:
	}
	r := c.newReader(q, yield)
	defer r.files.closeAll()
	for _, v := range c.views(&q) {
		r.add(v)
	}
	r.place(true)
	if err := r.round(r.all()); err != nil {
		return err
	}
	if r.files.err != nil {
		return fmt.Errorf("cannot read logs: %w", r.files.err)
	}
	return r.unfinished()
}

// Follow does what Tail does and goes on with every line as it is completed,
// until ctx is done, yield returns an error, which is returned, or Close. A
// yield that takes its time holds up nobody: lines that are dropped meanwhile
// are counted in a Line with Missed.
func (c *Capture) Follow(ctx context.Context, q Query, yield func(Line) error) error {
	f := &follower{
		query:   &q,
		wake:    make(chan struct{}, 1),
		touched: map[*service]struct{}{},
		cursors: map[*service]*cursor{},
	}
	r := c.newReader(q, yield)
	r.follower = f
	defer r.files.closeAll()
	c.mu.Lock()
	c.followers[f] = struct{}{}
	c.mu.Unlock()
	c.following.Add(1)
	defer func() {
		c.following.Add(-1)
		c.mu.Lock()
		delete(c.followers, f)
		c.mu.Unlock()
	}()

	for _, v := range c.views(&q) {
		r.add(v)
	}
	r.place(false)
	c.mu.Lock()
	for _, s := range r.sources {
		f.start(s)
	}
	c.mu.Unlock()
	sources := r.all()
	for {
		if err := r.round(sources); err != nil {
			return err
		}
		r.skip = 0
		var err error
		if sources, err = r.wait(ctx); err == errCaughtUp {
			return r.unfinished()
		} else if err != nil {
			return err
		}
	}
}

// errCaughtUp ends a Follow that has handed out all there is.
var errCaughtUp = errors.New("caught up")

// follower is what the loop knows of a Follow; guarded by Capture.mu.
type follower struct {
	query   *Query
	wake    chan struct{} // of size 1
	touched map[*service]struct{}
	cursors map[*service]*cursor
}

// cursor says up to where a follower has read a service. The loop moves it out
// of segments that it drops.
type cursor struct {
	position
	missed int64
	gap    bool
}

// mark tells the follower that there is something new of s.
func (f *follower) mark(s *service) {
	f.touched[s] = struct{}{}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// start makes the place of s the follower's. What was dropped since it was
// chosen is not counted: nobody has waited for it yet.
func (f *follower) start(s *source) {
	if cur := f.cursors[s.service]; cur != nil && cur.segment > s.at.segment {
		s.at = cur.position
		s.skip = 0
	}
	f.cursors[s.service] = &cursor{position: s.at}
	s.based = s.at
}

// pass moves the cursor behind a segment of s that is about to be dropped.
func (f *follower) pass(c *Capture, s *service, number uint32) {
	if !f.query.wants(s.name) {
		return
	}
	cur := f.cursors[s]
	if cur == nil {
		cur = &cursor{}
		f.cursors[s] = cur
	}
	if cur.segment > number {
		return
	}
	if cur.segment < number {
		cur.position = position{segment: number}
	}
	if files, err := openSegment(c, s, number); err == nil {
		lines, all := countLines(files, cur.position, make([]byte, 128<<10))
		files.close()
		cur.missed += lines
		cur.gap = cur.gap || !all
	}
	cur.position = position{segment: number + 1}
}

// touch remembers that there is something new of s, for the followers and the
// log file.
func (c *Capture) touch(s *service) {
	if !s.touched && (s.file != nil || c.following.Load() > 0) {
		s.touched = true
		c.dirty = append(c.dirty, s)
	}
}

// announce wakes the followers and log files of what was touched.
func (c *Capture) announce() {
	if len(c.dirty) == 0 {
		return
	}
	c.mu.Lock()
	for _, s := range c.dirty {
		s.touched = false
		if s.file != nil {
			s.file.kick()
		}
		for f := range c.followers {
			if f.query.wants(s.name) {
				f.mark(s)
			}
		}
	}
	c.mu.Unlock()
	c.dirty = c.dirty[:0]
}

// view is a service as a reader finds it.
type view struct {
	service  *service
	segments []uint32
	lines    int
}

// views returns what there is of the services of q.
func (c *Capture) views(q *Query) []view {
	c.mu.Lock()
	defer c.mu.Unlock()
	var vs []view
	for name, s := range c.services {
		if q.wants(name) {
			vs = append(vs, view{s, s.numbers(), s.lines})
		}
	}
	return vs
}

// numbers lists the segments; the caller holds Capture.mu.
func (s *service) numbers() []uint32 {
	numbers := make([]uint32, len(s.segments))
	for i, seg := range s.segments {
		numbers[i] = seg.number
	}
	return numbers
}

// readMost is how many bytes of output are read at once.
const readMost = 128 << 10

// reader merges the lines of several services. It belongs to one goroutine and
// holds one buffer and a few open files, however many services there are, and
// of each the lines that are unfinished.
type reader struct {
	capture  *Capture
	query    Query
	yield    func(Line) error
	follower *follower // nil for Tail
	files    *fileCache
	buf      []byte
	sources  map[*service]*source
	views    map[*service]view
	skip     int64 // so many matching lines are older than those wanted
}

func (c *Capture) newReader(q Query, yield func(Line) error) *reader {
	return &reader{
		capture: c,
		query:   q,
		yield:   yield,
		files:   &fileCache{capture: c, open: map[fileKey]*segmentFiles{}},
		sources: map[*service]*source{},
		views:   map[*service]view{},
	}
}

// room is where a piece is read to.
func (r *reader) room(p piece) []byte {
	if n := min(p.size, readMost); int64(len(r.buf)) < n {
		r.buf = make([]byte, n)
	}
	return r.buf
}

func (r *reader) add(v view) *source {
	s := &source{service: v.service, files: r.files, lines: map[streamKey]*line{}}
	r.sources[v.service] = s
	r.views[v.service] = v
	s.begin(v.segments)
	return s
}

func (r *reader) all() []*source {
	var list []*source
	for _, s := range r.sources {
		list = append(list, s)
	}
	return list
}

// emit hands out a line that is not too old and matches.
func (r *reader) emit(l Line) error {
	if !r.query.match(l) {
		return nil
	}
	if r.skip > 0 && l.Missed == 0 {
		r.skip--
		return nil
	}
	return r.yield(l)
}

// place puts all sources where the wanted lines begin. Lines that Tail shows
// unfinished count.
func (r *reader) place(unfinished bool) {
	var total int64
	for _, s := range r.sources {
		v := r.views[s.service]
		// How many lines have to be looked at, and how many of them matter.
		limit := int64(v.lines)
		if n := int64(r.query.Lines); n >= 0 && !r.query.filters() && (limit < 0 || n < limit) {
			limit = n
		}
		at, skip := r.startOf(s, v.segments, limit, unfinished)
		if r.query.Lines >= 0 {
			s.rewind(at)
			s.skip = skip
			total += r.count(s, unfinished, r.query.match)
		}
		s.rewind(at)
		s.skip = skip
	}
	if n := int64(r.query.Lines); n >= 0 {
		r.skip = max(0, total-n)
	}
}

// startOf returns the segment from which on the newest limit lines of s are
// whole, and how many lines in it come before them.
func (r *reader) startOf(s *source, segments []uint32, limit int64, unfinished bool) (number uint32, skip int64) {
	if len(segments) == 0 {
		return 0, 0
	}
	if limit < 0 {
		return segments[0], 0
	}
	for i := len(segments) - 1; ; i-- {
		s.rewind(segments[i])
		total := r.count(s, unfinished, func(Line) bool { return true })
		// A line that began before this segment must not be among them.
		if i == 0 || total >= limit && s.cut <= total-limit {
			return segments[i], max(0, total-limit)
		}
	}
}

// count walks through the round of s and counts lines.
func (r *reader) count(s *source, unfinished bool, match func(Line) bool) (n int64) {
	emit := func(l Line) error {
		if l.Missed == 0 && match(l) {
			n++
		}
		return nil
	}
	for {
		p, ok := s.peek()
		if !ok {
			break
		}
		data, next, ok := s.take(p, r.room(p))
		if !ok {
			continue
		}
		s.at = next
		s.feed(p, data, emit)
	}
	if unfinished {
		s.flush(emit)
	}
	return n
}

// round hands out what its sources have, merged by time.
func (r *reader) round(sources []*source) error {
	var h byTime
	for _, s := range sources {
		if p, ok := s.peek(); ok {
			s.when = p.time
			h = append(h, s)
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		s := h[0]
		if err := r.step(s); err != nil {
			return err
		}
		if p, ok := s.peek(); ok {
			s.when = p.time
			heap.Fix(&h, 0)
		} else {
			heap.Pop(&h)
		}
	}
	return nil
}

// step hands out the next piece of s.
func (r *reader) step(s *source) error {
	p, ok := s.peek()
	if !ok {
		return nil
	}
	data, next, ok := s.take(p, r.room(p))
	if !ok {
		return nil
	}
	if r.follower != nil && !r.commit(s, next) {
		return r.catchUp(s)
	}
	s.at = next
	return s.feed(p, data, r.emit)
}

// commit moves the follower's cursor to next, unless the loop has moved it
// because the segment was dropped: what was read is counted as missed then.
func (r *reader) commit(s *source, next position) bool {
	r.capture.mu.Lock()
	defer r.capture.mu.Unlock()
	cur := r.follower.cursors[s.service]
	if cur == nil || cur.position != s.based {
		return false
	}
	cur.position, s.based = next, next
	return true
}

// catchUp goes on where the loop has moved the cursor to, and tells of the
// lines that were missed.
func (r *reader) catchUp(s *source) error {
	r.capture.mu.Lock()
	cur := r.follower.cursors[s.service]
	if cur == nil {
		r.capture.mu.Unlock()
		s.begin(nil)
		return nil
	}
	missed, gap := cur.missed, cur.gap
	cur.missed, cur.gap = 0, false
	s.at, s.based = cur.position, cur.position
	r.capture.mu.Unlock()
	s.loaded = 0
	if gap {
		missed -= s.reset()
	}
	unwanted := min(missed, s.skip)
	s.skip -= unwanted
	missed -= unwanted
	unwanted = min(missed, r.skip)
	r.skip -= unwanted
	missed -= unwanted
	if missed <= 0 {
		return nil
	}
	return r.yield(Line{Time: time.Now(), Service: s.service.name, Missed: missed})
}

// wait blocks until there is something new and returns whose, ready for a
// round.
func (r *reader) wait(ctx context.Context) ([]*source, error) {
	c, f := r.capture, r.follower
	for {
		c.mu.Lock()
		var touched []view
		for s := range f.touched {
			if c.services[s.name] == s {
				touched = append(touched, view{s, s.numbers(), s.lines})
			} else {
				delete(r.sources, s)
				delete(r.views, s)
			}
		}
		clear(f.touched)
		c.mu.Unlock()
		var sources []*source
		for _, v := range touched {
			s := r.sources[v.service]
			if s == nil {
				s = r.add(view{service: v.service})
				c.mu.Lock()
				if f.cursors[v.service] == nil {
					f.cursors[v.service] = &cursor{}
				}
				c.mu.Unlock()
			}
			if err := r.catchUp(s); err != nil {
				return nil, err
			}
			s.begin(v.segments)
			sources = append(sources, s)
		}
		if len(sources) > 0 {
			return sources, nil
		}
		// Deleted files take no room while nothing is going on.
		r.files.closeAll()
		select {
		case <-f.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.closed:
			return nil, ErrClosed
		case <-r.query.Until:
			c.mu.Lock()
			more := len(f.touched) > 0
			c.mu.Unlock()
			if !more {
				return nil, errCaughtUp
			}
		}
	}
}

// unfinished hands out the lines whose end has not come.
func (r *reader) unfinished() error {
	var open []Line
	for _, s := range r.sources {
		s.flush(func(l Line) error {
			open = append(open, l)
			return nil
		})
	}
	slices.SortFunc(open, func(a, b Line) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Service, b.Service), bytes.Compare(a.Text, b.Text))
	})
	for _, l := range open {
		if err := r.emit(l); err != nil {
			return err
		}
	}
	return nil
}

// byTime is a heap (container/heap) of sources by the time of what is next.
type byTime []*source

func (h byTime) Len() int { return len(h) }
func (h byTime) Less(i, j int) bool {
	if h[i].when != h[j].when {
		return h[i].when < h[j].when
	}
	return h[i].service.name < h[j].service.name
}
func (h byTime) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *byTime) Push(x any)   { *h = append(*h, x.(*source)) }
func (h *byTime) Pop() any {
	s := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return s
}
