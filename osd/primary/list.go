package primary

import (
	"cmp"
	"encoding/binary"
	"slices"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/wire"
	"holdfast/osd/pg"
	"holdfast/osd/store"
)

// listMax bounds one answer to a client's listing: the objects of one inode in one PG.
const listMax = wire.MaxData / 24

// List answers SEC_LIST with the primary flag: the objects of one inode in one PG, those that are not whole included.
func (p *Primary) List(r *peer.Request) {
	var m wire.List
	if m.Decode(&r.Header) != nil || m.Flags&wire.ListPrimary == 0 || m.PG == 0 || m.MinInode != m.MaxInode || m.StableLimit != 0 {
		r.Fail(wire.EINVAL)
		return
	}
	pool := m.MinInode.Pool()
	q := p.pgs[layout.PGID{Pool: pool, Num: m.PG}]
	if q == nil || !q.valid() {
		r.Fail(wire.EPIPE)
		return
	}
	if m.PGCount != 0 && m.PGCount != q.Geometry.PGCount || m.PGStripeSize != 0 && m.PGStripeSize != q.Geometry.PGStripeSize {
		r.Fail(wire.EINVAL)
		return
	}
	found := map[layout.ObjectID]bool{} // true: whatever our store says of it
	add := func(id layout.ObjectID, sure bool) {
		if id.Inode == m.MinInode && id.Stripe >= m.MinStripe && id.Stripe <= m.LastStripe() {
			found[id] = found[id] || sure
		}
	}
	// What is not clean comes first: it may become clean while our own objects are listed, which takes a turn for every so many.
	q.Table.Unclean(func(o *pg.Object) {
		if !o.Gone {
			add(o.ID, true)
		}
	})
	var after store.Cursor
	t := &loop.Task{}
	t.Run = func() {
		if p.pgs[q.ID] != q || !q.valid() {
			r.Fail(wire.EPIPE)
			return
		}
		entries, next, more := p.sec.List(q.ID, after, 4096)
		for _, e := range entries { // of one object there may be several versions, the newest last
			if f := store.StateFlags(e.Flags); f&^store.Unstable == 0 {
				add(e.Object.Whole(), false)
			} else if id := e.Object.Whole(); q.coded != nil && !found[id] {
				delete(found, id)
			}
		}
		if more {
			after = next
			p.l.Post(t)
			return
		}
		p.listed(r, found)
	}
	t.Run()
}

// listed answers with the objects that were found.
func (p *Primary) listed(r *peer.Request, found map[layout.ObjectID]bool) {
	ids := make([]layout.ObjectID, 0, len(found))
	for id := range found { // order: sorted below
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b layout.ObjectID) int { return cmp.Compare(a.Stripe, b.Stripe) })
	if len(ids) > listMax {
		r.Fail(wire.ERANGE)
		return
	}
	data := p.l.Alloc(max(24*len(ids), 1))
	b := data.Bytes()[:0]
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint64(b, uint64(id.Inode))
		b = binary.LittleEndian.AppendUint64(b, id.Stripe)
		b = binary.LittleEndian.AppendUint64(b, 0)
	}
	var h wire.Header
	a := wire.ListReply{Retval: int64(len(ids)), StableCount: uint64(len(ids)), Flags: wire.ListPrimary}
	a.Encode(&h)
	var pieces []peer.Piece
	if len(b) > 0 {
		pieces = []peer.Piece{{Ref: data, Len: len(b)}}
	}
	r.Reply(&h, nil, pieces)
	data.Release()
}
