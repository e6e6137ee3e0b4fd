package monitor

import (
	"encoding/json"
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

// etcd was set back to when a pool had no identity, and nobody has said so: no OSD is up. The monitor has seen it, and has all report before it makes one.
func TestMonitorDeclaresThatEtcdWentBack(t *testing.T) {
	x := newScene(t)
	if id := x.identity(1); id.Earlier == nil || *id.Earlier != 0 {
		t.Errorf("identity %+v does not say that etcd knew no earlier pool", id)
	}
	reported := func(id string) {
		x.put(cluster.OSDIdentityKey(1), string(cluster.Value(&cluster.OSDIdentity{Store: layout.StoreID{1}, Boot: 1, Reported: id})))
	}
	declared := func() string {
		r := cluster.Restored{}
		if v := x.key(cluster.KeyRestored).Value; v != nil && json.Unmarshal(v, &r) != nil {
			t.Fatalf("%s", v)
		}
		return r.ID
	}
	reported("old")
	x.put(cluster.KeyRestored, `{"id":"old","time":1,"reason":"by a test"}`)
	x.delete(cluster.PoolIdentityKey(1))
	backup := x.st.Backup()
	x.wait("an identity", func() bool { x.put(cluster.KeyGlobal, `{}`); return x.identity(1) != nil })
	x.st.Restore(backup, 0)
	x.never("an identity", 10*time.Second, func() bool { return x.identity(1) != nil })
	id := declared()
	if id == "" || id == "old" {
		t.Fatalf("declared %q", id)
	}
	reported(id)
	x.wait("the identity, as nobody knows it", func() bool { return x.identity(1) != nil })
	if declared() != id {
		t.Error("it was declared again")
	}
}

// A declaration comes while a monitor that knows nothing of it makes an identity: its transaction holds for an etcd without one.
func TestIdentityIsNotMadeWhenARestoreIsDeclaredMeanwhile(t *testing.T) {
	x := newScene(t)
	x.put(cluster.OSDIdentityKey(1), string(cluster.Value(&cluster.OSDIdentity{Store: layout.StoreID{1}, Boot: 1})))
	x.w.Run(time.Second)
	x.reg.WatchLatency = func() time.Duration { return 5 * time.Second }
	x.delete(cluster.PoolIdentityKey(1))
	x.put(cluster.KeyGlobal, `{}`)
	x.w.Run(2 * time.Second)
	x.put(cluster.KeyRestored, `{"id":"r","time":1,"reason":"by a test"}`) // 2 s later than what the monitor sees then
	x.never("an identity", 10*time.Second, func() bool { return x.identity(1) != nil })
}
