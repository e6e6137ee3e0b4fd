package gateway

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/appliance/gateway"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/images"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/frontends/volume"
	"holdfast/frontends/volume/volumetest"

	"golang.org/x/sys/unix"
)

// lookup waits until the gateway serves an image.
func (g *started) lookup(name string) volume.Device {
	g.c.t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if d, _, ok := g.Catalog().Lookup(name); ok {
			return d
		}
	}
	g.c.t.Fatalf("image %q is not served", name)
	return nil
}

func TestDeviceConformance(t *testing.T) {
	onEachLoop(t, func(t *testing.T, kind string) {
		c := newCluster(t, kind)
		g := c.gateway("gw", 1, 100)
		n := 0
		volumetest.Run(t, func(t *testing.T) volumetest.Env {
			n++
			name := fmt.Sprintf("disk%d", n)
			c.create(name, 8*mib)
			l := g.loops[0]
			// Connections keep what they receive into, so buffers are not counted here; the tests in the simulator do.
			e := volumetest.Running(l, func() int64 { return 0 }, g.lookup(name))
			e.Resize = func(size uint64) {
				c.wait("a resize", c.admin, func(done func()) {
					images.Resize(c.client, name, size, images.ResizeOptions{Shrink: true}, func(err error) {
						if err != nil {
							t.Error(err)
						}
						done()
					})
				})
			}
			e.Remove = func() {
				c.wait("a removal", c.admin, func(done func()) {
					images.Remove(c.client, name, images.Options{}, func(err error) {
						if err != nil {
							t.Error(err)
						}
						done()
					})
				})
			}
			return e
		})
	})
}

// io is one operation on a handle of a gateway's first loop.
func (g *started) io(h volume.Handle, op *volume.Op) error {
	g.c.t.Helper()
	g.c.wait("an operation", g.loops[0], func(done func()) {
		op.Done = func(*volume.Op) { done() }
		h.Submit(op)
	})
	return op.Err
}

func (g *started) attach(name string, s volume.Session) (h volume.Handle) {
	g.c.t.Helper()
	d := g.lookup(name)
	g.c.on(g.loops[0], func() {
		var err error
		if h, err = d.Attach(g.loops[0], s); err != nil {
			g.c.t.Error(err)
		}
	})
	return h
}

func (g *started) detach(h volume.Handle) {
	g.c.t.Helper()
	g.c.wait("detach", g.loops[0], h.Detach)
}

func (g *started) fill(h volume.Handle, off, n uint64, v byte) error {
	ref := g.loops[0].Alloc(int(n))
	defer ref.Release()
	for i := range ref.Bytes() {
		ref.Bytes()[i] = v
	}
	return g.io(h, &volume.Op{Kind: volume.Write, Offset: off, Length: n, Pieces: []volume.Piece{{Ref: ref, Len: int(n)}}})
}

func (g *started) first(h volume.Handle, off uint64) byte {
	g.c.t.Helper()
	op := &volume.Op{Kind: volume.Read, Offset: off, Length: 512}
	if err := g.io(h, op); err != nil {
		g.c.t.Fatal(err)
	}
	defer op.ReleasePieces()
	if b := op.Pieces[0].Bytes(); b != nil {
		return b[0]
	}
	return 0
}

func TestTwoGatewaysAgree(t *testing.T) {
	c := newCluster(t, "")
	c.create("disk", 8*mib)
	a, b := c.gateway("a", 1, 100), c.gateway("b", 2, 200)
	ha, hb := a.attach("disk", volume.Session{Protocol: "nbd"}), b.attach("disk", volume.Session{Protocol: "nbd"})
	if ia, ib := ha.Info(), hb.Info(); ia != ib {
		t.Errorf("the gateways describe the image differently:\n%+v\n%+v", ia, ib)
	}
	// Both write sectors of one granule at the same time: neither undoes the other.
	for i := range uint64(8) {
		errs := make(chan error, 1)
		go func() { errs <- b.fill(hb, i*1024+512, 512, byte(2*i+2)) }()
		if err := errors.Join(a.fill(ha, i*1024, 512, byte(2*i+1)), <-errs); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(16) {
		if va, vb := a.first(ha, i*512), b.first(hb, i*512); va != byte(i+1) || vb != va {
			t.Errorf("sector %d is %d on a and %d on b, want %d", i, va, vb, i+1)
		}
	}
	a.detach(ha)
	b.detach(hb)
}

func TestAddressInUseIsNamed(t *testing.T) {
	c := newCluster(t, "")
	g := c.gateway("a", 2, 100)
	for _, loops := range []int{1, 2} {
		v, err := config.Load(config.Sources{Flags: map[string]string{"nbd_address": g.nbd, "nfs_address": "", "iscsi_address": ""}})
		if err != nil {
			t.Fatal(err)
		}
		var list []loop.Runner
		for i := range loops {
			list = append(list, c.loop(fmt.Sprint("x", i)))
		}
		_, err = gateway.Start(gateway.Options{Loops: list, Registry: func(l loop.Loop) registry.Registry { return c.reg.Open(l) }, Key: c.key, Config: v, Host: "x", Log: c.log})
		if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "nbd_address") || !strings.Contains(err.Error(), g.nbd) {
			t.Errorf("%d loops on an address in use: %v; want the parameter and the address", loops, err)
		}
	}
}

func TestStartCanBeCanceled(t *testing.T) {
	c := newCluster(t, "")
	v, err := config.Load(config.Sources{Flags: map[string]string{"nbd_address": "127.0.0.1:0", "nfs_address": "", "iscsi_address": ""}})
	if err != nil {
		t.Fatal(err)
	}
	canceled := make(chan struct{})
	close(canceled)
	l := c.loop("x")
	_, err = gateway.Start(gateway.Options{Loops: []loop.Runner{l}, Config: v, Host: "x", Log: c.log, Canceled: canceled, Registry: func(l loop.Loop) registry.Registry {
		h := c.reg.Open(l)
		h.Unreachable(true)
		return h
	}})
	if !errors.Is(err, gateway.ErrCanceled) {
		t.Errorf("Start: %v, want %v", err, gateway.ErrCanceled)
	}
}

func TestLostRegistrationIsMadeAgain(t *testing.T) {
	c := newCluster(t, "")
	handles := make(chan interface{ Unreachable(bool) }, 1)
	v, err := config.Load(config.Sources{Flags: map[string]string{"gateway_id": "x", "etcd_lease_ttl": "2", "nbd_address": "127.0.0.1:0", "nfs_address": "", "iscsi_address": ""}})
	if err != nil {
		t.Fatal(err)
	}
	l := c.loop("x")
	g, err := gateway.Start(gateway.Options{Loops: []loop.Runner{l}, Key: c.key, Instance: 55, Config: v, Host: "x", Log: c.log, Registry: func(l loop.Loop) registry.Registry {
		h := c.reg.Open(l)
		handles <- h
		return h
	}})
	if err != nil {
		t.Fatal(err)
	}
	h := <-handles
	admin := c.reg.Open(c.admin)
	registered := false
	look := func() bool {
		admin.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Get, Key: cluster.GatewayKey("x")}}}, func(r registry.TxnResult, err error) {
			if err == nil { // the answer may come too late
				registered = len(r.Results[0]) == 1 && strings.Contains(string(r.Results[0][0].Value), `"instance":55`)
			}
		})
		return registered
	}
	c.until("registration", look)
	c.on(l, func() { h.Unreachable(true) })
	c.until("the loss of the registration", func() bool { return !look() })
	c.on(l, func() { h.Unreachable(false) })
	c.until("another registration", look)
	for range 2 { // the second call has nothing to do
		stopped := make(chan struct{})
		g.Stop(func() { close(stopped) })
		<-stopped
	}
	c.until("the end of the registration", func() bool { return !look() })
}
