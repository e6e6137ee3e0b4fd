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

// op is one client request under way.
type op struct {
	p     *Primary
	q     *PG
	r     *peer.Request
	code  wire.Opcode
	id    layout.ObjectID
	off   uint32
	len   uint32
	kind  wire.ChangeKind
	cas   uint64 // version to be made, 0 unconditional
	mine  uint64 // of a replay: the newest version of the object that the client has made
	meta  uint64 // revision of the image's configuration that the client knows, 0 unconditional
	trail wire.Trailer
	lazy  bool // the client keeps a copy of the change until it has synced it,
	again bool // and this is that copy
	how   store.Laziness
	start loop.Instant

	waiter pg.Waiter
	waits  *pg.Object // that has to be whole first
	sop    store.Op
	resend loop.Timer // of sop, when our store has no room for what waits for commits
	ch     pg.Change
	place  place           // of ch, for the members
	right  secondary.Right // of a read that we answer as a member
	data   *buf.Ref        // of a write; ours until the op is put back
	calls  []*call
	left   int // members that have not answered
	failed bool
	full   bool // a member refused the change for lack of space,
	later  bool // or for so many versions that wait there for their commits that it begins anew later
	sent   loop.Instant
	afresh loop.Timer // when that is
	anews  int        // how often it was
	taking bool       // it is counted in Primary.taking
	sure   bool       // the members have confirmed their grants since the request came
	synced bool       // what was acknowledged before the request came is durable
	unsure func(ok bool)
	x      *coded // in erasure-coded pools; made when it is needed
	joined *op    // requests repeated by the client while the first try is under way
	next   *op

	watched secondary.Watched[*op]
}

// call is one sub-operation under way to another member.
type call struct {
	c     peer.Call
	op    *op
	osd   layout.OSDNum
	again loop.Timer
}

func (p *Primary) get() *op {
	o := p.free
	if o == nil {
		o = &op{p: p}
		o.waiter.Wake = o.admit
		o.sop.Done = func(*store.Op) { o.stored() }
		o.resend.Fire = o.storeAgain
		o.afresh.Fire = o.admit
		o.unsure = o.confirmed
		o.ch.Owner, o.ch.Committed = o, o.committed
	} else {
		p.free, o.next = o.next, nil
	}
	o.start = p.l.Now()
	p.slow.Begin(&o.watched, o)
	return o
}

func (p *Primary) put(o *op) {
	if planted.ReplyEarly && o.left > 0 {
		o.r = nil
		return
	}
	if o.data != nil {
		o.data.Release()
		o.data = nil
	}
	if o.x != nil {
		o.x.release()
		o.x.reset()
	}
	secondary.ResetOp(&o.sop)
	p.slow.End(&o.watched)
	if o.taking {
		p.taken()
	}
	o.right = secondary.Right{}
	o.full, o.later, o.taking, o.anews = false, false, false, 0
	o.q, o.r, o.joined, o.waits, o.failed, o.sure, o.lazy, o.again, o.synced = nil, nil, nil, nil, false, false, false, false, false
	o.next, p.free = p.free, o
}

// Request takes READ, WRITE, DELETE, ZERO or SYNC of a client.
func (p *Primary) Request(r *peer.Request) {
	code := r.Header.Op()
	if code == wire.OpSync {
		o := p.get()
		o.r, o.code = r, code
		p.sync(o)
		return
	}
	var inode layout.Inode
	var offset, revision uint64
	o := p.get()
	o.r, o.code = r, code
	if code == wire.OpZero {
		var m wire.Zero
		if m.Decode(&r.Header) != nil {
			p.refuse(o, wire.EINVAL)
			return
		}
		inode, offset, o.len, o.cas, o.trail = m.Inode, m.Offset, m.Len, m.Version, m.Trailer
		o.kind = wire.ChangeHole
		o.keeps(m.Flags)
		if m.Flags&wire.ZeroKeepWritten != 0 {
			o.kind = wire.ChangeZero
		}
	} else {
		var m wire.ReadWrite
		if m.Decode(&r.Header) != nil {
			p.refuse(o, wire.EINVAL)
			return
		}
		inode, offset, o.len, o.cas, o.trail, revision = m.Inode, m.Offset, m.Len, m.Version, m.Trailer, m.MetaRevision
		o.keeps(m.Flags)
		o.kind = wire.ChangeWrite
		if code == wire.OpDelete {
			o.kind = wire.ChangeDelete
		}
	}
	g, err := p.host.Snapshot().Geometry(inode.Pool())
	if err != nil || g.PGCount == 0 {
		p.refuse(o, wire.EPIPE)
		return
	}
	stripe := g.Stripe(offset)
	o.id = layout.ObjectID{Inode: inode, Stripe: stripe}
	o.off = uint32(offset - stripe)
	if o.off%g.Granularity != 0 || o.len%g.Granularity != 0 || uint64(o.off)+uint64(o.len) > g.ObjectSize() || inode.Num() == 0 {
		p.refuse(o, wire.EINVAL)
		return
	}
	id := layout.PGID{Pool: inode.Pool(), Num: g.PG(stripe)}
	q := p.pgs[id]
	if q == nil && code == wire.OpRead {
		o.meta = revision
		o.local(id)
		return
	}
	if q == nil || !q.valid() {
		p.refuse(o, wire.EPIPE)
		return
	}
	o.q, o.meta = q, revision
	switch {
	case code == wire.OpRead:
	case code == wire.OpDelete:
		o.off, o.len = 0, 0
	case o.len == 0:
		p.refuse(o, wire.EINVAL)
		return
	case o.kind == wire.ChangeWrite:
		o.data = r.TakeData()
		if o.data == nil || o.data.Len() != int(o.len) {
			p.refuse(o, wire.EINVAL)
			return
		}
	case o.kind == wire.ChangeHole && uint64(o.len) == g.ObjectSize():
		o.kind, o.off, o.len = wire.ChangeDelete, 0, 0
	}
	o.admit()
}

// keeps takes over what the client's flags say of copies that it keeps.
func (o *op) keeps(flags uint32) {
	if o.trail.Session == 0 {
		return // a stock client: its flags are its own
	}
	o.lazy = flags&wire.FlagLazy != 0
	if o.again = flags&wire.FlagReplay != 0; o.again {
		o.mine, o.cas = o.cas, 0
	}
}

// checkInode applies what the image's configuration says.
func (p *Primary) checkInode(o *op, inode layout.Inode, revision uint64) int64 {
	i, ok := p.host.Snapshot().Inode(inode)
	own := uint64(0)
	if ok {
		own = uint64(i.Mod)
	}
	if o.code == wire.OpRead {
		switch {
		case revision != 0 && revision != own:
			return wire.EPIPE
		case ok && bool(i.Deleted):
			return wire.EPIPE
		}
		return 0
	}
	switch {
	case revision > own:
		return wire.EPIPE // we have not heard yet of what the client knows
	case !ok:
		return 0
	case bool(i.Deleted):
		if o.code == wire.OpDelete {
			return 0
		}
		return wire.EROFS
	case bool(i.ReadOnly):
		return wire.EROFS
	}
	return 0
}

// admit begins or, after waiting for the object to be whole, goes on.
func (o *op) admit() {
	p, q := o.p, o.q
	o.waits = nil
	if q.stopped || !q.valid() {
		p.refuse(o, wire.EPIPE)
		return
	}
	// After a wait too: the image may have been frozen or deleted meanwhile.
	if errno := p.checkInode(o, o.id.Inode, o.meta); errno != 0 {
		p.refuse(o, errno)
		return
	}
	obj := q.Table.Get(o.id)
	if obj != nil && obj.Unclean != nil && !obj.Recovering && (obj.Inconsistent || obj.Broken) && !(planted.InconsistentServed && obj.Inconsistent && o.code == wire.OpRead) {
		if !o.anew(obj) {
			p.refuse(o, wire.EIO)
			return
		}
		o.change()
		return
	}
	if obj != nil && (obj.Unclean != nil || obj.Recovering) && !(planted.InconsistentServed && obj.Inconsistent && o.code == wire.OpRead) && !(planted.UncleanServed && o.code == wire.OpRead) && !(planted.UncleanChanged && o.code != wire.OpRead) {
		p.Events.Blocked++
		o.block(obj)
		q.recoverNow(obj)
		return
	}
	if o.code == wire.OpRead && q.coded != nil {
		o.readCoded()
		return
	}
	if o.code == wire.OpRead {
		q.begin()
		o.sop.Kind, o.sop.Object, o.sop.Offset, o.sop.Len = store.OpRead, o.id, o.off, o.len
		p.st.Submit(&o.sop)
		return
	}
	o.change()
}

// anew reports whether o needs nothing of what is there of its object, and can be made whatever each member has.
func (o *op) anew(obj *pg.Object) bool {
	u := obj.Unclean
	whole := o.kind == wire.ChangeDelete || o.off == 0 && uint64(o.len) == o.q.Geometry.ObjectSize()
	return o.code != wire.OpRead && whole && len(u.Newer)+len(u.Strays) == 0 && u.Back == nil && !slices.ContainsFunc(u.Lacks, func(l peering.Lack) bool { return l.Have.Void || l.Have.Unstable })
}

// baseOn is what a member has of the object now, when o is about to make it anew; base is what it is to have.
func (o *op) baseOn(obj *pg.Object, osd layout.OSDNum, base layout.Version) layout.Version {
	if obj.Unclean != nil {
		for i := range obj.Unclean.Lacks {
			if l := &obj.Unclean.Lacks[i]; l.OSD == osd {
				return l.Have.Version
			}
		}
	}
	return base
}

// block has o admitted again when an object is whole, which it lets go if it had it for itself.
func (o *op) block(obj *pg.Object) {
	o.waits = obj
	obj.Block(&o.waiter)
	if o.x != nil {
		o.x.release()
		o.x.reset()
	}
}

// Gone says that a client's connection has ended: what it has waiting for objects to be whole is dropped with its data. Some objects may not be whole for days, and the client comes again.
func (p *Primary) Gone(c *peer.Incoming) {
	var list []*op // a rare path: may allocate
	p.slow.All(func(o *op) {
		if o.waits != nil && o.r.From == c {
			o.waiter.Left = true
			list = append(list, o)
		}
	})
	for _, o := range list {
		if o.waiter.Left {
			o.waits.Unblock()
		}
	}
	for _, o := range list {
		p.refuse(o, wire.EPIPE)
	}
}

func (p *Primary) refuse(o *op, errno int64) {
	p.count(o, 0)
	for j := o.joined; j != nil; {
		next := j.joined
		j.joined = nil
		p.refuse(j, errno)
		j = next
	}
	o.r.Fail(errno)
	p.put(o)
}

func (p *Primary) count(o *op, bytes uint32) {
	s := &p.stats[o.code&63]
	s.Count++
	s.Usec += uint64(p.l.Now().Sub(o.start).Microseconds())
	s.Bytes += uint64(bytes)
}

// stored is the completion of our own store's operation.
func (o *op) stored() {
	if o.q == nil {
		o.localDone()
		return
	}
	if o.code == wire.OpRead {
		o.q.end()
		o.readDone()
		return
	}
	q := o.q
	err := o.sop.Err
	waiting := q.coded != nil && !q.stopped && errors.Is(err, store.ErrWaiting)
	if waiting && !o.yields() {
		o.p.l.Arm(&o.resend, o.p.l.Now().Add(roomPause))
		return
	}
	o.p.sec.Changed(q.ID)
	switch {
	case err == nil || waiting:
		o.member()
	case q.coded != nil && !q.stopped && errors.Is(err, store.ErrNoSpace):
		o.full = !planted.FullIgnored
		o.member()
	default:
		o.failed = true
		o.member()
		if !q.stopped {
			o.p.host.Lost(q.ID, o.p.o.Self, secondary.Retval(err) == wire.ENOSPC)
		}
	}
	q.end()
}

// storeAgain gives our store a change for which it had no room when so much waited for commits. Nobody else has been granted the PG meanwhile.
func (o *op) storeAgain() {
	if o.q.stopped {
		o.stored() // as refused
		return
	}
	o.p.st.Submit(&o.sop)
}

// readDone looks at what the store brought: data that is not on every member yet waits until it is.
func (o *op) readDone() {
	p, q := o.p, o.q
	switch {
	case (q.stopped || !q.valid()) && !planted.GrantNotRechecked:
		o.dropData()
		p.refuse(o, wire.EPIPE)
		return
	case o.sop.Err != nil:
		o.dropData()
		o.readFailed()
		return
	}
	if obj := q.Table.Get(o.id); obj != nil && obj.Changing() && o.seen(obj) > obj.Committed() && !planted.ReadUncommitted {
		p.Events.ReadWaits++
		obj.Await(&o.waiter, o.seen(obj))
		o.waiter.Wake = o.readDoneAgain
		return
	}
	if !o.isSure() {
		return
	}
	if b := p.o.Probe; b != nil {
		b.Read(q.ID, q.Interval, o.id, o.sees())
	}
	o.replyRead()
}

// sees is the version of the object that was read, as clients see it.
func (o *op) sees() layout.Version {
	return visible(o.sop.State.Version, o.sop.State.Flags&store.Tombstone != 0)
}

// replyRead answers a read with what the store brought.
func (o *op) replyRead() {
	p := o.p
	m := wire.ReadWriteReply{Op: wire.OpRead, Retval: int64(o.len), Version: uint64(o.sees()), BitmapLen: uint32(len(o.sop.Bitmap))}
	var h wire.Header
	m.Encode(&h)
	if o.sop.Data != nil {
		p.reply1(o.r, &h, o.sop.Bitmap, peer.Piece{Ref: o.sop.Data, Len: int(o.len)})
	} else {
		o.r.Reply(&h, o.sop.Bitmap, nil)
	}
	o.dropData()
	p.count(o, o.len)
	p.put(o)
}

// isSure reports whether our own copy may speak. If that has to be confirmed by the members, it asks them all: an interval without us needs only some of them. The operation then goes on by
// itself.
func (o *op) isSure() bool {
	p, q := o.p, o.q
	if !p.o.LockConfirm || o.sure || len(q.others) == 0 {
		return true
	}
	o.left, o.failed = len(q.others), false
	for _, osd := range q.others {
		p.host.Confirm(osd, o.unsure)
	}
	return false
}

// confirmed is one member's answer. After the last the operation looks at what it was about to say again.
func (o *op) confirmed(ok bool) {
	o.failed = o.failed || !ok
	if o.left--; o.left > 0 {
		return
	}
	failed := o.failed
	o.failed, o.sure = false, true
	switch {
	case failed:
		o.dropData()
		o.p.refuse(o, wire.EPIPE)
	case o.code == wire.OpRead && o.q.coded != nil:
		o.codedRead()
	case o.code == wire.OpRead:
		o.readDone()
	default:
		o.admit()
	}
}

// seen is a version that the data read may be of, and is not older than it: a deletion reads as version 0, whichever it is.
func (o *op) seen(obj *pg.Object) layout.Version {
	if o.sop.State.Flags&store.Tombstone == 0 {
		return o.sop.State.Version
	}
	if v, ok := o.p.st.State(o.id); ok {
		return min(v.Version, obj.Last)
	}
	return obj.Last
}

func (o *op) readDoneAgain() {
	o.waiter.Wake = o.admit
	o.readDone()
}

func (p *Primary) reply1(r *peer.Request, h *wire.Header, meta []byte, piece peer.Piece) {
	pieces := [1]peer.Piece{piece}
	r.Reply(h, meta, pieces[:])
}

func (o *op) dropData() {
	if o.sop.Data != nil {
		o.sop.Data.Release()
		o.sop.Data = nil
	}
}

// readFailed is a read that our own copy could not serve: another member's copy is put in its place first, if there is one.
func (o *op) readFailed() {
	p, q := o.p, o.q
	obj := q.open(o.id)
	if obj.Unclean == nil && !obj.Recovering {
		if obj.Changing() {
			p.refuse(o, wire.EPIPE)
			return
		}
		s, _ := p.st.State(o.id)
		p.Events.Repaired++
		p.l.Log().Warn("copy unreadable, repairing it from another", "pg", q.ID.String(), "object", o.id.String(), "err", o.sop.Err)
		if !q.repair(obj, s) {
			q.Table.Close(obj)
			p.refuse(o, wire.EIO)
			return
		}
		if obj.Broken {
			p.refuse(o, wire.EIO)
			return
		}
	}
	secondary.ResetOp(&o.sop)
	o.block(obj)
	q.recoverNow(obj)
}
