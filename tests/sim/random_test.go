package sim

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

// writer is a client with one request under way at most, on blocks that are its own: so what a block must read as is known exactly.
type writer struct {
	k       *Client
	inode   layout.Inode
	busy    bool
	deletes bool     // its blocks lie in objects of their own, which it may delete
	want    []uint64 // stamp by block; 0 is never written, or deleted
	acks    int
}

func (w *writer) offset(block, i int) uint64 {
	if w.deletes {
		return uint64(block) * 128 << 10
	}
	// Blocks of the writers lie side by side in the same objects.
	return uint64(block)*32<<10 + uint64(i)*4096
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
	for i := range 6 {
		w := &writer{k: c.NewClient(uint64(100 + i)), inode: image, want: make([]uint64, blocks), deletes: i == 5}
		if w.deletes {
			w.inode = layout.MakeInode(1, 2)
		}
		writers = append(writers, w)
	}
	stamp := uint64(0)
	check := func(w *writer, i, block int, r Result) {
		if r.Retval != 4096 || len(r.Data) != 4096 {
			t.Errorf("seed %d: read answered %d with %d bytes", seed, r.Retval, len(r.Data))
			return
		}
		if got := binary.LittleEndian.Uint64(r.Data); got != w.want[block] || !bytes.Equal(r.Data, bytes.Repeat(r.Data[:8], 512)) {
			t.Errorf("seed %d, %v: block %d of client %d reads as %d, want %d", seed, c.W.Elapsed(), block, i, got, w.want[block])
		}
	}
	step := func(w *writer, i int) {
		if w.busy {
			return
		}
		w.busy = true
		block := rng.IntN(blocks)
		m := wire.ReadWrite{Op: wire.OpRead, Inode: w.inode, Offset: w.offset(block, i), Len: 4096}
		var data []byte
		value := uint64(0)
		switch f := rng.IntN(8); {
		case f < 3:
		case f == 3 && w.deletes:
			m.Op, m.Len = wire.OpDelete, 0
		default:
			stamp++
			value = stamp
			m.Op = wire.OpWrite
			data = bytes.Repeat(binary.LittleEndian.AppendUint64(nil, stamp), 512)
		}
		w.k.Begin(m, data, func(r Result) {
			w.busy = false
			switch {
			case m.Op == wire.OpRead:
				check(w, i, block, r)
			case r.Retval != int64(m.Len):
				t.Errorf("seed %d: %v answered %d", seed, m.Op, r.Retval)
			default:
				w.want[block] = value
				w.acks++
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
		switch f := rng.IntN(10); {
		case down[n]:
			node.Start()
			delete(down, n)
		case f == 0 && len(down) < o.OSDs-1:
			node.Kill()
			down[n] = true
		case f == 1 && len(down) < o.OSDs-1:
			node.PowerOff()
			down[n] = true
		case f == 2:
			node.Kill()
			node.Start()
		case f == 3:
			node.Loop.Pause()
			l := node.Loop
			c.W.After(time.Duration(rng.IntN(4000))*time.Millisecond, func() { l.Resume() })
		case f == 4 || f == 5:
			other := c.Nodes[layout.OSDNum(1+rng.IntN(o.OSDs))]
			if other != node {
				a, b := node.Loop, other.Loop
				if f == 4 {
					c.W.Net.Cut(a, b)
				} else {
					c.W.Net.CutOneWay(a, b)
				}
				c.W.After(time.Duration(rng.IntN(6000))*time.Millisecond, func() { c.W.Net.Heal(a, b) })
			}
		case f == 6:
			other := c.Nodes[layout.OSDNum(1+rng.IntN(o.OSDs))]
			if other != node {
				c.W.Net.Reset(node.Loop, other.Loop)
			}
		case f == 7:
			node.CutRegistry(true)
			c.W.After(time.Duration(rng.IntN(12000))*time.Millisecond, func() { node.CutRegistry(false) })
		case f == 8:
			c.KillMonitor()
			c.StartMonitor()
		case f == 9:
			// The whole cluster loses power.
			for i := range o.OSDs {
				m := c.Nodes[layout.OSDNum(i+1)]
				if !down[m.Num] {
					m.PowerOff()
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
	for i := range o.OSDs {
		c.Nodes[layout.OSDNum(i+1)].CutRegistry(false)
	}
	c.Wait("all PGs clean after the faults", 60*time.Second, func() bool { return c.States(cluster.StateActive) })
	acks := 0
	for i, w := range writers {
		c.Wait("the last request's answer", 60*time.Second, func() bool { return !w.busy })
		for b := range blocks {
			check(w, i, b, w.k.Read(w.inode, w.offset(b, i), 4096))
		}
		acks += w.acks
	}
	t.Logf("seed %d: %+v, %d faults, %d writes acknowledged", seed, o, faults, acks)
}
