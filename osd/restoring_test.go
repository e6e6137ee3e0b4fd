package osd

import (
	"testing"
	"time"

	"holdfast/core/cluster"
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

// stateOf is the value of osd/state, or "".
func (b *bed) stateOf(n uint64) string {
	for _, kv := range b.reg.Dump() {
		if k, ok := cluster.ParseKey(kv.Key); ok && k.Kind == cluster.KindOSDState && uint64(k.OSD) == n {
			return string(kv.Value)
		}
	}
	return ""
}
