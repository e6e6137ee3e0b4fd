package osd

import (
	"encoding/json"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/registry"
)

// TestNobodyRegistersInHalfARestoredEtcd: what is there says something else than the whole does.
func TestNobodyRegistersInHalfARestoredEtcd(t *testing.T) {
	b := newBed(t, 1)
	o := b.osds[1]
	b.put(cluster.KeyRestoring, &cluster.Restoring{ID: "1", File: "f"})
	o.run(func() { o.s.lease.Revoke(nil) })
	o.kill()
	b.wait("the key to go", func() bool { return b.stateOf(1) == "" })
	o.start()
	b.never("the OSD registered", 10*time.Second, func() bool { return b.stateOf(1) != "" })
	b.put(cluster.KeyRestoring, nil)
	b.wait("the OSD to be up", func() bool { return o.s.leaseUp })
}

// TestNobodyReportsToHalfARestoredEtcd: the pool's identity may not be there yet, and what is known of its PGs would count as that of another pool.
func TestNobodyReportsToHalfARestoredEtcd(t *testing.T) {
	b := newBed(t, 1)
	reported := func() string {
		id := &cluster.OSDIdentity{}
		for _, kv := range b.reg.Dump() {
			if kv.Key == cluster.OSDIdentityKey(1) && json.Unmarshal(kv.Value, id) != nil {
				t.Fatalf("identity %s", kv.Value)
			}
		}
		return id.Reported
	}
	b.txn(registry.Txn{Then: []registry.Op{
		{Kind: registry.Put, Key: cluster.KeyRestoring, Value: cluster.Value(&cluster.Restoring{ID: "9", File: "f"})},
		{Kind: registry.Put, Key: cluster.KeyRestored, Value: cluster.Value(&cluster.Restored{ID: "9", Time: 1, Reason: "r"})},
	}})
	b.never("the OSD reported", 10*time.Second, func() bool { return reported() == "9" })
	b.put(cluster.KeyRestoring, nil)
	b.wait("the report", func() bool { return reported() == "9" })
}

// stateOf is the value of osd/state, or "".
func (b *bed) stateOf(n uint64) string {
	for _, kv := range b.reg.Dump() {
		if k, ok := cluster.ParseKey(kv.Key); ok && k.Kind == cluster.KindOSDState && uint64(k.OSD) == n {
			return string(kv.Value)
		}
	}
	return ""
}
