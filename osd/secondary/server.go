// Package secondary carries out what a PG's primary asks of one store: changes, recovery reads and replacements, listings, and the grants that give the primary the right to ask.
//
// osd gives it the requests of other OSDs; the primary on the same OSD calls the same methods. Everything belongs to the OSD's loop. A request is carried out only for the
// holder of the PG's grant in the interval it names; whatever comes from anybody else changes nothing.
package secondary

import (
	"encoding/json"
	"errors"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/wire"
	"holdfast/osd/store"
)

// ListLimit is how many entries one SUB_LIST answers at most: what fits its payload.
const ListLimit = wire.MaxMeta / wire.SubEntrySize

// Server is one store's side of replication.
type Server struct {
	Locks *Locks
	// Limits may be changed at any time.
	Limits Limits

	l    loop.Loop
	st   *store.Store
	free *job // pool
	list []store.ListEntry
	meta []byte

	freeSettling *settling // pools
	freeSettle   *settleOp
	versions     []wire.Versioned
	piece        [1]peer.Piece
	slow         Watch[*job] // requests of primaries that our store has not carried out yet
}

// slowLog is slow_log_interval before SlowLog is called.
const slowLog = 10 * time.Second

// SlowLog sets after how long a request of a primary is named in the log.
func (s *Server) SlowLog(d time.Duration) { s.slow.SetLimit(d) }

// SlowOps is how many requests of primaries have waited for our store longer than that, and still do.
func (s *Server) SlowOps() int { return s.slow.Slow() }

// nameSlow logs a request that is slow: the disk is, as nothing else is waited for here.
func (s *Server) nameSlow(j *job, age time.Duration) {
	s.l.Log().Warn("the disk is slow: a primary's operation waits for it", "device", s.st.Device(), "waits_for", s.st.WaitsFor(&j.op), "object", j.op.Object.String(), "pg", j.pg.String(),
		"peer", uint64(j.r.From.OSD), "age", age.Round(time.Millisecond), "slow", s.SlowOps())
}

// New makes the server of a store.
func New(l loop.Loop, st *store.Store, locks *Locks) *Server {
	s := &Server{Locks: locks, Limits: DefaultLimits(), l: l, st: st}
	s.slow.Init(l, slowLog, s.nameSlow)
	return s
}

// job is one request under way in the store.
type job struct {
	s    *Server
	r    *peer.Request
	pg   layout.PGID
	op   store.Op
	next *job

	digest  bool // only a checksum of what is read is asked for
	watched Watched[*job]
}

func (s *Server) job(r *peer.Request) *job {
	j := s.free
	if j == nil {
		j = &job{s: s}
		j.op.Done = func(*store.Op) { j.done() }
	} else {
		s.free, j.next = j.next, nil
	}
	j.r = r
	s.slow.Begin(&j.watched, j)
	return j
}

func (s *Server) put(j *job) {
	s.slow.End(&j.watched)
	j.r, j.digest = nil, false
	ResetOp(&j.op)
	j.next, s.free = s.free, j
}

// ResetOp clears an Op for reuse.
func ResetOp(op *store.Op) { op.Reset() }

// Retval is a store's error as the wire says it.
func Retval(err error) int64 {
	if err == nil {
		return 0
	}
	var base *store.BaseError
	var sum *store.ChecksumError
	switch {
	case errors.Is(err, store.ErrNoSpace):
		return wire.ENOSPC
	case errors.Is(err, store.ErrNotAligned):
		return wire.EINVAL
	case errors.Is(err, store.ErrVersionGone), errors.Is(err, store.ErrWaiting):
		return wire.EAGAIN
	case errors.Is(err, store.ErrUnsettled):
		return wire.EBUSY
	case errors.As(err, &base):
		return wire.ERANGE
	case errors.As(err, &sum), errors.Is(err, store.ErrVoid):
		return wire.EDOM
	}
	return wire.EIO
}

// RequestRoom is how many more requests a store can remember, less the quarter that it keeps: what is recovered brings its requests along.
func RequestRoom(st *store.Stats) uint64 {
	most := st.MaxPairs - st.MaxPairs/4
	return most - min(most, st.Pairs)
}

// holds reports whether a request comes from the holder of the grant it names, and the grant is in force.
func (s *Server) holds(r *peer.Request, g wire.Grant) bool {
	return r.From.Instance == g.Instance && s.Locks.Holds(g)
}

// Serve takes a request of another OSD with one of the SUB opcodes.
func (s *Server) Serve(r *peer.Request) {
	if r.From.Role != peer.RoleOSD && r.Header.Op() != wire.OpSubDead {
		r.Fail(wire.EPERM)
		return
	}
	switch r.Header.Op() {
	case wire.OpSubChange:
		s.change(r)
		return
	case wire.OpSubReadRange:
		s.readRange(r)
		return
	case wire.OpSubCommit, wire.OpSubRollback:
		s.serveSettle(r)
		return
	}
	var m wire.Sub
	if err := m.Decode(&r.Header); err != nil {
		r.Fail(wire.EINVAL)
		return
	}
	switch m.Op {
	case wire.OpSubLock:
		q, ok := decodeJSON[LockRequest](r.Meta)
		if !ok || q.Holder.OSD != r.From.OSD || q.Holder.Instance != r.From.Instance {
			r.Fail(wire.EINVAL)
			return
		}
		if !s.st.Sharded(q.PG.Pool) {
			// The interval would end with the first listing.
			s.replyJSON(r, m.Op, wire.EBUSY, LockReply{Store: s.Locks.self.Store, Reason: "the pool has not been heard of here, or its objects are being sorted by PG"})
			return
		}
		s.Locks.Lock(q, func(retval int64, a LockReply) { s.replyJSON(r, m.Op, retval, a) })
		return
	case wire.OpSubRenew:
		q, ok := decodeJSON[RenewRequest](r.Meta)
		if !ok || q.Holder.OSD != r.From.OSD || q.Holder.Instance != r.From.Instance {
			r.Fail(wire.EINVAL)
			return
		}
		retval, a := s.Locks.Renew(q)
		st := s.st.Stats()
		recovery := s.RecoveryRoom(&st)
		a.Free, a.Recovery, a.Requests = s.ClientRoom(&st), &recovery, RequestRoom(&st)
		s.replyJSON(r, m.Op, retval, a)
		return
	case wire.OpSubUnlock:
		if r.From.Instance != m.Instance {
			r.Fail(wire.EPERM)
			return
		}
		s.Locks.Unlock(m.Grant)
		s.reply(r, m.Op, 0)
		return
	case wire.OpSubAnnounce:
		q, ok := decodeJSON[AnnounceRequest](r.Meta)
		if !ok || q.Instance != r.From.Instance {
			r.Fail(wire.EINVAL)
			return
		}
		s.Locks.Announce(q, func(retval int64) { s.reply(r, m.Op, retval) })
		return
	case wire.OpSubDead:
		q, ok := decodeJSON[Holder](r.Meta)
		if !ok || r.From.Role != peer.RoleParent || r.From.OSD != q.OSD {
			r.Fail(wire.EPERM)
			return
		}
		s.Locks.Dead(q.OSD, q.Instance)
		s.reply(r, m.Op, 0)
		return
	}
	if !s.holds(r, m.Grant) {
		r.Fail(wire.ESTALE)
		return
	}
	switch m.Op {
	case wire.OpSubSync:
		j := s.job(r)
		j.pg = m.PG
		j.op.Kind = store.OpSync
		s.st.Submit(&j.op)
	case wire.OpSubList:
		s.serveList(r, &m)
	case wire.OpSubRead:
		j := s.job(r)
		j.pg = m.PG
		j.op.Kind, j.op.Object = store.OpReadObject, m.Object
		s.st.Submit(&j.op)
	case wire.OpSubDigest:
		j := s.job(r)
		j.pg, j.digest = m.PG, true
		j.op.Kind, j.op.Object = store.OpReadObject, m.Object
		s.st.Submit(&j.op)
	case wire.OpSubReplace:
		s.serveReplace(r, &m)
	case wire.OpSubVoid, wire.OpSubForget:
		var entries []wire.SubEntry
		if err := wire.SubEntries(r.Meta, func(e wire.SubEntry) { entries = append(entries, e) }); err != nil {
			r.Fail(wire.EINVAL)
			return
		}
		s.Mark(m.Op, m.PG, entries, func(err error) { s.reply(r, m.Op, Retval(err)) })
	default:
		r.Fail(wire.EINVAL)
	}
}

func (s *Server) reply(r *peer.Request, op wire.Opcode, retval int64) {
	var h wire.Header
	a := wire.SubReply{Op: op, Retval: retval}
	a.Encode(&h)
	r.Reply(&h, nil, nil)
}

func (s *Server) replyJSON(r *peer.Request, op wire.Opcode, retval int64, v any) {
	p, err := json.Marshal(v)
	if err != nil {
		panic("secondary: reply does not marshal: " + err.Error())
	}
	var h wire.Header
	a := wire.SubReply{Op: op, Retval: retval, Meta: len(p)}
	a.Encode(&h)
	r.Reply(&h, p, nil)
}

// changeKinds maps the wire's kinds to the store's.
func (s *Server) fillChange(op *store.Op, m *wire.SubChange) {
	switch m.Kind {
	case wire.ChangeWrite:
		op.Kind = store.OpWrite
	case wire.ChangeZero:
		op.Kind, op.KeepWritten = store.OpZero, true
	case wire.ChangeHole:
		op.Kind = store.OpZero
	case wire.ChangeDelete:
		op.Kind = store.OpDelete
	}
	op.Object, op.Offset, op.Len = m.Object, m.Offset, m.Len
	op.Base, op.Version, op.Interval = m.Base, m.Version, m.Interval
	op.Pair = store.Pair{Session: m.Session, Sequence: m.Sequence}
	op.Low = m.Low
	op.Lazy, op.Unstable = store.Laziness(m.Lazy), m.Unstable
	if op.Leave = 0; m.Unstable {
		st := s.st.Stats()
		op.Leave = uint32(s.Limits.leave(st.Blocks)) // a refusal is undone
	}
}

func (s *Server) change(r *peer.Request) {
	var m wire.SubChange
	if err := m.Decode(&r.Header); err != nil {
		r.Fail(wire.EINVAL)
		return
	}
	if !s.holds(r, m.Grant) && !planted.IntervalUnchecked || m.Object.Inode.Pool() != m.PG.Pool {
		r.Fail(wire.ESTALE)
		return
	}
	if n := len(r.Meta); n != 0 && n != s.st.Superblock().Config.BitmapLen() {
		r.Fail(wire.EINVAL)
		return
	}
	s.Locks.ordered(&m)
	j := s.job(r)
	j.pg = m.PG
	s.fillChange(&j.op, &m)
	j.op.Data, j.op.Bitmap = r.Data, append(j.op.Bitmap, r.Meta...)
	s.Locks.begin(m.PG)
	s.st.Submit(&j.op)
}

// Change carries out a change for the primary on this OSD: m's fields go to op, whose Data, DataOff, Bitmap and Done the caller has set. The caller calls Changed afterwards.
func (s *Server) Change(op *store.Op, m *wire.SubChange) {
	s.fillChange(op, m)
	s.Locks.begin(m.PG)
	s.st.Submit(op)
}

// Changed says that an Op given to Change has completed.
func (s *Server) Changed(pg layout.PGID) { s.Locks.end(pg) }

func (j *job) done() {
	s, r := j.s, j.r
	if err := j.op.Err; err != nil && Retval(err) != wire.ENOSPC && Retval(err) != wire.EAGAIN {
		s.l.Log().Warn("the store refused a request of a primary", "peer", uint64(r.From.OSD), "pg", j.pg.String(), "object", j.op.Object.String(), "err", err)
	}
	var h wire.Header
	switch j.op.Kind {
	case store.OpSync:
		s.reply(r, wire.OpSubSync, Retval(j.op.Err))
	case store.OpRead:
		if j.op.Err != nil {
			r.Fail(Retval(j.op.Err))
			break
		}
		j.answerRange()
	case store.OpReadObject:
		if j.digest {
			j.answerDigest()
			break
		}
		a := wire.SubReply{Op: wire.OpSubRead, Retval: Retval(j.op.Err)}
		if j.op.Err != nil {
			a.Encode(&h)
			r.Reply(&h, nil, nil)
			break
		}
		a.Version, a.Written, a.Flags = j.op.State.Version, j.op.State.Interval, stateFlags(j.op.State.Flags)
		s.meta = wire.AppendObjectMeta(s.meta[:0], j.op.Bitmap, j.op.Present, len(j.op.Pairs), func(i int) wire.SubPair {
			p := j.op.Pairs[i]
			return wire.SubPair{Session: p.Session, Sequence: p.Sequence, Version: p.Version}
		})
		a.Meta = len(s.meta)
		var data []peer.Piece
		if j.op.Data != nil {
			a.Data = j.op.Data.Len()
			data = []peer.Piece{{Ref: j.op.Data, Len: a.Data}}
		}
		a.Encode(&h)
		r.Reply(&h, s.meta, data)
		if j.op.Data != nil {
			j.op.Data.Release()
		}
	default:
		op := wire.OpSubChange
		if j.op.Kind == store.OpReplace {
			op = wire.OpSubReplace
		}
		st := s.st.Stats()
		a := wire.VersionReply{Op: op, Retval: Retval(j.op.Err), Version: uint64(j.op.Version), Free: s.ClientRoom(&st)}
		a.Encode(&h)
		r.Reply(&h, nil, nil)
		s.Locks.end(j.pg)
	}
	s.put(j)
}

func (s *Server) serveReplace(r *peer.Request, m *wire.Sub) {
	j := s.job(r)
	j.pg = m.PG
	op := &j.op
	op.Kind, op.Object = store.OpReplace, m.Object
	op.Base, op.BaseInterval, op.Version, op.Interval = m.Base, m.BaseInterval, m.Version, m.Written
	if m.Flags&wire.SubTombstone != 0 {
		op.Flags = store.Tombstone
	}
	if len(r.Meta) > 0 {
		bitmap, present, err := wire.ObjectMeta(r.Meta, func(p wire.SubPair) {
			op.Pairs = append(op.Pairs, store.PairVersion{Pair: store.Pair{Session: p.Session, Sequence: p.Sequence}, Version: p.Version})
		})
		if err != nil {
			s.put(j)
			r.Fail(wire.EINVAL)
			return
		}
		op.Bitmap = append(op.Bitmap[:0], bitmap...)
		op.Present = append(op.Present[:0], present...)
	}
	op.Data = r.Data
	s.Replace(m.PG, op)
}

// Replace carries out a replacement for the primary on this OSD; op is filled in but for its Kind. The caller calls Changed afterwards.
func (s *Server) Replace(pg layout.PGID, op *store.Op) {
	op.Kind = store.OpReplace
	if len(op.Bitmap) == 0 {
		// A deletion, or nothing at all: no unit is written or present.
		n := s.st.Superblock().Config.BitmapLen()
		op.Bitmap = append(op.Bitmap[:0], make([]byte, n)...)
		op.Present = append(op.Present[:0], make([]byte, n)...)
	}
	s.Locks.begin(pg)
	s.st.Submit(op)
}

// Mark voids (wire.OpSubVoid) or forgets (wire.OpSubForget) entries; done gets the first error that matters. An entry that has changed meanwhile is left alone.
func (s *Server) Mark(kind wire.Opcode, pg layout.PGID, entries []wire.SubEntry, done func(error)) {
	left := 1
	var first error
	finish := func() {
		if left--; left == 0 {
			done(first)
		}
	}
	for _, e := range entries {
		op := &store.Op{Kind: store.OpVoid, Object: e.Object, Base: e.Version, BaseInterval: e.Interval}
		if kind == wire.OpSubForget {
			op.Kind = store.OpForget
		}
		left++
		op.Done = func(op *store.Op) {
			var base *store.BaseError
			if op.Err != nil && first == nil && !(kind == wire.OpSubForget && errors.As(op.Err, &base)) {
				first = op.Err
			}
			s.Locks.end(pg)
			finish()
		}
		s.Locks.begin(pg)
		s.st.Submit(op)
	}
	finish()
}

func (s *Server) serveList(r *peer.Request, m *wire.Sub) {
	limit := min(int(m.Limit), ListLimit)
	if limit <= 0 {
		limit = ListLimit
	}
	if !s.st.Sharded(m.PG.Pool) {
		r.Fail(wire.EAGAIN)
		return
	}
	if m.Object.Stripe == 0 && s.st.Unsynced() > 0 {
		// What is listed may become the truth for which nobody else is asked any more: it must be durable.
		m := *m
		s.Sync(func(err error) {
			switch {
			case err != nil:
				r.Fail(Retval(err))
			case !s.holds(r, m.Grant):
				r.Fail(wire.ESTALE)
			default:
				s.answerList(r, &m, limit)
			}
		})
		return
	}
	s.answerList(r, m, limit)
}

// Sync calls done when everything in the store that is visible is durable: at once, if it is.
func (s *Server) Sync(done func(error)) {
	if s.st.Unsynced() == 0 {
		done(nil)
		return
	}
	s.st.Submit(&store.Op{Kind: store.OpSync, Done: func(op *store.Op) { done(op.Err) }})
}

func (s *Server) answerList(r *peer.Request, m *wire.Sub, limit int) {
	entries, next, more := s.List(m.PG, store.Cursor(m.Object.Stripe), limit)
	s.meta = s.meta[:0]
	for _, e := range entries {
		s.meta = wire.AppendSubEntry(s.meta, e)
	}
	var h wire.Header
	a := wire.SubReply{Op: wire.OpSubList, Retval: int64(len(entries)), Object: layout.ObjectID{Stripe: uint64(next)}, Meta: len(s.meta)}
	if more {
		a.Flags = wire.SubResume
	}
	a.Encode(&h)
	r.Reply(&h, s.meta, nil)
}

// List brings entries of a PG's objects that this store holds, from after on; next is where to resume.
func (s *Server) List(pg layout.PGID, after store.Cursor, limit int) (entries []wire.SubEntry, next store.Cursor, more bool) {
	s.list, next, more = s.st.List(s.list[:0], pg, after, limit)
	entries = make([]wire.SubEntry, 0, len(s.list))
	for _, e := range s.list {
		entries = append(entries, wire.SubEntry{Object: e.Object, Version: e.Version, Interval: e.Interval, Flags: uint8(e.Flags)})
	}
	return entries, next, more
}
