package store

import (
	"math/bits"
	"unsafe"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
)

// The bytes of a slot, in memory as on disk.
const (
	slotHeader = 48

	slotInode    = 0  // u64
	slotStripe   = 8  // u64
	slotVersion  = 16 // u64
	slotInterval = 24 // u64
	slotSeq      = 32 // u64: the last entry folded into the slot
	slotBlock    = 40 // u32
	slotFlags    = 44 // u8: StateFlags and slotUsed
	slotGen      = 46 // u16, in memory only: changes whenever data that a read in flight may be using moves

	slotUsed = 0x80
)

const noBlock = ^uint32(0)

// table is the folded state of every object: slots in one piece of memory outside the garbage collector's heap, found through an open-addressing index.
type table struct {
	l    loop.Loop
	refs []*buf.Ref

	slots    []byte
	size     int // of a slot
	bitmap   int // bytes of a bitmap
	perPage  uint32
	index    []uint32 // 0 free, else number+1; with dirtyBit a number of a dirty object, else of a slot
	seed     [2]uint64
	slotFree *bitset

	position []uint32 // of a slot in its PG's list, +1

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
	t := &table{l: l, size: sb.Config.slotSize(), bitmap: sb.Config.BitmapLen(), perPage: uint32(sb.slotsPerPage())}
	n, pages := int(sb.Slots), sb.pages()
	t.slots = offHeap[byte](t, n*t.size)
	t.index = offHeap[uint32](t, n+n*2/5+16)
	t.position = offHeap[uint32](t, n)
	t.pageGen = offHeap[uint32](t, pages)
	t.pageMax = offHeap[uint64](t, pages)
	t.pageFirst = offHeap[uint32](t, pages)
	t.pageNext = offHeap[uint32](t, pages)
	t.pageDirty = offHeap[bool](t, pages)
	t.seed = [2]uint64{le.Uint64(sb.secret[:]) | 1, le.Uint64(sb.secret[8:]) | 1}
	t.slotFree = newBitset(sb.Slots)
	return t
}

// free gives the memory back; nothing may use the table any more.
func (t *table) free() {
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
	b := t.slots[int(slot)*t.size:]
	return layout.ObjectID{Inode: layout.Inode(le.Uint64(b)), Stripe: le.Uint64(b[slotStripe:])}
}

// Accessors of a slot's bytes.

type slotView []byte

func (b slotView) used() bool           { return b[slotFlags]&slotUsed != 0 }
func (b slotView) version() uint64      { return le.Uint64(b[slotVersion:]) }
func (b slotView) interval() uint64     { return le.Uint64(b[slotInterval:]) }
func (b slotView) seq() uint64          { return le.Uint64(b[slotSeq:]) }
func (b slotView) block() uint32        { return le.Uint32(b[slotBlock:]) }
func (b slotView) flags() StateFlags    { return StateFlags(b[slotFlags] &^ slotUsed) }
func (b slotView) gen() uint16          { return le.Uint16(b[slotGen:]) }
func (b slotView) written(n int) []byte { return b[slotHeader : slotHeader+n] }
func (b slotView) present(n int) []byte { return b[slotHeader+n : slotHeader+2*n] }
func (b slotView) sums(n int) []byte    { return b[slotHeader+2*n:] }
func (b slotView) bump()                { le.PutUint16(b[slotGen:], b.gen()+1) }
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
