package sim

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"holdfast/core/registry"
)

// keeper follows a watch and a lease.
type keeper struct {
	revs    []registry.Revision
	resets  []registry.Revision
	broken  int
	granted int
	lost    error
	lostAt  time.Duration
	w       *World
}

func (k *keeper) Events(rev registry.Revision, _ []registry.Event) { k.revs = append(k.revs, rev) }
func (k *keeper) Reset(rev registry.Revision)                      { k.resets = append(k.resets, rev) }
func (k *keeper) Unavailable(error)                                { k.broken++ }
func (k *keeper) Granted(registry.Lease)                           { k.granted++ }
func (k *keeper) Lost(_ registry.Lease, err error)                 { k.lost, k.lostAt = err, k.w.Elapsed() }

// desk is a registry with one process that uses it.
type desk struct {
	t *testing.T
	w *World
	r *Registry
	l *Loop
	h registry.Registry
}

func newDesk(t *testing.T, seed uint64) *desk {
	w := NewWorld(seed)
	r := NewRegistry(w, "registry")
	l := w.NewLoop("p")
	return &desk{t, w, r, l, r.Open(l)}
}

// try puts a key and returns what became of it.
func (d *desk) try(key, value string, lease registry.LeaseID) (res registry.TxnResult, err error) {
	d.t.Helper()
	answers := 0
	d.h.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: key, Value: []byte(value), Lease: lease}}}, func(r registry.TxnResult, e error) { res, err, answers = r, e, answers+1 })
	if !d.w.RunUntil(func() bool { return answers > 0 }, time.Minute) {
		d.t.Fatal("a transaction is not answered")
	}
	return res, err
}

func (d *desk) put(key, value string) registry.Revision {
	d.t.Helper()
	res, err := d.try(key, value, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	return res.Revision
}

func (d *desk) want(f Fault, least uint64) {
	d.t.Helper()
	if n := d.w.Faults()[f]; n < least {
		d.t.Errorf("%v was counted %d times, want at least %d", f, n, least)
	}
}

func TestLostAnswerLeavesTheChangeAndLostRequestDoesNot(t *testing.T) {
	d := newDesk(t, 1)
	d.r.SetFaults(RegistryFaults{LoseReply: 1})
	if _, err := d.try("a", "1", 0); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("err = %v", err)
	}
	d.r.SetFaults(RegistryFaults{LoseRequest: 1})
	if _, err := d.try("b", "1", 0); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("err = %v", err)
	}
	if kvs := d.r.Dump(); len(kvs) != 1 || kvs[0].Key != "a" {
		t.Errorf("keys %v, want a alone", kvs)
	}
	d.want(FaultReplyLost, 1)
	d.want(FaultRequestLost, 1)
}

func TestSlowRequestHappensAfterItsCallerGaveUp(t *testing.T) {
	d := newDesk(t, 1)
	d.r.SetFaults(RegistryFaults{Slow: 1, SlowBy: Delay{Min: 3 * time.Second, Max: 4 * time.Second}})
	if _, err := d.try("a", "1", 0); !errors.Is(err, registry.ErrUnavailable) || len(d.r.Dump()) != 0 {
		t.Errorf("err = %v with %d keys", err, len(d.r.Dump()))
	}
	d.w.Run(4 * time.Second)
	if len(d.r.Dump()) != 1 {
		t.Error("the late request was not carried out")
	}
	d.want(FaultRegistrySlow, 1)
}

func TestRequestStoppedByACutMayArriveWhenItEnds(t *testing.T) {
	for _, odds := range []float64{0, 1} {
		d := newDesk(t, 1)
		d.r.SetFaults(RegistryFaults{LateRequest: odds})
		d.r.Cut(d.l, true, true)
		if _, err := d.try("a", "1", 0); !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("err = %v", err)
		}
		d.r.HealAll()
		d.w.Run(time.Second)
		if got := len(d.r.Dump()); got != int(odds) {
			t.Errorf("%d keys with odds of %v", got, odds)
		}
		d.want(FaultRegistryCut, 1)
	}
}

func TestRequestOfAProcessThatDiedStillHappens(t *testing.T) {
	d := newDesk(t, 1)
	d.h.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: "a"}}}, func(registry.TxnResult, error) { t.Error("the dead are told") })
	d.w.Run(10 * time.Microsecond)
	d.l.Kill()
	d.w.Run(time.Second)
	if len(d.r.Dump()) != 1 {
		t.Error("it did not happen")
	}
}

func TestBrokenWatchGoesOnWhereItWas(t *testing.T) {
	d := newDesk(t, 3)
	k := &keeper{}
	d.h.Watch([]string{"a"}, 1, k)
	d.r.SetFaults(RegistryFaults{BreakWatch: 0.5, SlowWatch: 0.5, SlowWatchBy: Delay{Max: time.Second}})
	for i := range 20 {
		d.put("a", fmt.Sprint(i))
		d.w.Run(time.Second)
	}
	d.r.SetFaults(RegistryFaults{})
	d.w.Run(time.Minute)
	for i, rev := range k.revs {
		if rev != registry.Revision(i+2) {
			t.Fatalf("revisions %v: each once, in order", k.revs)
		}
	}
	if len(k.revs) != 20 || k.broken == 0 || len(k.resets) != 0 {
		t.Errorf("%d revisions, broken %d times, resets %v", len(k.revs), k.broken, k.resets)
	}
	d.want(FaultWatchBroken, 2)
	d.want(FaultWatchSlow, 1)
}

func TestWatchThatWasCutOffOverACompactionReadsAgain(t *testing.T) {
	d := newDesk(t, 1)
	k := &keeper{}
	d.h.Watch([]string{"a"}, 1, k)
	d.put("a", "1")
	d.w.Run(time.Second)
	d.r.Cut(d.l, false, true)
	other := d.r.Open(d.w.NewLoop("other"))
	for range 3 {
		other.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: "a"}}}, func(registry.TxnResult, error) {})
	}
	d.w.Run(time.Second)
	d.r.Compact(d.r.Revision())
	d.r.HealAll()
	d.w.Run(time.Second)
	if len(k.revs) != 1 || len(k.resets) != 1 || k.resets[0] != d.r.Revision() {
		t.Errorf("revisions %v, resets %v", k.revs, k.resets)
	}
	d.want(FaultCompaction, 1)
}

func TestRestoredRegistryResetsItsWatches(t *testing.T) {
	for _, later := range []int{0, 5} { // 5: its revision has passed the old one when the watch comes back
		d := newDesk(t, 1)
		k := &keeper{}
		d.put("a", "1")
		backup := d.r.Backup()
		d.h.Watch([]string{"a"}, 1, k)
		d.put("a", "2")
		d.w.Run(time.Second)
		d.r.Restore(backup, 0)
		if d.r.Revision() != backup.Revision() || string(d.r.Dump()[0].Value) != "1" {
			t.Errorf("revision %d, want %d", d.r.Revision(), backup.Revision())
		}
		for range later {
			d.put("b", "1")
		}
		d.w.Run(time.Second)
		if len(k.resets) != 1 || k.resets[0] >= 2 {
			t.Errorf("%d changes later: resets %v", later, k.resets)
		}
		d.put("a", "3")
		d.w.Run(time.Second)
		if len(k.revs) != 3 {
			t.Errorf("%d changes later: revisions %v", later, k.revs)
		}
		d.want(FaultRestore, 1)
	}
}

func TestLeasesEndByTheRegistrysOwnClock(t *testing.T) {
	for _, ppm := range []int64{-100_000, 100_000} {
		d := newDesk(t, 1)
		d.r.Loop().SetDrift(ppm)
		k := &keeper{w: d.w}
		le := d.h.Grant(10*time.Second, k)
		d.w.RunUntil(func() bool { return k.granted > 0 }, time.Second)
		if _, err := d.try("a", "1", le.ID()); err != nil {
			t.Fatal(err)
		}
		d.l.Kill()
		start := d.w.Elapsed()
		if !d.w.RunUntil(func() bool { return len(d.r.Dump()) == 0 }, time.Minute) {
			t.Fatal("the lease never ends")
		}
		took, want := d.w.Elapsed()-start, time.Duration(float64(10*time.Second)/(1+float64(ppm)/1e6))
		if (took - want).Abs() > 20*time.Millisecond {
			t.Errorf("with %d ppm the lease lived %v, want %v", ppm, took, want)
		}
		d.want(FaultClockDrift, 1)
	}
}

func TestLeaseOutlivesAnOutageOfTheRegistry(t *testing.T) {
	d := newDesk(t, 1)
	k := &keeper{w: d.w}
	le := d.h.Grant(5*time.Second, k)
	d.w.RunUntil(func() bool { return k.granted > 0 }, time.Second)
	if _, err := d.try("a", "1", le.ID()); err != nil {
		t.Fatal(err)
	}
	d.r.SetDown(true)
	d.w.Run(8 * time.Second)
	if !errors.Is(k.lost, registry.ErrUnavailable) || k.lostAt > 6*time.Second {
		t.Errorf("lost %v at %v", k.lost, k.lostAt)
	}
	d.r.SetDown(false)
	d.w.Run(4 * time.Second)
	if len(d.r.Dump()) != 1 {
		t.Error("a new leader gives every lease its whole time again; it was ended early")
	}
	d.w.Run(2 * time.Second)
	if len(d.r.Dump()) != 0 {
		t.Error("the lease lives for ever")
	}
	d.want(FaultRegistryDown, 1)
}

func TestLateKeepAliveLosesTheLease(t *testing.T) {
	d := newDesk(t, 1)
	k := &keeper{w: d.w}
	le := d.h.Grant(5*time.Second, k)
	d.w.RunUntil(func() bool { return k.granted > 0 }, time.Second)
	d.r.SetFaults(RegistryFaults{Slow: 1, SlowBy: Delay{Min: 10 * time.Second, Max: 10 * time.Second}})
	d.w.Run(20 * time.Second)
	if k.lost == nil || le.Until() > d.l.Now() || len(d.r.Leases()) != 0 {
		t.Errorf("lost %v, %d leases left", k.lost, len(d.r.Leases()))
	}
}

func TestLeaseIsKeptWhileOnlyAnswersAreLost(t *testing.T) {
	d := newDesk(t, 1)
	k := &keeper{w: d.w}
	d.h.Grant(5*time.Second, k)
	d.w.RunUntil(func() bool { return k.granted > 0 }, time.Second)
	d.w.Run(time.Second)
	d.r.Cut(d.l, false, true)
	d.w.Run(6 * time.Second)
	if !errors.Is(k.lost, registry.ErrUnavailable) || len(d.r.Leases()) != 1 {
		t.Errorf("lost %v with %d leases: the holder must give up before the registry does", k.lost, len(d.r.Leases()))
	}
}

func TestRegistryWritesTheLog(t *testing.T) {
	d := newDesk(t, 1)
	var log bytes.Buffer
	d.w.Trace(&log)
	d.put("config/pools", "{}")
	d.r.Compact(2)
	for _, want := range []string{` p registry: transaction 2 "config/pools"`, " registry fault: registry: compacted to 2"} {
		if !bytes.Contains(log.Bytes(), []byte(want)) {
			t.Errorf("%q is not in the log:\n%s", want, log.Bytes())
		}
	}
}
