package osd

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/core/registry/registrytest"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/secondary"
	"holdfast/osd/store"
)

func TestCheckIdentity(t *testing.T) {
	ours, other := layout.StoreID{1}, layout.StoreID{2}
	for _, c := range []struct {
		name           string
		id             cluster.OSDIdentity
		boot, sequence uint64
		want           string // part of the error
	}{
		{"the next", cluster.OSDIdentity{Store: ours, Boot: 3, Sequence: 10}, 4, 10, ""},
		{"as many boots", cluster.OSDIdentity{Store: ours, Boot: 3, Sequence: 10}, 3, 20, "set back"},
		{"later", cluster.OSDIdentity{Store: ours, Boot: 3, Sequence: 10}, 4, 20, ""},
		{"fewer boots", cluster.OSDIdentity{Store: ours, Boot: 3, Sequence: 10}, 2, 20, "set back"},
		{"a lower sequence", cluster.OSDIdentity{Store: ours, Boot: 3, Sequence: 10}, 4, 9, "set back"},
		{"another store", cluster.OSDIdentity{Store: other, Boot: 30, Sequence: 100}, 1, 1, ""},
		{"retired", cluster.OSDIdentity{Store: other, Retired: []layout.StoreID{ours}}, 9, 99, "retired"},
		{"given up", cluster.OSDIdentity{Retired: []layout.StoreID{ours}}, 9, 99, "retired"},
	} {
		err := checkIdentity(&c.id, store.Superblock{StoreID: ours, Boot: c.boot}, c.sequence)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// Another OSD of this number is up: ours waits until it is gone, and says so.
func TestRegisterWaitsForAForeignStateKey(t *testing.T) {
	b := newBed(t, 1)
	o := b.osds[1]
	o.kill()
	b.wait("the key to be gone", func() bool { return b.get(cluster.OSDStateKey(1)).Key == "" })
	b.put(cluster.OSDStateKey(1), &cluster.OSDState{State: "up", Addresses: []string{"10.9.9.9"}, Port: 1, Store: layout.StoreID{77}})
	o.start()
	b.never("it takes the other one's place", 10*time.Second, func() bool {
		return o.s != nil && o.s.leaseUp || !strings.Contains(string(b.get(cluster.OSDStateKey(1)).Value), "10.9.9.9")
	})
	b.put(cluster.OSDStateKey(1), nil)
	b.wait("it to come up", func() bool { return o.s.leaseUp })
}

// The key of an earlier process on the same store does not hold the next one up.
func TestRegisterReplacesItsOwnStateKey(t *testing.T) {
	b := newBed(t, 1)
	o := b.osds[1]
	old := b.get(cluster.OSDStateKey(1))
	o.kill()
	o.start()
	b.wait("it to come up", func() bool { return o.s != nil && o.s.leaseUp })
	if now := b.get(cluster.OSDStateKey(1)); now.Lease == old.Lease || now.Lease != o.s.lease.ID() {
		t.Errorf("the state key's lease is %x, want %x", now.Lease, o.s.lease.ID())
	}
}

// Nor do the keys of the PGs that it served.
func TestRestartedOSDServesItsPGsAtOnce(t *testing.T) {
	b := newBed(t, 2)
	o := b.osds[1]
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	old := b.get(cluster.PGStateKey(pg1))
	o.kill()
	o.start()
	b.wait("it to come up", func() bool { return o.s != nil && o.s.leaseUp })
	up := b.admin.Loop().Now()
	b.wait("PG active again", func() bool { return b.serves(1, 2) && b.get(cluster.PGStateKey(pg1)).Lease != old.Lease })
	if took := b.admin.Loop().Now().Sub(up); took > time.Second {
		t.Errorf("it served %v after it was up: it waited for the lease of the process before", took)
	}
}

// conditions has each condition of the next transaction that puts a PG's record fail alone; none may then change the record.
func TestTakeComparesEverything(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(b *bed)
	}{
		{"the OSD's state key", func(b *bed) { b.put(cluster.OSDStateKey(1), nil) }},
		{"the PG's state key", func(b *bed) {
			b.put(cluster.PGStateKey(pg1), &cluster.PGState{Primary: 2, State: cluster.StateStarting})
		}},
		{"the record", func(b *bed) { b.put(cluster.PGRecordKey(pg1), &cluster.PGRecord{Generation: 1, Interval: 7}) }},
		{"a declared restore", func(b *bed) { b.put(cluster.KeyRestored, &cluster.Restored{ID: "x", Time: 1}) }},
		{"", func(*bed) {}},
	} {
		b := newBed(t, 1)
		o := b.osds[1]
		// The OSD sees nothing of what is spoilt: it acts by its old snapshot.
		r := &pgRun{}
		o.run(func() {
			o.s.follower.Stop()
			r = o.s.newPG(pg1)
			r.generation = uint64(o.s.Snapshot().Generation(1))
		})
		c.spoil(b)
		before := b.get(cluster.PGRecordKey(pg1)).Mod
		o.run(func() {
			r.m.Phase = peering.Taking
			r.take(r.m.Round, 0)
		})
		b.w.Run(50 * time.Millisecond)
		changed := b.get(cluster.PGRecordKey(pg1)).Mod != before
		if changed != (c.name == "") {
			t.Errorf("with %q spoilt the take has changed the record: %v", c.name, changed)
		}
	}
}

func TestActivateComparesEverything(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(b *bed)
	}{
		{"the PG's state key", func(b *bed) { b.put(cluster.PGStateKey(pg1), &cluster.PGState{Primary: 1, State: cluster.StateActive}) }}, // without our lease
		{"the record", func(b *bed) {
			b.put(cluster.PGRecordKey(pg1), string(b.get(cluster.PGRecordKey(pg1)).Value)) // the same again
		}},
		{"a declared restore", func(b *bed) { b.put(cluster.KeyRestored, &cluster.Restored{ID: "x", Time: 1}) }},
		{"", func(*bed) {}},
	} {
		b := newBed(t, 1)
		b.place(1, 1)
		b.wait("PG active", func() bool { return b.serves(1, 1) })
		b.w.Run(time.Second)
		o := b.osds[1]
		r := o.s.pgs[pg1]
		o.run(func() { o.s.follower.Stop() })
		c.spoil(b)
		before := b.get(cluster.PGRecordKey(pg1)).Mod
		var ok, answered bool
		o.run(func() {
			next := r.record
			next.Floor = 1 << 30
			r.putRecord(next, func(_ registry.Revision, succeeded bool) { ok, answered = succeeded, true })
		})
		b.wait("an answer", func() bool { return answered })
		changed := b.get(cluster.PGRecordKey(pg1)).Mod != before
		if want := c.name == ""; ok != want || changed != want {
			t.Errorf("with %q spoilt the record is written: %v, it has changed: %v", c.name, ok, changed)
		}
	}
}

// A primary gives the PG back only when it has waited, cannot reach a member that is up, and another OSD of the set is up.
func TestGivingBackNeedsEveryReason(t *testing.T) {
	again := func(b *bed, r *pgRun) {
		b.put(cluster.PGSkipKey(pg1), nil)
		b.osds[1].run(func() { r.idleFrom = b.osds[1].l.Now().Add(-giveBackAfter) })
		b.wait("a member that has failed", func() bool { return len(r.m.Failed()) > 0 })
	}
	for _, c := range []struct {
		name  string
		spoil func(b *bed, r *pgRun)
		want  bool
	}{
		{"all reasons", func(*bed, *pgRun) {}, true},
		{"not yet", func(b *bed, r *pgRun) { r.idleFrom = b.osds[1].l.Now().Add(-giveBackAfter + time.Millisecond) }, false},
		{"just begun", func(_ *bed, r *pgRun) { r.idleFrom = 0 }, false},
		{"the state key is not ours", func(_ *bed, r *pgRun) { r.haveState = false }, false},
		{"nobody else is up", func(b *bed, r *pgRun) {
			b.place(1, 1)
			b.w.Run(2 * time.Second)
			again(b, r)
		}, false},
		{"it can be reached", func(b *bed, r *pgRun) {
			b.grant(2, 1000)
			b.w.Net.HealAll()
			b.wait("the connection", func() bool { return b.osds[1].s.hub.Connected(2) })
			again(b, r)
		}, false},
	} {
		b := newBed(t, 2)
		b.place(1, 1, 2)
		b.wait("PG active", func() bool { return b.serves(1, 2) })
		o := b.osds[1]
		b.w.Net.Cut(o.l, b.osds[2].l)
		b.put(cluster.KeyPools, `{"1":{"name":"p","scheme":"replicated","pg_size":2,"pg_minsize":2,"pg_count":1,"failure_domain":"osd"}}`)
		b.wait("the PG to wait", func() bool {
			return o.s.pgs[pg1].m.Phase != peering.Active && len(o.s.pgs[pg1].m.Failed()) > 0 && !o.s.hub.Connected(2)
		})
		r := o.s.pgs[pg1]
		again(b, r)
		c.spoil(b, r)
		o.run(func() { r.considerGivingBack() })
		b.w.Run(20 * time.Millisecond)
		if gave := b.get(cluster.PGSkipKey(pg1)).Key != ""; gave != c.want {
			t.Errorf("%s: given back %v, want %v", c.name, gave, c.want)
		}
	}
}

func TestFences(t *testing.T) {
	b := newBed(t, 1)
	o := b.osds[1]
	const gateway = 5
	session := func(n uint64) uint64 { return gateway<<cluster.SessionBits | n }
	fenced := func(n uint64, pool layout.PoolID) bool { return o.s.Fenced(session(n), pool) }
	backup := b.reg.Backup()
	key := cluster.FenceKey(cluster.FenceSessionName(session(1)))
	rev := b.put(key, &cluster.Fence{Session: session(1), Pools: []layout.PoolID{1}})
	b.wait("the fence", func() bool { return fenced(1, 1) })
	if fenced(1, 2) || fenced(2, 1) {
		t.Error("a fence of one session on one pool refuses another session, or on another pool")
	}
	renews := func(q secondary.RenewRequest) (a secondary.RenewReply, ok bool) {
		ok = o.s.fences.forHolder(&q, &a)
		return a, ok
	}
	told := func(a secondary.RenewReply) []cluster.NamedFence {
		list, err := fencesOf(&a)
		if err != nil {
			t.Error(err)
		}
		return list
	}
	_, before := renews(secondary.RenewRequest{Applied: int64(rev) - 1})
	if _, since := renews(secondary.RenewRequest{Applied: int64(rev)}); before || !since {
		t.Error("a primary of an earlier version may renew that has not applied a fence, or may not that has")
	}
	if a, ok := renews(secondary.RenewRequest{Fenced: 1}); !ok || len(told(a)) != 1 || told(a)[0].Fence.Session != session(1) {
		t.Errorf("a primary that knows no fence is told %+v", a)
	} else if a, ok := renews(secondary.RenewRequest{Fenced: a.Fenced + 1}); !ok || len(a.Fences) != 0 {
		t.Errorf("a primary that knows all fences is told %+v", a)
	}
	b.put(cluster.FenceKey(cluster.FenceGatewayName(gateway)), &cluster.Fence{Gateway: gateway})
	b.wait("the gateway's fence", func() bool { return fenced(2, 2) })
	if o.s.Fenced(session(1)+1<<cluster.SessionBits, 1) || o.s.Fenced(0, 1) {
		t.Error("another gateway, or a stock client, is fenced")
	}
	b.put(key, nil)
	b.put(cluster.FenceKey(cluster.FenceGatewayName(gateway)), nil)
	b.wait("the end of the fences", func() bool { return !fenced(1, 1) })
	b.put(key, &cluster.Fence{Session: session(1)})
	b.wait("the fence", func() bool { return fenced(1, 1) })
	b.reg.Restore(backup, 0)
	b.wait("etcd to have gone back", func() bool { return b.get(key).Key == "" && o.s.Snapshot().Fences.Len() == 0 })
	b.w.Run(time.Second)
	if !fenced(1, 1) {
		t.Error("a fence that etcd has forgotten is forgotten by an OSD that runs")
	}
	b.put(cluster.FenceKey("x"), &cluster.Fence{Session: session(3)})
	b.wait("a new fence", func() bool { return fenced(3, 1) })
}

// The pairs of a gateway that has ended are dropped a minute later; one that lost its lease and came back keeps them.
func TestPairsEndWithTheirGateway(t *testing.T) {
	for _, back := range []bool{false, true} {
		b := newBed(t, 1)
		o := b.osds[1]
		const instance = 77
		g := &cluster.Gateway{Instance: instance, Host: "h"}
		b.put(cluster.GatewayKey("a"), g)
		b.w.Run(100 * time.Millisecond)
		pair := store.Pair{Session: instance<<cluster.SessionBits | 1, Sequence: 4}
		data := o.l.Alloc(4096)
		op := &store.Op{Kind: store.OpWrite, Object: layout.ObjectID{Inode: layout.MakeInode(1, 1)}, Len: 4096, Version: 1 << layout.VersionCounterBits, Interval: 1, Data: data, Pair: pair}
		done := false
		op.Done = func(*store.Op) { done = true }
		o.run(func() { o.st.Submit(op) })
		b.wait("a write", func() bool { return done })
		data.Release()
		known := func() bool { _, _, ok := o.st.FindPair(pair); return ok }
		if !known() {
			t.Fatal("the pair is not kept")
		}
		b.put(cluster.GatewayKey("a"), nil)
		b.w.Run(endPause - time.Second)
		if !known() {
			t.Error("the pair is dropped while a retry may be on its way")
		}
		if back {
			b.put(cluster.GatewayKey("a"), g)
		}
		b.w.Run(3 * time.Second)
		if known() != back {
			t.Errorf("the gateway is back: %v; its pair is kept: %v", back, known())
		}
	}
}

// says picks the transactions that put the PG's state key with these bits.
func says(bits cluster.StateBits) func(registry.Txn) bool {
	return func(t registry.Txn) bool {
		return slices.ContainsFunc(t.Then, func(op registry.Op) bool {
			var st cluster.PGState
			return op.Kind == registry.Put && op.Key == cluster.PGStateKey(pg1) && json.Unmarshal(op.Value, &st) == nil && st.State == bits
		})
	}
}

// shown is what etcd shows of the PG.
func (b *bed) shown() (st cluster.PGState) {
	if err := json.Unmarshal(b.get(cluster.PGStateKey(pg1)).Value, &st); err != nil {
		b.t.Fatal(err)
	}
	return st
}

// The answer to a put of "active" comes after a later take's: the key says "starting" then, and has to be put again.
func TestAnswersAboutTheStateKeyInAnotherOrder(t *testing.T) {
	b := newBed(t, 1)
	b.place(1, 1)
	b.wait("PG active", func() bool { return b.serves(1, 1) })
	o := b.osds[1]
	r, reg := o.s.pgs[pg1], &registrytest.Late{Registry: o.s.o.Registry}
	late := reg.Answer(says(cluster.StateActive))
	before := r.m.Interval
	o.run(func() {
		o.s.o.Registry = reg
		r.shown.State = 0 // as after a put that etcd has not answered
		r.publish()
	})
	b.w.Run(10 * time.Millisecond)
	o.run(func() { r.exec(r.m.Restart()) })
	b.wait("the next interval", func() bool { return r.m.Phase == peering.Active && r.m.Interval > before })
	b.w.Run(10 * time.Millisecond)
	o.run(late.Release)
	b.wait("etcd to show it", func() bool { return b.shown().State == cluster.StateActive })
}

// A put that was given up reaches etcd after a later one.
func TestGivenUpPutOfTheStateKeyComesLate(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	o := b.osds[1]
	r, reg := o.s.pgs[pg1], &registrytest.Late{Registry: o.s.o.Registry}
	late := reg.GivenUp(says(cluster.StateActive))
	o.run(func() {
		o.s.o.Registry = reg
		r.shown.State = 0
		r.publish()
	})
	b.osds[2].kill()
	alone := func() bool { st := b.shown(); return st.State&cluster.StateActive != 0 && len(st.Peers) == 1 }
	b.wait("it to go on alone", alone)
	o.run(late.Release)
	b.wait("the late put", func() bool { return !alone() })
	b.wait("etcd to show what is", alone)
}

// The answer to a take that was refused comes when a later one has long succeeded: it must neither give back what the members have granted since, nor bring the old record back.
func TestRefusedTakeIsAnsweredLate(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	o := b.osds[1]
	r, reg := o.s.pgs[pg1], &registrytest.Late{Registry: o.s.o.Registry}
	late := reg.Answer(says(cluster.StateStarting))
	before := r.m.Interval
	b.put(cluster.PGStateKey(pg1), &cluster.PGState{Primary: 2, State: cluster.StateStarting}) // another primary, for a moment
	o.run(func() {
		o.s.o.Registry = reg
		r.exec(r.m.Restart())
	})
	b.wait("the refusal", func() bool { return late.Done && !late.Result.Succeeded })
	b.put(cluster.PGStateKey(pg1), nil)
	o.run(func() { r.exec(r.m.Restart()) })
	b.wait("the next interval", func() bool { return r.m.Phase == peering.Active && r.m.Interval > before && r.haveState })
	b.w.Run(time.Second)
	mod := r.recordMod
	o.run(late.Release)
	b.w.Run(100 * time.Millisecond)
	if !r.haveState || r.recordMod != mod || r.record.Interval != r.m.Interval {
		t.Errorf("state key ours: %v, record of revision %d in interval %d; it was of revision %d in interval %d", r.haveState, r.recordMod, r.record.Interval, mod, r.m.Interval)
	}
	if g := r.grantOf(r.m.Interval); r.m.Phase == peering.Active && !b.osds[2].s.Honours(g) {
		t.Errorf("OSD 1 serves in interval %d, for which OSD 2 has no grant any more", g.Interval)
	}
}

// The removal of the state key of a PG that was given up reaches etcd when the PG has long been taken again, and waits: it must not take the key of that.
func TestLateRemovalOfTheStateKeySparesALaterTake(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	o := b.osds[1]
	reg := &registrytest.Late{Registry: o.s.o.Registry}
	late := reg.Request(func(txn registry.Txn) bool {
		return len(txn.Then) > 0 && txn.Then[0].Kind == registry.Delete && txn.Then[0].Key == cluster.PGStateKey(pg1)
	})
	o.run(func() { o.s.o.Registry = reg })
	before := o.s.pgs[pg1].m.Interval
	b.osds[2].kill()
	txn, err := cluster.SetPool(&registry.KV{Key: cluster.KeyPools, Value: b.get(cluster.KeyPools).Value, Mod: b.get(cluster.KeyPools).Mod}, 1,
		&cluster.Pool{ID: 1, Name: "p", Scheme: cluster.Replicated, PGSize: 2, PGMinSize: 2, PGCount: 1, FailureDomain: "osd"})
	if err != nil {
		t.Fatal(err)
	}
	b.txn(txn)
	b.place(0, 1, 2)
	b.wait("the removal", func() bool { return late.Caught })
	b.wait("OSD 2 to be gone", func() bool { return b.get(cluster.OSDStateKey(2)).Key == "" })
	b.place(1, 1, 2)
	waits := func() bool {
		kv := b.get(cluster.PGStateKey(pg1))
		return kv.Key != "" && b.shown().State == cluster.StateBits(wire.PGIncomplete) && o.s.pgs[pg1].m.Interval > before
	}
	b.wait("the PG to wait for OSD 2", waits)
	o.run(late.Release)
	b.w.Run(time.Second)
	if !waits() {
		t.Error("etcd shows nothing of a PG that waits")
	}
}

// More fences than go into one answer to a renewal all reach the primary, and nobody who waits for its grant hears that it has none.
func TestManyFencesArePassedOnPageByPage(t *testing.T) {
	b := newBed(t, 2)
	const n = 3*fencesAtOnce + 7
	m := b.osds[2]
	m.run(func() {
		for i := range uint64(n) {
			f := &cluster.NamedFence{Name: cluster.FenceSessionName(i + 1), Fence: cluster.Fence{Session: i + 1}}
			m.s.fences.pass(m.s.fences.hear(f))
		}
	})
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	b.wait("the fences", func() bool { return len(b.osds[1].s.fences.list) == n })
	if !b.osds[1].s.Fenced(n, 1) || len(b.osds[1].s.fences.unshown()) != n {
		t.Error("a fence that a member has passed on is not in force")
	}
	if a := (secondary.RenewReply{}); !b.osds[1].s.fences.forHolder(&secondary.RenewRequest{Fenced: 1}, &a) || len(a.Fences) != 0 {
		t.Error("what came from a member is passed on")
	}
}
