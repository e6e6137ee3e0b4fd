package store

import "math/bits"

// bitset hands out the lowest free number of a range. It is a tree of bitmaps, a set bit meaning "all below is taken", so that finding one costs a step per level.
type bitset struct {
	levels [][]uint64 // levels[0] has a bit per number; each higher one a bit per word below
	n      uint64
	free   uint64
}

func newBitset(n uint64) *bitset {
	b := &bitset{n: n, free: n}
	for size := n; ; size = (size + 63) / 64 {
		words := make([]uint64, (size+63)/64)
		if size%64 != 0 {
			words[len(words)-1] = ^uint64(0) << (size % 64) // beyond the end: taken
		}
		b.levels = append(b.levels, words)
		if len(words) == 1 {
			return b
		}
	}
}

func (b *bitset) has(i uint32) bool { return b.levels[0][i/64]>>(i%64)&1 != 0 }

// take marks i; it reports false when i was taken already.
func (b *bitset) take(i uint32) bool {
	if b.has(i) {
		return false
	}
	b.free--
	for _, words := range b.levels {
		words[i/64] |= 1 << (i % 64)
		if words[i/64] != ^uint64(0) {
			break
		}
		i /= 64
	}
	return true
}

// give frees i, which must be taken.
func (b *bitset) give(i uint32) {
	if !b.has(i) {
		panic("store: a number was freed twice")
	}
	b.free++
	for _, words := range b.levels {
		full := words[i/64] == ^uint64(0)
		words[i/64] &^= 1 << (i % 64)
		if !full {
			break
		}
		i /= 64
	}
}

// alloc takes the lowest free number.
func (b *bitset) alloc() (uint32, bool) {
	if b.free == 0 {
		return 0, false
	}
	var i uint32
	for l := len(b.levels) - 1; l >= 0; l-- {
		i = i*64 + uint32(bits.TrailingZeros64(^b.levels[l][i]))
	}
	b.take(i)
	return i, true
}
