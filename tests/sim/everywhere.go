package sim

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"holdfast/core/layout"
	"holdfast/core/wire"
	"holdfast/osd/store"
)

// everywhere checks that what a client is told about an object is on every member that serves its PG: their stores have that version, or a later one. It looks at each answer, where the check of what
// was told in the end needs a loss that brings the difference to light.
func (r *run) everywhere(pg layout.PGID, object layout.ObjectID, version layout.Version, what string) {
	last := r.probes[pg]
	if version == 0 || last == nil {
		return
	}
	for i, osd := range last.members {
		m := r.nodes[int(osd)-1]
		if m.down || m.hurt || m.store().IsZero() || m.n.Store == nil || m.n.Store.Superblock().StoreID != last.stores[i] {
			continue
		}
		if r.plan.Config.Commit != "" && m.n.boots != last.processes[i] {
			continue // what was not synced may be lost with its power, as the primary will notice
		}
		if s := r.heldBy(m.n.Store, object); s.Version < version || s.Flags&store.Void != 0 {
			r.fail("a %s tells of version %x of object %v in interval %d, but member OSD %d has %+v", what, version, object, last.interval, osd, s)
		}
	}
}

// storesOf are the ids of the stores of an interval's members, as they are when it begins to serve.
func (r *run) storesOf(members []layout.OSDNum) (ids []layout.StoreID) {
	for _, osd := range members {
		id := layout.StoreID{}
		if m := r.nodes[int(osd)-1]; !m.down && m.n.Store != nil {
			id = m.n.Store.Superblock().StoreID
		}
		ids = append(ids, id)
	}
	return ids
}

// honoured checks that each member of the set that serves holds itself to its grant, by its own clock, at a moment when the primary counts on it. A member that has
// started since knows nothing of what it granted before; it grants nothing to others for a while instead.
func (r *run) honoured(pg layout.PGID, interval layout.Interval, osd layout.OSDNum, instance uint64, what string) {
	last := r.probes[pg]
	if last == nil || last.interval != interval {
		return
	}
	for i, other := range last.members {
		m := r.nodes[int(other)-1]
		if other == osd || m.down || m.n.OSD == nil {
			continue
		}
		if m.n.boots != last.processes[i] {
			if rec, ok := m.n.Store.PG(pg); ok && rec.Interval > interval && m.n.Store.Superblock().StoreID == last.stores[i] {
				r.fail("OSD %d %s of PG %v in interval %d, but its member OSD %d has started again and granted interval %d", osd, what, pg, interval, other, rec.Interval)
			}
			continue
		}
		if !m.n.OSD.Honours(wire.Grant{PG: pg, Interval: interval, Instance: instance}) {
			r.fail("OSD %d %s of PG %v in interval %d, but the grant of its member OSD %d is not in force there", osd, what, pg, interval, other)
		}
	}
}

// processesOf counts the processes of an interval's members up to now.
func (r *run) processesOf(members []layout.OSDNum) (boots []uint64) {
	for _, osd := range members {
		boots = append(boots, r.nodes[int(osd)-1].n.boots)
	}
	return boots
}

// watchEvery is how often the rights of all primaries are looked at, whether anybody asks for something or not.
const watchEvery = 25 * time.Millisecond

// watchRights checks, from now on, that no primary counts on a grant that its member does not honour.
func (r *run) watchRights() {
	r.c.W.After(watchEvery, func() {
		for _, pg := range slices.SortedFunc(maps.Keys(r.probes), func(a, b layout.PGID) int { return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Num, b.Num)) }) {
			last := r.probes[pg]
			if n := r.nodes[int(last.osd)-1].n; !last.over && n.OSD != nil && n.Loop.Alive() && n.boots == last.boots && r.counts(n, last) {
				r.honoured(pg, last.interval, last.osd, n.instance(), "counts on the grants")
			}
		}
		if !r.broken {
			r.watchRights()
		}
	})
}

// counts reports whether a primary serves, as it sees it: all others have granted.
func (r *run) counts(n *Node, last *reign) bool {
	for _, osd := range last.members {
		if osd != last.osd && !n.OSD.Valid(osd) {
			return false
		}
	}
	return true
}
