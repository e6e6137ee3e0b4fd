package secondary

import (
	"holdfast/core/layout"
	"holdfast/core/peer"
	"holdfast/core/wire"
	"holdfast/osd/store"
)

// What erasure-coded pools need besides: reads of a part of a chunk at a version, and what settles versions that wait.

func fillRead(op *store.Op, m *wire.SubReadRange) {
	op.Kind, op.Object, op.Offset, op.Len = store.OpRead, m.Object, m.Offset, m.Len
	op.AtMost, op.Bounded, op.Exact = m.AtMost, true, true
}

func (s *Server) readRange(r *peer.Request) {
	var m wire.SubReadRange
	if err := m.Decode(&r.Header); err != nil {
		r.Fail(wire.EINVAL)
		return
	}
	if !s.holds(r, m.Grant) || m.Object.Inode.Pool() != m.PG.Pool {
		r.Fail(wire.ESTALE)
		return
	}
	j := s.job(r)
	j.pg = m.PG
	fillRead(&j.op, &m)
	s.st.Submit(&j.op)
}

// ReadRange reads for the primary on this OSD: m's fields go to op, whose Done the caller has set. In the end op has State, Data and Bitmap.
func (s *Server) ReadRange(op *store.Op, m *wire.SubReadRange) {
	fillRead(op, m)
	s.st.Submit(op)
}

// stateFlags are a store's flags as replies have them.
func stateFlags(f store.StateFlags) (flags uint32) {
	if f&store.Tombstone != 0 {
		flags |= wire.SubTombstone
	}
	if f&store.Unstable != 0 {
		flags |= wire.SubUnstable
	}
	return flags
}

// answerRange answers a SUB_READ_RANGE that the store has carried out.
func (j *job) answerRange() {
	a := wire.SubReply{Op: wire.OpSubReadRange, Version: j.op.State.Version, Written: j.op.State.Interval, Flags: stateFlags(j.op.State.Flags), Meta: len(j.op.Bitmap)}
	var data []peer.Piece
	if j.op.Data != nil {
		a.Data = j.op.Data.Len()
		j.s.piece[0] = peer.Piece{Ref: j.op.Data, Len: a.Data}
		data = j.s.piece[:]
	}
	var h wire.Header
	a.Encode(&h)
	j.r.Reply(&h, j.op.Bitmap, data)
	j.s.piece[0] = peer.Piece{}
	if j.op.Data != nil {
		j.op.Data.Release()
	}
}

// settling is a list of versions that the store commits, or rolls back to.
type settling struct {
	s    *Server
	pg   layout.PGID
	left int
	err  error
	r    *peer.Request // who asked, when it was another OSD;
	kind wire.Opcode   // with this,
	done func(error)   // else this is called
	next *settling
}

// settleOp is one version of it.
type settleOp struct {
	list *settling
	op   store.Op
	next *settleOp
}

// Commit makes versions, and the unstable ones below them, stable; done is called when that is durable, with the first error. A *store.BaseError says that a version is not there.
func (s *Server) Commit(pg layout.PGID, versions []wire.Versioned, done func(error)) {
	s.settle(wire.OpSubCommit, pg, versions, nil, done)
}

// Rollback drops the unstable versions above the ones given; done is called when that is durable, with the first error. A *store.BaseError says that what is above is stable.
func (s *Server) Rollback(pg layout.PGID, versions []wire.Versioned, done func(error)) {
	s.settle(wire.OpSubRollback, pg, versions, nil, done)
}

func (s *Server) serveSettle(r *peer.Request) {
	var m wire.Sub
	err := m.Decode(&r.Header)
	if err != nil {
		r.Fail(wire.EINVAL)
		return
	}
	if !s.holds(r, m.Grant) {
		r.Fail(wire.ESTALE)
		return
	}
	if s.versions, err = wire.DecodeVersioned(s.versions[:0], r.Meta); err != nil {
		r.Fail(wire.EINVAL)
		return
	}
	for i := range s.versions {
		if s.versions[i].OID.Inode.Pool() != m.PG.Pool {
			r.Fail(wire.EINVAL)
			return
		}
	}
	s.settle(m.Op, m.PG, s.versions, r, nil)
}

func (s *Server) settle(kind wire.Opcode, pg layout.PGID, versions []wire.Versioned, r *peer.Request, done func(error)) {
	q := s.freeSettling
	if q == nil {
		q = &settling{s: s}
	} else {
		s.freeSettling, q.next = q.next, nil
	}
	q.pg, q.kind, q.r, q.done, q.left = pg, kind, r, done, 1
	s.Locks.begin(pg)
	for i := range versions {
		x := s.freeSettle
		if x == nil {
			x = &settleOp{}
			x.op.Done = func(*store.Op) { x.settled() }
		} else {
			s.freeSettle, x.next = x.next, nil
		}
		x.list = q
		x.op.Kind, x.op.Object, x.op.Version = store.OpCommit, versions[i].OID, layout.Version(versions[i].Version)
		if kind == wire.OpSubRollback {
			x.op.Kind = store.OpRollback
		}
		q.left++
		s.st.Submit(&x.op)
	}
	q.finish()
}

func (x *settleOp) settled() {
	q, s := x.list, x.list.s
	if err := x.op.Err; err != nil {
		s.l.Log().Warn("the store could not settle a version", "pg", q.pg.String(), "object", x.op.Object.String(), "version", uint64(x.op.Version), "rollback", x.op.Kind == store.OpRollback, "err", err)
		if q.err == nil {
			q.err = err
		}
	}
	x.list = nil
	ResetOp(&x.op)
	x.next, s.freeSettle = s.freeSettle, x
	q.finish()
}

func (q *settling) finish() {
	if q.left--; q.left > 0 {
		return
	}
	s, err, done := q.s, q.err, q.done
	if q.r != nil {
		s.reply(q.r, q.kind, Retval(err))
	}
	pg := q.pg
	q.err, q.r, q.done = nil, nil, nil
	q.next, s.freeSettling = s.freeSettling, q
	s.Locks.end(pg)
	if done != nil {
		done(err)
	}
}
