package sim

import (
	"holdfast/core/layout"
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
		if m.down || m.hurt || m.n.Store == nil || m.n.Store.Superblock().StoreID != last.stores[i] {
			continue
		}
		if s, _ := m.n.Store.State(object); s.Version < version || s.Flags&store.Void != 0 {
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
