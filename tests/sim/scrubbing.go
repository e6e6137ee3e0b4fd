package sim

import (
	"time"

	"holdfast/core/wire"
)

// scrubbing has the copies of every object of the images compared, one after the other, and what is wrong made anew.
type scrubbing struct {
	r    *run
	k    *Client
	at   int // objects done
	bad  int // of them, those with something wrong, or not whole
	done func(bad int)
}

func (r *run) scrub(done func(bad int)) {
	s := &scrubbing{r: r, k: r.c.NewClient(uint64(10_000 + r.scrubs)), done: done}
	r.scrubs++
	s.next()
}

func (s *scrubbing) next() {
	r := s.r
	c := &r.plan.Config
	if s.at == c.Images*c.Objects || r.broken {
		s.k.hub.Close()
		s.done(s.bad)
		return
	}
	im, off := r.images[s.at/c.Objects], uint64(s.at%c.Objects)*c.Object()
	s.at++
	s.k.Begin(wire.ReadWrite{Op: wire.OpScrub, Inode: im.id, Offset: off}, nil, func(res Result) {
		var m wire.ScrubReply
		switch {
		case res.Retval != 0 || m.Decode(&res.Reply) != nil:
			r.fail("to scrub object %d of image %d is answered %d", s.at-1, im.n, res.Retval)
		case m.Found == wire.FoundInconsistent || m.Found == wire.FoundLost:
			r.fail("scrub finds object %d of image %d inconsistent (%v) or lost (%v), of which enough copies are right", s.at-1, im.n, m.Found == wire.FoundInconsistent, m.Found == wire.FoundLost)
		case m.Found == wire.FoundBad:
			r.cover("scrub found something wrong")
			s.bad++
		case m.Found == wire.FoundUnclean:
			s.bad++
		case m.Found == wire.FoundSame:
			r.cover("copies compared by scrub")
		}
		s.next()
	})
}

// scrubRounds is how often everything is scrubbed at the end, at most: what the first round finds wrong the next must find right.
const scrubRounds = 3

// scrubAll scrubs everything until nothing is wrong any more.
func (r *run) scrubAll() {
	for round := 1; !r.broken; round++ {
		over, wrong := false, 0
		r.scrub(func(bad int) { over, wrong = true, bad })
		if !r.c.W.RunUntil(func() bool { return over || r.broken }, answersWithin) {
			r.fail("scrub does not end: %s", r.c.describe())
			return
		}
		if !r.c.W.RunUntil(func() bool { return r.broken || r.clean() }, cleanWithin) {
			r.fail("not everything is clean %v after scrub: %s", cleanWithin, r.c.describe())
		}
		switch {
		case wrong == 0:
			return
		case round == scrubRounds:
			r.fail("scrub still finds %d objects wrong the %d. time", wrong, round)
			return
		}
		r.c.W.Run(time.Second)
	}
}

// scrubNow is everything scrubbed among the faults.
func (r *run) scrubNow(*PlannedFault) func() {
	r.operator(func() { r.scrub(func(int) { r.cover("everything scrubbed under load") }) })
	return nil
}
