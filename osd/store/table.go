package store

import (
	"math/bits"
	"unsafe"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
)

// The bytes of a slot in memory: those of a page (page.go) without what cannot occur, since there are as many as objects. The bitmaps and checksums follow.
const (
	memInode    = 0  // u64
	memStripe   = 8  // u64
	memVersion  = 16 // u64
	memInterval = 24 // u40
	memFlags    = 29 // u8: StateFlags, slotUsed and memDirty
	memBlock    = 30 // u32
	memHeader   = 34

	memDirty    = 0x40 // there is a dirty object
	maxInterval = 1<<40 - 1
)

const noBlock = ^uint32(0)

// table is the folded state of every object: slots in one piece of memory outside the garbage collector's heap, found through an open-addressing index.
type table struct {
	l    loop.Loop
	refs []*buf.Ref

	slots    []byte
	size     int // of a slot in memory
	diskSize int // of a slot in a page
	bitmap   int // bytes of a bitmap
	perPage  uint32
	index    []uint32 // 0 free, else number+1; with dirtyBit a number of a dirty object, else of a slot
	seed     [2]uint64
	slotFree *bitset

	tags    []uint16 // of a slot: which PGs its object may be of, 0 if no list has it (list.go)
	seqs    []uint64 // while a store is opened: the entry up to which a slot's object is folded
	seqsRef *buf.Ref
	scratch slotView
	gens    []uint16 // of slots with the same number modulo len: changes whenever data that a read in flight may be using moves

	// Pages.
	pageGen   []uint32
	pageMax   []uint64
	pageFirst []uint32 // chain of changes folded into the page and not yet durable there
	pageNext  []uint32 // list of dirty pages, number+1
	pageDirty []bool
	dirtyHead uint32 // oldest dirty page, +1
	dirtyTail uint32
	dirtyLen  int
}

const dirtyBit = 1 << 31

// offHeap lends cleared memory for n values outside the garbage collector's heap. T must hold no pointers.
func offHeap[T any](t *table, n int) []T {
	var zero T
	b := t.alloc(max(n, 1) * int(unsafe.Sizeof(zero)))
	// A large piece is a fresh mapping: looking at it does not make it resident, clearing it would.
	for page := b; len(page) > 0; page = page[min(len(page), 4096):] {
		if p := page[:min(len(page), 4096)]; !allZero(p) {
			clear(p)
		}
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), max(n, 1))[:n]
}

// alloc lends memory until free.
func (t *table) alloc(n int) []byte {
	r := t.l.Alloc(n)
	t.refs = append(t.refs, r)
	return r.Bytes()
}

func newTable(l loop.Loop, sb *Superblock) *table {
	t := &table{l: l, size: memHeader + 2*sb.Config.BitmapLen() + 4*sb.Config.sums(), diskSize: sb.Config.slotSize(), bitmap: sb.Config.BitmapLen(), perPage: uint32(sb.slotsPerPage())}
	n, pages := int(sb.Slots), sb.pages()
	t.slots = offHeap[byte](t, n*t.size)
	t.index = offHeap[uint32](t, n+n/4+16) // at most 8 of 9 slots have a block
	t.tags = offHeap[uint16](t, n)
	t.gens = offHeap[uint16](t, 1<<14)
	t.scratch = make(slotView, t.size)
	t.seqsRef = l.Alloc(8 * max(n, 1))
	t.seqs = unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(t.seqsRef.Bytes()))), n) // read only of slots that were filled
	t.pageGen = offHeap[uint32](t, pages)
	t.pageMax = offHeap[uint64](t, pages)
	t.pageFirst = offHeap[uint32](t, pages)
	t.pageNext = offHeap[uint32](t, pages)
	t.pageDirty = offHeap[bool](t, pages)
	t.seed = [2]uint64{le.Uint64(sb.secret[:]) | 1, le.Uint64(sb.secret[8:]) | 1}
	t.slotFree = newBitset(sb.Slots)
	return t
}

// opened gives back what only opening needs.
func (t *table) opened() {
	if t.seqsRef != nil {
		t.seqsRef.Release()
		t.seqs, t.seqsRef = nil, nil
	}
}

// free gives the memory back; nothing may use the table any more.
func (t *table) free() {
	t.opened()
	for _, r := range t.refs {
		r.Release()
	}
	*t = table{}
}

func (t *table) slot(i uint32) []byte {
	off := int(i) * t.size
	return t.slots[off : off+t.size : off+t.size]
}

func (t *table) page(slot uint32) uint32 { return slot / t.perPage }

// home is where an object's search begins. The seed is the store's secret, so nobody can choose stripes that collide.
func (t *table) home(oid layout.ObjectID) uint32 {
	hi, lo := bits.Mul64(uint64(oid.Inode)^t.seed[0], oid.Stripe^t.seed[1])
	hi, lo = bits.Mul64(hi^lo^t.seed[0], 0x9e3779b97f4a7c15)
	hi, _ = bits.Mul64(hi^lo, uint64(len(t.index)))
	return uint32(hi)
}

func (t *table) object(slot uint32) layout.ObjectID {
	return slotView(t.slots[int(slot)*t.size:]).object()
}

// gen is the state of a slot's data: a read that began under another one may have read what was moved.
func (t *table) gen(slot uint32) uint16 { return t.gens[int(slot)%len(t.gens)] }
func (t *table) bump(slot uint32)       { t.gens[int(slot)%len(t.gens)]++ }

// Accessors of a slot's bytes.

type slotView []byte

func (b slotView) object() layout.ObjectID {
	return layout.ObjectID{Inode: layout.Inode(le.Uint64(b)), Stripe: le.Uint64(b[memStripe:])}
}
func (b slotView) used() bool           { return b[memFlags]&slotUsed != 0 }
func (b slotView) version() uint64      { return le.Uint64(b[memVersion:]) }
func (b slotView) interval() uint64     { return le.Uint64(b[memInterval:]) & maxInterval }
func (b slotView) block() uint32        { return le.Uint32(b[memBlock:]) }
func (b slotView) flags() StateFlags    { return StateFlags(b[memFlags] &^ (slotUsed | memDirty)) }
func (b slotView) written(n int) []byte { return b[memHeader : memHeader+n] }
func (b slotView) present(n int) []byte { return b[memHeader+n : memHeader+2*n] }
func (b slotView) sums(n int) []byte    { return b[memHeader+2*n:] }

func (b slotView) dirty() bool { return b[memFlags]&memDirty != 0 }

// set fills all of a slot's header but its flags.
func (b slotView) set(oid layout.ObjectID, version, interval uint64, block uint32) {
	if interval > maxInterval {
		panic("store: an interval beyond what a slot holds")
	}
	le.PutUint64(b[memInode:], uint64(oid.Inode))
	le.PutUint64(b[memStripe:], oid.Stripe)
	le.PutUint64(b[memVersion:], version)
	le.PutUint64(b[memInterval:], interval|uint64(b[memFlags])<<40) // its upper bytes lie under the block
	le.PutUint32(b[memBlock:], block)
}

// setFlags keeps whether there is a dirty object.
func (b slotView) setFlags(f byte)       { b[memFlags] = b[memFlags]&memDirty | f }
func (b slotView) setBlock(block uint32) { le.PutUint32(b[memBlock:], block) }

func (b slotView) setDirty(d bool) {
	b[memFlags] &^= memDirty
	if d {
		b[memFlags] |= memDirty
	}
}

func (b slotView) state() State {
	if !b.used() {
		return State{}
	}
	return State{Version: layout.Version(b.version()), Interval: layout.Interval(b.interval()), Flags: b.flags()}
}

// insert adds an index entry for an object that is not there.
func (t *table) insert(oid layout.ObjectID, value uint32) {
	i := t.home(oid)
	for t.index[i] != 0 {
		if i++; int(i) == len(t.index) {
			i = 0
		}
	}
	t.index[i] = value + 1
}

// remove deletes index position i and closes the gap.
func (t *table) remove(i uint32, objectOf func(value uint32) layout.ObjectID) {
	n := uint32(len(t.index))
	for j := i; ; {
		if j++; j == n {
			j = 0
		}
		v := t.index[j]
		if v == 0 {
			break
		}
		home := t.home(objectOf(v - 1))
		// The entry at j may move to i unless its home lies behind i, going round.
		if (j+n-home)%n >= (j+n-i)%n {
			t.index[i] = v
			i = j
		}
	}
	t.index[i] = 0
}
