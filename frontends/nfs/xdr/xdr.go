// Package xdr reads and writes External Data Representation (RFC 4506): big-endian words of four bytes, lengths before variable data, padding to four.
//
// The NFS, MOUNT, portmapper and RPC codecs use it. It never allocates on the word of a peer: a Decoder lends slices of what it was given, an Encoder appends to what the
// caller owns.
package xdr

import "encoding/binary"

// Decoder reads values one after the other. After the first fault every method returns zero values and OK is false, so that a caller checks once, at the end.
type Decoder struct {
	b   []byte
	off int
	bad bool
}

// NewDecoder reads from b, which stays the caller's.
func NewDecoder(b []byte) Decoder { return Decoder{b: b} }

// OK reports whether everything read so far was there and within its bounds.
func (d *Decoder) OK() bool { return !d.bad }

// Offset is the number of bytes consumed.
func (d *Decoder) Offset() int { return d.off }

// Rest is what was not consumed.
func (d *Decoder) Rest() []byte { return d.b[d.off:] }

// Fail marks the input as faulty, for a value that the caller finds out of bounds.
func (d *Decoder) Fail() { d.bad = true }

// Uint32 reads an unsigned integer (RFC 4506, section 4.2).
func (d *Decoder) Uint32() uint32 {
	if d.bad || len(d.b)-d.off < 4 {
		d.bad = true
		return 0
	}
	v := binary.BigEndian.Uint32(d.b[d.off:])
	d.off += 4
	return v
}

// Uint64 reads an unsigned hyper integer (RFC 4506, section 4.5).
func (d *Decoder) Uint64() uint64 {
	if d.bad || len(d.b)-d.off < 8 {
		d.bad = true
		return 0
	}
	v := binary.BigEndian.Uint64(d.b[d.off:])
	d.off += 8
	return v
}

// Bool reads a boolean: 0 or 1, everything else is a fault (RFC 4506, section 4.4).
func (d *Decoder) Bool() bool {
	v := d.Uint32()
	if v > 1 {
		d.bad = true
	}
	return v == 1 && !d.bad
}

// Fixed reads n bytes and their padding (RFC 4506, section 4.9). The slice is lent from the input.
func (d *Decoder) Fixed(n int) []byte {
	left := len(d.b) - d.off
	if d.bad || n < 0 || n > left || n+Pad(n) > left {
		d.bad = true
		return nil
	}
	v := d.b[d.off : d.off+n : d.off+n]
	d.off += n + Pad(n)
	return v
}

// Opaque reads variable-length data or a string of at most limit bytes (RFC 4506, sections 4.10 and 4.11). The slice is lent from the input.
func (d *Decoder) Opaque(limit int) []byte {
	n := d.Uint32()
	if uint64(n) > uint64(limit) {
		d.bad = true
		return nil
	}
	return d.Fixed(int(n))
}

// Pad is the number of zero bytes after n bytes of data.
func Pad(n int) int { return -n & 3 }

// Encoder appends values to B, which belongs to the caller.
type Encoder struct {
	B []byte
}

// Uint32 appends an unsigned integer.
func (e *Encoder) Uint32(v uint32) { e.B = binary.BigEndian.AppendUint32(e.B, v) }

// Uint64 appends an unsigned hyper integer.
func (e *Encoder) Uint64(v uint64) { e.B = binary.BigEndian.AppendUint64(e.B, v) }

// Bool appends a boolean.
func (e *Encoder) Bool(v bool) {
	if v {
		e.Uint32(1)
	} else {
		e.Uint32(0)
	}
}

// Fixed appends p and its padding.
func (e *Encoder) Fixed(p []byte) {
	e.B = append(e.B, p...)
	e.pad(len(p))
}

// Opaque appends the length of p, p and its padding.
func (e *Encoder) Opaque(p []byte) {
	e.Uint32(uint32(len(p)))
	e.Fixed(p)
}

// String is Opaque for a string.
func (e *Encoder) String(s string) {
	e.Uint32(uint32(len(s)))
	e.B = append(e.B, s...)
	e.pad(len(s))
}

// Put overwrites the word at off, for a length or a status that is known later.
func (e *Encoder) Put(off int, v uint32) { binary.BigEndian.PutUint32(e.B[off:], v) }

func (e *Encoder) pad(n int) {
	for range Pad(n) {
		e.B = append(e.B, 0)
	}
}
