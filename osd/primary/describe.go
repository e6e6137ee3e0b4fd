package primary

import (
	"cmp"
	"slices"

	"holdfast/core/layout"
	"holdfast/core/peer"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/pg"
)

// state is an object's state (wire.ObjectDegraded ...).
func (q *PG) state(o *pg.Object) (s uint64) {
	switch u := o.Unclean; {
	case o.Inconsistent:
		s = wire.ObjectInconsistent
	case o.Broken, q.unfound[u.Object], q.coded != nil && u.Truth.Version != 0 && !u.Truth.Tombstone && u.Roles() < q.coded.k:
		s = wire.ObjectIncomplete
	case q.misplacedBy(u):
		s = wire.ObjectMisplaced
	default:
		s = wire.ObjectDegraded
	}
	if len(o.Corrupted) > 0 {
		s |= wire.ObjectCorrupted
	}
	return s
}

// described is an object that is not whole, and its PG.
type described struct {
	q *PG
	o *pg.Object
}

func compareIDs(a, b layout.ObjectID) int {
	return cmp.Or(cmp.Compare(a.Inode, b.Inode), cmp.Compare(a.Stripe, b.Stripe))
}

// Describe answers DESCRIBE: the copies of objects that are not whole, of one PG or all that are served here, in the order of the objects. All copies of an object are in one answer, so that
// whoever wants more asks from behind the last one.
func (p *Primary) Describe(r *peer.Request) {
	var m wire.Describe
	if m.Decode(&r.Header) != nil {
		r.Fail(wire.EINVAL)
		return
	}
	own := r.From != nil && !r.From.Legacy
	if own && m.Pool != 0 && m.PG != 0 && p.pgs[layout.PGID{Pool: layout.PoolID(m.Pool), Num: m.PG}] == nil {
		r.Fail(wire.EPIPE) // a stock client asks every OSD, and takes no objects for an answer
		return
	}
	limit := int(min(m.Limit-1, wire.MaxDescribe-1)) + 1 // 0 is the greatest
	var b []byte
	n := 0
	for i, d := range p.matching(&m, limit) {
		before := len(b)
		b = d.q.describe(b, d.o, own)
		if items := (len(b) - before) / wire.DescribeItemSize; i > 0 && n+items > limit {
			b = b[:before]
			break
		} else {
			n += items
		}
	}
	var h wire.Header
	a := wire.DescribeReply{Retval: int64(n), ResultBytes: uint64(len(b))}
	a.Encode(&h)
	if n == 0 {
		r.Reply(&h, nil, nil)
		return
	}
	data := p.l.Alloc(len(b))
	copy(data.Bytes(), b)
	r.Reply(&h, nil, []peer.Piece{{Ref: data, Len: len(b)}})
	data.Release()
}

// matching finds the objects that a DESCRIBE asks for: the first ones, at most limit, in order.
func (p *Primary) matching(m *wire.Describe, limit int) []described {
	first := layout.ObjectID{Inode: m.MinInode, Stripe: m.MinOffset}
	last := layout.ObjectID{Inode: m.MaxInode, Stripe: m.MaxOffset}
	if last.Inode == 0 {
		last.Inode = ^layout.Inode(0)
	}
	if last.Stripe == 0 {
		last.Stripe = ^uint64(0)
	}
	var found []described
	for _, id := range p.order {
		if m.Pool != 0 && uint32(id.Pool) != m.Pool || m.PG != 0 && id.Num != m.PG {
			continue
		}
		q := p.pgs[id]
		take := func(o *pg.Object) {
			if compareIDs(o.ID, first) >= 0 && compareIDs(o.ID, last) <= 0 && (m.ObjectState == 0 || q.state(o)&m.ObjectState != 0) {
				found = append(found, described{q, o})
			}
		}
		for id, u := range q.spoiled { // order: sorted below
			if o := q.Table.Get(id); o != nil && o.Unclean == u {
				take(o)
			}
		}
		// There may be millions of the others: they are not all looked at for each page.
		i, _ := slices.BinarySearchFunc(q.unclean, first, func(u peering.Unclean, id layout.ObjectID) int { return compareIDs(u.Object, id) })
		for most := len(found) + limit; i < len(q.unclean) && len(found) < most && compareIDs(q.unclean[i].Object, last) <= 0; i++ {
			u := &q.unclean[i]
			if o := q.Table.Get(u.Object); o != nil && o.Unclean == u {
				take(o)
			}
		}
	}
	slices.SortFunc(found, func(a, b described) int { return compareIDs(a.o.ID, b.o.ID) })
	return found[:min(len(found), limit)]
}

// describe adds an object's copies, or chunks. own says that our own client asks, which knows our flags, too.
func (q *PG) describe(b []byte, o *pg.Object, own bool) []byte {
	u := o.Unclean
	flags := uint32(0)
	if own {
		if flags = wire.LocState(q.state(o)); u.Truth.Version == 0 || u.Truth.Tombstone {
			flags |= wire.LocDeleted
		}
	}
	role := 0
	add := func(osd layout.OSDNum, bad uint32) {
		b = wire.AppendDescribeItem(b, wire.DescribeItem{OID: u.Object, Role: uint32(role), Bad: bad | flags, OSD: osd})
	}
	hold := func(osd layout.OSDNum) {
		switch {
		case slices.Contains(o.Corrupted, osd):
			add(osd, wire.LocCorrupted)
		case o.Inconsistent:
			add(osd, wire.LocInconsistent)
		default:
			add(osd, 0)
		}
	}
	if q.coded == nil {
		for _, osd := range u.Holders {
			hold(osd)
		}
	}
	for _, c := range u.Chunks {
		role = c.Role
		hold(c.OSD)
	}
	for _, l := range u.Lacks {
		role = l.Have.Object.Role()
		switch {
		case slices.Contains(o.Corrupted, l.OSD):
			if !slices.Contains(u.Holders, l.OSD) {
				add(l.OSD, wire.LocCorrupted)
			}
		case l.Have.Version != 0:
			add(l.OSD, wire.LocOutdated)
		case own:
			add(l.OSD, wire.LocMissing)
		}
	}
	return b
}
