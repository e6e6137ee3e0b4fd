package exports_test

import (
	"fmt"
	"slices"
	"testing"

	"holdfast/appliance/exports"
	"holdfast/core/cluster"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/sim"
	"holdfast/frontends/volume"
)

// bench is a catalog that follows a registry in the simulator.
type bench struct {
	t       *testing.T
	w       *sim.World
	reg     *memory.Handle
	c       *exports.Catalog
	changes []exports.Change
	opened  int
}

type device struct{ exports.ID }

func (device) Attach(loop.Loop, volume.Session) (volume.Handle, error) {
	return nil, volume.ErrUnsupported
}

func (b *bench) Changed(_, next *cluster.Snapshot, keys []string) {
	b.changes = append(b.changes, b.c.Update(next, keys)...)
}
func (b *bench) Fault(*cluster.KeyError) {}
func (b *bench) Unavailable(error)       {}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, w: sim.NewWorld(1)}
	l := b.w.NewLoop("gateway")
	b.reg = memory.New(b.w.NewLoop("registry")).Open(l)
	b.c = exports.New(func(id exports.ID) volume.Device {
		b.opened++
		return device{id}
	})
	cluster.Follow(l, b.reg, cluster.ForClient, b)
	b.put(cluster.KeyClusterID, `{"id":"000102030405060708090a0b0c0d0e0f"}`, cluster.KeyPools, `{"1":{"name":"p","scheme":"replicated","pg_size":1,"pg_minsize":1,"pg_count":1}}`)
	return b
}

// put writes keys in one transaction; an empty value deletes.
func (b *bench) put(kvs ...string) {
	b.t.Helper()
	var t registry.Txn
	for i := 0; i < len(kvs); i += 2 {
		op := registry.Op{Kind: registry.Put, Key: kvs[i], Value: []byte(kvs[i+1])}
		if kvs[i+1] == "" {
			op.Kind = registry.Delete
		}
		t.Then = append(t.Then, op)
	}
	var rev registry.Revision
	b.reg.Txn(t, func(r registry.TxnResult, err error) {
		if err != nil {
			b.t.Error(err)
		}
		rev = r.Revision
	})
	if !b.w.RunUntil(func() bool { return rev != 0 && b.c.View().Revision >= rev }, 1e10) {
		b.t.Fatal("the catalog does not follow")
	}
}

func image(name string, more string) string {
	return fmt.Sprintf(`{"name":%q,"size":4096%s}`, name, more)
}

const identity = `,"meta":{"holdfast_id":"ff000000000000000000000000000001"}`

func TestCatalogFollows(t *testing.T) {
	b := newBench(t)
	b.put("config/inode/1/1", image("b", identity), "config/inode/1/2", image("a", ""), "config/inode/1/3", image("", ""), "config/inode/1/4", image("gone", `,"deleted":true`))
	if got := b.c.Names(); !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("names: %q", got)
	}
	before, info, _ := b.c.Lookup("b")
	if info.ID != [16]byte{0: 0xff, 15: 1} || info.Cluster[15] != 15 || info.Generation == 0 {
		t.Errorf("info: %+v", info)
	}
	b.changes = nil
	b.put("config/inode/1/1", image("c", identity))
	if len(b.changes) != 2 || b.opened != 2 {
		t.Errorf("a rename makes %d changes, want 2; %d devices were made in all, want 2", len(b.changes), b.opened)
	}
	if after, _, ok := b.c.Lookup("c"); !ok || after != before {
		t.Error("the renamed image has another device")
	}
	b.put("config/inode/1/1", image("c", `,"deleted":true`+identity))
	if _, _, ok := b.c.Lookup("c"); ok {
		t.Error("a deleted image is still served")
	}
}

func TestIdentityGoesToTheWritableHead(t *testing.T) {
	b := newBench(t)
	b.put("config/inode/1/1", image("disk", identity))
	_, was, _ := b.c.Lookup("disk")
	// As a stock tool makes a snapshot: the old layer keeps the metadata, the new one has a copy.
	b.put("config/inode/1/1", image("disk@s", `,"readonly":true`+identity), "config/inode/1/2", image("disk", `,"parent_id":1`+identity))
	_, head, _ := b.c.Lookup("disk")
	_, snapshot, _ := b.c.Lookup("disk@s")
	if head.ID != was.ID || snapshot.ID == was.ID || !snapshot.ReadOnly {
		t.Errorf("head %x, snapshot %x, before %x", head.ID, snapshot.ID, was.ID)
	}
	b.put("config/inode/1/1", "")
	if _, again, _ := b.c.Lookup("disk"); again.ID != was.ID {
		t.Error("the identity was lost with the snapshot")
	}
}

func TestSizeIsWholeSectors(t *testing.T) {
	b := newBench(t)
	b.put("config/inode/1/1", `{"name":"x","size":1000}`, "config/inode/1/2", `{"name":"empty","size":0}`)
	for name, want := range map[string]uint64{"x": 512, "empty": 0} {
		if _, info, ok := b.c.Lookup(name); !ok || info.Size != want {
			t.Errorf("%s: %d bytes, want %d", name, info.Size, want)
		}
	}
}
