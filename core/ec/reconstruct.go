package ec

import "fmt"

// Sources is the set of k chunks that Reconstruct uses when those of present are here: data chunks first. Others need not be read.
func (c *Code) Sources(present Set) (Set, error) {
	present &= c.All()
	if have := present.Len(); have < c.k {
		return 0, &TooFewChunksError{Have: have, Need: c.k}
	}
	return present.Lowest(c.k), nil
}

// Reconstruct computes the chunks of wanted, data or parity, from those of present, and no others. chunks has k+m entries: those of present hold chunks, or
// the same range of each; those of wanted are buffers of the same length to be filled, which share no memory with another chunk; the rest is not looked at.
//
// Errors: *TooFewChunksError, when present has fewer than k chunks. On error no buffer has changed.
func (c *Code) Reconstruct(chunks [][]byte, present, wanted Set) error {
	if err := c.reconstruct(chunks, present, wanted); err != nil {
		return fmt.Errorf("reconstruct %v of %v from %v: %w", wanted, c, present, err)
	}
	return nil
}

func (c *Code) reconstruct(chunks [][]byte, present, wanted Set) error {
	if len(chunks) != c.k+c.m || (present|wanted)&^c.All() != 0 || present&wanted != 0 {
		return fmt.Errorf("%w: %d chunks", ErrCall, len(chunks))
	}
	in, err := c.Sources(present)
	if err != nil || wanted == 0 {
		return err
	}
	defer c.forget()
	c.ins, c.outs = gather(c.ins, chunks, in), gather(c.outs, chunks, wanted)
	if err := fit(c.ins, c.outs); err != nil {
		return err
	}
	for i, b := range c.outs {
		if len(b) != len(c.ins[0]) {
			return fmt.Errorf("%w: buffer %d is nil", ErrCall, i)
		}
	}
	multiply(c.program(in, wanted).coef, c.ins, c.outs)
	return nil
}

// gather sets list to the chunks of a set, ascending.
func gather(list, chunks [][]byte, set Set) [][]byte {
	list = list[:0]
	for ; set != 0; set &= set - 1 {
		list = append(list, chunks[set.First()])
	}
	return list
}

// forget lets go of the caller's buffers.
func (c *Code) forget() {
	clear(c.ins)
	clear(c.outs)
	c.ins, c.outs = c.ins[:0], c.outs[:0]
}
