package crash

import (
	"slices"

	"holdfast/core/layout"
	"holdfast/osd/store"
)

// never is the moment of what has not happened.
const never = int(^uint(0) >> 1)

// Moments are positions in the recording of the disk: what happened at moment m happened before the step with that index.

// object is what has been done to one object.
type object struct {
	id   layout.ObjectID
	hist []step // hist[0] is how it was when the recording began; the others in the order of Submit
}

type step struct {
	snap
	kind             store.OpKind
	submitted, acked int
	sure             int // when it must be durable: acked, but for lazy changes
}

func (o *object) newest() snap { return o.hist[len(o.hist)-1].snap }

// pgHistory is what has been done to one PG record.
type pgHistory struct {
	id   layout.PGID
	hist []pgStep
}

type pgStep struct {
	rec              *store.PGRecord // nil: none
	submitted, acked int
}

// sent is a request with an identity.
type sent struct {
	pair      store.Pair
	object    *object
	low       uint64 // the mark that went with it
	submitted int
}

// session is one writer.
type session struct {
	id        uint64
	sequence  uint64
	low       uint64
	ended     int  // when EndSession was called
	endedSure int  // when something submitted later was acknowledged
	lost      bool // the power went before that, or requests were under way: nobody knows whether its requests are forgotten
}

// history is everything that a store was asked to do and has answered.
type history struct {
	objects  []*object
	pgs      []*pgHistory
	sessions []*session
	sent     []sent

	version layout.Version // the last one used
	tag     uint64         // the last value used
}

// window is what may be found of something after a cut at moment m: entries lo to hi of its history.
func window[T any](hist []T, m int, times func(*T) (submitted, acked int)) (lo, hi int) {
	for i := range hist {
		s, a := times(&hist[i])
		if a <= m {
			lo = i
		}
		if s < m {
			hi = i
		}
	}
	return lo, max(lo, hi)
}

func (s *step) times() (int, int)   { return s.submitted, s.sure }
func (s *step) seen() (int, int)    { return s.submitted, s.acked }
func (s *pgStep) times() (int, int) { return s.submitted, s.acked }

// fork is a history that begins where this one ends, with nothing under way.
func (h *history) fork() *history {
	f := &history{version: h.version, tag: h.tag}
	for _, o := range h.objects {
		f.objects = append(f.objects, &object{o.id, []step{{snap: o.newest(), submitted: -1, acked: -1, sure: -1}}})
	}
	for _, p := range h.pgs {
		f.pgs = append(f.pgs, &pgHistory{p.id, []pgStep{{rec: p.hist[len(p.hist)-1].rec, submitted: -1, acked: -1}}})
	}
	for _, s := range h.sessions {
		c := *s
		if c.ended != never {
			c.ended = -1
		}
		if c.endedSure != never {
			c.endedSure = -1
		}
		c.lost = c.lost || c.ended != never && c.endedSure == never
		f.sessions = append(f.sessions, &c)
	}
	for _, x := range h.sent {
		i := slices.Index(h.objects, x.object)
		f.sent = append(f.sent, sent{pair: x.pair, object: f.objects[i], low: x.low, submitted: -1})
	}
	return f
}

func (h *history) object(n uint64) *object {
	id := objectID(n)
	for _, o := range h.objects {
		if o.id == id {
			return o
		}
	}
	return nil
}

// objectID gives every object an inode of its own, so that the space of each can be asked for, and some a role.
func objectID(n uint64) layout.ObjectID {
	return layout.ObjectID{Inode: layout.MakeInode(1, n), Stripe: n%5<<20 | n%7}
}

func (h *history) add(n uint64, units int) *object {
	o := &object{objectID(n), []step{{snap: snap{stack: []version{nothing(units)}}, submitted: -1, acked: -1, sure: -1}}}
	h.objects = append(h.objects, o)
	return o
}
