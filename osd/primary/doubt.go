package primary

import (
	"slices"

	"holdfast/core/layout"
	"holdfast/core/peer"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/store"
)

// Disputed are the objects whose copies differ without its being known which are right, in order.
func (q *PG) Disputed() (list []layout.ObjectID) {
	if q.inconsistent == 0 {
		return nil
	}
	for id := range q.spoiled { // order: sorted below
		if o := q.Table.Get(id); o != nil && o.Inconsistent {
			list = append(list, id)
		}
	}
	slices.SortFunc(list, compareIDs)
	return list
}

// Doubt takes over what an earlier primary found inconsistent: none of it is served before it has been compared again. It comes right after Serve.
func (q *PG) Doubt(list []layout.ObjectID) {
	for _, id := range list {
		o := q.Table.Get(id)
		if o != nil && o.Unclean != nil {
			if o.Inconsistent || o.Unclean.Truth.Version == 0 || o.Unclean.Truth.Tombstone {
				continue
			}
			u := *o.Unclean
			o.Unclean, q.spoiled = &u, put(q.spoiled, id, &u)
			q.disputed(o, true)
			continue
		}
		s, ok := q.p.st.State(q.mine(id))
		if !ok || s.Version == 0 || s.Flags&(store.Tombstone|store.Void) != 0 {
			continue // deleted since
		}
		u := &peering.Unclean{Object: id, Truth: peering.Entry{Object: id, Version: s.Version, Interval: s.Interval}, Holders: q.members}
		if q.coded != nil {
			for role, osd := range q.coded.roles {
				if osd != 0 {
					u.Chunks = append(u.Chunks, peering.Chunk{OSD: osd, Role: role})
				}
			}
		}
		o = q.Table.Open(id, s.Version, false)
		q.spoil(o, u)
		q.disputed(o, true)
	}
}

func put[K comparable, V any](m map[K]V, k K, v V) map[K]V {
	if m == nil {
		m = map[K]V{}
	}
	m[k] = v
	return m
}

// Fix answers FIX: what an OSD has of an object is wrong, as an operator has decided. The object is compared first; then what the OSD has is made anew from the others, if it was in doubt, and the others agree.
func (p *Primary) Fix(r *peer.Request) {
	var m wire.Fix
	if m.Decode(&r.Header) != nil || m.Object.Inode.Num() == 0 {
		r.Fail(wire.EINVAL)
		return
	}
	g, err := p.host.Snapshot().Geometry(m.Object.Inode.Pool())
	if err != nil || g.PGCount == 0 {
		r.Fail(wire.EPIPE)
		return
	}
	id := layout.ObjectID{Inode: m.Object.Inode, Stripe: g.Stripe(m.Object.Stripe)}
	pg := layout.PGID{Pool: id.Inode.Pool(), Num: g.PG(id.Stripe)}
	p.Compare(pg, id, func(found Compared) {
		q := p.pgs[pg]
		if found.Over || q == nil {
			r.Fail(wire.EPIPE)
			return
		}
		again, errno := q.blame(id, &m)
		switch {
		case errno != 0:
			r.Fail(errno)
		case again:
			p.Compare(pg, id, func(found Compared) { p.compared(r, wire.OpFix, found) })
		default:
			p.compared(r, wire.OpFix, found)
		}
	})
}

// blame notes that what an OSD has of an inconsistent object is wrong. again says that the others have to be compared without it.
func (q *PG) blame(id layout.ObjectID, m *wire.Fix) (again bool, errno int64) {
	o := q.Table.Get(id)
	if o == nil || o.Unclean == nil {
		return false, wire.ENOENT
	}
	u := o.Unclean
	has := slices.Contains(u.Holders, m.OSD) || slices.ContainsFunc(u.Lacks, func(l peering.Lack) bool { return l.OSD == m.OSD })
	if q.coded != nil && m.Part != wire.AnyPart {
		has = slices.Contains(u.Chunks, peering.Chunk{OSD: m.OSD, Role: int(m.Part)}) || slices.ContainsFunc(u.Lacks, func(l peering.Lack) bool { return l.OSD == m.OSD && l.Have.Object.Role() == int(m.Part) })
	} else if m.Part != wire.AnyPart && m.Part != 0 {
		has = false
	}
	bad := slices.Contains(o.Corrupted, m.OSD)
	switch {
	case !has || !bad && !o.Inconsistent:
		return false, wire.ENOENT
	case bad:
		return false, 0 // it is known already
	}
	left := 0
	for _, osd := range u.Holders {
		if osd != m.OSD && !slices.Contains(o.Corrupted, osd) {
			left++
		}
	}
	if least := max(1, int(q.Geometry.DataChunks)); left < least {
		return false, wire.ERANGE
	}
	q.unreadable(o, m.OSD)
	return true, 0
}
