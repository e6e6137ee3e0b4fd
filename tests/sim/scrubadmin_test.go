package sim

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"holdfast/core/admin"
	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/core/sim"
	"holdfast/core/wire"
)

// tool is a command's process.
type tool struct {
	c *Cluster
	l *sim.Loop
	k *client.Client
}

func (c *Cluster) tool() *tool {
	t := &tool{c: c, l: c.W.NewLoop("tool")}
	o := client.Defaults()
	o.Registry, o.Key, o.Instance, o.Name = c.open(t.l), c.Key, 4712, "tool"
	ready := false
	t.l.Post(&loop.Task{Run: func() {
		t.k = client.New(t.l, o)
		t.k.Await(func(s *cluster.Snapshot) bool { return s.Revision > 0 }, func() { ready = true })
	}})
	c.Wait("the tool has the cluster's state", time.Minute, func() bool { return ready })
	return t
}

// do runs f on the tool's loop until it calls done.
func (t *tool) do(f func(done func(error))) (err error) {
	ended := false
	t.l.Post(&loop.Task{Run: func() {
		f(func(e error) { err, ended = e, true })
	}})
	t.c.Wait("the tool ends", 10*time.Minute, func() bool { return ended })
	return err
}

// scrubImage has the tool compare the objects of the image; stop ends it after some progress.
func (t *tool) scrubImage(stop func(admin.Scrub) bool) (v admin.Scrub, err error) {
	err = t.do(func(done func(error)) {
		var job *admin.ImageScrub
		job = admin.ScrubImage(t.k, image, "image disk", func(now admin.Scrub) {
			if stop != nil && stop(now) {
				job.Stop()
			}
		}, func(all admin.Scrub, err error) {
			v = all
			done(err)
		})
	})
	return v, err
}

// TestScrubOnDemand: a command scrubs an image, goes on where it was interrupted, has all PGs scrubbed and breaks that off; and settles what is inconsistent.
func TestScrubOnDemand(t *testing.T) {
	c := start(t, Options{Seed: 15, OSDs: 3, Replicas: 2, MinSize: 1, PGs: 4, Store: unsummed})
	defer c.W.Close()
	c.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: cluster.InodeKey(image), Value: []byte(`{"name":"disk","size":10485760}`)}}})
	k := c.NewClient(7)
	const objects = 40
	for i := range uint64(objects) {
		k.Write(image, i*blockLen, wholes(byte(i)))
	}
	for _, n := range c.Nodes { // so that a scrub takes a while
		c.W.Disk(n.disk()).SetLatency(loop.DiskRead, 300*time.Millisecond, 300*time.Millisecond)
	}
	x := c.tool()
	v, err := x.scrubImage(func(now admin.Scrub) bool { return now.Objects >= 8 })
	if !errors.Is(err, client.ErrCanceled) || v.Objects < 8 || v.Objects >= objects || c.Snapshot().Verified(image) != 0 {
		t.Fatalf("interrupted: %+v, %v, verified %d", v, err, c.Snapshot().Verified(image))
	}
	before := v.Objects
	v, err = x.scrubImage(nil)
	if err != nil || !v.Sound() || v.Objects < objects || v.Objects > objects+4 || v.Verified == "" { // those that were under way are compared again
		t.Errorf("after %d objects it goes on with %+v, %v", before, v, err)
	}
	verified := c.Snapshot().Verified(image)
	if verified == 0 {
		t.Error("the image is not verified")
	}

	pgs, err := admin.ScrubPGs(c.Snapshot(), admin.ScrubChoice{All: true})
	if err != nil || len(pgs) != 4 {
		t.Fatalf("%v, %v", pgs, err)
	}
	going := false
	err = x.do(func(done func(error)) {
		var run *admin.ScrubRun
		run = admin.StartScrub(x.k, pgs, func(list []admin.Scrub) {
			if sum := admin.TotalScrub(list); sum.Objects > 0 {
				going = true
				run.Stop()
				done(nil)
			}
		}, func([]admin.Scrub, error) { done(errors.New("it has ended")) })
	})
	if err != nil || !going {
		t.Fatalf("nothing is seen of a scrub: %v", err)
	}
	canceled := 0
	if err := x.do(func(done func(error)) {
		admin.CancelScrub(x.k, pgs, func(n int, err error) {
			canceled = n
			done(err)
		})
	}); err != nil || canceled == 0 {
		t.Fatalf("%d scrubs are broken off: %v", canceled, err)
	}
	c.Wait("nothing is scrubbed", time.Minute, func() bool { return c.States(cluster.StateActive) })
	kept := uint64(0)
	for _, s := range c.Snapshot().PGScrubs.All() {
		if s.Pass != nil {
			kept += uint64(s.Pass.Objects)
		}
	}
	if kept == 0 {
		t.Error("nothing is kept of what was done")
	}
	compared := c.compared()
	var list []admin.Scrub
	if err := x.do(func(done func(error)) {
		admin.StartScrub(x.k, pgs, nil, func(all []admin.Scrub, err error) {
			list = all
			done(err)
		})
	}); err != nil {
		t.Fatal(err)
	}
	if sum := admin.TotalScrub(list); !sum.Sound() || sum.Objects != objects || c.compared()-compared > objects-kept+4 {
		t.Errorf("%+v after %d were compared anew, where %d had been", sum, c.compared()-compared, kept)
	}

	// One copy of two is changed: nobody can know which.
	bad := layout.OSDNum(0)
	for n := range layout.OSDNum(3) {
		if at, ok := c.Nodes[n+1].has(wholes(3)[:64]); ok {
			c.W.Disk(c.Nodes[n+1].disk()).Flip(at+7000, 2)
			bad = n + 1
			break
		}
	}
	v, err = x.scrubImage(nil)
	if err != nil || v.Sound() || v.Inconsistent != 1 || c.Snapshot().Verified(image) != 0 {
		t.Fatalf("%+v, %v; verified %d", v, err, c.Snapshot().Verified(image))
	}
	fix := func(f admin.FixChoice) (fixed []admin.Fixed) {
		t.Helper()
		f.Part, f.Objects = -1, []layout.ObjectID{{Inode: image, Stripe: 3 * blockLen}, {Inode: image, Stripe: 4 * blockLen}}
		if err := x.do(func(done func(error)) {
			admin.Fix(x.k, f, func(all []admin.Fixed, err error) {
				fixed = all
				done(err)
			})
		}); err != nil {
			t.Fatal(err)
		}
		return fixed
	}
	for _, step := range []struct {
		choice admin.FixChoice
		want   string
	}{
		{admin.FixChoice{OSDs: []uint64{uint64(bad)}, Check: true, DryRun: true}, admin.FixWould},
		{admin.FixChoice{OSDs: []uint64{1, 2, 3}, Check: true, DryRun: true}, admin.FixWould},
		{admin.FixChoice{OSDs: []uint64{uint64(bad)}, Check: true}, admin.FixDone},
		{admin.FixChoice{OSDs: []uint64{uint64(bad)}}, admin.FixNotWrong},
	} {
		found := map[string]int{}
		for _, f := range fix(step.choice) {
			found[f.Result]++
		}
		if found[step.want] == 0 || found[admin.FixRefused] > 0 {
			t.Errorf("%+v: %v", step.choice, found)
		}
		c.W.Run(3 * time.Second)
	}
	if r := k.Read(image, 3*blockLen, blockLen); !bytes.Equal(r.Data, wholes(3)) {
		t.Error("it reads differently")
	}
	if m := k.scrub(t, 3*blockLen); m.Found != wire.FoundSame {
		t.Errorf("%+v is found", m)
	}
}

// compared is how many objects were compared.
func (c *Cluster) compared() (n uint64) {
	for _, node := range c.Nodes {
		n += node.OSD.Scrubbed().Objects
	}
	return n
}
