package sim

import (
	"encoding/json"
	"slices"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/osd/peering"
	"holdfast/osd/primary"
)

// probe watches one OSD process for the invariants of DESIGN section 6.
type probe struct {
	r     *run
	n     *Node
	boots uint64 // of its process
}

var _ primary.Probe = (*probe)(nil)

// reign is who serves a PG: the last that began to.
type reign struct {
	interval  layout.Interval
	osd       layout.OSDNum
	boots     uint64
	members   []layout.OSDNum
	stores    []layout.StoreID // of members, as long as they are known
	processes []uint64         // of members, counted
	over      bool
}

// Serving checks that the interval is in the registry as activated, with these members, and is above every other that served.
func (b *probe) Serving(pg layout.PGID, interval layout.Interval, acting []peering.Member) {
	r := b.r
	members := make([]layout.OSDNum, len(acting))
	for i, a := range acting {
		members[i] = a.OSD
	}
	r.logf("osd%d serves pg %v in interval %d with %v", b.n.Num, pg, interval, members)
	rec := r.record(pg)
	switch {
	case rec == nil || rec.Activated < interval:
		if old := r.back.before[pg]; old != nil && old.Activated == interval {
			break // etcd was set back meanwhile
		}
		r.fail("OSD %d serves PG %v in interval %d, which the registry does not have as activated: %+v", b.n.Num, pg, interval, rec)
	case rec.Activated == interval:
		set := rec.Sets[len(rec.Sets)-1].Members
		if !slices.EqualFunc(acting, set, func(a peering.Member, m cluster.PGMember) bool { return a == peering.Member(m) }) {
			r.fail("OSD %d serves PG %v in interval %d with %v, the registry says %v", b.n.Num, pg, interval, acting, set)
		}
	}
	if last := r.probes[pg]; last != nil {
		if last.interval > interval {
			// It was stopped after it had activated, and does not look whether its grants are in force before a request comes: allowed sees to it that it answers none.
			r.cover("served too late")
			return
		}
		if last.interval == interval {
			r.fail("OSD %d serves PG %v in interval %d after OSD %d has", b.n.Num, pg, interval, last.osd)
		}
		if last.osd != b.n.Num {
			r.cover("primary changed")
		}
	}
	r.probes[pg] = &reign{interval: interval, osd: b.n.Num, boots: b.boots, members: members, stores: r.storesOf(members), processes: r.processesOf(members)}
	r.cover("interval served")
}

// Stopped is the end of a reign.
func (b *probe) Stopped(pg layout.PGID, interval layout.Interval) {
	b.r.logf("osd%d serves pg %v no more in interval %d", b.n.Num, pg, interval)
	if last := b.r.probes[pg]; last != nil && last.interval == interval {
		last.over = true
	}
}

// allowed checks that nobody else has begun to serve, by true time, and that no member has given its grant to a later interval.
func (b *probe) allowed(pg layout.PGID, interval layout.Interval, what string) {
	r := b.r
	last := r.probes[pg]
	if last == nil || last.interval != interval || last.osd != b.n.Num || last.boots != b.boots {
		r.fail("OSD %d answers a %s for PG %v in interval %d while %+v serves", b.n.Num, what, pg, interval, last)
		return
	}
	for _, osd := range last.members {
		m := r.nodes[int(osd)-1]
		if m.down || m.n.Store == nil {
			continue
		}
		if rec, ok := m.n.Store.PG(pg); ok && rec.Interval > interval {
			r.fail("OSD %d answers a %s for PG %v in interval %d, but its member OSD %d has granted interval %d", b.n.Num, what, pg, interval, osd, rec.Interval)
		}
	}
}

// Read is the answer to a read.
func (b *probe) Read(pg layout.PGID, interval layout.Interval, object layout.ObjectID, version layout.Version) {
	b.allowed(pg, interval, "read")
	b.r.everywhere(pg, object, version, "read")
	b.r.honoured(pg, interval, b.n.Num, b.n.instance(), "answers a read")
}

// ReadLocally is the answer of a member to a read: nobody else may have begun to serve, by true time, and every member must have what is told.
func (b *probe) ReadLocally(pg layout.PGID, interval layout.Interval, object layout.ObjectID, version layout.Version) {
	r := b.r
	r.cover("read answered by a member")
	last := r.probes[pg]
	if last == nil || last.interval != interval || !slices.Contains(last.members, b.n.Num) {
		r.fail("OSD %d answers a read for PG %v as a member in interval %d while %+v serves", b.n.Num, pg, interval, last)
		return
	}
	r.everywhere(pg, object, version, "local read")
}

// Changed is the acknowledgement of a change.
func (b *probe) Changed(pg layout.PGID, interval layout.Interval, object layout.ObjectID, version layout.Version, session, sequence uint64, repeated bool) {
	r := b.r
	r.logf("osd%d acknowledges version %x of %v in interval %d to session %x (repeated: %t)", b.n.Num, version, object, interval, session, repeated)
	b.allowed(pg, interval, "change")
	if r.fenced[session>>cluster.SessionBits] {
		r.fail("OSD %d acknowledges a change of object %v to session %x, which was fenced before", b.n.Num, object, session)
	}
	if repeated {
		return
	}
	if session != 0 && !r.mayBeLazy(session) {
		// What every member has durably is known to whoever serves next.
		q := asked{session, sequence}
		if first, done := r.changed[q]; done {
			r.fail("OSD %d acknowledges version %x of object %v, which request %d of session %x has made, and version %x was made by it before", b.n.Num, version, object, sequence, session, first)
		}
		r.changed[q] = version
	}
	if last := r.versions[object]; version <= last {
		r.fail("OSD %d acknowledges version %x of object %v after version %x was acknowledged", b.n.Num, version, object, last)
	}
	r.versions[object] = version
	r.everywhere(pg, object, version, "change")
	if r.mayBeLazy(session) {
		return
	}
	r.acks++
	if r.durableDue() {
		r.checkDurable(pg, object, version)
	}
}

// asked is a request for a change.
type asked struct{ session, sequence uint64 }

// record is a PG's record as the registry holds it, nil when there is none.
func (r *run) record(pg layout.PGID) *cluster.PGRecord {
	key := cluster.PGRecordKey(pg)
	for _, kv := range r.c.Reg.Dump() {
		if kv.Key == key {
			return r.decodeRecord(kv.Value)
		}
	}
	return nil
}

func (r *run) decodeRecord(value []byte) *cluster.PGRecord {
	rec := &cluster.PGRecord{}
	if err := json.Unmarshal(value, rec); err != nil {
		r.fail("a PG's record cannot be read: %v", err)
	}
	return rec
}
