package primary

import (
	"math/bits"

	"holdfast/core/ec"
)

// An object of an erasure-coded pool is k chunks of data, one after the other, and m of parity. Byte x of every parity chunk is computed from byte x of all chunks of data, so a change of [lo, hi) of some
// chunks changes [lo, hi) of the parity, and what else is there of [lo, hi) has to be known. Here is what has to be read for that; nothing is done.

// firstRoles are the roles below n.
func firstRoles(n int) ec.Set { return 1<<n - 1 }

// part is a range of a chunk.
type part struct{ off, len uint32 }

func (p part) end() uint32 { return p.off + p.len }

// stripes is how an object's bytes lie on its chunks.
type stripes struct {
	k, m  int
	block uint32 // bytes of a chunk
}

// part is what of [off, off+length) of the object lies on a chunk of data; its len is 0 when nothing does.
func (s *stripes) part(role int, off, length uint32) part {
	start := uint32(role) * s.block
	lo, hi := max(off, start), min(off+length, start+s.block)
	if lo >= hi {
		return part{}
	}
	return part{lo - start, hi - lo}
}

// touched are the chunks of data that [off, off+length) lies on.
func (s *stripes) touched(off, length uint32) ec.Set {
	if length == 0 {
		return 0
	}
	return firstRoles(int((off+length-1)/s.block)+1) &^ firstRoles(int(off/s.block))
}

// band is a range of all chunks at once in which the same chunks of data are overwritten, each in the whole range.
type band struct {
	part
	over ec.Set
}

// bands cuts what a change of [off, off+length) does to the parity: they are next to each other, at most three. In one between two others nothing may be overwritten: then the parity of that stays.
func (s *stripes) bands(dst []band, off, length uint32) []band {
	touched := s.touched(off, length)
	if touched == 0 {
		return dst
	}
	first, last := touched.First(), 31-bits.LeadingZeros32(uint32(touched))
	a, b := s.part(first, off, length), s.part(last, off, length)
	if first == last {
		return append(dst, band{a, touched})
	}
	inner := touched &^ (1<<first | 1<<last)
	add := func(lo, hi uint32, over ec.Set) {
		if lo < hi && (over != 0 || len(dst) > 0) {
			dst = append(dst, band{part{lo, hi - lo}, over})
		}
	}
	// The first chunk is overwritten from a.off to its end, the last from its start to b.end.
	lo, hi := a.off, b.end()
	add(0, min(lo, hi), inner|1<<last)
	if lo < hi {
		add(lo, hi, touched)
	} else {
		add(hi, lo, inner)
	}
	add(max(lo, hi), s.block, inner|1<<first)
	return dst
}

// way is how the parity of a band is computed.
type way uint8

const (
	fromData  way = iota // from the chunks of data that are not overwritten
	fromDelta            // from what is overwritten and the parity of before
	fromAny              // from k chunks, whichever are here: what is missing is computed first
)

// reading is what a band needs read before.
type reading struct {
	way  way
	from ec.Set
}

// read says what a band needs when only the roles in here can be read. ok is false when there are too few.
func (s *stripes) read(b band, here ec.Set) (r reading, ok bool) {
	data, parity := firstRoles(s.k), firstRoles(s.k+s.m)&^firstRoles(s.k)&here
	if parity == 0 {
		return reading{}, true // nothing is computed
	}
	rest := data &^ b.over
	whole, delta := rest&^here == 0, b.over&^here == 0
	switch {
	case b.over == data:
		return reading{}, true
	case delta && (!whole || b.over.Len()+parity.Len() < rest.Len()):
		if b.over == 0 {
			return reading{fromDelta, parity}, true
		}
		return reading{fromDelta, b.over | parity}, true
	case whole:
		return reading{fromData, rest}, true
	}
	r = reading{fromAny, here.Lowest(s.k)}
	return r, r.from.Len() == s.k
}
