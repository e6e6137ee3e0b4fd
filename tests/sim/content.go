package sim

import (
	"encoding/binary"
	"fmt"
)

const (
	sectorSize = 512
	perBlock   = blockSize / sectorSize
)

// block is what one block holds: for each sector the number of the operation that wrote it, 0 for zeroes.
type block [perBlock]uint32

// mask says which sectors of a block are meant.
type mask uint8

// over is b with id in the sectors of m.
func (b block) over(id uint32, m mask) block {
	for i := range b {
		if m>>i&1 != 0 {
			b[i] = id
		}
	}
	return b
}

// agrees reports whether b and o are equal in the sectors of m.
func (b block) agrees(o block, m mask) bool {
	for i := range b {
		if m>>i&1 != 0 && b[i] != o[i] {
			return false
		}
	}
	return true
}

// blockKey names a block.
type blockKey struct {
	image int
	n     uint64 // from the start of the image
}

// word is what a sector is full of: it names the writer and the place, so that data in a wrong place shows.
func word(id uint32, image int, sector uint64) uint64 {
	return uint64(id)<<32 | uint64(image&0xf)<<28 | sector&0xfffffff
}

// fill writes what an operation writes at off.
func fill(p []byte, id uint32, image int, off uint64) {
	for s := 0; s+sectorSize <= len(p); s += sectorSize {
		fillSector(p[s:s+sectorSize], id, image, (off+uint64(s))/sectorSize)
	}
}

func fillSector(p []byte, id uint32, image int, sector uint64) {
	if id == 0 {
		clear(p)
		return
	}
	binary.LittleEndian.PutUint64(p, word(id, image, sector))
	for n := 8; n < len(p); n *= 2 {
		copy(p[n:], p[:n])
	}
}

// identify says who wrote a sector, or that it holds what nobody wrote there.
func identify(p []byte, image int, sector uint64) (uint32, error) {
	w := binary.LittleEndian.Uint64(p)
	for at := 8; at < len(p); at += 8 {
		if v := binary.LittleEndian.Uint64(p[at:]); v != w {
			return 0, fmt.Errorf("sector %d of image %d is mixed: word 0 is %016x, word %d is %016x", sector, image, w, at/8, v)
		}
	}
	id := uint32(w >> 32)
	if w != 0 && (id == 0 || word(id, image, sector) != w) {
		return 0, fmt.Errorf("sector %d of image %d holds %016x, which nobody wrote there", sector, image, w)
	}
	return id, nil
}

// eachBlock calls f for every block that [off, off+n) touches, with the sectors of it.
func eachBlock(image int, off, n uint64, f func(k blockKey, m mask)) {
	for end := off + n; off < end; {
		k := blockKey{image, off / blockSize}
		var m mask
		for ; off < end && off/blockSize == k.n; off += sectorSize {
			m |= 1 << (off % blockSize / sectorSize)
		}
		f(k, m)
	}
}
