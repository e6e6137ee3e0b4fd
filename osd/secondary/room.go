package secondary

import (
	"holdfast/core/layout"
	"holdfast/osd/store"
)

// Limits say how full a store may become, each as a part of its blocks (docs/adr/0024-full-disks.md). Beyond both, a part is kept back by the store itself, for what needs no space in the end.
type Limits struct {
	Full     float64 // osd_full_ratio: clients' changes that need space are refused from here on
	Backfill float64 // osd_backfillfull_ratio: recovery brings nothing more, but for what clients wait for
}

// DefaultLimits is what the parameters say where nobody has set them.
func DefaultLimits() Limits { return Limits{Full: 0.97, Backfill: 0.99} }

// Clients is how much of the room in a store of so many blocks is for clients.
func (l Limits) Clients(room, blocks uint64) uint64 { return less(room, l.leave(blocks)) }

// leave is how much of Room clients must leave.
func (l Limits) leave(blocks uint64) uint64 { return max(layout.LeastLeft, beyond(blocks, l.Full)) }

// beyond is how many of so many blocks there are beyond a part of them.
func beyond(blocks uint64, ratio float64) uint64 { return uint64(float64(blocks) * max(0, 1-ratio)) }

func less(a, b uint64) uint64 { return a - min(a, b) }

// Room is how many more objects a store can take: each needs a block, as a rule, and a place in the metadata, which deletions that are remembered need, too.
func Room(st *store.Stats) uint64 { return min(st.FreeBlocks, st.FreeSlots) }

// ClientRoom is how many more changes that need space one primary may have under way here. Near the end each has its share: their changes come at once.
func (s *Server) ClientRoom(st *store.Stats) uint64 {
	room := s.Limits.Clients(Room(st), st.Blocks)
	if room > 0 && room < shared {
		room = max(1, room/s.Locks.primaries())
	}
	return room
}

// shared is the room from which on nobody's changes under way can use up the others'.
const shared = 1 << 16

// RecoveryRoom is how many more objects recovery may bring.
func (s *Server) RecoveryRoom(st *store.Stats) uint64 {
	return less(Room(st), beyond(st.Blocks, s.Limits.Backfill))
}
