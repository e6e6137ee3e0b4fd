package primary

import (
	"holdfast/core/ec"
	"holdfast/core/layout"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/wire"
	"holdfast/osd/store"
)

// readCoded reads from an erasure-coded object. If chunks turn out to be of several versions it is done again; then the object is ours alone, so that it comes to an end.
func (o *op) readCoded() {
	q, c, x := o.q, o.q.coded, o.coded()
	if x.tries > 1 && !x.alone() {
		return
	}
	x.base = q.committed(o.id)
	touched := c.touched(o.off, o.len)
	if o.len == 0 {
		touched = firstRoles(c.k) // what is written of the whole object is asked for
	}
	var hull part // of what is asked for on all chunks; empty if that is what is written alone
	for role := range c.k {
		if p := c.part(role, o.off, o.len); p.len > 0 && hull.len > 0 {
			lo, hi := min(hull.off, p.off), max(hull.end(), p.end())
			hull = part{lo, hi - lo}
		} else if p.len > 0 {
			hull = p
		}
	}
	if touched&^c.here == 0 {
		for role := range c.k {
			if touched.Has(role) {
				x.want(role, c.part(role, o.off, o.len))
			}
		}
	} else {
		// What is missing is computed from k others, over all that is asked for.
		from := (touched & c.here) | (c.here &^ touched).Lowest(max(0, c.k-(touched&c.here).Len()))
		for role := range c.roles {
			if from.Lowest(c.k).Has(role) {
				x.want(role, hull)
			} else if from.Has(role) {
				x.want(role, c.part(role, o.off, o.len))
			}
		}
	}
	x.read(x.readDone)
}

// committed is the newest version of an object that every member has.
func (q *PG) committed(id layout.ObjectID) layout.Version {
	if obj := q.Table.Get(id); obj != nil && obj.Changing() {
		if planted.UnstableRead {
			return obj.Last
		}
		return obj.Committed()
	}
	s, _ := q.p.st.State(q.mine(id))
	return s.Version
}

// codedRead looks at what the chunks brought.
func (o *op) codedRead() {
	p, q, x := o.p, o.q, o.x
	io := x.failing()
	switch {
	case q.stopped || !q.valid():
		o.p.refuse(o, wire.EPIPE)
		return
	case io == nil:
	case io.unreadable():
		x.spoilt(io)
		return
	case io.errno == wire.EPIPE || io.errno == wire.EINVAL || io.errno == wire.ESTALE:
		p.l.Log().Warn("a member failed a read", "pg", q.ID.String(), "peer", uint64(io.osd), "object", o.id.String(), "role", io.role, "retval", io.errno, "err", io.call.Err)
		id, osd := q.ID, io.osd
		o.p.refuse(o, wire.EPIPE)
		p.host.Lost(id, osd, false)
		return
	default: // a version on its way in or out
		tries, turn := x.tries+1, x.turn
		if tries > 8 && turn {
			p.l.Log().Error("chunks of an object are of several versions, and nobody changes it", "pg", q.ID.String(), "object", o.id.String(), "role", io.role, "peer", uint64(io.osd),
				"version", uint64(io.version), "want", uint64(x.base), "retval", io.errno)
			id, osd := q.ID, io.osd
			o.p.refuse(o, wire.EPIPE)
			p.host.Lost(id, osd, false)
			return
		}
		x.reset()
		x.tries, x.turn = tries, turn
		p.Events.ReadWaits++
		o.admit()
		return
	}
	if !o.isSure() {
		return
	}
	if err := x.complete(); err != nil {
		p.l.Log().Error("an object cannot be computed from its chunks", "pg", q.ID.String(), "object", o.id.String(), "err", err)
		o.p.refuse(o, wire.EIO)
		return
	}
	o.sop.State = store.State{Version: x.base}
	for _, io := range x.io {
		if io.wanted && io.gone {
			o.sop.State.Flags = store.Tombstone
		}
	}
	if b := p.o.Probe; b != nil {
		b.Read(q.ID, q.Interval, o.id, o.sees())
	}
	x.reply()
}

// complete computes the chunks that are asked for and are not here.
func (x *coded) complete() error {
	o, c := x.o, x.o.q.coded
	touched := c.touched(o.off, o.len)
	if o.len == 0 {
		touched = firstRoles(c.k)
	}
	missing := touched &^ c.here
	if missing == 0 {
		return nil
	}
	from := ec.Set(0)
	for role := range c.roles {
		if role < len(x.io) && x.io[role].wanted && from.Len() < c.k {
			from |= 1 << role
		}
	}
	hull := x.io[from.First()].part
	x.bits = x.bits[:0]
	x.chunks = x.chunks[:0]
	for role := range c.roles {
		io := x.at(role)
		var data, bits []byte
		switch {
		case from.Has(role):
			data, bits = io.slice(hull), io.bitmap
		case missing.Has(role):
			io.part, io.bitmap = hull, append(io.bitmap[:0], make([]byte, o.q.Geometry.BitmapLen())...)
			if hull.len > 0 {
				io.data = o.p.l.Alloc(int(hull.len))
			}
			data, bits = io.bytes(), io.bitmap
		}
		x.chunks, x.bits = append(x.chunks, data), append(x.bits, bits)
	}
	if hull.len > 0 {
		if err := c.code.Reconstruct(x.chunks, from, missing); err != nil {
			return err
		}
	}
	return c.code.Reconstruct(x.bits, from, missing)
}

// reply answers a read with the parts of the chunks, one after the other.
func (x *coded) reply() {
	o := x.o
	p, c := o.p, o.q.coded
	n := o.q.Geometry.BitmapLen()
	x.bitmap = append(x.bitmap[:0], make([]byte, n*c.k)...)
	x.pieces = x.pieces[:0]
	for role := range c.k {
		part := c.part(role, o.off, o.len)
		if part.len == 0 && o.len > 0 {
			continue
		}
		io := x.at(role)
		copy(x.bitmap[role*n:], io.bitmap)
		if part.len > 0 {
			x.pieces = append(x.pieces, peer.Piece{Ref: io.data, Off: int(part.off - io.part.off), Len: int(part.len)})
		}
	}
	m := wire.ReadWriteReply{Op: wire.OpRead, Retval: int64(o.len), Version: uint64(o.sees()), BitmapLen: uint32(len(x.bitmap))}
	var h wire.Header
	m.Encode(&h)
	o.r.Reply(&h, x.bitmap, x.pieces)
	p.count(o, o.len)
	p.put(o)
}
