package monitor

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
)

func (x *scene) identity(pool layout.PoolID) *cluster.PoolIdentity {
	x.t.Helper()
	kv := x.key(cluster.PoolIdentityKey(pool))
	if kv.Key == "" {
		return nil
	}
	id := &cluster.PoolIdentity{Meta: cluster.Meta{Create: kv.Create}}
	if err := json.Unmarshal(kv.Value, id); err != nil {
		x.t.Fatalf("%s: %v", kv.Value, err)
	}
	return id
}

func TestGenerationIsWrittenDown(t *testing.T) {
	x := newScene(t)
	if id := x.identity(1); id == nil || id.Given == 0 {
		t.Errorf("a new pool's identity is %+v, want one with a generation", id)
	}
	// A cluster of before: the generation is the revision that made the key.
	x.put(cluster.PoolIdentityKey(1), `{"name":"data"}`)
	want := int64(x.key(cluster.PoolIdentityKey(1)).Create)
	x.put(cluster.KeyGlobal, `{}`) // so that it decides
	x.wait("the generation to be written down", func() bool { return x.identity(1).Given != 0 })
	if have := x.identity(1); have.Given != want || have.Name != "data" {
		t.Errorf("identity %+v, want generation %d", have, want)
	}
}

func TestPoolAnewIsAboveForgottenGenerations(t *testing.T) {
	x := newScene(t)
	const one = `"1":{"name":"data","scheme":"replicated","pg_size":3,"pg_minsize":2,"pg_count":8,"failure_domain":"osd"}`
	// The clock has been set back since an earlier pool 2 was made, of which only a record is left.
	later := x.l.Wall().Add(time.Hour).UnixMicro()
	x.put(cluster.PGRecordKey(layout.PGID{Pool: 2, Num: 3}), string(cluster.Value(&cluster.PGRecord{Generation: later, Interval: 3})))
	x.put(cluster.KeyPools, `{`+one+`,"2":{"name":"b","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":4,"failure_domain":"osd"}}`)
	x.wait("the pool", func() bool { return x.identity(2) != nil })
	if g := x.identity(2).Generation(); g <= later {
		t.Errorf("generation %d, want one above %d", g, later)
	}
}

func TestNobodyLeadsWhileEtcdIsRestored(t *testing.T) {
	x := newScene(t)
	x.put(cluster.KeyRestoring, `{"id":"1","file":"f"}`)
	b, _ := x.second()
	x.delete(cluster.KeyMonMaster)
	x.never("a monitor leads", 10*time.Second, func() bool { return x.m.Leading() || b.Leading() })
	members := func() (n int) {
		for _, kv := range x.st.Dump() {
			if strings.HasPrefix(kv.Key, cluster.PrefixMonMember) {
				n++
			}
		}
		return n
	}
	if n := members(); n != 1 {
		t.Errorf("%d monitors are there, want the one of before: a key of another would keep the restore from going on", n)
	}
	// One that has not heard of it does not get the key either.
	x.put(cluster.KeyRestoring, `{`)
	x.delete(cluster.KeyRestoring)
	x.wait("a leader", func() bool { return x.m.Leading() || b.Leading() })
	x.wait("the other one", func() bool { return members() == 2 })
}

func TestNoteIsPublished(t *testing.T) {
	x := newScene(t)
	note := func() cluster.EtcdSnapshot {
		for _, m := range x.m.follower.Snapshot().Monitors.All() {
			if m.Snapshot != nil {
				return *m.Snapshot
			}
		}
		return cluster.EtcdSnapshot{}
	}
	want := cluster.EtcdSnapshot{Host: "h", Time: 7, File: "f", Revision: registry.Revision(3), Keys: 2}
	x.m.Note(want)
	x.wait("the note", func() bool { return note() == want })
	want.Error = "no space"
	x.m.Note(want)
	x.wait("the next note", func() bool { return note() == want })
	x.delete(cluster.KeyMonMaster) // elected anew, it writes the key anew
	x.wait("a leader", x.m.Leading)
	x.w.Run(time.Second)
	if note() != want {
		t.Errorf("note %+v, want %+v", note(), want)
	}
}

// What objects are cut by is for the life of a pool: one that is edited otherwise is left as it is, and served by nobody, until it is corrected.
func TestPoolThatIsCutOtherwiseStaysAsItIs(t *testing.T) {
	x := newScene(t)
	pools := string(x.key(cluster.KeyPools).Value)
	id := x.identity(1)
	if id.Data != 1 || id.Stripe != cluster.DefaultBlockSize {
		t.Fatalf("identity %+v, want 1 chunk of data and %d bytes", id, cluster.DefaultBlockSize)
	}
	before := string(x.key(cluster.KeyPGConfig).Value)
	for _, wrong := range []string{
		strings.Replace(pools, `"scheme":"replicated","pg_size":3,"pg_minsize":2`, `"scheme":"ec","pg_size":3,"parity_chunks":1,"pg_minsize":2`, 1),
		strings.Replace(pools, `"pg_size":3`, `"pg_stripe_size":1048576,"pg_size":3`, 1),
	} {
		if wrong == pools {
			t.Fatalf("the pool is not %s", pools)
		}
		x.put(cluster.KeyPools, wrong)
		x.never("another PG map", 3*time.Second, func() bool { return string(x.key(cluster.KeyPGConfig).Value) != before })
		if _, err := x.m.follower.Snapshot().Geometry(1); err == nil || !strings.Contains(err.Error(), "correct") {
			t.Errorf("the pool can be used although it is %s: %v", wrong, err)
		}
		x.put(cluster.KeyPools, pools)
		x.wait("the pool to be usable", func() bool { _, err := x.m.follower.Snapshot().Geometry(1); return err == nil })
	}
	// Of a cluster of before nothing is written down: it is when the monitor decides next.
	x.put(cluster.PoolIdentityKey(1), `{"name":"data","generation":7}`)
	x.put(cluster.KeyGlobal, `{}`)
	x.wait("what the pool is cut by to be written down", func() bool { return x.identity(1).Data == 1 && x.identity(1).Given == 7 })
}
