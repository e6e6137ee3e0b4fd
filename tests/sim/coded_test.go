package sim

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/core/cluster"
)

// TestCodedObjects writes and reads anywhere in erasure-coded objects, whole, with chunks away, and again when they are back.
func TestCodedObjects(t *testing.T) {
	for _, c := range []struct{ k, m int }{{2, 1}, {4, 2}} {
		x := start(t, Options{Seed: 7, OSDs: c.k + c.m, Replicas: c.k + c.m, Parity: c.m, MinSize: c.k, PGs: 2})
		object := uint64(c.k) * uint64(128<<10)
		size := 2 * object
		want := make([]byte, size)
		k := x.NewClient(7)
		r := rand.New(rand.NewPCG(1, uint64(c.k)))
		check := func(when string) {
			t.Helper()
			for range 20 {
				off := r.Uint64N(size/4096) * 4096
				n := min((1+r.Uint64N(64))*4096, object-off%object)
				if got := k.Read(image, off, int(n)); !bytes.Equal(got.Data, want[off:off+n]) {
					t.Fatalf("%d+%d %s: %d+%d reads wrong", c.k, c.m, when, off, n)
				}
			}
		}
		change := func() {
			t.Helper()
			for range 20 {
				off := r.Uint64N(size/4096) * 4096
				n := min((1+r.Uint64N(64))*4096, object-off%object)
				p := pattern(int(n), byte(r.Uint32()))
				k.Write(image, off, p)
				copy(want[off:], p)
			}
		}
		change()
		check("whole")
		x.Nodes[1].Kill()
		x.W.Run(3 * time.Second)
		change()
		check("degraded")
		x.Nodes[1].Start()
		x.Wait("all PGs clean again", 30*time.Second, func() bool { return x.States(cluster.StateActive) })
		check("whole again")
		x.Nodes[2].Kill()
		x.W.Run(3 * time.Second)
		check("degraded again")
		x.W.Close()
	}
}
