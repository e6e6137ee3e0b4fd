package osd

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/registry/registrytest"
	"holdfast/core/sim"
	"holdfast/osd/store"
)

// image is all that is on an OSD's disk.
func (o *node) image() []byte {
	d := o.b.w.Disk(o.disk())
	b := make([]byte, d.Size())
	d.Peek(b, 0)
	return b
}

// heir is a succession under way in a process of its own.
type heir struct {
	*Succession
	l    *sim.Loop
	done bool
	err  error
}

func (o *node) succeed(auto bool) *heir {
	l := o.b.w.NewLoop(fmt.Sprintf("osd%d", o.num))
	h := &heir{l: l}
	cause := o.err
	if cause == nil {
		cause = &store.SetBackError{}
	}
	l.Post(&loop.Task{Run: func() {
		h.Succession = Succeed(l, SuccessionOptions{
			Num: o.num, Host: "h", Cause: cause, Registry: o.b.reg.Open(l), Auto: auto,
			OpenDisk: func(alone bool) (loop.Disk, error) {
				return l.OpenDisk(o.disk(), loop.DiskOptions{ReadOnly: !alone, Exclusive: alone})
			},
			Done: func(err error) { h.done, h.err = true, err },
		})
	}})
	return h
}

// waiting is what the OSD tells people.
func (b *bed) waiting(n layout.OSDNum) string { return string(b.get(cluster.OSDWaitingKey(n)).Value) }

func (b *bed) identity(n layout.OSDNum) (id cluster.OSDIdentity) {
	b.t.Helper()
	found := false
	f := cluster.Follow(b.w.NewLoop("reader"), b.admin, cluster.SectionStores, follow(func(s *cluster.Snapshot) {
		if v, ok := s.Stores.Get(n); ok {
			id = *v
		}
		found = true
	}))
	b.wait("the identity", func() bool { return found })
	f.Stop()
	return id
}

type follow func(*cluster.Snapshot)

func (f follow) Changed(_, next *cluster.Snapshot, _ []string) { f(next) }
func (f follow) Fault(*cluster.KeyError)                       {}
func (f follow) Unavailable(error)                             {}

// super is the id on an OSD's disk, read by somebody else.
func (o *node) super() (sb store.Superblock) {
	l := o.b.w.NewLoop("peek")
	d, err := l.OpenDisk(o.disk(), loop.DiskOptions{ReadOnly: true})
	if err != nil {
		o.b.t.Fatal(err)
	}
	done := false
	store.Peek(l, d, func(v store.Superblock, err error) {
		if err != nil {
			o.b.t.Error(err)
		}
		sb, done = v, true
	})
	o.b.wait("the superblock", func() bool { return done })
	l.Kill()
	return sb
}

// setBack starts two OSDs with the PG on both, puts an earlier copy of OSD 2's disk back, and starts it on that until it has been condemned. OSD 1 is down then when alone is false.
func setBack(t *testing.T, alone bool) (*bed, *node, layout.StoreID) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	o := b.osds[2]
	id := o.st.Superblock().StoreID
	early := o.image()
	o.kill()
	b.wait("PG on OSD 1 alone", func() bool { return b.serves(1, 1) })
	o.start()
	b.wait("PG on both", func() bool { return b.serves(1, 2) })
	o.kill()
	if alone {
		b.wait("PG on OSD 1 alone", func() bool { return b.serves(1, 1) })
	} else {
		b.osds[1].kill()
	}
	b.w.Disk(o.disk()).Poke(early, 0)
	b.wait("the state key to be gone", func() bool { return b.get(cluster.OSDStateKey(2)).Key == "" })
	for range 2 {
		o.start()
		b.wait("the refusal", func() bool { return o.err != nil })
		if !Untrusted(o.err) {
			t.Fatal(o.err)
		}
		o.kill()
	}
	if _, is := errors.AsType[*store.SetBackError](o.err); !is {
		t.Fatalf("it was not condemned: %v", o.err)
	}
	return b, o, id
}

// healed waits for the end of a succession, has the OSD start on its new disk and checks that the PG takes it in.
func healed(t *testing.T, b *bed, o *node, h *heir, id layout.StoreID) {
	t.Helper()
	b.wait("the end of the succession", func() bool { return h.done })
	if h.err != nil {
		t.Fatal(h.err)
	}
	h.l.Kill()
	b.wait("its lease to end", func() bool { return b.waiting(2) == "" })
	own := b.identity(2)
	if !own.IsRetired(id) || !own.Store.IsZero() {
		t.Errorf("identity %+v", own)
	}
	o.start()
	b.wait("PG on both", func() bool { return b.serves(1, 2) })
	now := o.st.Superblock().StoreID
	if now == id {
		t.Error("the store has its old id")
	}
	b.wait("a clean record", func() bool { rec := b.record(); return rec.TookPart(now) && !rec.Names(id) })
	if own := b.identity(2); own.Store != now || !own.IsRetired(id) {
		t.Errorf("identity %+v", own)
	}
	if b.waiting(2) != "" {
		t.Error("it still says that it waits")
	}
}

func TestSetBackStoreIsEmptiedOnceNoPGNeedsIt(t *testing.T) {
	b, o, id := setBack(t, true)
	h := o.succeed(true)
	healed(t, b, o, h, id)
}

func TestStoreThatMayHoldTheOnlyCopyWaits(t *testing.T) {
	b, o, id := setBack(t, false)
	before := o.image()
	h := o.succeed(true)
	b.wait("it to say why", func() bool { return b.waiting(2) != "" })
	b.never("it ended", time.Minute, func() bool { return h.done })
	if text := b.waiting(2); !strings.Contains(text, "PG 1/1") || !strings.Contains(text, "start OSD 1") || !strings.Contains(text, "disk accept") || !strings.Contains(text, id.String()) {
		t.Errorf("it says %s", text)
	}
	if !bytes.Equal(before, o.image()) {
		t.Error("the disk was changed")
	}
	if own := b.identity(2); own.IsRetired(id) || own.Store != id {
		t.Errorf("identity %+v", own)
	}
	b.osds[1].start()
	healed(t, b, o, h, id)
}

// A member comes up that was not in the last interval, in which OSD 2 was alone: what was written then is on OSD 2's disk only.
func TestLastCopyIsNotEmptiedForAMemberThatWasNotThere(t *testing.T) {
	for _, keep := range []bool{true, false} {
		b := newBed(t, 2)
		b.place(1, 1, 2)
		b.wait("PG active", func() bool { return b.serves(1, 2) })
		o := b.osds[2]
		id := o.st.Superblock().StoreID
		early := o.image()
		b.osds[1].kill()
		b.place(2, 2)
		b.wait("PG on OSD 2 alone", func() bool { return b.serves(2, 1) })
		o.kill()
		b.w.Disk(o.disk()).Poke(early, 0)
		b.osds[1].start()
		b.place(1, 1)
		b.wait("the state key to be gone", func() bool { return b.get(cluster.OSDStateKey(2)).Key == "" })
		// So that it looks set back, however few openings it lacks.
		own := b.identity(2)
		own.Boot += 3
		b.put(cluster.OSDIdentityKey(2), &own)
		o.start()
		b.wait("the refusal", func() bool { return o.err != nil })
		o.kill()
		h := o.succeed(true)
		b.never("it ended", time.Minute, func() bool { return h.done })
		if text := b.waiting(2); !strings.Contains(text, "may be here only") {
			t.Errorf("it says %s", text)
		}
		// An operator accepts it, by another process, while the OSD waits.
		l := b.w.NewLoop("accept")
		d, err := l.OpenDisk(o.disk(), loop.DiskOptions{Exclusive: true})
		if err != nil {
			t.Fatal(err)
		}
		accepted := false
		store.Accept(l, d, keep, store.Options{}, func(_ store.Superblock, err error) {
			if err != nil {
				t.Error(err)
			}
			d.Close(func() { accepted = true })
		})
		b.wait("the acceptance", func() bool { return accepted })
		b.wait("the end of the succession", func() bool { return h.done })
		if sb := o.super(); h.err != nil || (sb.StoreID == id) != keep {
			t.Errorf("keep %v: %v, id kept: %v", keep, h.err, sb.StoreID == id)
		}
		if own := b.identity(2); own.IsRetired(id) {
			t.Error("the id was retired")
		}
	}
}

func TestAutoAcceptOffWaits(t *testing.T) {
	b, o, id := setBack(t, true)
	h := o.succeed(false)
	b.never("it ended", 30*time.Second, func() bool { return h.done })
	if text := b.waiting(2); !strings.Contains(text, "auto_accept is off") {
		t.Errorf("it says %s", text)
	}
	if own := b.identity(2); own.IsRetired(id) {
		t.Error("the id was retired")
	}
}

// The answer to what was said under a lease comes when that is over, and with it what was said.
func TestWhyItWaitsIsSaidUnderTheNextLease(t *testing.T) {
	b, o, _ := setBack(t, false)
	h := o.succeed(false)
	b.wait("it to say why it waits", func() bool { return b.waiting(o.num) != "" })
	b.w.Run(100 * time.Millisecond)
	reg := &registrytest.Late{Registry: h.o.Registry}
	late := reg.Answer(func(txn registry.Txn) bool {
		return len(txn.Then) > 0 && txn.Then[0].Key == cluster.OSDWaitingKey(o.num)
	})
	h.o.Registry, h.said = reg, ""
	b.wait("it to say so again", func() bool { return late.Caught })
	b.w.Run(100 * time.Millisecond)
	old := h.lease
	b.reg.Expire(old.ID())
	b.wait("another lease", func() bool { return h.lease != old && h.lease.ID() != 0 })
	h.l.Post(&loop.Task{Run: late.Release})
	b.wait("it to say so under that", func() bool { return b.waiting(o.num) != "" })
}

func TestRetiredStoreIsEmptied(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	o := b.osds[2]
	id := o.st.Superblock().StoreID
	o.kill()
	b.wait("PG on OSD 1 alone", func() bool { return b.serves(1, 1) && b.get(cluster.OSDStateKey(2)).Key == "" })
	own := b.identity(2)
	own.Store, own.Boot, own.Sequence, own.Retired = layout.StoreID{}, 0, 0, []layout.StoreID{id}
	b.put(cluster.OSDIdentityKey(2), &own)
	for range 2 {
		o.start()
		b.wait("the refusal", func() bool { return o.err != nil })
		o.kill()
	}
	h := o.succeed(true)
	healed(t, b, o, h, id)
}

// A store with damage in its journal is not opened; it is emptied all the same, once nobody needs it.
func TestDamagedStoreIsEmptied(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	o := b.osds[2]
	sb := o.st.Superblock()
	o.kill()
	b.w.Disk(o.disk()).Zero(sb.Journal.Off, sb.Journal.Len)
	o.start()
	b.wait("the refusal", func() bool { return o.err != nil })
	o.kill()
	h := o.succeed(true)
	healed(t, b, o, h, sb.StoreID)
}

// TestEndOfASuccession ends the process, with the power or without, after any number of steps: the disk has the old id and all that was on it, or the new one; and the next try heals it.
func TestEndOfASuccession(t *testing.T) {
	old, renewed := 0, 0
	for cut, over := 0, false; !over; cut += 2 {
		ok := t.Run(fmt.Sprint("cut ", cut), func(t *testing.T) { // so that what each takes is given back
			b, o, id := setBack(t, true)
			before := o.image()
			h := o.succeed(true)
			if cut > 0 {
				b.wait("it to take the disk", func() bool { return h.Succession != nil && h.held != nil })
			}
			for n := 2; n < cut && !h.done && b.w.Step(); n++ {
			}
			over = h.done
			h.l.PowerOff()
			b.w.Disk(o.disk()).Crash(sim.CrashRandom)
			if sb := o.super(); sb.StoreID == id {
				old++
				if now := o.image(); !bytes.Equal(before, now) {
					t.Fatal("the disk has the old id and other data")
				}
				if over {
					t.Fatal("it is over, and the disk has the old id")
				}
			} else {
				renewed++
				if own := b.identity(2); !own.IsRetired(id) {
					t.Fatalf("the disk has a new id, and the old one is not retired: %+v", own)
				}
			}
			o.start()
			b.wait("a start", func() bool { return o.err != nil || o.s != nil && o.s.leaseUp })
			if o.err != nil {
				o.kill()
				h := o.succeed(true)
				b.wait("the end of the succession", func() bool { return h.done })
				if h.err != nil {
					t.Fatal(h.err)
				}
				h.l.Kill()
				o.start()
			}
			b.wait("PG on both", func() bool { return b.serves(1, 2) })
		})
		if !ok {
			return
		}
	}
	if old < 5 || renewed < 2 {
		t.Errorf("%d ends left the old store, %d a new one", old, renewed)
	}
	t.Logf("%d ends left the old store, %d a new one", old, renewed)
}

// TestSuccessionNeedsEveryCondition has each condition fail alone.
func TestSuccessionNeedsEveryCondition(t *testing.T) {
	ours, old, others := cluster.PGMember{OSD: 2, Store: layout.StoreID{2}}, cluster.PGMember{OSD: 1, Store: layout.StoreID{1}}, cluster.PGMember{OSD: 3, Store: layout.StoreID{3}}
	type world struct {
		snap  cluster.Snapshot
		rec   cluster.PGRecord
		state cluster.PGState
		stats cluster.PGStats
		own   cluster.OSDIdentity
		known []store.PGRecord
	}
	for _, c := range []struct {
		name  string
		spoil func(w *world)
		want  string
	}{
		{"nothing", func(*world) {}, ""},
		{"etcd was not read", func(w *world) { w.snap.Revision = 0 }, "does not answer"},
		{"etcd was restored", func(w *world) { w.snap.Restored = &cluster.Restored{ID: "x"} }, "OSD 2 must report first"},
		{"a key that cannot be read", func(w *world) {
			w.snap.Faults = w.snap.Faults.With("interval/1/7", &cluster.KeyError{Key: "interval/1/7", Reason: errors.New("bad")})
		}, "interval/1/7 cannot be used"},
		{"another disk is up", func(w *world) {
			w.snap.OSDStates = w.snap.OSDStates.With(2, &cluster.OSDState{Host: "h", Store: others.Store})
		}, "is up on another disk"},
		{"its last run is not forgotten", func(w *world) {
			w.snap.OSDStates = w.snap.OSDStates.With(2, &cluster.OSDState{Host: "h", Store: ours.Store})
		}, "as up with this store"},
		{"another store of the number", func(w *world) { w.own.Store = others.Store }, "does not know the store"},
		{"retired", func(w *world) { w.own.Store, w.own.Retired = layout.StoreID{}, []layout.StoreID{ours.Store} }, ""},
		{"replaced by one that PGs name", func(w *world) { w.own.Store, w.own.Retired = others.Store, []layout.StoreID{ours.Store} }, "another disk has taken its place"},
		{"replaced by one that is unused", func(w *world) { w.own.Store, w.own.Retired = layout.StoreID{7}, []layout.StoreID{ours.Store} }, ""},
		{"no identity", func(w *world) { w.own.Store = layout.StoreID{} }, "does not know the store"},
		{"it took part in the last interval", func(w *world) { w.rec.Participants = append(w.rec.Participants, ours) }, "may be here only"},
		{"the record does not name it, and the PG is down", func(w *world) { w.rec.Sets, w.state.State = w.rec.Sets[1:], cluster.StateIncomplete }, ""},
		{"taken and not activated", func(w *world) { w.rec.Interval++ }, "not active"},
		{"peering", func(w *world) { w.state.State = cluster.StatePeering }, "is peering, not active"},
		{"another primary", func(w *world) { w.state.Primary = 3 }, "not active"},
		{"never activated", func(w *world) { w.rec.Activated, w.state.State = 0, cluster.StateIncomplete }, ""},
		{"active and degraded", func(w *world) { w.state.State |= cluster.StateDegraded | cluster.StateHasDegraded }, ""},
		{"one that took part is down", func(w *world) { w.snap.OSDStates = w.snap.OSDStates.Without(3) }, "without some of those who took part; what only they have may be on this disk in an older state; start OSD 3"},
		{"one that took part is up on another disk", func(w *world) {
			w.snap.OSDStates = w.snap.OSDStates.With(3, &cluster.OSDState{Host: "h", Store: layout.StoreID{33}})
		}, "start OSD 3"},
		{"corrupted", func(w *world) { w.state.State |= cluster.StateHasCorrupted }, "active+has_corrupted"},
		{"unfound", func(w *world) { w.stats.UnfoundCount = 2 }, "2 objects that no OSD can give"},
		{"incomplete", func(w *world) { w.stats.IncompleteCount = 1 }, "1 objects that no OSD can give"},
		{"statistics of before the interval", func(w *world) { w.stats.Mod = 20 }, "has not said yet"},
		{"statistics of an earlier primary", func(w *world) { w.stats.Mod, w.rec.Mod = 24, 19 }, "has not said yet"},
		{"the pool was made anew", func(w *world) { w.rec.Generation = 4; w.state.State = cluster.StateIncomplete }, ""},
		{"the pool has no identity", func(w *world) { w.snap.Identities = w.snap.Identities.Without(1) }, "no identity"},
		{"the pool was removed", func(w *world) {
			w.snap.Identities, w.snap.Pools = w.snap.Identities.Without(1), w.snap.Pools.Without(1)
			w.state.State = cluster.StateIncomplete
		}, ""},
		{"etcd knows less than the store", func(w *world) { w.known = []store.PGRecord{{PG: pg1, Generation: 5, Interval: 99}} }, "etcd was set back"},
		{"etcd is half restored", func(w *world) { w.snap.Restoring = &cluster.Restoring{} }, "has not ended"},
		{"a pool that a restored etcd does not know", func(w *world) {
			w.snap.Restored, w.own.Reported = &cluster.Restored{ID: "1"}, "1"
			w.known = []store.PGRecord{{PG: layout.PGID{Pool: 2, Num: 1}, Generation: 8, Interval: 3}}
		}, "PG 2/1 of a pool that etcd does not know"},
		{"etcd has an earlier pool of the number", func(w *world) {
			w.rec.Sets = w.rec.Sets[1:] // and does not name the store
			w.known = []store.PGRecord{{PG: pg1, Generation: 8, Interval: 3}}
		}, "of a later pool 1 than etcd knows"},
		{"the store has an earlier pool of the number", func(w *world) { w.known = []store.PGRecord{{PG: pg1, Generation: 4, Interval: 99}} }, ""},
		{"etcd knows as much", func(w *world) { w.known = []store.PGRecord{{PG: pg1, Generation: 5, Interval: 8, TookPart: 8}} }, ""},
	} {
		b := newBed(t, 1)
		w := world{
			snap:  *b.osds[1].s.Snapshot(),
			rec:   cluster.PGRecord{Meta: cluster.Meta{Mod: 20}, Generation: 5, Interval: 9, Primary: 1, Activated: 9, Sets: []cluster.PGSet{{Interval: 8, Members: []cluster.PGMember{old, ours}}, {Interval: 9, Members: []cluster.PGMember{old, others}}}, Participants: []cluster.PGMember{old, others}},
			state: cluster.PGState{Meta: cluster.Meta{Create: 25, Mod: 26}, Primary: 1, State: cluster.StateActive},
			stats: cluster.PGStats{Meta: cluster.Meta{Mod: 30}},
			own:   cluster.OSDIdentity{Store: ours.Store},
		}
		w.snap.Identities = w.snap.Identities.With(1, &cluster.PoolIdentity{Meta: cluster.Meta{Create: 5}})
		w.snap.OSDStates = w.snap.OSDStates.With(1, &cluster.OSDState{Host: "h", Store: old.Store}).With(3, &cluster.OSDState{Host: "h", Store: others.Store})
		c.spoil(&w)
		w.snap.Stores = w.snap.Stores.With(2, &w.own).Without(1)
		w.snap.Records, w.snap.PGStates, w.snap.PGStats = w.snap.Records.With(pg1, &w.rec), w.snap.PGStates.With(pg1, &w.state), w.snap.PGStats.With(pg1, &w.stats)
		s := &Succession{o: SuccessionOptions{Num: 2}, seen: store.Superblock{StoreID: ours.Store}, known: w.known}
		if got := s.need(&w.snap); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// etcd goes back to when the PG was served without the store, while the OSD waits: what has happened since is on this disk alone, and nobody who runs can say so.
func TestStoreIsNotEmptiedByAnEtcdThatWentBack(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	o := b.osds[2]
	id := o.st.Superblock().StoreID
	early := o.image()
	o.kill()
	b.wait("PG on OSD 1 alone", func() bool { return b.serves(1, 1) && b.get(cluster.OSDStateKey(2)).Key == "" })
	b.w.Run(40 * time.Second) // its statistics are published
	backup := b.reg.Backup()
	for range 2 {
		o.start()
		b.wait("PG on both", func() bool { return b.serves(1, 2) })
		b.osds[1].kill()
		b.place(2, 2)
		b.wait("PG on OSD 2 alone", func() bool { return b.serves(2, 1) })
		o.kill()
		b.osds[1].start()
		b.place(1, 1, 2)
	}
	b.osds[1].kill()
	b.w.Disk(o.disk()).Poke(early, 0)
	b.wait("the state keys to be gone", func() bool { return b.get(cluster.OSDStateKey(2)).Key == "" && b.get(cluster.OSDStateKey(1)).Key == "" })
	for range 2 {
		o.start()
		b.wait("the refusal", func() bool { return o.err != nil })
		o.kill()
	}
	h := o.succeed(true)
	b.wait("it to say why", func() bool { return strings.Contains(b.waiting(2), "may be here only") })
	b.reg.Restore(backup, 1000)
	b.never("it ended", time.Minute, func() bool { return h.done })
	if sb := o.super(); sb.StoreID != id {
		t.Error("the store was emptied")
	}
}

// The path names another disk when it is opened to be emptied than when it was looked at. That one is damaged too, and nobody has asked for it.
func TestAnotherDiskInItsPlaceIsNotEmptied(t *testing.T) {
	b, o, id := setBack(t, true)
	b.osds[1].kill()
	sb := b.osds[1].st.Superblock()
	h := o.succeed(true)
	b.w.RunUntil(func() bool { return h.Succession != nil }, time.Second)
	open := h.o.OpenDisk
	h.o.OpenDisk = func(alone bool) (loop.Disk, error) {
		if alone {
			return h.l.OpenDisk(b.osds[1].disk(), loop.DiskOptions{Exclusive: true})
		}
		return open(alone)
	}
	b.osds[1].start()
	b.wait("PG on OSD 1 alone", func() bool { return b.serves(1, 1) })
	b.wait("the OSD to wait for nobody", func() bool { return h.idle != 0 })
	b.osds[1].kill()
	b.w.Disk(b.osds[1].disk()).Zero(sb.Journal.Off, sb.Journal.Len)
	h.l.Post(&loop.Task{Run: func() { h.idle = 1; h.decide() }})
	b.wait("the end of the succession", func() bool { return h.done })
	if now := b.osds[1].super(); now.StoreID != sb.StoreID {
		t.Error("the other disk was emptied")
	}
	if own := b.identity(2); own.IsRetired(id) {
		t.Error("the id was retired")
	}
}

// etcd goes back while a succession waits until the id that it gave up is gone as far as it sees: it does not wait for that revision, nor take the disk, which is not given up any more.
func TestRetirementThatEtcdForgetsIsNotAwaited(t *testing.T) {
	b, o, id := setBack(t, true)
	backup := b.reg.Backup()
	for range 100 {
		b.put("other", "x")
	}
	h := o.succeed(true)
	b.wait("its first look", func() bool { return h.Succession != nil && h.follower != nil && h.follower.Snapshot().Revision != 0 })
	h.o.Registry.(*memory.Handle).WatchLatency = func() time.Duration { return time.Minute }
	b.wait("the id to be given up", func() bool { return h.after != nil })
	h.o.Registry.(*memory.Handle).WatchLatency = nil
	b.reg.Restore(backup, 0)
	b.wait("the disk to be let go", func() bool { return h.held == nil })
	if o.super().StoreID != id {
		t.Error("the disk was taken")
	}
}
