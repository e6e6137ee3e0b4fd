// Package peering decides what a PG's history allows: who must be heard before it may serve, which version of each object is true, what must be voided and what copied.
//
// It is pure: values in, values out. osd drives it. The rules are those of docs/architecture.md, "Life of a PG":
//   - Only activated intervals bind and judge. The record of a PG names, for each set that may still hold the only copy of something, the OSDs and their stores.
//   - A PG activates only when from each recorded set a store is heard that took part in the last activated interval; k of them in erasure-coded pools (JudgeChunks).
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
//
// It stands for itself, and for sets of other intervals that it implies: those are between First and Last.
type Set struct {
	Interval layout.Interval `json:"interval"`
	Members  []Member        `json:"members"`          // those whose word counts
	Silent   []Member        `json:"silent,omitempty"` // those whose word does not any more (see WithSet). What they lack still was never on every member
	First    layout.Interval `json:"first,omitempty"`  // 0: may be any,
	Last     layout.Interval `json:"last,omitempty"`   // and so may this
}

// was reports whether a store was a member.
func (s *Set) was(a Member) bool {
	return slices.Contains(s.Members, a) || slices.Contains(s.Silent, a)
}

// implies reports whether hearing one of s hears one of o, and whoever was a member of s was one of o.
func (s *Set) implies(o *Set) bool {
	return subset(s.Members, o.Members) && !slices.ContainsFunc(s.Silent, func(m Member) bool { return !o.was(m) })
}

// standsFor makes s stand for what o stood for.
func (s *Set) standsFor(o *Set) {
	if s.First, s.Last = min(s.First, o.First), max(s.Last, o.Last); s.First == 0 {
		s.Last = 0
	}
}

// reaches reports whether s may stand for the set of an interval or of a later one.
func (s *Set) reaches(i layout.Interval) bool { return s.Last == 0 || s.Last >= i }

// mayBe reports whether s may stand for the set of an interval.
func (s *Set) mayBe(i layout.Interval) bool { return s.First <= i && s.reaches(i) }

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
// that was, which it therefore has no more. Hearing another of each set, or k others, was required, so none becomes empty, or smaller than that. A store heard besides that did not take part in the
// interval before does not take part in this one either: its word was not needed.
func (r Record) WithSet(interval layout.Interval, set, heard []Member, floor layout.Version) Record {
	n := r
	n.Activated = interval
	n.Floor = max(r.Floor, floor)
	n.Sets = nil
	n.Participants = slices.Clone(set)
	for _, m := range heard {
		if contains(r.Participants, m) && !contains(set, m) && !planted.HeardLeftOut {
			n.Participants = append(n.Participants, m)
		}
	}
	slices.SortFunc(n.Participants, func(a, b Member) int { return cmp.Compare(a.OSD, b.OSD) })
	older := make([]Set, 0, len(r.Sets)+1)
	for _, s := range r.Sets {
		joined := func(m Member) bool {
			return contains(set, m) && !contains(r.Participants, m) && !planted.NewcomerStands
		}
		if stand := slices.DeleteFunc(slices.Clone(s.Members), joined); len(stand) > 0 {
			silent := slices.DeleteFunc(slices.Clone(s.Members), func(m Member) bool { return !joined(m) })
			s.Members, s.Silent = stand, append(silent, s.Silent...)
		}
		older = append(older, s)
	}
	older = append(older, Set{Interval: interval, Members: slices.Clone(set), First: interval, Last: interval})
	if n.Sets = needed(older); len(n.Sets) > maxSets {
		for i := range n.Sets {
			n.Sets[i].Silent = nil
		}
		n.Sets = needed(n.Sets)
	}
	return n
}

// maxSets is how many sets a record may have while silent members are remembered: they may keep sets apart that could stand for each other.
const maxSets = 16

// needed leaves out the sets that another implies. The last one stays.
func needed(sets []Set) []Set {
	for i := 0; i < len(sets)-1; {
		by := -1
		for j := range sets {
			if j != i && sets[j].implies(&sets[i]) {
				by = j
			}
		}
		if by < 0 {
			i++
			continue
		}
		sets[by].standsFor(&sets[i])
		sets = slices.Delete(sets, i, i+1)
	}
	return sets
}

// Clean is the record once every object is whole on the current set: nobody else is needed any more.
func (r Record) Clean() Record {
	n := r
	n.Sets = slices.Clone(r.Sets[len(r.Sets)-1:])
	n.Sets[0].First, n.Sets[0].Last = n.Activated, n.Activated
	n.Participants = slices.Clone(n.Sets[0].Members)
	return n
}

// IsClean reports whether the record needs nobody but its current set.
func (r Record) IsClean() bool {
	return len(r.Sets) == 1 && len(r.Participants) == len(r.Sets[0].Members)
}

// Unheard lists the recorded sets of which fewer than k stores that took part in the last activated interval are among heard. The PG may activate only when there are none.
// k is how many stores it takes to read what was written: 1 in replicated pools.
func (r Record) Unheard(heard []Member, k int) []Set {
	var missing []Set
	for i, s := range r.Sets {
		n := max(1, k)
		if planted.OlderSetTooFew && i < len(r.Sets)-1 {
			n = 1
		}
		for _, m := range s.Members {
			if contains(heard, m) && (contains(r.Participants, m) || planted.StrangerStands) {
				n--
			}
		}
		if n > 0 {
			missing = append(missing, s)
		}
	}
	return missing
}

// Entry is one object as a store lists it; in erasure-coded pools one chunk: its newest stable version, and each unstable one above that.
type Entry struct {
	Object    layout.ObjectID
	Version   layout.Version
	Interval  layout.Interval
	Tombstone bool
	Void      bool
	Unstable  bool
}

func (e Entry) same(f Entry) bool { return e.Version == f.Version && e.Interval == f.Interval }

// equals reports whether two stores have the same, and may give it.
func (e Entry) equals(f Entry) bool {
	return e.same(f) && e.Tombstone == f.Tombstone && !e.Void && !f.Void
}

// compare puts the older one first.
func (e Entry) compare(f Entry) int {
	return cmp.Or(cmp.Compare(e.Interval, f.Interval), cmp.Compare(e.Version, f.Version))
}

// newer compares intervals first. Along an object's true history both grow, but a hot object's versions may reach into those of later intervals: a false copy from such an
// interval must not pass for newer than what was written after it.
func (e Entry) newer(f Entry) bool { return e.compare(f) > 0 }

// Listing is what one heard store holds of the PG.
type Listing struct {
	Member  Member
	Entries []Entry
}

// Lack is what a member of the set holds instead of the truth; Version 0 when it holds nothing. In erasure-coded pools Have.Object names the chunk, with its role.
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
	Newer   []Lack          // of what is fallen back to: newer copies on heard OSDs that are no members, to be voided once every member has the truth, and before it is served

	// In erasure-coded pools:
	Chunks []Chunk // of the truth, on heard OSDs; of fewer than k roles (see Roles) it waits. Nothing earlier takes its place
	Strays []Lack  // chunks of other roles than theirs on members, to be removed once every member has its own
}

// Verdict is the outcome of a judgement.
type Verdict struct {
	Rollbacks  map[layout.OSDNum][]Entry // chunks: what is unstable above this version is false, to be dropped durably before voids and before the PG activates; sorted by object
	Voids      map[layout.OSDNum][]Entry // false copies, to be voided durably before the PG activates; sorted by object
	Commits    map[layout.OSDNum][]Entry // chunks: unstable up to this version is true, to be committed when the PG has been activated, before it serves; sorted by object
	Unclean    []Unclean                 // sorted by object
	Floor      layout.Version            // no smaller than any version listed
	Objects    int                       // live objects
	Degraded   int                       // objects that a member lacks altogether or holds in an older version
	Incomplete int                       // live objects of whose truth chunks of fewer than k roles are heard
	Tombstones []Entry                   // deleted objects; to be forgotten once the PG is clean
}

// backs lists the OSDs that have what an object may have to go back to.
func (v *Verdict) backs() (list []layout.OSDNum) {
	for i := range v.Unclean {
		for u := v.Unclean[i].Back; u != nil; u = u.Back {
			for _, osd := range u.Holders {
				if !slices.Contains(list, osd) {
					list = append(list, osd)
				}
			}
		}
	}
	return list
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
		}
	}
	have := make([]Entry, len(lists)) // of one object
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
		lacks := false
		for i, l := range lists {
			switch {
			case t.holders>>i&1 == 1:
				have[i] = t.entry
				continue
			case t.listed>>i&1 == 1:
				have[i] = held[i][o]
			default:
				have[i] = Entry{Object: o}
			}
			// A tombstone too: the next write names one version as its base on every member.
			lacks = lacks || (t.known || t.listed>>i&1 == 1) && slices.Contains(set, l.Member.OSD)
		}
		var before []Entry
		if exists && lacks {
			before = r.before(t.entry, lists, have)
		}
		for i, l := range lists {
			// An outdated copy need not be voided if every participant has a newer one: then it can't be mistaken for the truth however many of them are lost before recovery. Nor may one
			// that the object may have to go back to.
			e := &have[i]
			outdated := t.judges == judges && t.oldest.newer(*e) || contains(r.Participants, l.Member) && t.entry.newer(*e) || slices.ContainsFunc(before, e.equals)
			if t.listed&^t.holders>>i&1 == 1 && !e.Void && !outdated && !planted.VoidSkipped {
				v.Voids[l.Member.OSD] = append(v.Voids[l.Member.OSD], *e)
				e.Void = true
			}
		}
		for i, l := range lists {
			if t.holders>>i&1 == 1 {
				u.Holders = append(u.Holders, l.Member.OSD)
			} else if slices.Contains(set, l.Member.OSD) && (t.known || t.listed>>i&1 == 1) {
				u.Lacks = append(u.Lacks, Lack{OSD: l.Member.OSD, Have: have[i]})
			}
		}
		if lacks {
			at := &u
			for _, e := range before {
				at.Back = backTo(e, set, lists, have)
				at = at.Back
			}
			v.Unclean = append(v.Unclean, u)
			v.Degraded++
		}
	}
	return v
}

// before are the states of an object before its truth that it may go back to, newest first; none unless it is proved that the truth, and all later ones than the last of them, were never
// acknowledged, nor seen by anybody. have is what each heard store has of it.
//
// What is acknowledged or read in an interval is on every member of its set then. A member that lacks the truth now never had it, or the truth would have been found false since; so nobody was told
// of it in an interval of which such a member is heard. A recorded set stands for each interval since the truth was written, and its members were members then; or every object was
// whole since on a set that is recorded. So one is needed of each recorded set that may stand for such an interval, and no version later than the oldest of a set's can have been on every member.
//
// The members of the set that the truth was written by had the object whole before, so what they have is of its history. What others have may be false.
func (r Record) before(truth Entry, lists []Listing, have []Entry) (list []Entry) {
	sets := r.Sets
	if len(sets) > 0 && truth.Interval == r.Activated {
		sets = sets[len(sets)-1:] // nothing stands for it but itself
	}
	var seen Entry // no later one can have been
	known := false // by which set it may have been written
	for i := range sets {
		s := &sets[i]
		known = known || s.mayBe(truth.Interval)
		if !s.reaches(truth.Interval) {
			continue
		}
		oldest := truth
		for j, l := range lists {
			if e := have[j]; !e.Void && oldest.newer(e) && s.was(l.Member) {
				oldest = e
			}
		}
		if oldest.same(truth) {
			if planted.UndoAcknowledged {
				continue
			}
			return nil
		}
		if oldest.newer(seen) {
			seen = oldest
		}
	}
	if !known {
		return nil
	}
	for j, l := range lists {
		e := have[j]
		wrote := !slices.ContainsFunc(sets, func(s Set) bool { return s.mayBe(truth.Interval) && !s.was(l.Member) })
		if wrote && !e.Void && truth.newer(e) && !seen.newer(e) && !slices.ContainsFunc(list, e.equals) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return b.compare(a) })
	return list
}

// backTo makes an earlier version the truth.
func backTo(truth Entry, set []layout.OSDNum, lists []Listing, have []Entry) *Unclean {
	b := &Unclean{Object: truth.Object, Truth: truth}
	for i, l := range lists {
		e := have[i]
		switch {
		case e.equals(truth):
			if e.Version != 0 {
				b.Holders = append(b.Holders, l.Member.OSD)
			}
		case slices.Contains(set, l.Member.OSD):
			b.Lacks = append(b.Lacks, Lack{OSD: l.Member.OSD, Have: e})
		case !e.Void && e.newer(truth):
			b.Newer = append(b.Newer, Lack{OSD: l.Member.OSD, Have: e})
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
