package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// StateBits is a PG's state: a bit set on the wire, a list of keywords in etcd.
type StateBits uint32

// The bits of a PG's state.
const (
	StateStarting StateBits = 1 << iota
	StatePeering
	StateIncomplete
	StateActive
	StateRepeering
	StateStopping
	StateOffline
	StateDegraded
	StateHasIncomplete
	StateHasDegraded
	StateHasMisplaced
	StateHasUnclean
	StateHasInvalid
	StateHasCorrupted
	StateHasInconsistent
	StateLeftOnDead
	StateScrubbing
)

// stateNames are the keywords, by bit.
var stateNames = [...]string{
	"starting", "peering", "incomplete", "active", "repeering", "stopping", "offline", "degraded", "has_incomplete", "has_degraded", "has_misplaced", "has_unclean",
	"has_invalid", "has_corrupted", "has_inconsistent", "left_on_dead", "scrubbing",
}

// Names are the keywords of the bits, in the order of the bits.
func (s StateBits) Names() []string {
	names := []string{}
	for i, name := range stateNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

func (s StateBits) String() string { return strings.Join(s.Names(), "+") }

// ParseState reads keywords.
func ParseState(names []string) (StateBits, error) {
	var s StateBits
next:
	for _, name := range names {
		for i, known := range stateNames {
			if name == known {
				s |= 1 << i
				continue next
			}
		}
		return 0, fmt.Errorf("there is no PG state %q", name)
	}
	return s, nil
}

// MarshalJSON writes the keywords.
func (s StateBits) MarshalJSON() ([]byte, error) { return json.Marshal(s.Names()) }

// UnmarshalJSON reads keywords.
func (s *StateBits) UnmarshalJSON(b []byte) error {
	var names []string
	if err := json.Unmarshal(b, &names); err != nil {
		return err
	}
	v, err := ParseState(names)
	if err == nil {
		*s = v
	}
	return err
}

// Whole reports whether a PG is served and nothing of what is needed lacks anywhere. What nobody needs may be left on OSDs that are down.
func (s StateBits) Whole() bool { return s&^(StateLeftOnDead|StateScrubbing) == StateActive }

// stateBase are the bits of which a PG has exactly one.
const stateBase = StateStarting | StatePeering | StateIncomplete | StateActive | StateRepeering | StateStopping | StateOffline

// Check applies the rules that readers of pg/state rely on: one base state; offline, starting and peering alone; incomplete alone or with has_invalid.
func (s StateBits) Check() error {
	switch base := s & stateBase; {
	case s == 0:
		return errors.New("the state is empty")
	case base == 0 || base&(base-1) != 0:
		return fmt.Errorf("state %v: want exactly one of %v", s, stateBase)
	case base == StateOffline || base == StatePeering || base == StateStarting:
		if s != base {
			return fmt.Errorf("state %v: %v stands alone", s, base)
		}
	case base == StateIncomplete && s&^StateHasInvalid != base:
		return fmt.Errorf("state %v: incomplete stands alone or with has_invalid", s)
	}
	return nil
}
