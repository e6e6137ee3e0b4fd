package monitor

import (
	"fmt"
	"strconv"

	"holdfast/core/cluster"
	"holdfast/core/registry"
)

// back is whether etcd was seen to go back to an earlier state that nobody has declared yet: what a pool lacks then may be known to OSDs, which have not been asked.
type back struct {
	here      bool
	before    *cluster.Restored // the declaration that the copy held, or nil
	from, to  registry.Revision
	declaring bool
}

// look compares a state of the cluster with the one before.
func (b *back) look(prev, next *cluster.Snapshot) {
	switch r := next.Restored; {
	case next.Copy != prev.Copy:
		b.here, b.before, b.from, b.to = !r.LaterThan(prev.Restored), r, prev.Revision, next.Revision
	case b.here && r != nil && (b.before == nil || r.ID != b.before.ID):
		b.here = false
	}
}

// undeclared reports whether etcd has gone back and nobody has said so, and has it said: OSDs do that as well, but perhaps none is up.
func (m *Monitor) undeclared(s *cluster.Snapshot) bool {
	b := &m.back
	if !b.here || b.declaring || s.Restoring != nil { // whoever restores has declared it
		return b.here
	}
	b.declaring = true
	reason := fmt.Sprintf("the monitor on %s saw etcd go back from revision %d to %d", m.o.Hostname, b.from, b.to)
	m.log.Error("etcd was restored from an older state; every OSD must report what it knows before a pool without an identity is given one", "reason", reason)
	d := cluster.Restored{ID: strconv.FormatUint(m.l.Rand().Uint64()|1, 16), Time: m.l.Wall().Unix(), Reason: reason}
	m.o.Registry.Txn(cluster.DeclareRestored(s, d), func(registry.TxnResult, error) {
		b.declaring = false
		if !m.stopped {
			m.soon(retryPause) // when that is applied; or it is tried again
		}
	})
	return true
}
