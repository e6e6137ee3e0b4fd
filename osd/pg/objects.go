// Package pg holds one PG in memory on its primary: the order of changes of each object, what readers may see, and which objects are not whole yet.
//
// osd/primary executes requests with it. It does no I/O and belongs to the OSD's loop. Objects are in the table only while something is under way with them or they are
// not whole; nothing is allocated for a request in steady state.
package pg

import (
	"cmp"
	"maps"
	"slices"

	"holdfast/core/layout"
	"holdfast/osd/peering"
)

// Change is one change of an object under way, from the moment its version is assigned until every member has it. It is embedded in the operation that makes it.
type Change struct {
	Object    *Object
	Version   layout.Version
	Tombstone bool
	Session   uint64
	Sequence  uint64
	Owner     any  // the operation that the change is embedded in
	Anew      bool // it makes an object whole that was not: nothing of what was there is left
	// Committed is called once, when this change and all before it are on every member. Set once by the owner.
	Committed func()

	acked bool
	next  *Change
}

// Waiter is an operation that waits for an object. It is embedded in the operation.
type Waiter struct {
	// Wake is called once when what was waited for has happened. Set once by the owner.
	Wake  func()
	Left  bool // Unblock takes it out
	until layout.Version
	next  *Waiter
}

// Object is one object with something under way.
type Object struct {
	ID layout.ObjectID

	// Last is the newest version assigned, whether committed or not; Gone says that it is a tombstone, or that the object never was.
	Last layout.Version
	Gone bool

	// Unclean says which members lack the truth; nil when the object is whole.
	Unclean    *peering.Unclean
	Recovering bool
	Corrupted  []layout.OSDNum // whose copies of the truth could not be read, or are known to be wrong
	// Of an Unclean object, why nobody can make it whole. It is neither read nor changed then, but for what needs nothing of what is there.
	Inconsistent bool // its copies differ, and nobody knows which are right
	Broken       bool // too few of its copies can be read

	committed  layout.Version
	head, tail *Change // assigned and not committed, in order
	readers    *Waiter // wait until committed reaches their version
	blocked    *Waiter // wait for the object to be whole, oldest first
	blockedEnd *Waiter
	turn       bool    // somebody has the object for himself,
	turns      *Waiter // and these wait for that, oldest first
	turnsEnd   *Waiter
	next       *Object
}

// Committed is the newest version that every member has, if Changing.
func (o *Object) Committed() layout.Version { return o.committed }

// Changing reports whether changes are under way.
func (o *Object) Changing() bool { return o.head != nil }

// Find is the change under way that a request of this session made, or nil.
func (o *Object) Find(session, sequence uint64) *Change {
	for c := o.head; c != nil; c = c.next {
		if c.Session == session && c.Sequence == sequence {
			return c
		}
	}
	return nil
}

// Table is the objects of one PG that something is under way with.
type Table struct {
	m    map[layout.ObjectID]*Object
	free *Object
}

// NewTable makes an empty one.
func NewTable() *Table { return &Table{m: make(map[layout.ObjectID]*Object)} }

// Len is the number of objects in the table.
func (t *Table) Len() int { return len(t.m) }

// Get finds an object; nil when nothing is under way with it.
func (t *Table) Get(id layout.ObjectID) *Object { return t.m[id] }

// Open finds or adds an object. last and gone describe what the primary's store holds and are taken over when it is added.
func (t *Table) Open(id layout.ObjectID, last layout.Version, gone bool) *Object {
	o := t.m[id]
	if o == nil {
		if o = t.free; o == nil {
			o = &Object{}
		} else {
			t.free = o.next
		}
		*o = Object{ID: id, Last: last, Gone: gone, committed: last}
		t.m[id] = o
	}
	return o
}

// Close takes an object out of the table if nothing is under way with it any more.
func (t *Table) Close(o *Object) {
	if o.head != nil || o.readers != nil || o.blocked != nil || o.turn || o.turns != nil || o.Unclean != nil || o.Recovering || t.m[o.ID] != o {
		return
	}
	delete(t.m, o.ID)
	*o = Object{next: t.free}
	t.free = o
}

// Assign puts c at the end of the object's order with the version it makes.
func (o *Object) Assign(c *Change) {
	c.Object, c.acked, c.next = o, false, nil
	if o.tail == nil {
		o.head = c
	} else {
		o.tail.next = c
	}
	o.tail = c
	o.Last, o.Gone = c.Version, c.Tombstone
}

// Ack says that every member has c. It commits c and what follows it as far as everything before is acknowledged too, wakes the readers that may see it, and closes the object when
// nothing is left.
func (t *Table) Ack(c *Change) {
	o := c.Object
	c.acked = true
	anew := false
	for o.head != nil && o.head.acked {
		d := o.head
		if o.head = d.next; o.head == nil {
			o.tail = nil
		}
		d.next, d.Object = nil, nil
		o.committed = d.Version
		anew = anew || d.Anew
		d.Committed()
	}
	t.wakeReaders(o)
	if anew && t.m[o.ID] == o {
		t.Whole(o, o.Last, o.Gone)
		return
	}
	t.Close(o)
}

// Retract takes c back, the only change of its object under way: no member has it any more. last and gone are what the object is without it.
func (t *Table) Retract(c *Change, last layout.Version, gone bool) {
	o := c.Object
	if o.head != c || o.tail != c {
		panic("pg: a change was taken back that is not the only one of its object")
	}
	o.head, o.tail, c.Object = nil, nil, nil
	o.Last, o.Gone, o.committed = last, gone, last
	for w := o.readers; w != nil; w = w.next {
		w.until = 0 // they look again
	}
	t.wakeReaders(o)
	if c.Anew {
		c.Anew, o.Recovering = false, false
		t.Wake(o)
	}
	if t.m[o.ID] == o {
		t.Close(o)
	}
}

// Await calls w.Wake when the object's committed version has reached v.
func (o *Object) Await(w *Waiter, v layout.Version) {
	w.until = v
	w.next, o.readers = o.readers, w
}

func (t *Table) wakeReaders(o *Object) {
	var keep, wake *Waiter
	for w := o.readers; w != nil; {
		next := w.next
		if w.until <= o.committed {
			w.next, wake = wake, w
		} else {
			w.next, keep = keep, w
		}
		w = next
	}
	o.readers = keep
	for wake != nil {
		w := wake
		wake, w.next = w.next, nil
		w.Wake()
	}
}

// Block calls w.Wake when the object is whole.
func (o *Object) Block(w *Waiter) {
	w.next = nil
	if o.blocked == nil {
		o.blocked = w
	} else {
		o.blockedEnd.next = w
	}
	o.blockedEnd = w
}

// Unblock takes those out that have Left, without waking them.
func (o *Object) Unblock() {
	at := &o.blocked
	o.blockedEnd = nil
	for w := o.blocked; w != nil; w = *at {
		if !w.Left {
			o.blockedEnd, at = w, &w.next
			continue
		}
		*at = w.next
		w.Left, w.next = false, nil
	}
}

// TakeTurn gives the object to w's owner for himself, until EndTurn; false: somebody has it, and w.Wake is called when it is w's turn to ask again.
func (o *Object) TakeTurn(w *Waiter) bool {
	if !o.turn {
		o.turn = true
		return true
	}
	w.next = nil
	if o.turns == nil {
		o.turns = w
	} else {
		o.turnsEnd.next = w
	}
	o.turnsEnd = w
	return false
}

// EndTurn lets the next one have the object who still wants it, or closes it.
func (t *Table) EndTurn(o *Object) {
	o.turn = false
	for id := o.ID; t.m[id] == o && !o.turn; {
		w := o.turns
		if w == nil {
			t.Close(o)
			return
		}
		if o.turns, w.next = w.next, nil; o.turns == nil {
			o.turnsEnd = nil
		}
		w.Wake()
	}
}

// Blocked reports whether somebody waits for the object to be whole.
func (o *Object) Blocked() bool { return o.blocked != nil }

// Whole says that every member has the object's truth, version v (gone: a tombstone or nothing), and lets those go on who waited for it, oldest first.
func (t *Table) Whole(o *Object, v layout.Version, gone bool) {
	o.Unclean, o.Recovering, o.Corrupted, o.Inconsistent, o.Broken = nil, false, nil, false, false
	o.Last, o.Gone, o.committed = v, gone, v
	t.Wake(o)
	if t.m[o.ID] == o {
		t.Close(o)
	}
}

// Wake lets those go on who wait for the object to be whole, oldest first: it is, or it is known that it will not be.
func (t *Table) Wake(o *Object) {
	w := o.blocked
	o.blocked, o.blockedEnd = nil, nil
	for w != nil {
		next := w.next
		w.next = nil
		w.Wake()
		w = next
	}
}

// Abandon empties the table because the interval is over: aborted is called for each change under way, and every waiter is woken. None of the changes will commit here.
func (t *Table) Abandon(aborted func(*Change)) {
	all := t.m
	t.m = make(map[layout.ObjectID]*Object)
	ids := slices.SortedFunc(maps.Keys(all), func(a, b layout.ObjectID) int {
		return cmp.Or(cmp.Compare(a.Inode, b.Inode), cmp.Compare(a.Stripe, b.Stripe))
	})
	for _, id := range ids {
		o := all[id]
		for c := o.head; c != nil; {
			next := c.next
			c.next, c.Object = nil, nil
			aborted(c)
			c = next
		}
		for _, list := range []*Waiter{o.readers, o.blocked, o.turns} {
			for w := list; w != nil; {
				next := w.next
				w.next = nil
				w.Wake()
				w = next
			}
		}
	}
}

// Unclean calls f for each object that is not whole, those that shall not exist included, in no particular order.
func (t *Table) Unclean(f func(*Object)) {
	for _, o := range t.m { // order: the caller sorts
		if o.Unclean != nil {
			f(o)
		}
	}
}

// Changing reports whether f holds for a change under way.
func (t *Table) Changing(f func(*Change) bool) bool {
	for _, o := range t.m { // order: a disjunction
		for c := o.head; c != nil; c = c.next {
			if f(c) {
				return true
			}
		}
	}
	return false
}
