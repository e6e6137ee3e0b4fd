package crash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"holdfast/core/layout"
	"holdfast/core/sim"
	"holdfast/osd/store"
)

// runner does operations on a store and notes what it did.
type runner struct {
	*process
	h        *history
	rng      *rand.Rand
	rec      *sim.Recording // nil: nobody looks at moments
	running  int
	acked    int
	refused  int
	problem  error    // the first thing that must not be
	bare     bool     // nothing has an identity
	lenient  bool     // the device fails: operations may end with an error
	failures int      // operations that did
	soft     []change // acknowledged, and not known to be durable
}

// change is one entry of an object's history.
type change struct {
	o     *object
	index int
}

func (r *runner) now() int {
	if r.rec == nil {
		return -1
	}
	return len(r.rec.Log)
}

func (r *runner) wrong(format string, args ...any) {
	if r.problem == nil {
		r.problem = fmt.Errorf(format, args...)
	}
}

// values makes n new values.
func (r *runner) values(n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		r.h.tag++
		out[i] = r.h.tag
	}
	return out
}

// lend puts values into memory for op; it is released when op is done.
func (r *runner) lend(op *store.Op, values []uint64) {
	g := int(r.c.config.Granularity)
	op.Data = r.l.Alloc(len(values) * g)
	fill(op.Data.Bytes(), values, g)
}

func fill(b []byte, values []uint64, g int) {
	for u, v := range values {
		unit := b[u*g : (u+1)*g]
		binary.LittleEndian.PutUint64(unit, v)
		for n := 8; n < g; n *= 2 {
			copy(unit[n:], unit[:n])
		}
	}
}

// identify gives op a pair of the newest session.
func (r *runner) identify(op *store.Op, o *object) {
	if r.bare {
		return
	}
	s := r.h.sessions[len(r.h.sessions)-1]
	s.sequence++
	op.Pair = store.Pair{Session: s.id, Sequence: s.sequence}
	if r.rng.IntN(4) == 0 {
		open := s.sequence // lowest unanswered
		for i := range r.h.sent {
			if x := &r.h.sent[i]; x.pair.Session == s.id && r.unanswered(x) {
				open = min(open, x.pair.Sequence)
			}
		}
		s.low = max(s.low, open)
	}
	op.Low = s.low
	r.h.sent = append(r.h.sent, sent{pair: op.Pair, object: o, low: op.Low, submitted: r.now()})
}

func (r *runner) unanswered(x *sent) bool {
	for i := range x.object.hist {
		st := &x.object.hist[i]
		if st.acked == never && slices.ContainsFunc(st.pairs, func(p store.PairVersion) bool { return p.Pair == x.pair }) {
			return true
		}
	}
	return false
}

// submit sends op for o, whose values per unit the caller has drawn.
func (r *runner) submit(o *object, op *store.Op, values []uint64) {
	op.Object = o.id
	if len(values) > 0 {
		r.lend(op, values)
	}
	before := o.newest()
	if op.Kind == store.OpWrite || op.Kind == store.OpZero || op.Kind == store.OpDelete {
		r.identify(op, o)
	}
	next, want := before.after(op, values, r.c.config.Granularity)
	if op.Kind == store.OpZero && !slices.ContainsFunc(o.hist, func(s step) bool { return s.acked == never }) {
		next.loose = false
	}
	index := -1
	moment, soft := r.now(), slices.Clone(r.soft)
	op.Done = func(op *store.Op) {
		release(op)
		r.running--
		switch {
		case r.lenient && errors.Is(op.Err, store.ErrFailed) && r.s.Failure() != nil:
			r.failures++
		case index < 0: // judged below
		case op.Err != nil:
			r.wrong("operation %d of object %v ended with %v", op.Kind, op.Object, op.Err)
		default:
			r.ack(o, index, moment, soft, op.Lazy)
		}
	}
	r.running++
	r.s.Submit(op)
	switch err := op.Err; {
	case r.lenient && errors.Is(err, store.ErrFailed) && r.s.Failure() != nil:
		return
	case errors.Is(err, store.ErrWaiting) && want == nil && op.Unstable:
		r.refused++
	case errors.Is(err, store.ErrNoSpace) && want == nil:
		r.refused++
		r.maySayFull(op)
	case err == nil && want == errNoChange:
	case err == nil && want == nil:
		index = len(o.hist)
		o.hist = append(o.hist, step{next, op.Kind, moment, never, never})
	case !sameRefusal(err, want):
		r.wrong("operation %d of object %v (base %x, version %x) over %+v: the store says %v, the model %v", op.Kind, o.id, op.Base, op.Version, before.top().State, err, want)
	}
}

func sameRefusal(err, want error) bool {
	switch want {
	case errBase:
		_, is := errors.AsType[*store.BaseError](err)
		return is
	case errVoid:
		return errors.Is(err, store.ErrVoid)
	case errUnsettled:
		return errors.Is(err, store.ErrUnsettled)
	case errUnsupported:
		return errors.Is(err, store.ErrUnsupported)
	}
	return false
}

// ack notes that o's change was acknowledged, and so is what the store promises with it.
func (r *runner) ack(o *object, index, submitted int, before []change, lazy store.Laziness) {
	if index > 0 && o.hist[index-1].acked == never {
		r.wrong("change %d of object %v is acknowledged before the one before it", index, o.id)
	}
	o.hist[index].acked = r.now()
	r.acked++
	if lazy != store.Durable {
		r.soft = append(r.soft, change{o, index})
		return // it is sure when something later is
	}
	r.sure(append(before, change{o, index}))
	for _, s := range r.h.sessions {
		if s.ended != never && s.endedSure == never && !s.lost && submitted >= s.ended {
			s.endedSure = r.now()
		}
	}
}

// sure notes that changes are durable.
func (r *runner) sure(list []change) {
	for _, c := range list {
		if st := &c.o.hist[c.index]; st.sure == never {
			st.sure = r.now()
		}
	}
	r.soft = slices.DeleteFunc(r.soft, func(c change) bool { return c.o.hist[c.index].sure != never })
}

// sync makes everything that is acknowledged durable.
func (r *runner) sync() {
	soft := slices.Clone(r.soft)
	r.running++
	r.s.Submit(&store.Op{Kind: store.OpSync, Done: func(op *store.Op) {
		r.running--
		switch {
		case r.lenient && errors.Is(op.Err, store.ErrFailed) && r.s.Failure() != nil:
			r.failures++
		case op.Err != nil:
			r.wrong("a sync ended with %v", op.Err)
		default:
			r.sure(soft)
		}
	}})
}

// maySayFull complains when the store refuses although it has room.
func (r *runner) maySayFull(op *store.Op) {
	if op.Kind == store.OpReplace {
		return // pairs have limits of their own
	}
	st := r.s.Stats()
	if op.Pair.Session != 0 && st.Pairs >= st.MaxPairs/4*3 {
		return // there is no room for its request
	}
	if st.FreeBlocks > 0 && st.Objects+uint64(r.running) < st.Blocks {
		r.wrong("operation %d of object %v is refused for want of space where %d blocks are free", op.Kind, op.Object, st.FreeBlocks)
	}
}

func (r *runner) next() layout.Version {
	r.h.version++
	return r.h.version
}

// base is an Op of a kind that is made for the newest version of o.
func (r *runner) base(kind store.OpKind, o *object) *store.Op {
	top := o.newest().top()
	return &store.Op{Kind: kind, Base: top.Version, BaseInterval: top.Interval, Version: r.next(), Interval: layout.Interval(2 + r.h.version/8)}
}

// write writes units [from, from+n) of o.
func (r *runner) write(o *object, from, n int, unstable bool) {
	g := r.c.config.Granularity
	op := r.base(store.OpWrite, o)
	op.Unstable = unstable
	op.Offset, op.Len = uint32(from)*g, uint32(n)*g
	r.submit(o, op, r.values(n))
}

// lazy writes units [from, from+n) of o and does not ask that they are durable.
func (r *runner) lazy(o *object, from, n int, how store.Laziness) {
	g := r.c.config.Granularity
	op := r.base(store.OpWrite, o)
	op.Lazy = how
	op.Offset, op.Len = uint32(from)*g, uint32(n)*g
	r.submit(o, op, r.values(n))
}

func (r *runner) zero(o *object, from, n int, keep bool) {
	g := r.c.config.Granularity
	op := r.base(store.OpZero, o)
	op.KeepWritten = keep
	op.Offset, op.Len = uint32(from)*g, uint32(n)*g
	r.submit(o, op, nil)
}

// replace makes o what recovery would bring: half of its units hold data; now and then it is a tombstone.
func (r *runner) replace(o *object, v layout.Version) {
	op := r.base(store.OpReplace, o)
	op.Version = v
	units := r.c.units()
	values := r.values(units)
	written, present := make([]bool, units), make([]bool, units)
	if v != 0 && r.rng.IntN(6) == 0 {
		op.Flags = store.Tombstone
	}
	for u := range values {
		written[u] = op.Flags == 0 && r.rng.IntN(3) > 0
		present[u] = written[u] && r.rng.IntN(3) > 0
	}
	op.Bitmap, op.Present = bitmapOf(written), bitmapOf(present)
	if v != 0 && !r.bare {
		for _, p := range o.newest().pairs {
			if r.rng.IntN(2) == 0 && !r.over(p.Session) {
				op.Pairs = append(op.Pairs, p)
			}
		}
		op.Pairs = append(op.Pairs, store.PairVersion{Pair: store.Pair{Session: 5000 + uint64(r.h.version), Sequence: 1}, Version: v})
		r.h.sent = append(r.h.sent, sent{pair: op.Pairs[len(op.Pairs)-1].Pair, object: o, submitted: r.now()})
	}
	r.submit(o, op, values)
}

// over says whether a session has ended, as far as anybody knows.
func (r *runner) over(id uint64) bool {
	return slices.ContainsFunc(r.h.sessions, func(s *session) bool { return s.id == id && s.ended != never })
}

func (r *runner) pg(n uint32) *pgHistory {
	id := layout.PGID{Pool: 1, Num: n}
	for _, p := range r.h.pgs {
		if p.id == id {
			return p
		}
	}
	p := &pgHistory{id, []pgStep{{submitted: -1, acked: -1}}}
	r.h.pgs = append(r.h.pgs, p)
	return p
}

// putPG records a PG, or drops it.
func (r *runner) putPG(n uint32, drop bool) {
	p := r.pg(n)
	index := len(p.hist)
	r.running++
	moment := r.now()
	done := func(err error) {
		r.running--
		switch {
		case err != nil && r.lenient && r.s.Failure() != nil:
			r.failures++
		case err != nil:
			r.wrong("the record of PG %v ends with %v", p.id, err)
		default:
			p.hist[index].acked = r.now()
			r.acked++
		}
	}
	if drop {
		p.hist = append(p.hist, pgStep{nil, moment, never})
		r.s.DropPG(p.id, done)
		return
	}
	rec := &store.PGRecord{PG: p.id, Generation: 7, Interval: layout.Interval(r.rng.Uint64N(1 << 40)), Primary: 3, Instance: r.rng.Uint64(), PrimaryStore: layout.StoreID{byte(index), 2}, TookPart: layout.Interval(r.rng.Uint64N(1 << 40)),
		Floor: r.h.version, Participants: []store.Member{{OSD: 1, Store: layout.StoreID{1, byte(index)}}, {OSD: 2}}}
	for i := range r.rng.IntN(3) {
		rec.Sets = append(rec.Sets, store.PGSet{Interval: layout.Interval(i + 1), Members: []store.Member{{OSD: 9, Store: layout.StoreID{7, byte(i)}}}})
	}
	p.hist = append(p.hist, pgStep{rec, moment, never})
	r.s.PutPG(*rec, done)
}

// endSession ends the newest session and begins another.
func (r *runner) endSession() {
	s := r.h.sessions[len(r.h.sessions)-1]
	s.ended = r.now()
	// A request under way is recorded when it is durable, whether its session has ended meanwhile or not; the next call of EndSessions sees to it.
	s.lost = slices.ContainsFunc(r.h.sent, func(x sent) bool { return x.pair.Session == s.id && r.unanswered(&x) })
	r.s.EndSession(s.id)
	r.newSession()
}

func (r *runner) newSession() {
	r.h.sessions = append(r.h.sessions, &session{id: 100 + uint64(len(r.h.sessions)), ended: never, endedSure: never})
}

// drain waits for everything under way.
func (r *runner) drain() {
	if !r.w.RunUntil(func() bool { return r.running == 0 || r.problem != nil }, patience) {
		r.wrong("%d operations do not come to an end", r.running)
	}
}

// settleTime is enough for the flusher and the rounds of pages to come to rest when nothing changes.
const settleTime = 3 * time.Second

func (r *runner) settle() {
	r.drain()
	r.w.Run(settleTime)
}

// reopen closes the store in order and opens it again in the same process.
func (r *runner) reopen() {
	r.drain()
	err := r.close()
	if err == nil {
		r.sure(slices.Clone(r.soft))
		err = r.open()
	}
	if err != nil && !r.lenient {
		r.wrong("reopen: %w", err)
	}
}
