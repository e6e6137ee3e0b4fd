package osd

import (
	"maps"
	"slices"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/registry"
)

// When a host dies with its OSDs, nobody is left to say so, and their leases run for seconds. Other OSDs notice sooner: they say in etcd whom they have lost and cannot reach again, and the monitor
// gives the PGs of an OSD that is missed by two other hosts to others (docs/adr/0017-missing-osds.md). That is no more than a hint: who serves is decided by the members' grants, as ever.

// missAfter is how long an OSD must be out of reach before it is missed.
const missAfter = 500 * time.Millisecond

// missing is whom this OSD has lost.
type missing struct {
	since map[layout.OSDNum]loop.Instant // OSDs that are up by etcd and not connected, and were once
	busy  bool                           // our key is being written
	seen  registry.Revision              // when that was done last
}

// lost says that contact with an OSD has ended.
func (m *missing) lost(osd layout.OSDNum, now loop.Instant) {
	if m.since == nil {
		m.since = map[layout.OSDNum]loop.Instant{}
	}
	if _, ok := m.since[osd]; !ok {
		m.since[osd] = now
	}
}

// lookForMissing is called now and then.
func (s *OSD) lookForMissing() {
	m, now := &s.missing, s.l.Now()
	for _, osd := range s.locks.Silent() {
		m.lost(osd, now)
	}
	var list []layout.OSDNum
	for osd, since := range m.since { // order: sorted below
		if _, up := s.Snapshot().OSDStates.Get(osd); !up || osd == s.o.Num || s.hub.Connected(osd) {
			delete(m.since, osd)
			continue
		}
		if now.Sub(since) >= missAfter {
			list = append(list, osd)
		}
	}
	slices.Sort(list)
	for _, osd := range slices.Sorted(maps.Keys(m.since)) {
		s.hub.Connect(osd)
	}
	s.tellMissing(list)
}

// tellMissing brings our key up to date. What it holds is asked of etcd: it ends with our lease, and an etcd that is set back has an old one.
func (s *OSD) tellMissing(list []layout.OSDNum) {
	m, snap := &s.missing, s.Snapshot()
	if m.busy || s.stopping || !s.leaseUp || snap.Revision < m.seen {
		return
	}
	lease := s.lease.ID()
	told, ok := snap.Missing.Get(s.o.Num)
	if !ok && len(list) == 0 || ok && told.Lease == lease && len(list) > 0 && slices.Equal(list, told.OSDs) {
		return
	}
	key := cluster.OSDMissingKey(s.o.Num)
	op := registry.Op{Kind: registry.Put, Key: key, Value: cluster.Value(&cluster.OSDMissing{OSDs: list}), Lease: lease}
	if len(list) == 0 {
		op = registry.Op{Kind: registry.Delete, Key: key}
	}
	m.busy = true
	backs := s.backs
	s.o.Registry.Txn(registry.Txn{If: []registry.Compare{registry.HeldBy(cluster.OSDStateKey(s.o.Num), lease)}, Then: []registry.Op{op}}, func(res registry.TxnResult, err error) {
		m.busy = false
		if err == nil && res.Succeeded && s.backs == backs {
			m.seen = res.Revision
		}
	})
}
