package sim

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/sim"
	"holdfast/core/wire"
)

// The scenarios here are about who may serve, and until when. Seeds of random faults come across them seldom; each shows a bug of core/planted for certain.

// direct is a client that asks one OSD whatever it knows of the cluster, and never gives its connection up.
type direct struct {
	c   *Cluster
	n   *Node
	l   *sim.Loop
	hub *peer.Hub
}

// answer is what came of a request; Done while it has not come.
type answer struct {
	call peer.Call
	came bool
}

// ok reports whether the OSD carried the request out.
func (a *answer) ok() bool { return a.came && a.call.Err == nil && a.call.Reply.Retval() >= 0 }

func (a *answer) data() []byte {
	if !a.ok() || a.call.ReplyData == nil {
		return nil
	}
	return a.call.ReplyData.Bytes()
}

func (a *answer) String() string {
	return fmt.Sprintf("answered %v, error %v, result %d", a.came, a.call.Err, a.call.Reply.Retval())
}

// connect makes such a client and waits for a first answer.
func (c *Cluster) connect(n *Node) *direct {
	c.T.Helper()
	d := &direct{c: c, n: n, l: c.W.NewLoop("direct")}
	d.hub = peer.New(d.l, peer.Options{Instance: 1 << 51, Key: c.Key, IdleTimeout: time.Hour}, nil)
	d.l.Post(&loop.Task{Run: func() {
		d.hub.SetPeer(n.Num, []loop.Addr{{Network: "tcp", Address: fmt.Sprintf("10.0.0.%d:7000", n.Num)}})
	}})
	first := d.read()
	c.Wait("the first answer", time.Minute, func() bool { return first.came })
	return d
}

func (d *direct) ask(m wire.ReadWrite, data []byte) *answer {
	a := &answer{}
	if data != nil {
		ref := d.l.Alloc(len(data))
		copy(ref.Bytes(), data)
		a.call.Payload = []peer.Piece{{Ref: ref, Len: len(data)}}
	}
	m.Encode(&a.call.Header)
	a.call.Done = func(*peer.Call) { a.came = true }
	d.l.Post(&loop.Task{Run: func() { d.hub.Call(d.n.Num, &a.call) }})
	return a
}

func (d *direct) read() *answer {
	return d.ask(wire.ReadWrite{Op: wire.OpRead, Inode: image, Len: 4096}, nil)
}

// seat is the primary of the only PG, and the other OSDs.
func (c *Cluster) seat() (p *Node, others []*Node) {
	p = c.Nodes[c.Snapshot().Primary(onlyPG)]
	for i := range c.O.OSDs {
		if n := c.Nodes[layout.OSDNum(i+1)]; n != p {
			others = append(others, n)
		}
	}
	return p, others
}

// cutFromAll cuts an OSD off from the other OSDs, and from nobody else.
func (c *Cluster) cutFromAll(n *Node, others []*Node) {
	for _, o := range others {
		c.W.Net.Cut(n.Loop, o.Loop)
	}
}

// replaced waits until another OSD than n serves the only PG.
func (c *Cluster) replaced(n *Node) {
	c.T.Helper()
	c.Wait("another primary", time.Minute, func() bool {
		st, ok := c.Snapshot().PGStates.Get(onlyPG)
		return ok && st.Primary != n.Num && st.State&cluster.StateActive != 0
	})
}

// A primary whose disk takes so long to read that its grants run out meanwhile does not tell what it has read.
func TestReadIsRefusedWhenGrantsRunOutMeanwhile(t *testing.T) {
	c := start(t, Options{Seed: 301, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(128<<10, 1))
	p, others := c.seat()
	d := c.connect(p)
	c.W.Disk(p.disk()).Stall(true)
	late := d.read()
	c.W.Run(100 * time.Millisecond)
	c.cutFromAll(p, others)
	p.CutRegistry(true)
	c.replaced(p)
	k.Write(image, 0, pattern(4096, 2))
	c.W.Disk(p.disk()).Stall(false)
	c.Wait("an answer", time.Minute, func() bool { return late.came })
	if late.ok() {
		t.Errorf("the read is answered after another primary has served: %v, what was true before: %v", late, bytes.Equal(late.data(), pattern(4096, 1)))
	}
}

// A primary serves no more when its grants have run out, although its connections have not ended yet.
func TestPrimaryWhoseGrantsRanOutServesNoMore(t *testing.T) {
	c := start(t, Options{Seed: 310, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1, LockTime: 600 * time.Millisecond})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	p, others := c.seat()
	d := c.connect(p)
	p.CutRegistry(true)
	c.Wait("the lease to end", time.Minute, func() bool { _, up := c.Snapshot().OSDStates.Get(p.Num); return !up })
	if now := d.read(); !c.W.RunUntil(func() bool { return now.came }, time.Second) || !now.ok() {
		t.Fatalf("without etcd it serves no more: %v", now)
	}
	c.cutFromAll(p, others)
	c.replaced(p)
	k.Write(image, 0, pattern(4096, 2))
	late := d.read()
	c.Wait("an answer", time.Minute, func() bool { return late.came })
	if late.ok() {
		t.Errorf("two primaries serve: the one of before answers %v, what was true before: %v", late, bytes.Equal(late.data(), pattern(4096, 1)))
	}
}

// What a primary has sent before it gave the PG up, and what comes late, is not carried out by a member that has granted the PG to another one.
func TestChangeThatComesLateIsNotCarriedOut(t *testing.T) {
	c := start(t, Options{Seed: 302, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1, LockTime: 600 * time.Millisecond})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	p, others := c.seat()
	d := c.connect(p)
	c.put(cluster.OSDConfigKey(p.Num), []byte(`{"reweight":0}`)) // the monitor gathers changes for a second
	c.W.Run(900 * time.Millisecond)
	for _, o := range others {
		c.W.Net.CutOneWay(p.Loop, o.Loop)
	}
	lost := d.ask(write(0, 4096, 9, 1), pattern(4096, 2))
	c.W.Run(50 * time.Millisecond)
	if lost.came {
		t.Fatalf("the write is answered: %v", lost)
	}
	c.replaced(p) // it gives the PG up in order; what it sent is on its way still
	object := layout.ObjectID{Inode: image}
	for _, o := range others {
		before, _ := o.Store.State(object)
		c.W.Net.Heal(p.Loop, o.Loop)
		c.W.Run(200 * time.Millisecond)
		if now, _ := o.Store.State(object); now != before {
			t.Errorf("OSD %d carries out what the primary of before has sent: %+v, then %+v", o.Num, before, now)
		}
	}
}

// A member that has just started does not grant to another primary as long as the one of before may hold its grant.
func TestRestartedMembersHonourTheirGrants(t *testing.T) {
	c := start(t, Options{Seed: 303, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1, LockTime: 4 * time.Second})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	p, others := c.seat()
	d := c.connect(p)
	p.CutRegistry(true)
	c.Wait("the lease to end", time.Minute, func() bool { _, up := c.Snapshot().OSDStates.Get(p.Num); return !up })
	c.cutFromAll(p, others)
	for _, o := range others {
		o.Kill()
		o.Start()
		c.W.Net.Cut(p.Loop, o.Loop)
	}
	// Whoever serves next: the primary of before must not, any more.
	c.replaced(p)
	k.Write(image, 0, pattern(4096, 2))
	late := d.read()
	c.Wait("an answer", time.Minute, func() bool { return late.came })
	if late.ok() {
		t.Errorf("two primaries serve: the one of before answers %v, what was true before: %v", late, bytes.Equal(late.data(), pattern(4096, 1)))
	}
}

// A primary counts on a grant no longer than the member honours it, however slow the network is between them.
func TestGrantsAreCountedFromTheSending(t *testing.T) {
	counted := 0
	for i := range 8 { // moments between two renewals
		c := start(t, Options{Seed: 304, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1, LockTime: 600 * time.Millisecond})
		p, others := c.seat()
		for _, o := range others {
			c.W.Net.SetDelayBetween(p.Loop, o.Loop, sim.Delay{Min: 100 * time.Millisecond, Max: 100 * time.Millisecond})
		}
		c.W.Run(2*time.Second + time.Duration(i)*25*time.Millisecond)
		c.cutFromAll(p, others)
		for range 1000 {
			for _, o := range others {
				if !p.OSD.Valid(o.Num) {
					continue
				}
				counted++
				if text := o.OSD.Describe(); !strings.Contains(text, fmt.Sprintf("grant %v: OSD %d interval", onlyPG, p.Num)) || !strings.Contains(text, "in force true") {
					t.Fatalf("OSD %d counts on a grant of OSD %d that is not in force there: %s", p.Num, o.Num, text)
				}
			}
			c.W.Run(time.Millisecond)
		}
		c.W.Close()
	}
	if counted == 0 {
		t.Fatal("nothing was looked at")
	}
}

// A primary that a fence has not reached serves the fenced session no more once the fence is in force: the members that know it renew its grants no longer.
func TestFenceEndsThePrimaryThatItDoesNotReach(t *testing.T) {
	c := start(t, Options{Seed: 305, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	p, _ := c.seat()
	d := c.connect(p)
	p.CutRegistry(true)
	fencer, done := c.fencing(7)
	c.W.Net.Cut(p.Loop, fencer)
	c.Wait("the fence", 20*time.Second, func() bool { return *done })
	late := d.ask(write(0, 4096, 7, 50), pattern(4096, 2))
	c.Wait("an answer", time.Minute, func() bool { return late.came })
	if late.ok() {
		t.Errorf("a write of the fenced session is acknowledged: %v", late)
	}
	p.CutRegistry(false)
	if r := c.NewClient(8).Read(image, 0, 4096); !bytes.Equal(r.Data, pattern(4096, 1)) {
		t.Error("the fenced session's write took effect")
	}
}

// A change whose deadline passes while the primary stands still is not begun.
func TestLateChangeIsNotBegun(t *testing.T) {
	c := start(t, Options{Seed: 306, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	p, _ := c.seat()
	d := c.connect(p)
	m := write(0, 4096, 9, 1)
	m.Trailer.Deadline = uint64(p.Loop.Now()) + uint64(100*time.Millisecond)
	p.Loop.Pause()
	late := d.ask(m, pattern(4096, 2))
	c.W.Run(200 * time.Millisecond)
	p.Loop.Resume()
	c.Wait("an answer", time.Minute, func() bool { return late.came })
	if late.ok() || late.call.Reply.Retval() != wire.ETIMEDOUT {
		t.Errorf("a write that comes after its deadline: %v", late)
	}
	if r := k.Read(image, 0, 4096); !bytes.Equal(r.Data, pattern(4096, 1)) {
		t.Error("it took effect")
	}
}

// The copy that recovery makes of an object knows the requests that made it: one that is sent again is answered by whoever has become the primary, and does not undo a newer write.
func TestRecoveredObjectsKnowTheirRequests(t *testing.T) {
	c := start(t, Options{Seed: 307, OSDs: 3, Replicas: 3, MinSize: 1, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	p, others := c.seat()
	away := others[0]
	away.Kill()
	first := k.do(t, write(0, 4096, 7, 100), pattern(4096, 1))
	c.Wait("an interval without it", time.Minute, func() bool { return !c.States(cluster.StateActive) && c.Serving() })
	away.Start()
	c.Wait("all PGs clean", time.Minute, func() bool { return c.States(cluster.StateActive) })
	k.do(t, write(0, 4096, 8, 1), pattern(4096, 2))
	p.Kill()
	others[1].Kill()
	c.Wait("the recovered copy alone", time.Minute, func() bool { return c.Snapshot().Primary(onlyPG) == away.Num && c.Serving() })
	if r := k.do(t, write(0, 4096, 7, 100), pattern(4096, 1)); r.Version != first.Version {
		t.Errorf("repeated at the recovered copy: %+v, want version %x", r, first.Version)
	}
	if r := k.Read(image, 0, 4096); !bytes.Equal(r.Data, pattern(4096, 2)) {
		t.Error("a repeated write undid a newer one")
	}
}

// An activation that reaches etcd late, when another OSD has taken the PG and serves, does not write its set over that.
func TestActivationThatComesLateChangesNothing(t *testing.T) {
	c := start(t, Options{Seed: 308, OSDs: 4, Replicas: 4, MinSize: 2, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	p, others := c.seat()
	for _, o := range others {
		c.W.Net.SetDelayBetween(p.Loop, o.Loop, sim.Delay{Min: 50 * time.Millisecond, Max: 50 * time.Millisecond})
	}
	others[2].Kill()
	phase := func(name string) func() bool {
		return func() bool { return strings.Contains(p.OSD.Describe(), fmt.Sprintf("pg %v: %s", onlyPG, name)) }
	}
	c.Wait("the listing", time.Minute, phase("listing"))
	c.Reg.SetFaults(sim.RegistryFaults{LateRequest: 1})
	p.CutRegistry(true)
	c.Wait("the activation", time.Minute, phase("activating"))
	c.replaced(p)
	k.Write(image, 0, pattern(4096, 2))
	was, _ := c.Snapshot().Records.Get(onlyPG)
	p.CutRegistry(false)
	for range 1000 {
		c.W.Run(time.Millisecond)
		if now, _ := c.Snapshot().Records.Get(onlyPG); now.Interval < was.Interval || now.Activated < was.Activated {
			t.Fatalf("the record of the PG was %+v, and is %+v", *was, *now)
		}
	}
	if r := k.Read(image, 0, 4096); !bytes.Equal(r.Data, pattern(4096, 2)) {
		t.Error("an acknowledged write is lost")
	}
}

// A deletion is remembered as long as a store takes part that may hold an older copy: here one that the PG has moved away from, and that objects are copied from still.
func TestDeletionIsRememberedWhileOlderCopiesCount(t *testing.T) {
	c := start(t, Options{Seed: 309, OSDs: 4, Replicas: 3, MinSize: 2, PGs: 1, Depth: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	for i := range 100 {
		k.Write(image, uint64(i)*128<<10, pattern(4096, byte(i)))
	}
	rec, _ := c.Snapshot().Records.Get(onlyPG)
	p := c.Nodes[c.Snapshot().Primary(onlyPG)]
	var away, stays, joins *Node
	for i := range c.O.OSDs {
		n := c.Nodes[layout.OSDNum(i+1)]
		member := false
		for _, m := range rec.Sets[0].Members {
			member = member || m.OSD == n.Num
		}
		switch {
		case !member:
			joins = n
		case n != p && away == nil:
			away = n
		case n != p:
			stays = n
		}
	}
	c.W.Net.SetDelayBetween(p.Loop, joins.Loop, sim.Delay{Min: 100 * time.Millisecond, Max: 100 * time.Millisecond})
	c.put(cluster.OSDConfigKey(away.Num), []byte(`{"reweight":0}`))
	moved := func() bool {
		rec, ok := c.Snapshot().Records.Get(onlyPG)
		return ok && rec.Active() && len(rec.Sets) > 1 && c.Serving() && c.Snapshot().Primary(onlyPG) == p.Num
	}
	c.Wait("the PG to move", time.Minute, moved)
	if r := k.do(t, wire.ReadWrite{Op: wire.OpDelete, Inode: image, Offset: 99 * 128 << 10}, nil); r.Retval != 0 {
		t.Fatalf("delete: %+v", r)
	}
	k.Write(image, 98*128<<10, pattern(4096, 1)) // its request is over
	c.W.Run(2 * time.Second)
	if !moved() {
		t.Fatal("everything has been copied: the test shows nothing")
	}
	stays.Kill()
	c.W.Run(time.Second)
	if r := k.Read(image, 99*128<<10, 4096); r.Version != 0 || !bytes.Equal(r.Data, make([]byte, 4096)) {
		t.Errorf("a deleted object is back, at version %x", r.Version)
	}
}

// A grant that has run out, here since the network has become too slow for renewals, is not renewed when that is over: it takes a new interval.
func TestGrantThatRanOutIsNotRenewed(t *testing.T) {
	c := start(t, Options{Seed: 311, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1, LockTime: 600 * time.Millisecond})
	defer c.W.Close()
	p, others := c.seat()
	rec, _ := c.Snapshot().Records.Get(onlyPG)
	was := rec.Activated
	for _, o := range others {
		c.W.Net.SetDelayBetween(p.Loop, o.Loop, sim.Delay{Min: 400 * time.Millisecond, Max: 400 * time.Millisecond})
	}
	c.Wait("the grants to run out", time.Minute, func() bool { return !p.OSD.Valid(others[0].Num) })
	c.W.Run(time.Second)
	for _, o := range others {
		c.W.Net.SetDelayBetween(p.Loop, o.Loop, sim.Delay{})
	}
	c.W.Run(3 * time.Second)
	c.Wait("all PGs active", time.Minute, func() bool { return c.States(cluster.StateActive) })
	if rec, _ := c.Snapshot().Records.Get(onlyPG); rec.Activated == was {
		t.Errorf("interval %d goes on although its grants had run out", was)
	}
}

// A pool that is made under the number of one that was removed is empty, whatever the stores still have of that one.
func TestPoolMadeAnewIsEmpty(t *testing.T) {
	c := start(t, Options{Seed: 312, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	pool, _ := c.Snapshot().Pools.Get(1)
	set := func(p *cluster.Pool) {
		for _, kv := range c.Reg.Dump() {
			if kv.Key == cluster.KeyPools {
				txn, err := cluster.SetPool(&kv, 1, p)
				if err != nil {
					t.Fatal(err)
				}
				c.Txn(txn)
			}
		}
	}
	set(nil)
	c.Wait("the pool to go", time.Minute, func() bool {
		_, known := c.Snapshot().Identities.Get(1)
		return !known && c.Snapshot().PGStates.Len() == 0
	})
	set(pool)
	c.Wait("the PG of the new pool", time.Minute, func() bool { return c.States(cluster.StateActive) })
	if r := k.Read(image, 0, 4096); r.Version != 0 || !bytes.Equal(r.Data, make([]byte, 4096)) {
		t.Errorf("the new pool shows version %x of the one before", r.Version)
	}
}
