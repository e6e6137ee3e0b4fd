package store

import (
	"errors"
	"fmt"
	"math/bits"

	"holdfast/core/loop"
)

// ChecksumType says how data blocks are protected.
type ChecksumType uint8

// The checksum types; the values are on disk.
const (
	ChecksumCRC32C ChecksumType = 1
	ChecksumNone   ChecksumType = 2
)

func (t ChecksumType) String() string {
	switch t {
	case ChecksumCRC32C:
		return "crc32c"
	case ChecksumNone:
		return "none"
	}
	return fmt.Sprintf("checksum type %d", uint8(t))
}

// Limits of a Config; each is far above what is useful and keeps arithmetic in 32 bits.
const (
	MaxBlockSize   = 64 << 20
	MinGranularity = 512
	maxJournal     = 2 << 30
	maxIdentity    = 128
)

// Config is what a disk is formatted with; it is part of the disk from then on. The zero value of a field means its default.
type Config struct {
	BlockSize     uint32       // bytes of one object; a power of two; default 128 KiB
	Granularity   uint32       // bytes per bitmap bit and smallest unit of I/O; a power of two; default 4096
	ChecksumType  ChecksumType // default ChecksumCRC32C
	ChecksumBlock uint32       // bytes under one checksum; a power of two, at most Granularity; default 4096 or Granularity, the smaller
	JournalSize   int64        // bytes; default 1/32 of the device within 4 MiB..128 MiB
	Identity      string       // device identity that Open compares; default what the disk says; at most 128 bytes
	Alignment     uint32       // what the data device writes at once; default what it says, at most 4096; not kept on disk
	Force         bool         // format even where a store is; not kept on disk
}

// BitmapLen is the number of bytes of an object's bitmap: whole ones, of which an object of fewer than 8 units uses the low bits.
func (c Config) BitmapLen() int { return (c.units() + 7) / 8 }

func (c Config) units() int { return int(c.BlockSize / c.Granularity) }

// sums is the number of checksums of a whole block, 0 without checksums.
func (c Config) sums() int {
	if c.ChecksumType == ChecksumNone {
		return 0
	}
	return int(c.BlockSize / c.ChecksumBlock)
}

// sumsPerUnit is the number of checksums of one bitmap unit.
func (c Config) sumsPerUnit() int {
	if c.ChecksumType == ChecksumNone {
		return 0
	}
	return int(c.Granularity / c.ChecksumBlock)
}

// slotSize is the number of bytes of one object in a metadata page.
func (c Config) slotSize() int { return (slotHeader + 2*c.BitmapLen() + 4*c.sums() + 7) &^ 7 }

// maxPairs is how many requests a store remembers. It keeps their records well inside the journal, where they must be carried forward.
func (c Config) maxPairs() int { return int(c.JournalSize) / 8 / 64 }

// withDefaults fills what was left out, for a device of the given size.
func (c Config) withDefaults(size int64) Config {
	if c.BlockSize == 0 {
		c.BlockSize = 128 << 10
	}
	if c.Granularity == 0 {
		c.Granularity = 4096
	}
	if c.ChecksumType == 0 {
		c.ChecksumType = ChecksumCRC32C
	}
	if c.ChecksumBlock == 0 {
		c.ChecksumBlock = min(4096, c.Granularity)
	}
	if c.JournalSize == 0 {
		c.JournalSize = min(max(size/32, 4<<20), 128<<20)
		c.JournalSize = max(c.JournalSize, minJournal(c.BlockSize)) &^ (journalAlign - 1)
	}
	return c
}

// minJournal leaves room for eight batches that each carry a whole block.
func minJournal(blockSize uint32) int64 { return max(256<<10, 8*(int64(blockSize)+64<<10)) }

// aligned refuses units that the device does not write at once: when the power goes in such a write, what is beside may be damaged, and on each replica that is the same.
func (c Config) aligned(info loop.DiskInfo) error {
	if c.Alignment == 0 {
		c.Alignment = min(4096, uint32(info.WritesAtOnce))
	}
	if c.Granularity >= c.Alignment {
		return nil
	}
	return fmt.Errorf("bitmap_granularity %d is smaller than %d, what the device writes at once; choose bitmap_granularity %d, or disk_alignment %d if the device does not damage what is beside when the power goes",
		c.Granularity, c.Alignment, c.Alignment, c.Granularity)
}

// validate names every fault of c at once.
func (c Config) validate(sector int) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	pow2 := func(name string, n uint32) bool {
		if n == 0 || bits.OnesCount32(n) != 1 {
			bad("%s %d is not a power of two", name, n)
			return false
		}
		return true
	}
	okB, okG := pow2("block_size", c.BlockSize), pow2("bitmap_granularity", c.Granularity)
	if okB && (c.BlockSize > MaxBlockSize || c.BlockSize < 4096) {
		bad("block_size %d is outside 4096..%d", c.BlockSize, MaxBlockSize)
	}
	if okG && c.Granularity < max(MinGranularity, uint32(sector)) {
		bad("bitmap_granularity %d is smaller than %d, the sector size of the device", c.Granularity, max(MinGranularity, sector))
	}
	if okB && okG && c.BlockSize < c.Granularity {
		bad("block_size %d is less than bitmap_granularity %d", c.BlockSize, c.Granularity)
	}
	switch c.ChecksumType {
	case ChecksumNone:
	case ChecksumCRC32C:
		if pow2("csum_block_size", c.ChecksumBlock) && okG && c.ChecksumBlock > c.Granularity {
			bad("csum_block_size %d is larger than bitmap_granularity %d: every write of one unit would have to read its neighbours; choose at most %d", c.ChecksumBlock, c.Granularity, c.Granularity)
		} else if c.ChecksumBlock < 512 {
			bad("csum_block_size %d is smaller than 512", c.ChecksumBlock)
		}
	default:
		bad("data_csum_type %d is not known; choose crc32c or none", c.ChecksumType)
	}
	if c.JournalSize%journalAlign != 0 || c.JournalSize > maxJournal || okB && c.JournalSize < minJournal(c.BlockSize) {
		bad("journal_size %d must be a multiple of %d between %d and %d", c.JournalSize, journalAlign, minJournal(c.BlockSize), int64(maxJournal))
	}
	if len(c.Identity) > maxIdentity {
		bad("the device identity is longer than %d bytes", maxIdentity)
	}
	return errors.Join(errs...)
}
