package ec

import "github.com/klauspost/reedsolomon"

// Arithmetic in GF(2^8) with the polynomial x^8+x^4+x^3+x^2+1 (0x11D). Sums are XOR. Single bytes, which only matrices need, are computed here; ranges of bytes
// by reedsolomon, whose field is the same. Of that package only the multiplication of a range by one number is used: it is fast, it allocates nothing
// and it runs in the caller, which its encoders do not all do, and no matrix of its own can get into the disk format.

// tile is how many bytes of each chunk are worked on at a time: few enough for the results to stay in the processor's first cache.
const tile = 8 << 10

var simd reedsolomon.LowLevel

// powers holds 2^i twice over, so that sums of two logarithms need no reduction; logs is its inverse.
var powers, logs = tables()

func tables() (powers [510]byte, logs [256]uint16) {
	for i, x := 0, 1; i < 255; i++ {
		powers[i], powers[i+255] = byte(x), byte(x)
		logs[x] = uint16(i)
		if x <<= 1; x > 255 {
			x ^= 0x11D
		}
	}
	return powers, logs
}

func mul(a, b byte) byte {
	if a == 0 || b == 0 {
		return 0
	}
	return powers[logs[a]+logs[b]]
}

// inverse of 0 is a broken invariant: the numbers that we divide by are never 0.
func inverse(a byte) byte {
	if a == 0 {
		panic("ec: division by zero")
	}
	return powers[255-logs[a]]
}

// xor sets dst to a XOR b, which have one length. dst is no shorter, and shares no memory with b.
func xor(dst, a, b []byte) {
	copy(dst, a)
	simd.GalMulSliceXor(1, b, dst)
}

// multiplyAdd adds in, times a number, to out, which is no shorter.
func multiplyAdd(by byte, in, out []byte) { simd.GalMulSliceXor(by, in, out) }

// multiply sets each of outs to the sum of all ins, each times its coefficient: coef has a row of len(ins) for each of outs. All have one length; a nil output
// is left out.
func multiply(coef []byte, ins, outs [][]byte) {
	for from, size := 0, len(ins[0]); from < size; from += tile {
		to := min(from+tile, size)
		for i, in := range ins {
			for r, out := range outs {
				switch by := coef[r*len(ins)+i]; {
				case out == nil:
				case i == 0:
					simd.GalMulSlice(by, in[from:to], out[from:to])
				default:
					simd.GalMulSliceXor(by, in[from:to], out[from:to])
				}
			}
		}
	}
}
