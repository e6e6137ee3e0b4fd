package client

import (
	"fmt"

	"holdfast/core/layout"
	"holdfast/core/loop/buf"
	"holdfast/core/wire"
)

// Kind is what an Op does.
type Kind uint8

// The kinds of an Op. Ranges may have any alignment unless said otherwise.
const (
	// Read brings Parts: one per object, in order.
	Read Kind = iota + 1
	// ReadBitmap brings Parts without data, one for each object of the range; it says which units of the layer (and of its parents) were ever written.
	ReadBitmap
	// Write is durable on every member of the PG when it completes, unless it is Lazy.
	Write
	// CompareWrite writes Pieces if the range holds what Compare says, atomically; else it ends with *MismatchError. The range lies within one object.
	CompareWrite
	// Zero makes the range read as zeroes, with KeepWritten as data (explicit zeroes), otherwise freeing what it can.
	Zero
	// Delete deletes whole objects: Offset and Len are multiples of the object size. In a layer with a parent it reveals the parent's data. It works on images that are marked deleted, too.
	Delete
	// Flush makes completed changes durable: those with Lazy are not. If one could not be, because its session was fenced or another client has written over it, it ends with the reason.
	Flush
)

func (k Kind) String() string {
	if n := [...]string{"", "read", "read bitmap", "write", "compare and write", "zero", "delete", "flush"}; int(k) < len(n) && k > 0 {
		return n[k]
	}
	return fmt.Sprintf("operation %d", uint8(k))
}

func (k Kind) changes() bool { return k == Write || k == CompareWrite || k == Zero || k == Delete }

const (
	// MaxLen is the longest Read, Write or CompareWrite, bytes.
	MaxLen = wire.MaxData / 2 // the granules around it must fit a packet, too
	// MaxBitmapObjects bounds the objects of one ReadBitmap.
	MaxBitmapObjects = 1 << 16
)

// Piece is data: Ref.Bytes()[Off:Off+Len], or Len zero bytes when Ref is nil.
type Piece struct {
	Ref *buf.Ref
	Off int
	Len int
}

// Op is one request. The caller embeds or pools it and sets Done once; the Client owns it from Submit to Done.
type Op struct {
	Kind    Kind
	Session *Session // who asks; needed for changes, and for the rest where they must end with the session
	Inode   layout.Inode
	Offset  uint64
	Len     uint64
	// CAS, when not 0, makes a change (aligned, of one object) conditional: the object must have version CAS-1, and none when CAS is 1. Otherwise the Op ends with *ConflictError.
	CAS         layout.Version
	KeepWritten bool // of Zero
	// Lazy lets a Write, Zero or Delete in a pool whose immediate_commit is not all end before it is durable. The Client keeps a copy, and sends it again where it may have been lost, until a Flush that was
	// submitted later has ended. It is for those who are the only writer.
	Lazy    bool
	Pieces  []Piece // of Write and CompareWrite, Len bytes together; lent until Done
	Compare []Piece // of CompareWrite, as long; lent until Done

	// Parts are the result of a Read or ReadBitmap. The slice and the bitmaps are reused by the next Submit; the data is the caller's: ReleaseParts.
	Parts []Part
	// Version is the object's version after a change or as read, when the range lies within one object; else 0.
	Version layout.Version
	Err     error
	Done    func(*Op)

	// User is the caller's.
	User any

	// The rest belongs to the Client between Submit and Done.
	c          *Client
	prev, next *Op // in list; next also among those that are done
	list       *opList
	cursor     uint64 // where the next part begins
	index      int    // of that part
	end        uint64
	active     int // parts under way
	first      *part
	bits       []byte // memory of the Parts' bitmaps
	blockers   int    // earlier changes with parts to come that overlap
	slicing    bool
	submitted  bool
	begun      bool   // the pool agrees
	touched    bool   // a change was sent
	upTo       uint64 // of a Flush: copies up to this
	finished   bool
}

// Part is what a Read or ReadBitmap brought of one object.
type Part struct {
	Offset  uint64   // of the first byte, in the image
	Len     uint32   // bytes
	Data    *buf.Ref // Data.Bytes()[DataOff:DataOff+Len]; nil of a ReadBitmap
	DataOff int
	Version layout.Version // of the object; 0: it does not exist (in this layer)
	// Bitmap has a bit for each unit of bitmap_granularity of the whole object, LSB first, set where it was ever written; nil when the OSD sent none.
	Bitmap []byte
	Stripe uint64 // where the object, and so Bitmap, begins
}

// Bytes is the part's data.
func (p *Part) Bytes() []byte {
	if p.Data == nil {
		return nil
	}
	return p.Data.Bytes()[p.DataOff : p.DataOff+int(p.Len)]
}

// Written reports whether unit i of the object was ever written.
func (p *Part) Written(i int) bool {
	if p.Bitmap == nil {
		return p.Version != 0
	}
	return i>>3 < len(p.Bitmap) && p.Bitmap[i>>3]>>(i&7)&1 != 0
}

// ReleaseParts gives back what a Read brought.
func (op *Op) ReleaseParts() {
	for i := range op.Parts {
		if d := op.Parts[i].Data; d != nil {
			d.Release()
		}
		op.Parts[i] = Part{}
	}
	op.Parts = op.Parts[:0]
}

// Active reports whether the Client owns op now.
func (op *Op) Active() bool { return op.submitted }

// fail notes an error; the gravest one stays.
func (op *Op) fail(err error) {
	if rank(err) > rank(op.Err) {
		op.Err = err
	}
}

// opList is a list of Ops that have parts to come.
type opList struct{ first, last *Op }

func (l *opList) push(op *Op) {
	op.list, op.prev, op.next = l, l.last, nil
	if l.last == nil {
		l.first = op
	} else {
		l.last.next = op
	}
	l.last = op
}

func (l *opList) remove(op *Op) {
	if op.prev == nil {
		l.first = op.next
	} else {
		op.prev.next = op.next
	}
	if op.next == nil {
		l.last = op.prev
	} else {
		op.next.prev = op.prev
	}
	op.list, op.prev, op.next = nil, nil, nil
}

func overlap(a, b *Op) bool { return a.Inode == b.Inode && a.Offset < b.end && b.Offset < a.end }
