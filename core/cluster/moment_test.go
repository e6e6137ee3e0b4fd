package cluster

import (
	"testing"

	"holdfast/core/registry"
)

func TestMoments(t *testing.T) {
	sent := &Snapshot{Revision: 100}
	for _, c := range []struct {
		name       string
		rev        int64
		now        Snapshot
		past, lost bool
	}{
		{"not yet", 110, Snapshot{Revision: 109}, false, false},
		{"applied", 110, Snapshot{Revision: 110}, true, false},
		{"another copy", 110, Snapshot{Revision: 60, Copy: 1}, true, true},
		{"another copy that has come as far", 110, Snapshot{Revision: 110, Copy: 1}, true, true},
		{"answered by another copy", 60, Snapshot{Revision: 100}, false, false},
		{"answered by another copy, which is found then", 60, Snapshot{Revision: 61, Copy: 1}, true, true},
	} {
		m := sent.Moment(registry.Revision(c.rev))
		if past, lost := c.now.Past(m), c.now.Lost(m); past != c.past || lost != c.lost {
			t.Errorf("%s: past %v, lost %v", c.name, past, lost)
		}
	}
}
