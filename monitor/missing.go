package monitor

import (
	"slices"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
)

// leaderPatience is how long the leader may leave PGs to an OSD that others have lost, before another monitor takes its place: it died with that OSD's host as a rule.
const leaderPatience = 700 * time.Millisecond

// replaceable reports whether a PG's primary is cut off, and another member is not.
func replaceable(s *cluster.Snapshot, t *cluster.PGTarget) bool {
	return s.CutOff(t.Primary) && slices.ContainsFunc(t.OSDSet, func(n layout.OSDNum) bool {
		_, up := s.OSDStates.Get(n)
		return n != 0 && up && !s.CutOff(n)
	})
}

// release removes the state keys of PGs that the map gives to others than an OSD that is cut off: it cannot do so itself, and its lease may run for seconds. Should it live, its members serve nobody
// but the next primary once its grants have run out.
func (m *Monitor) release(next *cluster.PGConfig) {
	s := m.follower.Snapshot()
	if !m.leading || m.stopped || s.Missing.Len() == 0 {
		return
	}
	for pg, state := range s.PGStates.All() {
		t, ok := next.Target(pg)
		if !ok || t.Primary == 0 || t.Primary == state.Primary || !s.CutOff(state.Primary) {
			continue
		}
		m.log.Warn("a PG's primary is cut off; another takes over", "pg", pg.String(), "osd", uint64(state.Primary), "primary", uint64(t.Primary))
		key := cluster.PGStateKey(pg)
		m.o.Registry.Txn(registry.Txn{
			If:   []registry.Compare{registry.HeldBy(cluster.KeyMonMaster, m.lease.ID()), registry.Unchanged(key, state.Mod)},
			Then: []registry.Op{{Kind: registry.Delete, Key: key}},
		}, func(_ registry.TxnResult, err error) {
			if err != nil && !m.stopped {
				m.soon(200 * time.Millisecond)
			}
		})
	}
}

// watchLeader has a monitor that does not lead look after the one that does.
func (m *Monitor) watchLeader(s *cluster.Snapshot) {
	switch {
	case m.stopped || m.leading || s.Master == nil || !overdue(s):
		m.l.Disarm(&m.late)
	case !m.late.Armed():
		m.l.Arm(&m.late, m.l.Now().Add(leaderPatience))
	}
}

// overdue reports whether a PG is still left to an OSD that is cut off.
func overdue(s *cluster.Snapshot) bool {
	if s.Missing.Len() == 0 || s.PGConfig == nil {
		return false
	}
	for _, targets := range s.PGConfig.Pools { // order: a disjunction
		for i := range targets {
			if replaceable(s, &targets[i]) {
				return true
			}
		}
	}
	return false
}

// depose removes the leader's key, so that an election follows. A leader that lives loses nothing but its turn: each decision is conditional on the key.
func (m *Monitor) depose() {
	s := m.follower.Snapshot()
	if m.stopped || m.leading || s.Master == nil || !overdue(s) {
		return
	}
	m.log.Warn("the leading monitor leaves PGs to an OSD that is cut off; another one is to lead", "leader", s.Master.Hostname)
	m.o.Registry.Txn(registry.Txn{
		If:   []registry.Compare{registry.Unchanged(cluster.KeyMonMaster, s.Master.Mod)},
		Then: []registry.Op{{Kind: registry.Delete, Key: cluster.KeyMonMaster}},
	}, func(registry.TxnResult, error) { m.watchLeader(m.follower.Snapshot()) })
}
