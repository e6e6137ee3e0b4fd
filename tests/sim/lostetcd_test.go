package sim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"holdfast/appliance/etcdsnapshot"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
)

// restoring is the registry as `holdfast etcd restore` sees it.
type restoring struct {
	c      *Cluster
	before func() // each transaction
}

func (r *restoring) Txn(_ context.Context, t registry.Txn) (res registry.TxnResult, err error) {
	if r.before != nil {
		r.before()
	}
	done := false
	r.c.admin.Txn(t, func(a registry.TxnResult, e error) { res, err, done = a, e, true })
	r.c.W.RunUntil(func() bool { return done }, time.Minute)
	return res, err
}

// TestLostEtcdAtRandom loses etcd at some moment after a snapshot of it, with everything that happened in between: OSDs that wrote alone, images, pools that moved. The snapshot is put into an empty
// etcd, whose revisions are lower than any before, while OSDs already start. Every acknowledged write is there.
func TestLostEtcdAtRandom(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { loseEtcd(t, seed) })
	}
}

func loseEtcd(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	osds := 3 + rng.IntN(2)
	c := start(t, Options{Seed: 9000 + seed, OSDs: osds, Replicas: 2 + rng.IntN(2), MinSize: 1, PGs: 4, DiskSize: 32 << 20, OutTime: []time.Duration{8 * time.Second, time.Hour}[rng.IntN(2)], Logs: io.Discard})
	defer c.W.Close()
	c.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: cluster.KeyClusterID, Value: []byte(`{"id":"0123456789abcdef0123456789abcdef"}`)}}})
	k := c.NewClient(7)
	r := &restoring{c: c}
	content := map[int][]byte{}
	writes := 0
	write := func() {
		for range 1 + rng.IntN(6) {
			writes++
			b := rng.IntN(24)
			content[b] = pattern(4096, byte(writes))
			k.Write(image, uint64(b)*(100<<10)&^4095, content[b])
		}
	}
	path := filepath.Join(t.TempDir(), "snapshot")
	take := func() {
		s, err := etcdsnapshot.Take(context.Background(), r, time.Now())
		if err == nil {
			err = s.Write(path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	phases := 1 + rng.IntN(3)
	when := rng.IntN(phases)
	for phase := range phases {
		write()
		early := rng.IntN(2) == 0
		if phase == when && early {
			take()
		}
		// Some of them go, one after the other, so that the last knows most.
		var down []int
		for i, n := range rng.Perm(osds)[:rng.IntN(osds)] {
			c.Wait("whatever can be served is", 2*time.Minute, c.active)
			if !c.bears(layout.OSDNum(n + 1)) {
				continue
			}
			down = append(down, n)
			c.Nodes[layout.OSDNum(n+1)].Kill()
			c.Wait("its loss to be known", time.Minute, func() bool { _, up := c.Snapshot().OSDStates.Get(layout.OSDNum(n + 1)); return !up })
			c.Wait("the others to serve", 2*time.Minute, c.active)
			write()
			if phase == when && !early && i < 2 {
				take()
				early = true
			}
		}
		if phase == when && !early {
			take()
		}
		if phase+1 < phases {
			for _, n := range down {
				c.Nodes[layout.OSDNum(n+1)].Start()
			}
			c.Wait("all PGs whole", 2*time.Minute, func() bool { return c.States(cluster.StateActive) })
			continue
		}
		gone := map[int]bool{}
		for _, n := range down {
			gone[n] = true
		}
		for n := range osds {
			if !gone[n] {
				c.Nodes[layout.OSDNum(n+1)].Kill()
			}
		}
	}
	c.KillMonitor()
	c.W.Run(2 * time.Second) // what they have sent arrives
	c.Reg.Restore(memory.New(c.W.NewLoop("empty")).Backup(), 0)
	c.W.Run(20 * time.Second)

	s, err := etcdsnapshot.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	order := rng.Perm(osds)
	begin := func() {
		if len(order) > 0 {
			c.Nodes[layout.OSDNum(order[0]+1)].Start()
			order = order[1:]
		}
	}
	x := s.Open(r)
	if err := x.Look(context.Background()); err != nil || len(x.Running)+len(x.Other) > 0 {
		t.Fatalf("%v; %v %v", err, x.Running, x.Other)
	}
	steps := 0
	r.before = func() {
		if steps++; steps > 1 { // once it is marked
			if rng.IntN(2) == 0 {
				begin()
			}
			c.W.Run(time.Duration(rng.IntN(2000)) * time.Millisecond)
		}
		if steps == 4 && rng.IntN(2) == 0 {
			c.StartMonitor()
		}
	}
	wait, err := x.Run(context.Background(), "1", "snapshot", time.Now(), func(string, int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	if len(wait) != osds {
		t.Errorf("OSDs %v have to report", wait)
	}
	r.before = nil
	if c.Snapshot().OSDStates.Len() > 0 {
		t.Error("somebody registered in half an etcd")
	}
	c.StartMonitor()
	for len(order) > 0 {
		c.W.Run(time.Duration(rng.IntN(3000)) * time.Millisecond)
		begin()
	}
	c.Wait("all PGs whole", 3*time.Minute, func() bool { return c.States(cluster.StateActive) })
	for b, want := range content { // order: each by itself
		if have := k.Read(image, uint64(b)*(100<<10)&^4095, 4096); !bytes.Equal(have.Data, want) {
			t.Errorf("block %d is another one than was acknowledged", b)
		}
	}
	write()
}

// bears reports whether every PG is served without an OSD, which goes now.
func (c *Cluster) bears(osd layout.OSDNum) bool {
	s := c.Snapshot()
	for _, rec := range s.Records.All() {
		for _, set := range rec.Sets {
			if !slices.ContainsFunc(set.Members, func(m cluster.PGMember) bool {
				_, up := s.OSDStates.Get(m.OSD)
				return up && m.OSD != osd
			}) {
				return false
			}
		}
	}
	return true
}
