package osd

import "holdfast/osd/primary"

// Pending is what is under way with the PGs that this OSD is primary of.
func (s *OSD) Pending() primary.Pending { return s.prim.Pending() }
