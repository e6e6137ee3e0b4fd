package nfs

import (
	"errors"

	"holdfast/frontends/volume"
)

// A WRITE may begin and end within a block. Such an edge is read, changed and written back with a compare-and-write, and again from the start if the block has changed meanwhile:
// so neither another request nor another gateway that writes other bytes of the block is undone. Requests of one client for one block stand in line, which keeps a crowd of
// small writes from reading in vain.

// addEdge adds the part that writes [from, to), which lies within one block of bs bytes.
func (r *request) addEdge(bs, from, to uint64) {
	p := r.s.takePart(r)
	p.edge = true
	p.block = from &^ (bs - 1)
	p.lo, p.hi, p.src = int(from-p.block), int(to-p.block), int(from-r.offset)
	p.was, p.now = r.s.l.Alloc(int(bs)), r.s.l.Alloc(int(bs))
	p.op.Offset, p.op.Length = p.block, bs
}

// enter starts the part, or puts it in line behind others for its block.
func (p *part) enter() {
	f := p.r.file
	for _, o := range f.edges {
		if o.block == p.block {
			if o.line == nil {
				o.line = p
			} else {
				o.lineEnd.line = p
			}
			o.lineEnd = p
			return
		}
	}
	f.edges = append(f.edges, p)
	p.readBlock()
}

func (p *part) readBlock() {
	op := &p.op
	op.Kind, op.FUA = volume.Read, false
	op.Pieces = append(op.Pieces[:0], volume.Piece{Ref: p.was, Len: p.was.Len()})
	p.submit()
}

// step goes on after an operation of the part has completed; false when the part is over, with its result in op.Err.
func (p *part) step() bool {
	op := &p.op
	switch {
	case op.Err == nil && op.Kind == volume.Read && p.r.s.closed != nil:
		op.Err = volume.ErrShutdown
	case op.Err == nil && op.Kind == volume.Read:
		copy(p.now.Bytes(), p.was.Bytes())
		copyOut(p.now.Bytes()[p.lo:p.hi], p.r.data, p.src)
		op.Kind, op.FUA = volume.CompareAndWrite, true
		op.Compare = append(op.Compare[:0], volume.Piece{Ref: p.was, Len: p.was.Len()})
		op.Pieces = append(op.Pieces[:0], volume.Piece{Ref: p.now, Len: p.now.Len()})
		p.submit()
		return true
	case op.Err != nil:
		if _, differs := errors.AsType[*volume.MiscompareError](op.Err); differs {
			p.readBlock()
			return true
		}
	}
	p.leave()
	return false
}

// leave lets the next in line start.
func (p *part) leave() {
	f := p.r.file
	for i, o := range f.edges {
		if o != p {
			continue
		}
		if next := p.line; next != nil {
			if next.line != nil {
				next.lineEnd = p.lineEnd
			}
			f.edges[i] = next
			p.line, p.lineEnd = nil, nil
			if f.s.closed != nil {
				next.op.Err = volume.ErrShutdown
				partDone(&next.op)
			} else {
				next.readBlock()
			}
			return
		}
		last := len(f.edges) - 1
		f.edges[i] = f.edges[last]
		f.edges[last] = nil
		f.edges = f.edges[:last]
		return
	}
}
