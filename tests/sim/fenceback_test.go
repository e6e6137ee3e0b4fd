package sim

import (
	"bytes"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/sim"
	"holdfast/core/wire"
)

// advance makes revisions that etcd is to forget.
func (c *Cluster) advance() {
	at := c.Reg.Revision()
	for range 300 {
		c.put("other", []byte("x"))
	}
	c.Wait("the revisions", time.Minute, func() bool { return c.Reg.Revision() >= at+300 })
}

// busy writes with another session all the time, and returns the longest that a write took as long as it is called again.
func (c *Cluster) busy(k *Client) (longest func() time.Duration) {
	var most, began time.Duration
	var next func()
	next = func() {
		began = c.W.Elapsed()
		k.Begin(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: 8192, Len: 4096}, pattern(4096, 9), func(Result) {
			most = max(most, c.W.Elapsed()-began)
			c.W.After(20*time.Millisecond, next)
		})
	}
	next()
	return func() time.Duration { return max(most, c.W.Elapsed()-began) }
}

// refuses fails the test when a primary carries out a write of session 7, or the content is not that of before.
func (c *Cluster) refuses() {
	c.T.Helper()
	r, ok := c.NewClient(7).Do(write(0, 4096, 7, 500), pattern(4096, 2), time.Minute)
	if !ok || r.Retval != wire.ESTALE {
		c.T.Errorf("the fenced session's write is answered %+v", r)
	}
	if r := c.NewClient(8).Read(image, 0, 4096); !bytes.Equal(r.Data, pattern(4096, 1)) {
		c.T.Error("the fenced session's write took effect")
	}
}

// etcd is set back while a fence is awaited, and counts far below the fence's revision from then on: nobody waits for that number. The OSDs hear of the fence from who waits, after they have
// seen etcd go back (late) or before.
func TestFenceThatEtcdForgetsWhileItIsAwaited(t *testing.T) {
	for _, late := range []bool{false, true} {
		c := start(t, Options{Seed: 206, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 2})
		c.NewClient(7).Write(image, 0, pattern(4096, 1))
		backup := c.Reg.Backup()
		c.advance()
		longest := c.busy(c.NewClient(9))
		fencer, done := c.fencing(7)
		if late {
			for _, n := range c.Nodes {
				c.W.Net.Cut(n.Loop, fencer)
			}
		}
		c.Wait("the fence in etcd", time.Minute, func() bool { return c.Snapshot().Fences.Len() > 0 })
		c.W.Run(100 * time.Millisecond)
		c.Reg.Restore(backup, 0)
		c.Wait("the reports", time.Minute, func() bool { return c.Snapshot().Restored != nil && len(c.Snapshot().Unreported()) == 0 })
		c.W.Net.HealAll()
		c.Wait("the fence", 20*time.Second, func() bool { return *done })
		if took := longest(); took > 2*time.Second {
			t.Errorf("late %v: another session's write took %v", late, took)
		}
		c.refuses()
		for _, n := range c.Nodes { // nobody has it from before
			n.Kill()
		}
		for _, n := range c.Nodes {
			n.Start()
		}
		c.refuses()
		c.W.Close()
	}
}

// A fence is in force although the PG's primary has not heard of it from etcd, nor from who fences: a member knows it. etcd forgets it then, and the member must not.
func TestFenceThatOnlyAMemberKnowsOutlivesARestore(t *testing.T) {
	c := start(t, Options{Seed: 207, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	c.NewClient(7).Write(image, 0, pattern(4096, 1))
	p, others := c.seat()
	backup := c.Reg.Backup()
	c.advance()
	c.W.Run(time.Second)
	c.Reg.SetWatchDelay(sim.Delay{Min: 20 * time.Second, Max: 20 * time.Second})
	fencer, done := c.fencing(7)
	for _, n := range c.Nodes {
		if n != others[0] {
			c.W.Net.Cut(n.Loop, fencer)
		}
	}
	c.Wait("the fence", 10*time.Second, func() bool { return *done })
	c.Reg.Restore(backup, 0)
	c.Reg.SetWatchDelay(sim.Delay{})
	c.Wait("the reports", time.Minute, func() bool { return c.Snapshot().Restored != nil && len(c.Snapshot().Unreported()) == 0 })
	c.refuses()
	p.Kill()
	c.refuses()
	p.Start()
	c.Wait("all PGs whole", time.Minute, func() bool { return c.States(cluster.StateActive) })
	others[0].Kill() // which everybody has it from
	others[1].Kill()
	others[1].Start()
	c.refuses()
}

// etcd is set back, which the PG's primary does not see, since etcd is out of its reach. What it has applied is a later revision than that of a fence which is written then, and says nothing of it.
func TestFenceAfterARestoreThatThePrimaryHasNotSeen(t *testing.T) {
	c := start(t, Options{Seed: 208, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	c.NewClient(7).Write(image, 0, pattern(4096, 1))
	p, _ := c.seat()
	backup := c.Reg.Backup()
	c.advance()
	c.put(cluster.OSDConfigKey(9), []byte(`{"reweight":0}`)) // so that everybody has applied a later revision
	c.W.Run(time.Second)
	d := c.connect(p)
	p.CutRegistry(true)
	c.Reg.Restore(backup, 0)
	c.W.Run(time.Second)
	fencer, done := c.fencing(7)
	c.W.Net.Cut(p.Loop, fencer)
	c.W.RunUntil(func() bool { return *done }, 4*time.Second)
	a := d.ask(write(0, 4096, 7, 500), pattern(4096, 2))
	c.W.RunUntil(func() bool { return a.came }, 5*time.Second)
	if a.ok() {
		t.Errorf("a write of the fenced session is acknowledged: %v; the fence is in force: %v", a, *done)
	}
	p.CutRegistry(false)
	c.W.Net.HealAll()
	c.Wait("the fence", 20*time.Second, func() bool { return *done })
	c.refuses()
}
