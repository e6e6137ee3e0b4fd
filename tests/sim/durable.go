package sim

import (
	"fmt"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/sim"
	"holdfast/osd/store"
)

// durableEvery is how many acknowledgements lie between two looks at what is durable: opening stores costs much beside a write. Where there are many members it is twice or three times as many.
const durableEvery = 150

func (r *run) durableDue() bool {
	return r.acks%(durableEvery*max(1, r.plan.Config.Replicas/3)) == 60
}

// checkDurable looks whether a version that is being acknowledged would survive the loss of power of every host now: on each member it opens a copy of what is durable.
func (r *run) checkDurable(pg layout.PGID, object layout.ObjectID, version layout.Version) {
	last := r.probes[pg]
	for i, osd := range last.members {
		m := r.nodes[int(osd)-1]
		if m.hurt || m.down || m.n.Store == nil || m.store().IsZero() || m.n.Store.Superblock().StoreID != last.stores[i] {
			continue // another disk: a flush may end long after this member has done its part
		}
		have, err := r.durable(r.disk(m.i).Image(), object)
		if err != nil || have < version {
			r.fail("version %x of object %v is acknowledged, but the disk of member OSD %d has version %x durably (%v)", version, object, osd, have, err)
		}
		r.cover("durability looked at")
	}
}

// durable opens a disk image in a world of its own and returns the version it has of an object.
func (r *run) durable(image *sim.Image, object layout.ObjectID) (version layout.Version, err error) {
	w := sim.NewWorld(r.plan.Seed)
	defer w.Close()
	w.NewDiskFrom("disk", image)
	l := w.NewLoop("look")
	d, err := l.OpenDisk("disk", loop.DiskOptions{})
	if err != nil {
		return 0, err
	}
	done := false
	store.Open(l, d, store.Options{}, func(st *store.Store, e error) {
		done = true
		if err = e; err == nil {
			version = r.heldBy(st, object).Version
		}
	})
	if !w.RunUntil(func() bool { return done }, time.Minute) {
		return 0, fmt.Errorf("the store does not open")
	}
	return version, err
}
