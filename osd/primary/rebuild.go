package primary

import (
	"slices"

	"holdfast/core/ec"
	"holdfast/core/layout"
	"holdfast/core/loop/buf"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/pg"
	"holdfast/osd/secondary"
	"holdfast/osd/store"
)

// rebuild is what a copyJob has besides in erasure-coded pools: k chunks of the truth are read, whole, and those that members lack are computed from them.
type rebuild struct {
	j     *copyJob
	reads []*chunkRead // by role; made when they are needed
	left  int
	have  ec.Set // roles that were read
	bad   []peering.Chunk
	// Of the truth, by role: what was read, or computed.
	data, bits, present [][]byte
	space               []*buf.Ref
	strays              bool // these are being removed
}

// chunkRead is one chunk that is read.
type chunkRead struct {
	b       *rebuild
	role    int
	osd     layout.OSDNum
	op      store.Op
	call    peer.Call
	data    *buf.Ref
	bitmap  []byte
	present []byte
}

func (j *copyJob) rebuild() *rebuild {
	if j.coded == nil {
		j.coded = &rebuild{j: j}
	}
	return j.coded
}

func (b *rebuild) at(role int) *chunkRead {
	for len(b.reads) <= role {
		r := &chunkRead{b: b, role: len(b.reads)}
		r.op.Done = func(*store.Op) { r.stored() }
		r.call.Done = func(*peer.Call) { r.fetched() }
		b.reads = append(b.reads, r)
	}
	return b.reads[role]
}

// reset gives back what was read.
func (b *rebuild) reset() {
	for _, r := range b.reads {
		r.forget()
	}
	for i, ref := range b.space {
		ref.Release()
		b.space[i] = nil
	}
	b.space, b.bad, b.have, b.left, b.strays = b.space[:0], b.bad[:0], 0, 0, false
	clear(b.data)
	clear(b.bits[:0])
	clear(b.present)
}

func (r *chunkRead) forget() {
	if r.data != nil {
		r.data.Release()
		r.data = nil
	}
	r.bitmap, r.present = r.bitmap[:0], r.present[:0]
	secondary.ResetOp(&r.op)
}

// readChunks reads as many chunks of the truth as are missing to k, each of another role, and goes on when they are here.
func (j *copyJob) readChunks() {
	p, q, b := j.p, j.q, j.rebuild()
	if j.u.Truth.Version == 0 {
		j.writeChunks()
		return
	}
	want := q.coded.k
	if j.u.Truth.Tombstone {
		want = min(1, len(j.u.Chunks)) // for the requests that it remembers
	}
	b.left = 1
	asked := b.have
	if planted.StaleRebuilt {
		for _, l := range j.u.Lacks {
			if c := (peering.Chunk{OSD: l.OSD, Role: l.Have.Object.Role()}); l.Have.Version != 0 && !slices.Contains(j.u.Chunks, c) {
				j.u.Chunks = append([]peering.Chunk{c}, j.u.Chunks...)
			}
		}
	}
	for _, own := range []bool{true, false} {
		for _, c := range j.u.Chunks {
			if (c.OSD == p.o.Self) != own || c.Role >= ec.MaxChunks || asked.Has(c.Role) || asked.Len() == want || slices.Contains(b.bad, c) {
				continue
			}
			asked |= ec.SetOf(c.Role)
			b.left++
			r := b.at(c.Role)
			r.osd = c.OSD
			id := chunk(j.u.Object, c.Role)
			if own {
				r.op.Kind, r.op.Object = store.OpReadObject, id
				q.begin()
				p.st.Submit(&r.op)
				continue
			}
			m := wire.Sub{Op: wire.OpSubRead, Object: id, Grant: q.grant}
			m.Encode(&r.call.Header)
			p.hub.Call(c.OSD, &r.call)
		}
	}
	if asked.Len() < want {
		b.left-- // what is under way is waited for, and then it is given up
		if b.left == 0 {
			j.failChunks()
		}
		return
	}
	b.read(want)
}

func (j *copyJob) failChunks() {
	j.coded.reset()
	j.fail()
}

// read counts what was under way.
func (b *rebuild) read(want int) {
	if b.left--; b.left > 0 {
		return
	}
	j := b.j
	switch {
	case j.q.stopped:
		j.end()
	case b.have.Len() < want:
		j.readChunks()
	default:
		j.found = want > 0
		j.writeChunks()
	}
}

func (b *rebuild) wanted() int {
	if b.j.u.Truth.Tombstone {
		return min(1, len(b.j.u.Chunks))
	}
	return b.j.q.coded.k
}

// took takes what was read, or notes that it cannot be.
func (r *chunkRead) took(ok, spoiled bool) {
	b := r.b
	j := b.j
	if planted.UnreadableZero && spoiled {
		r.data, ok = j.p.l.Alloc(int(j.q.Geometry.BlockSize)), true
		clear(r.data.Bytes())
		r.bitmap = append(r.bitmap[:0], make([]byte, j.q.Geometry.BitmapLen())...)
		r.present = append(r.present[:0], r.bitmap...)
	}
	if ok {
		b.have |= ec.SetOf(r.role)
	} else {
		b.bad = append(b.bad, peering.Chunk{OSD: r.osd, Role: r.role})
		if spoiled && !j.q.stopped {
			j.asked = r.osd
			j.spoiled()
		}
		r.forget()
	}
	b.read(b.wanted())
}

func (r *chunkRead) stored() {
	j, op := r.b.j, &r.op
	q := j.q
	r.data, op.Data = op.Data, nil
	ok := op.Err == nil && (j.isTruth(op.State.Version, op.State.Interval) || planted.StaleRebuilt)
	if ok {
		r.bitmap, r.present = append(r.bitmap[:0], op.Bitmap...), append(r.present[:0], op.Present...)
		for _, x := range op.Pairs {
			j.remember(x)
		}
	}
	r.took(ok, op.Err != nil)
	q.end()
}

func (r *chunkRead) fetched() {
	j, c := r.b.j, &r.call
	var m wire.SubReply
	answered := c.Err == nil && m.Decode(&c.Reply) == nil
	ok := answered && m.Retval >= 0 && (j.isTruth(m.Version, m.Written) || planted.StaleRebuilt)
	if ok {
		bitmap, present, err := wire.ObjectMeta(c.ReplyMeta, func(s wire.SubPair) {
			j.remember(store.PairVersion{Pair: store.Pair{Session: s.Session, Sequence: s.Sequence}, Version: s.Version})
		})
		ok = err == nil
		r.bitmap, r.present = append(r.bitmap[:0], bitmap...), append(r.present[:0], present...)
	}
	r.data, c.ReplyData = c.ReplyData, nil
	if n := j.q.Geometry.BitmapLen(); !j.u.Truth.Tombstone && (r.data == nil || r.data.Len() != int(j.q.Geometry.BlockSize) || len(r.bitmap) != n || len(r.present) != n) {
		ok = false
	}
	r.took(ok, answered && (m.Retval == wire.EDOM || m.Retval == wire.EIO))
}

// remember takes over a request that a chunk remembers; each of them does.
func (j *copyJob) remember(x store.PairVersion) {
	if !slices.Contains(j.pairs, x) {
		j.pairs = append(j.pairs, x)
	}
}

// writeChunks gives each member its chunk that lacks it.
func (j *copyJob) writeChunks() {
	b := j.coded
	if j.found && !j.u.Truth.Tombstone {
		j.mendChunks()
		if err := b.compute(); err != nil {
			j.p.l.Log().Error("an object cannot be computed from its chunks", "pg", j.q.ID.String(), "object", j.u.Object.String(), "err", err)
			j.failChunks()
			return
		}
	}
	j.left = 1
	for i := range j.u.Lacks {
		j.left++
		j.target(i).giveChunk(&j.u.Lacks[i])
	}
	j.written(nil)
}

// mendChunks has members whose chunks cannot be read given theirs, too.
func (j *copyJob) mendChunks() {
	c := j.q.coded
	for _, bad := range j.coded.bad {
		id := chunk(j.u.Object, bad.Role)
		lacks := func(l peering.Lack) bool { return l.OSD == bad.OSD && l.Have.Object == id }
		if slices.Contains(j.obj.Corrupted, bad.OSD) && bad.Role < len(c.roles) && c.roles[bad.Role] == bad.OSD && !slices.ContainsFunc(j.u.Lacks, lacks) {
			have := j.u.Truth
			have.Object = id
			j.u.Lacks = append(slices.Clip(j.u.Lacks), peering.Lack{OSD: bad.OSD, Have: have})
		}
	}
}

// compute computes the chunks that members lack, with their bitmaps.
func (b *rebuild) compute() error {
	j := b.j
	q, c := j.q, j.q.coded
	n, block := q.Geometry.BitmapLen(), int(q.Geometry.BlockSize)
	missing := ec.Set(0)
	for i := range j.u.Lacks {
		missing |= ec.SetOf(j.u.Lacks[i].Have.Object.Role())
	}
	missing &^= b.have
	if missing == 0 {
		return nil
	}
	// There may be chunks of roles that the pool has no more: the matrix is one for any number of parity chunks.
	top := max(len(c.roles), (b.have|missing).Last()+1)
	code, err := j.p.codes.Get(c.k, top-c.k)
	if err != nil {
		return err
	}
	b.data, b.bits, b.present = b.data[:0], b.bits[:0], b.present[:0]
	for role := range top {
		r := b.at(role)
		var data, bits, present []byte
		switch {
		case b.have.Has(role):
			data, bits, present = r.data.Bytes(), r.bitmap, r.present
		case missing.Has(role):
			r.data = j.p.l.Alloc(block)
			r.bitmap, r.present = append(r.bitmap[:0], make([]byte, n)...), append(r.present[:0], make([]byte, n)...)
			data, bits, present = r.data.Bytes(), r.bitmap, r.present
		}
		b.data, b.bits, b.present = append(b.data, data), append(b.bits, bits), append(b.present, present)
	}
	from := b.have.Lowest(c.k)
	if err := code.Reconstruct(b.data, from, missing); err != nil {
		return err
	}
	if !planted.BitmapUnrebuilt {
		if err := code.Reconstruct(b.bits, from, missing); err != nil {
			return err
		}
	}
	for role := range c.roles {
		if missing.Has(role) {
			occupied(b.present[role], b.data[role], int(q.Geometry.Granularity))
		}
	}
	return nil
}

// occupied sets the bits of units that are not zero.
func occupied(present, data []byte, unit int) {
	for i := range len(data) / unit {
		if slices.ContainsFunc(data[i*unit:(i+1)*unit], func(x byte) bool { return x != 0 }) {
			present[i/8] |= 1 << (i % 8)
		}
	}
}

// giveChunk sends a member its chunk.
func (t *target) giveChunk(lack *peering.Lack) {
	j := t.j
	p, q, truth := j.p, j.q, &j.u.Truth
	id := lack.Have.Object
	t.osd = lack.OSD
	var data *buf.Ref
	var bitmap, present []byte
	if j.found && !truth.Tombstone && truth.Version != 0 {
		r := j.coded.reads[id.Role()]
		data, bitmap, present = r.data, r.bitmap, r.present
	}
	t.meta = t.meta[:0]
	if j.found {
		t.meta = wire.AppendObjectMeta(t.meta, j.blank(bitmap), j.blank(present), len(j.pairs), j.pairAt)
	}
	if t.osd == p.o.Self {
		op := &t.op
		op.Object, op.Base, op.BaseInterval, op.Version, op.Interval = id, lack.Have.Version, lack.Have.Interval, truth.Version, truth.Interval
		if truth.Tombstone {
			op.Flags = store.Tombstone
		}
		if j.found {
			op.Data, op.Bitmap, op.Present, op.Pairs = data, j.blank(bitmap), j.blank(present), j.pairs
		}
		q.begin()
		p.sec.Replace(q.ID, op)
		return
	}
	c := &t.call
	m := wire.Sub{Op: wire.OpSubReplace, Object: id, Base: lack.Have.Version, BaseInterval: lack.Have.Interval, Version: truth.Version, Written: truth.Interval, Grant: q.grant, Meta: len(t.meta)}
	if truth.Tombstone {
		m.Flags = wire.SubTombstone
	}
	c.Payload = c.Payload[:0]
	if data != nil {
		m.Data = data.Len()
		c.Payload = append(c.Payload, peer.Piece{Ref: data, Len: m.Data})
	}
	c.Meta = t.meta
	m.Encode(&c.Header)
	p.hub.Call(t.osd, c)
}

// blank is a bitmap, or one with nothing in it.
func (j *copyJob) blank(bitmap []byte) []byte {
	if len(bitmap) > 0 {
		return bitmap
	}
	return j.p.zeroes(uint32(j.q.Geometry.BitmapLen()))
}

// removeStrays removes chunks of roles that their members do not have any more. Every member has its own by now.
func (j *copyJob) removeStrays() {
	p, q := j.p, j.q
	list := j.u.Strays
	j.u.Strays = nil
	j.left = 1
	for i := range list {
		j.left++
		t, have := j.target(i), &list[i].Have
		t.osd = list[i].OSD
		if t.osd == p.o.Self {
			t.op = store.Op{Done: t.op.Done, Object: have.Object, Base: have.Version, BaseInterval: have.Interval}
			q.begin()
			p.sec.Replace(q.ID, &t.op)
			continue
		}
		c := &t.call
		m := wire.Sub{Op: wire.OpSubReplace, Object: have.Object, Base: have.Version, BaseInterval: have.Interval, Grant: q.grant}
		c.Meta, c.Payload = nil, c.Payload[:0]
		m.Encode(&c.Header)
		p.hub.Call(t.osd, c)
	}
	j.written(nil)
}

// repairChunk makes an object unclean whose chunk of a role cannot be read, so that recovery computes it from the others; when there are too few it is broken. s is what our own chunk is at; false: there is nothing to be read.
func (q *PG) repairChunk(obj *pg.Object, role int, s store.State) bool {
	c := q.coded
	if s.Version == 0 || s.Flags&(store.Tombstone|store.Void) != 0 {
		return false
	}
	few := (c.here &^ ec.SetOf(role)).Len() < c.k
	truth := peering.Entry{Object: obj.ID, Version: s.Version, Interval: s.Interval}
	u := &peering.Unclean{Object: obj.ID, Truth: truth}
	for r, osd := range c.roles {
		if osd != 0 && (r != role || few) {
			u.Holders, u.Chunks = append(u.Holders, osd), append(u.Chunks, peering.Chunk{OSD: osd, Role: r})
		}
	}
	have := truth
	have.Object = chunk(obj.ID, role)
	if !few && !planted.MendForgotten {
		u.Lacks = []peering.Lack{{OSD: c.roles[role], Have: have}}
	}
	if q.spoil(obj, u, c.roles[role]); few {
		q.broken(obj)
	}
	return true
}
