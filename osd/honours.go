package osd

import "holdfast/core/wire"

// Honours reports whether our store holds itself to a grant now. Who watches a cluster for its invariants asks this; nobody else need know.
func (s *OSD) Honours(g wire.Grant) bool { return s.locks.Holds(g) }
