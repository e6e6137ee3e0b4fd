package store

import (
	"errors"
	"fmt"

	"holdfast/core/layout"
	"holdfast/core/loop/buf"
)

// Pair is the identity of one client request (DESIGN section 8): the session that sent it and its sequence number there. The zero Pair belongs to a stock client and
// is never recorded.
type Pair struct {
	Session  uint64
	Sequence uint64
}

// PairVersion says which version of an object a request made.
type PairVersion struct {
	Pair
	Version layout.Version
}

// State describes what a store holds for one object.
type State struct {
	Version  layout.Version  // newest version; 0 when the store holds nothing
	Interval layout.Interval // the interval that wrote it
	Flags    StateFlags
}

// StateFlags are properties of an object's newest version on one store.
type StateFlags uint8

// The flags of State.
const (
	Tombstone StateFlags = 1 << iota // deleted at Version; reads as version 0
	Void                             // judged false by peering: never to be read or heard again
	Unstable                         // not committed yet (erasure codes, lazy pools)
)

// OpKind is what an Op does.
type OpKind uint8

// The kinds of an Op.
const (
	// OpRead reads [Offset, Offset+Len) of the newest version (or of the newest at or below AtMost when that is not 0, or with Bounded). Result: Data (nil when Len is 0), Bitmap, State.
	// A missing object or a tombstone reads as version 0 (a tombstone with Exact as its own), zeroes and an empty bitmap. Data is verified against its checksums: *ChecksumError. Versions below the newest
	// stable one are gone: ErrVersionGone. It does not wait for commits under way, so that the State of what they commit may be Unstable still.
	OpRead OpKind = iota + 1
	// OpReadObject reads all that recovery copies: State, Bitmap, Present (units that physically hold data), Pairs, and Data of the whole block (zeroes where not present).
	OpReadObject
	// OpWrite makes Version out of Base by writing Data at Offset. Base must be the object's newest version (of any state; 0 when absent; a tombstone's version counts), else *BaseError and
	// nothing happens. Whole-block and first writes are redirected to a new block, others are journaled with their data.
	OpWrite
	// OpZero is a write of zeroes without a payload. With KeepWritten the range counts as written (explicit zeroes: a layer's parent does not show through); without it the
	// range becomes a hole. Blocks that hold nothing any more are freed.
	OpZero
	// OpDelete makes Version out of Base as a tombstone, which stays until OpForget.
	OpDelete
	// OpReplace makes the object exactly what the Op says (Version, Interval, Flags, Data, Bitmap, Present, Pairs), atomically, whatever was there, provided the newest version there is (Base, BaseInterval).
	// Version may be lower, equal or higher, or 0: then the store holds nothing afterwards. Pairs above Version are dropped. Recovery only. What waits for a commit is settled first: ErrUnsettled.
	OpReplace
	// OpVoid marks the newest version void, provided it is (Base, BaseInterval) and stable (else ErrUnsettled). Peering only.
	OpVoid
	// OpForget removes a stable tombstone whose version is Base, if it is still the newest.
	OpForget
	// OpCommit makes every unstable version up to Version stable (SEC_STABILIZE). When all that the store has is older, *BaseError: what was to be committed is not there. It is done when that is durable; since
	// nobody waits for it, it may take commitDelay, so that it shares the device write of a change that comes meanwhile.
	OpCommit
	// OpRollback drops unstable versions above Version (SEC_ROLLBACK), and their pairs; *BaseError when a version above is stable already.
	OpRollback
	// OpSync makes everything acknowledged so far durable: only changes with Op.Lazy are not.
	OpSync
)

// Op is one request to the store. Its owner embeds and reuses it and sets Done once. The store owns it between Submit and Done.
//
// Several changes of one object may be under way at once; they take effect in the order of Submit. A change is done when it is durable (or with Lazy: taken by the device) and everything
// before it is; then reads see it. Reads submitted after a change was submitted see that change or wait for it: the caller decides which reads may run beside a write.
type Op struct {
	Kind   OpKind
	Object layout.ObjectID

	Offset, Len uint32 // within the block; multiples of the store's granularity
	AtMost      layout.Version
	Bounded     bool // OpRead: AtMost counts also when it is 0, for what has no version yet
	Exact       bool // OpRead: a tombstone's version is told

	Base         layout.Version
	BaseInterval layout.Interval
	Version      layout.Version // of the result; greater than Base but for OpReplace
	Interval     layout.Interval
	Unstable     bool     // OpWrite, OpZero, OpDelete: the new version waits for OpCommit; the version before stays beside it. Over an unstable version only an unstable one can be made
	Lazy         Laziness // OpWrite, OpZero, OpDelete: it may be done before it is durable
	KeepWritten  bool     // OpZero
	Leave        uint32   // OpWrite, OpZero: so many blocks and slots, besides those that are kept back, must be left when it needs a new one
	Flags        StateFlags

	Pair Pair   // OpWrite, OpZero, OpDelete: who asked; kept with the version until Low passes it
	Low  uint64 // lowest sequence of Pair.Session that is still unanswered: pairs below are forgotten

	// Data is lent by the caller for changes ([DataOff, DataOff+Len) of it, or a whole block for OpReplace); for reads the store fills it in and the caller releases it.
	Data    *buf.Ref
	DataOff int

	// Bitmap and Present have Config.BitmapLen bytes (LSB first, a bit per granularity). For reads they are the Op's own memory, filled by the store (allocated once, then reused). For OpReplace
	// they are given. For OpWrite a non-empty Bitmap replaces the object's bitmap instead of setting the written bits (parity chunks). An OpWrite whose Len is 0 makes a version with the same data.
	Bitmap  []byte
	Present []byte
	Pairs   []PairVersion // OpReadObject: result; OpReplace: given

	// Results.
	State State
	Err   error
	Done  func(*Op)

	impl opImpl
}

// Reset clears an Op that is not under way for its next use; its Done and the memory of its slices stay.
func (op *Op) Reset() {
	bitmap, present, pairs, done, disk := op.Bitmap[:0], op.Present[:0], op.Pairs[:0], op.Done, op.impl.disk.Done
	*op = Op{Bitmap: bitmap, Present: present, Pairs: pairs, Done: done}
	op.impl.disk.Done = disk
}

// Errors that callers act on.
var (
	// ErrNoSpace: the store refuses because the space that is left is kept back; nothing has changed.
	ErrNoSpace = errors.New("no space left on the store")
	// ErrFailed: the store has stopped after a device error; see Store.Failure.
	ErrFailed = errors.New("the store has stopped after a device error")
	// ErrVoid: the newest version was judged false and has not been replaced yet.
	ErrVoid = errors.New("the copy was judged false and waits for recovery")
	// ErrNotAligned: offset or length is not a multiple of the granularity, or reaches beyond the block.
	ErrNotAligned = errors.New("offset or length not aligned to the granularity, or beyond the block")
)

// BaseError says that a change was made for another version than the store's newest.
type BaseError struct {
	Object layout.ObjectID
	Have   State
	Want   layout.Version
}

func (e *BaseError) Error() string {
	return fmt.Sprintf("object %v is at version %x, the change is made for %x", e.Object, e.Have.Version, e.Want)
}

// ChecksumError says that stored data does not match its checksum.
type ChecksumError struct {
	Object layout.ObjectID
	Offset uint32 // within the block
	Device int64  // byte offset on the device
	Want   uint32
	Have   uint32
}

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("object %v: checksum of the data at offset %d (device offset %d) is %08x, expected %08x", e.Object, e.Offset, e.Device, e.Have, e.Want)
}

// Member is an OSD and the store it had at that moment.
type Member struct {
	OSD   layout.OSDNum
	Store layout.StoreID
}

// PGRecord is what a store durably remembers of a PG it has had to do with.
type PGRecord struct {
	PG           layout.PGID
	Generation   uint64          // etcd revision of the pool's creation: a pool made again under the same number is another one
	Interval     layout.Interval // the highest interval whose primary was granted a lock here
	Primary      layout.OSDNum   // that primary,
	Instance     uint64          // its running instance,
	PrimaryStore layout.StoreID  // and its store
	TookPart     layout.Interval // the last activated interval this store knows of: it takes part in it, or copies here were judged by it
	Floor        layout.Version  // versions assigned in this PG are above

	// The record that activated TookPart, as etcd had it: should etcd be set back to an older state, the members know better.
	Participants []Member
	Sets         []PGSet // oldest first; the last is the set of TookPart, to whom the PG was given up if this store is not in it
}

// PGSet is one activated set in a PGRecord.
type PGSet struct {
	Interval layout.Interval
	Members  []Member
}

// ListEntry is one version of an object in a listing.
type ListEntry struct {
	Object layout.ObjectID
	State
}

// Sharding says how a pool's objects fall into PGs, so that listing one PG does not walk the whole store.
type Sharding struct {
	PGCount      uint32
	PGStripeSize uint64
}

// Stats are a store's figures at one moment.
type Stats struct {
	BlockSize, Granularity  uint32
	Blocks, FreeBlocks      uint64 // data blocks; FreeBlocks leaves out what is kept back,
	KeptBlocks              uint64 // so many
	Objects, Tombstones     uint64
	FreeSlots               uint64 // objects that can begin to exist; tombstones count as existing. It leaves out what is kept back
	JournalBytes, DirtyByte uint64 // size of the journal area; bytes in it that have not been flushed to blocks
	ChecksumErrors          uint64
	DeviceWrites, Flushes   uint64 // requests sent to the device
	SyncWrites              uint64 // of those writes, how many are durable when they are done: each makes a device with a volatile cache flush once
	DeviceBytes             uint64 // of those writes
	Sequence                uint64 // last durable journal sequence
	Pairs, MaxPairs         uint64 // requests that are remembered; how many can be
	Waiting, MaxWaiting     uint64 // bytes of the journal that changes take which wait for a commit; how many they may
	Parked                  uint64 // bytes of the journal that changes take which nobody has committed for long; MaxWaiting is less by so many
	Buffers                 uint64 // of the loop, that the store keeps as long as it is open
	TornTail                bool   // when it was opened, batches followed its journal's end that were not whole, or not one behind the other: loss of power tore them
	// Taken is how many changes of each kind the store has accepted since it was opened.
	Taken [OpSync + 1]uint64
}
