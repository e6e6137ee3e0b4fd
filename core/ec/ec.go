// Package ec computes erasure codes: m parity chunks for the k data chunks of an object, and any k of the k+m chunks give the rest. osd/primary uses it for
// pools of the schemes ec and xor; xor is the code with one parity chunk.
//
// Everything works byte by byte: byte i of a parity chunk depends on byte i of each data chunk and on nothing else. So every function takes whole chunks
// or the same range of each, of any length, and the bitmaps of chunks just as well as their data. A parity byte mixes all eight bits of the data bytes,
// so a bitmap of fewer than eight bits has a parity of a whole byte.
//
// The matrix is part of the disk format (docs/formats/erasure.md). It does not depend on k and m: a code with more parity chunks has the same first ones.
//
// Chunks are numbered 0..k-1 (data) and k..k+m-1 (parity), as the roles in layout.ObjectID. Buffers belong to the caller and are not kept. Nothing allocates
// in steady state, and all work is done in the caller's goroutine.
package ec

import "fmt"

// MaxChunks is the largest k+m. The matrix would serve up to 255; sets of chunks are 32 bits wide.
const MaxChunks = 32

// Code is one erasure code k+m. It carries buffers and decoding matrices that it has used, so it belongs to one loop, like the Codes that it comes from.
type Code struct {
	k, m     int
	coef     []byte // m rows of k: the coefficient of each data chunk in each parity chunk
	programs programs
	points   []point  // by chunk: what locate knows of it
	ins      [][]byte // inputs of the call under way; empty between calls
	outs     [][]byte // outputs of it; empty between calls
	diff     []byte   // tile bytes: old XOR new
	computed [][]byte // m tiles: what chunks should be; made by the first call that compares

	equations [MaxChunks][MaxChunks + 1]byte // room for those of suspects
}

// Codes hands out the codes of one loop. The zero value is ready.
type Codes struct {
	made [MaxChunks][MaxChunks]*Code // by k and m
}

// Get is the code of k data and m parity chunks, always the same for the same numbers. The scheme xor has m = 1.
func (s *Codes) Get(k, m int) (*Code, error) {
	if k < 1 || m < 1 || k >= MaxChunks || m >= MaxChunks || k+m > MaxChunks {
		return nil, fmt.Errorf("%w: %d data and %d parity chunks, want at least 1 of each and %d together at most", ErrCall, k, m, MaxChunks)
	}
	c := s.made[k][m]
	if c == nil {
		c = newCode(k, m)
		s.made[k][m] = c
	}
	return c, nil
}

func newCode(k, m int) *Code {
	c := &Code{k: k, m: m, points: points(k, m), ins: make([][]byte, 0, MaxChunks), outs: make([][]byte, 0, MaxChunks), diff: make([]byte, tile)}
	for r := range m {
		for d := range k {
			c.coef = append(c.coef, coefficient(r, d))
		}
	}
	return c
}

// K is the number of data chunks.
func (c *Code) K() int { return c.k }

// M is the number of parity chunks.
func (c *Code) M() int { return c.m }

// Data is the set of all data chunks.
func (c *Code) Data() Set { return 1<<c.k - 1 }

// Parity is the set of all parity chunks.
func (c *Code) Parity() Set { return c.All() &^ c.Data() }

// All is the set of all chunks.
func (c *Code) All() Set { return 1<<(c.k+c.m) - 1 }

func (c *Code) String() string { return fmt.Sprintf("%d+%d", c.k, c.m) }

// Encode computes the m parity chunks of the k data chunks; one that is nil is left out. All have one length, and no parity chunk shares memory with another
// chunk.
func (c *Code) Encode(data, parity [][]byte) error {
	if len(data) != c.k || len(parity) != c.m {
		return fmt.Errorf("encode %v: %w: %d data and %d parity chunks", c, ErrCall, len(data), len(parity))
	}
	if err := fit(data, parity); err != nil {
		return fmt.Errorf("encode %v: %w", c, err)
	}
	multiply(c.coef, data, parity)
	return nil
}

// Delta brings parity chunks up to date after a change of data chunk number chunk from old to new, without the other data chunks. parity has m entries; one
// that is nil (its chunk is not at hand) is left out. The others have the length of old and new, and share no memory with them.
func (c *Code) Delta(chunk int, old, new []byte, parity [][]byte) error {
	if chunk < 0 || chunk >= c.k || len(parity) != c.m {
		return fmt.Errorf("delta %v: %w: data chunk %d, %d parity chunks", c, ErrCall, chunk, len(parity))
	}
	pair := [...][]byte{old, new}
	if err := fit(pair[:], parity); err != nil {
		return fmt.Errorf("delta %v, data chunk %d: %w", c, chunk, err)
	}
	for from := 0; from < len(old); from += tile {
		to := min(from+tile, len(old))
		xor(c.diff, old[from:to], new[from:to])
		for r, p := range parity {
			if p != nil {
				multiplyAdd(c.coef[r*c.k+chunk], c.diff[:to-from], p[from:to])
			}
		}
	}
	return nil
}
