// Package scrub goes through the objects of a PG and has the primary compare what the members have of each.
//
// osd starts it, one PG at a time, and keeps what it has done. It produces operations for the primary, and decides nothing about what they find. Everything belongs to the OSD's loop.
package scrub

import (
	"cmp"
	"slices"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/osd/primary"
)

// Target is what is scrubbed.
type Target interface {
	// List brings objects of a PG that we serve, from a place in our store on, in no order, and where to resume; one may come more than once. What is deleted may be among them.
	List(pg layout.PGID, after uint64) (list []layout.ObjectID, next uint64, more bool)
	// Compare is primary.Primary's.
	Compare(pg layout.PGID, id layout.ObjectID, done func(primary.Compared))
	// Rest is how long scrub rests after something that took so long, for clients' sake.
	Rest(took time.Duration) time.Duration
}

// Tuning is what may change while it runs.
type Tuning struct {
	Depth     int           // scrub_queue_depth: objects compared at once
	Sleep     time.Duration // scrub_sleep: pause after each
	ListLimit int           // scrub_list_limit: objects that are remembered at once
	Paused    bool          // no_scrub
}

// DefaultTuning is what the parameters say where nobody has set them.
func DefaultTuning() Tuning { return Tuning{Depth: 1, ListLimit: 262144} }

// Done sums up what a pass has done.
type Done struct {
	At           layout.ObjectID // objects before this one have been compared
	Objects      uint64
	Bytes        uint64 // read, of all copies
	Bad          uint64 // copies that were wrong
	Inconsistent uint64 // objects
	Lost         uint64 // objects of which too few copies can be read
	Skipped      uint64 // objects that could not be compared, because copies were missing
}

// maxAgain bounds the objects that are tried a second time at the end of a pass.
const maxAgain = 4096

// againPause is how long those rest that are being recovered.
const againPause = time.Second

// Scrubber makes one pass at a time.
type Scrubber struct {
	l loop.Loop
	t Target
	h Tuning

	pg     layout.PGID
	round  uint64 // a new one for each pass: what is under way of an earlier one is not heard any more
	going  bool
	done   Done
	ended  func(d Done, whole bool)
	page   []layout.ObjectID // to be compared, in order
	at     int               // of page
	last   bool              // there is nothing behind page
	under  []layout.ObjectID // being compared
	again  []layout.ObjectID // that were being recovered
	second bool              // these are being tried again
	listed uint64            // where the listing of a page goes on
	lists  bool              // it is under way,
	cut    bool              // and not all that it found has room in the page
	list   loop.Task
	rest   loop.Timer // before again
	lanes  []*lane
	kick   loop.Task
}

// lane is the place of one object under way.
type lane struct {
	s     *Scrubber
	busy  bool
	rest  loop.Timer
	start loop.Instant
}

// New makes one that does nothing yet.
func New(l loop.Loop, t Target) *Scrubber {
	s := &Scrubber{l: l, t: t, h: DefaultTuning()}
	s.list.Run = s.listSome
	s.kick.Run = s.run
	s.rest.Fire = func() {
		s.second = true
		s.page, s.at, s.again = s.again, 0, nil
		s.run()
	}
	return s
}

// Tune takes over t.
func (s *Scrubber) Tune(t Tuning) {
	s.h = t
	s.l.Post(&s.kick)
}

// Tuning is what Tune has set.
func (s *Scrubber) Tuning() Tuning { return s.h }

// Start begins a pass over a PG behind what was done before. ended is called once, later, unless the pass is stopped; whole is false when the PG is not served any more.
func (s *Scrubber) Start(pg layout.PGID, before Done, ended func(d Done, whole bool)) {
	s.Stop()
	s.going, s.pg, s.done, s.ended = true, pg, before, ended
	s.l.Post(&s.kick)
}

// Stop ends the pass under way, if there is one, and says nothing to anybody.
func (s *Scrubber) Stop() {
	s.round++
	s.l.Disarm(&s.rest)
	s.going, s.ended, s.page, s.at, s.last, s.under, s.again, s.second, s.lists, s.listed = false, nil, nil, 0, false, nil, nil, false, false, 0
	for _, n := range s.lanes {
		s.l.Disarm(&n.rest)
		n.busy = false
	}
}

// Going is the PG whose pass is under way.
func (s *Scrubber) Going() (layout.PGID, bool) { return s.pg, s.going }

// Done is what the pass under way has done.
func (s *Scrubber) Done() Done {
	d := s.done
	switch {
	case s.second:
		d.Skipped += uint64(len(s.page)-s.at) + uint64(len(s.under))
	default:
		d.Skipped += uint64(len(s.again))
		for _, id := range s.under { // what is behind them may be done already
			if compare(id, d.At) < 0 {
				d.At = id
			}
		}
	}
	return d
}

func compare(a, b layout.ObjectID) int {
	return cmp.Or(cmp.Compare(a.Inode, b.Inode), cmp.Compare(a.Stripe, b.Stripe))
}

// run starts as many objects as there may be under way. A page that is being listed is not whole yet.
func (s *Scrubber) run() {
	for i := 0; i < max(s.h.Depth, 1) && s.going && !s.lists && !s.h.Paused; i++ {
		if i == len(s.lanes) {
			n := &lane{s: s}
			n.rest.Fire = s.run
			s.lanes = append(s.lanes, n)
		}
		n := s.lanes[i]
		if n.busy || n.rest.Armed() {
			continue
		}
		if s.at == len(s.page) {
			s.more()
			return
		}
		n.begin(s.page[s.at])
	}
}

// more goes on when nothing is left of the page.
func (s *Scrubber) more() {
	switch {
	case s.rest.Armed():
	case !s.last:
		s.lists, s.cut, s.listed, s.page, s.at = true, false, 0, s.page[:0], 0
		s.l.Post(&s.list)
	case len(s.under) > 0:
	case !s.second && len(s.again) > 0:
		s.l.Arm(&s.rest, s.l.Now().Add(againPause))
	default:
		s.end(true)
	}
}

func (s *Scrubber) end(whole bool) {
	d, ended := s.Done(), s.ended
	s.Stop()
	ended(d, whole)
}

// listSome lists a part of the PG: a page is those objects that come first behind what is done.
func (s *Scrubber) listSome() {
	if !s.going || !s.lists {
		return
	}
	list, next, more := s.t.List(s.pg, s.listed)
	s.listed = next
	for _, id := range list {
		if compare(id, s.done.At) >= 0 {
			s.page = append(s.page, id)
		}
	}
	limit := max(s.h.ListLimit, 1)
	if len(s.page) >= 2*limit || !more {
		slices.SortFunc(s.page, compare)
		if s.page = slices.Compact(s.page); len(s.page) > limit {
			s.page, s.cut = s.page[:limit], true
		}
	}
	if more {
		s.l.Post(&s.list)
		return
	}
	s.lists, s.last = false, !s.cut
	s.run()
}

// begin compares one object.
func (n *lane) begin(id layout.ObjectID) {
	s := n.s
	s.at++
	n.busy, n.start = true, s.l.Now()
	s.under = append(s.under, id)
	if !s.second {
		s.done.At = id
		s.done.At.Stripe++ // the objects behind it
	}
	round := s.round
	s.t.Compare(s.pg, id, func(c primary.Compared) {
		if round == s.round {
			n.compared(id, c)
		}
	})
}

// compared takes what was found.
func (n *lane) compared(id layout.ObjectID, c primary.Compared) {
	s := n.s
	n.busy = false
	if c.Over {
		s.end(false)
		return
	}
	s.under = slices.DeleteFunc(s.under, func(o layout.ObjectID) bool { return o == id })
	s.note(id, c)
	if pause := max(s.h.Sleep, s.t.Rest(s.l.Now().Sub(n.start))); pause > 0 && c.Bytes > 0 {
		s.l.Arm(&n.rest, s.l.Now().Add(pause))
		return
	}
	s.l.Post(&s.kick)
}
