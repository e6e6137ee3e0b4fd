package monitor

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/core/sim"
)

// second starts another monitor in a process of its own.
func (x *scene) second() (*Monitor, *sim.Loop) {
	l := x.w.NewLoop("monitor2")
	m := Start(l, Options{Hostname: "h2", Registry: x.st.Open(l)})
	return m, l
}

// key is a key as the registry has it; Key is "" when it does not exist.
func (x *scene) key(name string) registry.KV {
	for _, kv := range x.st.Dump() {
		if kv.Key == name {
			return kv
		}
	}
	return registry.KV{}
}

func (x *scene) delete(keys ...string) {
	x.t.Helper()
	var ops []registry.Op
	for _, k := range keys {
		ops = append(ops, registry.Op{Kind: registry.Delete, Key: k})
	}
	x.txn(ops...)
}

func (x *scene) txn(ops ...registry.Op) {
	x.t.Helper()
	done := false
	x.reg.Txn(registry.Txn{Then: ops}, func(_ registry.TxnResult, err error) {
		if done = true; err != nil {
			x.t.Error(err)
		}
	})
	x.wait("a transaction", func() bool { return done })
}

// pgs are the targets of a pool as the registry has them.
func (x *scene) pgs(pool layout.PoolID) []cluster.PGTarget {
	c, _, err := cluster.ReadPGConfig(x.key(cluster.KeyPGConfig).Value)
	if err != nil {
		x.t.Fatal(err)
	}
	return c.Pools[pool]
}

func (x *scene) leads(osd layout.OSDNum) bool {
	return slices.ContainsFunc(x.pgs(1), func(t cluster.PGTarget) bool { return t.Primary == osd })
}

func (x *scene) never(what string, d time.Duration, cond func() bool) {
	x.t.Helper()
	if x.w.RunUntil(cond, d) {
		x.t.Fatalf("%s\n%s", what, x.log.String())
	}
}

func TestOneMonitorLeadsAndTheOtherTakesOver(t *testing.T) {
	x := newScene(t)
	b, _ := x.second()
	both := func() bool { return x.m.Leading() && b.Leading() }
	x.never("both lead", 20*time.Second, func() bool { return both() || b.Leading() })
	if !x.m.Leading() {
		t.Fatal("nobody leads")
	}
	x.put(cluster.KeyGlobal, `{}`) // a change that both see
	x.l.Kill()
	x.reg = x.st.Open(x.w.NewLoop("test"))
	x.never("the second one leads although the first one's lease is not over", 3*time.Second, b.Leading)
	x.wait("the second one to lead", b.Leading)
	x.delete(cluster.OSDStateKey(1))
	x.wait("a decision of the second one", func() bool { return !x.leads(1) })
}

// The leader's lease is over, another one leads, and the first does not know it yet.
func TestDeposedLeaderChangesNothing(t *testing.T) {
	x := newScene(t)
	b, _ := x.second()
	x.w.Run(3 * time.Second)
	before, stats := x.key(cluster.KeyPGConfig), x.key(cluster.KeyStats)
	bogus := &cluster.PGConfig{Pools: map[layout.PoolID][]cluster.PGTarget{}}
	x.l.Post(&loop.Task{Run: func() {
		x.st.Expire(x.m.lease.ID())
		if !x.m.Leading() {
			t.Error("it is told at once; then this test shows nothing")
		}
		x.m.write(x.m.follower.Snapshot(), bogus, []registry.Op{{Kind: registry.Put, Key: "bogus", Value: []byte("1")}}, nil)
		x.m.sums.last = nil
		x.m.sumUp()
	}})
	x.w.Run(100 * time.Millisecond)
	if x.key("bogus").Key != "" || x.key(cluster.KeyPGConfig).Mod != before.Mod {
		t.Error("a deposed leader has changed the PG map")
	}
	if x.key(cluster.KeyStats).Mod != stats.Mod {
		t.Error("a deposed leader has written statistics")
	}
	x.wait("one of them to lead", func() bool { return x.m.Leading() != b.Leading() })
}

// What a deposed leader could not write it writes when it leads again.
func TestStatisticsAreWrittenAgainByALeaderThatWasDeposed(t *testing.T) {
	x := newScene(t)
	x.w.Run(3 * time.Second)
	x.l.Post(&loop.Task{Run: func() {
		x.st.Expire(x.m.lease.ID())
		x.m.sums.last = nil
		x.m.sumUp()
	}})
	x.w.Run(time.Millisecond)
	x.delete(cluster.KeyStats)
	x.wait("the monitor to lead again", x.m.Leading)
	x.wait("the statistics", func() bool { return x.key(cluster.KeyStats).Key != "" })
}

func TestLostPrimaryIsReplacedAtOnce(t *testing.T) {
	x := newScene(t)
	x.w.Run(5 * time.Second)
	sets := x.pgs(1)
	if !x.leads(1) {
		t.Fatal("OSD 1 is nobody's primary")
	}
	// Together with a change that can wait.
	x.txn(registry.Op{Kind: registry.Delete, Key: cluster.OSDStateKey(1)}, registry.Op{Kind: registry.Put, Key: cluster.KeyPGConfig, Value: x.key(cluster.KeyPGConfig).Value})
	if !x.w.RunUntil(func() bool { return !x.leads(1) }, 200*time.Millisecond) {
		t.Error("a lost primary is not replaced at once")
	}
	for i, p := range x.pgs(1) {
		if !slices.Equal(p.OSDSet, sets[i].OSDSet) {
			t.Errorf("PG %d moves from %v to %v although osd_out_time has not passed", i+1, sets[i].OSDSet, p.OSDSet)
		}
		if p.Primary == 0 || !slices.Contains(p.OSDSet, p.Primary) {
			t.Errorf("the primary of PG %d is %d, of %v", i+1, p.Primary, p.OSDSet)
		}
	}
}

func TestSkippedOSDIsPassedOverUntilItsTime(t *testing.T) {
	x := newScene(t)
	x.w.Run(5 * time.Second)
	now := x.pgs(1)[0]
	pg := layout.PGID{Pool: 1, Num: 1}
	until := x.l.Wall().Add(10 * time.Second)
	x.put(cluster.PGSkipKey(pg), string(cluster.Value(&cluster.PGSkip{OSDs: []cluster.SkippedOSD{{OSD: now.Primary, Until: until.UnixMilli()}}})))
	x.wait("another primary", func() bool { return x.pgs(1)[0].Primary != now.Primary })
	x.put(cluster.PGStateKey(pg), string(cluster.Value(&cluster.PGState{Primary: x.pgs(1)[0].Primary, State: cluster.StateActive, Peers: now.OSDSet})))
	x.never("it is the primary before its time", 9*time.Second, func() bool { return x.pgs(1)[0].Primary == now.Primary })

	// All members are skipped: one of them is the primary all the same.
	skip := &cluster.PGSkip{}
	for _, n := range now.OSDSet {
		skip.OSDs = append(skip.OSDs, cluster.SkippedOSD{OSD: n, Until: x.l.Wall().Add(time.Hour).UnixMilli()})
	}
	x.put(cluster.PGSkipKey(pg), string(cluster.Value(skip)))
	x.w.Run(3 * time.Second)
	if p := x.pgs(1)[0].Primary; p == 0 || p == 4 {
		t.Errorf("the primary is %d when all are skipped", p)
	}
	// The time of one of them has passed.
	skip.OSDs[2].Until = x.l.Wall().UnixMilli() - 1
	x.put(cluster.PGSkipKey(pg), string(cluster.Value(skip)))
	free := skip.OSDs[2].OSD
	if free == 4 {
		free = 0 // silent
	}
	if free != 0 {
		x.wait("the one that is not skipped", func() bool { return x.pgs(1)[0].Primary == free })
	}
}

func TestPoolsComeChangeAndGo(t *testing.T) {
	x := newScene(t)
	const one = `"1":{"name":"data","scheme":"replicated","pg_size":3,"pg_minsize":2,"pg_count":8,"failure_domain":"osd"}`
	identity := func(id layout.PoolID) registry.Revision { return x.key(cluster.PoolIdentityKey(id)).Create }
	x.put(cluster.KeyPools, `{`+one+`,"2":{"name":"b","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":4,"failure_domain":"osd"}}`)
	x.wait("the PGs of a new pool", func() bool { return len(x.pgs(2)) == 4 && identity(2) != 0 })
	first, generation := x.pgs(1), identity(2)
	x.put(cluster.KeyPools, `{`+one+`,"2":{"name":"b","scheme":"replicated","pg_size":3,"pg_minsize":1,"pg_count":16,"failure_domain":"osd"}}`)
	x.wait("three members", func() bool { return len(x.pgs(2)[0].OSDSet) == 3 })
	if n := len(x.pgs(2)); n != 4 {
		t.Errorf("a pool has %d PGs after its pg_count was changed, want the 4 that hold its data", n)
	}
	x.put(cluster.KeyPools, `{`+one+`}`)
	x.wait("the pool to be gone", func() bool { return x.pgs(2) == nil && identity(2) == 0 })
	x.put(cluster.KeyPools, `{`+one+`,"2":{"name":"c","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":4,"failure_domain":"osd"}}`)
	x.wait("another pool of the same number", func() bool { return len(x.pgs(2)) == 4 && identity(2) != 0 })
	if identity(2) <= generation {
		t.Error("a pool made anew has the generation of the one before")
	}
	for i, p := range x.pgs(1) {
		if !slices.Equal(p.OSDSet, first[i].OSDSet) {
			t.Errorf("PG %d of pool 1 has moved from %v to %v", i+1, first[i].OSDSet, p.OSDSet)
		}
	}
}

func TestBadKeysLeaveTheRestWorking(t *testing.T) {
	x := newScene(t)
	x.w.Run(5 * time.Second)
	identity := x.key(cluster.PoolIdentityKey(1)).Mod
	for _, bad := range []string{`{`, ``, `null`, `[]`, `"x"`, `{"1":{"name":5}}`} {
		for _, key := range []string{cluster.KeyPools, cluster.KeyPlacement, cluster.KeyGlobal, cluster.OSDConfigKey(2), cluster.OSDStatsKey(3), cluster.OSDStateKey(2), cluster.OSDSpaceKey(1), cluster.PGSkipKey(layout.PGID{Pool: 1, Num: 1}),
			cluster.PGRecordKey(layout.PGID{Pool: 1, Num: 1}), cluster.PGStatsKey(layout.PGID{Pool: 1, Num: 1}), cluster.PoolIdentityKey(1), cluster.PrefixOSDStats + "x", cluster.PrefixPGState + "1/x"} {
			if key == cluster.PoolIdentityKey(1) && bad != `{` {
				continue
			}
			x.put(key, bad)
		}
	}
	x.w.Run(5 * time.Second)
	if have := x.key(cluster.PoolIdentityKey(1)); have.Key == "" || have.Create > identity {
		t.Fatal("the pool's identity is gone: its PGs would begin anew")
	}
	if len(x.pgs(1)) != 8 {
		t.Fatal("the PG map is gone")
	}
	for _, bad := range []string{`{`, `{"items":7}`, `null`} {
		x.put(cluster.KeyPGConfig, bad)
		x.wait("the PG map to be written anew", func() bool { return string(x.key(cluster.KeyPGConfig).Value) != bad })
	}
	if len(x.pgs(1)) != 8 || !x.leads(1) {
		t.Fatal("the PG map is another one")
	}
	x.delete(cluster.OSDStateKey(1))
	x.wait("a lost primary to be replaced", func() bool { return !x.leads(1) })
	if !strings.Contains(x.log.String(), "a key cannot be used") {
		t.Error("nothing was said of the keys")
	}
}

func TestStatisticsAddUp(t *testing.T) {
	x := newScene(t)
	inode := layout.MakeInode(1, 7)
	x.put(cluster.InodeKey(inode), `{"name":"i","size":1048576}`)
	stats := func(n layout.OSDNum, count int) {
		var st map[string]any
		if err := json.Unmarshal(x.key(cluster.OSDStatsKey(n)).Value, &st); err != nil {
			t.Fatal(err)
		}
		st["op_stats"] = map[string]any{"write": map[string]any{"count": count, "usec": 10 * count, "bytes": 4096 * count}}
		x.put(cluster.OSDStatsKey(n), string(cluster.Value(st)))
	}
	stats(1, 100)
	stats(2, 200)
	stats(4, 1000) // is not up
	x.put(cluster.OSDSpaceKey(1), `{"1":{"7":1000,"8":1}}`)
	x.put(cluster.OSDSpaceKey(2), `{"1":{"7":500},"x":{"7":9}}`)
	for i := range 3 {
		x.put(cluster.PGStatsKey(layout.PGID{Pool: 1, Num: uint32(i + 1)}), `{"write_osd_set":[1,2,3],"object_count":10,"clean_count":7,"degraded_count":3}`)
	}
	total := func() (s cluster.Stats) {
		_ = json.Unmarshal(x.key(cluster.KeyStats).Value, &s)
		return s
	}
	x.wait("the sums", func() bool { s := total(); return s.OpStats["write"].Count == 300 && s.ObjectCounts.Object == 30 })
	s := total()
	if s.OpStats["write"].Bytes != 300*4096 || s.OpStats["write"].Usec != 3000 {
		t.Errorf("writes sum up to %+v", s.OpStats["write"])
	}
	if s.ObjectCounts.Clean != 21 || s.ObjectCounts.Degraded != 9 || s.ObjectBytes.Degraded != 9*128<<10 {
		t.Errorf("objects sum up to %+v, in bytes %+v", s.ObjectCounts, s.ObjectBytes)
	}
	var i cluster.InodeStats
	x.wait("the inode's sum", func() bool {
		_ = json.Unmarshal(x.key(cluster.InodeStatsKey(inode)).Value, &i)
		return i.RawUsed == 1500
	})
	var p cluster.PoolStats
	_ = json.Unmarshal(x.key(cluster.PoolStatsKey(1)).Value, &p)
	if want := 1501.0 / (1 << 40); float64(p.UsedRawTB) < want*0.99 || float64(p.UsedRawTB) > want*1.01 {
		t.Errorf("the pool uses %v TB, want %v", p.UsedRawTB, want)
	}
	x.w.Run(3 * time.Second)
	at := x.l.Now()
	stats(1, 1100)
	var seen cluster.SumStats
	x.wait("a rate", func() bool { seen = total().OpStats["write"]; return seen.Iops > 0 })
	if d := x.l.Now().Sub(at); d < 2*time.Second && (seen.Iops < 900 || seen.Iops > 1100 || seen.Lat != 10) {
		t.Errorf("1000 writes in the last second show as %+v", seen)
	}
}
