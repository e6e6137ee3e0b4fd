package primary

import (
	"holdfast/core/ec"
	"holdfast/core/layout"
	"holdfast/core/loop/buf"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/wire"
	"holdfast/osd/secondary"
	"holdfast/osd/store"
)

// Erasure-coded pools (docs/adr/0021-erasure-coded-writes.md). An object lies in chunks on the members, each with a role. A change has its object for itself from the reads that it needs until every
// member has it, unstable; then it is committed. Reads are of what is committed.

// coding is how a PG's objects are coded, and who has which role; nil in replicated pools.
type coding struct {
	stripes
	code  *ec.Code
	roles []layout.OSDNum // by role, 0 where nobody is
	here  ec.Set          // roles that somebody has
	own   int             // our role
}

func (p *Primary) coding(g layout.Geometry, roles []layout.OSDNum) (*coding, error) {
	k := int(g.DataChunks)
	code, err := p.codes.Get(k, len(roles)-k)
	if err != nil {
		return nil, err
	}
	c := &coding{stripes: stripes{k: k, m: len(roles) - k, block: g.BlockSize}, code: code, roles: roles, own: -1}
	for i, osd := range roles {
		if osd != 0 {
			c.here |= ec.SetOf(i)
		}
		if osd == p.o.Self {
			c.own = i
		}
	}
	return c, nil
}

// chunk is the name of an object's chunk in its store.
func chunk(id layout.ObjectID, role int) layout.ObjectID {
	id.Stripe |= uint64(role)
	return id
}

// mine is how our own store calls what it has of an object.
func (q *PG) mine(id layout.ObjectID) layout.ObjectID {
	if q.coded == nil {
		return id
	}
	return chunk(id, q.coded.own)
}

// on is how a member's store calls what it has of an object.
func (q *PG) on(osd layout.OSDNum, id layout.ObjectID) layout.ObjectID {
	if c := q.coded; c != nil {
		for role, has := range c.roles {
			if has == osd {
				return chunk(id, role)
			}
		}
	}
	return id
}

// coded is what an operation on an erasure-coded object has besides. It stays with its op, and is used again.
type coded struct {
	o    *op
	io   []*chunkIO // by role; made when they are needed
	left int        // that are under way

	base  layout.Version // the object is read as of this
	tries int            // of a read
	turn  bool           // we have the object for ourselves
	whole func()         // called when all have been read
	bands []band
	ways  []reading
	gone  bool // the object is not there as of base

	parity []*buf.Ref // by parity chunk: what is written
	space  []*buf.Ref // what was computed on the way
	bits   [][]byte   // bitmaps by role
	pieces []peer.Piece
	bitmap []byte // of a reply

	chunks [][]byte // arguments of the code

	// Bound once.
	readDone, changeReady func()
}

// chunkIO is one chunk's part in an operation.
type chunkIO struct {
	x    *coded
	role int
	osd  layout.OSDNum
	part part
	call peer.Call
	op   store.Op

	wanted  bool // in the round of reads under way, or before it
	errno   int64
	version layout.Version
	gone    bool // a deletion
	data    *buf.Ref
	bitmap  []byte
}

func (o *op) coded() *coded {
	x := o.x
	if x == nil {
		x = &coded{o: o, readDone: o.codedRead, changeReady: o.codedHere}
		o.x = x
	}
	return x
}

// at is the chunk of a role.
func (x *coded) at(role int) *chunkIO {
	for len(x.io) <= role {
		io := &chunkIO{x: x, role: len(x.io)}
		io.call.Done = func(*peer.Call) { io.answered() }
		io.op.Done = func(*store.Op) { io.stored() }
		x.io = append(x.io, io)
	}
	return x.io[role]
}

// reset gives back what the operation holds. Nothing of it is under way any more.
func (x *coded) reset() {
	for _, io := range x.io {
		io.forget()
	}
	for _, list := range [][]*buf.Ref{x.parity, x.space} {
		for i, ref := range list {
			if ref != nil {
				ref.Release()
				list[i] = nil
			}
		}
	}
	x.parity, x.space, x.bands, x.ways = x.parity[:0], x.space[:0], x.bands[:0], x.ways[:0]
	clear(x.pieces)
	x.pieces = x.pieces[:0]
	x.left, x.base, x.tries, x.turn, x.whole, x.gone = 0, 0, 0, false, nil, false
}

func (io *chunkIO) forget() {
	if io.data != nil {
		io.data.Release()
		io.data = nil
	}
	io.wanted, io.errno, io.version, io.gone, io.part = false, 0, 0, false, part{}
	io.bitmap = io.bitmap[:0]
	secondary.ResetOp(&io.op)
	io.call.Payload = io.call.Payload[:0]
}

// want has a part of a chunk read with the others, or its bitmap alone if the part is empty. What was wanted of it before is wanted, too.
func (x *coded) want(role int, p part) {
	io := x.at(role)
	switch {
	case !io.wanted || io.part.len == 0:
		io.part = p
	case p.len > 0:
		lo, hi := min(io.part.off, p.off), max(io.part.end(), p.end())
		io.part = part{lo, hi - lo}
	}
	io.wanted = true
}

// read reads what is wanted, as of x.base, and calls whole when all has been answered.
func (x *coded) read(whole func()) {
	o, q := x.o, x.o.q
	p := o.p
	x.whole, x.left = whole, 1
	for role := range q.coded.roles {
		if role >= len(x.io) || !x.io[role].wanted {
			continue
		}
		io := x.io[role]
		io.osd = q.coded.roles[role]
		x.left++
		m := wire.SubReadRange{Object: chunk(o.id, role), AtMost: x.base, Offset: io.part.off, Len: io.part.len, Grant: q.grant}
		if planted.DegradedMixed && o.code == wire.OpRead {
			m.AtMost = 1<<64 - 1
		}
		if planted.ParityMixed && o.code != wire.OpRead {
			m.AtMost = q.committed(o.id)
		}
		if io.osd == p.o.Self {
			q.begin()
			p.sec.ReadRange(&io.op, &m)
			continue
		}
		m.Encode(&io.call.Header)
		p.hub.Call(io.osd, &io.call)
	}
	x.answered()
}

func (io *chunkIO) stored() {
	q, op := io.x.o.q, &io.op
	io.errno = secondary.Retval(op.Err)
	io.version, io.gone = op.State.Version, op.State.Flags&store.Tombstone != 0
	io.data, op.Data = op.Data, nil
	io.bitmap = append(io.bitmap[:0], op.Bitmap...)
	io.x.answered()
	q.end()
}

func (io *chunkIO) answered() {
	c := &io.call
	var m wire.SubReply
	switch {
	case c.Err != nil:
		io.errno = wire.EPIPE
	case m.Decode(&c.Reply) != nil:
		io.errno = wire.EINVAL
	case m.Retval < 0:
		io.errno = m.Retval
	default:
		io.version, io.gone = m.Version, m.Flags&wire.SubTombstone != 0
		io.data, c.ReplyData = c.ReplyData, nil
		io.bitmap = append(io.bitmap[:0], c.ReplyMeta...)
	}
	if c.ReplyData != nil {
		c.ReplyData.Release()
		c.ReplyData = nil
	}
	if io.errno == 0 && (uint32(len(io.bytes())) != io.part.len || len(io.bitmap) != io.x.o.q.Geometry.BitmapLen()) {
		io.errno = wire.EINVAL
	}
	io.x.answered()
}

// bytes is what was read.
func (io *chunkIO) bytes() []byte {
	if io.data == nil {
		return nil
	}
	return io.data.Bytes()
}

// slice is what was read of a part.
func (io *chunkIO) slice(p part) []byte {
	return io.bytes()[p.off-io.part.off:][:p.len]
}

func (x *coded) answered() {
	if x.left--; x.left == 0 {
		x.whole()
	}
}

// failing is the first chunk that could not be read as of x.base, or nil.
func (x *coded) failing() *chunkIO {
	mixed := planted.ParityMixed && x.o.code != wire.OpRead || planted.DegradedMixed && x.o.code == wire.OpRead
	for _, io := range x.io {
		if io.wanted && (io.errno != 0 || io.version != x.base && !mixed) {
			return io
		}
	}
	return nil
}

// unreadable reports whether a chunk is there and cannot be read.
func (io *chunkIO) unreadable() bool { return io.errno == wire.EDOM || io.errno == wire.EIO }

// release lets the object go.
func (x *coded) release() {
	if !x.turn {
		return
	}
	x.turn = false
	q := x.o.q
	if obj := q.Table.Get(x.o.id); obj != nil && !q.stopped {
		q.Table.EndTurn(obj)
	}
}

// alone has the operation go on by itself when it has the object for itself; false: it has to wait for that.
func (x *coded) alone() bool {
	o := x.o
	if !x.turn {
		x.turn = o.q.open(o.id).TakeTurn(&o.waiter)
	}
	return x.turn
}

// spoilt takes a chunk that its member cannot read: it is computed from the others and put back first, if there are enough.
func (x *coded) spoilt(io *chunkIO) {
	o, q := x.o, x.o.q
	p := o.p
	obj := q.open(o.id)
	switch {
	case obj.Changing():
		x.reset()
		obj.Await(&o.waiter, obj.Last)
		return
	case obj.Unclean == nil && !obj.Recovering:
		p.Events.Repaired++
		p.l.Log().Warn("chunk unreadable, computing it from the others", "pg", q.ID.String(), "object", o.id.String(), "role", io.role, "peer", uint64(io.osd), "retval", io.errno)
		if s, _ := p.st.State(q.mine(o.id)); !q.repairChunk(obj, io.role, s) {
			q.Table.Close(obj)
			p.refuse(o, wire.EIO)
			return
		}
	}
	if obj.Broken {
		p.refuse(o, wire.EIO)
		return
	}
	o.block(obj)
	q.recoverNow(obj)
}
