package cluster

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"holdfast/core/layout"
	"holdfast/core/registry"
)

func TestPoolsAreReadLeniently(t *testing.T) {
	pools, faults, err := ReadPools([]byte(`{
		"1": {"name":"rep","scheme":"replicated","pg_size":"3","pg_minsize":2,"pg_count":16,"osd_tags":"ssd","mine":[1]},
		"2": {"name":"ec","scheme":"jerasure","pg_size":6,"pg_minsize":4,"parity_chunks":2,"pg_count":32,"osd_tags":["a","b"],"block_size":1048576,"failure_domain":"rack"}
	}`))
	if err != nil || len(faults) != 0 {
		t.Fatalf("faults %v, err %v", faults, err)
	}
	rep, ec := pools[1], pools[2]
	if rep.PGSize != 3 || rep.DataChunks() != 1 || rep.Domain() != "host" || !slices.Equal(rep.OSDTags, Strings{"ssd"}) {
		t.Errorf("rep = %+v", rep)
	}
	if ec.Scheme != EC || ec.DataChunks() != 4 || ec.Domain() != "rack" || len(ec.OSDTags) != 2 {
		t.Errorf("ec = %+v", ec)
	}
	b, err := json.Marshal(rep)
	if err != nil || !strings.Contains(string(b), `"mine":[1]`) {
		t.Errorf("written again: %s, %v: the unknown field is lost", b, err)
	}
}

func TestPoolFaultsAreNamedTogetherAndAlone(t *testing.T) {
	pools, faults, err := ReadPools([]byte(`{
		"1": {"name":"good","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":16},
		"2": {"name":"","scheme":"raid","pg_size":300,"pg_minsize":0,"pg_count":0,"block_size":5000,"bitmap_granularity":100,"immediate_commit":"x","local_reads":"y","max_osd_combinations":5},
		"3": {"name":"ec","scheme":"ec","pg_size":3,"parity_chunks":2,"pg_minsize":1,"pg_count":1},
		"4": {"name":"good","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":16},
		"70000": {}, "5": 7
	}`))
	if err != nil || len(pools) != 1 || pools[1] == nil {
		t.Fatalf("pools = %v, err %v", pools, err)
	}
	var got []string
	for _, f := range faults {
		got = append(got, strings.ReplaceAll(f.Error(), "\n", "; "))
	}
	want := []string{
		"pool 2: name is empty; scheme is \"raid\", want replicated, xor or ec; pg_size is 300, want 1..256; pg_count is 0, want 1..1048576; block_size is 5000, want a power of two from 4096 to 134217728; " +
			"bitmap_granularity is 100, want a power of two from 512; immediate_commit is \"x\", want all, small or none; local_reads is \"y\", want primary, nearest or random; " +
			"max_osd_combinations is 5, want at least 100",
		"pool 3: parity_chunks is 2, want 1..1",
		"pool 4: the name \"good\" is that of pool 1 already",
		"pool 5: the value has the wrong type: number",
		"pool 70000: the id is not a number from 1 to 65535",
	}
	if !slices.Equal(got, want) {
		t.Errorf("faults:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPGConfigAcceptsTheMonitorsStrings(t *testing.T) {
	c, faults, err := ReadPGConfig([]byte(`{"hash":"x","items":{"1":{"1":{"osd_set":["1","2",0],"primary":"2"},"2":{"osd_set":[3,1,2],"primary":0,"pause":true}},
		"2":{"2":{"osd_set":[1],"primary":1}},"3":{"1":{"osd_set":[1,1],"primary":1}}},"backfillfull_pools":[1]}`))
	if err != nil || len(faults) != 2 {
		t.Fatalf("faults %v, err %v; want pools 2 and 3 left out", faults, err)
	}
	want := []PGTarget{{OSDSet: []layout.OSDNum{1, 2, 0}, Primary: 2}, {OSDSet: []layout.OSDNum{3, 1, 2}, Pause: true}}
	if !reflect.DeepEqual(c.Pools[1], want) || c.Count(1) != 2 || c.Count(2) != 0 || !c.IsBackfillfull(1) {
		t.Errorf("config = %+v", c)
	}
	if got, ok := c.Target(layout.PGID{Pool: 1, Num: 2}); !ok || !got.Pause {
		t.Errorf("PG 1/2 = %+v, %v", got, ok)
	}
	for _, pg := range []layout.PGID{{Pool: 1, Num: 0}, {Pool: 1, Num: 3}, {Pool: 9, Num: 1}} {
		if _, ok := c.Target(pg); ok {
			t.Errorf("PG %v exists", pg)
		}
	}
	b, err := json.Marshal(c)
	again, _, rerr := ReadPGConfig(b)
	if err != nil || rerr != nil || !reflect.DeepEqual(again, c) {
		t.Errorf("written as %s, read again as %+v", b, again)
	}
}

func TestStateBitsMatchTheWire(t *testing.T) {
	for bit, name := range map[uint]string{0: "starting", 3: "active", 6: "offline", 10: "has_misplaced", 16: "scrubbing"} { // spec/wire.md, "PG state bits"
		if got := StateBits(1 << bit).Names(); !slices.Equal(got, []string{name}) {
			t.Errorf("bit %d = %v, want %s", bit, got, name)
		}
	}
	for _, c := range []struct {
		in string
		ok bool
	}{
		{`["active"]`, true}, {`["active","has_degraded","degraded","left_on_dead"]`, true}, {`["incomplete","has_invalid"]`, true}, {`["starting"]`, true},
		{`["incomplete","degraded"]`, false}, {`["offline","degraded"]`, false}, {`["active","peering"]`, false}, {`["degraded"]`, false}, {`[]`, false}, {`["happy"]`, false}, {`"active"`, false},
	} {
		var st PGState
		err := json.Unmarshal([]byte(`{"primary":"1","peers":["1",2],"state":`+c.in+`}`), &st)
		if (err == nil) != c.ok {
			t.Errorf("state %s: err = %v, want ok = %v", c.in, err, c.ok)
		}
	}
}

func TestRecordsSurviveJSON(t *testing.T) {
	store := layout.StoreID{1, 2, 3}
	members := []PGMember{{OSD: 1, Store: store}, {OSD: 2, Store: layout.StoreID{4}}}
	in := &PGRecord{Generation: 7, Interval: 5, Primary: 2, Instance: 9, Activated: 4, Floor: 1<<63 + 1, Sets: []PGSet{{Interval: 4, Members: members}}, Participants: members}
	got, err := read[PGRecord](registry.Event{KV: registry.KV{Value: Value(in), Mod: 3}})
	if err != nil {
		t.Fatal(err)
	}
	in.Mod = 3
	if !reflect.DeepEqual(got, in) || got.Active() {
		t.Errorf("got %+v, want %+v", got, in)
	}
	for _, bad := range []string{`{}`, `{"interval":1,"sets":[{"interval":2,"members":[{"osd":1}]}]}`, `{"interval":3,"sets":[{"interval":2,"members":[]}]}`, `{"interval":3,"activated":3}`, `{"interval":3,"sets":[{"interval":2,"members":[{"osd":1}],"first":2}]}`, `{"interval":3,"sets":[{"interval":2,"members":[{"osd":1}],"first":3,"last":3}]}`, `{"interval":-1}`, `null`} {
		if _, err := read[PGRecord](registry.Event{KV: registry.KV{Value: []byte(bad)}}); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestImageTransactions(t *testing.T) {
	id := strings.Repeat("ab", 16)
	txn, inode, err := CreateImage(NewImage{Pool: 1, Name: "a", Size: 8192, Identity: id, MaxID: &registry.KV{Value: []byte(`"6"`), Mod: 4}, Largest: 9})
	if err != nil || inode != layout.MakeInode(1, 10) || len(txn.If) != 3 || len(txn.Then) != 3 {
		t.Fatalf("create = %+v, %v, %v", txn, inode, err)
	}
	for i, want := range []string{`{"name":"a","size":8192,"meta":{"holdfast_id":"` + id + `"}}`, `{"id":10,"pool_id":1}`, `10`} {
		if got := string(txn.Then[i].Value); got != want {
			t.Errorf("op %d puts %s, want %s", i, got, want)
		}
	}
	for _, bad := range []NewImage{{Pool: 1, Size: 8192}, {Pool: 1, Name: "../a", Size: 8192}, {Pool: 1, Name: "a//b", Size: 8192}, {Pool: 1, Name: "a", Size: MaxImageSize + 1}, {Pool: 1, Name: "a\n", Size: 8192}} {
		bad.Identity = id
		if _, _, err := CreateImage(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	img, err := ReadInode(registry.KV{Key: InodeKey(inode), Value: []byte(`{"name":"a","size":"8192","next":5}`), Mod: 11})
	if err != nil || img.Size != 8192 || img.Mod != 11 || img.ID != inode {
		t.Fatalf("inode = %+v, %v", img, err)
	}
	rename, err := RenameImage(img, &registry.KV{Value: []byte(`{"id":"10","pool_id":1}`), Mod: 3}, "b")
	if err != nil || len(rename.Then) != 3 || string(rename.Then[0].Value) != `{"name":"b","next":5,"size":8192}` {
		t.Errorf("rename = %+v, %v", rename, err)
	}
	if err := rename.Check(); err != nil {
		t.Error(err)
	}
	if img.Name != "a" {
		t.Error("renaming changed what was read")
	}
	if other := DeleteImage(img, &registry.KV{Value: []byte(`{"id":11,"pool_id":1}`), Mod: 3}); slices.ContainsFunc(other.Then, func(op registry.Op) bool { return op.Key == ImageIndexKey("a") }) {
		t.Errorf("deleting drops another image's name: %+v", other)
	}
	set, err := SetPool(&registry.KV{Value: []byte(`{"1":{"broken":true}}`), Mod: 2}, 2, &Pool{Name: "p", Scheme: Replicated, PGSize: 2, PGMinSize: 1, PGCount: 8})
	if err != nil || string(set.Then[0].Value) != `{"1":{"broken":true},"2":{"name":"p","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":8}}` {
		t.Errorf("SetPool = %+v, %v", set, err)
	}
}

// FuzzApply gives every kind of key any value: it never panics, and either takes it or names the key.
func FuzzApply(f *testing.F) {
	keys := []string{KeyGlobal, KeyPools, KeyPlacement, KeyPGConfig, KeyMonMaster, KeyLastClean, KeyStats, KeyClusterID, OSDConfigKey(1), InodeKey(layout.MakeInode(1, 1)), "pg/state/1/1", "pg/history/1/1",
		"pgstats/1/1", "osd/state/1", "osd/stats/1", "osd/space/1", "osd/inodestats/1", "mon/member/a", "inode/stats/1/1", "pool/stats/1", "pool/identity/1", "interval/1/1", "osd/identity/1", "osd/waiting/1", "osd/failure/1", "fence/x", "gateway/x", KeyRestored, KeyRestoring}
	for i, v := range []string{`{}`, `null`, ``, `[1]`, `"x"`, `{"1":{"name":"a"}}`, `{"items":{"1":{"1":{"osd_set":["1"],"primary":1}}}}`, `{"a":1}{`, `{"primary":1,"state":["active"],"peers":[1]}`} {
		f.Add(uint8(i), []byte(v))
	}
	f.Fuzz(func(t *testing.T, n uint8, value []byte) {
		key := keys[int(n)%len(keys)]
		s := newSnapshot()
		fault := s.apply(registry.Event{KV: registry.KV{Key: key, Value: value, Mod: 5}})
		if fault != nil && fault.Key != key {
			t.Errorf("fault of %s names %s", key, fault.Key)
		}
		for _, id := range []layout.PoolID{1, 2} {
			_, _ = s.Geometry(id)
		}
		s.apply(registry.Event{Deleted: true, KV: registry.KV{Key: key, Mod: 6}})
		if s.Faults.Len() != 0 {
			t.Errorf("a deleted key still has faults")
		}
	})
}
