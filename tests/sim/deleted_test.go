package sim

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/wire"
)

var onlyPG = layout.PGID{Pool: 1, Num: 1}

// TestReadWaitsForADeletionToBeEverywhere has a deletion hang on one member: nobody is told that the object is gone before every member has it (seed 1745).
func TestReadWaitsForADeletionToBeEverywhere(t *testing.T) {
	c := start(t, Options{Seed: 21, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	for i := range 3 {
		if n := c.Nodes[layout.OSDNum(i+1)]; n.Num != c.Snapshot().Primary(onlyPG) {
			c.W.Disk(n.disk()).Stall(true)
			break
		}
	}
	deleted, read := false, false
	k.Begin(wire.ReadWrite{Op: wire.OpDelete, Inode: image}, nil, func(Result) { deleted = true })
	c.W.Run(20 * time.Millisecond)
	var got Result
	k.Begin(wire.ReadWrite{Op: wire.OpRead, Inode: image, Len: 4096}, nil, func(r Result) { got, read = r, true })
	c.W.Run(200 * time.Millisecond)
	if deleted {
		t.Fatal("the deletion was acknowledged while a member's disk hung")
	}
	if read && !bytes.Equal(got.Data, pattern(4096, 1)) {
		t.Errorf("a read was told version %x, which one member lacks", got.Version)
	}
	for i := range 3 {
		c.W.Disk(c.Nodes[layout.OSDNum(i+1)].disk()).Stall(false)
	}
	c.Wait("both answers", time.Minute, func() bool { return deleted && read })
}

// TestDeletionIsDoneOnceWhereItCameByRecovery sends a delete again, as a client does that has lost the answer, to a primary that has the deletion by recovery: it undoes nothing that was
// written meanwhile (seed 318).
func TestDeletionIsDoneOnceWhereItCameByRecovery(t *testing.T) {
	c := start(t, Options{Seed: 22, OSDs: 3, Replicas: 3, MinSize: 1, PGs: 1})
	defer c.W.Close()
	k := c.NewClient(7)
	k.Write(image, 0, pattern(4096, 1))
	var late *Node
	for i := range 3 {
		if n := c.Nodes[layout.OSDNum(i+1)]; n.Num != c.Snapshot().Primary(onlyPG) {
			late = n
		}
	}
	late.Kill()
	remove := wire.ReadWrite{Op: wire.OpDelete, Inode: image, Trailer: wire.Trailer{Session: 7, Sequence: 100, Low: 100}}
	k.do(t, remove, nil)
	late.Start()
	c.Wait("all PGs clean", 30*time.Second, func() bool { return c.States(cluster.StateActive) })
	c.W.Run(2 * time.Second)
	k.do(t, write(0, 4096, 8, 1), pattern(4096, 2))
	for i := range 3 {
		if n := c.Nodes[layout.OSDNum(i+1)]; n != late {
			n.Kill()
		}
	}
	k.do(t, remove, nil)
	if r := k.Read(image, 0, 4096); !bytes.Equal(r.Data, pattern(4096, 2)) {
		t.Errorf("a delete that was sent again undid a newer write: version %x is read", r.Version)
	}
}

// TestWriteIsDoneOnceThoughItsObjectWasDeleted sends a write again, as a client does that has lost the answer, after another client has deleted the object and every member of then is gone: it
// brings nothing back (seed 480 of the second draw).
func TestWriteIsDoneOnceThoughItsObjectWasDeleted(t *testing.T) {
	c := start(t, Options{Seed: 23, OSDs: 3, Replicas: 2, MinSize: 1, PGs: 1, OutTime: 2 * time.Second})
	defer c.W.Close()
	k := c.NewClient(7)
	lost := write(0, 4096, 7, 100)
	k.do(t, lost, pattern(4096, 1))
	k.do(t, wire.ReadWrite{Op: wire.OpDelete, Inode: image, Trailer: wire.Trailer{Session: 8, Sequence: 1, Low: 1}}, nil)
	k.do(t, write(1<<20, 4096, 8, 2), pattern(4096, 2)) // the answer to the deletion has come
	c.W.Run(3 * time.Second)                            // deletions that nobody asks for again are forgotten
	st, _ := c.Snapshot().PGStates.Get(onlyPG)
	for _, osd := range st.Peers {
		if osd != st.Primary {
			c.Nodes[osd].Kill()
		}
	}
	c.Wait("another member", 30*time.Second, func() bool {
		now, ok := c.Snapshot().PGStates.Get(onlyPG)
		return ok && now.State.Whole() && len(now.Peers) == 2 && !slices.Equal(now.Peers, st.Peers)
	})
	c.Nodes[st.Primary].Kill()
	k.do(t, lost, pattern(4096, 1))
	if r := k.Read(image, 0, 4096); !bytes.Equal(r.Data, make([]byte, 4096)) {
		t.Errorf("a write that was sent again came back after a later deletion: version %x is read", r.Version)
	}
}
