package store

import "holdfast/core/layout"

// Place is where on the device the block of an object's newest state begins; false when it has none: nothing was written, or all of it is in the journal so far. For those who look at disks from outside, as tests do.
func (s *Store) Place(oid layout.ObjectID) (off int64, ok bool) {
	_, slot, d, ok := s.lookup(oid)
	if !ok {
		return 0, false
	}
	block := slotView(s.t.slot(slot)).block()
	if d != 0 && s.dirty[d].first != 0 {
		s.resolve(&s.view, slot, d, s.dirty[d].lastVisible)
		block = s.view.block
	}
	if block == noBlock {
		return 0, false
	}
	return s.sb.blockOff(block), true
}
