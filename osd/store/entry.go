package store

import (
	"fmt"
	"hash/crc32"

	"holdfast/core/layout"
)

// entryKind is the type of a journal entry; the values are on disk.
type entryKind uint8

const (
	entryWrite    entryKind = 1
	entryZero     entryKind = 2
	entryDelete   entryKind = 3
	entryReplace  entryKind = 4
	entryVoid     entryKind = 5
	entryForget   entryKind = 6
	entryCommit   entryKind = 7
	entryRollback entryKind = 8

	entryPair       entryKind = 16
	entryPG         entryKind = 17
	entryPGDrop     entryKind = 18
	entrySessionEnd entryKind = 19
	entryPages      entryKind = 20

	// Reserved: 9 an in-place write announced before it happens, 10 a tombstone of a range of inodes.
)

var entryNames = map[entryKind]string{
	entryWrite: "write", entryZero: "zero", entryDelete: "delete", entryReplace: "replace", entryVoid: "void", entryForget: "forget", entryCommit: "commit",
	entryRollback: "rollback", entryPair: "pair", entryPG: "pg", entryPGDrop: "pg drop", entrySessionEnd: "session end", entryPages: "pages",
}

func (k entryKind) String() string {
	if s := entryNames[k]; s != "" {
		return s
	}
	return fmt.Sprintf("entry kind %d", uint8(k))
}

func (k entryKind) onObject() bool { return k >= entryWrite && k <= entryRollback }

// Flags of an entry.
const (
	entryUnstable    = 1  // the version waits for a commit
	entryKeepWritten = 2  // of a zero: the range counts as written
	entryDropBlock   = 8  // of a zero: nothing is present any more, the block is free
	entryCarried     = 16 // written again by the store; its pairs are elsewhere
	entryChainStart  = 4  // carried forward: what the journal said of the object's unfolded changes before is void
)

const (
	entryHeader = 24
	objectEntry = 104 // fixed part of an entry on an object
	pairBytes   = 24
	pgEntry     = 104 // fixed part
	pgSetBytes  = 16  // fixed part of a set
	memberBytes = 24
	maxPGEntry  = 64 << 10
)

// entry is one journal entry in memory; the byte slices point into the batch.
type entry struct {
	kind  entryKind
	flags uint8
	seq   uint64

	object                  layout.ObjectID
	base, version, interval uint64
	stateFlags              StateFlags // of a replace
	pair                    Pair
	low                     uint64
	off, length             uint32
	data                    uint32 // offset of the payload from the batch's start, 0 for none
	block                   uint32 // the block the object has from now on, or noBlock: as before (write), none (replace)
	bitmap                  []byte // write: the whole new bitmap or empty; replace: written
	present                 []byte // replace
	sums                    []byte // of [off, off+length), or of the whole block for a replace
	pairs                   []byte // replace: pairBytes each

	pg    PGRecord
	pages []byte // 8 bytes each: page, generation
	round uint64
}

// objectEntrySize is the size of an entry on an object with so much behind its fixed part.
func objectEntrySize(variable int) int { return (objectEntry + variable + 7) &^ 7 }

// sealEntry finishes an entry of size bytes at b.
func sealEntry(b []byte, size int) { le.PutUint32(b[4:], crc32.Checksum(b[8:size], castagnoli)) }

func startEntry(b []byte, size int, kind entryKind, flags uint8, seq uint64, count int) {
	clear(b[:size])
	le.PutUint32(b, uint32(size))
	le.PutUint64(b[8:], seq)
	b[16] = byte(kind)
	b[17] = flags
	le.PutUint32(b[20:], uint32(count))
}

// putObject writes the fixed part of an entry on an object.
func putObject(b []byte, e *entry, size, count int) {
	startEntry(b, size, e.kind, e.flags, e.seq, count)
	b[18] = byte(e.stateFlags)
	le.PutUint64(b[24:], uint64(e.object.Inode))
	le.PutUint64(b[32:], e.object.Stripe)
	le.PutUint64(b[40:], e.base)
	le.PutUint64(b[48:], e.version)
	le.PutUint64(b[56:], e.interval)
	le.PutUint64(b[64:], e.pair.Session)
	le.PutUint64(b[72:], e.pair.Sequence)
	le.PutUint64(b[80:], e.low)
	le.PutUint32(b[88:], e.off)
	le.PutUint32(b[92:], e.length)
	le.PutUint32(b[96:], e.data)
	le.PutUint32(b[100:], e.block)
}

// decodeEntry reads the entry at the start of b, which ends where the batch's entries end, and returns its size. batch is the length of the whole batch.
func decodeEntry(b []byte, sb *Superblock, batch int, e *entry) (int, error) {
	*e = entry{}
	if len(b) < entryHeader {
		return 0, fmt.Errorf("%d bytes are too few for an entry", len(b))
	}
	size := int(le.Uint32(b))
	if size < entryHeader || size > len(b) || size%8 != 0 {
		return 0, fmt.Errorf("an entry of %d bytes where %d are left", size, len(b))
	}
	b = b[:size]
	if have, want := crc32.Checksum(b[8:], castagnoli), le.Uint32(b[4:]); have != want {
		return 0, fmt.Errorf("checksum of the entry is %08x, expected %08x", have, want)
	}
	e.seq = le.Uint64(b[8:])
	e.kind, e.flags = entryKind(b[16]), b[17]
	count := int(le.Uint32(b[20:]))
	need := func(n int) error {
		if n > size || size-n >= 8 {
			return fmt.Errorf("a %v entry of %d bytes where %d are meant", e.kind, size, n)
		}
		return nil
	}
	switch e.kind {
	case entryPair, entrySessionEnd, entryPG, entryPGDrop, entryPages:
		return size, decodeRecord(b, e, count, need)
	}
	if !e.kind.onObject() {
		return 0, fmt.Errorf("%v is not known to this release", e.kind)
	}
	if size < objectEntry {
		return 0, need(objectEntry)
	}
	c := &sb.Config
	e.object = layout.ObjectID{Inode: layout.Inode(le.Uint64(b[24:])), Stripe: le.Uint64(b[32:])}
	e.base, e.version, e.interval = le.Uint64(b[40:]), le.Uint64(b[48:]), le.Uint64(b[56:])
	if e.interval > maxInterval {
		return 0, fmt.Errorf("a %v entry of interval %d", e.kind, e.interval)
	}
	e.stateFlags = StateFlags(b[18])
	e.pair = Pair{le.Uint64(b[64:]), le.Uint64(b[72:])}
	e.low = le.Uint64(b[80:])
	e.off, e.length, e.data, e.block = le.Uint32(b[88:]), le.Uint32(b[92:]), le.Uint32(b[96:]), le.Uint32(b[100:])
	if e.off%c.Granularity != 0 || e.length%c.Granularity != 0 || e.off > c.BlockSize || e.length > c.BlockSize-e.off {
		return 0, fmt.Errorf("a %v entry on [%d, +%d) of a block of %d", e.kind, e.off, e.length, c.BlockSize)
	}
	if e.block != noBlock && uint64(e.block) >= sb.Blocks {
		return 0, fmt.Errorf("a %v entry names block %d of %d", e.kind, e.block, sb.Blocks)
	}
	if e.data != 0 && (e.data%512 != 0 || int64(e.data)+int64(e.length) > int64(batch)) {
		return 0, fmt.Errorf("a %v entry has its data at %d + %d in a batch of %d bytes", e.kind, e.data, e.length, batch)
	}
	rest, bm := b[objectEntry:], c.BitmapLen()
	switch e.kind {
	case entryWrite:
		sums := 0
		if c.ChecksumType != ChecksumNone {
			sums = 4 * int(e.length/c.ChecksumBlock)
		}
		if count != 0 && count != bm {
			return 0, fmt.Errorf("a write entry with a bitmap of %d bytes, %d are meant", count, bm)
		}
		if err := need(objectEntry + count + sums); err != nil {
			return 0, err
		}
		e.bitmap, e.sums = rest[:count], rest[count:count+sums]
	case entryReplace:
		sums := 4 * c.sums()
		if count > size/pairBytes {
			return 0, fmt.Errorf("a replace entry of %d bytes with %d pairs", size, count)
		}
		if err := need(objectEntry + 2*bm + sums + count*pairBytes); err != nil {
			return 0, err
		}
		e.bitmap, e.present, rest = rest[:bm], rest[bm:2*bm], rest[2*bm:]
		e.sums, e.pairs = rest[:sums], rest[sums:sums+count*pairBytes]
	default:
		if err := need(objectEntry); err != nil {
			return 0, err
		}
	}
	return size, nil
}

func decodeRecord(b []byte, e *entry, count int, need func(int) error) error {
	switch e.kind {
	case entryPair:
		if err := need(64); err != nil {
			return err
		}
		e.object = layout.ObjectID{Inode: layout.Inode(le.Uint64(b[24:])), Stripe: le.Uint64(b[32:])}
		e.pair = Pair{le.Uint64(b[40:]), le.Uint64(b[48:])}
		e.version = le.Uint64(b[56:])
	case entrySessionEnd:
		if err := need(32); err != nil {
			return err
		}
		e.pair.Session = le.Uint64(b[24:])
	case entryPGDrop:
		if err := need(32); err != nil {
			return err
		}
		e.pg.PG = layout.PGID{Pool: layout.PoolID(le.Uint32(b[24:])), Num: le.Uint32(b[28:])}
	case entryPages:
		if count > len(b)/8 {
			return fmt.Errorf("a pages entry of %d bytes for %d pages", len(b), count)
		}
		if err := need(32 + 8*count); err != nil {
			return err
		}
		e.round = le.Uint64(b[24:])
		e.pages = b[32 : 32+8*count]
	case entryPG:
		if len(b) < pgEntry {
			return need(pgEntry)
		}
		p := &e.pg
		p.PG = layout.PGID{Pool: layout.PoolID(le.Uint32(b[24:])), Num: le.Uint32(b[28:])}
		p.Generation = le.Uint64(b[32:])
		p.Interval = layout.Interval(le.Uint64(b[40:]))
		p.Primary = layout.OSDNum(le.Uint64(b[48:]))
		p.Instance = le.Uint64(b[56:])
		p.TookPart = layout.Interval(le.Uint64(b[64:]))
		p.Floor = layout.Version(le.Uint64(b[72:]))
		copy(p.PrimaryStore[:], b[80:])
		rest, err := b[pgEntry:], error(nil)
		if p.Participants, rest, err = getMembers(rest, le.Uint32(b[96:])); err != nil {
			return err
		}
		for n := le.Uint32(b[100:]); n > 0; n-- {
			if len(rest) < pgSetBytes {
				return fmt.Errorf("a pg entry of %d bytes ends in its sets", len(b))
			}
			set := PGSet{Interval: layout.Interval(le.Uint64(rest))}
			if set.Members, rest, err = getMembers(rest[pgSetBytes:], le.Uint32(rest[8:])); err != nil {
				return err
			}
			p.Sets = append(p.Sets, set)
		}
		return need(len(b) - len(rest))
	}
	return nil
}

// getMembers reads n members from the front of b and returns what follows them.
func getMembers(b []byte, n uint32) ([]Member, []byte, error) {
	if uint64(n) > uint64(len(b)/memberBytes) {
		return nil, nil, fmt.Errorf("a pg entry names %d members in %d bytes", n, len(b))
	}
	var ms []Member
	for ; n > 0; n-- {
		m := Member{OSD: layout.OSDNum(le.Uint64(b))}
		copy(m.Store[:], b[8:])
		ms, b = append(ms, m), b[memberBytes:]
	}
	return ms, b, nil
}

func putMembers(b []byte, ms []Member) []byte {
	for _, m := range ms {
		le.PutUint64(b, uint64(m.OSD))
		copy(b[8:], m.Store[:])
		b = b[memberBytes:]
	}
	return b
}

// The records that are not changes of an object are encoded when they are queued; their sequence number and checksum are set when they enter a batch.

func encodePair(object layout.ObjectID, p Pair, version uint64) []byte {
	b := make([]byte, 64)
	startEntry(b, len(b), entryPair, 0, 0, 0)
	le.PutUint64(b[24:], uint64(object.Inode))
	le.PutUint64(b[32:], object.Stripe)
	le.PutUint64(b[40:], p.Session)
	le.PutUint64(b[48:], p.Sequence)
	le.PutUint64(b[56:], version)
	return b
}

// bytes is the size of the record's entry.
func (r *PGRecord) bytes() int {
	n := pgEntry + len(r.Participants)*memberBytes
	for _, set := range r.Sets {
		n += pgSetBytes + len(set.Members)*memberBytes
	}
	return n
}

func encodePG(p *PGRecord) []byte {
	b := make([]byte, p.bytes())
	startEntry(b, len(b), entryPG, 0, 0, 0)
	le.PutUint32(b[24:], uint32(p.PG.Pool))
	le.PutUint32(b[28:], p.PG.Num)
	le.PutUint64(b[32:], p.Generation)
	le.PutUint64(b[40:], uint64(p.Interval))
	le.PutUint64(b[48:], uint64(p.Primary))
	le.PutUint64(b[56:], p.Instance)
	le.PutUint64(b[64:], uint64(p.TookPart))
	le.PutUint64(b[72:], uint64(p.Floor))
	copy(b[80:], p.PrimaryStore[:])
	le.PutUint32(b[96:], uint32(len(p.Participants)))
	le.PutUint32(b[100:], uint32(len(p.Sets)))
	rest := putMembers(b[pgEntry:], p.Participants)
	for _, set := range p.Sets {
		le.PutUint64(rest, uint64(set.Interval))
		le.PutUint32(rest[8:], uint32(len(set.Members)))
		rest = putMembers(rest[pgSetBytes:], set.Members)
	}
	return b
}

func encodePGDrop(pg layout.PGID) []byte {
	b := make([]byte, 32)
	startEntry(b, len(b), entryPGDrop, 0, 0, 0)
	le.PutUint32(b[24:], uint32(pg.Pool))
	le.PutUint32(b[28:], pg.Num)
	return b
}

func encodeSessionEnd(session uint64) []byte {
	b := make([]byte, 32)
	startEntry(b, len(b), entrySessionEnd, 0, 0, 0)
	le.PutUint64(b[24:], session)
	return b
}
