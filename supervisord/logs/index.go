package logs

import "encoding/binary"

// A record of an index file says whose the bytes of the data file are, from
// its offset up to that of the next record, or up to the end of the file.
//
// It is written before the bytes are moved. Killed between the two, the chunk
// is empty: the next record has the same offset. So no kill can leave bytes
// that belong to nobody, or count bytes that are not there. Records are never
// rewritten, and 32 divides a page, so that a write is never cut in two by a
// kill (Linux looks for one between pages) and a reader that goes by the size
// of the file never sees half a record.
//
//	0  offset in the data file
//	8  time of reading, ns since 1970
//	16 run
//	24 flags
//	25 zero
//	28 lines of this run and stream that were discarded since its last record
type record struct {
	offset int64
	time   int64
	run    uint64
	flags  uint8
	lost   uint32
}

const recordSize = 32

const (
	flagStderr = 1 << iota // stream; stdout without
	flagMid                // the chunk does not begin at the beginning of a line
	flagGap                // bytes of this run and stream were discarded before it
	flagEnd                // the stream ended in an unfinished line; no bytes
	flagsKnown = 1<<iota - 1
)

func (r *record) stream() Stream { return Stream(r.flags & flagStderr) }

func (r *record) encode(b *[recordSize]byte) {
	binary.LittleEndian.PutUint64(b[0:], uint64(r.offset))
	binary.LittleEndian.PutUint64(b[8:], uint64(r.time))
	binary.LittleEndian.PutUint64(b[16:], r.run)
	b[24] = r.flags
	b[25], b[26], b[27] = 0, 0, 0
	binary.LittleEndian.PutUint32(b[28:], r.lost)
}

// decode reports whether b can be a record at all.
func (r *record) decode(b []byte) bool {
	r.offset = int64(binary.LittleEndian.Uint64(b[0:]))
	r.time = int64(binary.LittleEndian.Uint64(b[8:]))
	r.run = binary.LittleEndian.Uint64(b[16:])
	r.flags = b[24]
	r.lost = binary.LittleEndian.Uint32(b[28:])
	return r.offset >= 0 && r.flags&^flagsKnown == 0 && b[25]|b[26]|b[27] == 0
}
