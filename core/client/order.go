package client

import "holdfast/core/layout"

// order makes changes that overlap wait for each other: a table of the changes under way by object, each chain in the order of submission.
type order struct {
	heads []*part // a power of two
	n     int
}

const firstBuckets = 256

func (o *order) bucket(id layout.ObjectID) int {
	h := (uint64(id.Inode) ^ id.Stripe>>12*0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	return int(h >> 32 & uint64(len(o.heads)-1))
}

// enter adds p behind all others and counts those it has to wait for.
func (o *order) enter(p *part) {
	if o.n >= len(o.heads) {
		o.grow()
	}
	o.n++
	p.held, p.blockers, p.behind = true, 0, nil
	at := &o.heads[o.bucket(p.objectOf())]
	for *at != nil {
		if p.mustWaitFor(*at) {
			p.blockers++
		}
		at = &(*at).behind
	}
	*at = p
}

func (o *order) grow() {
	old := o.heads
	o.heads = make([]*part, max(firstBuckets, 2*len(old)))
	for _, p := range old {
		for p != nil {
			next := p.behind
			p.behind = nil
			at := &o.heads[o.bucket(p.objectOf())]
			for *at != nil {
				at = &(*at).behind
			}
			*at = p
			p = next
		}
	}
}

// leave takes p out and shows each one that waits for nobody any more to free.
func (o *order) leave(p *part, free func(*part)) {
	if !p.held {
		return
	}
	p.held = false
	o.n--
	at := &o.heads[o.bucket(p.objectOf())]
	for *at != p {
		at = &(*at).behind
	}
	*at = p.behind
	for q := p.behind; q != nil; {
		next := q.behind // free may finish q, but only puts others behind it
		if q.mustWaitFor(p) {
			if q.blockers--; q.blockers == 0 {
				free(q)
			}
		}
		q = next
	}
	p.behind = nil
}

// mustWaitFor reports whether p, the later one, overlaps q. What rewrites granules is alone on its object, as every other change would spoil the version it counts on.
func (p *part) mustWaitFor(q *part) bool {
	if p.op.Inode != q.op.Inode || p.stripe != q.stripe {
		return false
	}
	return p.rewrite || q.rewrite || p.off < q.off+q.len && q.off < p.off+p.len
}
