package scenarios

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"holdfast/tests/stand"
)

// way is how a scenario's data is kept and reached.
type way struct {
	name   string
	copies int      // or chunks, of which
	data   int      // so many are of data, 0: copies
	pool   []string // flags of create-pool
	mirror func(c *cluster, image string, size int) *mirror
}

// commits are pools whose writes are durable when they are acknowledged, and ones in which they are not, with a client that keeps copies; with copies and with erasure codes.
var commits = []way{{"commit=all", 2, 0, nil, newMirror}, {"commit=none", 2, 0, noCommit, newLazyMirror}, {"ec,commit=all", 3, 2, nil, newMirror}, {"ec,commit=none", 3, 2, noCommit, newLazyMirror}}

// plan has the pool of the way, of which so many members may be away.
func (w way) plan(p stand.Plan, away int) stand.Plan {
	p.Copies, p.MinSize, p.Pool = w.copies, w.copies-away, w.pool
	if w.data > 0 {
		p.Code = fmt.Sprintf("%d+%d", w.data, w.copies-w.data)
		p.MinSize = max(p.MinSize, w.data+1) // what is on no more than it takes to read it waits for each of them
	}
	return p
}

// same looks at the disks, in the end.
func (w way) same(c *cluster) {
	c.t.Helper()
	if w.data > 0 {
		c.sameChunks(w.copies)
		return
	}
	c.sameCopies(w.copies)
}

// counted waits until the clean PGs have counted the objects of n bytes.
func (w way) counted(c *cluster, n int) []pg { c.t.Helper(); return c.counted(n / max(w.data, 1)) }

// each runs a scenario in several ways.
func each(ways []way, run func(t *testing.T, w way)) func(t *testing.T) {
	return func(t *testing.T) {
		for _, w := range ways {
			t.Run(w.name, func(t *testing.T) {
				t.Parallel()
				run(t, w)
			})
		}
	}
}

// heals: the original runs with two copies, with three and reads from any of them, and with erasure codes; immediate_commit is none there.
var heals = append([]way{{"copies=3", 3, 0, []string{"--local_reads", "random"}, newMirror}}, commits...)

// heal rolls through the OSDs: each is killed in turn, its PGs are made whole elsewhere, then the one before comes back, all under load.
func heal(t *testing.T, w way) {
	const osds = 7
	c := start(t, w.plan(stand.Plan{OSDs: osds, PGs: 16}, 1), `,"osd_out_time":1,"etcd_lease_ttl":3`)
	m := w.mirror(c, "testimg", 24<<20)
	m.fill()
	m.begin(3)
	last := 0
	for n := 1; n <= osds; n++ {
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
	if slices.Contains(w.pool, "--local_reads") {
		c.readsLocally(m)
	}
	c.quiet()
	w.same(c)
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

// rebalanceVerify compares an image with its mirror before, during and after its PGs move away from two OSDs and back. The original repeats that
// with an image that has a parent, which the command line cannot make yet.
func rebalanceVerify(t *testing.T, w way) {
	const reads = 10000 // at random, of 4 KiB, as the original
	c := start(t, w.plan(stand.Plan{OSDs: 7, PGs: 16}, 0), "")
	m := w.mirror(c, "testimg", 32<<20)
	m.fill()
	before := objects(w.counted(c, len(m.want)))
	m.compare("before")
	var done atomic.Int64
	read := make(chan error, 1)
	rng := m.random(0)
	go func() { // ends with the last read
		for done.Load() < reads && !m.stop.Load() {
			if err := m.check(rng.IntN(len(m.want)/block)*block, block); err != nil {
				read <- err
				return
			}
			done.Add(1)
		}
		read <- nil
	}()
	for _, weight := range []float64{0, 1} {
		c.reweight(1, weight)
		c.reweight(2, weight)
		c.until("the PGs are placed anew", func(list []pg) bool {
			if weight == 0 {
				return !slices.ContainsFunc(list, func(p pg) bool { return slices.Contains(p.Set, 1) || slices.Contains(p.Set, 2) })
			}
			return slices.ContainsFunc(list, func(p pg) bool { return slices.Contains(p.Set, 1) }) && slices.ContainsFunc(list, func(p pg) bool { return slices.Contains(p.Set, 2) })
		})
		m.compare(fmt.Sprintf("on the way to weight %g", weight))
		c.awaitClean()
		if n := done.Load(); n == 0 {
			t.Error("nothing was read while the PGs moved")
		} else {
			t.Logf("%d reads until the PGs were whole with weight %g", n, weight)
		}
		m.compare(fmt.Sprintf("with weight %g", weight))
		if weight == 0 {
			c.untilHeld(1, 0)
			c.untilHeld(2, 0)
		}
	}
	m.must(<-read)
	if after := objects(w.counted(c, len(m.want))); after != before {
		t.Errorf("%d objects, %d before", after, before)
	}
	c.quiet()
	w.same(c)
}

// counted waits until the clean PGs have counted the objects of n bytes.
func (c *cluster) counted(n int) []pg {
	c.t.Helper()
	return c.until(fmt.Sprintf("the PGs are clean and have counted %d objects", n>>17), func(list []pg) bool {
		return objects(list) == n>>17 && !slices.ContainsFunc(list, func(p pg) bool { return !p.clean() })
	})
}

// interruptedRebalance takes one OSD after the other out, and back in, each time before the PGs have come to rest, under load. In the end everything is clean, and there are as many
// objects as before.
func interruptedRebalance(t *testing.T, w way) {
	c := start(t, w.plan(stand.Plan{OSDs: 7, PGs: 16}, 0), "")
	m := w.mirror(c, "testimg", 48<<20)
	m.fill()
	before := objects(w.counted(c, len(m.want)))
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
	if after := objects(w.counted(c, len(m.want))); after != before {
		t.Errorf("%d objects, %d before", after, before)
	}
	m.compare("at rest")
	c.quiet()
	w.same(c)
}
