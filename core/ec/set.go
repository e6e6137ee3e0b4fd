package ec

import (
	"math/bits"
	"strconv"
)

// Set is a set of chunk numbers: bit i is chunk i.
type Set uint32

// SetOf is the set of some chunks, each 0..MaxChunks-1.
func SetOf(chunks ...int) (s Set) {
	for _, i := range chunks {
		s |= 1 << i
	}
	return s
}

// Has reports whether chunk i is in the set.
func (s Set) Has(i int) bool { return s>>i&1 != 0 }

// Len is the number of chunks in the set.
func (s Set) Len() int { return bits.OnesCount32(uint32(s)) }

// First is the lowest chunk of the set; MaxChunks when it is empty. Clear it (s &= s - 1) to go on to the next.
func (s Set) First() int { return bits.TrailingZeros32(uint32(s)) }

// Last is the highest chunk of the set; -1 when it is empty.
func (s Set) Last() int { return bits.Len32(uint32(s)) - 1 }

// Lowest is the set's n lowest chunks; all, when it has fewer.
func (s Set) Lowest(n int) (low Set) {
	for ; n > 0 && s != 0; n-- {
		low |= s & -s
		s &= s - 1
	}
	return low
}

func (s Set) String() string {
	b := []byte{'('}
	for rest := s; rest != 0; rest &= rest - 1 {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(rest.First()), 10)
	}
	return string(append(b, ')'))
}
