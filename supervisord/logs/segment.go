package logs

import (
	"container/heap"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/failpoint"
	"github.com/threefoldtech/zinit/common/fdlimit"
)

// service is the chain of segments of one service. What an interrupted writer
// can leave, and what becomes of it:
//
//   - a record without bytes: an empty chunk, see record;
//   - one file of a new segment without the other: it is made when needed;
//   - one file of a dropped segment: a segment without bytes, or with bytes
//     that no record claims, which readers pass over and age removes;
//   - anything else (a strange hand, a file system that lost power): a last
//     segment with a record that makes no sense, at which readers stop, is left
//     alone and a new one begun.
type service struct {
	name    string
	pipes   []*pipe
	next    uint32 // number of the next segment
	adopted uint32 // the segment that was the newest one when Capture was opened
	removed bool
	touched bool // in Capture.dirty
	waiting bool // for its log file: its pipes are not read

	// Memory for one pipe of each stream, which mostly are all that there are, and
	// for the list of them: made one by one in the middle of a start, they would lie
	// on as many pages, among garbage.
	own [2]pipe
	two [2]*pipe

	// Open files of the newest segment, -1 when there are none.
	data, index int
	// The newest record of the newest segment, while its files are open.
	newest struct {
		pipe *pipe
		time int64
	}
	used   int64 // bytes of its files, in whole pages
	goOnAt int64 // how many bytes it may be behind its log file to wait no more

	// Place in Capture.ages.
	place int
	age   int64

	// Written by the loop under Capture.mu.
	segments []*segment // oldest first; bytes go to the last one
	lines    int        // that readers are shown; negative = all
	file     *logFile   // nil = none

	trouble string // why its log file is not written, "" = it is; under Capture.mu
}

type segment struct {
	number      uint32
	data, index int64 // sizes of the files
	newest      int64 // time of its newest chunk, ns since 1970
}

// stores reports whether there is a use for what the service prints.
func (s *service) stores() bool { return !s.removed && (s.lines != 0 || s.file != nil) }

// pages is what a file of n bytes takes of a tmpfs.
func pages(n int64) int64 { return (n + 4095) &^ 4095 }

func (c *Capture) dir(s *service) string { return filepath.Join(c.options.Dir, s.name) }

// path is that of a data file (suffix log) or index file (idx).
func (c *Capture) path(s *service, number uint32, suffix string) string {
	return filepath.Join(c.options.Dir, s.name, fmt.Sprintf("%08d.%s", number, suffix))
}

func (s *service) last() *segment {
	if len(s.segments) == 0 {
		return nil
	}
	return s.segments[len(s.segments)-1]
}

// recover lists what is in the directory. Files are opened when they are
// needed; strange ones are left alone.
func (c *Capture) recover() error {
	dirs, err := os.ReadDir(c.options.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read log directory: %w", err)
	}
	for _, d := range dirs {
		if !d.IsDir() || !validName(d.Name()) {
			continue
		}
		files, err := os.ReadDir(filepath.Join(c.options.Dir, d.Name()))
		if err != nil {
			c.log.Warn("cannot read logs of an earlier run", "service", d.Name(), "error", err)
			continue
		}
		found := map[uint32]*segment{}
		for _, f := range files {
			c.recoverFile(found, f)
		}
		if len(found) == 0 {
			continue
		}
		s := c.service(d.Name())
		for _, seg := range found {
			s.segments = append(s.segments, seg)
			n := pages(seg.data) + pages(seg.index)
			s.used += n
			c.used += n
		}
		slices.SortFunc(s.segments, func(a, b *segment) int { return int(a.number) - int(b.number) })
		s.adopted = s.last().number
		s.next = s.adopted + 1
		s.age = s.segments[0].newest
		heap.Push(&c.ages, s)
	}
	c.bound(nil)
	return nil
}

func (c *Capture) recoverFile(found map[uint32]*segment, f fs.DirEntry) {
	base, suffix, _ := strings.Cut(f.Name(), ".")
	n, err := strconv.ParseUint(base, 10, 31)
	if err != nil || n == 0 || f.Name() != fmt.Sprintf("%08d.%s", n, suffix) || suffix != "log" && suffix != "idx" || !f.Type().IsRegular() {
		return
	}
	info, err := f.Info()
	if err != nil {
		return
	}
	seg := found[uint32(n)]
	if seg == nil {
		seg = &segment{number: uint32(n)}
		found[seg.number] = seg
	}
	if suffix == "log" {
		seg.data = info.Size()
	} else {
		seg.index = info.Size()
	}
	seg.newest = max(seg.newest, info.ModTime().UnixNano())
}

// grow accounts for bytes added to the files of a segment.
func (c *Capture) grow(s *service, seg *segment, data, index int64) {
	before := pages(seg.data) + pages(seg.index)
	seg.data += data
	seg.index += index
	more := pages(seg.data) + pages(seg.index) - before
	s.used += more
	c.used += more
}

// append moves up to limit bytes from the pipe to the newest segment; 0 is the
// end of the pipe.
func (c *Capture) append(p *pipe, limit int) (int, error) {
	s := p.service
	if err := c.openNewest(s); err != nil {
		return 0, err
	}
	seg := s.last()
	now := time.Now().UnixNano()
	// Only while nobody else writes: lines of different services keep their order.
	same := s.newest.pipe == p && c.latest == p && now-s.newest.time < sameChunk && now >= s.newest.time && !p.gap
	if !same {
		var flags uint8
		if p.segment != seg.number && p.mid {
			flags = flagMid
		}
		if err := c.writeRecord(p, flags, now); err != nil {
			return 0, err
		}
	}
	failpoint.Hit("indexed")
	n, err := c.move(p, int(min(int64(limit), c.segmentSize-seg.data)))
	if n <= 0 {
		return n, err
	}
	failpoint.Hit("spliced")
	seg.newest = now
	c.grow(s, seg, int64(n), 0)
	p.segment, p.end, p.mid = seg.number, seg.data, false
	c.latest = p
	c.touch(s)
	c.bound(s)
	return n, nil
}

// writeRecord says that what is appended from now on comes from p.
func (c *Capture) writeRecord(p *pipe, flags uint8, now int64) error {
	s := p.service
	seg := s.last()
	if p.stream == Stderr {
		flags |= flagStderr
	}
	if p.gap {
		flags |= flagGap
		if p.mid {
			flags |= flagMid
		}
	}
	var b [recordSize]byte
	r := record{offset: seg.data, time: now, run: p.run, flags: flags, lost: p.lost}
	r.encode(&b)
	if n, err := unix.Pwrite(s.index, b[:], seg.index); n != len(b) {
		if err == nil {
			err = unix.ENOSPC
		}
		return err
	}
	c.grow(s, seg, 0, recordSize)
	s.newest.pipe, s.newest.time = p, now
	p.gap, p.lost = false, 0
	return nil
}

// move moves up to n bytes from the pipe to the end of the newest segment.
func (c *Capture) move(p *pipe, n int) (int, error) {
	s := p.service
	seg := s.last()
	if !p.copied {
		m, err := splice(p.fd, s.data, seg.data, n)
		if err != unix.EINVAL {
			return m, err
		}
		p.copied = true
		if !c.copying {
			c.copying = true
			c.log.Warn("the kernel refuses splice into the log directory: output is copied, and a crash of zinit-server may lose some", "dir", c.options.Dir)
		}
	}
	b, m, err := c.read(p, n)
	if m <= 0 {
		return m, err
	}
	// These bytes are only here: what cannot be written is lost.
	for done := 0; done < m; {
		w, err := unix.Pwrite(s.data, b[done:], seg.data+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			c.say(s, err)
			p.lose(b[done:])
			return done, err
		}
		done += w
	}
	return m, nil
}

// openNewest opens the newest segment for appending, or a new one when there
// is none or it is full.
func (c *Capture) openNewest(s *service) error {
	if s.data < 0 && len(s.segments) > 0 && !c.reopen(s) {
		return c.begin(s)
	}
	seg := s.last()
	if seg == nil || seg.data >= c.segmentSize || seg.index >= c.segmentSize/4 {
		c.leave(s)
		return c.begin(s)
	}
	return nil
}

// reopen opens the newest segment again; false says that it cannot be used.
func (c *Capture) reopen(s *service) bool {
	seg := s.last()
	data, index, err := c.openFiles(s, seg.number)
	if err != nil {
		return false
	}
	var size [2]int64
	for i, fd := range []int{data, index} {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil {
			size[i] = st.Size
		}
	}
	// Half a record at the end is overwritten by the next.
	size[1] -= size[1] % recordSize
	from := max(0, size[1]-recordSize)
	if seg.number == s.adopted {
		from = 0
	}
	if size[1] == 0 && size[0] > 0 || !sound(index, from, size[1], size[0]) {
		unix.Close(data)
		unix.Close(index)
		return false
	}
	c.grow(s, seg, size[0]-seg.data, size[1]-seg.index)
	s.data, s.index = data, index
	s.newest.pipe = nil
	return true
}

// sound reports whether the records of an index from one offset to another make
// sense, for so many bytes of data.
func sound(index int, from, to, data int64) bool {
	b := make([]byte, to-from)
	if n, _ := unix.Pread(index, b, from); n != len(b) {
		return false
	}
	before := int64(0)
	for ; len(b) > 0; b = b[recordSize:] {
		var r record
		if !r.decode(b) || r.offset < before || r.offset > data {
			return false
		}
		before = r.offset
	}
	return true
}

// begin appends a new segment to the chain.
func (c *Capture) begin(s *service) error {
	data, index, err := c.openFiles(s, s.next)
	if err == unix.ENOENT {
		if err = unix.Mkdir(c.dir(s), 0o700); err == nil || err == unix.EEXIST {
			data, index, err = c.openFiles(s, s.next)
		}
	}
	if err != nil {
		return err
	}
	seg := &segment{number: s.next, newest: time.Now().UnixNano()}
	s.next++
	s.data, s.index = data, index
	s.newest.pipe = nil
	c.mu.Lock()
	s.segments = append(s.segments, seg)
	c.mu.Unlock()
	if s.place < 0 {
		s.age = seg.newest
		heap.Push(&c.ages, s)
	}
	if s.lines == 0 {
		// Only the log file wants them.
		for len(s.segments) > 1 && !c.unread(s) {
			c.dropOldest(s)
		}
	}
	return nil
}

func (c *Capture) openFiles(s *service, number uint32) (data, index int, err error) {
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_CLOEXEC | unix.O_NOFOLLOW
	if data, err = unix.Open(c.path(s, number, "log"), flags, 0o600); err != nil {
		return -1, -1, err
	}
	if index, err = unix.Open(c.path(s, number, "idx"), flags, 0o600); err != nil {
		unix.Close(data)
		return -1, -1, err
	}
	if max(data, index) >= fdlimit.Segments() {
		unix.Close(data)
		unix.Close(index)
		return -1, -1, unix.EMFILE
	}
	return data, index, nil
}

func (s *service) closeFiles() {
	if s.data >= 0 {
		unix.Close(s.data)
		unix.Close(s.index)
		s.data, s.index = -1, -1
	}
	s.newest.pipe = nil
}

// leave closes the newest segment for good, remembering which streams are in
// the middle of a line.
func (c *Capture) leave(s *service) {
	if len(s.segments) == 0 {
		return
	}
	if s.data >= 0 || c.reopen(s) {
		for _, p := range s.pipes {
			p.mid = c.unfinished(p)
		}
	}
	s.closeFiles()
}

// unfinished reports whether the newest byte of p is not the end of a line.
// The newest segment must be open.
func (c *Capture) unfinished(p *pipe) bool {
	s := p.service
	seg := s.last()
	if p.gap {
		return p.mid
	}
	if p.segment == 0 && s.adopted == seg.number {
		c.findNewest(p)
	}
	if p.segment != seg.number {
		return p.mid
	}
	var b [1]byte
	n, _ := unix.Pread(s.data, b[:], p.end-1)
	return n == 1 && b[0] != '\n'
}

// findNewest looks in the index of an adopted segment for the newest byte of p.
func (c *Capture) findNewest(p *pipe) {
	s := p.service
	seg := s.last()
	b := make([]byte, seg.index)
	n, _ := unix.Pread(s.index, b, 0)
	end := seg.data
	for n -= n % recordSize; n > 0; n -= recordSize {
		var r record
		if !r.decode(b[n-recordSize : n]) {
			return
		}
		if r.run == p.run && r.stream() == p.stream && r.offset < end && r.flags&flagEnd == 0 {
			p.segment, p.end = seg.number, end
			return
		}
		end = min(end, r.offset)
	}
}

// storeEnd records that p has ended, where a reader could not tell: when its
// last line is unfinished, and when lines of it were discarded.
func (c *Capture) storeEnd(p *pipe) {
	s := p.service
	if !s.stores() || p.segment == 0 && s.adopted == 0 && !p.gap {
		return
	}
	for {
		err := c.openNewest(s)
		if err == nil {
			mid := c.unfinished(p)
			if !mid && !p.gap && p.segment != 0 {
				return
			}
			err = c.writeRecord(p, flagEnd, time.Now().UnixNano())
		}
		if err == nil {
			c.touch(s)
			return
		}
		if !c.makeRoom(s, err) {
			return
		}
	}
}

// bound drops the oldest segments while s, or all services together, have more
// than they may.
func (c *Capture) bound(s *service) {
	for s != nil && s.used > c.options.PerService && len(s.segments) > 1 && !c.owed(s) {
		c.dropOldest(s)
	}
	for c.used > c.options.Memory && c.dropAny(nil) {
	}
}

// dropAny drops the oldest segment of any service but one that may go, and
// reports whether there was one.
func (c *Capture) dropAny(but *service) (dropped bool) {
	var passed []*service
	for !dropped && len(c.ages) > 0 {
		s := c.oldest()
		if s == but || c.owed(s) {
			heap.Pop(&c.ages)
			passed = append(passed, s)
			continue
		}
		c.dropOldest(s)
		dropped = true
	}
	for _, s := range passed {
		heap.Push(&c.ages, s)
	}
	return dropped
}

// makeRoom does what may help against err, and reports whether to try again.
func (c *Capture) makeRoom(s *service, err error) bool {
	seg := s.last()
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return c.closeIdle(s)
	case errors.Is(err, unix.EFBIG), errors.Is(err, unix.EIO):
		// The file may not grow (RLIMIT_FSIZE), or its disk is failing.
		if s.data < 0 || seg.data == 0 {
			return false
		}
		c.leave(s)
		return c.begin(s) == nil
	case !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT):
		return false
	case len(s.segments) > 1 && !c.owed(s):
		c.dropOldest(s)
		return true
	case c.dropAny(s):
		return true
	case seg == nil || seg.data == 0 || c.owed(s):
		return false
	}
	// Its only segment is the last to go.
	c.dropOldest(s)
	return true
}

// dropOldest deletes the oldest segment of s. Followers that have not read it
// to its end learn how many lines they missed.
func (c *Capture) dropOldest(s *service) {
	seg := s.segments[0]
	if len(s.segments) == 1 {
		c.leave(s)
	}
	c.mu.Lock()
	for f := range c.followers {
		f.pass(c, s, seg.number)
	}
	if s.file != nil {
		s.file.pass(seg)
	}
	s.segments = slices.Clone(s.segments[1:])
	c.mu.Unlock()
	// The data first: an index alone is a segment without bytes.
	unix.Unlink(c.path(s, seg.number, "log"))
	unix.Unlink(c.path(s, seg.number, "idx"))
	n := pages(seg.data) + pages(seg.index)
	s.used -= n
	c.used -= n
	if len(s.segments) == 0 {
		heap.Remove(&c.ages, s.place)
		return
	}
	s.age = s.segments[0].newest
	heap.Fix(&c.ages, s.place)
}

// closeIdle closes the files of services that wrote least recently, and
// reports whether there were any.
func (c *Capture) closeIdle(but *service) bool {
	var open []*service
	for _, s := range c.services {
		if s.data >= 0 && s != but {
			open = append(open, s)
		}
	}
	slices.SortFunc(open, func(a, b *service) int {
		return int(min(1, max(-1, a.last().newest-b.last().newest)))
	})
	// Some at a time, so that the search is not repeated for each.
	for _, s := range open[:min(len(open), 64)] {
		s.closeFiles()
	}
	return len(open) > 0
}

// oldest returns the service with the oldest segment. The age of a service is
// brought up to date only here, where it matters: it can only have grown.
func (c *Capture) oldest() *service {
	for {
		s := c.ages[0]
		if s.age == s.segments[0].newest {
			return s
		}
		s.age = s.segments[0].newest
		heap.Fix(&c.ages, 0)
	}
}

// ages is a heap (container/heap) of services by age.
type ages []*service

func (a ages) Len() int           { return len(a) }
func (a ages) Less(i, j int) bool { return a[i].age < a[j].age }
func (a ages) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].place, a[j].place = i, j
}
func (a *ages) Push(x any) {
	s := x.(*service)
	s.place = len(*a)
	*a = append(*a, s)
}
func (a *ages) Pop() any {
	s := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	s.place = -1
	return s
}
