package model

import (
	"bytes"
	"fmt"

	"holdfast/core/client"
)

// act is one operation of a batch and what should come of it.
type act struct {
	op       client.Op
	data     []byte // that it writes; nil: zeroes, or nothing
	compare  []byte
	changes  bool
	mismatch int64 // where a CompareWrite differs; -1: nowhere, or no CompareWrite
	read     []byte
}

func (a *act) String() string {
	out := fmt.Sprintf("%v %d+%d", a.op.Kind, a.op.Offset, a.op.Len)
	if a.op.KeepWritten {
		out += " keeping space"
	}
	if a.mismatch >= 0 {
		out += fmt.Sprintf(" differing at %d", a.mismatch)
	}
	return out
}

// span draws a range: small or large, aligned or not, and where a batch overlaps, near a point.
func (m *model) span(near int64) (off, n uint64) {
	size := uint64(len(m.want))
	switch m.rng.IntN(10) {
	case 0:
		n = 1 + m.rng.Uint64N(m.s.granularity)
	case 1, 2:
		n = 1 + m.rng.Uint64N(4*m.s.granularity)
	case 3, 4, 5:
		n = (1 + m.rng.Uint64N(8)) * m.s.granularity
	case 6:
		n = m.s.blockSize
	case 7:
		n = 1 + m.rng.Uint64N(3*m.s.blockSize)
	default:
		n = 4096
	}
	n = min(n, size)
	if near >= 0 {
		off = uint64(max(0, near+m.rng.Int64N(int64(8*m.s.granularity))-int64(4*m.s.granularity)))
		off = min(off, size-n)
	} else {
		off = m.rng.Uint64N(size - n + 1)
	}
	if m.rng.IntN(10) < 7 {
		off = off / m.s.granularity * m.s.granularity
	}
	return off, n
}

// act draws an operation; base is what the image holds before it.
func (m *model) act(base []byte, near int64) *act {
	a := &act{mismatch: -1}
	a.op.Inode = m.id
	a.op.Offset, a.op.Len = m.span(near)
	noise := func(n uint64) []byte {
		p := make([]byte, n)
		for i := 0; i < len(p); i += 8 {
			x := m.rng.Uint64()
			for j := i; j < min(i+8, len(p)); j, x = j+1, x>>8 {
				p[j] = byte(x)
			}
		}
		return p
	}
	switch x := m.rng.IntN(100); {
	case x < 40:
		a.op.Kind, a.changes, a.data = client.Write, true, noise(a.op.Len)
	case x < 65:
		a.op.Kind = client.Read
	case x < 73:
		a.op.Kind, a.op.KeepWritten, a.changes = client.Zero, true, true
	case x < 82:
		a.op.Kind, a.changes = client.Zero, true
	case x < 85:
		a.op.Kind, a.changes = client.Delete, true
		a.op.Offset = a.op.Offset / m.s.blockSize * m.s.blockSize
		a.op.Len = m.s.blockSize
		if a.op.Offset+a.op.Len > uint64(len(m.want)) {
			a.op.Kind, a.op.Len = client.Zero, uint64(len(m.want))-a.op.Offset
		}
	case x < 95:
		a.op.Kind = client.CompareWrite
		a.op.Len = min(a.op.Len, m.s.blockSize-a.op.Offset%m.s.blockSize) // within one object
		a.data = noise(a.op.Len)
		a.compare = bytes.Clone(base[a.op.Offset : a.op.Offset+a.op.Len])
		if m.rng.IntN(2) == 0 {
			a.mismatch = int64(m.rng.Uint64N(a.op.Len))
			a.compare[a.mismatch] ^= 1 << m.rng.IntN(8)
		}
		a.changes = a.mismatch < 0
	default:
		a.op.Kind, a.op.Offset, a.op.Len = client.Flush, 0, 0
	}
	return a
}

// apply makes the change to what lies from at on.
func (a *act) apply(p []byte, at uint64) {
	from, to := max(a.op.Offset, at), min(a.op.Offset+a.op.Len, at+uint64(len(p)))
	if !a.changes || from >= to {
		return
	}
	if a.data == nil {
		clear(p[from-at : to-at])
	} else {
		copy(p[from-at:to-at], a.data[from-a.op.Offset:])
	}
}

// batch submits n operations at once and compares what comes of them. Changes that overlap take effect in the order of submission; a read sees the state between any two of them,
// unit by unit.
func (m *model) batch(n int) {
	m.t.Helper()
	base := bytes.Clone(m.want)
	near := int64(-1)
	if n > 1 && m.rng.IntN(4) != 0 {
		near = m.rng.Int64N(int64(len(m.want)))
	}
	acts := make([]*act, n)
	for i := range acts {
		acts[i] = m.act(m.want, near)
		acts[i].apply(m.want, 0)
		m.note("%d of %d: %v", i+1, n, acts[i])
	}
	cut := m.rng.Uint64() // where data is cut into pieces
	err := m.do(func(c *client.Client, s *client.Session, done func(error)) {
		left := n
		for _, a := range acts {
			a.op.Session = s
			a.op.Pieces, a.op.Compare = pieces(c, a.data, cut), pieces(c, a.compare, cut>>20)
			a.op.Done = func(op *client.Op) {
				release(op.Pieces)
				release(op.Compare)
				if op.Kind == client.Read && op.Err == nil {
					a.read = make([]byte, 0, op.Len)
					for i := range op.Parts {
						a.read = append(a.read, op.Parts[i].Bytes()...)
					}
				}
				op.ReleaseParts()
				if left--; left == 0 {
					done(nil)
				}
			}
		}
		for _, a := range acts {
			c.Submit(&a.op)
		}
	})
	if err != nil {
		m.wrong("a batch of %d: %v", n, err)
	}
	for i, a := range acts {
		m.ops++
		if err := expected(a.op.Err, a.mismatch); err != nil {
			m.wrong("%d of %d, %v: %v", i+1, n, a, err)
		}
		if a.op.Kind == client.Read {
			m.compare(a, base, acts)
		}
	}
}

// compare checks what was read during a batch.
func (m *model) compare(a *act, base []byte, acts []*act) {
	m.t.Helper()
	if uint64(len(a.read)) != a.op.Len {
		m.wrong("%v brought %d bytes", a, len(a.read))
	}
	unit := m.s.granularity
	for at := a.op.Offset; at < a.op.Offset+a.op.Len; {
		end := min(at/unit*unit+unit, a.op.Offset+a.op.Len)
		state := bytes.Clone(base[at:end])
		got := a.read[at-a.op.Offset : end-a.op.Offset]
		ok := bytes.Equal(got, state)
		for _, b := range acts {
			if ok {
				break
			}
			b.apply(state, at)
			ok = bytes.Equal(got, state)
		}
		if !ok {
			bad := 0
			for bad < len(got) && got[bad] == state[bad] {
				bad++
			}
			m.wrong("%v: the unit at %d is in no state that it ever had; byte %d is %#x, %#x after the batch", a, at, int(at)+bad, got[bad], state[bad])
		}
		at = end
	}
}

// pieces makes memory of the loop with a copy of p, in one piece or two.
func pieces(c *client.Client, p []byte, cut uint64) (out []client.Piece) {
	if p == nil {
		return nil
	}
	for _, part := range [][]byte{p[:cut%uint64(len(p)+1)], p[cut%uint64(len(p)+1):]} {
		if len(part) == 0 {
			continue
		}
		ref := c.Loop().Alloc(len(part))
		copy(ref.Bytes(), part)
		out = append(out, client.Piece{Ref: ref, Len: len(part)})
	}
	return out
}

func release(pieces []client.Piece) {
	for _, p := range pieces {
		if p.Ref != nil {
			p.Ref.Release()
		}
	}
}
