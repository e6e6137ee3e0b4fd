package ec

import (
	"bytes"
	"fmt"
)

// Verify reports whether the chunks of present belong together: whether those beyond the first k are what the first k say. chunks has k+m entries; those of
// present have one length, the rest is not looked at.
//
// Errors: *TooFewChunksError, when present has no more than k chunks, because then there is nothing to compare.
func (c *Code) Verify(chunks [][]byte, present Set) (bool, error) {
	defer c.forget()
	size, err := c.comparable(chunks, present)
	if err != nil {
		return false, fmt.Errorf("verify %v of %v: %w", present, c, err)
	}
	return c.mismatch(chunks, present, 0, size) < 0, nil
}

// comparable checks the arguments of Verify and FindBad, and tells the length of the chunks.
func (c *Code) comparable(chunks [][]byte, present Set) (size int, err error) {
	if len(chunks) != c.k+c.m || present&^c.All() != 0 {
		return 0, fmt.Errorf("%w: %d chunks", ErrCall, len(chunks))
	}
	if have := present.Len(); have <= c.k {
		return 0, &TooFewChunksError{Have: have, Need: c.k + 1}
	}
	c.ins = gather(c.ins, chunks, present)
	return len(c.ins[0]), fit(c.ins, nil)
}

// mismatch is the first position in from..to at which the chunks of present do not belong together, or -1.
func (c *Code) mismatch(chunks [][]byte, present Set, from, to int) int {
	in := present.Lowest(c.k)
	for ; from < to; from += tile {
		end := min(from+tile, to)
		rest := present &^ in
		at := end - from
		for _, want := range c.compute(chunks, in, rest, from, end) {
			at = differ(chunks[rest.First()][from:from+at], want)
			rest &= rest - 1
		}
		if at < end-from {
			return from + at
		}
	}
	return -1
}

// differ is the first position at which a differs from b, or its length. b is no shorter.
func differ(a, b []byte) int {
	if bytes.Equal(a, b[:len(a)]) {
		return len(a)
	}
	i := 0
	for a[i] == b[i] {
		i++
	}
	return i
}

// compute is what the chunks of out are in from..to (a tile at most) when those of in, k of them, are right. The result is valid until the next call.
func (c *Code) compute(chunks [][]byte, in, out Set, from, to int) [][]byte {
	for len(c.computed) < c.m {
		c.computed = append(c.computed, make([]byte, tile))
	}
	c.ins, c.outs = gather(c.ins, chunks, in), append(c.outs[:0], c.computed[:out.Len()]...)
	for i := range c.ins {
		c.ins[i] = c.ins[i][from:to]
	}
	for i := range c.outs {
		c.outs[i] = c.outs[i][:to-from]
	}
	multiply(c.program(in, out).coef, c.ins, c.outs)
	return c.outs
}
