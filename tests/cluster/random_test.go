package cluster

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/wire"
)

var (
	seeds = flag.Int("seeds", 20, "how many seeds TestRandomFaults runs")
	from  = flag.Uint64("from", 1, "the first seed of TestRandomFaults")
)

// TestRandomFaults runs clients that each write stamped blocks of their own while OSDs are killed, cut off, paused and started again in any combination, and reads everything back
// during and after: what was acknowledged is there, and nothing that was read is ever taken back.
func TestRandomFaults(t *testing.T) {
	for i := range *seeds {
		seed := *from + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) { randomFaults(t, seed) })
	}
}

// writer is a client with one request under way.
type writer struct {
	k     *Client
	busy  bool
	block int    // of the request under way
	stamp uint64 // written, or 0 for a read
	// low and high bound what a block may read as: everything from the last acknowledged (or read) stamp up to the last one sent.
	low, high []uint64
	acks      int
}

func randomFaults(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	o := Options{Seed: seed, OSDs: 3 + rng.IntN(2), PGs: 2 + rng.IntN(3), DiskSize: 64 << 20}
	o.Replicas = 2 + rng.IntN(2)
	o.MinSize = 1 + rng.IntN(o.Replicas)
	c := start(t, o)
	defer c.W.Close()
	const blocks = 24
	var writers []*writer
	for i := range 3 {
		writers = append(writers, &writer{k: c.NewClient(uint64(100 + i)), low: make([]uint64, blocks), high: make([]uint64, blocks)})
	}
	stamp := uint64(0)
	step := func(w *writer, i int) {
		if w.busy {
			return
		}
		w.busy = true
		w.block = rng.IntN(blocks)
		// Blocks of the three clients lie side by side in the same objects.
		offset := uint64(w.block)*32<<10 + uint64(i)*4096
		m := wire.ReadWrite{Op: wire.OpRead, Inode: image, Offset: offset, Len: 4096}
		var data []byte
		if rng.IntN(3) > 0 {
			stamp++
			w.stamp = stamp
			w.high[w.block] = stamp
			m.Op = wire.OpWrite
			data = bytes.Repeat(binary.LittleEndian.AppendUint64(nil, stamp), 512)
		} else {
			w.stamp = 0
		}
		w.k.Begin(m, data, func(r Result) {
			w.busy = false
			switch {
			case w.stamp != 0 && r.Retval == 4096:
				w.low[w.block] = w.stamp
				w.acks++
			case w.stamp != 0:
				t.Errorf("seed %d: write answered %d", seed, r.Retval)
			case r.Retval != 4096 || len(r.Data) != 4096:
				t.Errorf("seed %d: read answered %d with %d bytes", seed, r.Retval, len(r.Data))
			default:
				got := binary.LittleEndian.Uint64(r.Data)
				if !bytes.Equal(r.Data, bytes.Repeat(r.Data[:8], 512)) {
					t.Errorf("seed %d: block %d of client %d is torn", seed, w.block, i)
				}
				if got < w.low[w.block] || got > w.high[w.block] {
					t.Errorf("seed %d: block %d of client %d reads as %d, want %d..%d", seed, w.block, i, got, w.low[w.block], w.high[w.block])
				}
				w.low[w.block] = max(w.low[w.block], got)
			}
		})
	}
	down := map[layout.OSDNum]bool{}
	faults := 0
	for end := c.W.Elapsed() + 60*time.Second; c.W.Elapsed() < end && !t.Failed(); {
		for i, w := range writers {
			step(w, i)
		}
		c.W.Run(time.Duration(1+rng.IntN(20)) * time.Millisecond)
		if rng.IntN(40) != 0 {
			continue
		}
		n := layout.OSDNum(1 + rng.IntN(o.OSDs))
		node := c.Nodes[n]
		switch f := rng.IntN(6); {
		case down[n]:
			node.Start()
			delete(down, n)
		case f == 0 && len(down) < o.OSDs-1:
			node.Kill()
			down[n] = true
		case f == 1:
			node.Kill()
			node.Start()
		case f == 2:
			node.Loop.Pause()
			l := node.Loop
			c.W.After(time.Duration(rng.IntN(4000))*time.Millisecond, func() { l.Resume() })
		case f == 3:
			other := c.Nodes[layout.OSDNum(1+rng.IntN(o.OSDs))]
			if other != node {
				c.W.Net.Cut(node.Loop, other.Loop)
				a, b := node.Loop, other.Loop
				c.W.After(time.Duration(rng.IntN(6000))*time.Millisecond, func() { c.W.Net.Heal(a, b) })
			}
		case f == 4:
			other := c.Nodes[layout.OSDNum(1+rng.IntN(o.OSDs))]
			if other != node {
				c.W.Net.Reset(node.Loop, other.Loop)
			}
		case f == 5:
			// The whole cluster loses power.
			for i := range o.OSDs {
				m := c.Nodes[layout.OSDNum(i+1)]
				if !down[m.Num] {
					m.Kill()
				}
				m.Start()
				delete(down, m.Num)
			}
		}
		faults++
	}
	c.W.Net.HealAll()
	for n := range o.OSDs {
		if num := layout.OSDNum(n + 1); down[num] {
			c.Nodes[num].Start()
		}
	}
	c.Wait("all PGs clean after the faults", 60*time.Second, func() bool { return c.States(cluster.StateActive) })
	for i, w := range writers {
		c.Wait("the last request's answer", 60*time.Second, func() bool { return !w.busy })
		for b := range blocks {
			r := w.k.Read(image, uint64(b)*32<<10+uint64(i)*4096, 4096)
			if got := binary.LittleEndian.Uint64(r.Data); got < w.low[b] || got > w.high[b] {
				t.Errorf("seed %d: at the end block %d of client %d reads as %d, want %d..%d", seed, b, i, got, w.low[b], w.high[b])
			}
		}
	}
	t.Logf("seed %d: %+v, %d faults, %d + %d + %d writes acknowledged", seed, o, faults, writers[0].acks, writers[1].acks, writers[2].acks)
}
