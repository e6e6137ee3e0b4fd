package primary

import (
	"slices"
	"time"

	"holdfast/core/layout"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/pg"
	"holdfast/osd/store"
)

// forgetPause gathers deletions before their tombstones are dropped.
const forgetPause = 500 * time.Millisecond

func (p *Primary) sortPGs() {
	p.order = p.order[:0]
	for id := range p.pgs { // order: sorted below
		p.order = append(p.order, id)
	}
	slices.SortFunc(p.order, comparePGs)
}

func (p *Primary) kick() { p.l.Defer(&p.kickTask) }

// recoverSome starts background recovery as far as the throttle allows, the most endangered objects first.
func (p *Primary) recoverSome() {
	for p.mayRecover() {
		q, u := p.pick()
		if q == nil {
			break
		}
		if obj := q.Table.Get(q.dequeue(u)); obj != nil && obj.Unclean != nil && !obj.Recovering && !obj.Inconsistent {
			if q.noRoomFor(obj) {
				q.hold(obj.ID)
				continue
			}
			p.recovering++
			q.recover(obj, true)
		}
	}
	for _, id := range p.order {
		p.pgs[id].checkRecovered()
	}
}

func (q *PG) checkRecovered() {
	if q.left == 0 && !q.reported && !q.stopped {
		q.reported = true
		q.p.host.Recovered(q.ID)
	}
}

// retryPause is how long an object that could not be recovered rests, and retryBatch how many of a PG end their rest at once: should thousands be lost, the others come first all the same.
const (
	retryPause = time.Second
	retryBatch = 32
)

// rested puts what could not be recovered back into the backlog. What a client waits for is tried at once.
func (p *Primary) rested() {
	more := false
	for _, id := range p.order {
		q := p.pgs[id]
		again := q.resting[:min(len(q.resting), retryBatch)]
		if q.resting = q.resting[len(again):]; len(q.resting) == 0 {
			q.resting = nil
		}
		q.unhold()
		more = more || q.resting != nil || q.held != nil
		for _, o := range again {
			obj := q.Table.Get(o)
			switch {
			case obj == nil || obj.Unclean == nil || obj.Recovering || obj.Inconsistent:
			case obj.Blocked():
				q.recoverNow(obj)
			default:
				q.enqueue(obj.Unclean)
			}
		}
	}
	if more {
		p.armRetry()
	}
	p.recoverSome()
}

func (p *Primary) armRetry() {
	if !p.retry.Armed() {
		p.l.Arm(&p.retry, p.l.Now().Add(retryPause))
	}
}

// recoverNow starts the recovery of an object that a request waits for, if it is not under way.
func (q *PG) recoverNow(obj *pg.Object) {
	if !obj.Recovering && obj.Unclean != nil && !obj.Inconsistent {
		q.recover(obj, false)
	}
}

// repair makes an object unclean whose copy here cannot be read, so that recovery puts another member's in its place; false when no other member can have it.
func (q *PG) repair(obj *pg.Object, s store.State) bool {
	if s.Version == 0 || s.Flags != 0 {
		return false
	}
	truth := peering.Entry{Object: obj.ID, Version: s.Version, Interval: s.Interval}
	u := &peering.Unclean{Object: obj.ID, Truth: truth, Holders: q.others, Lacks: []peering.Lack{{OSD: q.p.o.Self, Have: truth}}}
	if len(q.others) == 0 {
		u.Holders, u.Lacks = q.members, nil
	}
	if q.spoil(obj, u, q.p.o.Self); len(q.others) == 0 {
		q.broken(obj)
	}
	return true
}

// spoil notes that an object was found not to be whole: what OSDs have of it cannot be read, or is wrong.
func (q *PG) spoil(obj *pg.Object, u *peering.Unclean, on ...layout.OSDNum) {
	obj.Unclean = u
	if q.misplacedBy(u) {
		q.misplaced++
	}
	q.spoiled = put(q.spoiled, obj.ID, obj.Unclean)
	q.left++
	for _, osd := range on {
		q.unreadable(obj, osd)
	}
	q.reported = false // the PG may be shown as degraded meanwhile, and is not when it is whole again
}

func (p *Primary) armForget() {
	if !p.forget.Armed() {
		p.l.Arm(&p.forget, p.l.Now().Add(forgetPause))
	}
}

// forgetAll drops the tombstones of clean PGs on every member.
func (p *Primary) forgetAll() {
	for _, id := range p.order {
		p.pgs[id].forgetSome()
	}
}

// leastTidy is how many deletions wait at least before those are looked for that something has followed.
const leastTidy = 1024

// tidy drops deletions that wait and that a later change of their object has followed: a PG may be degraded for weeks, while objects are written and deleted over and over. What is left is one for each object that is gone.
func (q *PG) tidy() {
	q.waiting = slices.DeleteFunc(q.waiting, func(e wire.SubEntry) bool {
		if obj := q.Table.Get(e.Object); obj != nil && obj.Unclean != nil {
			return false // what our store has of it may be false
		}
		s, _ := q.p.st.State(q.mine(e.Object))
		return s.Version > e.Version
	})
	q.tidyAt = 2 * len(q.waiting)
}

// forgetBatch bounds one round of forgetting.
const forgetBatch = 512

func (q *PG) forgetSome() {
	p := q.p
	var batch []wire.SubEntry
	var objs []*pg.Object
	var later []wire.SubEntry
	for len(q.tombs) > 0 && len(batch) < forgetBatch {
		e := q.tombs[0]
		q.tombs = q.tombs[1:]
		obj := q.Table.Get(e.Object)
		s, _ := p.st.State(q.mine(e.Object))
		if obj != nil && obj.Unclean != nil && uint64(s.Version) <= uint64(e.Version) {
			q.waiting = append(q.waiting, e) // not on every member yet; when it is, SetClean brings it back
			continue
		}
		if s.Version == e.Version && p.st.Remembers(q.mine(e.Object), e.Version) && !planted.ForgottenRepeated {
			later = append(later, e) // the deletion may be asked for again, and a member that joins learns that it was done with the tombstone
			continue
		}
		if s.Version != e.Version || uint64(e.Version)>>layout.VersionCounterBits > uint64(q.Interval) {
			continue // there again; or its version reaches into the next interval's, which must start above it
		}
		if obj != nil {
			later = append(later, e) // in use: by a change, or by a request that comes to nothing
			continue
		}
		obj = q.Table.Open(e.Object, e.Version, true)
		obj.Recovering = true // nobody may build on the tombstone while members drop it
		if !planted.VersionReused {
			q.floor = max(q.floor, e.Version)
		}
		batch, objs = append(batch, e), append(objs, obj)
	}
	q.tombs = append(q.tombs, later...)
	if len(q.tombs) > 0 {
		p.armForget()
	}
	if len(batch) == 0 {
		return
	}
	left := 1 + len(q.others)
	done := func(ok bool) {
		if left--; left > 0 || q.stopped {
			return
		}
		for _, obj := range objs {
			q.Table.Whole(obj, 0, true)
		}
	}
	p.Events.Forgotten += uint64(len(batch))
	for _, osd := range q.others {
		var meta []byte
		for _, e := range batch {
			e.Object = q.on(osd, e.Object)
			meta = wire.AppendSubEntry(meta, e)
		}
		m := wire.Sub{Op: wire.OpSubForget, Grant: q.grant, Meta: len(meta)}
		c := &peer.Call{Meta: meta}
		m.Encode(&c.Header)
		c.Done = func(c *peer.Call) {
			failed := c.Err != nil || c.Reply.Err() != nil
			if failed && !q.stopped {
				p.l.Log().Warn("a member failed to forget deletions", "pg", q.ID.String(), "peer", uint64(osd), "err", c.Err, "retval", c.Reply.Retval())
				p.host.Lost(q.ID, osd, false)
				return // the objects stay blocked until the interval ends
			}
			done(!failed)
		}
		p.hub.Call(osd, c)
	}
	for i := range batch {
		batch[i].Object = q.mine(batch[i].Object)
	}
	q.begin()
	p.sec.Mark(wire.OpSubForget, q.ID, batch, func(err error) {
		if err != nil && !q.stopped {
			p.l.Log().Warn("forgetting deletions failed", "pg", q.ID.String(), "err", err)
			p.host.Lost(q.ID, p.o.Self, false)
		} else {
			done(true)
		}
		q.end()
	})
}
