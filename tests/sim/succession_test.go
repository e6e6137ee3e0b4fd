package sim

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/sim"
	"holdfast/osd"
	"holdfast/osd/store"
)

// tended is a cluster of which each OSD whose disk cannot be trusted waits to empty it, as its daemon does.
type tended struct {
	*Cluster
	up    map[layout.OSDNum]bool      // its process runs
	heirs map[layout.OSDNum]*sim.Loop // of those that wait
	ends  map[layout.OSDNum]func()
	gone  map[layout.StoreID]bool // stores that were emptied
	empty int                     // how often
}

func (c *tended) down(n *Node, err error) {
	if !osd.Untrusted(err) {
		c.T.Fatalf("OSD %d: %v", n.Num, err)
	}
	boot := n.boots
	c.W.After(time.Second, func() {
		if n.boots != boot || !c.up[n.Num] {
			return
		}
		n.Kill()
		c.wait(n, err)
	})
}

func (c *tended) wait(n *Node, cause error) {
	l := c.W.NewLoop(n.name())
	reg := c.open(l)
	c.heirs[n.Num], c.ends[n.Num] = l, reg.Close
	var id layout.StoreID
	c.peek(n, &id)
	osd.Succeed(l, osd.SuccessionOptions{
		Num: n.Num, Cause: cause, Registry: reg, Auto: true,
		OpenDisk: func(alone bool) (loop.Disk, error) {
			return l.OpenDisk(n.disk(), loop.DiskOptions{ReadOnly: !alone, Exclusive: alone})
		},
		Done: func(err error) {
			if err != nil {
				c.T.Errorf("OSD %d: %v", n.Num, err)
			}
			c.W.After(0, func() {
				if c.heirs[n.Num] == l {
					c.gone[id] = true
					c.empty++
					c.end(n, false)
					n.Start()
				}
			})
		},
	})
}

// end ends what runs of an OSD.
func (c *tended) end(n *Node, power bool) {
	l := c.heirs[n.Num]
	switch {
	case l != nil && power:
		c.ends[n.Num]()
		l.PowerOff()
	case l != nil:
		c.ends[n.Num]()
		l.Kill()
	case power:
		n.PowerOff()
		return
	default:
		n.Kill()
		return
	}
	delete(c.heirs, n.Num)
	if power {
		c.W.Disk(n.disk()).Crash(sim.CrashRandom)
	}
}

// TestDisksSetBackAtRandom writes, ends OSDs and puts earlier copies of their disks back, as many as it comes, also of all at once. What was acknowledged is read back whenever the PGs are
// served; and where they are not, the disks that they may need are as they were.
func TestDisksSetBackAtRandom(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 10
	}
	served, waited, emptied := 0, 0, 0
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 5))
		c := &tended{up: map[layout.OSDNum]bool{1: true, 2: true, 3: true}, heirs: map[layout.OSDNum]*sim.Loop{}, ends: map[layout.OSDNum]func(){}, gone: map[layout.StoreID]bool{}}
		c.Cluster = start(t, Options{Seed: 700 + seed, OSDs: 3, Replicas: 3, MinSize: 1, PGs: 2, Down: func(n *Node, err error) { c.down(n, err) }})
		k := c.NewClient(7)
		content := make([]byte, 6)
		steps := ""
		write := func() {
			c.W.Run(7 * time.Second) // the leases of those that have ended run out
			if !c.W.RunUntil(c.active, 20*time.Second) {
				return
			}
			for i := range content {
				content[i]++
				k.Write(image, uint64(i)*128<<10, pattern(4096, content[i]))
			}
		}
		check := func() {
			for i, b := range content {
				if r := k.Read(image, uint64(i)*128<<10, 4096); b != 0 && !bytes.Equal(r.Data, pattern(4096, b)) {
					t.Fatalf("seed %d: object %d is not what was acknowledged last, after%s", seed, i, steps)
				}
			}
		}
		early, older := map[layout.OSDNum][]byte{}, map[layout.OSDNum]bool{} // copies of disks, and whether the disk was used since
		write()
		for range 60 {
			n := c.Nodes[layout.OSDNum(1+rng.IntN(3))]
			switch what := rng.IntN(8); {
			case what < 3 && c.up[n.Num]:
				steps += fmt.Sprintf(" end %d", n.Num)
				c.up[n.Num] = false
				c.end(n, what == 0)
			case what < 3 && early[n.Num] == nil:
				steps += fmt.Sprintf(" copy %d", n.Num)
				early[n.Num], older[n.Num] = make([]byte, c.W.Disk(n.disk()).Size()), false
				c.W.Disk(n.disk()).Peek(early[n.Num], 0)
			case what < 3 && older[n.Num]:
				steps += fmt.Sprintf(" set back %d", n.Num)
				c.W.Disk(n.disk()).Poke(early[n.Num], 0)
				older[n.Num] = false
			case what < 5 && !c.up[n.Num]:
				steps += fmt.Sprintf(" start %d", n.Num)
				c.up[n.Num], older[n.Num] = true, true
				n.Start()
			case what < 6:
				steps += " write"
				write()
			default:
				c.W.Run(time.Duration(rng.IntN(8000)) * time.Millisecond)
			}
		}
		for num := layout.OSDNum(1); num <= 3; num++ {
			if n := c.Nodes[num]; !c.up[num] {
				c.up[num] = true
				n.Start()
			}
		}
		if c.W.RunUntil(func() bool { return c.active() && len(c.heirs) == 0 && c.Snapshot().OSDStates.Len() == 3 }, 3*time.Minute) {
			served++
			check()
			write()
			check()
		} else if waited++; len(c.heirs) == 0 {
			t.Fatalf("seed %d: not everything is served, and no OSD waits with its disk, after%s; %s", seed, steps, c.describe())
		}
		c.unneeded(steps)
		emptied += c.empty
		c.W.Close()
	}
	t.Logf("%d seeds were served again, %d wait for disks that were set back; %d disks were emptied", served, waited, emptied)
	if served == 0 || waited == 0 || emptied == 0 {
		t.Error("the test does not reach all of it")
	}
}

// peek finds the id of the store on an OSD's disk, a little later.
func (c *tended) peek(n *Node, id *layout.StoreID) {
	l := c.W.NewLoop("peek")
	d, err := l.OpenDisk(n.disk(), loop.DiskOptions{ReadOnly: true})
	if err != nil {
		c.T.Fatal(err)
	}
	store.Peek(l, d, func(sb store.Superblock, err error) {
		if err != nil {
			c.T.Error(err)
		}
		*id = sb.StoreID
		d.Close(l.Kill)
	})
}

// unneeded checks that no PG needs a store that was emptied.
func (c *tended) unneeded(steps string) {
	for pg, rec := range c.Snapshot().Records.All() {
		for _, p := range rec.Participants {
			if c.gone[p.Store] {
				c.T.Errorf("PG %v counts on store %v of OSD %d, which was emptied, after%s", pg, p.Store, p.OSD, steps)
			}
		}
	}
}
