package store

import (
	"fmt"
	"hash/crc32"

	"holdfast/core/layout"
)

// A metadata page holds a fixed number of slots and exists in two copies, written in turn; the valid copy with the higher generation counts.
const (
	pageMagic  = 0x474d4648 // "HFMG"
	pageHeader = 64
	minPage    = 4096
)

// The bytes of a slot in a page; the bitmaps and checksums follow.
const (
	slotInode    = 0  // u64
	slotStripe   = 8  // u64
	slotVersion  = 16 // u64
	slotInterval = 24 // u64
	slotSeq      = 32 // u64: of the entries on the object, those up to it are folded into the slot, and no others
	slotBlock    = 40 // u32
	slotFlags    = 44 // u8: StateFlags and slotUsed
	slotHeader   = 48

	slotUsed = 0x80
)

// encodeSlot writes a slot that is in use as it is in a page.
func encodeSlot(b []byte, v slotView, seq uint64) {
	oid := v.object()
	le.PutUint64(b[slotInode:], uint64(oid.Inode))
	le.PutUint64(b[slotStripe:], oid.Stripe)
	le.PutUint64(b[slotVersion:], v.version())
	le.PutUint64(b[slotInterval:], v.interval())
	le.PutUint64(b[slotSeq:], seq)
	le.PutUint32(b[slotBlock:], v.block())
	b[slotFlags] = byte(v.flags()) | slotUsed
	copy(b[slotHeader:], v[memHeader:])
}

// decodeSlot reads a slot of a page that is in use.
func decodeSlot(v slotView, b []byte) (seq uint64, err error) {
	oid := layout.ObjectID{Inode: layout.Inode(le.Uint64(b[slotInode:])), Stripe: le.Uint64(b[slotStripe:])}
	interval := le.Uint64(b[slotInterval:])
	if interval > maxInterval {
		return 0, fmt.Errorf("the entry of object %v is impossible: interval %d", oid, interval)
	}
	v[memFlags] = b[slotFlags] &^ memDirty
	v.set(oid, le.Uint64(b[slotVersion:]), interval, le.Uint32(b[slotBlock:]))
	copy(v[memHeader:], b[slotHeader:])
	return le.Uint64(b[slotSeq:]), nil
}

// pageSizeFor is the size of metadata pages for slots of the given size: 4 KiB, or the next power of two that holds one slot.
func pageSizeFor(slot int) uint32 {
	n := minPage
	for n-pageHeader < slot {
		n *= 2
	}
	return uint32(n)
}

// pageInfo is a page's header.
type pageInfo struct {
	gen    uint32 // counts writes of this page; the copy is gen & 1
	maxSeq uint64 // highest entry sequence in it
}

// encodePage fills b with the header for the slots already at b[pageHeader:].
func encodePage(b []byte, sb *Superblock, page uint32, info pageInfo) {
	clear(b[:pageHeader])
	le.PutUint32(b, pageMagic)
	le.PutUint32(b[8:], FormatVersion)
	le.PutUint32(b[12:], page)
	copy(b[16:], sb.StoreID[:])
	le.PutUint32(b[32:], info.gen)
	le.PutUint32(b[36:], uint32(sb.Config.slotSize()))
	le.PutUint64(b[40:], info.maxSeq)
	le.PutUint32(b[4:], crc32.Checksum(b[8:sb.PageSize], castagnoli))
}

// errPageEmpty: a copy that was never written.
var errPageEmpty = fmt.Errorf("the page was never written")

// decodePage checks one copy of a page; b has PageSize bytes.
func decodePage(b []byte, sb *Superblock, page uint32, copyNum int) (pageInfo, error) {
	var info pageInfo
	if le.Uint32(b) != pageMagic {
		for _, c := range b {
			if c != 0 {
				return info, fmt.Errorf("it has no magic")
			}
		}
		return info, errPageEmpty
	}
	if have, want := crc32.Checksum(b[8:sb.PageSize], castagnoli), le.Uint32(b[4:]); have != want {
		return info, fmt.Errorf("its checksum is %08x, expected %08x", have, want)
	}
	info.gen = le.Uint32(b[32:])
	info.maxSeq = le.Uint64(b[40:])
	switch {
	case le.Uint32(b[8:]) != FormatVersion:
		return info, fmt.Errorf("it has format version %d", le.Uint32(b[8:]))
	case le.Uint32(b[12:]) != page:
		return info, fmt.Errorf("it says it is page %d", le.Uint32(b[12:]))
	case string(b[16:32]) != string(sb.StoreID[:]):
		return info, fmt.Errorf("it belongs to store %x", b[16:32])
	case le.Uint32(b[36:]) != uint32(sb.Config.slotSize()):
		return info, fmt.Errorf("it has entries of %d bytes", le.Uint32(b[36:]))
	case info.gen == 0 || int(info.gen&1) != copyNum:
		return info, fmt.Errorf("its generation %d does not belong in copy %d", info.gen, copyNum)
	}
	return info, nil
}
