package sim

import (
	"bytes"
	"testing"
	"time"

	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/core/sim"
	"holdfast/core/wire"
)

// fencing writes the fence of a session and waits for it on a client of its own, again if etcd forgets it; the result says whether it is in force.
func (c *Cluster) fencing(session uint64) (l *sim.Loop, done *bool) {
	c.T.Helper()
	done = new(bool)
	cl := c.W.NewLoop("fencer")
	o := client.Defaults()
	o.Registry, o.Key, o.Instance, o.Name = c.open(cl), c.Key, 4711, "fencer"
	name := cluster.FenceSessionName(session)
	f := cluster.Fence{Session: session, Reason: "a test"}
	cl.Post(&loop.Task{Run: func() {
		k := client.New(cl, o)
		var put func()
		put = func() {
			o.Registry.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: cluster.FenceKey(name), Value: cluster.Value(&f)}}}, func(res registry.TxnResult, err error) {
				if err != nil {
					c.T.Fatal(err)
				}
				k.AwaitFence(name, f, res.Revision, 1500*time.Millisecond, func(err error) {
					if *done = err == nil; !*done {
						put()
					}
				})
			})
		}
		k.Await(func(s *cluster.Snapshot) bool { return s.Revision > 0 }, put)
	}})
	return cl, done
}

// TestFenceReachesOSDsWithoutEtcd fences a session while no OSD reaches etcd: input and output go on, so the fenced session's do, too, if the OSDs are not told otherwise.
func TestFenceReachesOSDsWithoutEtcd(t *testing.T) {
	c := start(t, Options{Seed: 201, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 2})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	for _, n := range c.Nodes {
		n.CutRegistry(true)
	}
	_, done := c.fencing(7)
	began := c.W.Elapsed()
	c.Wait("the fence", 20*time.Second, func() bool { return *done })
	if took := c.W.Elapsed() - began; took > 4*time.Second {
		t.Errorf("the fence took %v", took)
	}
	late := Result{Retval: -1}
	k.Begin(write(0, 4096, 7, 50), pattern(4096, 2), func(r Result) { late = r })
	c.W.Run(3 * time.Second)
	if late.Retval == 4096 {
		t.Error("a write of the fenced session is acknowledged")
	}
	for _, n := range c.Nodes {
		n.CutRegistry(false)
	}
	c.Wait("an answer to the fenced session", time.Minute, func() bool { return late.Retval != -1 })
	if late.Retval != wire.ESTALE {
		t.Errorf("the fenced session's write is answered %d", late.Retval)
	}
	if r := c.NewClient(8).Read(image, 0, 4096); !bytes.Equal(r.Data, pattern(4096, 1)) {
		t.Error("the fenced session's write took effect")
	}
}

// TestFenceWaitsForThoseItCannotReach fences a session while the OSDs of a PG reach neither etcd nor whoever fences, only the client that is fenced. The fence must not be said to be in force as long as they may
// be serving that client.
func TestFenceWaitsForThoseItCannotReach(t *testing.T) {
	c := start(t, Options{Seed: 202, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	for _, n := range c.Nodes {
		n.CutRegistry(true)
	}
	fencer, done := c.fencing(7)
	for _, n := range c.Nodes {
		c.W.Net.Cut(n.Loop, fencer)
	}
	for i := range 20 {
		if *done {
			t.Fatal("the fence is said to be in force")
		}
		if i < 6 { // as long as the leases, by which this client finds the primary
			if r := k.Write(image, 0, pattern(4096, byte(i))); r.Tries > 1 {
				t.Fatal("the OSDs that nobody has told refuse the client")
			}
		}
		c.W.Run(500 * time.Millisecond)
	}
	for _, n := range c.Nodes {
		n.CutRegistry(false)
	}
	c.Wait("the fence", time.Minute, func() bool { return *done })
	r, ok := k.Do(write(0, 4096, 7, 5000), pattern(4096, 77), time.Minute)
	if !ok || r.Retval != wire.ESTALE {
		t.Errorf("the fenced session's write is answered %+v", r)
	}
}

// TestFenceIsKnownBeforeServing loses the one member that a fence has reached: the primary of the next interval, which nobody has told, must learn of it before it serves, as its watch brings it late.
func TestFenceIsKnownBeforeServing(t *testing.T) {
	c := start(t, Options{Seed: 203, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	p, others := c.seat()
	d := c.connect(p)
	told := others[0]
	c.Reg.SetWatchDelay(sim.Delay{Min: 8 * time.Second, Max: 8 * time.Second})
	fencer, done := c.fencing(7)
	for _, n := range c.Nodes {
		if n != told {
			c.W.Net.Cut(n.Loop, fencer)
		}
	}
	c.Wait("it to be told by who fences", time.Second, func() bool { return told.OSD.Fenced(7, 1) })
	told.Kill() // before it passes the fence on
	c.Wait("the fence", 20*time.Second, func() bool { return *done })
	for range 40 {
		late := d.ask(write(0, 4096, 7, 50), pattern(4096, 2))
		c.W.RunUntil(func() bool { return late.came }, time.Second)
		if late.ok() {
			t.Fatalf("a write of the fenced session is acknowledged: %v", late)
		}
		c.W.Run(100 * time.Millisecond)
	}
	c.Reg.SetWatchDelay(sim.Delay{})
	if r := c.NewClient(8).Read(image, 0, 4096); !bytes.Equal(r.Data, pattern(4096, 1)) {
		t.Error("the fenced session's write took effect")
	}
}

// TestStoppedGatewayWritesNothingAfterItsFence stops a gateway with a write at hand, fences all of it, has another one write, and lets it go on: failover must not be undone by what comes late.
func TestStoppedGatewayWritesNothingAfterItsFence(t *testing.T) {
	const instance = 4242
	c := start(t, Options{Seed: 204, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	p, _ := c.seat()
	d := c.connect(p)
	d.l.Pause()
	late := d.ask(write(0, 4096, instance<<cluster.SessionBits|1, 1), pattern(4096, 2))
	f := cluster.Fence{Gateway: instance, Reason: "another one takes over"}
	c.put(cluster.FenceKey(cluster.FenceGatewayName(instance)), cluster.Value(&f))
	c.W.Run(3 * time.Second)
	k.Write(image, 0, pattern(4096, 3))
	d.l.Resume()
	c.Wait("an answer", time.Minute, func() bool { return late.came })
	if late.ok() {
		t.Errorf("a write of the fenced gateway is acknowledged: %v", late)
	}
	if r := k.Read(image, 0, 4096); !bytes.Equal(r.Data, pattern(4096, 3)) {
		t.Error("the fenced gateway's write took effect over that of its successor")
	}
}
