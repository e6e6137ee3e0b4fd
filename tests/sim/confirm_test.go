package sim

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/wire"
)

// TestStoppedClock lets the host of a primary stand still, its clock with it, until another OSD has taken over and a write has been acknowledged there. Then it goes on, and a client that knows
// nothing of all that reads from it. By its clock its grants are in force. With lock_confirm the members are asked; without it the client is told what was true before, which shows that
// the test shows something.
func TestStoppedClock(t *testing.T) {
	pg := layout.PGID{Pool: 1, Num: 1}
	for _, confirm := range []bool{false, true} {
		for _, op := range []wire.Opcode{wire.OpRead, wire.OpWrite} {
			t.Run(fmt.Sprintf("confirm=%v,op=%v", confirm, op), func(t *testing.T) {
				c := start(t, Options{Seed: 77, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1, Confirm: confirm})
				defer c.W.Close()
				k := c.NewClient(7)
				old, now := pattern(4096, 1), pattern(4096, 2)
				before := k.Write(image, 0, old)
				stopped := c.Nodes[c.Snapshot().Primary(pg)]

				// A client whose connection outlives the pause.
				l := c.W.NewLoop("patient")
				hub := peer.New(l, peer.Options{Instance: 1 << 51, Key: c.Key, IdleTimeout: time.Hour}, nil)
				answered := false
				ask := func(call *peer.Call, op wire.Opcode, version uint64) {
					m := wire.ReadWrite{Op: op, Inode: image, Len: 4096}
					if op == wire.OpWrite {
						m.Version, m.Trailer = version, wire.Trailer{Session: 9, Sequence: 1, Low: 1}
						ref := l.Alloc(4096)
						call.Payload = []peer.Piece{{Ref: ref, Len: 4096}}
					}
					m.Encode(&call.Header)
					answered = false
					call.Done = func(*peer.Call) { answered = true }
					l.Post(&loop.Task{Run: func() { hub.Call(stopped.Num, call) }})
				}
				l.Post(&loop.Task{Run: func() {
					hub.SetPeer(stopped.Num, []loop.Addr{{Network: "tcp", Address: fmt.Sprintf("10.0.0.%d:7000", stopped.Num)}})
				}})
				first := &peer.Call{}
				ask(first, wire.OpRead, 0)
				c.Wait("the first answer", time.Minute, func() bool { return answered })

				for _, n := range c.Nodes {
					if n != stopped {
						c.W.Net.Cut(stopped.Loop, n.Loop)
					}
				}
				stopped.CutRegistry(true)
				stopped.Loop.SetDrift(-900_000)
				stopped.Loop.Pause()
				c.Wait("another primary", time.Minute, func() bool {
					st, ok := c.Snapshot().PGStates.Get(pg)
					return ok && st.Primary != stopped.Num && st.State&cluster.StateActive != 0
				})
				k.Write(image, 0, now)
				stopped.Loop.Resume()
				late := &peer.Call{}
				ask(late, op, before.Version+7) // a condition that holds nowhere: the answer tells the version
				c.Wait("an answer", time.Minute, func() bool { return answered })
				refused := late.Err != nil || late.Reply.Retval() == wire.EPIPE
				stale := false
				var r wire.ReadWriteReply
				if !refused && r.Decode(&late.Reply) == nil {
					stale = r.Version == before.Version
					if op == wire.OpRead {
						stale = late.ReplyData != nil && bytes.Equal(late.ReplyData.Bytes(), old)
					}
				}
				if confirm != refused || confirm == stale {
					t.Errorf("refused %v, stale %v, retval %d", refused, stale, late.Reply.Retval())
				}
				stopped.Loop.SetDrift(0)
			})
		}
	}
}
