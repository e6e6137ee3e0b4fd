package peering

import (
	"cmp"
	"slices"

	"holdfast/core/layout"
	"holdfast/core/planted"
)

// Chunk says where a chunk of an object is.
type Chunk struct {
	OSD  layout.OSDNum
	Role int
}

// Roles counts the roles of which a chunk of the truth is heard. An object can be read when there are k, or when there is nothing to read.
func (u *Unclean) Roles() int { return u.RolesBelow(layout.RoleMask + 1) }

// RolesBelow counts those of them that a pool with so many roles has: it may have had more.
func (u *Unclean) RolesBelow(roles int) int {
	n := 0
	for i, c := range u.Chunks {
		if c.Role < roles && !slices.ContainsFunc(u.Chunks[:i], func(d Chunk) bool { return d.Role == c.Role }) {
			n++
		}
	}
	return n
}

// heardChunk is one version of a chunk that a store lists.
type heardChunk struct {
	from int // the listing
	Entry
}

// chunks judges the objects of one PG.
type chunks struct {
	r     Record
	k     int
	roles []layout.OSDNum
	lists []Listing
	judge []bool // by listing: it took part in the last activated interval,
	wrote []bool // and this was a member of its set
	v     Verdict
}

// JudgeChunks is Judge for pools with k data chunks. roles has the acting OSD of each role, 0 where there is none.
//
// The rules (docs/adr/0021-erasure-coded-writes.md):
//  1. What a participant of the last activated interval has stable is true unless something newer is, and so is what it has unstable from before that interval: what was false then was rolled back
//     before the interval was activated.
//  2. An unstable version of the last activated interval is true if every heard member of that interval's set has it, and they are k or more. If one lacks it nobody was told of it.
//  3. Unstable versions that are not true are rolled back, and stable ones of others voided as copies are, before the PG activates. Those that are true are committed after that: somebody who comes
//     back may still prove that nobody was told, as long as the PG has not been activated, and then the version before must still be there.
func JudgeChunks(r Record, k int, roles []layout.OSDNum, lists []Listing) Verdict {
	c := chunks{r: r, k: k, roles: roles, lists: lists, judge: make([]bool, len(lists)), wrote: make([]bool, len(lists))}
	c.v = Verdict{Voids: map[layout.OSDNum][]Entry{}, Rollbacks: map[layout.OSDNum][]Entry{}, Commits: map[layout.OSDNum][]Entry{}, Floor: r.Floor}
	var all []heardChunk
	for i, l := range lists {
		c.judge[i] = contains(r.Participants, l.Member) || planted.StrangerJudges
		c.wrote[i] = len(r.Sets) > 0 && contains(r.Sets[len(r.Sets)-1].Members, l.Member)
		for _, e := range l.Entries {
			c.v.Floor = max(c.v.Floor, e.Version)
			all = append(all, heardChunk{i, e})
		}
	}
	slices.SortFunc(all, func(a, b heardChunk) int {
		return cmp.Or(compareObjects(a.Object.Whole(), b.Object.Whole()), cmp.Compare(a.from, b.from), cmp.Compare(a.Object.Stripe, b.Object.Stripe), stableFirst(a.Entry, b.Entry), a.compare(b.Entry))
	})
	for len(all) > 0 {
		whole := all[0].Object.Whole()
		n := slices.IndexFunc(all, func(e heardChunk) bool { return e.Object.Whole() != whole })
		if n < 0 {
			n = len(all)
		}
		c.object(whole, all[:n])
		all = all[n:]
	}
	return c.v
}

func stableFirst(a, b Entry) int {
	switch {
	case a.Unstable == b.Unstable:
		return 0
	case a.Unstable:
		return 1
	}
	return -1
}

// truth is the newest version that is true among what is heard of one object.
func (c *chunks) truth(heard []heardChunk) (t Entry, known bool) {
	for _, e := range heard {
		stable := !e.Unstable || e.Interval < c.r.Activated && !planted.CarriedDoubted
		if stable && c.judge[e.from] && (!e.Void || planted.VoidJudges) && (!known || e.newer(t)) {
			t, known = e.Entry, true
		}
	}
	if planted.UnstableDropped {
		return t, known
	}
	for _, e := range heard {
		if e.Unstable && c.wrote[e.from] && (e.Interval == c.r.Activated || planted.CarriedDoubted) && (!known || e.newer(t)) && c.everywhere(e.Entry, heard) {
			t, known = e.Entry, true
		}
	}
	return t, known
}

// everywhere reports whether every heard member of the last activated interval's set has a version, and they are enough to read it.
func (c *chunks) everywhere(v Entry, heard []heardChunk) bool {
	members, have := 0, 0
	for i := range c.lists {
		if !c.wrote[i] {
			continue
		}
		members++
		if slices.ContainsFunc(heard, func(e heardChunk) bool { return e.from == i && e.same(v) && !e.Void }) {
			have++
		}
	}
	return have >= c.k && (have == members || planted.UnstableBelieved)
}

// object judges what is heard of one object, sorted by store, role, and then as the store has it: the stable version first.
func (c *chunks) object(whole layout.ObjectID, heard []heardChunk) {
	truth, known := c.truth(heard)
	u := Unclean{Object: whole}
	exists := known && !truth.Tombstone
	if known {
		u.Truth = truth
		u.Truth.Object, u.Truth.Unstable = whole, false
	}
	if exists {
		c.v.Objects++
	} else if known {
		c.v.Tombstones = append(c.v.Tombstones, u.Truth)
	}
	have := c.settle(u.Truth, known, heard)
	c.void(u.Truth, have)
	for i := range have {
		if h := &have[i]; known && h.same(u.Truth) && !h.Void {
			osd := c.lists[h.from].Member.OSD
			u.Chunks = append(u.Chunks, Chunk{osd, h.Object.Role()})
			if !slices.Contains(u.Holders, osd) {
				u.Holders = append(u.Holders, osd)
			}
		}
	}
	for role, osd := range c.roles {
		if osd == 0 || slices.Contains(u.Chunks, Chunk{osd, role}) || planted.RoleIgnored && slices.Contains(u.Holders, osd) {
			continue
		}
		lack := Lack{OSD: osd, Have: Entry{Object: layout.ObjectID{Inode: whole.Inode, Stripe: whole.Stripe | uint64(role)}}}
		if i := slices.IndexFunc(have, func(h heardChunk) bool { return h.Object == lack.Have.Object && c.lists[h.from].Member.OSD == osd }); i >= 0 {
			lack.Have = have[i].Entry
		}
		if known || lack.Have.Version != 0 {
			u.Lacks = append(u.Lacks, lack)
		}
	}
	for _, h := range have {
		osd := c.lists[h.from].Member.OSD
		if role := slices.Index(c.roles, osd); role >= 0 && role != h.Object.Role() {
			u.Strays = append(u.Strays, Lack{OSD: osd, Have: h.Entry})
		}
	}
	if len(u.Lacks) > 0 {
		c.v.Degraded++
	}
	if exists && u.Roles() < c.k {
		c.v.Incomplete++
	}
	if len(u.Lacks)+len(u.Strays) > 0 {
		c.v.Unclean = append(c.v.Unclean, u)
	}
}

// settle says what is to be done about unstable versions, and what each chunk is when that is done.
func (c *chunks) settle(truth Entry, known bool, heard []heardChunk) (have []heardChunk) {
	for len(heard) > 0 {
		n := 1
		for n < len(heard) && heard[n].from == heard[0].from && heard[n].Object == heard[0].Object {
			n++
		}
		keep, commit := heardChunk{heard[0].from, Entry{Object: heard[0].Object}}, false
		for _, e := range heard[:n] {
			if !e.Unstable || known && e.same(truth) {
				keep, commit = e, e.Unstable
			}
		}
		osd := c.lists[keep.from].Member.OSD
		if last := heard[n-1]; last.Unstable && !last.same(keep.Entry) && !planted.RollbackSkipped {
			c.v.Rollbacks[osd] = append(c.v.Rollbacks[osd], keep.Entry)
		}
		if commit {
			c.v.Commits[osd] = append(c.v.Commits[osd], keep.Entry)
		}
		if keep.Unstable = false; keep.Version != 0 {
			have = append(have, keep)
		}
		heard = heard[n:]
	}
	return have
}

// void has stable copies voided that may one day pass for the truth, by the rules of Judge: a store counts with the newest that it has of the object.
func (c *chunks) void(truth Entry, have []heardChunk) {
	var oldest Entry // that a participant has as its newest
	everyone := true // of the participants has some version
	for i := range c.lists {
		if !c.judge[i] {
			continue
		}
		var newest Entry
		for _, h := range have {
			if h.from == i && !h.Void && h.newer(newest) {
				newest = h.Entry
			}
		}
		if newest.Version == 0 {
			everyone = false
		} else if oldest.Version == 0 || oldest.newer(newest) {
			oldest = newest
		}
	}
	for i := range have {
		h := &have[i]
		outdated := everyone && oldest.newer(h.Entry) || c.judge[h.from] && truth.newer(h.Entry)
		if h.same(truth) || h.Void || outdated || planted.VoidSkipped {
			continue
		}
		osd := c.lists[h.from].Member.OSD
		c.v.Voids[osd] = append(c.v.Voids[osd], h.Entry)
		h.Void = true
	}
}
