package primary

import (
	"errors"
	"slices"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/pg"
	"holdfast/osd/secondary"
	"holdfast/osd/store"
)

// retryPause is how long an object that could not be recovered rests.
const retryPause = time.Second

// forgetPause gathers deletions before their tombstones are dropped.
const forgetPause = 500 * time.Millisecond

// copyJob makes one object whole: it reads the truth from a holder and puts it in the place of what each lacking member has.
type copyJob struct {
	q          *PG
	obj        *pg.Object
	u          peering.Unclean
	background bool
	from       int  // holders tried
	unreadable int  // of them
	moved      bool // it was only misplaced
	start      loop.Instant

	read  store.Op
	fetch peer.Call
	left  int
	err   error
}

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
		if obj := q.Table.Get(q.dequeue(u)); obj != nil && obj.Unclean != nil && !obj.Recovering {
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

// retryAll puts what could not be recovered back into the backlog. What a client waits for is tried at once.
func (p *Primary) retryAll() {
	for _, id := range p.order {
		q := p.pgs[id]
		again := q.resting
		q.resting = nil
		for _, o := range again {
			obj := q.Table.Get(o)
			switch {
			case obj == nil || obj.Unclean == nil || obj.Recovering:
			case obj.Blocked():
				q.recoverNow(obj)
			default:
				q.enqueue(obj.Unclean)
			}
		}
	}
	p.recoverSome()
}

// recoverNow starts the recovery of an object that a request waits for, if it is not under way.
func (q *PG) recoverNow(obj *pg.Object) {
	if !obj.Recovering && obj.Unclean != nil {
		q.recover(obj, false)
	}
}

func (q *PG) recover(obj *pg.Object, background bool) {
	obj.Recovering = true
	j := &copyJob{q: q, obj: obj, u: *obj.Unclean, background: background, moved: q.misplacedBy(obj.Unclean), start: q.p.l.Now()}
	j.read.Done = func(*store.Op) { j.readLocal() }
	j.fetch.Done = func(*peer.Call) { j.fetched() }
	j.next()
}

// next reads from the next holder, or goes on without reading when there is nothing to read.
func (j *copyJob) next() {
	p := j.q.p
	if len(j.u.Holders) == 0 && (j.u.Truth.Version == 0 || j.u.Truth.Tombstone) {
		j.write(nil, nil, nil, nil)
		return
	}
	if j.from == len(j.u.Holders) {
		if back := j.u.Back; back != nil && j.unreadable == j.from {
			p.Events.Undone++
			p.l.Log().Warn("a change that was never acknowledged is undone: no copy of it can be read", "pg", j.q.ID.String(), "object", j.u.Object.String(), "holders", j.u.Holders,
				"version", uint64(j.u.Truth.Version), "back_to", uint64(back.Truth.Version))
			j.u, j.from, j.unreadable = *back, 0, 0
			j.next()
			return
		}
		j.fail()
		return
	}
	osd := j.holder()
	j.from++
	if osd == p.o.Self {
		j.read.Kind, j.read.Object = store.OpReadObject, j.u.Object
		j.q.begin()
		p.st.Submit(&j.read)
		return
	}
	m := wire.Sub{Op: wire.OpSubRead, Object: j.u.Object, Grant: j.q.grant}
	m.Encode(&j.fetch.Header)
	p.hub.Call(osd, &j.fetch)
}

// holder is whom to read from next: ourselves first, if the truth is here.
func (j *copyJob) holder() layout.OSDNum {
	own := slices.Index(j.u.Holders, j.q.p.o.Self)
	switch {
	case own < 0 || j.from > own:
		return j.u.Holders[j.from]
	case j.from == 0:
		return j.q.p.o.Self
	}
	return j.u.Holders[j.from-1]
}

func (j *copyJob) readLocal() {
	defer j.q.end()
	if j.q.stopped {
		if j.read.Data != nil {
			j.read.Data.Release()
		}
		j.over()
		return
	}
	op := &j.read
	if op.Err != nil || op.State.Version != j.u.Truth.Version || op.State.Interval != j.u.Truth.Interval {
		if op.Err != nil {
			j.unreadable++
		}
		if op.Data != nil {
			op.Data.Release()
			op.Data = nil
		}
		secondary.ResetOp(op)
		j.next()
		return
	}
	j.write(op, op.Bitmap, op.Present, op.Pairs)
}

func (j *copyJob) fetched() {
	c := &j.fetch
	var m wire.SubReply
	answered := c.Err == nil && m.Decode(&c.Reply) == nil
	if answered && (m.Retval == wire.EDOM || m.Retval == wire.EIO) {
		j.unreadable++
	}
	ok := answered && m.Retval >= 0 && m.Version == j.u.Truth.Version && m.Written == j.u.Truth.Interval
	op := &j.read
	if ok {
		var pairs []store.PairVersion
		bitmap, present, err := wire.ObjectMeta(c.ReplyMeta, func(p wire.SubPair) {
			pairs = append(pairs, store.PairVersion{Pair: store.Pair{Session: p.Session, Sequence: p.Sequence}, Version: p.Version})
		})
		ok = err == nil
		op.Bitmap, op.Present, op.Pairs = bitmap, present, pairs
	}
	op.Data, c.ReplyData = c.ReplyData, nil
	switch {
	case j.q.stopped:
		if op.Data != nil {
			op.Data.Release()
		}
		j.over()
	case !ok:
		if op.Data != nil {
			op.Data.Release()
			op.Data = nil
		}
		j.next()
	default:
		j.write(op, op.Bitmap, op.Present, op.Pairs)
	}
}

// write replaces what each lacking member has by the truth.
func (j *copyJob) write(src *store.Op, bitmap, present []byte, pairs []store.PairVersion) {
	p, q := j.q.p, j.q
	if planted.PairsNotRecovered {
		pairs = nil
	}
	var meta []byte
	if src != nil {
		meta = wire.AppendObjectMeta(nil, bitmap, present, len(pairs), func(i int) wire.SubPair {
			return wire.SubPair{Session: pairs[i].Session, Sequence: pairs[i].Sequence, Version: pairs[i].Version}
		})
	}
	j.left = 1
	for _, lack := range j.u.Lacks {
		j.left++
		if lack.OSD == p.o.Self {
			op := &store.Op{Object: j.u.Object, Base: lack.Have.Version, BaseInterval: lack.Have.Interval, Version: j.u.Truth.Version, Interval: j.u.Truth.Interval}
			if j.u.Truth.Tombstone {
				op.Flags = store.Tombstone
			}
			if src != nil {
				op.Data, op.Bitmap, op.Present, op.Pairs = src.Data, bitmap, present, pairs
			}
			if j.u.Truth.Tombstone {
				op.Data = nil
			}
			op.Done = func(op *store.Op) {
				p.sec.Changed(q.ID)
				j.written(op.Err)
				q.end()
			}
			q.begin()
			p.sec.Replace(q.ID, op)
			continue
		}
		c := &peer.Call{Meta: meta}
		m := wire.Sub{Op: wire.OpSubReplace, Object: j.u.Object, Base: lack.Have.Version, BaseInterval: lack.Have.Interval,
			Version: j.u.Truth.Version, Written: j.u.Truth.Interval, Grant: q.grant, Meta: len(meta)}
		if j.u.Truth.Tombstone {
			m.Flags = wire.SubTombstone
		}
		if src != nil && src.Data != nil && !j.u.Truth.Tombstone {
			m.Data = src.Data.Len()
			c.Payload = []peer.Piece{{Ref: src.Data, Len: m.Data}}
		}
		m.Encode(&c.Header)
		osd := lack.OSD
		c.Done = func(c *peer.Call) {
			err := c.Err
			if err == nil {
				err = c.Reply.Err()
			}
			j.written(err)
			if err != nil && !q.stopped {
				p.l.Log().Warn("a member failed a replacement", "pg", q.ID.String(), "peer", uint64(osd), "object", j.u.Object.String(), "err", err)
				p.host.Lost(q.ID, osd, err == wire.Errno(wire.ENOSPC))
			}
		}
		p.hub.Call(osd, c)
	}
	j.written(nil)
}

func (j *copyJob) written(err error) {
	if err != nil && j.err == nil {
		j.err = err
	}
	if j.left--; j.left > 0 {
		return
	}
	p, q := j.q.p, j.q
	n := 0
	if j.read.Data != nil {
		n = j.read.Data.Len()
		j.read.Data.Release()
		j.read.Data = nil
	}
	switch {
	case q.stopped:
		j.over()
	case j.err != nil:
		j.fail()
	default:
		p.Recovery.add(n*len(j.u.Lacks), p.l.Now().Sub(j.start))
		if j.moved {
			p.Moved.add(n*len(j.u.Lacks), p.l.Now().Sub(j.start))
		}
		q.madeWhole(j.obj.Unclean)
		j.over()
		q.Table.Whole(j.obj, j.u.Truth.Version, j.u.Truth.Version == 0 || j.u.Truth.Tombstone)
		if q.left == 0 {
			p.kick()
		}
	}
}

// over ends the job's share of background recovery.
func (j *copyJob) over() {
	if j.background {
		j.background = false
		j.q.p.recovering--
		j.q.p.rest(j.start)
		j.q.p.kick()
	}
}

// fail puts the object back to be tried again later.
func (j *copyJob) fail() {
	q := j.q
	p := q.p
	p.l.Log().Warn("object cannot be recovered now", "pg", q.ID.String(), "object", j.u.Object.String(), "holders", j.u.Holders, "err", j.err)
	j.obj.Recovering = false
	if j.err == nil {
		q.notFound(j.u.Object)
	}
	var base *store.BaseError
	if errors.As(j.err, &base) {
		// Our copy is not what peering saw. Only peering again can say what is true.
		j.over()
		p.host.Lost(q.ID, p.o.Self, false)
		return
	}
	q.resting = append(q.resting, j.u.Object)
	j.over()
	if !p.retry.Armed() {
		p.l.Arm(&p.retry, p.l.Now().Add(retryPause))
	}
}

// repair makes an object unclean whose copy here cannot be read, so that recovery puts another member's in its place; false when no other member can have it.
func (q *PG) repair(obj *pg.Object, s store.State) bool {
	if s.Version == 0 || s.Flags != 0 {
		return false
	}
	truth := peering.Entry{Object: obj.ID, Version: s.Version, Interval: s.Interval}
	obj.Unclean = &peering.Unclean{Object: obj.ID, Truth: truth, Holders: q.others, Lacks: []peering.Lack{{OSD: q.p.o.Self, Have: truth}}}
	q.left++
	q.reported = q.left == 1 && q.reported
	return true
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
		s, _ := p.st.State(e.Object)
		if obj != nil && obj.Unclean != nil && uint64(s.Version) <= uint64(e.Version) {
			q.waiting = append(q.waiting, e) // not on every member yet; when it is, SetClean brings it back
			continue
		}
		if s.Version == e.Version && p.st.Remembers(e.Object, e.Version) {
			later = append(later, e) // the deletion may be asked for again, and a member that joins learns that it was done with the tombstone
			continue
		}
		if obj != nil || s.Version != e.Version || uint64(e.Version)>>layout.VersionCounterBits > uint64(q.Interval) {
			continue // in use again; or its version reaches into the next interval's, which must start above it
		}
		obj = q.Table.Open(e.Object, e.Version, true)
		obj.Recovering = true // nobody may build on the tombstone while members drop it
		q.floor = max(q.floor, e.Version)
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
	var meta []byte
	for _, e := range batch {
		meta = wire.AppendSubEntry(meta, e)
	}
	p.Events.Forgotten += uint64(len(batch))
	for _, osd := range q.others {
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
