package primary

import (
	"holdfast/core/layout"
	"holdfast/osd/peering"
)

// Probe is told what a primary does that the invariants speak of (DESIGN section 6). The simulator gives one; without it, each call site costs one comparison.
type Probe interface {
	// Serving says that a PG begins to serve in an interval, with these members, us included.
	Serving(pg layout.PGID, interval layout.Interval, members []peering.Member)
	// Stopped says that it serves no more in that interval.
	Stopped(pg layout.PGID, interval layout.Interval)
	// Read says that a client is now told what the object holds at a version (0: nothing).
	Read(pg layout.PGID, interval layout.Interval, object layout.ObjectID, version layout.Version)
	// ReadLocally says that a client is now told so by a member that is not the primary, with the right that the primary lent it in the interval.
	ReadLocally(pg layout.PGID, interval layout.Interval, object layout.ObjectID, version layout.Version)
	// Changed says that a client is now told that its change, a request of a session (0: none), made a version. repeated: in an earlier try.
	Changed(pg layout.PGID, interval layout.Interval, object layout.ObjectID, version layout.Version, session, sequence uint64, repeated bool)
}

// Events count what happens rarely, since the start.
type Events struct {
	PairAnswers uint64 // changes answered by what an earlier try had made
	Joined      uint64 // changes that joined an earlier try that was still under way
	Interrupted uint64 // changes under way when their interval ended
	Blocked     uint64 // requests that waited for their object to be whole
	ReadWaits   uint64 // reads that waited for a version to be on every member
	LocalReads  uint64 // reads answered as a member, with the right that the primary lent
	Unsettled   uint64 // such reads left to the primary, because a change of the object may not be on every member yet
	Conflicts   uint64 // changes refused for another version than expected
	Late        uint64 // changes refused because their deadline had passed
	Fenced      uint64 // changes of fenced sessions refused
	Crowded     uint64 // changes refused because a member remembers too many requests already
	Full        uint64 // changes refused for lack of space
	Unmade      uint64 // of these, changes that some members had made already, and undid
	Yielded     uint64 // changes undone on every member to begin anew, since a member had no room for one more version that waits
	Repaired    uint64 // copies of ours found unreadable and replaced from another member
	Mended      uint64 // copies that could not be read, or were wrong, made anew from others
	Undone      uint64 // changes that were never acknowledged undone, because no copy of them could be read
	Lapsed      uint64 // times when a member's grant was found to have run out
	Forgotten   uint64 // tombstones whose forgetting was begun
	Syncs       uint64 // syncs that had something to do
	Overtaken   uint64 // lazy changes that came again and were refused, because another client had written since
	Dropped     uint64 // connections ended because their clients have to write again what was not synced
}
