package primary

import "holdfast/core/wire"

// burial is deletions in an erasure-coded pool whose commits are under way. Until a member has committed one, it has the object of before beside it, and when others have forgotten the deletion it alone knows of it: then
// it would be taken for a change that was told to nobody. So nobody forgets it before all have answered; if one does not, the interval ends, and the next one finds what is there.
type burial struct {
	q    *PG
	left int // members that have not answered
	list []wire.SubEntry
	own  func(error)
	next *burial
}

// burial takes the deletions that have gathered; nil when there are none.
func (q *PG) burial() *burial {
	if len(q.graves) == 0 {
		return nil
	}
	p := q.p
	b := p.freeBurial
	if b == nil {
		b = &burial{}
		b.own = func(err error) {
			q := b.q
			b.answered(err)
			q.committedHere(err)
		}
	} else {
		p.freeBurial, b.next = b.next, nil
	}
	b.q = q
	b.list, q.graves = append(b.list[:0], q.graves...), q.graves[:0]
	for _, osd := range q.coded.roles {
		if osd != 0 {
			b.left++
		}
	}
	return b
}

// answered counts a member that has committed the deletions, or will never say so.
func (b *burial) answered(err error) {
	if b == nil {
		return
	}
	q := b.q
	if err != nil {
		b.list = b.list[:0] // the interval ends
	}
	if b.left--; b.left > 0 {
		return
	}
	for _, e := range b.list {
		q.settled(e)
	}
	b.q, b.next, q.p.freeBurial = nil, q.p.freeBurial, b
}
