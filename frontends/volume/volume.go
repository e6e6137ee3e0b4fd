// Package volume is the seam between the protocol servers and what stores the bytes: a Device is one image, a Handle is a session's use of it on one loop.
//
// NBD, NFS and iSCSI call it; appliance/gateway implements it over the cluster, frontends/volume/memory over memory. Everything on a Handle happens on the loop it was
// attached on. frontends/volume/volumetest is the suite that each implementation passes.
package volume

import (
	"errors"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
)

// Device is one image that can be attached. It may be used from any loop.
type Device interface {
	// Attach binds the device to a loop for one session. It does not block; the first operations may wait inside the Handle.
	Attach(l loop.Loop, s Session) (Handle, error)
}

// Catalog finds devices by name. It may be used from any loop; what it returns is a snapshot.
type Catalog interface {
	// Lookup finds the device that is served under a name.
	Lookup(name string) (Device, Info, bool)
	// Names lists what is served, sorted.
	Names() []string
}

// Session says who attaches.
type Session struct {
	Protocol string // "nbd", "nfs", "iscsi"
	Client   string // for people: remote address, initiator name
	// Nexus is the identity that a later session of the same client takes over ("" when there is none): attaching with the same non-empty Nexus fences the earlier session first.
	Nexus    string
	ReadOnly bool
	// Alive is when the client last showed life (loop.Conn.LastAck). A write that the store has not accepted by then + op_ttl is dropped, not done late. Nil: the client is this process.
	Alive func() loop.Instant
}

// Info are the facts of a device at one moment.
type Info struct {
	Name          string
	Size          uint64 // bytes
	BlockSize     uint32 // smallest unit and alignment of requests, bytes (512)
	PreferredSize uint32 // unit below which writes cost a read, bytes (4096)
	OptimalSize   uint32 // largest useful request alignment, bytes (the object size)
	MaxTransfer   uint32 // largest Op, bytes
	ReadOnly      bool
	ID            [16]byte // the image's identity, equal on every gateway for ever; NAA, serial, handles and file ids derive from it
	Cluster       [16]byte // the cluster's identity
	Generation    uint64   // grows with each change of Size or ReadOnly
}

// Handle is one session's use of a device, bound to one loop.
type Handle interface {
	// Info is the device as it is now.
	Info() Info
	// Submit starts op: exactly one completion, later, on this loop. Operations may complete in any order; overlapping ones under way at once take effect in some order.
	// There is no limit on operations under way but the caller's own.
	Submit(op *Op)
	// Cancel asks that op not take effect any more. It completes with ErrCanceled only if it can no longer take effect; otherwise as it would have.
	Cancel(op *Op)
	// Events sets who is told of changes; nil for nobody.
	Events(h EventHandler)
	// Detach ends the use. done is called after every operation has completed; what cannot be recalled is fenced.
	Detach(done func())
}

// EventHandler is told of changes to a device, on the handle's loop.
type EventHandler interface {
	VolumeEvent(e Event)
}

// Event is a change to a device.
type Event uint8

// The events.
const (
	Resized  Event = iota + 1 // Info has the new size
	Renamed                   // Info has the new name
	Gone                      // the image was removed: every operation fails with ErrGone
	Draining                  // the gateway is about to stop: finish and reconnect
)

// Kind is what an Op does.
type Kind uint8

// The kinds of an Op.
const (
	Read  Kind = iota + 1
	Write      // durable when it completes, unless the pool is lazy: then after a Flush, or with FUA
	// Zero makes the range read as zeroes. Space is freed unless NoHole. With Fast it fails with ErrUnsupported when it would be slower than a trim.
	Zero
	// Trim says the range's content is of no more use; it reads as zeroes afterwards.
	Trim
	// Flush makes every write completed before it was submitted durable.
	Flush
	// CompareAndWrite writes Pieces if the range equals Compare, atomically; otherwise it completes with *MiscompareError. Length is at most 64 KiB and may not cross an OptimalSize boundary.
	CompareAndWrite
	// Extents fills in Op.Extents for [Offset, Offset+Length): at least the first extent, at most Op.MaxExtents of them when that is not 0.
	Extents
)

// Piece is a part of an Op's data: Ref.Bytes()[Off:Off+Len], or Len zero bytes when Ref is nil.
type Piece struct {
	Ref *buf.Ref
	Off int
	Len int
}

// Bytes is the piece's memory; nil when it stands for zeroes.
func (p Piece) Bytes() []byte {
	if p.Ref == nil {
		return nil
	}
	return p.Ref.Bytes()[p.Off : p.Off+p.Len]
}

// Extent is a run of bytes with one property.
type Extent struct {
	Length uint64
	Hole   bool // no space is allocated
	Zero   bool // reads as zeroes
}

// Op is one request. The caller embeds or pools it and sets Done once; the Handle owns it from Submit to Done.
//
// Buffers: for Write and CompareAndWrite the caller lends Pieces (and Compare) until completion and keeps its references. For Read with no Pieces the device fills Pieces with
// references that the caller releases (ReleasePieces); holes come as pieces without a Ref. For Read with Pieces given (all with a Ref) the device reads into them.
type Op struct {
	Kind       Kind
	Offset     uint64 // multiple of Info.BlockSize
	Length     uint64 // multiple of Info.BlockSize; at most Info.MaxTransfer for Read, Write, CompareAndWrite; any length within the device for the others
	FUA        bool   // durable when it completes, whatever the pool
	NoHole     bool
	Fast       bool
	Pieces     []Piece
	Compare    []Piece
	MaxExtents int

	Extents []Extent // result; the slice is reused
	Err     error    // result
	Done    func(*Op)

	// User is the caller's.
	User any

	stack [4]func(*Op)
	depth int8
}

// Push adds a decorator's completion; it runs before those pushed earlier and before Done, and must end by calling Complete again.
func (op *Op) Push(f func(*Op)) {
	op.stack[op.depth] = f
	op.depth++
}

// Complete ends op with its result. Implementations of Handle call it, once, never inside Submit.
func (op *Op) Complete(err error) {
	op.Err = err
	if op.depth > 0 {
		op.depth--
		f := op.stack[op.depth]
		op.stack[op.depth] = nil
		f(op)
		return
	}
	op.Done(op)
}

// ReleasePieces gives back what a Read brought.
func (op *Op) ReleasePieces() {
	for i := range op.Pieces {
		if op.Pieces[i].Ref != nil {
			op.Pieces[i].Ref.Release()
		}
		op.Pieces[i] = Piece{}
	}
	op.Pieces = op.Pieces[:0]
}

// Errors that frontends translate, each with a table that a test proves total over these.
var (
	ErrCanceled    = errors.New("canceled before it took effect")
	ErrGone        = errors.New("the image was removed")
	ErrReadOnly    = errors.New("the image is read-only")
	ErrRange       = errors.New("beyond the end of the image")
	ErrAlignment   = errors.New("offset or length is not a multiple of the block size")
	ErrTooLong     = errors.New("longer than one request may be")
	ErrNoSpace     = errors.New("no space left in the pool")
	ErrIO          = errors.New("the data cannot be read or written")
	ErrFenced      = errors.New("another session has taken over")
	ErrUnsupported = errors.New("not supported on this image")
	ErrExpired     = errors.New("the client was silent for too long: the write was dropped")
	ErrShutdown    = errors.New("the gateway is stopping")
)

// Sentinels lists every error above, for tests of translation tables.
var Sentinels = []error{ErrCanceled, ErrGone, ErrReadOnly, ErrRange, ErrAlignment, ErrTooLong, ErrNoSpace, ErrIO, ErrFenced, ErrUnsupported, ErrExpired, ErrShutdown}

// MiscompareError says where a CompareAndWrite found another byte.
type MiscompareError struct {
	Offset uint64 // of the first differing byte, from the start of the Op
}

func (e *MiscompareError) Error() string { return "the data differs from what was expected" }
