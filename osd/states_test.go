package osd

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/osd/store"
)

// state is the PG's state in etcd.
func (b *bed) state() (st cluster.PGState) {
	b.t.Helper()
	if kv := b.get(cluster.PGStateKey(pg1)); kv.Key != "" {
		if err := json.Unmarshal(kv.Value, &st); err != nil {
			b.t.Fatal(err)
		}
	}
	return st
}

// history is who may hold copies of the PG, as etcd has it.
func (b *bed) history() []layout.OSDNum {
	b.t.Helper()
	var h cluster.PGHistory
	if kv := b.get(cluster.PGHistoryKey(pg1)); kv.Key != "" {
		if err := json.Unmarshal(kv.Value, &h); err != nil {
			b.t.Fatal(err)
		}
	}
	return h.AllPeers
}

// clean reports whether the PG's record needs nobody but its set.
func (b *bed) clean() bool {
	rec := b.record()
	return len(rec.Sets) == 1 && len(rec.Participants) == len(rec.Sets[0].Members)
}

// reads reports whether an OSD can read its own copy of an object.
func (o *node) reads(object layout.ObjectID) bool {
	o.b.t.Helper()
	op := &store.Op{Kind: store.OpReadObject, Object: object}
	done := false
	op.Done = func(*store.Op) { done = true }
	o.run(func() { o.st.Submit(op) })
	o.b.wait("a read", func() bool { return done })
	if op.Data != nil {
		op.Data.Release()
	}
	return op.Err == nil
}

// The PG lived on OSDs 1,2 and moved to 1,3 while 2 was down: copies are left on 2 until it comes back and removes them.
func TestCopiesOnADeadOSDAreSaid(t *testing.T) {
	b := newBed(t, 3)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	object := layout.ObjectID{Inode: layout.MakeInode(1, 1)}
	interval := b.record().Interval
	for _, n := range []layout.OSDNum{1, 2} {
		put(b.osds[n], object, interval)
	}
	b.osds[2].kill()
	b.wait("the PG alone", func() bool { return b.state().State == cluster.StateActive|cluster.StateDegraded })
	b.place(1, 1, 3)
	b.wait("left_on_dead", func() bool {
		return b.state().State == cluster.StateActive|cluster.StateLeftOnDead && b.clean()
	})
	if h := b.history(); !slices.Equal(h, []layout.OSDNum{1, 2, 3}) {
		t.Errorf("the history names %v", h)
	}
	b.osds[2].start()
	b.wait("OSD 2 up, and the PG whole", func() bool { return b.state().State == cluster.StateActive })
	b.wait("the copy gone, and OSD 2 out of the history", func() bool {
		return slices.Equal(b.history(), []layout.OSDNum{1, 3}) && b.osds[2].has(object).Version == 0
	})
	b.osds[2].kill()
	b.never("copies are said to be left where there are none", 20*time.Second, func() bool { return b.state().State != cluster.StateActive })
}

// One of two copies cannot be read while a third is made: it is mended by the way. While none can be read the object is incomplete, and said to be.
func TestCopyThatCannotBeReadIsMended(t *testing.T) {
	for _, spoilt := range [][]layout.OSDNum{{1}, {2}, {1, 2}} {
		b := newBed(t, 3)
		b.place(1, 1, 2)
		b.wait("PG active", func() bool { return b.serves(1, 2) })
		object := layout.ObjectID{Inode: layout.MakeInode(1, 1)}
		interval := b.record().Interval
		version := layout.Version(interval)<<layout.VersionCounterBits + 1
		for _, n := range []layout.OSDNum{1, 2} {
			b.osds[n].write(object, 0, version, 0, interval)
		}
		b.w.Run(10 * time.Second) // until the stores have moved it out of their journals
		for _, n := range spoilt {
			b.spoil(n)
		}
		b.place(1, 1, 2, 3)
		if len(spoilt) == 2 {
			want := cluster.StateActive | cluster.StateHasIncomplete | cluster.StateHasCorrupted
			b.wait("the object incomplete", func() bool { return b.state().State == want && b.stats().UnfoundCount == 1 })
			if v := b.stats(); v.IncompleteCount != 1 || v.CorruptedCount != 1 || v.DegradedCount != 0 || v.CleanCount != 0 || v.RecoveryLeft != 1 {
				t.Errorf("pgstats = %+v", v)
			}
			b.never("its state changes while nothing else does", 5*time.Second, func() bool { return b.state().State != want })
			continue
		}
		b.wait("the PG whole on three", func() bool { return b.serves(1, 3) && b.state().State == cluster.StateActive && b.clean() })
		for n := range layout.OSDNum(3) {
			if n++; n != 2 || spoilt[0] == 1 { // OSD 2's copy is not looked at when that of OSD 1 can be read
				if !b.osds[n].reads(object) {
					t.Errorf("OSDs %v were spoilt: OSD %d cannot read its copy", spoilt, n)
				}
			}
		}
	}
}

// What passes quickly as a rule is shown, too, when it takes long: here because disks stand still.
func TestStatesOnTheWayAreShown(t *testing.T) {
	b := newBed(t, 3)
	shown := func(want cluster.StateBits) {
		t.Helper()
		b.wait(want.String(), func() bool { return b.state().State == want })
	}
	hold := func(on bool) {
		o := b.osds[1]
		o.run(func() {
			t := o.s.Tuning()
			t.Primary.NoRecovery = on
			o.s.Tune(t)
		})
	}
	b.place(1, 1, 2)
	shown(cluster.StateStarting)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	object := layout.ObjectID{Inode: layout.MakeInode(1, 1)}
	interval := b.record().Interval
	for _, n := range []layout.OSDNum{1, 2} {
		put(b.osds[n], object, interval)
	}
	b.w.Run(10 * time.Second) // until the stores have moved it out of their journals
	hold(true)
	b.w.Disk(b.osds[2].disk()).Stall(true) // OSD 2 cannot write down that it grants its lock
	b.place(1, 1, 2, 3)
	shown(cluster.StatePeering)
	b.w.Disk(b.osds[2].disk()).Stall(false)
	b.wait("PG active on three", func() bool { return b.serves(1, 3) })
	shown(cluster.StateActive | cluster.StateHasDegraded)
	b.w.Disk(b.osds[1].disk()).Stall(true)
	hold(false) // OSD 1 reads its copy for OSD 3: the interval is over only when that is
	b.place(1, 1, 2)
	shown(cluster.StateRepeering)
	b.place(2, 2, 3)
	shown(cluster.StateStopping)
	b.w.Disk(b.osds[1].disk()).Stall(false)
	b.wait("PG on OSD 2", func() bool { return b.serves(2, 2) })
}
