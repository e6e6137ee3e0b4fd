package etcdsnapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/registry/registrytest"
)

// etcd is a registry in memory.
type etcd struct {
	t     *testing.T
	l     *registrytest.Loop
	st    *memory.Store
	h     *memory.Handle
	fail  int  // the transaction that gets no answer, from 1
	lost  bool // it is carried out all the same
	count int
	ended func() // called before each
}

func newEtcd(t *testing.T) *etcd {
	l := registrytest.NewLoop(t, true)
	st := memory.New(l)
	return &etcd{t: t, l: l, st: st, h: st.Open(l)}
}

var errCut = errors.New("no more of it")

func (e *etcd) Txn(ctx context.Context, txn registry.Txn) (res registry.TxnResult, err error) {
	e.count++
	if len(txn.Then) > batchOps {
		e.t.Errorf("a transaction of %d operations", len(txn.Then))
	}
	if e.ended != nil {
		e.ended()
	}
	if e.fail > 0 && e.count >= e.fail {
		if e.count > e.fail || !e.lost {
			return res, errCut
		}
		defer func() { res, err = registry.TxnResult{}, errCut }()
	}
	done := false
	e.h.Txn(txn, func(r registry.TxnResult, er error) { res, err, done = r, er, true })
	e.l.Until("a transaction", time.Minute, func() bool { return done })
	return res, err
}

func (e *etcd) put(kvs ...string) {
	e.t.Helper()
	for i := 0; i < len(kvs); i += 2 {
		if _, err := e.Txn(context.Background(), registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: kvs[i], Value: []byte(kvs[i+1])}}}); err != nil {
			e.t.Fatal(err)
		}
	}
}

// lease puts a key under a lease.
func (e *etcd) lease(key string) {
	h := &granted{}
	e.h.Grant(time.Hour, h)
	e.l.Until("a lease", time.Minute, func() bool { return h.id != 0 })
	if _, err := e.Txn(context.Background(), registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: key, Value: []byte("{}"), Lease: h.id}}}); err != nil {
		e.t.Fatal(err)
	}
}

type granted struct{ id registry.LeaseID }

func (g *granted) Granted(l registry.Lease)   { g.id = l.ID() }
func (g *granted) Lost(registry.Lease, error) {}

func (e *etcd) text() string {
	var b strings.Builder
	for _, kv := range e.st.Dump() {
		fmt.Fprintf(&b, "%s %s\n", kv.Key, kv.Value)
	}
	return b.String()
}

func (e *etcd) get(key string) string {
	for _, kv := range e.st.Dump() {
		if kv.Key == key {
			return string(kv.Value)
		}
	}
	return ""
}

var when = time.Unix(1700000000, 0)

// filled is an etcd of a cluster with some hundred keys.
func filled(t *testing.T) *etcd {
	e := newEtcd(t)
	e.put("pool/identity/1", `{"name":"old"}`, "pool/identity/2", `{"name":"new","generation":1234567}`, "cluster/id", id)
	e.put("config/pools", `{"1":{"name":"old","scheme":"replicated","pg_size":1,"pg_minsize":1,"pg_count":1},"2":{"name":"new","scheme":"replicated","pg_size":1,"pg_minsize":1,"pg_count":1}}`)
	e.put("index/maxid/1", "3", "config/inode/1/5", `{"name":"i","size":1}`)
	e.put("restored", `{"id":"before","time":1,"reason":"x"}`)
	e.put("osd/identity/2", `{"store":"00000000000000000000000000000002","boot":1,"sequence":2,"reported":"before"}`, "osd/identity/1", `{"store":"00000000000000000000000000000001","boot":1,"sequence":2,"retired":[]}`)
	e.put("osd/identity/3", `{"store":"00000000000000000000000000000000","boot":1,"sequence":2}`)
	e.put("osd/space/1", `{"1":{"1":5}}`)
	for i := range 250 {
		e.put(fmt.Sprintf("nfs/dir/%03d", i), strings.Repeat("x", i*100))
	}
	e.lease("osd/state/1")
	e.lease("mon/master")
	return e
}

// read takes a snapshot through a file.
func read(t *testing.T, e *etcd) *Snapshot {
	t.Helper()
	s, err := Take(context.Background(), e, when)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	if err := s.Write(path); err != nil {
		t.Fatal(err)
	}
	if s, err = Read(path); err != nil {
		t.Fatal(err)
	}
	return s
}

func run(e *etcd, s *Snapshot, id string) ([]layout.OSDNum, error) {
	x := s.Open(e)
	if err := x.Look(context.Background()); err != nil {
		return nil, err
	}
	return x.Run(context.Background(), id, "file", when, func(string, int, int) {})
}

func TestRestoreIntoAnEmptyEtcd(t *testing.T) {
	from := filled(t)
	var generation int64
	for _, kv := range from.st.Dump() {
		if kv.Key == "pool/identity/1" {
			generation = int64(kv.Create)
		}
	}
	s := read(t, from)
	if s.LeftOut != 2 {
		t.Errorf("%d keys of leases were left out, want 2", s.LeftOut)
	}
	e := newEtcd(t)
	wait, err := run(e, s, "abc")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(wait, []layout.OSDNum{1, 2}) {
		t.Errorf("OSDs %v have to report, want 1 and 2", wait)
	}
	changed := map[string]string{
		"pool/identity/1": fmt.Sprintf(`{"name":"old","generation":%d}`, generation),
		"index/maxid/1":   fmt.Sprint(5 + skippedInodes), "index/maxid/2": fmt.Sprint(skippedInodes),
		"restored": `{"id":"abc","time":1700000000,"reason":"the snapshot file of 2023-11-14 22:13:20 UTC was put back"}`,
	}
	have := map[string]bool{}
	for _, kv := range e.st.Dump() {
		have[kv.Key] = true
		want, ok := changed[kv.Key]
		if !ok {
			want = from.get(kv.Key)
		}
		if string(kv.Value) != want {
			t.Errorf("%s is %.80s, want %.80s", kv.Key, kv.Value, want)
		}
	}
	for _, kv := range from.st.Dump() {
		if (kv.Lease == 0 && kv.Key != "osd/space/1") != have[kv.Key] {
			t.Errorf("%s is there: %v", kv.Key, have[kv.Key])
		}
	}
}

// TestRestoreGoesOnAfterEachInterruption cuts a restore off at every transaction, with and without its being carried out.
func TestRestoreGoesOnAfterEachInterruption(t *testing.T) {
	s := read(t, filled(t))
	whole := newEtcd(t)
	if _, err := run(whole, s, "abc"); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= whole.count; n++ {
		for _, lost := range []bool{false, true} {
			e := newEtcd(t)
			e.fail, e.lost = n, lost
			if _, err := run(e, s, "abc"); !errors.Is(err, errCut) {
				t.Fatalf("cut at %d: error %v", n, err)
			}
			e.fail = 0
			text := e.text()
			half := len(e.st.Dump()) > 0 && !(n == whole.count && lost) // unless it was all but told
			if half != strings.Contains(text, "restoring ") || half && !strings.Contains(text, "restored ") {
				t.Fatalf("cut at %d: half of it is there and does not say so:\n%.200s", n, text)
			}
			x := s.Open(e)
			if err := x.Look(context.Background()); err != nil {
				t.Fatal(err)
			}
			if n == whole.count && lost {
				if x.Missing != 0 || !slices.Equal(x.Other, []string{"restored"}) {
					t.Errorf("cut at the end: %d missing, others %v", x.Missing, x.Other)
				}
				continue
			}
			if half && !x.Same || len(x.Other) > 0 {
				t.Fatalf("cut at %d: not recognized: %+v, others %v", n, x.Begun, x.Other)
			}
			if _, err := x.Run(context.Background(), "abc", "file", when, func(string, int, int) {}); err != nil {
				t.Fatalf("cut at %d, again: %v", n, err)
			}
			if have, want := e.text(), whole.text(); have != want {
				t.Fatalf("cut at %d: etcd is another one than without", n)
			}
		}
	}
}

func TestWhatIsThereIsSeenAndReplaced(t *testing.T) {
	s := read(t, filled(t))
	e := newEtcd(t)
	e.put("cluster/id", `{"id":"ffffffffffffffffffffffffffffffff"}`, "config/inode/1/9", `{"name":"later","size":1}`, "restored", `{"id":"q","time":5,"reason":"r"}`)
	x := s.Open(e)
	if err := x.Look(context.Background()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"cluster/id", "config/inode/1/9", "restored"}; !slices.Equal(x.Other, want) || x.Cluster != "ffffffffffffffffffffffffffffffff" || x.Begun != nil || len(x.Running) > 0 {
		t.Errorf("Look found %v, cluster %s", x.Other, x.Cluster)
	}
	if b := x.Before(when); b == nil || b.Keys != 3 {
		t.Errorf("Before = %+v", b)
	}
	if _, err := x.Run(context.Background(), "abc", "file", when, func(string, int, int) {}); err != nil {
		t.Fatal(err)
	}
	whole := newEtcd(t)
	if _, err := run(whole, s, "abc"); err != nil {
		t.Fatal(err)
	}
	if e.text() != whole.text() {
		t.Error("what was there is not replaced by the snapshot")
	}
}

func TestWhoeverRunsStopsARestore(t *testing.T) {
	s := read(t, filled(t))
	for _, c := range []struct {
		name, want string
		at         int
		do         func(e *etcd)
	}{
		{"it registers before the mark", "osd/state/4", 2, func(e *etcd) { e.lease("osd/state/4") }},
		{"a key is written before the mark", "config/global", 2, func(e *etcd) { e.put("config/global", "{}") }},
		{"a monitor leads before the mark", "somebody else", 2, func(e *etcd) { e.lease("mon/master") }},
		{"the cluster is made before the mark", "somebody else", 2, func(e *etcd) { e.put("cluster/id", `{"id":"ffffffffffffffffffffffffffffffff"}`) }},
		{"a key is written at the end", "config/global", 6, func(e *etcd) { e.put("config/global", "{}") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEtcd(t)
			e.ended = func() {
				if e.count == c.at {
					e.ended = nil
					c.do(e)
				}
			}
			if _, err := run(e, s, "abc"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestNothingIsKeptOfAnEmptyOrHalfEtcd(t *testing.T) {
	e := newEtcd(t)
	if _, err := Take(context.Background(), e, when); !errors.Is(err, ErrEmpty) {
		t.Errorf("empty: %v", err)
	}
	e.put("config/global", "{}")
	if _, err := Take(context.Background(), e, when); !errors.Is(err, ErrEmpty) {
		t.Errorf("without a cluster: %v", err)
	}
	e.put("cluster/id", id, "restoring", "{}")
	if _, err := Take(context.Background(), e, when); !errors.Is(err, ErrHalf) {
		t.Errorf("half: %v", err)
	}
}

// TestIdentityThatCannotBeReadKeepsItsGeneration: without it the pool's data would look like that of an earlier one.
func TestIdentityThatCannotBeReadKeepsItsGeneration(t *testing.T) {
	for _, v := range []string{"", "{", `{"name":7}`, `{"name":"x","generation":-1}`} {
		have := withGeneration(registry.KV{Key: cluster.PoolIdentityKey(1), Value: []byte(v), Create: 77})
		if !bytes.Contains(have, []byte(`"generation":77`)) {
			t.Errorf("%q becomes %s", v, have)
		}
	}
}

// A snapshot that was taken while pools were being made: a monitor must not make them other ones than those that the stores know.
func TestPoolsWithoutAnIdentityGetOneOfUnknownGeneration(t *testing.T) {
	const pools = `{"1":{"name":"a","scheme":"replicated","pg_size":2,"pg_count":4},"2":{"name":"b","scheme":"replicated","pg_size":2,"pg_count":4},"3":{"name":"c","pg_count":"wrong"}}`
	s := &Snapshot{KVs: []registry.KV{
		{Key: cluster.KeyPools, Value: []byte(pools), Create: 1, Mod: 9},
		{Key: cluster.PGRecordKey(layout.PGID{Pool: 2, Num: 3}), Value: cluster.Value(&cluster.PGRecord{Generation: 70, Interval: 3}), Create: 5, Mod: 6},
		{Key: cluster.PoolIdentityKey(1), Value: []byte(`{"name":"a"}`), Create: 77, Mod: 77},
	}}
	have := s.target()
	for key, want := range map[string]string{cluster.PoolIdentityKey(1): `{"name":"a","generation":77}`, cluster.PoolIdentityKey(2): `{"name":"","generation":71}`, cluster.PoolIdentityKey(3): `{"name":"","generation":1}`} {
		if string(have[key]) != want {
			t.Errorf("%s: %s, want %s", key, have[key], want)
		}
	}
}
