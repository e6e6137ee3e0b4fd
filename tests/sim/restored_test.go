package sim

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/core/wire"
)

// pair is a cluster of two OSDs in which OSD 2 has gone on alone since etcd was backed up: only its disk has the newest content. Both OSDs are down, and etcd is as in the backup.
func pair(t *testing.T, o Options) (c *Cluster, k *Client, newest []byte) {
	t.Helper()
	o.OSDs, o.Replicas, o.MinSize, o.PGs = 2, 2, 1, 1
	c = start(t, o)
	k = c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	backup := c.Reg.Backup()
	c.Nodes[1].Kill()
	newest = pattern(4096, 2)
	k.Write(image, 0, newest)
	c.Nodes[2].Kill()
	c.Wait("no OSD in etcd", time.Minute, func() bool { return c.Snapshot().OSDStates.Len() == 0 })
	c.Reg.Restore(backup, 0)
	c.W.Run(15 * time.Second) // the leases in the backup run out
	if s := c.Snapshot(); s.OSDStates.Len() > 0 || s.PGStates.Len() > 0 {
		t.Fatal("the keys of those who are dead stay")
	}
	return c, k, newest
}

func (c *Cluster) declareRestored() {
	c.Txn(cluster.DeclareRestored(c.Snapshot(), cluster.Restored{ID: "test", Reason: "by a test"}))
	c.Wait("the declaration", time.Minute, func() bool { return c.Snapshot().Restored != nil })
}

// active reports whether every PG is served, by whoever is left.
func (c *Cluster) active() bool {
	s := c.Snapshot()
	n := 0
	for _, st := range s.PGStates.All() {
		if st.State&cluster.StateActive != 0 {
			n++
		}
	}
	return n == c.pgs
}

// never fails the test if cond holds within d.
func (c *Cluster) never(what string, d time.Duration, cond func() bool) {
	c.T.Helper()
	if c.W.RunUntil(cond, d) {
		c.T.Fatalf("%s; %s", what, c.describe())
	}
}

// A restore that was declared: an OSD that knows nothing of what the other did alone waits for it.
func TestRestoredEtcdWaitsForEveryStore(t *testing.T) {
	c, k, newest := pair(t, Options{Seed: 91})
	defer c.W.Close()
	c.declareRestored()
	c.Nodes[1].Start()
	c.never("OSD 1 serves without the report of OSD 2", 20*time.Second, c.active)
	if text := c.Nodes[1].OSD.Describe(); !strings.Contains(text, "OSD 2 must report first") {
		t.Errorf("OSD 1 does not say what it waits for: %s", text)
	}
	c.Nodes[2].Start()
	c.Wait("all PGs active", 30*time.Second, c.active)
	if r := k.Read(image, 0, 4096); !bytes.Equal(r.Data, newest) {
		t.Error("an acknowledged write is lost")
	}
	if list := c.Snapshot().Unreported(); len(list) > 0 {
		t.Errorf("not reported: %v", list)
	}
}

// A restore that nobody declared is found by the OSD whose disk knows more than etcd.
func TestRestoredEtcdIsFound(t *testing.T) {
	c, k, newest := pair(t, Options{Seed: 92})
	defer c.W.Close()
	c.Nodes[2].Start()
	c.Wait("OSD 2 finds it", 30*time.Second, func() bool { return c.Snapshot().Restored != nil })
	c.never("the PG is served before OSD 1 has reported", 20*time.Second, c.active)
	c.Nodes[1].Start()
	c.Wait("all PGs active", 30*time.Second, c.active)
	if r := k.Read(image, 0, 4096); !bytes.Equal(r.Data, newest) {
		t.Error("an acknowledged write is lost")
	}
}

// A store that is gone for good is given up by an operator; the cluster serves what is left, and refuses the disk when it comes back.
func TestRestoredEtcdGoesOnWithoutAStoreThatIsGivenUp(t *testing.T) {
	c, k, _ := pair(t, Options{Seed: 93})
	defer c.W.Close()
	c.declareRestored()
	c.Nodes[1].Start()
	c.never("OSD 1 serves without the report of OSD 2", 10*time.Second, c.active)
	txn, ok := cluster.DeclareLost(c.Snapshot(), 2)
	if !ok {
		t.Fatal("there is no OSD 2")
	}
	if !c.Txn(txn).Succeeded {
		t.Fatal("OSD 2 is not given up")
	}
	c.Wait("the PG active", 30*time.Second, c.active)
	if r := k.Read(image, 0, 4096); !bytes.Equal(r.Data, pattern(4096, 1)) {
		t.Error("what OSD 1 has is not served")
	}
	c.Nodes[2].Start()
	c.Wait("the disk is refused", 30*time.Second, func() bool { return c.Nodes[2].Err != nil })
}

// etcd is set back under running OSDs, in the middle of writing, and one of those that etcd knows is down. Nothing is lost; what needs a new interval waits for the one that is down.
func TestEtcdRestoredUnderRunningOSDs(t *testing.T) {
	for seed := range uint64(6) {
		c := start(t, Options{Seed: 100 + seed, OSDs: 3, Replicas: 3, MinSize: 1, PGs: 4})
		k := c.NewClient(7)
		content := make([]byte, 8)
		write := func(n int) {
			for i := range content {
				content[i] = byte(n + i)
				k.Write(image, uint64(i)*128<<10, pattern(4096, content[i]))
			}
		}
		write(1)
		backup := c.Reg.Backup()
		down := layout.OSDNum(seed%3 + 1)
		c.Nodes[down].Kill()
		write(11)
		c.Nodes[down%3+1].Kill()
		write(21)
		c.Nodes[down%3+1].Start()
		c.Wait("the PGs of two", time.Minute, func() bool { return c.active() })
		c.Reg.Restore(backup, 0)
		c.Wait("somebody finds it", time.Minute, func() bool { return c.Snapshot().Restored != nil })
		c.W.Run(10 * time.Second)
		c.Nodes[down].Start()
		c.Wait("all PGs active", time.Minute, func() bool {
			return c.active() && len(c.Snapshot().Unreported()) == 0
		})
		write(31)
		c.Wait("all PGs clean", time.Minute, func() bool {
			for _, r := range c.Snapshot().Records.All() {
				if len(r.Sets) != 1 || len(r.Participants) != 3 || !r.Active() {
					return false
				}
			}
			return c.active()
		})
		c.Nodes[down%3+1].Kill()
		for i, b := range content {
			if r := k.Read(image, uint64(i)*128<<10, 4096); !bytes.Equal(r.Data, pattern(4096, b)) {
				t.Errorf("seed %d: object %d reads back differently", seed, i)
			}
		}
		c.W.Close()
	}
}

// A fence that a restored etcd has forgotten stays in force with the OSDs that run, also when another one is written afterwards. They put it back, so that it is in force with those that start, too.
func TestFencesOutliveARestoreOfEtcd(t *testing.T) {
	c := start(t, Options{Seed: 95, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	backup := c.Reg.Backup()
	put := func(session uint64) {
		f := cluster.Fence{Session: session, Reason: "a test"}
		c.put(cluster.FenceKey(cluster.FenceSessionName(session)), cluster.Value(&f))
	}
	refused := func(session uint64) bool {
		r := k.do(t, write(0, 4096, session, 50), pattern(4096, 2))
		return r.Retval == wire.ESTALE
	}
	put(7)
	c.W.Run(time.Second)
	if !refused(7) {
		t.Fatal("the fence is not in force")
	}
	c.Reg.Restore(backup, 0)
	if c.W.Run(10 * time.Millisecond); !refused(7) {
		t.Fatal("the fence is in force no more")
	}
	c.Wait("the reports", time.Minute, func() bool { return c.Snapshot().Restored != nil && len(c.Snapshot().Unreported()) == 0 })
	for session := range uint64(3) {
		put(20 + session)
		c.W.Run(time.Second)
		if !refused(7) || !refused(20+session) {
			t.Fatal("a fence is not in force after the restore")
		}
	}
	for _, n := range c.Nodes {
		n.Kill()
	}
	for _, n := range c.Nodes {
		n.Start()
	}
	if !refused(7) {
		t.Error("a fence is not in force with those that started after the restore")
	}
}

// What etcd shows of a PG that is served all the time is true again after etcd has been set back to when it was in another state (seed 130 of the fifth draw).
func TestStateIsShownAfterARestoreOfEtcd(t *testing.T) {
	c := start(t, Options{Seed: 96, OSDs: 4, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	p, _ := c.seat()
	c.put(cluster.OSDConfigKey(p.Num), []byte(`{"reweight":0}`)) // another primary: it takes the PG
	shown := func() (bits cluster.StateBits) {
		for _, kv := range c.Reg.Dump() {
			if st := (cluster.PGState{}); kv.Key == cluster.PGStateKey(onlyPG) && json.Unmarshal(kv.Value, &st) == nil && st.Primary != p.Num {
				bits = st.State
			}
		}
		return bits
	}
	for range 100_000 {
		if b := shown(); b != 0 && b != cluster.StateActive {
			break
		}
		c.W.Run(50 * time.Microsecond)
	}
	if shown() == 0 {
		t.Fatal("nobody takes the PG")
	}
	backup := c.Reg.Backup()
	c.Wait("all PGs whole", time.Minute, func() bool { return c.States(cluster.StateActive) })
	c.W.Run(5 * time.Second)
	c.Reg.Restore(backup, 0)
	c.Wait("the reports", time.Minute, func() bool { return c.Snapshot().Restored != nil && len(c.Snapshot().Unreported()) == 0 })
	c.Wait("what is shown to be true", time.Minute, func() bool { return c.States(cluster.StateActive) })
}

// etcd is set back to a copy that was taken while a pool was being made, with config/pools and without the pool's identity, and nobody declares it. The pool is the same one afterwards (seed 82096 of the
// seventh draw): whoever runs, sees etcd go back, or starts in whatever order, a monitor that knows nothing among them.
func TestPoolThatWasBeingMadeIsNotLostByARestoreOfEtcd(t *testing.T) {
	kill := func(c *Cluster) {
		for n := range layout.OSDNum(4) {
			c.Nodes[n+1].Kill()
		}
	}
	rise := func(c *Cluster) {
		for n := range layout.OSDNum(4) {
			c.Nodes[n+1].Start()
		}
	}
	for _, v := range []struct {
		name         string
		before, then func(c *Cluster)
	}{
		{"all run", nil, nil},
		{"the monitor is another one", (*Cluster).KillMonitor, (*Cluster).StartMonitor},
		{"the monitor runs alone", kill, func(c *Cluster) { c.W.Run(10 * time.Second); rise(c) }},
		{"the monitor starts first", func(c *Cluster) { c.KillMonitor(); kill(c) }, func(c *Cluster) { c.StartMonitor(); c.W.Run(10 * time.Second); rise(c) }},
		{"the monitor starts last", func(c *Cluster) { c.KillMonitor(); kill(c) }, func(c *Cluster) { rise(c); c.W.Run(10 * time.Second); c.StartMonitor() }},
		{"all start at once", func(c *Cluster) { c.KillMonitor(); kill(c) }, func(c *Cluster) { c.StartMonitor(); rise(c) }},
	} {
		t.Run(v.name, func(t *testing.T) {
			for seed := range uint64(4) {
				restoreWhileAPoolIsMade(t, 120+seed, v.before, v.then)
			}
		})
	}
}

func restoreWhileAPoolIsMade(t *testing.T, seed uint64, before, then func(c *Cluster)) {
	c := start(t, Options{Seed: seed, OSDs: 4, Replicas: 3, MinSize: 2, PGs: 2})
	defer c.W.Close()
	c.W.Run(time.Duration(seed%7) * 300 * time.Millisecond)
	key := func(name string) *registry.KV {
		for _, kv := range c.Reg.Dump() {
			if kv.Key == name {
				return &kv
			}
		}
		return nil
	}
	pool := &cluster.Pool{ID: 2, Name: "q", Scheme: cluster.Replicated, PGSize: 3, PGMinSize: 2, PGCount: 2, FailureDomain: "osd"}
	txn, err := cluster.SetPool(key(cluster.KeyPools), 2, pool)
	if err != nil {
		t.Fatal(err)
	}
	was := key(cluster.KeyPools).Mod
	c.admin.Txn(txn, func(registry.TxnResult, error) {})
	for key(cluster.KeyPools).Mod == was {
		c.W.Run(10 * time.Microsecond)
	}
	backup := c.Reg.Backup()
	if key(cluster.PoolIdentityKey(2)) != nil {
		t.Fatal("the pool has its identity at once")
	}
	c.pgs += int(pool.PGCount)
	c.Wait("the new pool's PGs", time.Minute, func() bool { return c.States(cluster.StateActive) })
	k, other := c.NewClient(7), layout.MakeInode(2, 1)
	for i := range uint64(4) {
		k.Write(other, i*128<<10, pattern(4096, byte(i)+1))
	}
	generation := c.Snapshot().Generation(2)
	if before != nil {
		before(c)
	}
	c.Reg.Restore(backup, 0)
	if then != nil {
		then(c)
	}
	c.Wait("all PGs whole again", 2*time.Minute, func() bool {
		return c.Snapshot().Restored != nil && len(c.Snapshot().Unreported()) == 0 && c.States(cluster.StateActive)
	})
	for i := range uint64(4) {
		if r := k.Read(other, i*128<<10, 4096); !bytes.Equal(r.Data, pattern(4096, byte(i)+1)) {
			t.Errorf("seed %d: object %d of the pool reads back differently", seed, i)
		}
	}
	if g := c.Snapshot().Generation(2); g != generation {
		t.Errorf("seed %d: the pool is of generation %d, and was of %d", seed, g, generation)
	}
}
