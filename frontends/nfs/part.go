package nfs

import (
	"holdfast/core/loop/buf"
	"holdfast/frontends/volume"
)

// part is one operation on a device, for a READ, a WRITE or a COMMIT. The Server pools them.
type part struct {
	op   volume.Op
	r    *request
	next *part // in the pool

	flying bool // op is the device's

	// A block of which only [lo, hi) is written, with the WRITE's data from src on: was holds what the block was, now what it shall be.
	edge        bool
	block       uint64
	lo, hi, src int
	was, now    *buf.Ref
	line        *part // who wants the same block next
	lineEnd     *part
}

func (s *Server) takePart(r *request) *part {
	p := s.freeParts
	if p == nil {
		p = &part{}
		p.op.User = p
		p.op.Done = partDone
	} else {
		s.freeParts = p.next
		p.next = nil
	}
	p.r = r
	r.parts = append(r.parts, p)
	return p
}

// dropParts returns r's operations, and what READs brought, to where they came from.
func (r *request) dropParts() {
	for i, p := range r.parts {
		if p.op.Kind == volume.Read && !p.edge {
			p.op.ReleasePieces()
		}
		if p.was != nil {
			p.was.Release()
			p.now.Release()
		}
		clear(p.op.Pieces)
		clear(p.op.Compare)
		p.op = volume.Op{User: p, Done: p.op.Done, Pieces: p.op.Pieces[:0], Compare: p.op.Compare[:0], Extents: p.op.Extents[:0]}
		*p = part{op: p.op, next: r.s.freeParts}
		r.s.freeParts = p
		r.parts[i] = nil
	}
	r.parts = r.parts[:0]
}

func partDone(op *volume.Op) {
	p := op.User.(*part)
	r := p.r
	p.flying = false
	if p.edge && p.step() {
		return
	}
	if op.Err != nil && r.failed == nil {
		r.failed = op.Err
	}
	r.busy--
	if r.busy == 0 {
		r.then(r)
	}
}

// run submits r's parts; then(r) follows when all have completed.
func (r *request) run(then func(*request)) {
	if r.s.closed != nil {
		r.dataFailed(volume.ErrShutdown)
		return
	}
	r.then = then
	r.busy = len(r.parts)
	for i := 0; i < len(r.parts); i++ {
		if p := r.parts[i]; p.edge {
			p.enter()
		} else {
			p.submit()
		}
	}
}

func (p *part) submit() {
	p.flying = true
	p.r.file.handle.Submit(&p.op)
}

// cancel asks the device to take back r's operations.
func (r *request) cancel() {
	for i := 0; i < len(r.parts); i++ {
		if p := r.parts[i]; p.flying {
			r.file.handle.Cancel(&p.op)
		}
	}
}
