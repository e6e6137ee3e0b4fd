package secondary

import (
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/sim"
	"holdfast/core/wire"
)

// What a member takes for settled is on every member: random changes, which become settled in another order than they were made, against a list of them all.
func TestReadsKnowWhatIsNotOnEveryMember(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	r := &reads{pending: map[layout.ObjectID]uint64{}}
	object := func(i uint64) layout.ObjectID { return layout.ObjectID{Stripe: i} }
	type change struct {
		object  uint64
		settled bool
	}
	var all []change // the n-th at n-1
	mark := uint64(0)
	for range 20000 {
		for len(all) > 0 && mark < uint64(len(all)) && rng.IntN(3) > 0 {
			all[rng.IntN(len(all)-int(mark))+int(mark)].settled = true
			for mark < uint64(len(all)) && all[mark].settled {
				mark++
			}
		}
		all = append(all, change{object: rng.Uint64N(50)})
		n := uint64(len(all))
		order, said := wire.SplitOrder(wire.Order(n, mark))
		if order != n || said != mark {
			t.Fatalf("Order(%d, %d) says %d, %d", n, mark, order, said)
		}
		r.received(object(all[n-1].object), order, said)
		if rng.IntN(10) == 0 {
			r.advance(mark)
		}
		for i := range uint64(50) {
			last := uint64(0)
			for j := n; j > r.mark && last == 0; j-- {
				if all[j-1].object == i {
					last = j
				}
			}
			if got := r.pending[object(i)]; got != last {
				t.Fatalf("after %d changes, settled up to %d: object %d is held back by change %d, want %d", n, r.mark, i, got, last)
			}
		}
	}
	if r.broken || len(r.queue)-r.head > int(uint64(len(all))-r.mark) {
		t.Errorf("broken %v, %d in the queue with %d pending", r.broken, len(r.queue)-r.head, uint64(len(all))-r.mark)
	}
	r.received(object(1), r.last+2, mark)
	if !r.broken || r.pending != nil {
		t.Error("a change is missing, and the member would answer")
	}
	r.received(object(1), r.last+1, mark)
	if !r.broken {
		t.Error("what is broken is whole again")
	}
	many := &reads{pending: map[layout.ObjectID]uint64{}}
	for n := range uint64(maxPending + 1) {
		many.received(object(n), n+1, 0)
	}
	if !many.broken {
		t.Error("more changes are remembered than are allowed")
	}
}

// A right counts from the answer that the primary heard last, and ends with the grant.
func TestRightsEndInTime(t *testing.T) {
	w := sim.NewWorld(3)
	defer w.Close()
	m := newMember(t, w)
	m.up()
	heard := func() uint64 {
		t.Helper()
		retval, a := m.locks.Renew(RenewRequest{Holder: osdA})
		if retval != 0 || a.Sent != uint64(m.l.Now()) {
			t.Fatalf("a renewal is answered %d at %d: %+v", retval, m.l.Now(), a)
		}
		return a.Sent
	}
	lend := func(heard, sent uint64, interval layout.Interval, d time.Duration) {
		t.Helper()
		q := RenewRequest{Holder: osdA, Heard: heard, Reads: []ReadRight{{PG: thePG, Interval: interval, Sent: sent, Mark: sent, For: d}}}
		if retval, _ := m.locks.Renew(q); retval != 0 {
			t.Fatalf("a renewal is answered %d", retval)
		}
	}
	may := func(want bool, when string) {
		t.Helper()
		if _, ok := m.locks.Right(thePG); ok != want {
			t.Errorf("%s: may read %v, want %v", when, ok, want)
		}
	}
	if retval, _ := m.lock(osdA, 5); retval != 0 {
		t.Fatal(retval)
	}
	may(false, "with nothing lent")
	at := heard()
	lend(at, 0, 4, time.Second)
	lend(at, 1, 5, time.Second)
	lend(at, 0, 5, 0)
	lend(at, 0, 5, ttl+1)
	lend(0, 0, 5, time.Second)
	lend(at+uint64(time.Hour), 0, 5, time.Second)
	may(false, "of another interval, with a change missing, for no time, for longer than any grant, without an answer heard, with one of the future")
	lend(at, 0, 5, time.Second)
	may(true, "lent")
	w.Run(899 * time.Millisecond)
	may(true, "before nine tenths of a second have passed")
	w.Run(2 * time.Millisecond)
	may(false, "afterwards")
	lend(at, 0, 5, time.Second)
	may(false, "lent again by an old answer")
	lend(heard(), 0, 5, time.Second)
	may(true, "lent again")
	r, _ := m.locks.Right(thePG)
	object := layout.ObjectID{Stripe: 7}
	change := func(n, mark uint64) {
		m.locks.ordered(&wire.SubChange{Object: object, Grant: wire.Grant{PG: thePG, Interval: 5, Instance: osdA.Instance}, Order: wire.Order(n, mark)})
	}
	change(1, 0)
	if m.locks.Settled(r, object) || !m.locks.Settled(r, layout.ObjectID{}) {
		t.Error("what has just come is settled, or something else is not")
	}
	lend(heard(), 1, 5, time.Second)
	if !m.locks.Settled(r, object) || !m.locks.InForce(r) {
		t.Error("the mark has passed it, and it is not settled")
	}
	change(3, 1)
	may(false, "a change is missing")
	if retval, _ := m.lock(osdA, 6); retval != 0 {
		t.Fatal(retval)
	}
	may(false, "in another interval")
	lend(heard(), 0, 6, time.Second)
	may(true, "lent in that")
	m.locks.ordered(&wire.SubChange{Object: object, Grant: wire.Grant{PG: thePG, Interval: 6, Instance: osdA.Instance}})
	may(false, "a change came without a place")
	if retval, _ := m.lock(osdA, 7); retval != 0 {
		t.Fatal(retval)
	}
	lend(heard(), 0, 7, time.Second)
	may(true, "lent in the next interval")
	if m.locks.InForce(r) {
		t.Error("the right of the interval before is in force")
	}
	m.locks.Unlock(wire.Grant{PG: thePG, Interval: 7, Instance: osdA.Instance})
	may(false, "given back")
	if retval, _ := m.lock(osdA, 8); retval != 0 {
		t.Fatal(retval)
	}
	lend(heard(), 0, 8, time.Second)
	may(true, "lent once more")
	m.locks.Dead(osdA.OSD, osdA.Instance)
	may(false, "its primary is dead")
}
