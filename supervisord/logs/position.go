package logs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The position file of a log file says up to where the chain is in it. Two
// slots take turns: a mark is written before the bytes that it counts, and says
// how long the log file will be with them. Killed in between, the mark holds if
// the log file is that long; else the log file is cut back and the mark before
// it holds. A mark cut short by a kill is told by its checksum, and its bytes
// have not been written. A third place belongs to the loop, which notes there
// what it dropped unread.
const (
	slotSize   = 1 << 20 // the file is sparse: only what is used takes room
	lostAt     = 2 * slotSize
	headerSize = 8 // checksum and length of what follows

	maxSegmentNumber = 1 << 30 // beyond which a mark is not one of ours
)

// mark is a position of a log file, followed by the lines whose end has not
// come: their text is behind the position and not in the log file.
type mark struct {
	Seq        uint64
	Dev, Inode uint64 // of the log file
	// Bytes that the log file has without and only with what is being written;
	// Length 0 = nothing is.
	Size, Length    int64
	Segment         uint64
	Records, Offset int64
	Stated          loss // of what was lost, this much is said in the log file
	Took            loss // of the chain, since the mark before
	Lines           uint64
}

type markLine struct {
	Run, Stream uint64
	Time        int64
	Length      uint64
}

// loss counts output.
type loss struct{ Bytes, Lines int64 }

// lostMark says what was dropped before it was written, up to the beginning of
// a segment.
type lostMark struct {
	Lost    loss
	Segment uint64
}

// begun is a line whose end has not come.
type begun struct {
	time int64
	text []byte // may be empty, where pieces of it are written
}

// checksum is that of a position. Its table takes a while, so it is made when the
// first is needed.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// seal completes a buffer that begins with room for a header.
func seal(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-headerSize))
	binary.LittleEndian.PutUint32(b, checksum(b[4:]))
	return b
}

// unseal returns what seal was given, without the header.
func unseal(b []byte) (body []byte, ok bool) {
	if len(b) < headerSize {
		return nil, false
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if uint64(n) > uint64(len(b)-headerSize) || checksum(b[4:headerSize+n]) != binary.LittleEndian.Uint32(b) {
		return nil, false
	}
	return b[headerSize : headerSize+n], true
}

func (m *mark) encode(buf []byte, lines map[streamKey]*begun) []byte {
	m.Lines = uint64(len(lines))
	b := append(buf[:0], make([]byte, headerSize)...)
	b, _ = binary.Append(b, binary.LittleEndian, m)
	for key, l := range lines {
		b, _ = binary.Append(b, binary.LittleEndian, markLine{key.run, uint64(key.stream), l.time, uint64(len(l.text))})
		b = append(b, l.text...)
	}
	return seal(b)
}

func (m *mark) decode(b []byte) (lines map[streamKey]*begun, ok bool) {
	b, ok = unseal(b)
	if !ok {
		return nil, false
	}
	n, err := binary.Decode(b, binary.LittleEndian, m)
	if err != nil || m.Segment > maxSegmentNumber || min(m.Size, m.Length, m.Records, m.Offset) < 0 {
		return nil, false
	}
	lines = map[streamKey]*begun{}
	for range m.Lines {
		b = b[n:]
		var l markLine
		if n, err = binary.Decode(b, binary.LittleEndian, &l); err != nil || l.Length > uint64(len(b)-n) || l.Stream > uint64(Stderr) {
			return nil, false
		}
		b = b[n:]
		n = int(l.Length)
		if bytes.IndexByte(b[:n], '\n') >= 0 {
			return nil, false // it would not have been kept: it has ended
		}
		lines[streamKey{l.Run, Stream(l.Stream)}] = &begun{l.Time, append([]byte(nil), b[:n]...)}
	}
	return lines, len(b) == n && uint64(len(lines)) == m.Lines
}

func (m *mark) position() position {
	return position{segment: uint32(m.Segment), records: m.Records, offset: m.Offset}
}

func (c *Capture) positionPath(service string) string {
	return filepath.Join(c.options.Dir, service, "position")
}

func (w *logFile) openPosition() (fd int, err error) {
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_CLOEXEC | unix.O_NOFOLLOW
	path := w.capture.positionPath(w.service.name)
	if fd, err = unix.Open(path, flags, 0o600); err == unix.ENOENT {
		if err = unix.Mkdir(filepath.Dir(path), 0o700); err == nil {
			fd, err = unix.Open(path, flags, 0o600)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("cannot open its position: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	return fd, nil
}

// put writes the next mark: all of the chain up to src.at is in the log file
// once it has length bytes more than size. It stands in place of the one before
// last, which is no longer needed, or of one whose bytes could not be written.
func (w *logFile) put(size, length int64) (m mark, err error) {
	if w.marks < 0 {
		if w.marks, err = w.openPosition(); err != nil {
			return m, err
		}
	}
	at := w.src.at
	m = mark{
		Seq: w.mark.Seq + 1, Dev: w.id.dev, Inode: w.id.inode, Size: size, Length: length,
		Segment: uint64(at.segment), Records: at.records, Offset: at.offset, Stated: w.stated, Took: w.took,
	}
	w.next = m.encode(w.next, w.lines)
	if err := pwriteAll(w.marks, w.next, int64(m.Seq%2)*slotSize); err != nil {
		return m, fmt.Errorf("cannot save its position: %w", err)
	}
	return m, nil
}

// hold makes m, which put has just written, the mark that holds.
func (w *logFile) hold(m mark) {
	w.mark = m
	w.held, w.next = w.next, w.held
	w.took = loss{}
}

// restore goes back to the mark that holds.
func (w *logFile) restore() {
	w.lines, _ = w.mark.decode(w.held)
	w.src.at = w.mark.position()
	w.stated, w.took = w.mark.Stated, loss{}
	w.out = w.out[:0]
	w.unfinished = 0
	for _, l := range w.lines {
		w.unfinished += len(l.text)
	}
}

// load reads the position file. Where there is none, or no use in it, the log
// file begins with what comes next. The loop calls it, before the goroutine of
// w is ever started.
func (w *logFile) load() error {
	s := w.service
	fd, err := w.openPosition()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var marks [2]mark
	var slots [2][]byte
	for i := range slots {
		slots[i] = readSlot(fd, int64(i)*slotSize)
		if _, ok := marks[i].decode(slots[i]); !ok || marks[i].Seq%2 != uint64(i) {
			slots[i] = nil
		}
	}
	newest := 0
	if slots[0] == nil || slots[1] != nil && marks[1].Seq > marks[0].Seq {
		newest = 1
	}
	if slots[newest] == nil {
		if seg := s.last(); seg != nil {
			w.src.at = position{seg.number, seg.index / recordSize, seg.data}
		}
		w.cursor, w.based = w.src.at, w.src.at
		w.marks = fd
		m, err := w.put(0, 0)
		w.marks = -1
		if err != nil {
			return err
		}
		w.hold(m)
		return w.saveLost() // so that there is room for it when it is needed
	}
	w.mark, w.held = marks[newest], slots[newest]
	w.cursor = w.mark.position()
	if before := 1 - newest; w.mark.Length > 0 && slots[before] != nil && marks[before].Seq+1 == w.mark.Seq {
		w.unsure = &unsure{w.mark, w.held}
		w.mark, w.held = marks[before], slots[before]
	}
	w.restore()
	w.based = w.cursor
	var lost lostMark
	if b, ok := unseal(readSlot(fd, lostAt)); ok {
		if _, err := binary.Decode(b, binary.LittleEndian, &lost); err == nil && lost.Segment <= maxSegmentNumber {
			w.lost = lost.Lost
			if n := uint32(lost.Segment); n > w.cursor.segment {
				w.cursor = position{segment: n}
			}
		}
	}
	// Where all its segments are gone, numbers go on, too.
	s.next = max(s.next, w.cursor.segment+1)
	return nil
}

func readSlot(fd int, at int64) []byte {
	var header [headerSize]byte
	if n, _ := unix.Pread(fd, header[:], at); n != headerSize {
		return nil
	}
	size := binary.LittleEndian.Uint32(header[4:])
	if size > slotSize-headerSize {
		return nil
	}
	b := make([]byte, headerSize+size)
	n, _ := unix.Pread(fd, b, at)
	return b[:max(n, 0)]
}

// saveLost notes what is lost; the caller holds Capture.mu, or the goroutine
// of w has not been started.
func (w *logFile) saveLost() error {
	fd, err := w.openPosition()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b, _ := binary.Append(make([]byte, headerSize), binary.LittleEndian, lostMark{w.lost, uint64(w.cursor.segment)})
	return pwriteAll(fd, seal(b), lostAt)
}

func pwriteAll(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = unix.ENOSPC
		}
		if err != nil {
			return err
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

// unsure is a mark of which it is not known whether its bytes were written.
type unsure struct {
	mark mark
	held []byte
}

// resolve finds out whether the bytes of the newest mark were written before
// this process was started.
func (w *logFile) resolve() error {
	m := &w.unsure.mark
	written, err := w.wasWritten(m)
	if err != nil {
		return err
	}
	if written {
		w.mark, w.held = *m, w.unsure.held
		w.restore()
	} else {
		w.took = m.Took
		w.unclaim()
	}
	w.unsure = nil
	return nil
}

func (w *logFile) wasWritten(m *mark) (bool, error) {
	fd, err := openLogFile(w.path)
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, w.cannot("open", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, w.cannot("look at", err)
	}
	if idOf(&st) != (fileID{m.Dev, m.Inode}) || st.Size < m.Size {
		return false, nil // removed, moved or emptied by others since
	}
	if st.Size >= m.Size+m.Length {
		return true, nil
	}
	if err := unix.Ftruncate(fd, m.Size); err != nil {
		return false, w.cannot("cut off a half line of", err)
	}
	return false, nil
}
