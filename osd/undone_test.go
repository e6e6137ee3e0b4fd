package osd

import (
	"bytes"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/osd/store"
)

// A change reached one store alone, whose disk then spoiled it; nobody was told that it was made. The PG must not wait for it for ever: it goes back to what was there before.
func TestUnreadableChangeThatWasNeverAcknowledgedIsUndone(t *testing.T) {
	for _, primary := range []layout.OSDNum{1, 2} { // the copy is another's, and its own
		b := newBed(t, 2)
		b.place(1, 1, 2)
		b.wait("PG active", func() bool { return b.serves(1, 2) })
		object, interval, version := b.unreadable()
		b.place(primary, primary, 3-primary)
		b.osds[1].run(func() { b.osds[1].s.pgs[pg1].exec(b.osds[1].s.pgs[pg1].m.Restart()) })
		b.wait("a new interval, whole", func() bool {
			return b.serves(primary, 2) && b.record().Activated > interval && b.osds[1].has(object).Version == version && b.osds[2].has(object).Version == version
		})
		if e := b.osds[primary].s.Events(); e.Undone != 1 {
			t.Errorf("%d changes are said to be undone", e.Undone)
		}
	}
}

// unreadable gives OSDs 1 and 2 a version of an object, and OSD 2 the next one, which its disk spoils.
func (b *bed) unreadable() (object layout.ObjectID, interval layout.Interval, version layout.Version) {
	object, interval = layout.ObjectID{Inode: layout.MakeInode(1, 1)}, b.record().Interval
	version = layout.Version(interval)<<layout.VersionCounterBits + 1
	for _, n := range []layout.OSDNum{1, 2} {
		b.osds[n].write(object, 0, version, 0, interval)
	}
	b.osds[2].write(object, version, version+1, interval, interval)
	b.w.Run(10 * time.Second) // until the store has moved it out of its journal
	b.spoil(2)
	return object, interval, version
}

// spoil flips a bit in every block of data that write has put on an OSD's disk.
func (b *bed) spoil(n layout.OSDNum) {
	d := b.w.Disk(b.osds[n].disk())
	all := make([]byte, d.Size())
	d.Peek(all, 0)
	found := false
	for at := 0; ; {
		i := bytes.Index(all[at:], written[:])
		if i < 0 {
			break
		}
		d.Flip(int64(at+i)+100, 0x10)
		found = true
		at += i + len(written)
	}
	if !found {
		b.t.Fatal("the data is not on the disk")
	}
}

// An interval without the member that lacks the change comes between. When that one is back it is heard, be it a member again or not, and the change is undone: on the store that has it too.
func TestUnreadableChangeIsUndoneWhenWhoLacksItIsBack(t *testing.T) {
	for _, member := range []bool{true, false} {
		b := newBed(t, 3)
		b.put(cluster.KeyPools, `{"1":{"name":"p","scheme":"replicated","pg_size":2,"pg_minsize":2,"pg_count":1,"failure_domain":"osd"}}`)
		b.place(2, 1, 2)
		b.wait("PG active", func() bool { return b.serves(2, 2) })
		object, _, version := b.unreadable()
		b.osds[1].kill()
		b.place(2, 2, 3)
		b.wait("an object that nobody can give", func() bool {
			if !b.serves(2, 2) {
				return false
			}
			r := b.osds[2].s.pgs[pg1]
			return r.served != nil && r.served.Counts().Unfound == 1
		})
		b.osds[1].start()
		primary, holders := layout.OSDNum(2), []layout.OSDNum{2, 3}
		if member {
			primary, holders = 3, []layout.OSDNum{1, 3}
			b.place(3, 1, 3)
		}
		b.wait("the object, whole", func() bool {
			for _, n := range holders {
				if o := b.osds[n]; o.st == nil || !o.st.Sharded(1) || o.has(object).Version != version || o.has(object).Flags != 0 {
					return false
				}
			}
			return b.serves(primary, 2) && len(b.record().Sets) == 1
		})
		if e := b.osds[primary].s.Events(); e.Undone != 1 {
			t.Errorf("%d changes are said to be undone", e.Undone)
		}
		if e := b.osds[2].has(object); member && e.Version != 0 && e.Flags&store.Void == 0 {
			t.Errorf("beside the set there is %+v", e)
		}
	}
}
