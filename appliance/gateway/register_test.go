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
	"holdfast/core/sim"
)

// Whoever makes an image waits for the revision in the gateway's key: it must come, whatever the key's write meets.
func TestRegistrationSaysWhatIsShown(t *testing.T) {
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
	on := func(f func()) { l.Post(&loop.Task{Run: f}) }
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
