// Package layout holds the identities of things and the arithmetic between them: (inode, offset) -> object -> PG -> chunk.
//
// Every other room uses it. It is pure: values in, values out, no I/O, standard library only.
package layout

import (
	"encoding/hex"
	"fmt"
	"math/bits"
)

// PoolID is a pool's number, 1..65535.
type PoolID uint16

// Inode names an image's layer in the cluster: the pool's number in the top 16 bits, the number within the pool (1..2^48-1) below.
type Inode uint64

// MaxInodeNum is the largest inode number within a pool.
const MaxInodeNum = 1<<48 - 1

// MakeInode joins a pool and a number within it. num must be at most MaxInodeNum.
func MakeInode(pool PoolID, num uint64) Inode { return Inode(uint64(pool)<<48 | num&MaxInodeNum) }

// Pool is the pool that the inode lives in.
func (i Inode) Pool() PoolID { return PoolID(i >> 48) }

// Num is the inode's number within its pool.
func (i Inode) Num() uint64 { return uint64(i) & MaxInodeNum }

func (i Inode) String() string { return fmt.Sprintf("%d/%d", i.Pool(), i.Num()) }

// RoleMask covers the low bits of an ObjectID's stripe that carry the role (chunk number): always 0 in replicated pools.
const RoleMask = 0xFFF

// ObjectID names an object of an inode by the byte offset of its start (stripe); the low 12 bits of Stripe carry the role of a chunk.
type ObjectID struct {
	Inode  Inode
	Stripe uint64
}

// Role is the chunk number.
func (o ObjectID) Role() int { return int(o.Stripe & RoleMask) }

// Whole is the object without a role.
func (o ObjectID) Whole() ObjectID { return ObjectID{o.Inode, o.Stripe &^ RoleMask} }

// Less orders objects by inode, then stripe.
func (o ObjectID) Less(p ObjectID) bool {
	if o.Inode != p.Inode {
		return o.Inode < p.Inode
	}
	return o.Stripe < p.Stripe
}

func (o ObjectID) String() string { return fmt.Sprintf("%v:%x", o.Inode, o.Stripe) }

// PGID names a placement group of a pool; Num counts from 1.
type PGID struct {
	Pool PoolID
	Num  uint32
}

// Less orders PGs by pool, then number.
func (p PGID) Less(q PGID) bool {
	if p.Pool != q.Pool {
		return p.Pool < q.Pool
	}
	return p.Num < q.Num
}

func (p PGID) String() string { return fmt.Sprintf("%d/%d", p.Pool, p.Num) }

// OSDNum is an OSD's number, from 1; 0 is an empty slot of an OSD set.
type OSDNum uint64

// Interval counts the reigns of a PG: one primary over one acting set; it only grows.
type Interval uint64

// Version is an object's version; it grows with every write. The upper 48 bits start above the writing interval, 0 means the object does not exist.
type Version uint64

// VersionCounterBits is how many low bits of a Version count writes before they carry into the upper part.
const VersionCounterBits = 16

// StoreID is the identity of one formatted disk. The zero value means none.
type StoreID [16]byte

func (s StoreID) String() string { return hex.EncodeToString(s[:]) }

// IsZero reports whether s names no store.
func (s StoreID) IsZero() bool { return s == StoreID{} }

// ParseStoreID reads what String wrote.
func ParseStoreID(text string) (StoreID, error) {
	var s StoreID
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(s) {
		return s, fmt.Errorf("store id %q is not 32 hexadecimal digits", text)
	}
	copy(s[:], b)
	return s, nil
}

// MarshalText and UnmarshalText make a StoreID readable JSON.
func (s StoreID) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (s *StoreID) UnmarshalText(b []byte) error {
	v, err := ParseStoreID(string(b))
	if err == nil {
		*s = v
	}
	return err
}

// Geometry is what maps a pool's bytes to objects and PGs.
type Geometry struct {
	BlockSize    uint32 // bytes of one chunk on one OSD
	Granularity  uint32 // bytes per bitmap bit
	DataChunks   uint32 // 1 in replicated pools
	PGCount      uint32 // PGs that exist (the real count, from pg/config)
	PGStripeSize uint64 // bytes of an inode that share a PG; at least ObjectSize
}

// ObjectSize is the number of client bytes in one object.
func (g Geometry) ObjectSize() uint64 { return uint64(g.BlockSize) * uint64(g.DataChunks) }

// Units is the number of units of bitmap_granularity in one chunk.
func (g Geometry) Units() int { return int(g.BlockSize / g.Granularity) }

// BitmapLen is the number of bytes of one chunk's bitmap: whole ones, of which a chunk of fewer than 8 units uses the low bits.
func (g Geometry) BitmapLen() int { return (g.Units() + 7) / 8 }

// Stripe is the start of the object that holds offset.
func (g Geometry) Stripe(offset uint64) uint64 { return offset / g.ObjectSize() * g.ObjectSize() }

// PG is the number of the PG, from 1, that holds the object at stripe. PGCount must not be 0.
func (g Geometry) PG(stripe uint64) uint32 {
	size := max(g.PGStripeSize, g.ObjectSize())
	return uint32((stripe&^RoleMask)/size%uint64(g.PGCount)) + 1
}

// Part is the piece of a request that falls into one object.
type Part struct {
	Stripe uint64 // start of the object
	Offset uint32 // from the object's start
	Len    uint32
}

// Parts cuts [offset, offset+length) at object borders and appends the pieces to dst.
func (g Geometry) Parts(dst []Part, offset, length uint64) []Part {
	size := g.ObjectSize()
	for length > 0 {
		stripe := offset / size * size
		n := min(length, stripe+size-offset)
		dst = append(dst, Part{Stripe: stripe, Offset: uint32(offset - stripe), Len: uint32(n)})
		offset, length = offset+n, length-n
	}
	return dst
}

// IsPowerOfTwo reports whether n is a power of two.
func IsPowerOfTwo(n uint64) bool { return bits.OnesCount64(n) == 1 }

// LeastLeft is how many blocks of an OSD clients leave at least, whatever osd_full_ratio says: several primaries send it changes at once, and each knows of the others' only what the last answer said.
const LeastLeft = 32
