package wire

import "strings"

// PGState is a PG's state as bits; the names are those of etcd's pg/state.
type PGState uint64

// The bits of PGState.
const (
	PGStarting PGState = 1 << iota
	PGPeering
	PGIncomplete
	PGActive
	PGRepeering
	PGStopping
	PGOffline
	PGDegraded
	PGHasIncomplete
	PGHasDegraded
	PGHasMisplaced
	PGHasUnclean
	PGHasInvalid
	PGHasCorrupted
	PGHasInconsistent
	PGLeftOnDead
	PGScrubbing
)

var pgStateNames = [...]string{
	"starting", "peering", "incomplete", "active", "repeering", "stopping", "offline", "degraded", "has_incomplete", "has_degraded", "has_misplaced",
	"has_unclean", "has_invalid", "has_corrupted", "has_inconsistent", "left_on_dead", "scrubbing",
}

// Names lists the bits that are set, lowest first.
func (s PGState) Names() []string {
	var names []string
	for i, name := range pgStateNames {
		if s>>i&1 != 0 {
			names = append(names, name)
		}
	}
	return names
}

func (s PGState) String() string { return strings.Join(s.Names(), "+") }

// ParsePGState joins the bits of the names; ok is false when one is unknown.
func ParsePGState(names []string) (s PGState, ok bool) {
next:
	for _, name := range names {
		for i, n := range pgStateNames {
			if n == name {
				s |= 1 << i
				continue next
			}
		}
		return 0, false
	}
	return s, true
}

// Bits of an object's state, as DESCRIBE filters by them.
const (
	ObjectDegraded      uint64 = 0x02
	ObjectIncomplete    uint64 = 0x04
	ObjectMisplaced     uint64 = 0x08
	ObjectCorrupted     uint64 = 0x10 // always together with one of the former
	ObjectInconsistent  uint64 = 0x20
	ObjectNeedsStable   uint64 = 0x10000
	ObjectNeedsRollback uint64 = 0x20000
)
