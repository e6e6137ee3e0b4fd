package primary

import (
	"holdfast/core/ec"
	"holdfast/core/layout"
	"holdfast/core/loop/buf"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/wire"
)

// beginCoded reads what a change needs and cannot compute the parity without, and goes on with sendCoded. The object is ours alone.
func (o *op) beginCoded(base layout.Version, gone bool) {
	c, x := o.q.coded, o.x
	x.base, x.gone = base, gone
	x.bands, x.ways = x.bands[:0], x.ways[:0]
	if o.kind == wire.ChangeDelete || c.here&^firstRoles(c.k) == 0 {
		o.sendCoded()
		return
	}
	x.bands = c.bands(x.bands, o.off, o.len)
	whole := uint64(o.len) == o.q.Geometry.ObjectSize()
	if gone || whole {
		for range x.bands {
			x.ways = append(x.ways, reading{})
		}
		o.sendCoded()
		return
	}
	delta := true
	for _, b := range x.bands {
		r, ok := c.read(b, c.here)
		if !ok {
			o.p.l.Log().Error("too few chunks for a change", "pg", o.q.ID.String(), "object", o.id.String())
			o.p.refuse(o, wire.EIO)
			return
		}
		delta = delta && r.way == fromDelta
		x.ways = append(x.ways, r)
		for role := range c.roles {
			if r.from.Has(role) {
				x.want(role, b.part)
			}
		}
	}
	if !delta {
		// The parity's bitmaps are computed from those of all data, which k chunks give.
		of := firstRoles(c.k)
		if of&^c.here != 0 {
			of = c.here.Lowest(c.k)
		}
		for role := range c.roles {
			if of.Has(role) {
				x.want(role, part{})
			}
		}
	}
	x.read(x.changeReady)
}

// codedHere goes on when what was to be read is here.
func (o *op) codedHere() {
	p, q, x := o.p, o.q, o.x
	io := x.failing()
	switch {
	case q.stopped || !q.valid():
		o.p.refuse(o, wire.EPIPE)
	case io == nil:
		o.goOn()
	case io.unreadable():
		x.spoilt(io)
	default:
		p.l.Log().Warn("a member failed a read", "pg", q.ID.String(), "peer", uint64(io.osd), "object", o.id.String(), "role", io.role, "version", uint64(io.version), "want", uint64(x.base), "retval", io.errno, "err", io.call.Err)
		id, osd := q.ID, io.osd
		o.p.refuse(o, wire.EPIPE)
		p.host.Lost(id, osd, false)
	}
}

// goOn sends the change out if nothing has come up while it read: that may have taken as long as a disk or a member does not answer, and nobody who has been told of a fence since knows of the change.
func (o *op) goOn() {
	p, q := o.p, o.q
	obj := q.Table.Get(o.id)
	errno := p.checkInode(o, o.id.Inode, o.meta)
	switch {
	case obj.Unclean != nil || obj.Recovering:
		// A chunk could not be read by somebody else: it is put back first.
		o.block(obj)
	case o.fenced():
		p.refuse(o, wire.ESTALE)
	case errno != 0:
		p.refuse(o, errno)
	case o.late():
		p.refuse(o, wire.ETIMEDOUT)
	default:
		o.sendCoded()
	}
}

// hull is from the first to the last byte of the parity that changes.
func (x *coded) hull() part {
	if len(x.bands) == 0 {
		return part{}
	}
	first, last := x.bands[0], x.bands[len(x.bands)-1]
	return part{first.off, last.end() - first.off}
}

// payload is what is written of a chunk's part: of the client's data, or zeroes.
func (x *coded) payload(role int, p part) []byte {
	o, c := x.o, x.o.q.coded
	if o.data == nil {
		return o.p.zeroes(p.len)
	}
	return o.data.Bytes()[uint32(role)*c.block+p.off-o.off:][:p.len]
}

// zeroes are n of them.
func (p *Primary) zeroes(n uint32) []byte {
	if uint32(len(p.zero)) < n {
		p.zero = make([]byte, n)
	}
	return p.zero[:n]
}

// encode computes what is written of the parity, and its bitmaps.
func (x *coded) encode() error {
	o, c := x.o, x.o.q.coded
	hull := x.hull()
	for i := range c.m {
		var ref *buf.Ref
		if c.here.Has(c.k + i) {
			ref = o.p.l.Alloc(int(hull.len))
		}
		x.parity = append(x.parity, ref)
	}
	out := func(b band) [][]byte {
		x.chunks = x.chunks[:0]
		for _, ref := range x.parity {
			if ref == nil {
				x.chunks = append(x.chunks, nil)
			} else {
				x.chunks = append(x.chunks, ref.Bytes()[b.off-hull.off:][:b.len])
			}
		}
		return x.chunks
	}
	for i, b := range x.bands {
		if planted.BandLeftOut && i > 0 {
			break
		}
		if err := x.encodeBand(b, x.ways[i], out(b)); err != nil {
			return err
		}
	}
	return x.encodeBits()
}

func (x *coded) encodeBand(b band, r reading, parity [][]byte) error {
	o, c := x.o, x.o.q.coded
	if r.way == fromDelta {
		for i, p := range parity {
			if p != nil {
				copy(p, x.at(c.k+i).slice(b.part))
			}
		}
		for role := range c.k {
			if b.over.Has(role) {
				old := x.at(role).slice(b.part)
				if planted.DeltaFromNew {
					old = x.payload(role, b.part)
				}
				if err := c.code.Delta(role, old, x.payload(role, b.part), parity); err != nil {
					return err
				}
			}
		}
		return nil
	}
	all := make([][]byte, 0, ec.MaxChunks)
	missing := ec.Set(0)
	for role := range c.roles {
		var data []byte
		switch {
		case r.from.Has(role):
			data = x.at(role).slice(b.part)
		case role < c.k && !b.over.Has(role) && r.way == fromAny:
			ref := o.p.l.Alloc(int(b.len))
			x.space = append(x.space, ref)
			data, missing = ref.Bytes(), missing|1<<role
		case role < c.k && !b.over.Has(role): // of an object that was not there
			data = o.p.zeroes(b.len)
		}
		all = append(all, data)
	}
	if missing != 0 {
		if err := c.code.Reconstruct(all, r.from, missing); err != nil {
			return err
		}
	}
	for role := range c.k {
		if b.over.Has(role) {
			all[role] = x.payload(role, b.part)
		}
	}
	return c.code.Encode(all[:c.k], parity)
}

// encodeBits computes the parity's bitmaps: those of the data as they will be, coded as the data is.
func (x *coded) encodeBits() error {
	o, c := x.o, x.o.q.coded
	n := o.q.Geometry.BitmapLen()
	x.bits = x.bits[:0]
	from, missing := ec.Set(0), ec.Set(0)
	for role := range c.roles {
		io := x.at(role)
		if io.wanted {
			from |= 1 << role
		} else if len(io.bitmap) != n {
			io.bitmap = append(io.bitmap[:0], make([]byte, n)...)
		} else {
			clear(io.bitmap)
		}
		x.bits = append(x.bits, io.bitmap)
	}
	delta := len(x.ways) > 0
	for _, r := range x.ways {
		delta = delta && r.way == fromDelta
	}
	if from != 0 && !delta {
		if missing = firstRoles(c.k) &^ from; missing != 0 {
			if err := c.code.Reconstruct(x.bits, from.Lowest(c.k), missing); err != nil {
				return err
			}
		}
	}
	parity := x.bits[c.k:]
	for role := range c.k {
		p := c.part(role, o.off, o.len)
		if p.len == 0 {
			continue
		}
		old := x.bits[role]
		now := append(x.bitmap[:0], old...)
		mark(now, p, o.q.Geometry.Granularity, o.kind != wire.ChangeHole)
		if delta {
			if err := c.code.Delta(role, old, now, parity); err != nil {
				return err
			}
		}
		copy(old, now)
		x.bitmap = now
	}
	if delta {
		return nil
	}
	return c.code.Encode(x.bits[:c.k], parity)
}

// mark sets, or clears, the bits of a part.
func mark(bitmap []byte, p part, unit uint32, set bool) {
	for at := p.off / unit; at < p.end()/unit; at++ {
		if set {
			bitmap[at/8] |= 1 << (at % 8)
		} else {
			bitmap[at/8] &^= 1 << (at % 8)
		}
	}
}

// sendCoded gives the change its version and sends each member its chunk of it.
func (o *op) sendCoded() {
	p, q, x := o.p, o.q, o.x
	c := q.coded
	if o.kind != wire.ChangeDelete && len(x.bands) > 0 {
		if err := x.encode(); err != nil {
			p.l.Log().Error("parity cannot be computed", "pg", q.ID.String(), "object", o.id.String(), "err", err)
			o.p.refuse(o, wire.EIO)
			return
		}
	}
	obj := q.open(o.id)
	version := max(x.base, q.floor, layout.Version(q.Interval)<<layout.VersionCounterBits) + 1
	o.ch.Version, o.ch.Tombstone = version, o.kind == wire.ChangeDelete
	o.assign(obj)
	q.sendCommits() // the last version's, before this one on every connection
	o.left, o.sent = c.here.Len(), p.l.Now()
	hull, n := x.hull(), 0
	for role, osd := range c.roles {
		if osd == 0 {
			continue
		}
		m := wire.SubChange{Object: chunk(o.id, role), Base: o.baseOn(obj, osd, x.base), Version: version, Kind: wire.ChangeWrite, Grant: q.grant,
			Session: o.trail.Session, Sequence: o.trail.Sequence, Low: o.trail.Low, Lazy: uint8(o.how), Unstable: true}
		var data *buf.Ref
		var bitmap []byte
		off := 0
		switch part := c.part(role, o.off, o.len); {
		case o.kind == wire.ChangeDelete:
			m.Kind = wire.ChangeDelete
		case role >= c.k:
			m.Offset, m.Len = hull.off, hull.len
			data, bitmap = x.parity[role-c.k], x.bits[role]
			m.Meta = len(bitmap)
		case planted.UntouchedLeft && part.len == 0:
			o.left--
			continue
		case part.len > 0:
			m.Kind, m.Offset, m.Len = o.kind, part.off, part.len
			if o.kind == wire.ChangeWrite {
				data, off = o.data, int(uint32(role)*c.block+part.off-o.off)
			}
		}
		if osd == p.o.Self {
			o.sop.Data, o.sop.DataOff = data, off
			o.sop.Bitmap = append(o.sop.Bitmap[:0], bitmap...)
			q.begin()
			p.sec.Change(&o.sop, &m)
			continue
		}
		k := o.call(n)
		n++
		k.osd = osd
		m.Encode(&k.c.Header)
		k.c.Meta, k.c.Payload = bitmap, k.c.Payload[:0]
		if data != nil && m.Len > 0 {
			k.c.Payload = append(k.c.Payload, peer.Piece{Ref: data, Off: off, Len: int(m.Len)})
		}
		p.hub.Call(osd, &k.c)
	}
	if planted.ParityMixed {
		x.release()
	}
}

// commitLater has a version that every member has become stable there, behind whatever is sent in this turn of the loop, and before anything else of the PG.
func (q *PG) commitLater(id layout.ObjectID, version layout.Version) {
	q.commits = append(q.commits, wire.Versioned{OID: id, Version: uint64(version)})
	if len(q.commits) == 1 {
		q.p.l.Defer(&q.commitTask)
	}
}

// commitCall is a SUB_COMMIT under way.
type commitCall struct {
	c    peer.Call
	q    *PG
	osd  layout.OSDNum
	with *burial // that waits for it, or nil
	next *commitCall
}

func (p *Primary) commitCall() *commitCall {
	c := p.freeCommit
	if c == nil {
		c = &commitCall{}
		c.c.Done = func(*peer.Call) { p.committed(c) }
		return c
	}
	p.freeCommit, c.next = c.next, nil
	return c
}

// committed takes a member's answer.
func (p *Primary) committed(c *commitCall) {
	q, osd, err := c.q, c.osd, c.c.Err
	if err == nil {
		err = c.c.Reply.Err()
	}
	c.with.answered(err)
	c.q, c.with, c.next, p.freeCommit = nil, nil, p.freeCommit, c
	if err != nil && !q.stopped {
		p.l.Log().Warn("a member failed to commit versions", "pg", q.ID.String(), "peer", uint64(osd), "err", err)
		p.host.Lost(q.ID, osd, false)
	}
}

// committedHere takes our own store's.
func (q *PG) committedHere(err error) {
	if err != nil && !q.stopped {
		q.p.l.Log().Warn("committing versions failed", "pg", q.ID.String(), "err", err)
		q.p.host.Lost(q.ID, q.p.o.Self, false)
	}
	q.end()
}

// sendCommits sends the commits that have gathered.
func (q *PG) sendCommits() {
	for list := q.commits; len(list) > 0 && !q.stopped; {
		n := min(len(list), wire.MaxMeta/wire.VersionedSize)
		var with *burial
		if n == len(list) { // what is answered last
			with = q.burial()
		}
		q.sendCommitsOf(list[:n], with)
		list = list[n:]
	}
	q.commits = q.commits[:0]
}

func (q *PG) sendCommitsOf(list []wire.Versioned, with *burial) {
	p := q.p
	for role, osd := range q.coded.roles {
		if osd == 0 || planted.CommitLeftOut && role == len(q.coded.roles)-1 {
			continue
		}
		q.versions = q.versions[:0]
		for _, v := range list {
			v.OID = chunk(v.OID, role)
			q.versions = append(q.versions, v)
		}
		if osd == p.o.Self {
			q.begin()
			done := q.ownCommit
			if with != nil {
				done = with.own
			}
			p.sec.Commit(q.ID, q.versions, done)
			continue
		}
		c := p.commitCall()
		c.q, c.osd, c.with, c.c.Meta = q, osd, with, c.c.Meta[:0]
		for _, v := range q.versions {
			c.c.Meta = wire.AppendVersioned(c.c.Meta, v)
		}
		m := wire.Sub{Op: wire.OpSubCommit, Grant: q.grant, Meta: len(c.c.Meta)}
		m.Encode(&c.c.Header)
		p.hub.Call(osd, &c.c)
	}
}
