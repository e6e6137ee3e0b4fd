package scenarios

import (
	"fmt"
	"slices"
	"testing"

	"holdfast/tests/stand"
)

// heal rolls through the OSDs: each is killed in turn, its PGs are made whole elsewhere, then the one before comes back, all under load. The original runs with two copies, with three and
// reads from any of them, and with erasure codes: that comes with them, as reads from any copy come with local_reads.
func heal(t *testing.T) {
	for _, copies := range []int{2, 3} {
		t.Run(fmt.Sprintf("copies=%d", copies), func(t *testing.T) {
			t.Parallel()
			healWith(t, copies)
		})
	}
}

func healWith(t *testing.T, copies int) {
	const osds = 7
	c := start(t, stand.Plan{OSDs: osds, Copies: copies, MinSize: copies - 1, PGs: 16}, `,"osd_out_time":1,"etcd_lease_ttl":3`)
	m := newMirror(c, "testimg", 24<<20)
	m.fill()
	m.begin(3)
	victims := []int{1, 2, 3, 4, 5, 6, 7}
	if copies == 3 {
		victims = []int{7, 4, 1}
	}
	last := 0
	for _, n := range victims {
		m.progress(20)
		c.kill(n, true)
		c.every(fmt.Sprintf("every PG is whole without OSD %d", n), func(p pg) bool { return p.clean() && !slices.Contains(p.Set, n) })
		if last != 0 {
			c.revive(last)
		}
		last = n
	}
	c.revive(last)
	m.progress(20)
	m.end()
	c.awaitClean()
	m.compare("after every OSD was away")
	c.quiet()
	c.sameCopies(copies)
}

// moveReappear: no monitor; the PG map is written by hand. A PG with data on one OSD moves to two others, and the first one is emptied. Then the data moves back, that OSD goes away
// while the PG is moved again, and nobody serves until it reappears. The original puts OSDs into the PG's history by hand; ours keeps its own record, which nobody edits.
func moveReappear(t *testing.T) {
	c := start(t, stand.Plan{OSDs: 5, Copies: 2, MinSize: 1, PGs: 1}, `,"etcd_lease_ttl":3`)
	c.Mons[1].Kill()
	place := func(primary int, set ...int) {
		t.Helper()
		c.Put("pg/config", fmt.Sprintf(`{"items":{"1":{"1":{"osd_set":[%d,%d],"primary":%d}}}}`, set[0], set[1], primary))
	}
	place(1, 1, 0)
	alone := func(p pg) bool {
		return p.Primary == 1 && p.is("active", "degraded") && slices.Equal(p.Peers, []int{1})
	}
	c.every("the PG is on OSD 1 alone", alone)
	m := newMirror(c, "testimg", 8<<20)
	m.fill()

	place(4, 4, 5)
	c.every("the PG is clean on OSDs 4 and 5", func(p pg) bool { return p.clean() && same(p.Peers, []int{4, 5}) })
	m.compare("moved")
	c.untilHeld(1, 0)
	c.kill(1, false)
	m.compare("without the OSD that it was moved from")
	place(5, 4, 5)
	c.every("the PG is clean with another primary", func(p pg) bool { return p.clean() && p.Primary == 5 })
	m.compare("peered again")
	if n := objects(c.awaitClean()); n == 0 {
		t.Error("the PG has no objects")
	}

	c.revive(1)
	place(1, 1, 0)
	c.every("the PG is back on OSD 1 alone, with everything", func(p pg) bool { return alone(p) && p.Objects == len(m.want)>>17 })
	m.compare("moved back")
	rng := m.random(0)
	for i := range 16 {
		m.must(m.write(rng, i*(512<<10), 64<<10)) // OSDs 4 and 5 do not have this, whatever else they still hold
	}
	c.kill(1, false)
	place(4, 4, 5)
	c.every("the PG waits for OSD 1", func(p pg) bool { return p.is("incomplete") && p.Primary == 4 })
	c.revive(1)
	c.every("the PG is clean on OSDs 4 and 5", func(p pg) bool { return p.clean() && same(p.Peers, []int{4, 5}) })
	m.compare("after OSD 1 reappeared")
	c.untilHeld(1, 0)
	c.kill(1, false)
	m.compare("without it")
	c.quiet()
}

// rebalanceVerify compares an image with its mirror before, during and after its PGs move away from two OSDs and back. The original repeats that with erasure codes, which come later, and
// with an image that has a parent, which the command line cannot make yet.
func rebalanceVerify(t *testing.T) {
	c := start(t, stand.Plan{OSDs: 7, Copies: 2, MinSize: 2, PGs: 16}, "")
	m := newMirror(c, "testimg", 32<<20)
	m.fill()
	before := objects(c.counted(len(m.want)))
	m.compare("before")
	rng := m.random(0)
	reads := 0
	during := func(what string, ok func(pg) bool) {
		t.Helper()
		c.every(what, func(p pg) bool {
			for range 8 {
				m.must(m.check(rng.IntN(len(m.want)/block)*block, block))
				reads++
			}
			return ok(p)
		})
	}
	for _, weight := range []float64{0, 1} {
		c.reweight(1, weight)
		c.reweight(2, weight)
		use := map[int]bool{}
		during("the PGs are placed anew", func(p pg) bool {
			use[p.Num] = slices.Contains(p.Set, 1) || slices.Contains(p.Set, 2)
			return weight == 1 || !use[p.Num]
		})
		if weight == 1 {
			c.until("OSDs 1 and 2 are used again", func(list []pg) bool {
				return slices.ContainsFunc(list, func(p pg) bool { return slices.Contains(p.Set, 1) }) && slices.ContainsFunc(list, func(p pg) bool { return slices.Contains(p.Set, 2) })
			})
		}
		during("every PG is clean", pg.clean)
		m.compare(fmt.Sprintf("with weight %g", weight))
		if weight == 0 {
			c.untilHeld(1, 0)
			c.untilHeld(2, 0)
		}
	}
	for reads < 2000 {
		m.must(m.check(rng.IntN(len(m.want)/block)*block, block))
		reads++
	}
	if after := objects(c.counted(len(m.want))); after != before {
		t.Errorf("%d objects, %d before", after, before)
	}
	c.quiet()
	c.sameCopies(2)
}

// counted waits until the clean PGs have counted the objects of n bytes.
func (c *cluster) counted(n int) []pg {
	c.t.Helper()
	return c.until(fmt.Sprintf("the PGs are clean and have counted %d objects", n>>17), func(list []pg) bool {
		return objects(list) == n>>17 && !slices.ContainsFunc(list, func(p pg) bool { return !p.clean() })
	})
}

// interruptedRebalance takes one OSD after the other out, and back in, each time before the PGs have come to rest, under load. In the end everything is clean, and there are as many
// objects as before. The half with erasure codes comes with them.
func interruptedRebalance(t *testing.T) {
	c := start(t, stand.Plan{OSDs: 7, Copies: 2, MinSize: 2, PGs: 16}, "")
	m := newMirror(c, "testimg", 48<<20)
	m.fill()
	before := objects(c.counted(len(m.want)))
	m.begin(2)
	interrupted := 0
	for _, weight := range []float64{0, 1} {
		for n := 1; n <= 5; n++ {
			c.reweight(n, weight)
			list := c.until(fmt.Sprintf("the monitor knows weight %g of OSD %d", weight, n), func(list []pg) bool {
				return slices.ContainsFunc(list, func(p pg) bool { return slices.Contains(p.Set, n) }) == (weight == 1)
			})
			if slices.ContainsFunc(list, func(p pg) bool { return !p.clean() }) {
				interrupted++
			}
		}
	}
	m.progress(50)
	m.end()
	if interrupted < 3 {
		t.Errorf("only %d of 10 changes came before the PGs were at rest: nothing was interrupted", interrupted)
	}
	if after := objects(c.counted(len(m.want))); after != before {
		t.Errorf("%d objects, %d before", after, before)
	}
	m.compare("at rest")
	c.quiet()
	c.sameCopies(2)
}
