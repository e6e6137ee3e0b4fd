package scrub

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/sim"
	"holdfast/core/wire"
	"holdfast/osd/primary"
)

// yard is a PG with objects, listed in no order.
type yard struct {
	l       *sim.Loop
	objects []layout.ObjectID
	found   map[layout.ObjectID][]wire.Found // what the next comparisons find; nothing: the same
	asked   []layout.ObjectID
	under   int
	most    int
	rest    time.Duration
	over    bool
}

func (y *yard) List(_ layout.PGID, after uint64) (list []layout.ObjectID, next uint64, more bool) {
	end := min(after+7, uint64(len(y.objects)))
	return append(y.objects[after:end:end], y.objects[:min(2, end)]...), end, end < uint64(len(y.objects)) // some more than once
}

func (y *yard) Compare(_ layout.PGID, id layout.ObjectID, done func(primary.Compared)) {
	if y.over {
		done(primary.Compared{Over: true})
		return
	}
	y.asked = append(y.asked, id)
	y.under++
	y.most = max(y.most, y.under)
	c := primary.Compared{Bytes: 100}
	if list := y.found[id]; len(list) > 0 {
		c.Found, y.found[id] = list[0], list[1:]
	}
	if c.Found == wire.FoundNothing {
		c.Bytes = 0
	}
	y.l.Arm(&loop.Timer{Fire: func() {
		y.under--
		done(c)
	}}, y.l.Now().Add(time.Millisecond))
}

func (y *yard) Rest(time.Duration) time.Duration { return y.rest }

var pg = layout.PGID{Pool: 1, Num: 1}

func object(i int) layout.ObjectID {
	return layout.ObjectID{Inode: layout.MakeInode(1, uint64(1+i/10)), Stripe: uint64(i%10) << 17}
}

// start makes a PG of n objects and a Scrubber.
func start(t *testing.T, n int) (*sim.World, *yard, *Scrubber) {
	w := sim.NewWorld(1)
	t.Cleanup(w.Close)
	y := &yard{l: w.NewLoop("osd"), found: map[layout.ObjectID][]wire.Found{}}
	for i := range n {
		y.objects = append(y.objects, object(i))
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { y.objects[i], y.objects[j] = y.objects[j], y.objects[i] })
	return w, y, New(y.l, y)
}

// Every object is compared once, in order, whatever there is room for, and as many at once as there may be.
func TestPassComparesEveryObjectInOrder(t *testing.T) {
	for _, n := range []int{0, 1, 50} {
		for _, limit := range []int{1, 3, 50, 1000} {
			for _, depth := range []int{1, 4} {
				w, y, s := start(t, n)
				s.Tune(Tuning{Depth: depth, ListLimit: limit})
				var got Done
				ended := 0
				s.Start(pg, Done{}, func(d Done, whole bool) {
					if got = d; whole {
						ended++
					}
				})
				w.Run(time.Second)
				if ended != 1 || got.Objects != uint64(n) || got.Bytes != uint64(100*n) || len(y.asked) != n || !slices.IsSortedFunc(y.asked, compare) || y.most > depth || n >= 50 && limit >= 50 && y.most != depth {
					t.Errorf("%d objects, %d listed at once, depth %d: ended %d times with %+v, asked for %d, %d at once", n, limit, depth, ended, got, len(y.asked), y.most)
				}
				if _, going := s.Going(); going {
					t.Error("it goes on")
				}
			}
		}
	}
}

// A pass that is stopped at any moment goes on where it was: nothing is left out, and only what was under way is compared again.
func TestPassGoesOn(t *testing.T) {
	for stop := range 60 {
		w, y, s := start(t, 40)
		s.Tune(Tuning{Depth: 3, ListLimit: 16})
		s.Start(pg, Done{}, func(Done, bool) {})
		w.Run(time.Duration(stop) * 300 * time.Microsecond)
		before := s.Done()
		s.Stop()
		first := len(y.asked)
		w.Run(10 * time.Millisecond)
		if len(y.asked) != first {
			t.Fatal("it goes on after it was stopped")
		}
		var got Done
		s.Start(pg, before, func(d Done, whole bool) { got = d })
		w.Run(time.Second)
		seen := map[layout.ObjectID]bool{}
		for _, id := range y.asked {
			seen[id] = true
		}
		if len(seen) != 40 || len(y.asked) > 43 || got.Objects != 0 && got.Objects < 40 {
			t.Errorf("stopped after %d: %d of 40 objects were compared, with %d comparisons; %+v", first, len(seen), len(y.asked), got)
		}
	}
}

func TestPassSumsUpWhatIsFound(t *testing.T) {
	w, y, s := start(t, 20)
	y.found[object(1)] = []wire.Found{wire.FoundNothing}
	y.found[object(2)] = []wire.Found{wire.FoundUnclean} // whole a second later
	y.found[object(3)] = []wire.Found{wire.FoundUnclean, wire.FoundUnclean}
	y.found[object(4)] = []wire.Found{wire.FoundInconsistent}
	y.found[object(5)] = []wire.Found{wire.FoundLost}
	y.found[object(6)] = []wire.Found{wire.FoundBad}
	var got Done
	s.Start(pg, Done{}, func(d Done, _ bool) { got = d })
	w.Run(5 * time.Second)
	if got.Objects != 18 || got.Skipped != 1 || got.Inconsistent != 1 || got.Lost != 1 {
		t.Errorf("%+v", got)
	}
}

// It pauses after each object as the primary says, or scrub_sleep if that is more, and waits while it may not go on; the end of a PG ends it.
func TestPassPausesAndEnds(t *testing.T) {
	w, y, s := start(t, 20)
	y.rest = 9 * time.Millisecond
	ends := 0
	s.Start(pg, Done{}, func(_ Done, whole bool) {
		if ends++; whole {
			t.Error("it is whole")
		}
	})
	w.Run(95 * time.Millisecond)
	if n := len(y.asked); n < 8 || n > 10 {
		t.Errorf("in 95 ms %d objects are compared, each takes 10", n)
	}
	s.Tune(Tuning{Depth: 1, ListLimit: 10, Sleep: 49 * time.Millisecond})
	n := len(y.asked)
	w.Run(200 * time.Millisecond)
	if n = len(y.asked) - n; n < 3 || n > 5 {
		t.Errorf("in 200 ms %d objects are compared, each takes 50", n)
	}
	s.Tune(Tuning{Depth: 1, ListLimit: 10, Paused: true})
	n = len(y.asked)
	w.Run(time.Second)
	if len(y.asked) > n {
		t.Error("it goes on although it is to pause")
	}
	y.over = true
	s.Tune(Tuning{Depth: 1, ListLimit: 10})
	w.Run(time.Second)
	if _, going := s.Going(); going || ends != 1 {
		t.Errorf("with its PG it ends %d times, goes on: %v", ends, going)
	}
}
