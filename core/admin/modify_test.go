package admin

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/registry"
	"holdfast/core/registry/registrytest"
)

func TestPoolChangeKeepsWhatObjectsAreCutBy(t *testing.T) {
	copies := cluster.Pool{Name: "p", Scheme: cluster.Replicated, PGSize: 2, PGMinSize: 1, PGCount: 8}
	ec := cluster.Pool{Name: "p", Scheme: cluster.EC, PGSize: 5, ParityChunks: 1, PGMinSize: 4, PGCount: 8}
	xor := cluster.Pool{Name: "p", Scheme: cluster.XOR, PGSize: 3, PGMinSize: 2, PGCount: 8}
	osd := "osd"
	for _, c := range []struct {
		name                  string
		pool                  cluster.Pool
		change                PoolChange
		size, parity, minSize uint64
		fault                 string
	}{
		{"more copies", copies, PoolChange{Replicas: 3}, 3, 0, 2, ""},
		{"more copies, said how many serve", copies, PoolChange{Replicas: 3, MinSize: 1}, 3, 0, 1, ""},
		{"fewer copies", cluster.Pool{Name: "p", Scheme: cluster.Replicated, PGSize: 3, PGMinSize: 3, PGCount: 8}, PoolChange{Replicas: 2}, 2, 0, 1, ""},
		{"fewer copies, what was said still fits", cluster.Pool{Name: "p", Scheme: cluster.Replicated, PGSize: 4, PGMinSize: 3, PGCount: 8}, PoolChange{Replicas: 3}, 3, 0, 3, ""},
		{"another level", copies, PoolChange{FailureDomain: &osd}, 2, 0, 1, ""},
		{"more parity", ec, PoolChange{Data: 4, Parity: 3}, 7, 3, 5, ""},
		{"less parity", cluster.Pool{Name: "p", Scheme: cluster.EC, PGSize: 7, ParityChunks: 3, PGMinSize: 5, PGCount: 8}, PoolChange{Data: 4, Parity: 1}, 5, 1, 4, ""},
		{"xor as it is", xor, PoolChange{Data: 2, Parity: 1}, 3, 0, 2, ""},
		{"xor with two of parity is ec", xor, PoolChange{Data: 2, Parity: 2}, 4, 2, 3, ""},
		{"another number of data chunks", ec, PoolChange{Data: 3, Parity: 2}, 0, 0, 0, "4 chunks of data cannot be made 3"},
		{"copies of chunks", ec, PoolChange{Replicas: 5}, 0, 0, 0, "--ec 4+PARITY"},
		{"chunks of copies", copies, PoolChange{Data: 2, Parity: 1}, 0, 0, 0, "--pg_size"},
		{"too many must be there", copies, PoolChange{MinSize: 3}, 0, 0, 0, "pg_minsize is 3, want 1..2"},
		{"too few must be there", ec, PoolChange{MinSize: 3}, 0, 0, 0, "pg_minsize is 3, want 4..5"},
		{"nobody", copies, PoolChange{Replicas: -1}, 0, 0, 0, "negative"},
	} {
		before := c.pool
		got, err := c.change.Apply(&c.pool)
		switch {
		case c.fault != "":
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%s: %v, want %q", c.name, err, c.fault)
			}
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case uint64(got.PGSize) != c.size || uint64(got.ParityChunks) != c.parity || uint64(got.PGMinSize) != c.minSize || got.DataChunks() != before.DataChunks():
			t.Errorf("%s: %+v, want %d, %d, %d", c.name, got, c.size, c.parity, c.minSize)
		}
		if string(cluster.Value(&before)) != string(cluster.Value(&c.pool)) {
			t.Errorf("%s changed the pool itself", c.name)
		}
	}
}

// threeOSDs is a cluster with a pool that is whole, and a field in it that we do not know.
var threeOSDs = map[string]string{
	"config/pools":  `{"1":{"name":"p","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":1,"failure_domain":"osd","theirs":7},"2":{"name":"other","scheme":"replicated","pg_size":1,"pg_minsize":1,"pg_count":1}}`,
	"pg/config":     `{"items":{"1":{"1":{"osd_set":[1,2],"primary":1}}}}`,
	"pg/state/1/1":  `{"primary":1,"state":["active"],"peers":[1,2]}`,
	"osd/stats/1":   `{"host":"a","size":1000000}`,
	"osd/stats/2":   `{"host":"a","size":1000000}`,
	"osd/stats/3":   `{"host":"b","size":1000000}`,
	"config/global": `{}`,
}

// modify is one `modify-pool`.
func (w *world) modify(r registry.Registry, c *PoolChange) (p *cluster.Pool, err error) {
	w.t.Helper()
	s, ended := w.snapshot(), false
	ModifyPool(r, s, c, func(q *cluster.Pool, e error) { p, err, ended = q, e, true })
	if !w.w.RunUntil(func() bool { return ended }, time.Minute) {
		w.t.Fatal("ModifyPool does not end")
	}
	return p, err
}

func TestPoolIsChangedWhereItIs(t *testing.T) {
	w := newWorld(t, threeOSDs)
	p, err := w.modify(w.r, &PoolChange{Name: "p", Replicas: 3})
	if err != nil || p.PGSize != 3 || p.ID != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	s := w.snapshot()
	now, _ := s.Pools.Get(1)
	if now.PGSize != 3 || now.PGMinSize != 2 || string(now.Extra["theirs"]) != "7" || s.Pools.Len() != 2 {
		t.Errorf("the pool is %+v, one of %d", now, s.Pools.Len())
	}
	for _, c := range []struct {
		change PoolChange
		kind   Kind
		fault  string
	}{
		{PoolChange{Name: "q", Replicas: 3}, NotFound, `no pool "q"`},
		{PoolChange{Name: "p", Replicas: 4}, Refused, "there are 3 with OSDs"},
		{PoolChange{Name: "p", Replicas: 2}, Refused, "1 of its PGs are not whole"}, // the PG map has not got the third copy yet, but says two
	} {
		if c.change.Replicas == 2 {
			w.put("pg/state/1/1", `{"primary":1,"state":["active","degraded"],"peers":[1]}`)
		}
		_, err := w.modify(w.r, &c.change)
		if e, ok := errors.AsType[*Error](err); !ok || e.Kind != c.kind || !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%+v: %v, want %q", c.change, err, c.fault)
		}
	}
	if p, err := w.modify(w.r, &PoolChange{Name: "p", Replicas: 2, Force: true}); err != nil || p.PGSize != 2 || p.PGMinSize != 1 {
		t.Errorf("with force: %+v, %v", p, err)
	}
}

// The answer is lost once; then somebody else changes the pools in between.
func TestPoolIsChangedWhateverElseHappens(t *testing.T) {
	keys := maps.Clone(threeOSDs)
	w := newWorld(t, keys)
	reg := &registrytest.Late{Registry: w.r}
	n := 0
	reg.Catch = func(txn registry.Txn, done func(registry.TxnResult, error)) bool {
		if len(txn.If) == 0 {
			return false
		}
		switch n++; n {
		case 1:
			w.r.Txn(txn, func(registry.TxnResult, error) { done(registry.TxnResult{}, registry.ErrUnavailable) })
			return true
		case 2:
			w.r.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: cluster.KeyPools, Value: []byte(strings.Replace(threeOSDs["config/pools"], `"other"`, `"another"`, 1))}}}, func(registry.TxnResult, error) { w.r.Txn(txn, done) })
			return true
		}
		return false
	}
	if p, err := w.modify(reg, &PoolChange{Name: "p", Replicas: 3}); err != nil || p.PGSize != 3 || n != 1 {
		t.Fatalf("the answer was lost: %+v, %v after %d transactions", p, err, n)
	}
	if p, err := w.modify(reg, &PoolChange{Name: "p", Replicas: 3, MinSize: 3}); err != nil || p.PGMinSize != 3 || n != 3 {
		t.Fatalf("the pools changed meanwhile: %+v, %v after %d transactions", p, err, n)
	}
	s := w.snapshot()
	if p, _ := s.Pools.Get(1); p.PGSize != 3 || p.PGMinSize != 3 {
		t.Errorf("the pool is %+v", p)
	}
	if _, ok := s.Pool("another"); !ok {
		t.Error("what somebody else did is undone")
	}
}
