package gateway

import (
	"errors"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/registry"
	"holdfast/frontends/volume"
)

func TestOSDsRefuseAFencedSession(t *testing.T) {
	c := newCluster(t, "")
	c.create("disk", 8*mib)
	g := c.gateway("gw", 1, 100)
	h := g.attach("disk", volume.Session{Protocol: "nbd"})
	if err := g.fill(h, 0, 4096, 1); err != nil {
		t.Fatal(err)
	}
	id := uint64(100)<<cluster.SessionBits | 1 // the first session of instance 100
	c.wait("the fence", c.admin, func(done func()) {
		op := registry.Op{Kind: registry.Put, Key: cluster.FenceKey(cluster.FenceSessionName(id)), Value: cluster.Value(&cluster.Fence{Session: id, Reason: "test"})}
		c.reg.Open(c.admin).Txn(registry.Txn{Then: []registry.Op{op}}, func(registry.TxnResult, error) { done() })
	})
	var err error
	for end := time.Now().Add(5 * time.Second); err == nil && time.Now().Before(end); {
		err = g.fill(h, 0, 4096, 2)
	}
	if !errors.Is(err, volume.ErrFenced) {
		t.Errorf("a write of a fenced session: %v, want %v", err, volume.ErrFenced)
	}
	next := g.attach("disk", volume.Session{Protocol: "nbd"})
	if err := g.fill(next, 0, 4096, 3); err != nil {
		t.Errorf("another session: %v", err)
	}
	g.detach(h)
	g.detach(next)
}

func TestImagesComeAndGoLive(t *testing.T) {
	c := newCluster(t, "")
	g := c.gateway("gw", 2, 100)
	run(t, "nfs-ls", g.file(""))
	c.create("late", 8*mib)
	h := g.attach("late", volume.Session{Protocol: "nbd"})
	if out := run(t, "nbdinfo", "--size", "nbd://"+g.nbd+"/late"); out != "8388608\n" {
		t.Errorf("nbdinfo --size: %q", out)
	}
	g.detach(h)
}

func TestIOGoesOnWithoutAnOSD(t *testing.T) {
	c := newCluster(t, "")
	c.create("disk", 16*mib)
	g := c.gateway("gw", 2, 100)
	killed := make(chan struct{})
	go func() {
		time.Sleep(700 * time.Millisecond) // into the load; the test holds whenever this happens
		c.osds[2].Stop()
		close(killed)
	}()
	run(t, "fio", "--name=verify", "--ioengine=nbd", "--uri=nbd://"+g.nbd+"/disk", "--rw=randwrite", "--bs=4k", "--size=16m", "--io_size=24m", "--rate_iops=2500", "--iodepth=16",
		"--verify=crc32c", "--verify_fatal=1", "--do_verify=1")
	<-killed
}
