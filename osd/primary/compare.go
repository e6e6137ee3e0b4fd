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

// Scrub of one object (docs/adr/0023-scrub.md): all that the members have of it is read, and compared. Of a replicated object each member tells the checksum of its copy; the chunks of an erasure-coded one come here. Clients
// go on meanwhile: copies of one version that agree are right whatever is written beside it. Only when something is wrong it is looked at again, with changes of the object waiting; what is decided, is decided
// of what was read then.

// ScrubStat sums up scrub since the start.
type ScrubStat struct {
	Objects      uint64 // compared
	Bytes        uint64 // read for that, of all copies
	Bad          uint64 // copies that could not be read, or were found to be wrong
	Inconsistent uint64 // objects that were found to be inconsistent
}

// Compared is what comparing an object's copies has found.
type Compared struct {
	Found wire.Found
	Bytes uint64 // read, of all copies
	Bad   int    // copies that are wrong
	// Over says that nothing was found, because the PG is not served any more in that interval, or a member could not be asked.
	Over bool
}

// comparison is one object whose copies are being compared. Comparisons are used again.
type comparison struct {
	p    *Primary
	q    *PG
	id   layout.ObjectID
	done func(Compared)

	tries   int
	turn    bool // we have the erasure-coded object for ourselves,
	alone   bool // and no change of the object is under way, nor will be
	waiter  pg.Waiter
	version layout.Version  // that is compared,
	written layout.Interval // and the interval that wrote it
	looks   []*look         // by role; of replicated objects in the order of PG.members. As many as there are roles or members; they are made when they are needed
	left    int
	bytes   uint64
	next    *comparison
}

// look is what one member has.
type look struct {
	c    *comparison
	osd  layout.OSDNum // 0: nobody has that role
	op   store.Op
	call peer.Call

	errno   int64
	version layout.Version
	written layout.Interval
	sum     uint32
	data    *buf.Ref // of a chunk
	bitmap  []byte
}

// readable reports whether a copy could be read.
func (k *look) readable() bool { return k.osd != 0 && k.errno == 0 }

// unreadable reports whether a copy is there and cannot be read.
func (k *look) unreadable() bool { return k.errno == wire.EDOM || k.errno == wire.EIO }

// Compare compares what the members of a PG that we serve have of an object, and has what is wrong made anew. done is called later.
func (p *Primary) Compare(pgid layout.PGID, id layout.ObjectID, done func(Compared)) {
	c := p.freeComparison
	if c == nil {
		c = &comparison{p: p}
	} else {
		p.freeComparison, c.next = c.next, nil
	}
	c.q, c.id, c.done = p.pgs[pgid], id, done
	c.begin()
}

// put ends the comparison. Nothing of it is under way any more.
func (c *comparison) put(found Compared) {
	p, done := c.p, c.done
	found.Bytes = c.bytes
	for _, k := range c.looks {
		k.forget()
	}
	if !found.Over {
		s := &p.Scrubbed
		s.Bytes += c.bytes
		s.Bad += uint64(found.Bad)
		if found.Found != wire.FoundUnclean && found.Found != wire.FoundNothing {
			s.Objects++
		}
		if found.Found == wire.FoundInconsistent {
			s.Inconsistent++
		}
	}
	*c = comparison{p: p, looks: c.looks, next: p.freeComparison}
	p.freeComparison = c
	done(found)
}

func (k *look) forget() {
	if k.data != nil {
		k.data.Release()
		k.data = nil
	}
	secondary.ResetOp(&k.op)
	k.osd, k.errno, k.version, k.written, k.sum, k.bitmap = 0, 0, 0, 0, 0, k.bitmap[:0]
}

// begin looks for the first time, and again.
func (c *comparison) begin() {
	p, q := c.p, c.q
	if q == nil || q.stopped || !q.valid() {
		c.put(Compared{Over: true})
		return
	}
	obj := q.Table.Get(c.id)
	if obj != nil && obj.Recovering && !c.alone {
		c.wait(c.begin)
		obj.Block(&c.waiter)
		return
	}
	if c.alone && obj.Changing() {
		c.wait(c.begin)
		obj.Await(&c.waiter, obj.Last)
		return
	}
	if obj != nil && obj.Unclean != nil && !obj.Inconsistent {
		c.end(obj, q.notWhole(obj))
		return
	}
	if obj != nil && obj.Inconsistent && !c.alone {
		c.takeTurn()
		return
	}
	if obj != nil && obj.Unclean != nil {
		c.version, c.written = obj.Unclean.Truth.Version, obj.Unclean.Truth.Interval
		c.look(obj.Unclean)
		return
	}
	own, _ := p.st.State(q.mine(c.id))
	c.version, c.written = own.Version, own.Interval
	if q.coded != nil {
		c.version = q.committed(c.id)
	}
	gone := own.Version == 0 || own.Flags&store.Tombstone != 0
	if changing := obj != nil && obj.Changing(); gone && !changing || c.version == 0 {
		c.end(obj, Compared{Found: wire.FoundNothing})
		return
	}
	c.look(nil)
}

// notWhole is what is said of an object that is not compared: it is about to be made whole, or cannot be. As long as the record names others than the present set one of them may have it.
func (q *PG) notWhole(obj *pg.Object) Compared {
	if obj.Broken && q.clean {
		return Compared{Found: wire.FoundLost}
	}
	return Compared{Found: wire.FoundUnclean}
}

func (c *comparison) wait(then func()) { c.waiter = pg.Waiter{Wake: then} }

// takeTurn has no change of the object begun any more, and looks again when those under way are over.
func (c *comparison) takeTurn() {
	q := c.q
	if q.stopped || !q.valid() {
		c.put(Compared{Over: true})
		return
	}
	obj := q.open(c.id)
	c.wait(c.takeTurn)
	switch {
	case obj.Recovering:
		obj.Block(&c.waiter)
		return
	case obj.Unclean != nil && !obj.Inconsistent:
		c.end(obj, q.notWhole(obj))
		return
	case q.coded != nil && !c.turn:
		if !obj.TakeTurn(&c.waiter) {
			return
		}
		c.turn = true
	}
	obj.Recovering, c.alone = true, true
	c.begin()
}

// at is the i-th look.
func (c *comparison) at(i int) *look {
	for len(c.looks) <= i {
		k := &look{c: c}
		k.op.Done = func(*store.Op) { k.stored() }
		k.call.Done = func(*peer.Call) { k.answered() }
		c.looks = append(c.looks, k)
	}
	return c.looks[i]
}

// look asks every member; of an object that is inconsistent, everybody who was found to have it.
func (c *comparison) look(u *peering.Unclean) {
	p, q := c.p, c.q
	for _, k := range c.looks {
		k.forget()
	}
	members := q.members
	switch {
	case u != nil && q.coded != nil:
		members = make([]layout.OSDNum, len(q.coded.roles))
		for _, k := range u.Chunks {
			members[k.Role] = k.OSD
		}
	case u != nil:
		members = u.Holders
	case q.coded != nil:
		members = q.coded.roles
	}
	c.left = 1
	for i, osd := range members {
		k := c.at(i)
		if k.osd = osd; osd == 0 {
			continue
		}
		c.left++
		switch {
		case q.coded != nil:
			m := wire.SubReadRange{Object: chunk(c.id, i), AtMost: c.version, Len: q.Geometry.BlockSize, Grant: q.grant}
			if osd == p.o.Self {
				q.begin()
				p.sec.ReadRange(&k.op, &m)
				continue
			}
			m.Encode(&k.call.Header)
		case osd == p.o.Self:
			k.op.Kind, k.op.Object = store.OpReadObject, c.id
			q.begin()
			p.st.Submit(&k.op)
			continue
		default:
			m := wire.Sub{Op: wire.OpSubDigest, Object: c.id, Grant: q.grant}
			m.Encode(&k.call.Header)
		}
		p.hub.Call(osd, &k.call)
	}
	c.looked()
}

// stored is what our own store has.
func (k *look) stored() {
	c, op := k.c, &k.op
	q := c.q
	k.errno, k.version, k.written = secondary.Retval(op.Err), op.State.Version, op.State.Interval
	switch {
	case op.Err != nil:
	case q.coded != nil:
		k.data, op.Data = op.Data, nil
		k.bitmap = append(k.bitmap[:0], op.Bitmap...)
	default:
		k.sum = secondary.Digest(op)
	}
	if op.Data != nil {
		op.Data.Release()
		op.Data = nil
	}
	c.looked()
	q.end()
}

// answered is what another member says.
func (k *look) answered() {
	c, call := k.c, &k.call
	q := c.q
	var m wire.SubReply
	switch {
	case call.Err != nil:
		k.errno = wire.EPIPE
	case m.Decode(&call.Reply) != nil:
		k.errno = wire.EINVAL
	case m.Retval < 0:
		k.errno = m.Retval
	case q.coded != nil:
		k.version, k.written = m.Version, m.Written
		k.data, call.ReplyData = call.ReplyData, nil
		k.bitmap = append(k.bitmap[:0], call.ReplyMeta...)
		if k.data == nil || k.data.Len() != int(q.Geometry.BlockSize) || len(k.bitmap) != q.Geometry.BitmapLen() {
			k.errno = wire.EINVAL
		}
	default:
		k.version, k.written = m.Version, m.Written
		var ok bool
		if k.sum, ok = wire.Digest(call.ReplyMeta); !ok {
			k.errno = wire.EINVAL
		}
	}
	if call.ReplyData != nil {
		call.ReplyData.Release()
		call.ReplyData = nil
	}
	c.looked()
}

// looked counts one that was asked; after the last it is decided.
func (c *comparison) looked() {
	if c.left--; c.left > 0 {
		return
	}
	q := c.q
	if q.stopped || !q.valid() {
		c.put(Compared{Over: true})
		return
	}
	obj := q.Table.Get(c.id)
	for _, k := range c.looks {
		if k.readable() {
			c.bytes += uint64(q.Geometry.BlockSize)
		}
	}
	for _, k := range c.looks {
		switch {
		case k.osd == 0 || k.unreadable():
		case k.errno != 0 && !slices.Contains(q.members, k.osd):
			k.osd = 0 // was heard in peering, and is away
		case k.errno != 0 && k.errno != wire.EAGAIN:
			// Whoever cannot be asked is not a member for long.
			c.end(obj, Compared{Over: true})
			return
		case planted.ScrubUnordered && k.errno == 0:
		case k.errno != 0 || k.version != c.version || k.written != c.written:
			c.differ(obj, k)
			return
		}
	}
	d := c.decide()
	switch {
	case d.found == wire.FoundSame && (obj == nil || !obj.Inconsistent):
		c.end(obj, Compared{})
	case !c.alone && !planted.ScrubUnordered:
		c.takeTurn()
	default:
		c.settle(obj, d)
	}
}

// differ is called when a member has another version: a change is under way, as a rule.
func (c *comparison) differ(obj *pg.Object, k *look) {
	p, q := c.p, c.q
	if c.tries++; c.tries < 3 && !c.alone {
		c.begin()
		return
	}
	if !c.alone {
		c.takeTurn()
		return
	}
	if q.coded != nil && c.tries < 8 {
		c.begin() // a version on its way out
		return
	}
	p.l.Log().Error("a member has another version of an object than we have, and nobody changes it", "pg", q.ID.String(), "peer", uint64(k.osd), "object", c.id.String(),
		"version", uint64(k.version), "want", uint64(c.version), "retval", k.errno)
	id, osd := q.ID, k.osd
	c.end(obj, Compared{Over: true})
	p.host.Lost(id, osd, false)
}

// end lets the object go, and ends the comparison.
func (c *comparison) end(obj *pg.Object, found Compared) {
	q, turn, alone := c.q, c.turn, c.alone
	id := c.id
	if alone && obj != nil {
		if obj.Recovering = false; obj.Unclean == nil {
			q.Table.Whole(obj, obj.Last, obj.Gone)
		} else {
			q.release(obj)
		}
	}
	if obj = q.Table.Get(id); turn && obj != nil && !q.stopped {
		q.Table.EndTurn(obj)
	}
	c.put(found)
}

// release lets those go on who waited for an object that is not whole: what can be made whole is, what cannot is refused.
func (q *PG) release(obj *pg.Object) {
	switch {
	case obj.Inconsistent || obj.Broken:
		q.Table.Wake(obj)
	case obj.Blocked():
		q.recoverNow(obj)
	default:
		q.enqueue(obj.Unclean)
		q.p.kick()
	}
}

// decision is which looks are right and which wrong.
type decision struct {
	found wire.Found
	good  []*look
	bad   []*look // unreadable, or known to be wrong
}

// decide compares what was read.
func (c *comparison) decide() (d decision) {
	var wrong []layout.OSDNum // as an operator has said
	if obj := c.q.Table.Get(c.id); obj != nil && obj.Inconsistent {
		wrong = obj.Corrupted
	}
	for _, k := range c.looks {
		switch {
		case k.osd == 0:
		case k.unreadable() || slices.Contains(wrong, k.osd):
			d.bad = append(d.bad, k)
		default:
			d.good = append(d.good, k)
		}
	}
	if c.q.coded != nil {
		c.decideChunks(&d)
		return d
	}
	if len(d.good) == 0 {
		d.found = wire.FoundLost
		return d
	}
	var most []*look
	for _, k := range d.good {
		same := slices.DeleteFunc(slices.Clone(d.good), func(o *look) bool { return o.sum != k.sum })
		if len(same) > len(most) || planted.ScrubTrustsWrong && len(same) < len(most) {
			most = same
		}
	}
	switch {
	case len(most) == len(d.good) && len(d.bad) == 0:
	case len(most) == len(d.good):
		d.found = wire.FoundBad
	case (2*len(most) > len(d.good) || planted.ScrubTrustsWrong) && c.p.tuning.Scrub.FindBest:
		for _, k := range d.good {
			if k.sum != most[0].sum {
				d.bad = append(d.bad, k)
			}
		}
		d.good, d.found = most, wire.FoundBad
	default:
		d.found = wire.FoundInconsistent
	}
	return d
}

// role is that of a look at a chunk.
func (c *comparison) role(k *look) int { return slices.Index(c.looks, k) }

// decideChunks compares chunks.
func (c *comparison) decideChunks(d *decision) {
	code := c.q.coded
	present := ec.Set(0)
	data, bits := make([][]byte, len(code.roles)), make([][]byte, len(code.roles))
	for _, k := range d.good {
		role := c.role(k)
		present |= ec.SetOf(role)
		data[role], bits[role] = k.data.Bytes(), k.bitmap
	}
	if len(d.bad) > 0 {
		d.found = wire.FoundBad
	}
	switch n := present.Len(); {
	case n < code.k:
		d.found = wire.FoundLost
		return
	case n == code.k:
		return // nothing to compare them with
	}
	same, err := code.code.Verify(data, present)
	if err == nil && same {
		same, err = code.code.Verify(bits, present)
	}
	if err == nil && same {
		return
	}
	d.found = wire.FoundInconsistent
	if err != nil || !c.p.tuning.Scrub.FindBest {
		return
	}
	wrong, ok := findWrong(code.code, data, bits, present, c.p.tuning.Scrub.MaxCombinations)
	if !ok {
		return
	}
	good := d.good
	d.found, d.good = wire.FoundBad, nil
	for _, k := range good {
		if wrong.Has(c.role(k)) {
			d.bad = append(d.bad, k)
		} else {
			d.good = append(d.good, k)
		}
	}
}

// findWrong finds the chunks that are wrong, if there is one answer only: first by the code's own power, which finds half as many as there are to spare; then, as nothing but a wrong chunk makes the others agree over
// a whole block, by leaving out more of them, up to one less than there are to spare, in at most so many combinations.
func findWrong(code *ec.Code, data, bits [][]byte, present ec.Set, most int) (wrong ec.Set, ok bool) {
	all := make([][]byte, len(data)) // with the bitmap behind the data: a chunk is right as a whole or not at all
	for rest := present; rest != 0; rest &= rest - 1 {
		i := rest.First()
		all[i] = slices.Concat(data[i], bits[i])
	}
	if wrong, err := code.FindBad(all, present); err == nil {
		return wrong, true
	}
	k := code.K()
	for n := (present.Len()-k)/2 + 1; n < present.Len()-k; n++ {
		found := 0
		for out := range combinations(present, n) {
			if most--; most < 0 {
				return 0, false
			}
			if same, err := code.Verify(all, present&^out); err == nil && same {
				found++
				wrong = out
			}
		}
		if found > 0 {
			return wrong, found == 1
		}
	}
	return 0, false
}

// combinations are the subsets of a set that have n chunks.
func combinations(of ec.Set, n int) func(yield func(ec.Set) bool) {
	return func(yield func(ec.Set) bool) {
		var choose func(from, have ec.Set, n int) bool
		choose = func(from, have ec.Set, n int) bool {
			if n == 0 {
				return yield(have)
			}
			for rest := from; rest.Len() >= n; rest &= rest - 1 {
				if !choose(rest&(rest-1), have|rest&-rest, n-1) {
					return false
				}
			}
			return true
		}
		choose(of, 0, n)
	}
}

// settle notes what was decided while the object was ours alone, and has what is wrong made anew.
func (c *comparison) settle(obj *pg.Object, d decision) {
	p, q := c.p, c.q
	if d.found == wire.FoundSame && len(obj.Unclean.Lacks)+len(obj.Unclean.Newer)+len(obj.Unclean.Strays) == 0 {
		// It was inconsistent, and is not any more.
		q.madeWhole(obj)
		obj.Unclean = nil
		c.end(obj, Compared{})
		p.host.Restated(q.ID)
		p.kick()
		return
	}
	truth := peering.Entry{Object: c.id, Version: c.version, Interval: c.written}
	u := &peering.Unclean{Object: c.id, Truth: truth}
	hold := func(k *look) {
		u.Holders = append(u.Holders, k.osd)
		if q.coded != nil {
			u.Chunks = append(u.Chunks, peering.Chunk{OSD: k.osd, Role: c.role(k)})
		}
	}
	if obj.Unclean != nil { // what members lack besides
		for _, l := range obj.Unclean.Lacks {
			if l.Have.Version != c.version || l.Have.Interval != c.written {
				u.Lacks = append(u.Lacks, l)
			}
		}
		u.Newer, u.Strays = obj.Unclean.Newer, obj.Unclean.Strays
	}
	if planted.RepairFromBad && d.found == wire.FoundBad {
		d.good, d.bad = d.bad, d.good
	}
	var on []layout.OSDNum
	for _, k := range d.good {
		hold(k)
	}
	for _, k := range d.bad {
		on = append(on, k.osd)
		if d.found != wire.FoundBad {
			hold(k) // perhaps another time it can be read
			continue
		}
		if !slices.Contains(q.members, k.osd) {
			continue
		}
		have := truth
		if q.coded != nil {
			have.Object = chunk(c.id, c.role(k))
		}
		u.Lacks = append(u.Lacks, peering.Lack{OSD: k.osd, Have: have})
	}
	if obj.Unclean != nil {
		q.forgetDispute(obj)
	}
	q.spoil(obj, u, on...)
	var names []uint64
	for _, osd := range on {
		names = append(names, uint64(osd))
	}
	found := Compared{Found: d.found, Bad: len(d.bad)}
	log := p.l.Log().With("pg", q.ID.String(), "object", c.id.String(), "version", uint64(c.version), "wrong_on", names)
	switch d.found {
	case wire.FoundInconsistent:
		log.Error("copies of an object differ, and nobody knows which are right; it is not served until `holdfast fix` says which are wrong, or it is written anew")
		q.disputed(obj, true)
	case wire.FoundLost:
		log.Error("too few copies of an object can be read")
		q.broken(obj)
	case wire.FoundBad:
		log.Warn("copies of an object are wrong, and are made anew from the others")
	}
	c.end(obj, found)
	p.host.Restated(q.ID)
}

// forgetDispute takes an inconsistent object out of the counts, as what is known of it is about to be replaced.
func (q *PG) forgetDispute(obj *pg.Object) {
	done := q.meter.done
	q.madeWhole(obj)
	q.meter.done = done
	obj.Unclean, obj.Inconsistent, obj.Corrupted = nil, false, nil
}

// broken notes that too few copies of an object can be read. That is tried again all the same: a disk may read today what it did not read yesterday.
func (q *PG) broken(obj *pg.Object) {
	obj.Broken = true
	q.notFound(obj.Unclean)
	q.resting = append(q.resting, obj.ID)
	q.p.armRetry()
}

// hopeless reports whether it is known of so many copies of an object that they cannot be read that the rest is too few.
func (q *PG) hopeless(o *pg.Object) bool {
	u := o.Unclean
	if len(o.Corrupted) == 0 || u.Truth.Version == 0 || u.Truth.Tombstone {
		return false
	}
	if q.coded == nil {
		return !slices.ContainsFunc(u.Holders, func(osd layout.OSDNum) bool { return !slices.Contains(o.Corrupted, osd) })
	}
	readable := ec.Set(0)
	for _, c := range u.Chunks {
		if !slices.Contains(o.Corrupted, c.OSD) {
			readable |= ec.SetOf(c.Role)
		}
	}
	return readable.Len() < q.coded.k
}

// Scrub answers SCRUB: one object, by any byte of it.
func (p *Primary) Scrub(r *peer.Request) {
	var m wire.ReadWrite
	if m.Decode(&r.Header) != nil || m.Inode.Num() == 0 {
		r.Fail(wire.EINVAL)
		return
	}
	g, err := p.host.Snapshot().Geometry(m.Inode.Pool())
	if err != nil || g.PGCount == 0 {
		r.Fail(wire.EPIPE)
		return
	}
	stripe := g.Stripe(m.Offset)
	p.Compare(layout.PGID{Pool: m.Inode.Pool(), Num: g.PG(stripe)}, layout.ObjectID{Inode: m.Inode, Stripe: stripe}, func(found Compared) { p.compared(r, wire.OpScrub, found) })
}

// compared tells a client what was found.
func (p *Primary) compared(r *peer.Request, op wire.Opcode, found Compared) {
	if found.Over {
		r.Fail(wire.EPIPE)
		return
	}
	var h wire.Header
	m := wire.ScrubReply{Op: op, Bytes: found.Bytes, Found: found.Found, Bad: uint32(found.Bad)}
	m.Encode(&h)
	r.Reply(&h, nil, nil)
}
