package sim

import (
	"bytes"
	"log/slog"
	"os"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

var image = layout.MakeInode(1, 1)

func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i>>8)*31 + byte(i)*7 + seed
	}
	return p
}

func start(t *testing.T, o Options) *Cluster {
	t.Helper()
	if o.DiskSize == 0 {
		o.DiskSize = 64 << 20
	}
	c := New(t, o)
	c.Wait("all PGs active", 30*time.Second, func() bool { return c.States(cluster.StateActive) })
	return c
}

func TestWriteAndReadBack(t *testing.T) {
	c := start(t, Options{Seed: 1, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 4})
	k := c.NewClient(77)
	for i := range 8 {
		k.Write(image, uint64(i)*96<<10, pattern(32<<10, byte(i)))
	}
	for i := range 8 {
		if r := k.Read(image, uint64(i)*96<<10, 32<<10); !bytes.Equal(r.Data, pattern(32<<10, byte(i))) {
			t.Fatalf("block %d reads back differently", i)
		}
	}
	if r := k.Read(image, 64<<20, 4096); r.Version != 0 || !bytes.Equal(r.Data, make([]byte, 4096)) {
		t.Errorf("an object never written reads as version %d", r.Version)
	}
}

func TestKillOfEachOSDKeepsWhatWasAcknowledged(t *testing.T) {
	c := start(t, Options{Seed: 2, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 4})
	k := c.NewClient(77)
	n := byte(0)
	for round := range 6 {
		victim := c.Nodes[layout.OSDNum(round%3+1)]
		for i := range 8 {
			n++
			k.Write(image, uint64(i)*128<<10, pattern(8192, n))
		}
		victim.Kill()
		for i := range 8 {
			n++
			k.Write(image, uint64(i)*128<<10+8192, pattern(8192, n))
		}
		for i := range 8 {
			want := append(pattern(8192, n-15+byte(i)), pattern(8192, n-7+byte(i))...)
			if r := k.Read(image, uint64(i)*128<<10, 16<<10); !bytes.Equal(r.Data, want) {
				t.Fatalf("round %d: block %d reads back differently", round, i)
			}
		}
		c.W.Run(3 * time.Second)
		victim.Start()
		c.Wait("all PGs clean again", 30*time.Second, func() bool { return c.States(cluster.StateActive) })
	}
}

func TestAllKilledAtOnce(t *testing.T) {
	c := start(t, Options{Seed: 3, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 4})
	k := c.NewClient(77)
	for i := range 16 {
		k.Write(image, uint64(i)*128<<10, pattern(4096, byte(i)))
	}
	for _, n := range []layout.OSDNum{1, 2, 3} {
		c.Nodes[n].Kill()
	}
	c.W.Run(10 * time.Second)
	for _, n := range []layout.OSDNum{1, 2, 3} {
		c.Nodes[n].Start()
	}
	c.Wait("all PGs active", 30*time.Second, func() bool { return c.States(cluster.StateActive) })
	for i := range 16 {
		if r := k.Read(image, uint64(i)*128<<10, 4096); !bytes.Equal(r.Data, pattern(4096, byte(i))) {
			t.Fatalf("block %d reads back differently", i)
		}
	}
}

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	os.Exit(m.Run())
}
