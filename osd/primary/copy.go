package primary

import (
	"errors"
	"slices"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/pg"
	"holdfast/osd/secondary"
	"holdfast/osd/store"
)

// copyJob makes one object whole: it reads the truth from a holder and puts it in the place of what each lacking member has. Jobs are used again.
type copyJob struct {
	p          *Primary
	q          *PG
	obj        *pg.Object
	u          peering.Unclean
	background bool
	moved      bool // the object was only misplaced
	start      loop.Instant

	from       int           // holders tried
	asked      layout.OSDNum // the last of them
	unreadable int           // of them
	undone     bool
	read       store.Op
	fetch      peer.Call

	// What was read, if there was anything to read. The bitmaps are in the memory of read or fetch, or of fetch's reply.
	found           bool
	data            *buf.Ref
	bitmap, present []byte
	pairs           []store.PairVersion
	meta            []byte // all but data, as the wire has it

	coded *rebuild // in erasure-coded pools

	targets []*target // the first of them are in use, one for each member that lacks the object
	left    int       // of them, and one until all are under way
	err     error

	// Bound once.
	addPair func(wire.SubPair)
	pairAt  func(int) wire.SubPair
	next    *copyJob
}

// target is one member that is given the object.
type target struct {
	j    *copyJob
	osd  layout.OSDNum
	op   store.Op  // if it is us
	call peer.Call // otherwise
	meta []byte    // of that, in erasure-coded pools
}

func (p *Primary) copyJob() *copyJob {
	j := p.freeCopy
	if j != nil {
		p.freeCopy, j.next = j.next, nil
		return j
	}
	j = &copyJob{p: p}
	j.read.Done = func(*store.Op) { j.readLocal() }
	j.fetch.Done = func(*peer.Call) { j.fetched() }
	j.addPair = func(s wire.SubPair) {
		j.pairs = append(j.pairs, store.PairVersion{Pair: store.Pair{Session: s.Session, Sequence: s.Sequence}, Version: s.Version})
	}
	j.pairAt = func(i int) wire.SubPair {
		s := j.pairs[i]
		return wire.SubPair{Session: s.Session, Sequence: s.Sequence, Version: s.Version}
	}
	return j
}

// put takes the job back. Nothing of it is under way any more.
func (j *copyJob) put() {
	p := j.p
	secondary.ResetOp(&j.read)
	if j.coded != nil {
		j.coded.reset()
	}
	for _, t := range j.targets {
		t.op = store.Op{Done: t.op.Done}
		t.call.Meta, t.call.Payload = nil, t.call.Payload[:0]
	}
	*j = copyJob{p: p, read: j.read, fetch: j.fetch, pairs: j.pairs[:0], meta: j.meta[:0], coded: j.coded, targets: j.targets, addPair: j.addPair, pairAt: j.pairAt, next: p.freeCopy}
	p.freeCopy = j
}

// target is the i-th one.
func (j *copyJob) target(i int) *target {
	if i == len(j.targets) {
		t := &target{j: j}
		t.op.Done = func(*store.Op) { t.stored() }
		t.call.Done = func(*peer.Call) { t.answered() }
		j.targets = append(j.targets, t)
	}
	return j.targets[i]
}

// recover begins to make an object whole.
func (q *PG) recover(obj *pg.Object, background bool) {
	if q.lazy.chains.has(obj.ID) { // what waits for a commit cannot be replaced
		if background {
			q.p.recovering--
		}
		q.p.makeRoom()
		q.resting = append(q.resting, obj.ID)
		q.p.armRetry()
		return
	}
	obj.Recovering = true
	j := q.p.copyJob()
	j.q, j.obj, j.u, j.background, j.moved, j.start = q, obj, *obj.Unclean, background, q.misplacedBy(obj.Unclean), q.p.l.Now()
	if q.coded != nil {
		j.readChunks()
		return
	}
	j.readNext()
}

// readNext reads from the next holder, or goes on without reading when there is nothing to read.
func (j *copyJob) readNext() {
	p := j.p
	if len(j.u.Holders) == 0 && (j.u.Truth.Version == 0 || j.u.Truth.Tombstone) {
		j.write()
		return
	}
	if j.from == len(j.u.Holders) {
		if back := j.u.Back; back != nil && j.unreadable == j.from {
			p.Events.Undone++
			p.l.Log().Warn("a change that was never acknowledged is undone: no copy of it can be read", "pg", j.q.ID.String(), "object", j.u.Object.String(), "holders", j.u.Holders,
				"version", uint64(j.u.Truth.Version), "back_to", uint64(back.Truth.Version))
			j.u, j.from, j.unreadable, j.undone = *back, 0, 0, true
			j.readNext()
			return
		}
		j.fail()
		return
	}
	osd := j.holder()
	j.from, j.asked = j.from+1, osd
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
	own := slices.Index(j.u.Holders, j.p.o.Self)
	switch {
	case own < 0 || j.from > own:
		return j.u.Holders[j.from]
	case j.from == 0:
		return j.p.o.Self
	}
	return j.u.Holders[j.from-1]
}

// isTruth reports whether what was read is what peering saw.
func (j *copyJob) isTruth(v layout.Version, i layout.Interval) bool {
	return v == j.u.Truth.Version && i == j.u.Truth.Interval
}

func (j *copyJob) readLocal() {
	q, op := j.q, &j.read
	j.data, op.Data = op.Data, nil
	switch {
	case q.stopped:
		j.end()
	case op.Err != nil || !j.isTruth(op.State.Version, op.State.Interval):
		if op.Err != nil {
			j.spoiled()
		}
		j.dropData()
		secondary.ResetOp(op)
		j.readNext()
	default:
		j.found, j.bitmap, j.present = true, op.Bitmap, op.Present
		j.pairs = append(j.pairs[:0], op.Pairs...)
		j.write()
	}
	q.end()
}

func (j *copyJob) fetched() {
	c := &j.fetch
	var m wire.SubReply
	answered := c.Err == nil && m.Decode(&c.Reply) == nil
	if answered && !j.q.stopped && (m.Retval == wire.EDOM || m.Retval == wire.EIO) {
		j.spoiled()
	}
	ok := answered && m.Retval >= 0 && j.isTruth(m.Version, m.Written)
	if ok {
		var err error
		j.pairs = j.pairs[:0]
		j.bitmap, j.present, err = wire.ObjectMeta(c.ReplyMeta, j.addPair)
		ok = err == nil
	}
	j.data, c.ReplyData = c.ReplyData, nil
	switch {
	case j.q.stopped:
		j.end()
	case !ok:
		j.dropData()
		j.readNext()
	default:
		j.found = true
		j.write()
	}
}

// spoiled notes that the copy of the holder that was asked cannot be read.
func (j *copyJob) spoiled() {
	j.unreadable++
	j.q.unreadable(j.obj, j.asked)
}

// mend has the members whose copies cannot be read given the object, too.
func (j *copyJob) mend() {
	for _, osd := range j.obj.Corrupted {
		lacks := func(l peering.Lack) bool { return l.OSD == osd }
		if slices.Contains(j.u.Holders, osd) && slices.Contains(j.q.members, osd) && !slices.ContainsFunc(j.u.Lacks, lacks) {
			j.u.Lacks = append(slices.Clip(j.u.Lacks), peering.Lack{OSD: osd, Have: j.u.Truth})
		}
	}
}

// mended counts the copies that could not be read, or were wrong, and are right now.
func (j *copyJob) mended() {
	for _, osd := range j.obj.Corrupted {
		if slices.ContainsFunc(j.u.Lacks, func(l peering.Lack) bool { return l.OSD == osd }) && !planted.MendedUncounted {
			j.p.Events.Mended++
		}
	}
}

func (j *copyJob) dropData() {
	if j.data != nil {
		j.data.Release()
		j.data = nil
	}
}

// write replaces what each lacking member has by the truth.
func (j *copyJob) write() {
	if planted.PairsNotRecovered {
		j.pairs = j.pairs[:0]
	}
	if j.found {
		j.mend()
		j.meta = wire.AppendObjectMeta(j.meta[:0], j.bitmap, j.present, len(j.pairs), j.pairAt)
	}
	j.left = 1
	for i := range j.u.Lacks {
		j.left++
		j.target(i).give(&j.u.Lacks[i])
	}
	j.written(nil)
}

// give sends the object to a member.
func (t *target) give(lack *peering.Lack) {
	j := t.j
	p, q, truth := j.p, j.q, &j.u.Truth
	data := j.data
	if truth.Tombstone {
		data = nil
	}
	t.osd = lack.OSD
	if t.osd == p.o.Self {
		op := &t.op
		op.Object, op.Base, op.BaseInterval, op.Version, op.Interval = j.u.Object, lack.Have.Version, lack.Have.Interval, truth.Version, truth.Interval
		if truth.Tombstone {
			op.Flags = store.Tombstone
		}
		if j.found {
			op.Data, op.Bitmap, op.Present, op.Pairs = data, j.bitmap, j.present, j.pairs
		}
		q.begin()
		p.sec.Replace(q.ID, op)
		return
	}
	c := &t.call
	m := wire.Sub{Op: wire.OpSubReplace, Object: j.u.Object, Base: lack.Have.Version, BaseInterval: lack.Have.Interval, Version: truth.Version, Written: truth.Interval, Grant: q.grant, Meta: len(j.meta)}
	if truth.Tombstone {
		m.Flags = wire.SubTombstone
	}
	if data != nil {
		m.Data = data.Len()
		c.Payload = append(c.Payload[:0], peer.Piece{Ref: data, Len: m.Data})
	}
	c.Meta = j.meta
	m.Encode(&c.Header)
	p.hub.Call(t.osd, c)
}

// void has copies that are newer than the truth voided. Every member has the truth by now, so that it is known without what the stores beside the set have.
func (j *copyJob) void(newer []peering.Lack) {
	j.left = 1
	for i := range newer {
		j.left++
		t, e := j.target(i), &newer[i].Have
		t.osd = newer[i].OSD
		c := &t.call
		c.Meta, c.Payload = wire.AppendSubEntry(nil, wire.SubEntry{Object: e.Object, Version: e.Version, Interval: e.Interval}), c.Payload[:0]
		m := wire.Sub{Op: wire.OpSubVoid, Grant: j.q.grant, Meta: len(c.Meta)}
		m.Encode(&c.Header)
		j.p.hub.Call(t.osd, c)
	}
	j.written(nil)
}

// stored is the completion of our own store's replacement.
func (t *target) stored() {
	q := t.j.q
	t.j.p.sec.Changed(q.ID)
	t.j.written(t.op.Err)
	q.end()
}

// answered is another member's answer.
func (t *target) answered() {
	j, q, osd, object, err := t.j, t.j.q, t.osd, t.j.u.Object, t.call.Err
	if err == nil {
		err = t.call.Reply.Err()
	}
	p := j.p
	j.written(err)
	if err != nil && !q.stopped {
		p.l.Log().Warn("a store failed a replacement, or to void what is undone", "pg", q.ID.String(), "peer", uint64(osd), "object", object.String(), "err", err)
		if err == wire.Errno(wire.ENOSPC) {
			p.backfill[osd] = 0
			p.host.NoRoom(q.ID, osd)
			return
		}
		p.host.Lost(q.ID, osd, false)
	}
}

// written counts one target that has ended; after the last the object is whole, or is tried again.
func (j *copyJob) written(err error) {
	if err != nil && j.err == nil {
		j.err = err
	}
	if j.left--; j.left > 0 {
		return
	}
	p, q := j.p, j.q
	switch {
	case q.stopped:
		j.end()
	case j.err != nil:
		j.fail()
	case len(j.u.Strays) > 0:
		j.removeStrays()
	case len(j.u.Newer) > 0:
		newer := j.u.Newer
		j.u.Newer = nil
		j.void(newer)
	default:
		n, took := 0, p.l.Now().Sub(j.start)
		if j.data != nil || q.coded != nil && j.found && !j.u.Truth.Tombstone {
			n = int(q.Geometry.BlockSize) * len(j.u.Lacks)
		}
		p.Recovery.add(n, took)
		if j.moved {
			p.Moved.add(n, took)
		}
		obj, truth, unfound := j.obj, j.u.Truth, len(q.unfound)
		j.mended()
		q.madeWhole(obj)
		if j.undone && truth.Tombstone {
			q.buried(wire.SubEntry{Object: truth.Object, Version: truth.Version, Interval: truth.Interval})
		}
		j.end()
		q.Table.Whole(obj, truth.Version, truth.Version == 0 || truth.Tombstone)
		if unfound > 0 && len(q.unfound) == 0 {
			p.host.Restated(q.ID)
		}
		if q.left == 0 {
			p.kick()
		}
	}
}

// end is the end of the job, and of its share of background recovery.
func (j *copyJob) end() {
	p := j.p
	if j.background {
		p.recovering--
		p.rest(j.start)
		p.kick()
	}
	j.dropData()
	j.put()
}

// fail puts the object back to be tried again later.
func (j *copyJob) fail() {
	p, q, obj, u, object, err := j.p, j.q, j.obj, j.obj.Unclean, j.u.Object, j.err
	if !q.unfound[object] || err != nil { // of what nobody can give, once
		p.l.Log().Warn("object cannot be recovered now", "pg", q.ID.String(), "object", object.String(), "holders", j.u.Holders, "err", err)
	}
	obj.Recovering = false
	j.end()
	if err == nil {
		q.notFound(u)
		if p.host.Unfound(q.ID); len(q.unfound) == 1 {
			p.host.Restated(q.ID)
		}
		if q.hopeless(obj) {
			obj.Broken = true
			q.Table.Wake(obj) // they are refused
		}
	}
	var base *store.BaseError
	if errors.As(err, &base) {
		// Our copy is not what peering saw. Only peering again can say what is true.
		p.host.Lost(q.ID, p.o.Self, false)
		return
	}
	if err == wire.Errno(wire.ENOSPC) || errors.Is(err, store.ErrNoSpace) {
		q.refuseBlocked(obj)
		if !obj.Blocked() {
			q.hold(object)
			return
		}
	}
	q.resting = append(q.resting, object)
	p.armRetry()
}
