package etcd_test

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/core/registry"
	"holdfast/core/registry/etcd"
	"holdfast/core/registry/registrytest"
)

// stalling is a TCP relay that can swallow everything without closing anything.
type stalling struct {
	net.Conn
	on *atomic.Bool
}

func (s stalling) Write(p []byte) (int, error) {
	if s.on.Load() {
		return len(p), nil
	}
	return s.Conn.Write(p)
}

func stallable(t *testing.T, target string) (address string, stall *atomic.Bool) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	stall = new(atomic.Bool)
	go func() { // ends with the listener
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			go relay(stalling{in, stall}, out)
			go relay(stalling{out, stall}, in)
		}
	}()
	return ln.Addr().String(), stall
}

type heard struct {
	events int
	out    error
}

func (h *heard) Events(registry.Revision, []registry.Event) { h.events++ }
func (h *heard) Reset(registry.Revision)                    {}
func (h *heard) Unavailable(err error)                      { h.out = err }

func TestTimesChangeWhileRunning(t *testing.T) {
	address, stall := stallable(t, startEtcd(t))
	l := registrytest.NewLoop(t, false)
	long := etcd.Times{QuickTimeout: time.Minute, SlowTimeout: time.Minute, Progress: time.Minute, MaxAttempts: 3}
	r, err := etcd.Open(l, etcd.Options{Endpoints: []string{address}, QuickTimeout: long.QuickTimeout, SlowTimeout: long.SlowTimeout, Progress: long.Progress, MaxAttempts: long.MaxAttempts})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Times() != long {
		t.Errorf("Times() = %+v, want %+v", r.Times(), long)
	}
	h := &heard{}
	defer r.Watch([]string{"config/global"}, 0, h)()
	put := registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: "config/global", Value: []byte("{}")}}}
	for h.events == 0 { // until the watch stands
		done := false
		r.Txn(put, func(_ registry.TxnResult, err error) {
			if done = true; err != nil {
				t.Error(err)
			}
		})
		l.Until("a write", 10*time.Second, func() bool { return done })
	}
	stall.Store(true)
	r.SetTimes(etcd.Times{QuickTimeout: 100 * time.Millisecond, SlowTimeout: 300 * time.Millisecond, Progress: 100 * time.Millisecond})
	if got := r.Times().MaxAttempts; got != 5 {
		t.Errorf("MaxAttempts = %d, want the default", got)
	}
	l.Until("the silence to be noticed", 3*time.Second, func() bool { return h.out != nil })
	for _, timeout := range []time.Duration{0, registry.Slow} {
		var failed error
		put.Timeout = timeout
		r.Txn(put, func(_ registry.TxnResult, err error) { failed = err })
		l.Until("the request to time out", 3*time.Second, func() bool { return failed != nil })
		if !errors.Is(failed, registry.ErrUnavailable) {
			t.Errorf("error %v", failed)
		}
	}
}

// A member of etcd hangs without closing a connection: a watch that is in doubt goes on at another one, long before its silence would be noticed.
func TestWatchInDoubtLeavesAMemberThatHangs(t *testing.T) {
	target := startEtcd(t)
	one, stallOne := stallable(t, target)
	two, stallTwo := stallable(t, target)
	l := registrytest.NewLoop(t, false)
	r, err := etcd.Open(l, etcd.Options{Endpoints: []string{one, two}, QuickTimeout: 200 * time.Millisecond, Progress: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h := &heard{}
	defer r.Watch([]string{"config/global"}, 1, h)()
	put := func() {
		t.Helper()
		done := false
		var try func()
		try = func() {
			r.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: "config/global", Value: []byte("{}")}}}, func(_ registry.TxnResult, err error) {
				if done = err == nil; !done {
					try()
				}
			})
		}
		try()
		l.Until("a write", 10*time.Second, func() bool { return done })
	}
	put()
	l.Until("the first event", 10*time.Second, func() bool { return h.events > 0 })
	for _, stall := range []*atomic.Bool{stallOne, stallTwo} {
		r.Doubt() // the watches are tried just before, so the doubt that counts has to wait
		stall.Store(true)
		r.Doubt()
		before := h.events
		put()
		l.Until("the event at the other member", 3*time.Second, func() bool { return h.events > before })
		stall.Store(false)
	}
}

// A watch of one key must not hear of its neighbours, nor one of several keys miss any.
func TestWatchHearsWhatItAskedFor(t *testing.T) {
	l := registrytest.NewLoop(t, false)
	r, err := etcd.Open(l, etcd.Options{Endpoints: []string{startEtcd(t)}, QuickTimeout: patient})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	one, both, all := &heard{}, &heard{}, &heard{}
	defer r.Watch([]string{"config/global"}, 1, one)()
	defer r.Watch([]string{"config/global", "config/pools"}, 1, both)()
	defer r.Watch([]string{"config/global", "pg/"}, 1, all)()
	for _, key := range []string{"config/pools", "config/inode/1/1", "pg/config", "config/global"} {
		r.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: key, Value: []byte("{}")}}}, func(_ registry.TxnResult, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	l.Until("the events", 10*time.Second, func() bool { return one.events >= 1 && both.events >= 2 && all.events >= 2 })
	if one.events != 1 || both.events != 2 || all.events != 2 {
		t.Errorf("heard %d, %d, %d; want 1, 2, 2", one.events, both.events, all.events)
	}
}

// With a member that hangs, one request waits for its timeout at most, and those after it for nothing.
func TestRequestsLeaveAMemberThatHangs(t *testing.T) {
	l, r, stalls := twoMembers(t)
	const n = 6
	failed := 0
	stalls[0].Store(true)
	for range n {
		switch took, err := put(t, l, r, nil); {
		case err != nil && !errors.Is(err, registry.ErrUnavailable):
			t.Error(err)
		case err != nil:
			failed++
		case took > quick/2:
			t.Errorf("a request was answered after %v", took)
		}
	}
	if failed > 1 {
		t.Errorf("%d of %d requests were not answered, and one of two members hangs", failed, n)
	}
}

// With a doubt, a request that is under way at a member that hangs ends sooner; whether it was done is not known.
func TestRequestsUnderWayEndWithADoubt(t *testing.T) {
	l, r, stalls := twoMembers(t)
	for _, stall := range stalls {
		stall.Store(true)
	}
	took, err := put(t, l, r, r.Doubt)
	if !errors.Is(err, registry.ErrUnavailable) || took < quick/2-100*time.Millisecond || took > quick*3/4 {
		t.Errorf("it ended with %v after %v, wanted unavailable after %v", err, took, quick/2)
	}
}

const quick = 2 * time.Second

// twoMembers is a registry on two ways to one etcd, each of which can be made to hang; it has been asked once.
func twoMembers(t *testing.T) (*registrytest.Loop, *etcd.Registry, []*atomic.Bool) {
	t.Helper()
	target := startEtcd(t)
	one, stallOne := stallable(t, target)
	two, stallTwo := stallable(t, target)
	l := registrytest.NewLoop(t, false)
	r, err := etcd.Open(l, etcd.Options{Endpoints: []string{one, two}, QuickTimeout: quick, Progress: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	if _, err := put(t, l, r, nil); err != nil {
		t.Fatal(err)
	}
	return l, r, []*atomic.Bool{stallOne, stallTwo}
}

// put writes a key; then is done when the request is under way.
func put(t *testing.T, l *registrytest.Loop, r *etcd.Registry, then func()) (took time.Duration, err error) {
	t.Helper()
	began, done := time.Now(), false
	r.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: "config/global", Value: []byte("{}")}}}, func(_ registry.TxnResult, e error) { err, done = e, true })
	if then != nil {
		then()
	}
	l.Until("an answer", 10*time.Second, func() bool { return done })
	return time.Since(began), err
}
