package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/failpoint"
	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// store keeps the saved state: wishes, history and the effective
// configuration, one record per service, in a journal in the runtime
// directory. Each batch of changes is appended with one write(2), as a record
// of records, and the last record of a name counts. A batch that was cut short
// by a crash is told by its checksum and dropped as a whole: nothing that it
// stood for has been done yet.
//
// Owned by the loop. The state is for a crash of the supervisor, not of the
// machine: nothing is synced.
type store struct {
	path string
	file *os.File
	size int64
	// live is about how many bytes a fresh journal would have.
	live int64
	buf  bytes.Buffer
	enc  *msgpack.Encoder
	// failed says that the last write failed; the journal is written afresh
	// before the next.
	failed error
	// done says that the journal was removed for good.
	done bool
}

// stateFormat is the version of the journal. It is written first, and a
// release reads its own and the one before.
//
// 2 added recordReplaced, recordBatch, recordWhole and recordProxies.
const stateFormat = 2

// readFormats are those that this release reads.
var readFormats = []int{stateFormat - 1, stateFormat}

// unnamed ends the name of a journal that is not whole yet.
const unnamed = ".new"

// Types of records. Numbers are never reused.
const (
	recordHeader   uint8 = 1  // header
	recordGlobal   uint8 = 2  // core.Global
	recordState    uint8 = 3  // core.Record
	recordSpec     uint8 = 4  // spec.Service
	recordGone     uint8 = 5  // the name of a service that is no more
	recordErrors   uint8 = 6  // []spec.Problem
	recordEvent    uint8 = 7  // change
	recordReplaced uint8 = 8  // []ipc.Replaced
	recordBatch    uint8 = 9  // records, whole or not at all
	recordWhole    uint8 = 10 // true: up to here it was written afresh
	recordProxies  uint8 = 11 // []*spec.Proxy, those that are in no service file
)

// header says whose state it is.
type header struct {
	Format int `msgpack:"format"`
	// Boot is the kernel's boot id, Keeper and Started the pid and start time
	// of pid1: the state is of use only to its children.
	Boot    string `msgpack:"boot"`
	Keeper  int    `msgpack:"keeper"`
	Started uint64 `msgpack:"started"`
}

// sameLife says that a state is of use to the supervisor with this header.
func (h header) sameLife(o header) bool {
	return h.Boot == o.Boot && h.Keeper == o.Keeper && h.Started == o.Started
}

// saved is what a journal holds.
type saved struct {
	Header   header
	Global   core.Global
	Records  map[string]core.Record
	Services map[string]*spec.Service
	common   spec.Common
	Problems []spec.Problem
	Proxies  []*spec.Proxy
	// Events are changes, still encoded: most of them are never looked at.
	Events   []msgpack.RawMessage
	Replaced []ipc.Replaced
	whole    bool
	// cut is the number of bytes at its end that are no whole record.
	cut int
}

func (s *saved) records() []core.Record {
	out := make([]core.Record, 0, len(s.Records))
	for _, r := range s.Records {
		out = append(out, r)
	}
	return out
}

// frameSize is the length and the checksum that precede a record.
const frameSize = 8

// checksum is that of a record. Its table takes a while, so it is made when the first
// is needed.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// loadState reads a journal. It returns nil if there is none, and an error
// that says what is wrong with one that cannot be used.
func loadState(path string) (*saved, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the saved state: %w", err)
	}
	s := &saved{Records: map[string]core.Record{}, Services: map[string]*spec.Service{}}
	whole, err := eachRecord(b, s.read)
	if err != nil {
		return nil, fmt.Errorf("cannot read the saved state %s: %w", path, err)
	}
	s.cut = len(b) - int(whole)
	if s.Header.Format >= 2 && !s.whole {
		return nil, fmt.Errorf("cannot read the saved state %s: it was cut short, after %d bytes", path, whole)
	}
	if s.Header.Format == 0 {
		return nil, fmt.Errorf("cannot read the saved state %s: it does not begin with a header", path)
	}
	return s, nil
}

// eachRecord calls read for the records of a journal, up to one that was torn
// by a crash, and returns how many bytes are whole.
func eachRecord(b []byte, read func(kind uint8, body []byte) error) (whole int64, err error) {
	for len(b) >= frameSize {
		n := int(binary.BigEndian.Uint32(b))
		if n < 1 || n > len(b)-frameSize {
			break
		}
		payload := b[frameSize : frameSize+n]
		if checksum(payload) != binary.BigEndian.Uint32(b[4:]) {
			break
		}
		// As with a frame: the decoder believes any length.
		if err := ipc.Check(payload[1:]); err != nil && payload[0] != recordBatch { // whose records are checked one by one
			return whole, fmt.Errorf("record of type %d: %w", payload[0], err)
		}
		if err := read(payload[0], payload[1:]); err != nil {
			return whole, err
		}
		b = b[frameSize+n:]
		whole += int64(frameSize + n)
	}
	return whole, nil
}

func (s *saved) read(kind uint8, body []byte) error {
	if s.Header.Format == 0 && kind != recordHeader {
		return errors.New("it does not begin with a header")
	}
	switch kind {
	case recordHeader:
		if err := msgpack.Unmarshal(body, &s.Header); err != nil {
			return err
		}
		if !slices.Contains(readFormats, s.Header.Format) {
			return fmt.Errorf("it has format %d, this zinit-server reads %v", s.Header.Format, readFormats)
		}
		return nil
	case recordGlobal:
		s.Global = core.Global{}
		return msgpack.Unmarshal(body, &s.Global)
	case recordState:
		var r core.Record
		err := msgpack.Unmarshal(body, &r)
		s.Records[r.Name] = r
		return err
	case recordSpec:
		sp := spec.Service{Lifecycle: &spec.Lifecycle{}, Logging: &spec.Logging{}, Limits: &spec.Limits{}}
		err := msgpack.Unmarshal(body, &sp)
		s.common.Share(&sp)
		s.Services[sp.Name] = &sp
		return err
	case recordGone:
		var name string
		err := msgpack.Unmarshal(body, &name)
		delete(s.Records, name)
		delete(s.Services, name)
		return err
	case recordErrors:
		s.Problems = nil
		return msgpack.Unmarshal(body, &s.Problems)
	case recordProxies:
		s.Proxies = nil
		return msgpack.Unmarshal(body, &s.Proxies)
	case recordEvent:
		s.Events = append(s.Events, body)
		return nil
	case recordWhole:
		return msgpack.Unmarshal(body, &s.whole)
	case recordBatch:
		_, err := eachRecord(body, s.read)
		return err
	case recordReplaced:
		s.Replaced = nil
		return msgpack.Unmarshal(body, &s.Replaced)
	}
	return fmt.Errorf("it has a record of the unknown type %d", kind)
}

// Of these there are many, or many of their fields are empty.
func init() {
	ipc.WriteByList(core.Record{}, core.First{}, core.Run{}, core.End{}, change{}, ipc.Spawn{})
}

func newStore(path string) *store {
	s := &store{path: path}
	s.enc = msgpack.NewEncoder(&s.buf)
	s.enc.UseCompactInts(true)
	return s
}

// put adds a record to the batch.
func (s *store) put(kind uint8, body any) error {
	if s.buf.Len() == 0 {
		s.buf.Write(make([]byte, frameSize))
		s.buf.WriteByte(recordBatch)
	}
	start := s.buf.Len()
	s.buf.Write(make([]byte, frameSize))
	s.buf.WriteByte(kind)
	if err := s.enc.Encode(body); err != nil {
		s.buf.Truncate(start)
		return fmt.Errorf("cannot encode a state record: %w", err)
	}
	seal(s.buf.Bytes()[start:])
	return nil
}

// seal fills in the length and the checksum of a record.
func seal(b []byte) {
	binary.BigEndian.PutUint32(b, uint32(len(b)-frameSize))
	binary.BigEndian.PutUint32(b[4:], checksum(b[frameSize:]))
}

func (s *store) putChanges(ch core.Changes) error {
	var err error
	if ch.Global != nil {
		err = s.put(recordGlobal, ch.Global)
	}
	for i := range ch.Records {
		err = errors.Join(err, s.put(recordState, &ch.Records[i]))
	}
	for _, n := range ch.Removed {
		err = errors.Join(err, s.put(recordGone, n))
	}
	return err
}

// append writes the batch at the end of the journal.
func (s *store) append() error {
	if s.failed != nil || s.file == nil {
		s.clear()
		return errors.New("the journal has to be written afresh")
	}
	batch := s.buf.Bytes()
	seal(batch)
	failpoint.Hit("torn", func() { s.file.Write(batch[:len(batch)/2]) })
	n, err := s.file.Write(batch)
	s.size += int64(n)
	s.clear()
	if err == nil && unlinked(s.file) {
		err = errors.New("the journal was removed")
	}
	s.failed = err
	return err
}

// unlinked says that an open file has no name any more.
func unlinked(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink == 0
}

// misplaced says that another file than the journal has its name, or none.
func (s *store) misplaced() bool {
	if s.file == nil {
		return !s.done
	}
	there, err := os.Lstat(s.path)
	mine, err2 := s.file.Stat()
	return err != nil || err2 != nil || !os.SameFile(there, mine)
}

// makeRuntimeDir makes the runtime directory where somebody has removed it.
func makeRuntimeDir(dir string) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("cannot make the runtime directory: %w", err)
	}
	return os.Chmod(dir, 0o711) // which the umask may have narrowed
}

// clear empties the batch, and gives back what only a large one needs.
func (s *store) clear() {
	s.buf.Reset()
	if s.buf.Cap() > 64<<10 {
		s.buf = bytes.Buffer{}
	}
}

// outgrown says that the journal should be written afresh: most of it is
// history.
func (s *store) outgrown() bool { return s.failed != nil || s.size > 1<<20 && s.size > 4*s.live }

// rewrite replaces the journal by one with the batch alone.
func (s *store) rewrite() (err error) {
	defer s.clear()
	s.put(recordWhole, true)
	all := s.buf.Bytes()[frameSize+1:]
	if err := makeRuntimeDir(filepath.Dir(s.path)); err != nil {
		s.failed = err
		return err
	}
	f, err := os.OpenFile(s.path+unnamed, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err == nil {
		if _, err = f.Write(all); err == nil {
			failpoint.Hit("written")
			err = os.Rename(s.path+unnamed, s.path)
		}
		if err != nil {
			f.Close()
			os.Remove(s.path + unnamed)
		}
	}
	if err != nil {
		s.failed = err
		return fmt.Errorf("cannot save the state: %w", err)
	}
	if s.file != nil {
		s.file.Close()
	}
	s.file, s.failed = f, nil
	s.size = int64(len(all))
	s.live = s.size
	return nil
}

// remove ends the journal: what is down cleanly needs no recovery.
func (s *store) remove() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
	s.done = true
	os.Remove(s.path)
}

// saveAll writes a journal afresh, with the news. It has all that waits in the
// batch, and begins with the header.
func (s *server) saveAll(news []msgpack.RawMessage) error {
	s.store.clear()
	s.store.put(recordHeader, header{Format: stateFormat, Boot: bootID(), Keeper: s.keeper.hello.Pid, Started: s.keeper.hello.StartTime})
	for _, n := range s.core.Names() {
		s.store.put(recordSpec, s.core.Spec(n))
	}
	s.store.put(recordErrors, s.problems)
	s.store.put(recordReplaced, s.replaced)
	s.store.put(recordProxies, slices.Collect(maps.Values(s.ownProxies)))
	s.store.putChanges(s.core.All())
	for _, e := range s.history.kept() {
		s.store.put(recordEvent, e)
	}
	for _, e := range news {
		s.store.put(recordEvent, e)
	}
	err := s.store.rewrite()
	switch {
	case err != nil && !s.unsaved:
		s.log.Error("zinit goes on, but a crash of the supervisor would not be survived", "error", err)
		s.unsavedSince = ipc.Time(time.Now())
	case err == nil && s.unsaved:
		s.log.Info("the state is saved again")
	}
	s.unsaved = err != nil
	s.history.add(news)
	return nil
}

// save writes what the steps have changed.
func (s *server) save() {
	ch, news := s.core.Changes(), s.newEvents()
	s.noteNews(ch)
	if ch.Empty() && len(news) == 0 && s.store.buf.Len() == 0 && s.store.failed == nil {
		return
	}
	if !s.store.outgrown() {
		s.store.putChanges(ch)
		for _, e := range news {
			s.store.put(recordEvent, e)
		}
		if s.store.append() == nil {
			s.history.add(news)
			return
		}
	}
	s.saveAll(news)
}
