package logs

import (
	"bytes"
	"time"

	"golang.org/x/sys/unix"
)

// position is a place in the chain of a service. It can be kept and used
// again, also by another process.
type position struct {
	segment uint32
	records int64 // of the index that were taken
	offset  int64 // bytes of the data that were taken
}

// source reads the chain of one service in rounds: begin looks how far the
// chain goes, peek and take walk through it in pieces, feed makes lines of
// them. A round ends where the chain ended at its begin.
type source struct {
	service *service
	files   *fileCache
	at      position
	skip    int64 // so many lines are not wanted
	lines   map[streamKey]*line

	// Of this round.
	chain    []uint32 // segments, oldest first
	segments []uint32 // the same, nil when the round is over
	stop     struct {
		number        uint32 // the last of chain
		data, records int64
	}

	// Of the segment that at is in.
	loaded        uint32 // its number, 0 = none
	data, records int64
	window        [16 * recordSize]byte
	windowAt      int64 // its first record
	windowLen     int64

	based  position // the follower's cursor, as last seen
	gapped bool     // segments before at were not read: lines that began there are missed
	cut    int64    // so many lines had been sent when the last line without its beginning ended
	sent   int64    // lines
	when   int64    // time of the next piece
}

// line is an unfinished line.
type line struct {
	text    []byte
	time    int64
	skip    int  // so many bytes of it were passed over, since its beginning is missing; -1 = it is whole
	counted bool // as missed
}

// piece is a run of bytes of one stream.
type piece struct {
	record
	entered bool // it is the first one of its record
	size    int64
	next    position // behind it
}

// begin starts a round over segments, the chain as it is now.
func (s *source) begin(segments []uint32) {
	s.loaded = 0
	s.chain, s.segments = segments, segments
	s.stop.number = 0
	if len(segments) == 0 {
		return
	}
	last := segments[len(segments)-1]
	if f := s.open(last); f != nil {
		s.stop.number = last
		s.stop.data, s.stop.records = f.sizes()
	}
}

// load makes the segment of at known, or the first one behind it that is there.
func (s *source) load() bool {
	if s.loaded != 0 && s.loaded == s.at.segment {
		return true
	}
	for _, number := range s.segments {
		if number < s.at.segment {
			continue
		}
		f := s.open(number)
		if f == nil {
			if s.segments == nil {
				return false
			}
			continue
		}
		if number > s.at.segment {
			if s.at.segment != 0 {
				clear(s.lines)
			}
			s.at = position{segment: number}
		}
		s.loaded = number
		s.windowLen = 0
		if number == s.stop.number {
			s.data, s.records = s.stop.data, s.stop.records
		} else {
			s.data, s.records = f.sizes()
		}
		return true
	}
	return false
}

// record reads record i of the loaded segment.
func (s *source) record(i int64) (r record, ok bool) {
	if i < s.windowAt || i >= s.windowAt+s.windowLen {
		f := s.open(s.loaded)
		if f == nil {
			return r, false
		}
		n, _ := unix.Pread(f.index, s.window[:], i*recordSize)
		s.windowAt, s.windowLen = i, int64(max(n, 0)/recordSize)
		if s.windowLen == 0 {
			return r, false
		}
	}
	at := (i - s.windowAt) * recordSize
	return r, r.decode(s.window[at : at+recordSize])
}

// peek returns what comes next in this round. Records that make no sense end
// their segment.
func (s *source) peek() (p piece, ok bool) {
	for s.load() {
		if s.at.records > 0 {
			if r, ok := s.record(s.at.records - 1); ok && r.offset <= s.at.offset {
				p := piece{record: r, next: s.at}
				if p.size = s.chunkEnd() - s.at.offset; p.size > 0 {
					return p, true
				}
			}
		}
		if s.at.records < s.records {
			if r, ok := s.record(s.at.records); ok && r.offset >= s.at.offset && r.offset <= s.data {
				p := piece{record: r, entered: true}
				s.at.records++
				p.size = s.chunkEnd() - r.offset
				s.at.records--
				p.next = position{s.at.segment, s.at.records + 1, r.offset}
				return p, true
			}
		}
		next, found := s.after(s.at.segment)
		if !found {
			return p, false
		}
		if next > s.at.segment+1 {
			clear(s.lines)
		}
		s.at = position{segment: next}
	}
	return p, false
}

// chunkEnd returns where the bytes of the record before at.records end.
func (s *source) chunkEnd() int64 {
	if s.at.records < s.records {
		if r, ok := s.record(s.at.records); ok && r.offset < s.data {
			return r.offset
		}
	}
	return s.data
}

// after returns the next segment of this round.
func (s *source) after(number uint32) (uint32, bool) {
	for _, n := range s.segments {
		if n > number {
			return n, true
		}
	}
	return 0, false
}

// take reads the bytes of p, as many as buf holds, and returns the position
// behind them; false says that they are gone, and to peek again. The source
// stays where it is.
func (s *source) take(p piece, buf []byte) (data []byte, next position, ok bool) {
	if p.size <= 0 {
		return nil, p.next, true
	}
	f := s.open(s.loaded)
	if f == nil {
		s.loaded = 0
		return nil, s.at, false
	}
	n, _ := unix.Pread(f.data, buf[:min(p.size, int64(len(buf)))], p.next.offset)
	if n <= 0 {
		// It was cut, which is not our doing.
		s.endRound()
		return nil, s.at, false
	}
	p.next.offset += int64(n)
	return buf[:n], p.next, true
}

// open returns the files of a segment; nil says that it is not there. Where it
// is but cannot be opened (EMFILE), the round is over as well: the next one
// tries again.
func (s *source) open(number uint32) *segmentFiles {
	f, err := s.files.get(s.service, number)
	if err != nil && err != unix.ENOENT {
		s.files.err = err
		s.endRound()
	}
	return f
}

func (s *source) endRound() {
	s.segments = nil
	s.loaded = 0
}

// reset forgets unfinished lines: what comes next is not their continuation.
// It returns how many of them were counted as missed too early.
func (s *source) reset() (counted int64) {
	for _, l := range s.lines {
		if l.counted {
			counted++
		}
	}
	clear(s.lines)
	s.gapped = true
	s.loaded = 0
	return counted
}

// feed calls emit for each line that ends in data, the bytes of p.
func (s *source) feed(p piece, data []byte, emit func(Line) error) error {
	key := streamKey{p.run, p.stream()}
	out := Line{Time: time.Unix(0, p.time), Service: s.service.name, Run: p.run, Stream: key.stream}
	l := s.lines[key]
	if p.entered {
		var missed int64
		if p.flags&flagGap != 0 {
			missed = int64(p.lost)
			l = nil
			delete(s.lines, key)
		}
		if p.flags&flagMid != 0 && l == nil {
			l = &line{counted: s.gapped || p.flags&flagGap != 0}
			s.lines[key] = l
			if l.counted {
				missed++
			}
		}
		if missed > 0 {
			notice := out
			notice.Missed = missed
			if err := emit(notice); err != nil {
				return err
			}
		}
		if p.flags&flagEnd != 0 {
			delete(s.lines, key)
			if l != nil && len(l.text) > 0 {
				out.Time, out.Text = time.Unix(0, l.time), l.text
				return s.send(out, emit)
			}
			return nil
		}
	}
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n')
		rest := data
		if end >= 0 {
			rest = data[:end]
		}
		switch {
		case l != nil && l.skip >= 0:
			// The rest of a line without its beginning; a piece of it, when it
			// is a very long one.
			if n := MaxLine - l.skip; len(rest) > n {
				l.skip, l.counted = -1, false
				data = data[n:]
				continue
			}
			l.skip += len(rest)
		case l != nil:
			if n := MaxLine - len(l.text); len(rest) > n {
				l.text = append(l.text, rest[:n]...)
				data = data[n:]
				out.Text, out.Partial = l.text, true
				if err := s.send(out, emit); err != nil {
					return err
				}
				l.text = l.text[:0]
				continue
			}
			l.text = append(l.text, rest...)
			l.time = p.time
		case end < 0 || len(rest) > MaxLine:
			l = &line{skip: -1, time: p.time}
			s.lines[key] = l
			continue
		}
		if end < 0 {
			return nil
		}
		data = data[end+1:]
		out.Text, out.Partial = rest, false
		if l != nil {
			out.Text = l.text
			delete(s.lines, key)
		}
		if l != nil && l.skip >= 0 {
			s.cut = s.sent
		} else {
			if err := s.send(out, emit); err != nil {
				return err
			}
		}
		l = nil
	}
	return nil
}

// flush hands out the lines whose end has not come, and forgets them.
func (s *source) flush(emit func(Line) error) {
	for key, l := range s.lines {
		if len(l.text) == 0 {
			continue
		}
		s.send(Line{
			Time: time.Unix(0, l.time), Service: s.service.name, Run: key.run, Stream: key.stream,
			Text: l.text, Partial: true,
		}, emit)
	}
	clear(s.lines)
}

// rewind puts the source at the beginning of a segment of this round.
func (s *source) rewind(number uint32) {
	s.at = position{segment: number}
	s.segments = s.chain
	s.loaded, s.skip, s.sent, s.cut = 0, 0, 0, 0
	clear(s.lines)
}

func (s *source) send(l Line, emit func(Line) error) error {
	s.sent++
	if s.skip > 0 {
		s.skip--
		return nil
	}
	return emit(l)
}

// countLines counts the lines of a segment behind at.
func countLines(f *segmentFiles, at position, buf []byte) (lines int64, all bool) {
	all = true
	for {
		n, _ := unix.Pread(f.data, buf, at.offset)
		if n <= 0 {
			break
		}
		all = false
		lines += int64(bytes.Count(buf[:n], []byte{'\n'}))
		at.offset += int64(n)
	}
	buf = buf[:len(buf)-len(buf)%recordSize]
	for {
		n, _ := unix.Pread(f.index, buf, at.records*recordSize)
		if n < recordSize {
			return lines, all
		}
		for i := 0; i+recordSize <= n; i += recordSize {
			var r record
			if r.decode(buf[i : i+recordSize]) {
				lines += int64(r.lost)
				if r.flags&flagEnd != 0 {
					lines++
				}
				all = all && r.lost == 0 && r.flags&(flagEnd|flagGap) == 0
			}
			at.records++
		}
	}
}

// segmentFiles are the open files of a segment.
type segmentFiles struct {
	data, index int
	used        int64
}

// sizes returns bytes and records. The bytes are looked at first: whose they
// are was written before them, so all of them have a record then.
func (f *segmentFiles) sizes() (data, records int64) {
	var st unix.Stat_t
	if unix.Fstat(f.data, &st) == nil {
		data = st.Size
	}
	if unix.Fstat(f.index, &st) == nil {
		records = st.Size / recordSize
	}
	return data, records
}

func (f *segmentFiles) close() {
	unix.Close(f.data)
	unix.Close(f.index)
}

// fileCache keeps the files of some segments open for one reader. They can be
// read to their end also when they have been deleted.
type fileCache struct {
	capture *Capture
	clock   int64
	err     error // why a segment that is there could not be opened
	open    map[fileKey]*segmentFiles
}

type fileKey struct {
	service *service
	number  uint32
}

const maxCached = 12 // segments; a whole chain by default

// get opens a segment.
func (fc *fileCache) get(s *service, number uint32) (*segmentFiles, error) {
	fc.clock++
	key := fileKey{s, number}
	if f := fc.open[key]; f != nil {
		f.used = fc.clock
		return f, nil
	}
	f, err := openSegment(fc.capture, s, number)
	if err != nil {
		return nil, err
	}
	if len(fc.open) >= maxCached {
		var oldest fileKey
		for k, o := range fc.open {
			if e := fc.open[oldest]; e == nil || o.used < e.used {
				oldest = k
			}
		}
		fc.open[oldest].close()
		delete(fc.open, oldest)
	}
	f.used = fc.clock
	fc.open[key] = f
	return f, nil
}

func (fc *fileCache) closeAll() {
	for k, f := range fc.open {
		f.close()
		delete(fc.open, k)
	}
}

func openSegment(c *Capture, s *service, number uint32) (*segmentFiles, error) {
	data, err := unix.Open(c.path(s, number, "log"), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	index, err := unix.Open(c.path(s, number, "idx"), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		unix.Close(data)
		return nil, err
	}
	return &segmentFiles{data: data, index: index}, nil
}
