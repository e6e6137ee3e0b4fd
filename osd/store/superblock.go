package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"holdfast/core/layout"
)

// FormatVersion is the version of the format that this release writes and the newest that it opens.
const FormatVersion = 1

const (
	superSize   = 4096
	superCopy   = 64 << 10  // offset of the second copy
	superRegion = 128 << 10 // what is kept free for superblocks at the start of the device
)

// Where the superblock names further devices.
const (
	superDevice = 384
	superOthers = 408
	superOther  = 8 + maxIdentity
)

const superMagicText = "HOLDFAST"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var le = binary.LittleEndian

// Area is a piece of a device.
type Area struct {
	Device uint32 // 0: the data device, whose superblock counts
	Off    int64
	Len    int64
}

// at is the address of an offset in the area.
func (a Area) at(off int64) int64 { return int64(a.Device)<<deviceShift + a.Off + off }

// end is the device offset behind the area.
func (a Area) end() int64 { return a.Off + a.Len }

func (a Area) String() string { return fmt.Sprintf("device %d, %d + %d", a.Device, a.Off, a.Len) }

// Superblock describes a formatted disk.
type Superblock struct {
	Version  uint32 // of the format
	StoreID  layout.StoreID
	Boot     uint64 // counts openings for writing; the journal's epoch
	Config   Config
	Created  time.Time
	Sector   uint32 // the device's, at format
	PageSize uint32 // of a metadata page
	Slots    uint64 // objects that fit, tombstones included
	Blocks   uint64 // data blocks
	Meta     Area   // 2 x pages
	Journal  Area
	Data     Area

	// Others are the identities of the devices beyond the data device, in order.
	Others [maxDevices - 1]string
	others uint32   // how many there are
	set    [16]byte // marks the devices that belong together, for good; zeroes with one device
	device uint32   // the device that this copy was read from

	seq    uint64   // grows with each write of the superblock
	secret [16]byte // marks this store's journal batches; not told to anyone

	// The journal as the last opening found it: everything up to endBatch was complete, and replay began at tailBatch.
	endBatch, endEntry uint64
	endCRC             uint32
	tailBatch          uint64
	tailPos, headPos   uint64

	accept acceptance // what is still to be done by whoever opens the store for writing

	Owner Owner // whose store it is; zero until an OSD has opened it
}

// superOwner is where a superblock names the owner: the last 64 bytes.
const superOwner = superSize - 64

func (sb *Superblock) slotsPerPage() int {
	return (int(sb.PageSize) - pageHeader) / sb.Config.slotSize()
}

func (sb *Superblock) pages() int {
	per := uint64(sb.slotsPerPage())
	return int((sb.Slots + per - 1) / per)
}

// blockOff is the device offset of a data block.
func (sb *Superblock) blockOff(block uint32) int64 {
	return sb.Data.Off + int64(block)*int64(sb.Config.BlockSize)
}

// pageAt is the address of one of a page's two copies.
func (sb *Superblock) pageAt(page uint32, copy int) int64 {
	return sb.Meta.at((int64(copy)*int64(sb.pages()) + int64(page)) * int64(sb.PageSize))
}

// pageOff is its device offset.
func (sb *Superblock) pageOff(page uint32, copy int) int64 { return offsetOf(sb.pageAt(page, copy)) }

// encode makes the copy for one of the store's devices.
func (sb *Superblock) encode(b []byte, device uint32) {
	clear(b[:superSize])
	copy(b, superMagicText)
	le.PutUint32(b[12:], sb.Version)
	le.PutUint64(b[16:], sb.seq)
	copy(b[24:], sb.StoreID[:])
	copy(b[40:], sb.secret[:])
	le.PutUint64(b[56:], sb.Boot)
	le.PutUint64(b[64:], uint64(sb.Created.UnixNano()))
	le.PutUint64(b[72:], uint64(sb.accept)) // feature bits that a release must know to open; 80: to write (none yet)
	le.PutUint32(b[88:], sb.Sector)
	le.PutUint32(b[92:], sb.PageSize)
	le.PutUint32(b[96:], sb.Config.BlockSize)
	le.PutUint32(b[100:], sb.Config.Granularity)
	le.PutUint32(b[104:], uint32(sb.Config.ChecksumType))
	le.PutUint32(b[108:], sb.Config.ChecksumBlock)
	le.PutUint64(b[112:], sb.Slots)
	le.PutUint64(b[120:], sb.Blocks)
	for i, a := range []Area{sb.Meta, sb.Journal, sb.Data} {
		p := b[128+24*i:]
		le.PutUint32(p, a.Device)
		le.PutUint64(p[8:], uint64(a.Off))
		le.PutUint64(p[16:], uint64(a.Len))
	}
	le.PutUint64(b[200:], sb.endBatch)
	le.PutUint64(b[208:], sb.endEntry)
	le.PutUint32(b[216:], sb.endCRC)
	le.PutUint64(b[224:], sb.tailBatch)
	le.PutUint64(b[232:], sb.tailPos)
	le.PutUint64(b[240:], sb.headPos)
	le.PutUint32(b[248:], uint32(len(sb.Config.Identity)))
	copy(b[256:256+maxIdentity], sb.Config.Identity)
	le.PutUint32(b[superDevice:], device)
	le.PutUint32(b[superDevice+4:], sb.others)
	copy(b[superDevice+8:], sb.set[:])
	for i, name := range sb.Others[:sb.others] {
		p := b[superOthers+i*superOther:]
		le.PutUint32(p, uint32(len(name)))
		copy(p[8:8+maxIdentity], name)
	}
	copy(b[superOwner:superOwner+16], sb.Owner.Cluster[:])
	le.PutUint64(b[superOwner+16:], uint64(sb.Owner.OSD))
	le.PutUint32(b[8:], crc32.Checksum(b[12:superSize], castagnoli))
}

// decodeSuperblock reads one copy. It trusts nothing: every size it returns has been checked against the others.
func decodeSuperblock(b []byte) (Superblock, error) {
	var sb Superblock
	if len(b) < superSize || string(b[:8]) != superMagicText {
		return sb, &NotStoreError{"there is no Holdfast superblock"}
	}
	if have, want := crc32.Checksum(b[12:superSize], castagnoli), le.Uint32(b[8:]); have != want {
		return sb, fmt.Errorf("checksum of the superblock is %08x, expected %08x", have, want)
	}
	sb.Version = le.Uint32(b[12:])
	if sb.Version == 0 || sb.Version > FormatVersion || le.Uint64(b[72:]) > uint64(condemned) || le.Uint64(b[80:]) != 0 {
		return sb, &NotStoreError{fmt.Sprintf("the store has format version %d with features %x/%x; this release opens version %d and does not know these features: a newer release wrote it",
			sb.Version, le.Uint64(b[72:]), le.Uint64(b[80:]), FormatVersion)}
	}
	sb.accept = acceptance(le.Uint64(b[72:]))
	sb.seq = le.Uint64(b[16:])
	copy(sb.StoreID[:], b[24:])
	copy(sb.secret[:], b[40:])
	sb.Boot = le.Uint64(b[56:])
	sb.Created = time.Unix(0, int64(le.Uint64(b[64:]))).UTC()
	sb.Sector = le.Uint32(b[88:])
	sb.PageSize = le.Uint32(b[92:])
	sb.Config.BlockSize = le.Uint32(b[96:])
	sb.Config.Granularity = le.Uint32(b[100:])
	sb.Config.ChecksumType = ChecksumType(le.Uint32(b[104:]))
	sb.Config.ChecksumBlock = le.Uint32(b[108:])
	sb.Slots = le.Uint64(b[112:])
	sb.Blocks = le.Uint64(b[120:])
	for i, a := range []*Area{&sb.Meta, &sb.Journal, &sb.Data} {
		p := b[128+24*i:]
		*a = Area{Device: le.Uint32(p), Off: int64(le.Uint64(p[8:])), Len: int64(le.Uint64(p[16:]))}
	}
	sb.endBatch = le.Uint64(b[200:])
	sb.endEntry = le.Uint64(b[208:])
	sb.endCRC = le.Uint32(b[216:])
	sb.tailBatch = le.Uint64(b[224:])
	sb.tailPos = le.Uint64(b[232:])
	sb.headPos = le.Uint64(b[240:])
	n := le.Uint32(b[248:])
	if n > maxIdentity {
		return sb, fmt.Errorf("the superblock names a device identity of %d bytes, more than %d", n, maxIdentity)
	}
	sb.Config.Identity = string(b[256 : 256+n])
	sb.device, sb.others = le.Uint32(b[superDevice:]), le.Uint32(b[superDevice+4:])
	copy(sb.set[:], b[superDevice+8:])
	if sb.others >= maxDevices || sb.device > sb.others {
		return sb, fmt.Errorf("the superblock is that of device %d of %d; this release knows up to %d", sb.device, uint64(sb.others)+1, maxDevices)
	}
	for i := range sb.Others[:sb.others] {
		p := b[superOthers+i*superOther:]
		n := le.Uint32(p)
		if n > maxIdentity {
			return sb, fmt.Errorf("the superblock names a device identity of %d bytes, more than %d", n, maxIdentity)
		}
		sb.Others[i] = string(p[8 : 8+n])
	}
	sb.Config.JournalSize = sb.Journal.Len
	copy(sb.Owner.Cluster[:], b[superOwner:])
	sb.Owner.OSD = layout.OSDNum(le.Uint64(b[superOwner+16:]))
	return sb, sb.validate()
}

// validate checks that the geometry is possible, so that no later arithmetic can go wrong.
func (sb *Superblock) validate() error {
	const most = int64(1) << (deviceShift - 1)
	if sb.Sector != 512 && sb.Sector != 4096 {
		return fmt.Errorf("the superblock names a sector size of %d", sb.Sector)
	}
	if err := sb.Config.validate(int(sb.Sector)); err != nil {
		return fmt.Errorf("superblock: %w", err)
	}
	for _, a := range []Area{sb.Meta, sb.Journal, sb.Data} {
		if a.Device > sb.others {
			return fmt.Errorf("the superblock places an area on device %d of %d", a.Device, sb.others+1)
		}
		if a.Off < superRegion || a.Len <= 0 || a.Off > most || a.Len > most || a.Off%4096 != 0 {
			return fmt.Errorf("the superblock has an impossible area (%v)", a)
		}
	}
	if sb.Data.Device != 0 || sb.Meta.Device > 1 || sb.roles(sb.others) == "" || sb.roles(1) == "" && sb.others > 0 {
		return fmt.Errorf("the superblock has data, metadata and journal on devices %d, %d and %d of %d", sb.Data.Device, sb.Meta.Device, sb.Journal.Device, sb.others+1)
	}
	if sb.PageSize != pageSizeFor(sb.Config.slotSize()) {
		return fmt.Errorf("the superblock has metadata pages of %d bytes, entries of %d need %d", sb.PageSize, sb.Config.slotSize(), pageSizeFor(sb.Config.slotSize()))
	}
	if sb.Slots == 0 || sb.Slots > maxSlots || sb.Blocks == 0 || sb.Blocks > sb.Slots {
		return fmt.Errorf("the superblock has %d slots for %d blocks", sb.Slots, sb.Blocks)
	}
	if need := 2 * int64(sb.pages()) * int64(sb.PageSize); sb.Meta.Len != need {
		return fmt.Errorf("the superblock has a metadata area of %d bytes where %d slots need %d", sb.Meta.Len, sb.Slots, need)
	}
	if int64(sb.Blocks) > sb.Data.Len/int64(sb.Config.BlockSize) {
		return fmt.Errorf("the superblock has %d blocks in a data area of %d bytes", sb.Blocks, sb.Data.Len)
	}
	if sb.tailPos >= uint64(sb.Journal.Len) || sb.headPos > uint64(sb.Journal.Len) {
		return fmt.Errorf("the superblock has a journal position beyond the journal")
	}
	return nil
}

// end is the offset behind the last area of a device.
func (sb *Superblock) end(device uint32) (end int64) {
	for _, a := range []Area{sb.Meta, sb.Journal, sb.Data} {
		if a.Device == device {
			end = max(end, a.end())
		}
	}
	return end
}

// maxSlots leaves the top bit of a slot number free.
const maxSlots = 1<<31 - 2

// spareMost is the part of a device, 1/spareMost, that the slots for remembered deletions take at most: with large blocks a slot is large, too.
const spareMost = 32

// layOut places the areas on a device: superblocks, journal, metadata, data.
func layOut(c Config, size int64, sector int) (Superblock, error) {
	return layOutOn(c, []int64{size}, 0, 0, sector)
}

// layOutOn places them on devices of the sizes; the data is on the first.
func layOutOn(c Config, sizes []int64, meta, journal uint32, sector int) (Superblock, error) {
	sb := Superblock{Version: FormatVersion, Config: c, Sector: uint32(sector), others: uint32(len(sizes) - 1)}
	slot := c.slotSize()
	sb.PageSize = uint32(pageSizeFor(slot))
	per := int64(sb.slotsPerPage())
	size := sizes[0]
	// Slots beyond one for each block: deletions that have to be remembered have no block, and must not take the places of objects.
	spare := min(int64(c.maxPairs()), size/spareMost*per/int64(2*sb.PageSize))
	sb.Journal = Area{Device: journal, Off: superRegion, Len: c.JournalSize}
	sb.Meta = Area{Device: meta, Off: superRegion}
	if meta == journal {
		sb.Meta.Off = sb.Journal.end()
	}
	align := int64(4096)
	if size >= 1<<30 {
		align = 1 << 20
	}
	dataFrom := func() int64 { return (max(superRegion, sb.end(0)) + align - 1) / align * align }
	// One block needs itself and, if the metadata is on the same device, since there are at least 1/8 more slots than blocks, 9/8 of a slot in two copies.
	left := size - max(superRegion, sb.end(0)) - align
	perBlock := float64(c.BlockSize)
	if meta == 0 {
		left -= 4 * int64(sb.PageSize)
		perBlock += 2 * 1.125 * float64(sb.PageSize) / float64(per)
	}
	blocks := int64(float64(left)/perBlock) + 1
	for ; blocks >= 8; blocks-- {
		slots := blocks + max(blocks/8, spare) + 32
		pages := (slots + per - 1) / per
		slots = pages * per
		sb.Meta.Len = 2 * pages * int64(sb.PageSize)
		if slots > maxSlots {
			return sb, fmt.Errorf("the device of %d bytes has more than %d blocks of %d bytes; choose a larger block_size", size, maxSlots, c.BlockSize)
		}
		if dataOff := dataFrom(); dataOff+blocks*int64(c.BlockSize) <= size {
			sb.Blocks, sb.Slots = uint64(blocks), uint64(slots)
			sb.Data = Area{Off: dataOff, Len: blocks * int64(c.BlockSize)}
			break
		}
	}
	if blocks < 8 {
		return sb, fmt.Errorf("the device of %d bytes is too small: superblocks and a journal of %d bytes leave no room for 8 blocks of %d bytes", size, c.JournalSize, c.BlockSize)
	}
	for i, have := range sizes[1:] {
		if need := sb.end(uint32(i + 1)); need > have {
			return sb, fmt.Errorf("the device for %s has %d bytes, and %d are needed beside a data device of %d bytes; give a larger one, or choose a larger block_size or a smaller journal_size", sb.roles(uint32(i+1)), have, need, size)
		}
	}
	return sb, nil
}
