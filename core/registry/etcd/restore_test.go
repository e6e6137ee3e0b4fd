package etcd_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"holdfast/core/registry"
	"holdfast/core/registry/etcd"
	"holdfast/core/registry/registrytest"
)

// resets writes down what a watch is told.
type resets struct {
	revs, shown []registry.Revision
}

func (w *resets) Events(rev registry.Revision, _ []registry.Event) { w.shown = append(w.shown, rev) }
func (w *resets) Reset(rev registry.Revision)                      { w.revs = append(w.revs, rev) }
func (w *resets) Unavailable(error)                                {}

// TestAnotherCopyOfEtcdResetsTheWatch puts another etcd behind the address at once, as an operator does who restores a backup: etcd's client resumes the watch by itself, and a new
// etcd keeps silent about revisions that it has not reached.
func TestAnotherCopyOfEtcdResetsTheWatch(t *testing.T) {
	for _, c := range []struct {
		name  string
		token string
		puts  int // in the other one, before it takes over
	}{
		{"an older revision", "etcd-cluster", 0},
		{"a newer revision in another cluster", "restored", 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second := startEtcd(t), startEtcdWith(t, c.token)
			fill(t, first, 10)
			fill(t, second, c.puts)
			l := registrytest.NewLoop(t, false)
			p := newProxy(t, first)
			r, err := etcd.Open(l, etcd.Options{Endpoints: []string{"http://" + p.ln.Addr().String()}, Prefix: "/restore", Progress: 300 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(r.Close)
			w := &resets{}
			defer r.Watch([]string{""}, 1, w)()
			l.Until("the first events", 10*time.Second, func() bool { return len(w.shown) == 10 })
			p.move(second)
			l.Until("the reset", 10*time.Second, func() bool { return len(w.revs) > 0 })
			if len(w.revs) != 1 || w.revs[0] >= w.shown[9] {
				t.Errorf("reset to %v after %v: it has to say that the registry went back", w.revs, w.shown)
			}
			shown := len(w.shown)
			fill(t, second, 1)
			l.Until("events of the other copy", 10*time.Second, func() bool { return len(w.shown) > shown })
		})
	}
}

// move has connections lead to another server, without a moment in which there is none.
func (p *proxy) move(target string) {
	p.mu.Lock()
	p.target = target
	p.mu.Unlock()
	p.set(true)
	p.set(false)
}

func fill(t *testing.T, endpoint string, puts int) {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range puts {
		if _, err := c.Put(context.Background(), fmt.Sprintf("/restore/%d", i), "x"); err != nil {
			t.Fatal(err)
		}
	}
}
