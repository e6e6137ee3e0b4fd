// Package peering decides what a PG's history allows: who must be heard before it may serve, which version of each object is true, what must be voided and what copied.
//
// It is pure: values in, values out. osd drives it. The rules are those of docs/architecture.md, "Life of a PG":
//   - Only activated intervals bind and judge. The record of a PG names, for each set that may still hold the only copy of something, the OSDs and their stores.
//   - A PG activates only when from each recorded set a store is heard that took part in the last activated interval.
//   - The truth about an object is the newest version among the participants of that interval. What others hold is a copy of the truth, outdated, or false; false copies are
//     voided durably before the PG activates. Afterwards their stores are participants too and their word counts,
//     but not for the sets of before (see WithSet).
package peering

import (
	"cmp"
	"slices"

	"holdfast/core/layout"
	"holdfast/core/planted"
)

// Member is an OSD together with the store it runs on. Only that store satisfies a record that names it.
type Member struct {
	OSD   layout.OSDNum  `json:"osd"`
	Store layout.StoreID `json:"store"`
}

// Set is an acting set that was activated.
type Set struct {
	Interval layout.Interval `json:"interval"`
	Members  []Member        `json:"members"`
}

// contains reports whether a is a member.
func contains(list []Member, a Member) bool {
	if planted.EmptyDiskCounts {
		return slices.ContainsFunc(list, func(b Member) bool { return b.OSD == a.OSD })
	}
	return slices.Contains(list, a)
}

// subset reports whether every member of a is in b.
func subset(a, b []Member) bool {
	for _, m := range a {
		if !contains(b, m) {
			return false
		}
	}
	return true
}

// Record is what etcd holds of a PG's past (key interval/<pool>/<pg>).
type Record struct {
	Generation   uint64          `json:"generation"`             // etcd revision of the pool's creation
	Interval     layout.Interval `json:"interval"`               // the highest one taken
	Primary      layout.OSDNum   `json:"primary"`                // who took it,
	Instance     uint64          `json:"instance"`               // and its running instance
	Activated    layout.Interval `json:"activated"`              // the last one activated; 0 for a PG that never was
	Floor        layout.Version  `json:"floor"`                  // versions at or below were assigned, or may have been
	Sets         []Set           `json:"sets,omitempty"`         // activated sets that may hold the only copy of something, oldest first; the last is that of Activated
	Participants []Member        `json:"participants,omitempty"` // of the interval Activated: its set, and each store heard that took part in the one before
}

// WithSet is the record after the interval has been activated on set, with others heard besides: older sets stay unless a recorded set implies them.
//
// A member that did not take part in the interval before does not stand for the older sets that name it any more: it may hold a write that was never acknowledged on top of one
// that was, which it therefore has no more. Hearing another of each set was required, so none becomes empty. A store heard besides that did not take part in the interval before
// does not take part in this one either: its word was not needed.
func (r Record) WithSet(interval layout.Interval, set, heard []Member, floor layout.Version) Record {
	n := r
	n.Activated = interval
	n.Floor = max(r.Floor, floor)
	n.Sets = nil
	n.Participants = slices.Clone(set)
	for _, m := range heard {
		if contains(r.Participants, m) && !contains(set, m) {
			n.Participants = append(n.Participants, m)
		}
	}
	slices.SortFunc(n.Participants, func(a, b Member) int { return cmp.Compare(a.OSD, b.OSD) })
	older := make([]Set, 0, len(r.Sets))
	for _, s := range r.Sets {
		stand := slices.DeleteFunc(slices.Clone(s.Members), func(m Member) bool { return contains(set, m) && !contains(r.Participants, m) })
		if len(stand) > 0 {
			s.Members = stand
		}
		older = append(older, s)
	}
	for i, old := range older {
		// Hearing one of a smaller set hears one of each larger set too, so the larger one adds nothing.
		implied := subset(set, old.Members)
		for j, other := range older {
			if i != j && subset(other.Members, old.Members) && (len(other.Members) < len(old.Members) || j > i) {
				implied = true
			}
		}
		if !implied {
			n.Sets = append(n.Sets, old)
		}
	}
	n.Sets = append(n.Sets, Set{Interval: interval, Members: slices.Clone(set)})
	return n
}

// Clean is the record once every object is whole on the current set: nobody else is needed any more.
func (r Record) Clean() Record {
	n := r
	n.Sets = slices.Clone(r.Sets[len(r.Sets)-1:])
	n.Participants = slices.Clone(n.Sets[0].Members)
	return n
}

// IsClean reports whether the record needs nobody but its current set.
func (r Record) IsClean() bool {
	return len(r.Sets) == 1 && len(r.Participants) == len(r.Sets[0].Members)
}

// Unheard lists the recorded sets none of whose stores among heard took part in the last activated interval. The PG may activate only when there are none.
func (r Record) Unheard(heard []Member) []Set {
	var missing []Set
	for _, s := range r.Sets {
		ok := false
		for _, m := range s.Members {
			ok = ok || contains(heard, m) && contains(r.Participants, m)
		}
		if !ok {
			missing = append(missing, s)
		}
	}
	return missing
}

// Entry is one object as a store lists it.
type Entry struct {
	Object    layout.ObjectID
	Version   layout.Version
	Interval  layout.Interval
	Tombstone bool
	Void      bool
}

func (e Entry) same(f Entry) bool { return e.Version == f.Version && e.Interval == f.Interval }

// newer compares intervals first. Along an object's true history both grow, but a hot object's versions may reach into those of later intervals: a false copy from such an
// interval must not pass for newer than what was written after it.
func (e Entry) newer(f Entry) bool {
	return e.Interval > f.Interval || e.Interval == f.Interval && e.Version > f.Version
}

// Listing is what one heard store holds of the PG.
type Listing struct {
	Member  Member
	Entries []Entry
}

// Lack is what a member of the set holds instead of the truth; Version 0 when it holds nothing.
type Lack struct {
	OSD  layout.OSDNum
	Have Entry
}

// Unclean is an object that is not whole on the set.
type Unclean struct {
	Object  layout.ObjectID
	Truth   Entry           // Version 0: the object must not exist
	Holders []layout.OSDNum // heard OSDs that hold the truth; empty only when Truth is Version 0 or a tombstone
	Lacks   []Lack          // members of the set that must be given the truth
	Back    *Unclean        // what to fall back to should no holder's copy be readable; nil if the truth may have been acknowledged
}

// Verdict is the outcome of a judgement.
type Verdict struct {
	Voids      map[layout.OSDNum][]Entry // false copies, to be voided durably before the PG activates; sorted by object
	Unclean    []Unclean                 // sorted by object
	Floor      layout.Version            // no smaller than any version listed
	Objects    int                       // live objects
	Degraded   int                       // objects that a member lacks altogether or holds in an older version
	Tombstones []Entry                   // deleted objects; to be forgotten once the PG is clean
}

type truth struct {
	entry   Entry
	oldest  Entry  // that a participant holds
	known   bool   // entry is the word of a participant
	judges  int    // participants that hold some version
	holders uint64 // listings (by index) that hold entry
	listed  uint64 // listings that list the object at all
}

// MaxHeard is how many stores one judgement can hear.
const MaxHeard = 64

// Judge compares the listings of all heard stores. set is the acting set to be activated; each of its members must be among the listings, of which there may be at most MaxHeard.
func Judge(r Record, set []layout.OSDNum, lists []Listing) Verdict {
	v := Verdict{Voids: map[layout.OSDNum][]Entry{}, Floor: r.Floor}
	objects := make(map[layout.ObjectID]*truth)
	at := func(o layout.ObjectID) *truth {
		t := objects[o]
		if t == nil {
			t = &truth{}
			objects[o] = t
		}
		return t
	}
	judges := 0
	for _, l := range lists {
		// A PG that was never activated has no participants, and nothing it holds was ever acknowledged.
		judge := contains(r.Participants, l.Member) || planted.StrangerJudges
		if judge {
			judges++
		}
		for _, e := range l.Entries {
			v.Floor = max(v.Floor, e.Version)
			t := at(e.Object)
			if !judge || e.Void && !planted.VoidJudges {
				continue
			}
			if !t.known || e.newer(t.entry) {
				t.entry = e
			}
			if !t.known || t.oldest.newer(e) {
				t.oldest = e
			}
			t.known = true
			t.judges++
		}
	}
	held := make([]map[layout.ObjectID]Entry, len(lists)) // what a listing holds instead of the truth
	for i, l := range lists {
		for _, e := range l.Entries {
			t := objects[e.Object]
			t.listed |= 1 << i
			if t.known && e.same(t.entry) && !e.Void && e.Tombstone == t.entry.Tombstone {
				t.holders |= 1 << i
				continue
			}
			if held[i] == nil {
				held[i] = make(map[layout.ObjectID]Entry)
			}
			held[i][e.Object] = e
			// An outdated copy need not be voided if every participant has a newer one: then it can't be mistaken for the truth however many of them are lost before recovery.
			outdated := t.judges == judges && t.oldest.newer(e) || contains(r.Participants, l.Member) && t.entry.newer(e)
			if !e.Void && !outdated && !planted.VoidSkipped {
				v.Voids[l.Member.OSD] = append(v.Voids[l.Member.OSD], e)
			}
		}
	}
	for _, list := range v.Voids { // order: each list is sorted by itself
		slices.SortFunc(list, func(a, b Entry) int { return compareObjects(a.Object, b.Object) })
	}
	afterVoids := func(i int, o layout.ObjectID) Entry {
		have := held[i][o]
		if list := v.Voids[lists[i].Member.OSD]; len(list) > 0 {
			_, voided := slices.BinarySearchFunc(list, o, func(e Entry, o layout.ObjectID) int { return compareObjects(e.Object, o) })
			have.Void = have.Void || voided
		}
		return have
	}
	order := make([]layout.ObjectID, 0, len(objects))
	for o := range objects { // order: sorted below
		order = append(order, o)
	}
	slices.SortFunc(order, compareObjects)
	for _, o := range order {
		t := objects[o]
		u := Unclean{Object: o}
		exists := t.known && !t.entry.Tombstone
		if t.known {
			u.Truth = t.entry
		}
		if exists {
			v.Objects++
		} else if t.known {
			v.Tombstones = append(v.Tombstones, t.entry)
		}
		for i, l := range lists {
			if t.holders>>i&1 == 1 {
				u.Holders = append(u.Holders, l.Member.OSD)
				continue
			}
			if !slices.Contains(set, l.Member.OSD) {
				continue
			}
			if t.listed>>i&1 == 1 {
				u.Lacks = append(u.Lacks, Lack{OSD: l.Member.OSD, Have: afterVoids(i, o)})
			} else if t.known {
				// A tombstone too: the next write names one version as its base on every member.
				u.Lacks = append(u.Lacks, Lack{OSD: l.Member.OSD, Have: Entry{Object: o}})
			}
		}
		if len(u.Lacks) > 0 {
			if exists && t.entry.Interval == r.Activated {
				u.Back = r.back(&u, set, lists, func(i int) Entry {
					switch {
					case t.listed>>i&1 == 0:
						return Entry{Object: o}
					case t.holders>>i&1 == 1:
						return t.entry
					}
					return afterVoids(i, o)
				})
			}
			v.Unclean = append(v.Unclean, u)
			v.Degraded++
		}
	}
	return v
}

// back is the state of an object before the last change that was never acknowledged, nor seen by anybody, and leads on to those before; nil if nothing proves that it was not.
//
// The truth was written in the last activated interval, so the object was whole on all of its set then, and what a member of that set lacks now it never stored: no version later than the
// oldest of theirs can have been on every member. All copies that are newer than what it goes back to must be within reach, so that none of them comes up again.
func (r Record) back(u *Unclean, set []layout.OSDNum, lists []Listing, entry func(i int) Entry) *Unclean {
	if len(r.Sets) == 0 {
		return nil
	}
	last := r.Sets[len(r.Sets)-1]
	oldest := u.Truth
	var before []Entry // that members of that set have, newest first
	for i, l := range lists {
		if e := entry(i); slices.Contains(last.Members, l.Member) && u.Truth.newer(e) {
			if oldest.newer(e) {
				oldest = e
			}
			if !e.Void && !slices.ContainsFunc(before, e.same) {
				before = append(before, e)
			}
		}
	}
	if oldest.same(u.Truth) || oldest.Void {
		return nil
	}
	slices.SortFunc(before, func(a, b Entry) int {
		switch {
		case a.newer(b):
			return -1
		case b.newer(a):
			return 1
		}
		return 0
	})
	first := &Unclean{}
	for at := first; len(before) > 0; before = before[1:] {
		if at.Back = backTo(before[0], set, lists, entry); at.Back == nil {
			break
		}
		at = at.Back
	}
	return first.Back
}

// backTo makes an earlier version the truth; nil if a newer one is out of reach.
func backTo(truth Entry, set []layout.OSDNum, lists []Listing, entry func(i int) Entry) *Unclean {
	b := &Unclean{Object: truth.Object, Truth: truth}
	for i, l := range lists {
		e := entry(i)
		switch member := slices.Contains(set, l.Member.OSD); {
		case e.same(truth) && e.Tombstone == truth.Tombstone && !e.Void:
			if e.Version != 0 {
				b.Holders = append(b.Holders, l.Member.OSD)
			}
		case member:
			b.Lacks = append(b.Lacks, Lack{OSD: l.Member.OSD, Have: e})
		case !e.Void && e.newer(truth):
			return nil
		}
	}
	return b
}

func compareObjects(a, b layout.ObjectID) int {
	if c := cmp.Compare(a.Inode, b.Inode); c != 0 {
		return c
	}
	return cmp.Compare(a.Stripe, b.Stripe)
}
