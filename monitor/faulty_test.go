package monitor

import (
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

// A monitor that starts while a pool's configuration is wrong has never seen the pool. It must not take it for removed: with its identity its generation would go, and once corrected it would
// be another pool, for which the stores give up all that they hold.
func TestPoolThatIsWrongAtTheStartOfAMonitorIsNotRemoved(t *testing.T) {
	x := newScene(t)
	before := x.identity(1).Generation()
	old := x.m.follower.Snapshot().PGConfig.Pools[1]
	x.reg.Close()
	x.l.Kill()
	x.reg = x.st.Open(x.w.NewLoop("admin"))
	const two = `"2":{"name":"b","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":4,"failure_domain":"osd"}`
	x.put(cluster.KeyPools, `{"1":{"name":"data","scheme":"replicated","pg_size":3,"pg_minsize":2,"pg_count":"many","failure_domain":"osd"},`+two+`}`)
	b, _ := x.second()
	x.wait("a leader that places pool 2", func() bool { return b.Leading() && x.identity(2) != nil })
	x.w.Run(5 * time.Second)
	if x.identity(1) == nil {
		t.Error("the identity of pool 1 was removed")
	}
	if now := b.follower.Snapshot().PGConfig.Pools[1]; len(now) != len(old) {
		t.Errorf("pool 1 has %d PGs on the map, had %d", len(now), len(old))
	}
	x.put(cluster.KeyPools, `{"1":{"name":"data","scheme":"replicated","pg_size":3,"pg_minsize":2,"pg_count":8,"failure_domain":"osd"},`+two+`}`)
	x.w.Run(5 * time.Second)
	if now := x.identity(1); now == nil || now.Generation() != before {
		t.Errorf("pool 1 has identity %+v, its generation was %d", now, before)
	}
	// One that is removed goes, as ever.
	x.put(cluster.KeyPools, `{`+two+`}`)
	x.wait("pool 1 to go", func() bool { return x.identity(1) == nil && len(b.follower.Snapshot().PGConfig.Pools[1]) == 0 })
}

// etcd was restored without a pool's identity: OSDs may know it. A new one would make all that they hold that of an earlier pool.
func TestIdentityIsNotMadeBeforeEveryStoreHasReported(t *testing.T) {
	x := newScene(t)
	before := x.identity(1).Generation()
	x.put(cluster.OSDIdentityKey(1), string(cluster.Value(&cluster.OSDIdentity{Store: layout.StoreID{1}, Boot: 1})))
	x.put(cluster.KeyRestored, `{"id":"r","time":1,"reason":"by a test"}`)
	x.delete(cluster.PoolIdentityKey(1))
	x.put(cluster.KeyGlobal, `{}`) // so that it decides
	x.w.Run(10 * time.Second)
	if id := x.identity(1); id != nil {
		t.Errorf("it was made: %+v, and was %d", id, before)
	}
	x.put(cluster.OSDIdentityKey(1), string(cluster.Value(&cluster.OSDIdentity{Store: layout.StoreID{1}, Boot: 1, Reported: "r"})))
	x.wait("the identity, as nobody knows it", func() bool { return x.identity(1) != nil })
}
