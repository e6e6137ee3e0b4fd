package cluster

import (
	"math"

	"holdfast/core/registry"
)

// Moment is a revision, as one Follower counts, that somebody waits for. Once the registry has been found to be another copy the number means nothing, and waiting for it would be waiting for what may
// take days: so every such waiter asks Past, and Lost where it matters whether what it waited for is there.
type Moment struct {
	copy int
	rev  registry.Revision
}

// Moment is when a request was answered that was sent while s was the Follower's newest snapshot. A revision below that of s is one of another copy, which the Follower has not come across yet.
func (s *Snapshot) Moment(rev registry.Revision) Moment {
	if rev < s.Revision {
		rev = math.MaxInt64
	}
	return Moment{s.Copy, rev}
}

// Past reports whether s shows everything up to m, or m is lost.
func (s *Snapshot) Past(m Moment) bool { return s.Lost(m) || s.Revision >= m.rev }

// Lost reports whether s is of another copy of the registry, which was read as a whole and may lack what there was at m.
func (s *Snapshot) Lost(m Moment) bool { return s.Copy != m.copy }
