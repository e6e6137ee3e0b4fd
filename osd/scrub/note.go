package scrub

import (
	"holdfast/core/layout"
	"holdfast/core/wire"
	"holdfast/osd/primary"
)

// note adds up what was found of an object.
func (s *Scrubber) note(id layout.ObjectID, c primary.Compared) {
	d := &s.done
	d.Bytes += c.Bytes
	d.Bad += uint64(c.Bad)
	switch c.Found {
	case wire.FoundNothing:
		return // deleted since it was listed
	case wire.FoundUnclean:
		if !s.second && len(s.again) < maxAgain {
			s.again = append(s.again, id)
		} else {
			d.Skipped++
		}
		return
	case wire.FoundInconsistent:
		d.Inconsistent++
	case wire.FoundLost:
		d.Lost++
	}
	d.Objects++
}
