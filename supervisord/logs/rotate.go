package logs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/failpoint"
)

const (
	// maxBatch is how many bytes are written at a time, unless a line is longer.
	maxBatch = 128 << 10
	// maxUnfinished bounds the text of lines whose end has not come: beyond,
	// they are written in pieces. Marks with all of it fit into their slots.
	maxUnfinished = slotSize / 2
)

// fileID tells a file from others of the same name.
type fileID struct{ dev, inode uint64 }

func idOf(st *unix.Stat_t) fileID { return fileID{uint64(st.Dev), uint64(st.Ino)} }

// cannot makes an error of a system call on the log file.
func (w *logFile) cannot(verb string, err error) error {
	switch err {
	case unix.ELOOP:
		err = errors.New("it is a symbolic link")
	case unix.ENXIO, errNotRegular:
		err = errNotRegular
	case unix.ENOENT:
		err = errors.New("its directory does not exist")
	}
	return fmt.Errorf("cannot %s %s: %w", verb, w.path, err)
}

var errNotRegular = errors.New("it is not a regular file")

// catchUp moves behind what the loop has dropped, and says so in the file.
func (w *logFile) catchUp() error {
	c := w.capture
	c.mu.Lock()
	cursor, lost := w.cursor, w.lost
	c.mu.Unlock()
	w.src.at, w.based = cursor, cursor
	w.src.loaded = 0
	if lost == w.stated {
		return nil
	}
	// What they would go on with is lost.
	for len(w.lines) > 0 {
		var first streamKey
		var oldest *begun
		for key, l := range w.lines {
			if oldest == nil || l.time < oldest.time {
				first, oldest = key, l
			}
		}
		if err := w.endLine(first); err != nil {
			return err
		}
	}
	missing := loss{lost.Bytes - w.stated.Bytes, lost.Lines - w.stated.Lines}
	if err := w.notice("%d bytes (%d lines) are missing: this file could not keep up", missing.Bytes, missing.Lines); err != nil {
		return err
	}
	w.stated = lost
	return nil
}

// notice writes a line of zinit's own.
func (w *logFile) notice(format string, args ...any) error {
	return w.emit(time.Now().UnixNano(), Stderr, 'F', nil, fmt.Appendf(nil, "zinit: "+format, args...))
}

// endLine writes a line that does not go on.
func (w *logFile) endLine(key streamKey) error {
	l := w.lines[key]
	if l == nil {
		return nil
	}
	if err := w.emit(l.time, key.stream, 'F', l.text, nil); err != nil {
		return err
	}
	w.unfinished -= len(l.text)
	delete(w.lines, key)
	return nil
}

// feed writes what ends in data, the bytes of p, and keeps the rest in lines.
// Whenever it calls emit, src.at and lines say what was before: emit may have
// to commit that first.
func (w *logFile) feed(p piece, data []byte) error {
	key := streamKey{p.run, p.stream()}
	if p.entered {
		if p.flags&(flagGap|flagEnd) != 0 {
			if err := w.endLine(key); err != nil {
				return err
			}
		}
		if p.flags&flagGap != 0 {
			var err error
			if p.lost > 0 {
				err = w.notice("%d lines are missing: they could not be stored", p.lost)
			} else {
				err = w.notice("a part of a line is missing: it could not be stored")
			}
			if err != nil {
				return err
			}
		}
		w.src.at = p.next
	}
	for len(data) > 0 {
		l := w.lines[key]
		var head []byte
		if l != nil {
			head = l.text
		}
		end := bytes.IndexByte(data, '\n')
		rest, used := data, len(data)
		if end >= 0 {
			rest, used = data[:end], end+1
		}
		tag := byte('F')
		if room := MaxLine - len(head); len(rest) > room {
			rest, used, tag = rest[:room], room, 'P'
		} else if end < 0 {
			if w.unfinished+len(rest) <= maxUnfinished {
				if l == nil {
					l = &begun{}
					w.lines[key] = l
				}
				l.text = append(l.text, rest...)
				l.time = p.time
				w.unfinished += len(rest)
				w.advance(rest, used)
				return nil
			}
			tag = 'P'
		}
		if err := w.emit(p.time, key.stream, tag, head, rest); err != nil {
			return err
		}
		w.unfinished -= len(head)
		if tag == 'P' {
			w.lines[key] = &begun{time: p.time}
		} else {
			delete(w.lines, key)
		}
		w.advance(rest, used)
		data = data[used:]
	}
	return nil
}

// advance moves the position behind used bytes with the text of a line or a
// piece of it.
func (w *logFile) advance(text []byte, used int) {
	w.src.at.offset += int64(used)
	w.took.Bytes += int64(used)
	if used > len(text) {
		w.took.Lines++
	}
}

// emit appends a line to what is about to be written. Where that is enough, or
// the file would become too large, it is written first.
func (w *logFile) emit(at int64, s Stream, tag byte, head, tail []byte) error {
	if w.fd < 0 {
		if err := w.open(0o640, -1, -1); err != nil {
			return err
		}
	}
	if at != w.stampOf || len(w.stamp) == 0 {
		w.stampOf = at
		w.stamp = time.Unix(0, at).UTC().AppendFormat(w.stamp[:0], "2006-01-02T15:04:05.000000000Z ")
	}
	n := len(w.stamp) + len("stdout F \n") + len(head) + len(tail)
	full := func() bool { return w.limit > 0 && w.size+int64(len(w.out)+n) > w.limit }
	if len(w.out) > 0 && (len(w.out)+n > maxBatch || full()) {
		if err := w.commit(); err != nil {
			return err
		}
	}
	if w.size > 0 && full() {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	w.out = append(append(w.out, w.stamp...), s.String()...)
	w.out = append(append(append(w.out, ' ', tag, ' '), head...), tail...)
	w.out = append(w.out, '\n')
	return nil
}

// commit writes out, which brings the file up to src.at.
func (w *logFile) commit() error {
	if len(w.out) == 0 && w.src.at == w.mark.position() {
		return nil
	}
	if len(w.out) > 0 {
		if err := w.stillThere(); err != nil {
			return err
		}
	}
	if !w.claim() {
		return errDropped
	}
	m, err := w.put(w.size, int64(len(w.out)))
	if err == nil {
		err = w.write()
	}
	if err != nil {
		w.unclaim()
		return err
	}
	w.hold(m)
	if w.failing && len(w.out) > 0 {
		w.failing = false
		w.capture.log.Info("the log file is written again", "service", w.service.name, "file", w.path)
	}
	w.size += int64(len(w.out))
	w.out = w.out[:0]
	if c := w.capture; w.waiting.Load() {
		c.do(func() { c.mayGoOn(w.service) })
	}
	return nil
}

// write appends out to the file, all of it or nothing.
func (w *logFile) write() error {
	for b := w.out; len(b) > 0; {
		n, err := unix.Write(w.fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			unix.Ftruncate(w.fd, w.size)
			return w.cannot("write", err)
		}
		b = b[n:]
	}
	return nil
}

// claim moves the cursor to src.at, unless the loop has moved it because the
// segment was dropped: what was read counts as lost then.
func (w *logFile) claim() bool {
	w.capture.mu.Lock()
	defer w.capture.mu.Unlock()
	if w.cursor != w.based || w.ended {
		return false
	}
	w.cursor, w.based = w.src.at, w.src.at
	return true
}

// unclaim goes back to the mark. What was claimed and is dropped meanwhile is
// lost as well.
func (w *logFile) unclaim() {
	w.capture.mu.Lock()
	if w.cursor == w.based {
		w.cursor = w.mark.position()
	} else {
		w.lost.Bytes += w.took.Bytes
		w.lost.Lines += w.took.Lines
		w.saveLost() // where it cannot be, a crash would forget the number
	}
	w.capture.mu.Unlock()
	w.restore()
}

// settle says in the position file that the bytes of the last mark are there,
// so that it matters no more what becomes of the log file.
func (w *logFile) settle() error {
	if w.unsure != nil || w.mark.Length == 0 {
		return nil
	}
	m, err := w.put(0, 0)
	if err == nil {
		w.hold(m)
	}
	return err
}

// openLogFile opens an existing file. Whoever may write to its directory might
// put a link there: it is not followed.
func openLogFile(path string) (int, error) {
	return unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

// open opens the log file; where there is none it is made, with a mode and an
// owner if they are not negative.
func (w *logFile) open(mode uint32, uid, gid int) error {
	fd, err := openLogFile(w.path)
	if err == unix.ENOENT {
		const flags = unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC
		if fd, err = unix.Open(w.path, flags, 0o600); err == nil {
			if uid >= 0 {
				unix.Fchown(fd, uid, gid) // only root may give files away
			}
			unix.Fchmod(fd, mode)
		}
	}
	if err != nil {
		return w.cannot("open", err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errNotRegular
	}
	if err != nil {
		unix.Close(fd)
		return w.cannot("open", err)
	}
	w.fd, w.id, w.size, w.limit = fd, idOf(&st), st.Size, w.maxSize
	return nil
}

func (w *logFile) close() {
	if w.fd >= 0 {
		unix.Close(w.fd)
		w.fd = -1
	}
}

// stillThere opens the file again when it was moved or removed, and looks how
// large it is: it may also have been emptied.
func (w *logFile) stillThere() error {
	var st unix.Stat_t
	err := unix.Lstat(w.path, &st)
	if err == nil && idOf(&st) == w.id {
		w.size = st.Size
		return nil
	}
	if err != nil && err != unix.ENOENT {
		return w.cannot("look at", err)
	}
	w.close()
	return w.open(0o640, -1, -1)
}

// rotate makes room in a new file, or, where that is not possible, as much
// again in the present one.
func (w *logFile) rotate() error {
	if err := w.settle(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(w.fd, &st); err != nil {
		return w.cannot("look at", err)
	}
	if err := shift(w.path, w.maxFiles); err != nil {
		if !w.stuck {
			w.capture.log.Warn("the log file cannot be rotated, it grows on", "service", w.service.name, "error", err)
		}
		w.stuck = true
		w.limit = w.size + w.maxSize
		return nil
	}
	w.stuck = false
	w.close()
	return w.open(uint32(st.Mode)&0o777, int(st.Uid), int(st.Gid))
}

// shift renames a file to PATH.1, that to PATH.2 and so on, and keeps so many.
// A kill in the middle leaves a number free; the next shift fills it and moves
// nothing beyond, so that none is lost.
func shift(path string, keep int) error {
	name := func(i int) string {
		if i == 0 {
			return path
		}
		return path + "." + strconv.Itoa(i)
	}
	for i := keep + 1; unix.Unlink(name(i)) == nil; i++ {
	}
	if keep == 0 {
		if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
			return &os.PathError{Op: "unlink", Path: path, Err: err}
		}
		return nil
	}
	free := 1
	var st unix.Stat_t
	for free < keep && unix.Lstat(name(free), &st) == nil {
		free++
	}
	for ; free > 0; free-- {
		if err := unix.Rename(name(free-1), name(free)); err != nil && err != unix.ENOENT {
			return &os.LinkError{Op: "rename", Old: name(free - 1), New: name(free), Err: err}
		}
		failpoint.Hit("rotating")
	}
	return nil
}
