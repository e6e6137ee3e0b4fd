package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/sim"
)

// world is a registry with keys, and the snapshot that is read from it.
type world struct {
	t *testing.T
	w *sim.World
	l *sim.Loop
	r *memory.Handle
}

func newWorld(t *testing.T, keys map[string]string) *world {
	t.Helper()
	s := sim.NewWorld(1)
	w := &world{t: t, w: s, l: s.NewLoop("admin")}
	w.r = memory.New(s.NewLoop("registry")).Open(w.l)
	for k, v := range keys {
		w.put(k, v)
	}
	return w
}

func (w *world) put(key, value string) {
	w.t.Helper()
	done := false
	w.r.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: key, Value: []byte(value)}}}, func(res registry.TxnResult, err error) {
		if err != nil {
			w.t.Fatal(err)
		}
		done = true
	})
	w.w.RunUntil(func() bool { return done }, time.Minute)
}

type first struct{ s *cluster.Snapshot }

func (f *first) Changed(_, next *cluster.Snapshot, _ []string) { f.s = next }
func (f *first) Fault(*cluster.KeyError)                       {}
func (f *first) Unavailable(error)                             {}

func (w *world) snapshot() *cluster.Snapshot {
	w.t.Helper()
	h := &first{}
	f := cluster.Follow(w.l, w.r, Sections, h)
	defer f.Stop()
	if !w.w.RunUntil(func() bool { return h.s != nil }, time.Minute) {
		w.t.Fatal("no snapshot")
	}
	return h.s
}

// twoOSDs is a cluster of two OSDs on one host, one of them down, with one pool of two PGs and two images.
var twoOSDs = map[string]string{
	"config/pools":          `{"1":{"name":"p","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":2,"failure_domain":"osd"}}`,
	"pg/config":             `{"items":{"1":{"1":{"osd_set":["1","2"],"primary":"1"},"2":{"osd_set":[2,1],"primary":1}}}}`,
	"pg/state/1/1":          `{"primary":1,"state":["active","degraded"],"peers":[1]}`,
	"osd/state/1":           `{"state":"up","addresses":["10.0.0.1"],"host":"a","port":7000,"primary_enabled":true,"blockstore_enabled":true}`,
	"osd/stats/1":           `{"host":"a","size":1000000,"free":10000,"data_block_size":131072}`,
	"osd/stats/2":           `{"host":"a","size":1000000,"free":1000000}`,
	"config/osd/2":          `{"reweight":0.5,"tags":"slow"}`,
	"config/inode/1/1":      `{"name":"vm/a","size":4096}`,
	"config/inode/1/2":      `{"name":"b","size":8192,"readonly":true}`,
	"index/image/b":         `{"id":2,"pool_id":1}`,
	"inode/stats/1/2":       `{"raw_used":"777"}`,
	"pool/stats/1":          `{"used_raw_tb":0.5,"total_raw_tb":2,"pg_real_size":2,"raw_to_usable":2,"space_efficiency":1}`,
	"config/inode/1/3":      `{"name":`,
	"mon/master":            `{"hostname":"a"}`,
	"config/global":         `{"no_recovery":true}`,
	"stats":                 `{"op_stats":{"primary_read":{"count":"1","usec":"1","bytes":"5","bps":"70","iops":"3","lat":"1"}},"object_counts":{},"object_bytes":{"degraded":"9"}}`,
	"config/node_placement": `{}`,
}

func TestReportNamesWhatIsWrong(t *testing.T) {
	v := Report(newWorld(t, twoOSDs).snapshot())
	if v.Health != "down" || v.OSDsUp != 1 || v.OSDs != 2 || v.Master != "a" || v.PoolsUp != 0 || v.Pools != 1 || v.Images != 2 || v.RawTotal != 1000000 || v.RawUsed != 990000 || v.Degraded != 9 {
		t.Errorf("Report = %+v", v)
	}
	if len(v.Flags) != 1 || v.Flags[0] != "no_recovery" || len(v.Client) != 1 || v.Client[0] != (Rate{"read", 70, 3}) {
		t.Errorf("flags %v, client %v", v.Flags, v.Client)
	}
	all := strings.Join(v.Warnings, "\n")
	for _, want := range []string{"OSD 2 (host a) is down", "OSD 1 is full (99.0 % used", `pool "p": 1 of 2 PGs are not active`, "config/inode/1/3"} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning %q in:\n%s", want, all)
		}
	}
}

func TestReportNamesWhoIsMissed(t *testing.T) {
	world := maps.Clone(twoOSDs)
	world["osd/state/2"] = `{"state":"up","addresses":["10.0.0.2"],"host":"b","port":7000,"primary_enabled":true,"blockstore_enabled":true}`
	world["osd/missing/1"] = `{"osds":[2]}`
	world["osd/missing/7"] = `{"osds":[1]}` // of an OSD that is down
	all := strings.Join(Report(newWorld(t, world).snapshot()).Warnings, "\n")
	if want := "OSD 2 (host b) is up, and OSD [1] cannot reach it"; !strings.Contains(all, want) || strings.Contains(all, "OSD 1 (host a) is up") {
		t.Errorf("no warning %q, or another one, in:\n%s", want, all)
	}
}

func TestReportOfAnEmptyCluster(t *testing.T) {
	v := Report(newWorld(t, nil).snapshot())
	b, err := json.Marshal(v)
	if err != nil || strings.Contains(string(b), "null") {
		t.Errorf("%s, %v: lists are never null", b, err)
	}
	if v.Health != "degraded" || len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0], "monitor") {
		t.Errorf("Report = %+v", v)
	}
}

func TestLists(t *testing.T) {
	s := newWorld(t, twoOSDs).snapshot()
	list, err := Images(s, ImageFilter{})
	if err != nil || len(list) != 2 || list[0].Name != "b" || list[0].RawUsed != 777 || !list[0].ReadOnly || list[1].Pool != "p" || list[1].Size != 4096 {
		t.Errorf("Images = %+v, %v", list, err)
	}
	for _, c := range []struct {
		f    ImageFilter
		want int
	}{
		{ImageFilter{Globs: []string{"v*a"}}, 1}, {ImageFilter{Globs: []string{"v*a"}, Exact: true}, 0}, {ImageFilter{Globs: []string{"vm/a", "?"}}, 2}, {ImageFilter{Pool: "p"}, 2},
		{ImageFilter{Deleted: true}, 0},
	} {
		if got, err := Images(s, c.f); err != nil || len(got) != c.want {
			t.Errorf("Images(%+v) = %+v, %v, want %d", c.f, got, err, c.want)
		}
	}
	if _, err := Images(s, ImageFilter{Pool: "q"}); kind(err) != NotFound {
		t.Errorf("unknown pool: %v", err)
	}
	if _, err := Images(s, ImageFilter{Globs: []string{"["}}); kind(err) != Usage {
		t.Errorf("bad pattern: %v", err)
	}

	osds := OSDs(s)
	if len(osds) != 2 || !osds[0].Up || osds[0].Primary != 2 || osds[0].PGs != 2 || osds[1].Up || osds[1].Reweight != 0.5 || osds[1].Tags[0] != "slow" || osds[1].Size != 1000000 {
		t.Errorf("OSDs = %+v", osds)
	}
	pools := Pools(s)
	if len(pools) != 1 || pools[0].Active != 1 || pools[0].Images != 2 || pools[0].Total != 1<<40 || pools[0].Used != 1<<38 || pools[0].Available != 3<<38 {
		t.Errorf("Pools = %+v", pools)
	}
	for _, c := range []struct {
		f    PGFilter
		want int
	}{{PGFilter{}, 2}, {PGFilter{States: []string{"active"}}, 1}, {PGFilter{States: []string{"!active"}}, 1}, {PGFilter{States: []string{"active", "^degraded"}}, 0}, {PGFilter{OSD: 2}, 2}, {PGFilter{OSD: 3}, 0}} {
		if got, err := PGs(s, c.f); err != nil || len(got) != c.want {
			t.Errorf("PGs(%+v) = %+v, %v, want %d", c.f, got, err, c.want)
		}
	}
	if _, err := PGs(s, PGFilter{States: []string{"lively"}}); kind(err) != Usage {
		t.Errorf("unknown state: %v", err)
	}
}

func kind(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

func TestNewPoolDefaultsAndChecks(t *testing.T) {
	s := newWorld(t, twoOSDs).snapshot()
	p, err := NewPool{Name: "n", Replicas: 2, FailureDomain: "osd"}.Pool(s)
	if err != nil || p.PGMinSize != 1 || p.PGCount != 32 {
		t.Errorf("2 copies: %+v, %v", p, err)
	}
	p, err = NewPool{Name: "n", Replicas: 3, Force: true}.Pool(s)
	if err != nil || p.PGMinSize != 2 || p.Domain() != "host" {
		t.Errorf("3 copies: %+v, %v", p, err)
	}
	for _, c := range []struct {
		n    NewPool
		kind Kind
		word string
	}{
		{NewPool{Name: "p", Replicas: 2}, Refused, "exists already"},
		{NewPool{Name: "n", Replicas: 2}, Refused, `level "host"`},
		{NewPool{Name: "n", Replicas: 3, FailureDomain: "osd"}, Refused, "there are 2"},
		{NewPool{Name: "n", Replicas: 0, Force: true}, Usage, "pg_size"},
		{NewPool{Name: "n", Replicas: -1, Force: true}, Usage, "negative"},
		{NewPool{Name: "n", Replicas: 2, BlockSize: 5000, Force: true}, Usage, "block_size"},
	} {
		if _, err := c.n.Pool(s); kind(err) != c.kind || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%+v: %v, want kind %d with %q", c.n, err, c.kind, c.word)
		}
	}
}

// losing loses the answer to the first change, or the change itself.
type losing struct {
	registry.Registry
	arrives, lost bool
}

func (l *losing) Txn(t registry.Txn, done func(registry.TxnResult, error)) {
	if t.ReadOnly() || l.lost {
		l.Registry.Txn(t, done)
		return
	}
	if l.lost = true; !l.arrives {
		t = registry.Txn{}
	}
	l.Registry.Txn(t, func(registry.TxnResult, error) { done(registry.TxnResult{}, registry.ErrUnavailable) })
}

func TestCreatePool(t *testing.T) {
	w := newWorld(t, twoOSDs)
	s := w.snapshot()
	var reg registry.Registry = w.r
	create := func(n NewPool) (id layout.PoolID, err error) {
		n.Force = true
		p, err := n.Pool(s)
		if err != nil {
			t.Fatal(err)
		}
		done := false
		CreatePool(reg, s, p, func(i layout.PoolID, e error) { id, err, done = i, e, true })
		if !w.w.RunUntil(func() bool { return done }, time.Minute) {
			t.Fatal("CreatePool does not end")
		}
		return id, err
	}
	if id, err := create(NewPool{Name: "n", Replicas: 2}); err != nil || id != 2 {
		t.Errorf("CreatePool = %d, %v, want 2", id, err)
	}
	// s is older than the first one: the name is found to be taken all the same.
	if _, err := create(NewPool{Name: "n", Replicas: 2}); kind(err) != Refused {
		t.Errorf("the same name again: %v", err)
	}
	if now := w.snapshot(); now.Pools.Len() != 2 {
		t.Errorf("%d pools, want 2", now.Pools.Len())
	}
	for i, arrives := range []bool{true, false} { // with the answer, or the request, lost the first time
		reg = &losing{Registry: w.r, arrives: arrives}
		if id, err := create(NewPool{Name: fmt.Sprint("l", i), Replicas: 2}); err != nil || id != layout.PoolID(3+i) {
			t.Errorf("with a lost message: CreatePool = %d, %v, want %d", id, err, 3+i)
		}
	}
	w.put("config/pools", "[]")
	if _, err := create(NewPool{Name: "m", Replicas: 2}); kind(err) != Failed || !strings.Contains(err.Error(), "config/pools") {
		t.Errorf("unreadable pools: %v", err)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 K", 1536: "1.5 K", 1 << 30: "1 G", 5 << 50: "5 P", -2048: "-2 K"} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %q, want %q", n, got, want)
		}
	}
}
