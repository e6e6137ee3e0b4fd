// Package registrytest is the conformance suite of core/registry, which every implementation passes, and a loop for tests.
package registrytest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"holdfast/core/registry"
)

// Env is one empty registry for one test.
type Env struct {
	Loop *Loop
	// Open makes another handle on the same keys, on Loop.
	Open func() registry.Registry
	// Cut cuts all handles off from the registry, or joins them again.
	Cut func(cut bool)
	// Compact forgets the events up to rev.
	Compact func(rev registry.Revision)
	// Expire ends a lease from outside.
	Expire func(id registry.LeaseID)
	// TTL is the shortest time to live that the registry keeps.
	TTL time.Duration
}

// patience is longer than anything the suite waits for.
const patience = 20 * time.Second

// Run runs the suite; env makes a registry for each test.
func Run(t *testing.T, env func(t *testing.T) *Env) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *Env)
	}{
		{"TransactionRunsOneBranch", branches},
		{"ComparisonsHold", comparisons},
		{"BadTransactionIsRefusedAndDoesNothing", refusals},
		{"ResultsSeeTheTransactionItself", readOwnWrites},
		{"LoadReadsOneRevision", load},
		{"WatchShowsEachRevisionOnceAndWhole", watchWhole},
		{"WatchStartsInThePast", watchPast},
		{"StoppedWatchIsSilent", watchStop},
		{"CompactedWatchIsReset", watchCompacted},
		{"WatchSurvivesAnOutage", watchOutage},
		{"OutcomeIsUnknownWhenUnreachable", unavailable},
		{"LeaseKeepsItsKeysAlive", leaseLives},
		{"RevokedLeaseTakesItsKeysAlong", leaseRevoked},
		{"EndedLeaseIsLost", leaseEnded},
		{"LeaseOfAnotherIsRevoked", leaseOfAnother},
		{"UnreachableLeaseIsLostWithinItsTime", leaseUnreachable},
		{"CallbacksNeverRunInsideTheCall", laterOnly},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, env(t))
		})
	}
}

// txn runs one transaction to its end.
func (e *Env) txn(t *testing.T, r registry.Registry, txn registry.Txn) (registry.TxnResult, error) {
	t.Helper()
	var res registry.TxnResult
	var err error
	done := 0
	r.Txn(txn, func(got registry.TxnResult, gotErr error) { res, err, done = got, gotErr, done+1 })
	e.Loop.Until("the answer to a transaction", patience, func() bool { return done > 0 })
	if done != 1 {
		t.Fatalf("a transaction was answered %d times", done)
	}
	return res, err
}

func (e *Env) must(t *testing.T, r registry.Registry, txn registry.Txn) registry.TxnResult {
	t.Helper()
	res, err := e.txn(t, r, txn)
	if err != nil {
		t.Fatalf("transaction: %v", err)
	}
	return res
}

func put(key, value string) registry.Op {
	return registry.Op{Kind: registry.Put, Key: key, Value: []byte(value)}
}

func then(ops ...registry.Op) registry.Txn { return registry.Txn{Then: ops} }

func (e *Env) get(t *testing.T, r registry.Registry, key string) (kv registry.KV, found bool) {
	t.Helper()
	res := e.must(t, r, then(registry.Op{Kind: registry.Get, Key: key}))
	if len(res.Results[0]) == 0 {
		return kv, false
	}
	return res.Results[0][0], true
}

func branches(t *testing.T, e *Env) {
	r := e.Open()
	create := registry.Txn{If: []registry.Compare{registry.Absent("a")}, Then: []registry.Op{put("a", "1")}, Else: []registry.Op{{Kind: registry.Get, Key: "a"}}}
	first := e.must(t, r, create)
	if !first.Succeeded || len(first.Results) != 1 || first.Results[0] != nil {
		t.Fatalf("first = %+v, want success and one empty result", first)
	}
	second := e.must(t, r, create)
	if second.Succeeded || second.Revision != first.Revision || len(second.Results) != 1 || len(second.Results[0]) != 1 {
		t.Fatalf("second = %+v, want Else at revision %d", second, first.Revision)
	}
	if kv := second.Results[0][0]; kv.Key != "a" || string(kv.Value) != "1" || kv.Create != first.Revision || kv.Mod != first.Revision || kv.Version != 1 || kv.Lease != 0 {
		t.Errorf("a = %+v", kv)
	}
	third := e.must(t, r, then(put("a", "2")))
	if kv, _ := e.get(t, r, "a"); string(kv.Value) != "2" || kv.Create != first.Revision || kv.Mod != third.Revision || kv.Version != 2 {
		t.Errorf("a = %+v after a second put at %d", kv, third.Revision)
	}
	gone := e.must(t, r, then(registry.Op{Kind: registry.Delete, Key: "a"}))
	again := e.must(t, r, then(registry.Op{Kind: registry.Delete, Key: "a"}))
	if gone.Revision != third.Revision+1 || again.Revision != gone.Revision {
		t.Errorf("deletes at %d and %d after %d: deleting nothing is no change", gone.Revision, again.Revision, third.Revision)
	}
}

func comparisons(t *testing.T, e *Env) {
	r := e.Open()
	rev := e.must(t, r, then(put("k", "m"))).Revision
	for _, c := range []struct {
		c    registry.Compare
		want bool
	}{
		{registry.Exists("k"), true},
		{registry.Absent("k"), false},
		{registry.Absent("none"), true},
		{registry.Unchanged("k", rev), true},
		{registry.Unchanged("k", rev-1), false},
		{registry.Unchanged("none", 0), true},
		{registry.NotAfter("k", rev), true},
		{registry.NotAfter("k", rev-1), false},
		{registry.NotAfter("none", 1), true},
		{registry.HeldBy("k", 5), false},
		{registry.Compare{Key: "k", Target: registry.CompareValue, Op: registry.Equal, Value: []byte("m")}, true},
		{registry.Compare{Key: "k", Target: registry.CompareValue, Op: registry.Less, Value: []byte("n")}, true},
		{registry.Compare{Key: "k", Target: registry.CompareValue, Op: registry.Greater, Value: []byte("n")}, false},
		{registry.Compare{Key: "k", Target: registry.CompareValue, Op: registry.NotEqual, Value: []byte("n")}, true},
		{registry.Compare{Key: "none", Target: registry.CompareValue, Op: registry.NotEqual, Value: []byte("n")}, false},
		{registry.Compare{Key: "k", Target: registry.CompareCreate, Op: registry.Equal, Num: int64(rev)}, true},
		{registry.Compare{Key: "k", Target: registry.CompareVersion, Op: registry.Less, Num: 1}, false},
	} {
		if got := e.must(t, r, registry.Txn{If: []registry.Compare{c.c}}).Succeeded; got != c.want {
			t.Errorf("%+v = %v, want %v", c.c, got, c.want)
		}
	}
}

func refusals(t *testing.T, e *Env) {
	r := e.Open()
	before := e.must(t, r, then(put("z", "1"))).Revision
	for _, c := range []struct {
		name string
		txn  registry.Txn
		want error
	}{
		{"a key twice", then(put("a", "1"), put("a", "2")), nil},
		{"put and deleted", then(put("a", "1"), registry.Op{Kind: registry.DeletePrefix, Key: ""}), nil},
		{"an empty key", then(put("", "1")), nil},
		{"a slash in front", then(put("/a", "1")), nil},
		{"no such operation", then(registry.Op{Key: "a"}), nil},
		{"no such lease", then(put("b", "1"), registry.Op{Kind: registry.Put, Key: "a", Lease: 12345}), registry.ErrNoLease},
	} {
		_, err := e.txn(t, r, c.txn)
		if !registry.IsRequestError(err) || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: err = %v, want a RequestError with %v", c.name, err, c.want)
		}
	}
	if after := e.must(t, r, registry.Txn{}).Revision; after != before {
		t.Errorf("revision went from %d to %d by refused transactions", before, after)
	}
}

func readOwnWrites(t *testing.T, e *Env) {
	r := e.Open()
	e.must(t, r, then(put("p/1", "a"), put("p/2", "b"), put("q", "c")))
	res := e.must(t, r, then(registry.Op{Kind: registry.DeletePrefix, Key: "p/"}, registry.Op{Kind: registry.GetPrefix, Key: "p/"}, put("q", "d"), registry.Op{Kind: registry.Get, Key: "q"}))
	if len(res.Results) != 4 || len(res.Results[1]) != 0 || len(res.Results[3]) != 1 || string(res.Results[3][0].Value) != "d" {
		t.Errorf("results = %+v, want nothing under p/ and q = d", res.Results)
	}
}

func load(t *testing.T, e *Env) {
	r := e.Open()
	rev := e.must(t, r, then(put("b/2", "x"), put("b/1", "y"), put("a", "z"), put("c", "w"))).Revision
	var keys []string
	var at registry.Revision
	registry.Load(r, []string{"b/", "a"}, func(kvs []registry.KV, rev registry.Revision, err error) {
		if err != nil {
			t.Errorf("load: %v", err)
		}
		for _, kv := range kvs {
			keys = append(keys, kv.Key)
		}
		at = rev
	})
	e.Loop.Until("the load", patience, func() bool { return at != 0 })
	if want := []string{"b/1", "b/2", "a"}; !slices.Equal(keys, want) || at != rev {
		t.Errorf("load = %v at %d, want %v at %d", keys, at, want, rev)
	}
}

// recorder writes down what a watch shows.
type recorder struct {
	lines  []string
	resets []registry.Revision
	lost   int
}

func (w *recorder) Events(rev registry.Revision, evs []registry.Event) {
	line := ""
	for _, ev := range evs {
		switch {
		case ev.KV.Mod != rev:
			line += fmt.Sprintf(" %s has revision %d in %d", ev.KV.Key, ev.KV.Mod, rev)
		case ev.Deleted:
			line += " -" + ev.KV.Key
		default:
			line += " " + ev.KV.Key + "=" + string(ev.KV.Value)
		}
	}
	w.lines = append(w.lines, line[1:])
}
func (w *recorder) Reset(rev registry.Revision) { w.resets = append(w.resets, rev) }
func (w *recorder) Unavailable(error)           { w.lost++ }

func (e *Env) sees(t *testing.T, w *recorder, want ...string) {
	t.Helper()
	e.Loop.Until(fmt.Sprintf("events %q", want), patience, func() bool { return len(w.lines) >= len(want) })
	if !slices.Equal(w.lines, want) {
		t.Fatalf("events = %q, want %q", w.lines, want)
	}
}

func watchWhole(t *testing.T, e *Env) {
	r, other := e.Open(), e.Open()
	start := e.must(t, r, then(put("a/1", "0"))).Revision
	w := &recorder{}
	defer r.Watch([]string{"a/", "b/"}, start+1, w)()
	e.must(t, other, then(put("b/1", "1"), put("c", "1"), put("a/2", "1"), registry.Op{Kind: registry.Delete, Key: "a/1"}))
	e.must(t, other, then(put("c", "2")))
	e.must(t, r, then(put("b/1", "3")))
	e.sees(t, w, "b/1=1 a/2=1 -a/1", "b/1=3")
}

func watchPast(t *testing.T, e *Env) {
	r := e.Open()
	first := e.must(t, r, then(put("a", "1"))).Revision
	e.must(t, r, then(put("a", "2")))
	e.must(t, r, then(put("a", "3")))
	w := &recorder{}
	defer r.Watch([]string{"a"}, first+1, w)()
	e.sees(t, w, "a=2", "a=3")
	e.must(t, r, then(put("a", "4")))
	e.sees(t, w, "a=2", "a=3", "a=4")
}

func watchStop(t *testing.T, e *Env) {
	r := e.Open()
	start := e.must(t, r, then(put("a", "1"))).Revision
	stopped, going := &recorder{}, &recorder{}
	stop := r.Watch([]string{"a"}, start+1, stopped)
	defer r.Watch([]string{"a"}, start+1, going)()
	e.must(t, r, then(put("a", "2")))
	e.sees(t, stopped, "a=2")
	stop()
	stop()
	e.must(t, r, then(put("a", "3")))
	e.sees(t, going, "a=2", "a=3")
	e.sees(t, stopped, "a=2")
}

func watchCompacted(t *testing.T, e *Env) {
	r := e.Open()
	first := e.must(t, r, then(put("a", "1"))).Revision
	e.must(t, r, then(put("a", "2")))
	last := e.must(t, r, then(put("a", "3"))).Revision
	e.Compact(last)
	w := &recorder{}
	defer r.Watch([]string{"a"}, first, w)()
	e.Loop.Until("the reset", patience, func() bool { return len(w.resets) > 0 })
	e.must(t, r, then(put("a", "4")))
	e.sees(t, w, "a=4")
	if len(w.resets) != 1 || w.resets[0] < last {
		t.Errorf("resets = %v, want one at or after %d", w.resets, last)
	}
}

func watchOutage(t *testing.T, e *Env) {
	r := e.Open()
	start := e.must(t, r, then(put("a", "1"))).Revision
	w := &recorder{}
	defer r.Watch([]string{"a"}, start+1, w)()
	e.must(t, r, then(put("a", "2")))
	e.sees(t, w, "a=2")
	e.Cut(true)
	e.Loop.Until("the loss of contact", patience, func() bool { return w.lost > 0 })
	e.Cut(false)
	e.Loop.Until("a put", patience, func() bool {
		_, err := e.txn(t, r, registry.Txn{If: []registry.Compare{registry.Unchanged("a", start+1)}, Then: []registry.Op{put("a", "3")}})
		return err == nil
	})
	e.sees(t, w, "a=2", "a=3")
	if w.lost != 1 || len(w.resets) != 0 {
		t.Errorf("lost %d times and reset %d times, want 1 and 0", w.lost, len(w.resets))
	}
}

func unavailable(t *testing.T, e *Env) {
	r := e.Open()
	e.must(t, r, then(put("a", "1")))
	e.Cut(true)
	start := e.Loop.Now()
	_, err := e.txn(t, r, registry.Txn{Then: []registry.Op{put("a", "2")}, Timeout: 300 * time.Millisecond})
	if !errors.Is(err, registry.ErrUnavailable) || registry.IsRequestError(err) {
		t.Errorf("err = %v, want ErrUnavailable", err)
	}
	if took := e.Loop.Now().Sub(start); took > 2*time.Second {
		t.Errorf("a timeout of 300ms took %v", took)
	}
	e.Cut(false)
}

// holder writes down what becomes of a lease.
type holder struct {
	granted int
	lost    []error
}

func (h *holder) Granted(registry.Lease)         { h.granted++ }
func (h *holder) Lost(_ registry.Lease, e error) { h.lost = append(h.lost, e) }

func (e *Env) grant(t *testing.T, r registry.Registry) (registry.Lease, *holder) {
	t.Helper()
	h := &holder{}
	le := r.Grant(e.TTL, h)
	if le.ID() != 0 || h.granted != 0 {
		t.Fatal("a lease was granted inside the call")
	}
	e.Loop.Until("the lease", patience, func() bool { return h.granted > 0 })
	if le.ID() == 0 || le.Until() <= e.Loop.Now() {
		t.Fatalf("granted lease %d until %d at %d", le.ID(), le.Until(), e.Loop.Now())
	}
	return le, h
}

func leased(key string, id registry.LeaseID) registry.Txn {
	return registry.Txn{If: []registry.Compare{registry.Absent(key)}, Then: []registry.Op{{Kind: registry.Put, Key: key, Value: []byte("1"), Lease: id}}}
}

func leaseLives(t *testing.T, e *Env) {
	r := e.Open()
	le, h := e.grant(t, r)
	e.must(t, r, leased("l", le.ID()))
	e.Loop.Run(e.TTL * 2)
	kv, found := e.get(t, r, "l")
	if !found || kv.Lease != le.ID() || len(h.lost) != 0 {
		t.Errorf("after twice its time: key %+v, lost %v", kv, h.lost)
	}
	if !e.must(t, r, registry.Txn{If: []registry.Compare{registry.HeldBy("l", le.ID())}}).Succeeded {
		t.Error("the key is not held by its lease")
	}
}

func leaseRevoked(t *testing.T, e *Env) {
	r := e.Open()
	le, h := e.grant(t, r)
	start := e.must(t, r, registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: "l/2", Lease: le.ID()}, {Kind: registry.Put, Key: "l/1", Lease: le.ID()}, put("l/0", "")}}).Revision
	w := &recorder{}
	defer r.Watch([]string{"l/"}, start+1, w)()
	done := false
	le.Revoke(func(err error) {
		if done = true; err != nil {
			t.Errorf("revoke: %v", err)
		}
	})
	e.Loop.Until("the revocation", patience, func() bool { return done })
	e.sees(t, w, "-l/1 -l/2")
	e.Loop.Run(e.TTL)
	if len(h.lost) != 0 || h.granted != 1 {
		t.Errorf("after revocation the handler was called: %+v", h)
	}
}

// leaseOfAnother ends the lease of a holder from elsewhere, then once more.
func leaseOfAnother(t *testing.T, e *Env) {
	le, h := e.grant(t, e.Open())
	r := e.Open()
	e.must(t, r, leased("l", le.ID()))
	for range 2 {
		done := false
		r.Revoke(le.ID(), func(err error) {
			if done = true; err != nil {
				t.Errorf("revoke: %v", err)
			}
		})
		e.Loop.Until("the revocation", patience, func() bool { return done })
		if res := e.must(t, r, registry.Txn{Then: []registry.Op{{Kind: registry.Get, Key: "l"}}}); len(res.Results[0]) != 0 {
			t.Error("the key outlives its lease")
		}
	}
	e.Loop.Until("the loss", patience, func() bool { return len(h.lost) > 0 })
	if !errors.Is(h.lost[0], registry.ErrNoLease) {
		t.Errorf("lost by %v, want ErrNoLease", h.lost[0])
	}
}

func leaseEnded(t *testing.T, e *Env) {
	r := e.Open()
	le, h := e.grant(t, r)
	e.Expire(le.ID())
	e.Loop.Until("the loss", patience, func() bool { return len(h.lost) > 0 })
	if !errors.Is(h.lost[0], registry.ErrNoLease) {
		t.Errorf("lost by %v, want ErrNoLease", h.lost[0])
	}
	e.Loop.Run(e.TTL)
	if len(h.lost) != 1 {
		t.Errorf("lost %d times", len(h.lost))
	}
}

func leaseUnreachable(t *testing.T, e *Env) {
	r := e.Open()
	le, h := e.grant(t, r)
	e.must(t, r, leased("l", le.ID()))
	e.Cut(true)
	cut := e.Loop.Now()
	e.Loop.Until("the loss", patience, func() bool { return len(h.lost) > 0 })
	if !errors.Is(h.lost[0], registry.ErrUnavailable) {
		t.Errorf("lost by %v, want ErrUnavailable", h.lost[0])
	}
	// Some room for a busy machine: the promise itself is Until's.
	if took := e.Loop.Now().Sub(le.Until()); le.Until() > cut.Add(e.TTL) || took > time.Second {
		t.Errorf("cut off at %d, lease of %v until %d, learned of the loss %v later", cut, e.TTL, le.Until(), took)
	}
	e.Cut(false)
	e.Loop.Until("the end of the key", patience, func() bool {
		res, err := e.txn(t, r, then(registry.Op{Kind: registry.Get, Key: "l"}))
		return err == nil && len(res.Results[0]) == 0
	})
}

func laterOnly(t *testing.T, e *Env) {
	r := e.Open()
	inside, calls := true, 0
	check := func() {
		if calls++; inside {
			t.Error("a callback ran inside the call that started it")
		}
	}
	r.Txn(then(put("/bad", "")), func(registry.TxnResult, error) { check() })
	r.Txn(then(put("a", "1")), func(registry.TxnResult, error) { check() })
	h := &holder{}
	le := r.Grant(e.TTL, h)
	le.Revoke(func(error) { check() })
	stop := r.Watch([]string{""}, 1, &recorder{})
	stop()
	inside = false
	e.Loop.Until("the callbacks", patience, func() bool { return calls == 3 })
	if h.granted != 0 || len(h.lost) != 0 {
		t.Errorf("a revoked lease called its handler: %+v", h)
	}
}
