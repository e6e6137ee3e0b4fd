package primary

import (
	"testing"

	"holdfast/core/layout"
	"holdfast/osd/peering"
	"holdfast/osd/pg"
)

func TestCountsFollowEachObject(t *testing.T) {
	q := &PG{members: []layout.OSDNum{1, 3}, left: 3, total: 3, misplaced: 1}
	moves := peering.Unclean{Object: layout.ObjectID{Stripe: 1}, Holders: []layout.OSDNum{1, 2}}
	lacks := peering.Unclean{Object: layout.ObjectID{Stripe: 2}, Holders: []layout.OSDNum{1}}
	lost := peering.Unclean{Object: layout.ObjectID{Stripe: 3}, Holders: []layout.OSDNum{2}}
	check := func(want Counts) {
		t.Helper()
		if got := q.Counts(); got != want {
			t.Errorf("Counts = %+v, want %+v", got, want)
		}
	}
	check(Counts{Left: 3, Total: 3, Misplaced: 1})
	q.notFound(&lost)
	q.notFound(&lost)
	check(Counts{Left: 3, Total: 3, Misplaced: 1, Unfound: 1})
	q.madeWhole(&pg.Object{Unclean: &moves})
	check(Counts{Left: 2, Total: 3, Unfound: 1})
	q.madeWhole(&pg.Object{Unclean: &lost})
	check(Counts{Left: 1, Total: 3})
	q.left += 4 // found damaged by reads
	check(Counts{Left: 5, Total: 5})
	q.left -= 4
	damaged := &pg.Object{Unclean: &lacks}
	q.unreadable(damaged, 1)
	q.unreadable(damaged, 1)
	q.unreadable(damaged, 3)
	check(Counts{Left: 1, Total: 3, Corrupted: 1})
	q.madeWhole(damaged)
	check(Counts{Total: 3})
	q.left, q.misplaced = 1, 1
	q.notFound(&moves) // is incomplete then, and not misplaced
	check(Counts{Left: 1, Total: 3, Unfound: 1})
	q.madeWhole(&pg.Object{Unclean: &moves})
	check(Counts{Total: 3})
	if q.size = 3; q.misplacedBy(&moves) {
		t.Error("an object with two copies of three is only misplaced, because the set lacks a member")
	}
}

// Of a pool that had more parity chunks, those of them that are still there do not stand for one that is missing.
func TestChunksOfFormerRolesAreNoneOfThoseThatAreMissing(t *testing.T) {
	q := &PG{coded: &coding{stripes: stripes{k: 2, m: 1}, roles: []layout.OSDNum{1, 2, 3}}}
	u := peering.Unclean{Chunks: []peering.Chunk{{OSD: 1, Role: 0}, {OSD: 2, Role: 1}, {OSD: 4, Role: 3}}}
	if q.misplacedBy(&u) || u.Roles() != 3 {
		t.Errorf("chunk 2 is missing, and the object is called misplaced; it has chunks of %d roles", u.Roles())
	}
	if u.Chunks[2].Role = 2; !q.misplacedBy(&u) {
		t.Error("an object with a chunk of each role, one of them elsewhere, is not called misplaced")
	}
}
