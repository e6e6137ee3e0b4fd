package peering

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"holdfast/core/layout"
)

// The model is a cluster of a few OSDs without time, disks or packets: stores are maps, and each step does one thing that may happen, or fails it half way. Machine, Judge and
// Record decide as they do in the daemon; the model's stores and locks obey the rules of osd/secondary. After each step it checks that
//   - what was acknowledged or read is never lost and never taken back,
//   - an object that is not unclean is the same on every member, so that the next write finds one base,
//   - recovery finds on each member what the verdict said, and only one primary is active.

type modelCopy struct {
	Entry
	content int // the write that made it
}

type modelStore struct {
	id       layout.StoreID
	objects  map[layout.ObjectID]modelCopy
	unstable map[layout.ObjectID][]modelCopy // erasure-coded: above the one in objects, which is stable
	synced   map[layout.ObjectID]int         // how many of those would survive a crash
	seen     layout.Interval
	seenBy   layout.OSDNum // the primary that it was locked for
	tookPart layout.Interval
	record   Record // as it was last told
	reported bool   // since etcd was set back
}

type modelLock struct {
	osd      layout.OSDNum // the primary that holds it
	run      int           // and its run
	interval layout.Interval
}

type modelOSD struct {
	num   layout.OSDNum
	up    bool
	run   int
	store *modelStore
	lock  modelLock
	m     *Machine // when it was made primary since it started
	todo  []Effect
	// while active
	acting  []Member
	unclean map[layout.ObjectID]*Unclean
	floor   layout.Version
	before  layout.Interval // the last one activated when it was judged
	mod     int             // of the record, as its machine knows it
}

type modelLate struct { // a change still on its way to a member
	to    layout.OSDNum
	lock  modelLock
	base  layout.Version
	write modelCopy
}

type model struct {
	rng     *rand.Rand
	osds    []*modelOSD
	record  Record
	owner   layout.OSDNum // of the state key
	primary layout.OSDNum
	target  []layout.OSDNum
	min     int
	objects []layout.ObjectID
	writes  int          // ever begun; a write's number is its content
	deletes map[int]bool // contents that are deletions
	low     map[layout.ObjectID]int
	dead    map[layout.ObjectID][][2]int // contents after the first up to the second were not there when the first was served: they must never come
	late    []modelLate
	stores  byte
	replace bool // a store was replaced: the PG may wait for ever
	calm    bool // nothing fails
	back    bool // etcd is set back now and then
	serves  int
	acked   int
	cut     [Waiting + 1]int // primaries replaced or crashed in each phase
	backups []Record
	mod     int                         // grows whenever the record is written, and when etcd is set back
	backs   int                         // how often that was
	undone  int                         // objects recovered without a newest version that nobody was told of
	earlier int                         // of them, those whose newest version was written before the last activated interval,
	spoilt  map[layout.OSDNum]modelCopy // copies that cannot be read; nil: chance decides
	beside  int                         // and those whose newest version a store beside the set has
	waits   int                         // one if an object waits in the end, because what cannot be read may have been acknowledged
	log     []string
	ec      modelEC
}

func newModel(seed uint64) *model {
	w := &model{rng: rand.New(rand.NewPCG(seed, 9)), low: map[layout.ObjectID]int{}, dead: map[layout.ObjectID][][2]int{}, deletes: map[int]bool{}}
	for i := range 3 + w.rng.IntN(2) {
		o := &modelOSD{num: layout.OSDNum(i + 1), up: true}
		w.format(o)
		w.osds = append(w.osds, o)
	}
	for i := range 1 + w.rng.IntN(3) {
		w.objects = append(w.objects, layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: uint64(i) << 17})
	}
	w.record.Generation = 1
	w.move()
	return w
}

func (w *model) say(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *model) format(o *modelOSD) {
	w.stores++
	o.store = &modelStore{id: layout.StoreID{w.stores}, objects: map[layout.ObjectID]modelCopy{}, unstable: map[layout.ObjectID][]modelCopy{}, synced: map[layout.ObjectID]int{}, reported: true}
}

func (w *model) osd(n layout.OSDNum) *modelOSD { return w.osds[n-1] }

func (w *model) fails(oneIn int) bool { return !w.calm && w.rng.IntN(oneIn) == 0 }

func (w *model) config() Config {
	c := Config{Target: w.target, MinSize: w.min, K: w.ec.k, Slots: w.ec.slots, Up: map[layout.OSDNum]layout.StoreID{}}
	for _, o := range w.osds {
		if o.up {
			c.Up[o.num] = o.store.id
		}
	}
	return c
}

// move chooses a target set and a primary.
func (w *model) move() {
	if w.ec.k > 0 {
		w.moveSlots()
		return
	}
	n := 1 + w.rng.IntN(3)
	w.target = nil
	for _, i := range w.rng.Perm(len(w.osds))[:n] {
		w.target = append(w.target, w.osds[i].num)
	}
	w.min = 1 + w.rng.IntN(2)
	if w.calm {
		w.min = 1
	}
	w.min = min(w.min, n)
	w.choose()
	w.say("target %v min %d primary %d", w.target, w.min, w.primary)
}

// choose names a primary; the one before may or may not notice at once.
func (w *model) choose() {
	old := w.primary
	w.primary = w.target[w.rng.IntN(len(w.target))]
	if old != 0 && old != w.primary {
		o := w.osd(old)
		if o.m != nil {
			w.cut[o.m.Phase]++
		}
		if o.m != nil && (w.calm || w.rng.IntN(2) == 0) {
			w.put(o, o.m.Unwant())
		}
		if w.owner == old && w.rng.IntN(2) == 0 {
			w.owner = 0 // its lease ran out
		}
	}
}

func (w *model) put(o *modelOSD, effects []Effect) {
	for _, e := range effects {
		switch e.Do {
		case Report:
		case Drain:
			o.todo, o.acting, o.unclean = nil, nil, nil
			w.put(o, o.m.Drained())
		case Retry:
			o.todo = slices.DeleteFunc(o.todo, func(e Effect) bool { return e.Do == Retry })
			o.todo = append(o.todo, e)
		default:
			o.todo = append(o.todo, e)
		}
	}
}

func (o *modelOSD) member() Member { return Member{OSD: o.num, Store: o.store.id} }

func (o *modelOSD) right() modelLock { return modelLock{o.num, o.run, o.m.Interval} }

// lost tells a primary that a member's grant is gone.
func (w *model) lost(l modelLock, member layout.OSDNum) {
	if l.osd == 0 {
		return
	}
	p := w.osd(l.osd)
	if p.up && p.run == l.run && p.m != nil {
		w.put(p, p.m.Lost(member))
	}
}

func (w *model) crash(o *modelOSD) {
	w.say("crash %d", o.num)
	if o.m != nil && o.num == w.primary {
		w.cut[o.m.Phase]++
	}
	o.up, o.m, o.todo, o.acting, o.unclean = false, nil, nil, nil, nil
	w.loseUnsynced(o)
	l := o.lock
	o.lock = modelLock{}
	o.run++
	w.lost(l, o.num)
	for _, p := range w.osds {
		if p.up && p.m != nil {
			w.put(p, p.m.Lost(o.num))
		}
	}
}

// do carries out one effect of a primary.
func (w *model) do(o *modelOSD, e Effect) {
	m, round := o.m, o.m.Round
	t := o
	if e.OSD != 0 {
		t = w.osd(e.OSD)
	}
	held := t.up && t.lock == o.right()
	switch e.Do {
	case Take:
		if w.fails(8) || w.owner != 0 && w.owner != o.num || w.primary != o.num || w.unreported() {
			w.put(o, m.TakeFailed(round, "etcd"))
			return
		}
		w.owner = o.num
		w.record.Interval = max(w.record.Interval, e.Above) + 1
		w.record.Primary = o.num
		w.mod++
		o.mod = w.mod
		w.say("take %d by %d", w.record.Interval, o.num)
		w.put(o, m.Taken(round, w.record))
	case Lock:
		switch {
		case !t.up || w.fails(10):
			w.put(o, m.Refused(round, t.num, 0))
			return
		case t.lock.osd != 0 && t.lock.osd != o.num && w.osd(t.lock.osd).up && w.osd(t.lock.osd).run == t.lock.run:
			if t.lock.osd == t.num && w.osd(t.lock.osd).m.Wanted() && t.num == w.primary || w.fails(2) {
				w.put(o, m.Refused(round, t.num, t.store.seen))
				return
			}
			l := t.lock
			t.lock = modelLock{} // it runs out, which its holder notices first
			w.lost(l, t.num)
		}
		if e.Interval <= t.store.seen {
			w.put(o, m.Refused(round, t.num, t.store.seen+1)) // ESTALE: only a higher one will do
			return
		}
		t.lock, t.store.seen, t.store.seenBy = modelLock{o.num, o.run, e.Interval}, e.Interval, o.num
		if w.back && t.store.tookPart > w.record.Activated && o.mod == w.mod && !w.unreported() {
			w.mustReport() // as osd's contradicted
		}
		w.put(o, m.Granted(round, t.num, t.store.id, t.store.seen, t.store.tookPart))
	case List:
		if !held || w.fails(20) {
			w.put(o, m.Restart())
			return
		}
		var list []Entry
		for _, c := range t.store.objects {
			list = append(list, c.Entry)
		}
		list = append(list, t.store.listUnstable()...)
		w.put(o, m.Listed(round, t.num, list))
	case Void:
		if !held {
			w.put(o, m.Restart())
			return
		}
		if w.fails(20) {
			w.put(o, m.Restart())
			return
		}
		t.store.tookPart, t.store.record = m.Record.Activated, m.Record.told() // so that the store knows by what it was judged, should etcd forget it
		if !w.rollback(t, e.Rollback) {
			w.put(o, m.Restart())
			return
		}
		for _, f := range e.Entries {
			c, ok := t.store.objects[f.Object]
			if !ok || !c.same(f) {
				panic(fmt.Sprintf("OSD %d is told to void %+v and has %+v", t.num, f, c))
			}
			if w.fails(12) {
				w.put(o, m.Restart())
				return
			}
			w.say("void on %d: %v content %d", t.num, f.Object.Stripe>>17, c.content)
			c.Void = true
			t.store.objects[f.Object] = c
		}
		w.put(o, m.Voided(round, t.num))
	case Activate:
		if o.mod != w.mod || w.owner != o.num || w.fails(20) {
			w.put(o, m.Activated(round, false))
			return
		}
		o.before, w.record = w.record.Activated, e.Record
		w.mod++
		o.mod = w.mod
		w.say("activate %d on %v, sets %v, participants %v", m.Interval, nums(e.Members), sets(e.Record.Sets), nums(e.Record.Participants))
		if w.fails(15) {
			w.put(o, m.Restart()) // the outcome is unknown
			return
		}
		w.put(o, m.Activated(round, true))
	case Announce:
		if !held || w.fails(20) {
			w.put(o, m.Restart())
			return
		}
		t.store.tookPart, t.store.record = e.Interval, m.Record.told()
		w.put(o, m.Announced(round, t.num))
	case Commit:
		if !held || w.fails(20) || !w.commit(t, e.Entries) {
			w.put(o, m.Restart())
			return
		}
		w.put(o, m.Committed(round, t.num))
	case Serve:
		for _, p := range w.osds {
			if p != o && p.m != nil && p.m.Phase == Active {
				panic(fmt.Sprintf("OSD %d becomes active while OSD %d is", o.num, p.num))
			}
		}
		w.serves++
		o.acting, o.floor = e.Members, e.Verdict.Floor
		o.unclean = map[layout.ObjectID]*Unclean{}
		for i := range e.Verdict.Unclean {
			o.unclean[e.Verdict.Unclean[i].Object] = &e.Verdict.Unclean[i]
		}
		w.say("serve %d by %d on %v, %d unclean", m.Interval, o.num, nums(e.Members), len(o.unclean))
		if w.ec.k > 0 {
			w.servedChunks(o, e)
			return
		}
		for _, id := range w.objects {
			w.check(o, id)
		}
	case Retry:
		w.put(o, m.Retry(round))
	case Release:
		for _, t := range w.osds {
			if t.lock.osd == o.num && t.lock.run == o.run {
				t.lock = modelLock{}
			}
		}
		if w.owner == o.num {
			w.owner = 0
		}
	}
}

// told is what stores remember of a record.
func (r Record) told() Record {
	r.Sets = slices.Clone(r.Sets)
	for i := range r.Sets {
		s := &r.Sets[i]
		s.Silent, s.First, s.Last = nil, 0, 0
	}
	return r
}

func nums(list []Member) (out []layout.OSDNum) {
	for _, m := range list {
		out = append(out, m.OSD)
	}
	return out
}

func sets(list []Set) (out [][]layout.OSDNum) {
	for _, s := range list {
		out = append(out, nums(s.Members))
	}
	return out
}

// check reads an object if it is whole.
func (w *model) check(o *modelOSD, id layout.ObjectID) {
	if w.ec.k > 0 {
		w.checkChunks(o, id)
		return
	}
	if o.m.Phase != Active || o.unclean[id] != nil {
		return
	}
	c := o.store.objects[id]
	if c.Version != 0 && c == w.spoilt[o.num] {
		return
	}
	for _, a := range o.acting {
		if d := w.osd(a.OSD).store.objects[id]; d != c && w.osd(a.OSD).store.id == a.Store {
			panic(fmt.Sprintf("object %d is not unclean, but OSD %d has %+v and OSD %d %+v", id.Stripe>>17, o.num, c, a.OSD, d))
		}
	}
	low := w.low[id]
	if c.Version == 0 {
		if low != 0 && !w.deletes[low] {
			panic(fmt.Sprintf("object %d is gone, but content %d was acknowledged or read", id.Stripe>>17, low))
		}
		return
	}
	for _, d := range w.dead[id] {
		if c.content > d[0] && c.content <= d[1] {
			panic(fmt.Sprintf("object %d reads as content %d (%+v), but after that was begun content %d was served as whole", id.Stripe>>17, c.content, c.Entry, d[0]))
		}
	}
	if n := len(w.dead[id]); n == 0 || w.dead[id][n-1] != [2]int{c.content, w.writes} {
		w.dead[id] = append(w.dead[id], [2]int{c.content, w.writes})
	}
	if c.Void || c.content < low {
		panic(fmt.Sprintf("object %d reads as content %d (%+v), but content %d was acknowledged or read", id.Stripe>>17, c.content, c.Entry, low))
	}
	w.low[id] = c.content
}

// active is the primary that serves, or nil.
func (w *model) active() *modelOSD {
	for _, o := range w.osds {
		if o.up && o.m != nil && o.m.Phase == Active && o.acting != nil {
			return o
		}
	}
	return nil
}

// write begins up to three changes of one object at once. Each member carries out the first few of them; those that all have carried out are acknowledged.
func (w *model) write(o *modelOSD) {
	id := w.objects[w.rng.IntN(len(w.objects))]
	if o.unclean[id] != nil {
		return
	}
	w.check(o, id)
	base := o.store.objects[id]
	if base.Version != 0 && base == w.spoilt[o.num] {
		return
	}
	n := 1 + w.rng.IntN(3)
	var chain []modelCopy
	last := base.Version
	for range n {
		w.writes++
		v := max(last, o.floor, layout.Version(o.m.Interval)<<layout.VersionCounterBits) + 1
		if w.rng.IntN(8) == 0 { // a hot object's counter reaches into a later interval's versions
			v = max(v, layout.Version(uint64(o.m.Interval)+1+w.rng.Uint64N(3))<<layout.VersionCounterBits+1)
		}
		c := modelCopy{Entry{Object: id, Version: v, Interval: o.m.Interval, Tombstone: w.rng.IntN(3) == 0}, w.writes}
		w.deletes[c.content] = c.Tombstone
		chain, last = append(chain, c), v
	}
	least := n
	for _, a := range o.acting {
		t := w.osd(a.OSD)
		k := n
		if w.fails(4) {
			k = w.rng.IntN(n + 1)
		}
		at := base.Version
		for i, c := range chain {
			if i < k {
				if t.lock != o.right() || t.store.objects[id].Version != at {
					panic(fmt.Sprintf("OSD %d refuses a write on base %x: it has %+v", t.num, at, t.store.objects[id]))
				}
				t.store.objects[id] = c
			} else if w.rng.IntN(2) == 0 {
				w.late = append(w.late, modelLate{t.num, t.lock, at, c})
			}
			at = c.Version
		}
		least = min(least, k)
		w.say("write %d: contents %d.. on %d: %d of %d", id.Stripe>>17, chain[0].content, t.num, k, n)
	}
	if least > 0 {
		w.acked++
		w.low[id] = chain[least-1].content
	}
	if least < n {
		w.put(o, o.m.Restart()) // a member failed
		if w.fails(2) {
			w.crash(w.osd(o.num)) // and one that may have more than the others is gone before the next interval
		}
	}
}

// spoil makes a change that reached one store alone unreadable there.
func (w *model) spoil() {
	id := w.objects[w.rng.IntN(len(w.objects))]
	var on *modelOSD
	for _, o := range w.osds {
		c := o.store.objects[id]
		if c.Void || c.Tombstone || c.content <= w.low[id] {
			continue
		}
		if on == nil || c.newer(on.store.objects[id].Entry) {
			on = o
		} else if c.same(on.store.objects[id].Entry) {
			return
		}
	}
	if on != nil {
		w.spoilt[on.num] = on.store.objects[id]
		w.say("spoilt on %d: object %d content %d", on.num, id.Stripe>>17, w.spoilt[on.num].content)
	}
}

// stuck reports whether an object waits because nothing proves that what cannot be read was never acknowledged.
func (w *model) stuck(o *modelOSD) bool {
	for _, id := range w.objects {
		u := o.unclean[id]
		for u != nil && u.Back != nil && w.unreadable(u) {
			u = u.Back
		}
		if u != nil && w.unreadable(u) {
			return true
		}
	}
	return false
}

// arrive carries out a change that was on its way, if the member still grants it.
func (w *model) arrive() {
	if len(w.late) == 0 {
		return
	}
	i := w.rng.IntN(len(w.late))
	l := w.late[i]
	w.late = slices.Delete(w.late, i, i+1)
	t := w.osd(l.to)
	if c := t.store.objects[l.write.Object]; t.up && t.lock == l.lock && c.Version == l.base && !c.Void {
		w.say("late write on %d: content %d", t.num, l.write.content)
		t.store.objects[l.write.Object] = l.write
	}
}

// unreadable reports whether no copy of an object's truth can be read.
func (w *model) unreadable(u *Unclean) bool {
	if w.spoilt == nil {
		return w.rng.IntN(3) == 0
	}
	return u.Truth.Version != 0 && !slices.ContainsFunc(u.Holders, func(n layout.OSDNum) bool { return w.osd(n).store.objects[u.Object] != w.spoilt[n] })
}

// recoverOne makes one object whole, or part of it.
func (w *model) recoverOne(o *modelOSD) {
	if w.ec.k > 0 && w.recoverChunks(o) || w.ec.k == 0 && w.recoverObjects(o) {
		w.cleaned(o)
	}
}

// recoverObjects reports whether the interval goes on.
func (w *model) recoverObjects(o *modelOSD) bool {
	for _, id := range w.objects {
		u := o.unclean[id]
		if u == nil || w.fails(2) {
			continue
		}
		if u.Back != nil && w.unreadable(u) {
			w.undone++
			if u.Truth.Interval < o.before {
				w.earlier++
			}
			for u.Back != nil && w.unreadable(u) {
				u = u.Back
			}
			if len(u.Newer) > 0 {
				w.beside++
			}
			w.say("object %d goes back to version %x of interval %d", id.Stripe>>17, uint64(u.Truth.Version), u.Truth.Interval)
		}
		truth := modelCopy{Entry: u.Truth}
		if u.Truth.Version != 0 {
			found := false
			for _, h := range u.Holders {
				s := w.osd(h)
				if c := s.store.objects[id]; s.up && s.lock == o.right() && c.same(u.Truth) && !c.Void && c != w.spoilt[h] {
					truth, found = c, true
				}
			}
			if !found && w.spoilt != nil && w.unreadable(u) {
				o.m.Unfound(o.m.Round)
				continue
			}
			if !found {
				w.put(o, o.m.Readmit())
				return false // until somebody who has it is back
			}
		}
		for _, l := range u.Lacks {
			t := w.osd(l.OSD)
			c := t.store.objects[id]
			if t.lock != o.right() || c.Version != l.Have.Version || c.Interval != l.Have.Interval {
				panic(fmt.Sprintf("OSD %d refuses a replacement: it has %+v, expected %+v", t.num, c.Entry, l.Have))
			}
			if w.fails(6) {
				w.put(o, o.m.Restart())
				return false
			}
			if truth.Version == 0 {
				delete(t.store.objects, id)
			} else {
				t.store.objects[id] = truth
			}
		}
		for _, l := range u.Newer {
			t := w.osd(l.OSD)
			c := t.store.objects[id]
			if !t.up || t.lock != o.right() || w.fails(6) {
				w.put(o, o.m.Restart())
				return false
			}
			if !c.same(l.Have) {
				panic(fmt.Sprintf("OSD %d refuses to void %+v: it has %+v", t.num, l.Have, c.Entry))
			}
			c.Void = true
			t.store.objects[id] = c
		}
		delete(o.unclean, id)
		w.say("recovered %d: content %d", id.Stripe>>17, truth.content)
		w.check(o, id)
	}
	return true
}

// cleaned makes the record clean when every object is whole.
func (w *model) cleaned(o *modelOSD) {
	if (w.record.Interval != o.m.Interval || w.record.Primary != o.num) && w.owner == o.num {
		w.put(o, o.m.Restart()) // somebody else took the PG meanwhile, or did in what etcd was set back to
		return
	}
	if len(o.unclean) == 0 && !o.m.Record.IsClean() && w.record.Interval == o.m.Interval && w.record.Primary == o.num && w.owner == o.num {
		w.say("clean")
		w.record = o.m.Record.Clean()
		w.mod++
		o.mod = w.mod
		o.m.Cleaned(o.m.Round, w.record)
		for _, a := range o.acting {
			if w.fails(10) {
				w.put(o, o.m.Restart())
				return
			}
			w.osd(a.OSD).store.record = w.record
		}
	}
}

// forget drops the tombstones of a clean PG.
func (w *model) forget(o *modelOSD) {
	if !o.m.Record.IsClean() {
		return
	}
	for _, id := range w.objects {
		c := o.store.objects[id]
		if o.unclean[id] != nil || !c.Tombstone || uint64(c.Version)>>layout.VersionCounterBits > uint64(o.m.Interval) {
			continue
		}
		w.check(o, id)
		o.floor = max(o.floor, c.Version)
		for _, a := range o.acting {
			if w.fails(6) {
				w.put(o, o.m.Restart())
				return
			}
			delete(w.osd(a.OSD).store.objects, id)
		}
		w.say("forgotten %d", id.Stripe>>17)
	}
}

// setBack puts an earlier record in the place of etcd's, which is declared: every store must report.
func (w *model) setBack() {
	w.record = w.backups[w.rng.IntN(len(w.backups))]
	w.owner = 0
	w.backs++
	w.say("etcd is set back to interval %d, activated %d on %v", w.record.Interval, w.record.Activated, sets(w.record.Sets))
	for _, o := range w.osds {
		if o.m != nil && o.m.Phase != Active && o.m.Phase != Offline && o.m.Phase != Draining {
			w.put(o, o.m.Restart()) // it sees that etcd went back
		}
	}
	w.mustReport()
}

func (w *model) mustReport() {
	w.mod++
	for _, o := range w.osds {
		o.store.reported = false
	}
}

func (w *model) unreported() bool {
	return slices.ContainsFunc(w.osds, func(o *modelOSD) bool { return !o.store.reported })
}

// report raises the record to what a store knows, by the rules of cluster.PGRecord.Newer.
func (w *model) report(o *modelOSD) {
	if !o.up || o.store.reported {
		return
	}
	o.store.reported = true
	known := o.store.record
	known.Activated, known.Interval = o.store.tookPart, o.store.seen
	needs := func(r Record) int {
		n := len(r.Participants)
		for _, s := range r.Sets {
			n += len(s.Members)
		}
		return n
	}
	n := w.record
	if known.Activated > n.Activated || known.Activated == n.Activated && needs(known) < needs(n) {
		n.Activated, n.Sets, n.Participants = known.Activated, known.Sets, known.Participants
	}
	if known.Interval > n.Interval {
		n.Interval, n.Primary = known.Interval, o.store.seenBy
	}
	n.Floor = max(n.Floor, known.Floor)
	w.record = n
	w.mod++
	w.say("report of %d: took part in %d of %v", o.num, known.Activated, sets(known.Sets))
}

// stops reports whether a primary is stopped in a phase; there are not voids in every peering.
func (w *model) stops(p Phase) bool {
	return w.rng.IntN(30) == 0 || (p == Voiding || p == Committing) && w.rng.IntN(2) == 0
}

func (w *model) step() {
	if w.back && !w.calm && !w.replace { // an earlier etcd names the store that was replaced: an operator gives it up
		if w.rng.IntN(10) == 0 {
			w.backups = append(w.backups, w.record)
		}
		if w.rng.IntN(70) == 0 && len(w.backups) > 0 {
			w.setBack()
		}
	}
	if w.unreported() && w.rng.IntN(3) == 0 {
		w.report(w.osds[w.rng.IntN(len(w.osds))])
	}
	if p := w.osd(w.primary); !w.calm && p.up && p.m != nil && p.m.Phase >= Locking && p.m.Phase <= Committing && w.stops(p.m.Phase) {
		if w.rng.IntN(2) == 0 {
			w.crash(p)
		} else {
			w.choose()
		}
	}
	o := w.osds[w.rng.IntN(len(w.osds))]
	switch r := w.rng.IntN(100); {
	case r < 4 && !w.calm:
		if o.up {
			w.crash(o)
		}
	case r < 12 || r >= 90 && !o.up:
		if !o.up {
			// A store is not replaced as long as it has not reported: osd's register refuses that.
			oneIn := 60
			if w.ec.k > 0 {
				oneIn = 15 // there are m of them
			}
			if w.rng.IntN(oneIn) == 0 && o.store.reported {
				w.say("replace %d", o.num)
				w.format(o)
				w.replace = true
			}
			w.say("start %d", o.num)
			o.up = true
			if w.owner == o.num {
				w.owner = 0
			}
		}
	case r < 15 && !w.calm:
		w.move()
	case r < 17 && !w.calm:
		w.choose()
	case r < 20 && !w.calm && w.owner != 0 && !w.osd(w.owner).up:
		w.owner = 0
	case r < 22 && o.m != nil && (!w.calm || len(o.m.LeftOut()) > 0):
		w.put(o, o.m.Readmit())
	case r < 49 && w.ec.k > 0:
		w.stepChunks(r - 22)
	case r < 28:
		w.arrive()
	case r < 40:
		if a := w.active(); a != nil {
			w.write(a)
		}
	case r < 46:
		if a := w.active(); a != nil {
			w.recoverOne(a)
		}
	case r < 49:
		if a := w.active(); a != nil {
			w.forget(a)
		}
	case r < 54 && w.spoilt != nil && !w.calm:
		w.spoil()
	default:
		if p := w.osd(w.primary); p.up {
			if p.m == nil {
				p.m = New(p.member())
			}
			if p.m.Phase == Waiting && p.mod != w.mod {
				p.mod = w.mod
				w.put(p, p.m.Restart()) // by a record that is not the last any more
			}
			w.put(p, p.m.Want(w.config()))
		}
		most := 3
		if w.ec.k > 0 {
			most = 12 // there are more members
		}
		for range 1 + w.rng.IntN(most) {
			w.work()
		}
	}
}

// work carries out one effect of somebody.
func (w *model) work() {
	var busy []*modelOSD
	for _, o := range w.osds {
		if o.up && len(o.todo) > 0 {
			busy = append(busy, o)
		}
	}
	if len(busy) == 0 {
		return
	}
	o := busy[w.rng.IntN(len(busy))]
	i := w.rng.IntN(len(o.todo))
	e := o.todo[i]
	o.todo = slices.Delete(o.todo, i, i+1)
	w.do(o, e)
}

// settle lets everything come back and nothing fail: then the PG must become clean, and everything be there.
func (w *model) settle() {
	w.calm = true
	for _, o := range w.osds {
		if !o.up {
			o.up = true
		}
		if o.num != w.primary && o.m != nil {
			w.put(o, o.m.Unwant())
		}
	}
	w.owner = w.primary
	w.min = 1 // k at least
	for range 3000 {
		w.step()
		if p := w.osd(w.primary); w.ec.k > 0 && w.replace && p.m != nil && p.m.Phase == Waiting && !w.enough(p) {
			return // for ever
		}
		if a := w.active(); a != nil && len(a.unclean) == 0 && a.m.Record.IsClean() && len(a.acting) == len(w.target) && slices.Equal(a.m.Roles(), w.ec.slots) {
			for _, id := range w.objects {
				w.check(a, id)
			}
			return
		}
	}
	if a := w.active(); a != nil && w.spoilt != nil && w.stuck(a) {
		w.waits++
		return
	}
	if p := w.osd(w.primary); !w.replace || w.ec.k > 0 && w.enough(p) {
		panic(fmt.Sprintf("with every OSD back the PG does not become clean: %v %s; owner %d", p.m.Phase, p.m.Describe(), w.owner))
	}
}

func runModel(t *testing.T, seed uint64, steps int, back bool) (w *model, ok bool) {
	w = newModel(seed)
	if seed%2 == 1 {
		w.spoilt = map[layout.OSDNum]modelCopy{}
	}
	return w, w.live(t, seed, steps, back)
}

func (w *model) live(t *testing.T, seed uint64, steps int, back bool) (ok bool) {
	w.back = back
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("history %d: %v\n%s", seed, r, strings.Join(w.log[max(0, len(w.log)-*show):], "\n"))
			ok = false
		}
	}()
	for range steps {
		w.step()
	}
	w.settle()
	return true
}

var (
	histories = flag.Uint64("histories", 5000, "how many histories TestRandomHistoriesLoseNothing runs")
	first     = flag.Uint64("first", 0, "the number of the first one")
	show      = flag.Int("show", 60, "how many of the last events of a failing history are shown")
	steps     = flag.Int("steps", 250, "how long each is")
)

func TestRandomHistoriesLoseNothing(t *testing.T) { randomHistories(t, false) }

// As above, and etcd is set back to an earlier state now and then, which is declared.
func TestRandomHistoriesWithRestoresLoseNothing(t *testing.T) { randomHistories(t, true) }

func randomHistories(t *testing.T, back bool) {
	n := *histories
	if testing.Short() {
		n = min(n, 2000)
	}
	serves, acked, failed, backs, undone, earlier, beside, waits := 0, 0, 0, 0, 0, 0, 0, 0
	var cut [Waiting + 1]int
	for seed := *first; seed < *first+n; seed++ {
		w, ok := runModel(t, seed, *steps, back)
		serves += w.serves
		acked += w.acked
		backs += w.backs
		undone, earlier, beside, waits = undone+w.undone, earlier+w.earlier, beside+w.beside, waits+w.waits
		for p, c := range w.cut {
			cut[p] += c
		}
		if !ok {
			if failed++; failed == 3 {
				break
			}
		}
	}
	t.Logf("%d histories: %d intervals served, %d writes acknowledged, %d restores, %d objects without their newest version, %d of them with one of an earlier interval, %d with one beside the set, %d wait; primaries stopped by phase: %v", n, serves, acked, backs, undone, earlier, beside, waits, cut)
	if serves < int(n) || acked < int(n) || undone < int(n)/25 || earlier < int(n)/50 || beside < int(n)/100 || back && backs < int(n) {
		t.Errorf("the histories do too little")
	}
	for p := Taking; p <= Active; p++ {
		if p == Committing {
			continue // chunks only
		}
		if cut[p] < int(n)/50 && (p != Voiding || cut[p] < int(n)/400) {
			t.Errorf("only %d times a primary was replaced or crashed while %v", cut[p], p)
		}
	}
}
