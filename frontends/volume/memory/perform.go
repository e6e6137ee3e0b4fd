package memory

import (
	"holdfast/frontends/volume"
)

// perform does op at once and returns its result.
func (h *handle) perform(op *volume.Op) error {
	if f := h.d.o.Fail; f != nil {
		if err := f(op); err != nil {
			return err
		}
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.d.gone {
		return volume.ErrGone
	}
	if h.fenced {
		return volume.ErrFenced
	}
	info := h.infoLocked()
	if err := volume.Check(&info, op); err != nil {
		return err
	}
	content := h.d.content
	switch op.Kind {
	case volume.Read:
		h.readLocked(op)
		return nil
	case volume.Extents:
		op.Extents = content.extents(op.Extents[:0], op.Offset, op.Length, op.MaxExtents)
		return nil
	case volume.Flush:
		return nil
	}
	if h.d.o.TTL > 0 && h.s.Alive != nil && h.l.Now().Sub(h.s.Alive()) > h.d.o.TTL {
		return volume.ErrExpired
	}
	switch op.Kind {
	case volume.Write:
		content.writePieces(op.Pieces, op.Offset)
	case volume.Trim:
		content.fill(op.Offset, op.Length, hole)
	case volume.Zero:
		if op.Fast && h.d.o.SlowZero {
			return volume.ErrUnsupported
		}
		if op.NoHole {
			content.fill(op.Offset, op.Length, zero)
		} else {
			content.fill(op.Offset, op.Length, hole)
		}
	case volume.CompareAndWrite:
		at := uint64(0)
		for _, p := range op.Compare {
			if i, found := content.differs(p.Bytes(), uint64(p.Len), op.Offset+at); found {
				return &volume.MiscompareError{Offset: at + i}
			}
			at += uint64(p.Len)
		}
		content.writePieces(op.Pieces, op.Offset)
	}
	return nil
}

func (h *handle) readLocked(op *volume.Op) {
	content := h.d.content
	if len(op.Pieces) > 0 {
		off := op.Offset
		for _, p := range op.Pieces {
			content.read(p.Bytes(), off)
			off += uint64(p.Len)
		}
		return
	}
	for off, left := op.Offset, op.Length; left > 0; {
		state, n := content.run(off, left)
		p := volume.Piece{Len: int(n)}
		if state == data {
			p.Ref = h.l.Alloc(int(n))
			content.read(p.Ref.Bytes(), off)
		}
		op.Pieces = append(op.Pieces, p)
		off, left = off+n, left-n
	}
}

func (s sparse) writePieces(pieces []volume.Piece, off uint64) {
	for _, p := range pieces {
		if p.Ref == nil {
			s.fill(off, uint64(p.Len), zero)
		} else {
			s.write(p.Bytes(), off)
		}
		off += uint64(p.Len)
	}
}

func (s sparse) extents(to []volume.Extent, off, left uint64, most int) []volume.Extent {
	for left > 0 && (most == 0 || len(to) < most) {
		state, n := s.run(off, left)
		to = append(to, volume.Extent{Length: n, Hole: state == hole, Zero: state != data})
		off, left = off+n, left-n
	}
	return to
}
