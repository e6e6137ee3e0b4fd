package sim

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/registry/memory"
	"holdfast/core/sim"
	"holdfast/core/wire"
	"holdfast/osd/secondary"
)

// TestLocalReads runs seeds of two draws, of which the later one sets etcd and disks back, on pools of at least two copies whose members answer reads. HOLDFAST_TEST_SEEDS says how many.
func TestLocalReads(t *testing.T) {
	n := 24
	if v := os.Getenv("HOLDFAST_TEST_SEEDS"); v != "" {
		n, _ = strconv.Atoi(v)
	}
	var local, left uint64
	for seed := range uint64(n) {
		p := NewPlanOf(seed/2+1, NewestDraw-1+int(seed%2))
		if p.Config.Reads = "random"; seed%8 >= 6 {
			p.Config.Reads = "nearest"
		}
		if p.Config.Replicas == 1 {
			p.Config.Replicas, p.Config.MinSize = 2, 1
		}
		rep := runWell(t, p)
		local, left = local+rep.Coverage["read answered by a member"], left+rep.Coverage["read left to the primary"]
		if t.Failed() {
			return
		}
	}
	t.Logf("%d reads were answered by members, %d left to the primary", local, left)
	if local == 0 || left == 0 {
		t.Error("nothing is shown of local reads")
	}
}

// reader asks one OSD for the first block of the image, again and again, over a connection that outlives what happens to the OSD.
type reader struct {
	c        *Cluster
	l        *sim.Loop
	hub      *peer.Hub
	osd      layout.OSDNum
	call     peer.Call
	retry    loop.Timer
	asked    time.Duration // when the last one was
	answered func(asked time.Duration, data []byte)
}

func newReader(c *Cluster, osd layout.OSDNum, answered func(asked time.Duration, data []byte)) *reader {
	r := &reader{c: c, l: c.W.NewLoop("reader"), osd: osd, answered: answered}
	r.hub = peer.New(r.l, peer.Options{Instance: 1 << 51, Key: c.Key, IdleTimeout: time.Hour}, nil)
	r.call.Done = func(*peer.Call) {
		if r.call.Err == nil && r.call.ReplyData != nil {
			r.answered(r.asked, bytes.Clone(r.call.ReplyData.Bytes()))
			r.call.ReplyData.Release()
			r.call.ReplyData = nil
		}
		r.l.Arm(&r.retry, r.l.Now().Add(5*time.Millisecond))
	}
	r.retry.Fire = r.ask
	r.l.Post(&loop.Task{Run: func() {
		r.hub.SetPeer(osd, []loop.Addr{{Network: "tcp", Address: fmt.Sprintf("10.0.0.%d:7000", osd)}})
		r.ask()
	}})
	return r
}

func (r *reader) ask() {
	m := wire.ReadWrite{Op: wire.OpRead, Inode: image, Len: 4096}
	m.Encode(&r.call.Header)
	r.asked = r.c.W.Elapsed()
	r.hub.Call(r.osd, &r.call)
}

// reap kills an OSD that is primary of a PG as its parent process sees it: its keys go, and others are told.
func (c *Cluster) reap(n *Node, pg layout.PGID, told ...*Node) {
	n.Kill()
	c.put(cluster.OSDStateKey(n.Num), nil)
	c.put(cluster.PGStateKey(pg), nil)
	l := c.W.NewLoop("parent")
	hub := peer.New(l, peer.Options{Self: n.Num, Role: peer.RoleParent, Instance: 99, Key: c.Key}, nil)
	sb := n.Store.Superblock()
	payload := cluster.Value(&secondary.Holder{OSD: n.Num, Instance: n.instance(), Store: sb.StoreID})
	l.Post(&loop.Task{Run: func() {
		for _, other := range told {
			hub.SetPeer(other.Num, []loop.Addr{{Network: "tcp", Address: fmt.Sprintf("10.0.0.%d:7000", other.Num)}})
			m := wire.Sub{Op: wire.OpSubDead, Meta: len(payload)}
			call := &peer.Call{Meta: payload, Done: func(*peer.Call) {}}
			m.Encode(&call.Header)
			hub.Call(other.Num, call)
		}
	}})
}

// parting is what becomes of a cluster of three OSDs when a member that answers reads is parted from the others.
type parting struct {
	name   string
	before func(c *Cluster)
	then   func(c *Cluster, primary, member, other *Node)
	last   bool          // the member answers no reads afterwards
	lock   time.Duration // pg_lock_time [4 s]
}

// TestRightToReadRunsOut parts a member that answers reads from all OSDs and from the registry, but not from a client that knows nothing of that. Whatever becomes of the primary then, as soon as the next
// write is acknowledged the member does not tell what was before; nor does it when its clock is slow and the others' are fast, by as much as grants allow for.
func TestRightToReadRunsOut(t *testing.T) {
	var backup *memory.Backup
	for _, v := range []parting{
		{name: "nothing else happens", then: func(*Cluster, *Node, *Node, *Node) {}},
		{name: "the member is thought to be down", then: func(c *Cluster, _, member, _ *Node) { c.put(cluster.OSDStateKey(member.Num), nil) }},
		{name: "the primary is killed and started", then: func(_ *Cluster, primary, _, _ *Node) {
			primary.Kill()
			primary.Start()
		}},
		{name: "the other two are killed and started", then: func(_ *Cluster, primary, _, other *Node) {
			for _, n := range []*Node{primary, other} {
				n.Kill()
				n.Start()
			}
		}},
		{name: "the primary dies and its parent says so", last: true, then: func(c *Cluster, primary, _, other *Node) { c.reap(primary, onlyPG, other) }},
		{name: "so it does, and the member is thought to be down", last: true, then: func(c *Cluster, primary, member, other *Node) {
			c.reap(primary, onlyPG, other)
			c.put(cluster.OSDStateKey(member.Num), nil)
		}},
		{name: "the primary stops", last: true, then: func(_ *Cluster, primary, _, _ *Node) {
			primary.Loop.Post(&loop.Task{Run: func() { primary.OSD.Stop(func() {}) }})
		}},
		{name: "the primary stands still", then: func(_ *Cluster, primary, _, _ *Node) { primary.Loop.PauseFor(20 * time.Second) }},
		{name: "the primary stands still for a moment", then: func(_ *Cluster, primary, _, _ *Node) { primary.Loop.PauseFor(time.Second) }},
		{name: "the primary is cut off from the registry", then: func(c *Cluster, primary, _, _ *Node) {
			primary.CutRegistry(true)
			c.W.After(15*time.Second, func() { primary.CutRegistry(false) })
		}},
		{name: "the PG moves away from the member", last: true, then: func(c *Cluster, _, member, _ *Node) {
			c.put(cluster.OSDConfigKey(member.Num), []byte(`{"reweight":0}`))
		}},
		{name: "the PG moves away from the primary", then: func(c *Cluster, primary, _, _ *Node) {
			c.put(cluster.OSDConfigKey(primary.Num), []byte(`{"reweight":0}`))
		}},
		{name: "the pool's reads go to the primary again", last: true, then: func(c *Cluster, _, _, _ *Node) { c.readsGo("") }},
		{name: "the primary is killed and started, and etcd is set back to before its interval", last: true, lock: 16 * time.Second, // the reports take 5 s
			before: func(c *Cluster) {
				backup = c.Reg.Backup()
				p, _ := c.seat()
				p.Kill()
				p.Start()
				c.Wait("the next interval", time.Minute, func() bool {
					rec, _ := c.Snapshot().Records.Get(onlyPG)
					return rec.Activated > 1 && len(rec.Sets[0].Members) == 3 && c.States(cluster.StateActive)
				})
			},
			then: func(c *Cluster, primary, member, _ *Node) {
				primary.Kill()
				c.Reg.Restore(backup, 0)
				c.put(cluster.OSDStateKey(member.Num), nil)
				primary.Start()
				c.Wait("the declaration", time.Minute, func() bool { return c.Snapshot().Restored != nil })
				txn, ok := cluster.DeclareLost(c.Snapshot(), member.Num)
				if !ok {
					c.T.Fatal("the member cannot be given up")
				}
				c.Txn(txn)
			}},
	} {
		t.Run(v.name, func(t *testing.T) {
			for _, ppm := range []int64{0, 45_000} {
				v.run(t, ppm)
			}
		})
	}
}

// readsGo sets local_reads of the pool.
func (c *Cluster) readsGo(how string) {
	pool, _ := c.Snapshot().Pools.Get(1)
	now := *pool
	now.LocalReads = how
	for _, kv := range c.Reg.Dump() {
		if kv.Key == cluster.KeyPools {
			txn, err := cluster.SetPool(&kv, 1, &now)
			if err != nil {
				c.T.Fatal(err)
			}
			c.Txn(txn)
		}
	}
}

// run is the scenario, with a member whose clock is slow by so many parts per million, and others whose clocks are as fast.
func (v *parting) run(t *testing.T, ppm int64) {
	c := start(t, Options{Seed: 5, OSDs: 3, Replicas: 3, MinSize: 1, PGs: 1, Reads: "random", LockTime: cmp.Or(v.lock, 4*time.Second), Commit: "all"})
	defer c.W.Close()
	if v.before != nil {
		v.before(c)
	}
	k := c.NewClient(7)
	old, now := pattern(4096, 1), pattern(4096, 2)
	k.Write(image, 0, old)
	st, _ := c.Snapshot().PGStates.Get(onlyPG)
	primary := c.Nodes[st.Primary]
	member := c.Nodes[st.Peers[len(st.Peers)-1]]
	if member == primary {
		member = c.Nodes[st.Peers[0]]
	}
	other := c.Nodes[layout.OSDNum(6)-primary.Num-member.Num]
	member.Loop.SetDrift(-ppm)
	primary.Loop.SetDrift(ppm)
	other.Loop.SetDrift(ppm)
	var acked time.Duration
	answers, late, stale, fresh := 0, 0, 0, 0
	newReader(c, member.Num, func(asked time.Duration, data []byte) {
		switch isOld := bytes.Equal(data, old); {
		case acked == 0 && isOld:
			late++
		case acked != 0 && asked > acked && isOld:
			stale++
		case bytes.Equal(data, now):
			fresh++
		}
		answers++
	})
	c.Wait("the member to answer", time.Minute, func() bool { return answers > 0 })
	for _, n := range c.Nodes {
		if n != member {
			c.W.Net.Reset(member.Loop, n.Loop)
			c.W.Net.Cut(member.Loop, n.Loop)
		}
	}
	member.CutRegistry(true)
	late = 0
	begun := c.W.Elapsed()
	v.then(c, primary, member, other)
	k.Begin(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Len: 4096}, now, func(r Result) {
		if r.Retval != 4096 {
			t.Errorf("the write is answered %d", r.Retval)
		}
		acked = c.W.Elapsed()
	})
	c.Wait("the write", time.Minute, func() bool { return acked != 0 })
	c.W.Run(5 * time.Second)
	if stale > 0 {
		t.Errorf("%d reads tell what was before the write that had been acknowledged", stale)
	}
	if late == 0 {
		t.Error("the member did not use its right when it was parted from the others: nothing is shown")
	}
	t.Logf("acknowledged after %v; %d reads were answered with the old data before that", acked-begun, late)
	if fresh > 0 {
		t.Error("the member tells what it cannot know")
	}
	for _, n := range c.Nodes {
		if n != member {
			c.W.Net.Heal(member.Loop, n.Loop)
		}
	}
	member.CutRegistry(false)
	if !v.last {
		c.Wait("the member to answer again", time.Minute, func() bool { return fresh > 0 })
	}
}

// A member that stands still while the PG is served without it, and has requests to read when it goes on, does not tell what was before.
func TestMemberThatStoodStillTellsNothingOld(t *testing.T) {
	c := start(t, Options{Seed: 6, OSDs: 3, Replicas: 3, MinSize: 1, PGs: 1, Reads: "random", Commit: "all"})
	defer c.W.Close()
	k := c.NewClient(7)
	old := pattern(4096, 1)
	k.Write(image, 0, old)
	p, others := c.seat()
	member := others[0]
	d := c.connect(member)
	c.Wait("the member to answer", time.Minute, func() bool {
		a := d.read()
		c.W.RunUntil(func() bool { return a.came }, time.Second)
		return bytes.Equal(a.data(), old)
	})
	member.Loop.Pause()
	rec, _ := c.Snapshot().Records.Get(onlyPG)
	was := rec.Activated
	k.Write(image, 0, pattern(4096, 2))
	if rec, _ := c.Snapshot().Records.Get(onlyPG); rec.Activated == was || c.Snapshot().Primary(onlyPG) != p.Num {
		t.Fatalf("the write was acknowledged in %+v: nothing is shown", rec)
	}
	late := []*answer{d.read(), d.read()}
	c.W.Run(100 * time.Millisecond)
	member.Loop.Resume()
	for _, a := range late {
		c.Wait("an answer", time.Minute, func() bool { return a.came })
		if bytes.Equal(a.data(), old) {
			t.Errorf("a read tells what was before the write that had been acknowledged: %v", a)
		}
	}
}

// A member whose disk takes so long to read that its right ends meanwhile does not tell what it has read: that may be of a change that came since, under another primary.
func TestMemberTellsNothingWhenItsRightEndsMeanwhile(t *testing.T) {
	c := start(t, Options{Seed: 7, OSDs: 3, Replicas: 3, MinSize: 1, PGs: 1, Reads: "random", Commit: "all"})
	defer c.W.Close()
	k := c.NewClient(7)
	old := pattern(128<<10, 1)
	k.Write(image, 0, old)
	p, others := c.seat()
	member := others[0]
	d := c.connect(member)
	c.Wait("the member to answer", time.Minute, func() bool {
		a := d.read()
		c.W.RunUntil(func() bool { return a.came }, time.Second)
		return bytes.Equal(a.data(), old[:4096])
	})
	c.W.Disk(member.disk()).Stall(true)
	late := d.read()
	c.W.Run(100 * time.Millisecond)
	if late.came {
		t.Fatalf("it is answered without the disk: %v", late)
	}
	c.cutFromAll(member, []*Node{p, others[1]})
	k.Write(image, 0, pattern(4096, 2))
	c.W.Disk(member.disk()).Stall(false)
	c.Wait("an answer", time.Minute, func() bool { return late.came })
	if late.ok() {
		t.Errorf("the read is answered although the right has ended: %v, what was true before: %v", late, bytes.Equal(late.data(), old[:4096]))
	}
}
