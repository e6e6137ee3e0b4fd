package gateway

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/registry/registrytest"
	"holdfast/core/sim"
)

// registered is a registration on a loop of its own.
type registered struct {
	*registration
	w     *sim.World
	store *memory.Store
	h     *memory.Handle
	on    func(func())
	shown func() int64 // what the key says, -1 when it is not there
	wait  func(int64)  // for the key to say it
}

func newRegistered(t *testing.T) *registered {
	w := sim.NewWorld(1)
	t.Cleanup(w.Close)
	store := memory.New(w.NewLoop("registry"))
	l := w.NewLoop("gateway")
	h := store.Open(l)
	v, err := config.Load(config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	g := newRegistration(l, h, Options{Config: v, Host: "h", Instance: 7}, slog.New(slog.DiscardHandler))
	shown := func() int64 {
		for _, kv := range store.Dump() {
			if kv.Key == cluster.GatewayKey("h") {
				var c cluster.Gateway
				if err := json.Unmarshal(kv.Value, &c); err != nil {
					t.Fatal(err)
				}
				return c.Revision
			}
		}
		return -1
	}
	wait := func(at int64) {
		t.Helper()
		if !w.RunUntil(func() bool { return shown() == at }, 30*time.Second) {
			t.Fatalf("the key says %d, want %d", shown(), at)
		}
	}
	return &registered{g, w, store, h, func(f func()) { l.Post(&loop.Task{Run: f}) }, shown, wait}
}

// Whoever makes an image waits for the revision in the gateway's key: it must come, whatever the key's write meets.
func TestRegistrationSaysWhatIsShown(t *testing.T) {
	g := newRegistered(t)
	w, store, h, on, wait := g.w, g.store, g.h, g.on, g.wait
	on(func() { g.shows(5); g.start(Addresses{}) })
	wait(5)
	on(func() { // the second comes while the first is written
		g.shows(6)
		g.shows(7)
	})
	wait(7)
	h.Unreachable(true)
	on(func() { g.shows(8) })
	w.Run(2 * time.Second)
	h.Unreachable(false)
	wait(8)
	h.Unreachable(true) // until the lease has run out, and the key with it
	w.Run(time.Minute)
	wait(-1)
	on(func() { g.shows(9) })
	h.Unreachable(false)
	wait(9)
	admin := store.Open(w.NewLoop("admin"))
	admin.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Delete, Key: cluster.GatewayKey("h")}}}, func(registry.TxnResult, error) {})
	wait(-1)
	on(func() { g.shows(10) })
	wait(10)
}

// A write of the key that was given up reaches etcd after a later one: who waits for the later revision must not wait for ever.
func TestRegistrationIsNotSetBackByALateWrite(t *testing.T) {
	g := newRegistered(t)
	g.on(func() { g.shows(5); g.start(Addresses{}) })
	g.wait(5)
	reg := &registrytest.Late{Registry: g.h}
	late := reg.GivenUp(func(registry.Txn) bool { return true })
	g.on(func() { g.r = reg; g.shows(6); g.shows(7) })
	g.wait(7)
	g.w.Run(5 * time.Second)
	g.on(late.Release)
	g.w.Run(time.Minute)
	g.wait(7)
}
