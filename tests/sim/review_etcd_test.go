package sim

import (
	"bytes"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
)

// unreachable cuts OSDs off from etcd or joins them again; the clients with them if all are meant.
func (c *Cluster) unreachable(cut bool, osds ...layout.OSDNum) {
	if len(osds) == len(c.Nodes) {
		c.adminLoop.Post(&loop.Task{Run: func() { c.admin.Unreachable(cut) }})
	}
	for _, n := range osds {
		node := c.Nodes[n]
		if node.Loop.Alive() {
			node.Loop.Post(&loop.Task{Run: func() { node.reg.Unreachable(cut) }})
		}
	}
}

// TestInputAndOutputGoOnWithoutEtcd cuts every OSD off from etcd, far beyond the leases, and writes and reads all the time.
func TestInputAndOutputGoOnWithoutEtcd(t *testing.T) {
	c := start(t, Options{Seed: 31, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 4})
	defer c.W.Close()
	k := c.NewClient(7)
	interval := func() (sum layout.Interval) {
		for _, r := range c.Snapshot().Records.All() {
			sum += r.Interval
		}
		return sum
	}
	before := interval()
	c.unreachable(true, 1, 2, 3)
	for i := range 200 {
		at := c.W.Elapsed()
		k.Write(image, uint64(i%8)*128<<10, pattern(4096, byte(i)))
		if r := k.Read(image, uint64(i%8)*128<<10, 4096); !bytes.Equal(r.Data, pattern(4096, byte(i))) {
			t.Fatalf("write %d reads back differently", i)
		}
		if d := c.W.Elapsed() - at; d > 200*time.Millisecond {
			t.Fatalf("write and read %d took %v without etcd", i, d)
		}
		c.W.Run(100 * time.Millisecond)
	}
	if have := interval(); have != before {
		t.Errorf("intervals were taken without etcd: sum %d, was %d", have, before)
	}
	c.unreachable(false, 1, 2, 3)
	c.Wait("all PGs active again", 60*time.Second, func() bool { return c.States(cluster.StateActive) })
	k.Write(image, 0, pattern(4096, 1))
}

// TestRecoveryThatEndsWithoutEtcdStopsNothing lets a member come back, and etcd go before the last object is copied: what is served must go on being served.
func TestRecoveryThatEndsWithoutEtcdStopsNothing(t *testing.T) {
	for seed := range uint64(8) {
		c := start(t, Options{Seed: 40 + seed, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
		k := c.NewClient(7)
		primary := c.Snapshot().Primary(layout.PGID{Pool: 1, Num: 1})
		victim := c.Nodes[primary%3+1]
		const objects = 60
		for i := range objects {
			k.Write(image, uint64(i)*128<<10, pattern(32<<10, byte(i)))
		}
		victim.Kill()
		for i := range objects {
			k.Write(image, uint64(i)*128<<10, pattern(32<<10, byte(i+1)))
		}
		c.W.Disk(c.Nodes[primary].disk()).SetAllLatency(2*time.Millisecond, 4*time.Millisecond)
		victim.Start()
		c.Wait("the member back in the set", 30*time.Second, func() bool {
			st, ok := c.Snapshot().PGStates.Get(layout.PGID{Pool: 1, Num: 1})
			return ok && len(st.Peers) == 3 && st.State&cluster.StateActive != 0
		})
		c.unreachable(true, 1, 2, 3)
		for i := range objects {
			at := c.W.Elapsed()
			if r := k.Read(image, uint64(i)*128<<10, 32<<10); !bytes.Equal(r.Data, pattern(32<<10, byte(i+1))) {
				t.Fatalf("seed %d: object %d reads back differently", seed, i)
			}
			if d := c.W.Elapsed() - at; d > time.Second {
				t.Fatalf("seed %d: read %d took %v without etcd", seed, i, d)
			}
			c.W.Run(100 * time.Millisecond)
		}
		c.unreachable(false, 1, 2, 3)
		c.Wait("all PGs clean", 60*time.Second, func() bool {
			for _, r := range c.Snapshot().Records.All() {
				if len(r.Sets) != 1 || len(r.Participants) != 3 {
					return false
				}
			}
			return c.States(cluster.StateActive)
		})
		c.W.Close()
	}
}

// TestOneOSDWithoutEtcdServesNothingStale cuts a primary off from etcd only. Another takes over when its lease has run out; no read may ever be older than an acknowledged write.
func TestOneOSDWithoutEtcdServesNothingStale(t *testing.T) {
	for seed := range uint64(6) {
		c := start(t, Options{Seed: 60 + seed, OSDs: 3, Replicas: 3, MinSize: 1 + int(seed%2), PGs: 1})
		a, b := c.NewClient(7), c.NewClient(8)
		for round := range 3 {
			primary := c.Snapshot().Primary(layout.PGID{Pool: 1, Num: 1})
			c.Nodes[primary].Loop.SetClock(time.Duration(round+1)*time.Second, int64(seed%3)*500-500)
			c.unreachable(true, primary)
			for i := range 100 {
				k, l := a, b
				if i%2 == 0 {
					k, l = b, a
				}
				k.Write(image, 0, pattern(4096, byte(i)))
				if r := l.Read(image, 0, 4096); !bytes.Equal(r.Data, pattern(4096, byte(i))) {
					t.Fatalf("seed %d: round %d: a read after write %d brings something else", seed, round, i)
				}
				c.W.Run(90 * time.Millisecond)
			}
			c.unreachable(false, primary)
			c.Wait("all PGs active", 60*time.Second, func() bool { return c.States(cluster.StateActive) })
		}
		c.W.Close()
	}
}
