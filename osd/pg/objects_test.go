package pg

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"holdfast/core/layout"
	"holdfast/osd/peering"
)

func id(n uint64) layout.ObjectID {
	return layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: n << 17}
}

// trace collects what happened, in order.
type trace []string

func (tr *trace) change(v layout.Version) *Change {
	c := &Change{Version: v}
	c.Committed = func() { *tr = append(*tr, fmt.Sprintf("commit %d", v)) }
	return c
}

func (tr *trace) waiter(name string) *Waiter {
	return &Waiter{Wake: func() { *tr = append(*tr, name) }}
}

func (tr *trace) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(*tr, want) {
		t.Errorf("happened: %v, want %v", *tr, want)
	}
}

func TestChangesCommitInOrder(t *testing.T) {
	var tr trace
	tab := NewTable()
	o := tab.Open(id(1), 4, false)
	c5, c6, c7 := tr.change(5), tr.change(6), tr.change(7)
	for _, c := range []*Change{c5, c6, c7} {
		o.Assign(c)
	}
	o.Await(tr.waiter("reader of 6"), 6)
	if o.Last != 7 || o.Committed() != 4 || !o.Changing() {
		t.Fatalf("last %d, committed %d", o.Last, o.Committed())
	}
	tab.Ack(c6)
	tr.expect(t)
	tab.Ack(c5)
	tr.expect(t, "commit 5", "commit 6", "reader of 6")
	if o.Committed() != 6 || tab.Get(id(1)) != o {
		t.Fatalf("committed %d, want 6", o.Committed())
	}
	tab.Ack(c7)
	tr.expect(t, "commit 5", "commit 6", "reader of 6", "commit 7")
	if tab.Len() != 0 {
		t.Error("the object stays in the table with nothing under way")
	}
}

func TestFindSeesWhatIsUnderWay(t *testing.T) {
	var tr trace
	tab := NewTable()
	o := tab.Open(id(1), 0, true)
	a, b := tr.change(1), tr.change(2)
	a.Session, a.Sequence, b.Session, b.Sequence = 7, 1, 7, 2
	o.Assign(a)
	o.Assign(b)
	tab.Ack(a)
	if o.Find(7, 1) != nil || o.Find(7, 2) != b || o.Find(8, 2) != nil {
		t.Error("Find gives the wrong change")
	}
	if a.Object != nil {
		t.Error("a committed change still points to its object")
	}
}

func TestTombstoneShows(t *testing.T) {
	var tr trace
	tab := NewTable()
	o := tab.Open(id(1), 3, false)
	c := tr.change(4)
	c.Tombstone = true
	o.Assign(c)
	if !o.Gone || o.Last != 4 {
		t.Errorf("gone %v at %d after a delete was assigned", o.Gone, o.Last)
	}
	d := tr.change(5)
	o.Assign(d)
	if o.Gone {
		t.Error("gone after a write over the delete")
	}
}

func TestBlockedGoOnInOrderWhenWhole(t *testing.T) {
	var tr trace
	tab := NewTable()
	o := tab.Open(id(1), 9, false)
	o.Unclean = &peering.Unclean{Object: id(1)}
	o.Recovering = true
	tab.Close(o)
	if tab.Get(id(1)) != o {
		t.Fatal("an object that is not whole was closed")
	}
	o.Block(tr.waiter("a"))
	o.Block(&Waiter{Wake: func() {
		tr = append(tr, "b")
		// The first to go on closes the object and opens another in its memory, as an operation may.
		tab.Close(o)
		p := tab.Open(id(2), 1, false)
		p.Assign((&trace{}).change(2))
	}})
	o.Block(tr.waiter("c"))
	tab.Whole(o, 12, false)
	tr.expect(t, "a", "b", "c")
	if tab.Get(id(1)) != nil {
		t.Error("the whole object stays in the table")
	}
	if p := tab.Get(id(2)); p == nil || !p.Changing() {
		t.Error("the object that took over the memory was closed with a change under way")
	}
}

func TestAbandonEndsEverything(t *testing.T) {
	var tr trace
	tab := NewTable()
	o := tab.Open(id(2), 1, false)
	c := tr.change(2)
	o.Assign(c)
	o.Await(tr.waiter("reader"), 2)
	u := tab.Open(id(1), 1, false)
	u.Unclean = &peering.Unclean{}
	u.Block(tr.waiter("blocked"))
	tab.Abandon(func(c *Change) { tr = append(tr, fmt.Sprintf("aborted %d", c.Version)) })
	tr.expect(t, "blocked", "aborted 2", "reader")
	if tab.Len() != 0 || c.Object != nil {
		t.Error("something is left")
	}
	// What finishes afterwards must not touch the table.
	tab.Close(u)
	tab.Whole(u, 3, false)
	if tab.Len() != 0 {
		t.Error("an abandoned object came back")
	}
}

// A reader that is woken may end the interval, which abandons the table under the hands of Ack.
func TestAbandonInsideAck(t *testing.T) {
	var tr trace
	tab := NewTable()
	o := tab.Open(id(1), 1, false)
	a, b := tr.change(2), tr.change(3)
	o.Assign(a)
	o.Assign(b)
	o.Await(tr.waiter("second"), 2)
	o.Await(&Waiter{Wake: func() {
		tr = append(tr, "first")
		tab.Abandon(func(c *Change) { tr = append(tr, fmt.Sprintf("aborted %d", c.Version)) })
	}}, 2)
	o.Await(tr.waiter("later"), 3)
	tab.Ack(a)
	slices.Sort(tr)
	tr.expect(t, "aborted 3", "commit 2", "first", "later", "second")
	if p := tab.Open(id(5), 1, false); p == o {
		t.Error("an abandoned object is used again")
	}
}

// The table is compared with plain slices through random sequences.
func TestRandomOrder(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		tab := NewTable()
		type state struct {
			last      layout.Version
			committed layout.Version
			open      []*Change
			acked     map[*Change]bool
		}
		objs := map[layout.ObjectID]*state{}
		for range 200 {
			oid := id(rng.Uint64N(4))
			s := objs[oid]
			if s == nil {
				s = &state{acked: map[*Change]bool{}}
				objs[oid] = s
			}
			o := tab.Get(oid)
			if (o != nil) != (len(s.open) > 0) {
				t.Fatalf("seed %d: in the table: %v, changes under way: %d", seed, o != nil, len(s.open))
			}
			if rng.IntN(2) == 0 {
				o = tab.Open(oid, s.last, false)
				s.last++
				c := &Change{Version: s.last}
				c.Committed = func() {
					if len(s.open) == 0 || s.open[0] != c || !s.acked[c] {
						t.Fatalf("seed %d: change %d commits out of order", seed, c.Version)
					}
					s.open = s.open[1:]
					s.committed = c.Version
				}
				o.Assign(c)
				s.open = append(s.open, c)
				continue
			}
			var todo []*Change
			for _, c := range s.open {
				if !s.acked[c] {
					todo = append(todo, c)
				}
			}
			if len(todo) == 0 {
				continue
			}
			c := todo[rng.IntN(len(todo))]
			s.acked[c] = true
			tab.Ack(c)
			if len(s.open) > 0 && s.acked[s.open[0]] {
				t.Fatalf("seed %d: an acknowledged change at the head did not commit", seed)
			}
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	tab := NewTable()
	c, d := &Change{}, &Change{}
	committed := 0
	c.Committed = func() { committed++ }
	d.Committed = c.Committed
	w := &Waiter{Wake: func() {}}
	v := layout.Version(0)
	op := func() {
		o := tab.Open(id(uint64(v)%8), v, false)
		c.Version, d.Version = v+1, v+2
		o.Assign(c)
		o.Assign(d)
		o.Await(w, v+2)
		v += 2
		tab.Ack(d)
		tab.Ack(c)
	}
	for range 100 {
		op()
	}
	if n := testing.AllocsPerRun(1000, op); n != 0 {
		t.Errorf("%v allocations for each pair of changes, want 0", n)
	}
	if tab.Len() != 0 || committed < 2000 {
		t.Errorf("%d objects left, %d commits", tab.Len(), committed)
	}
}

func TestUnblockTakesOutWhoHasLeft(t *testing.T) {
	for left := range 1 << 4 {
		var woken, want []int
		var w [5]Waiter
		table := NewTable()
		o := table.Open(layout.ObjectID{Stripe: 1}, 1, false)
		o.Unclean = &peering.Unclean{}
		for i := range w {
			w[i].Wake = func() { woken = append(woken, i) }
			if i == 4 {
				o.Unblock()
			} else if w[i].Left = left>>i&1 == 1; !w[i].Left {
				want = append(want, i)
			}
			o.Block(&w[i])
		}
		table.Whole(o, 1, false)
		if !slices.Equal(woken, append(want, 4)) {
			t.Errorf("left %04b: woken are %v, want %v and 4", left, woken, want)
		}
	}
}
