package sim

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/wire"
)

// A disk stops answering for a while, that of the primary or that of another member. The primary names who keeps the client waiting, the OSD with the disk names the part of its work, both at most once in
// slow_log_interval, and osd/stats counts.
func TestSlowDiskIsNamed(t *testing.T) {
	for _, c := range []struct {
		name string
		read bool
		own  bool // the primary's disk
		want string
	}{
		{"a write, the primary's disk", false, true, "own disk (write of the journal)"},
		{"a write, a member's disk", false, false, "OSD %d"},
		{"a read", true, true, "own disk (read)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			cl := start(t, Options{Seed: 5, OSDs: 3, Replicas: 3, MinSize: 2, PGs: 1, Logs: &log})
			k := cl.NewClient(77)
			k.Write(image, 0, pattern(128<<10, 1))
			k.Write(image, 0, pattern(4096, 2))
			cl.W.Run(3 * time.Second) // what is in the journal goes to its place
			primary := cl.Snapshot().Primary(onlyPG)
			slow := primary
			if !c.own {
				slow = primary%3 + 1
			}
			cl.W.Disk(cl.Nodes[slow].disk()).Stall(true)
			done := false
			m := wire.ReadWrite{Op: wire.OpWrite, Inode: image, Len: 4096}
			if c.read {
				m.Op = wire.OpRead
				k.Begin(m, nil, func(Result) { done = true })
			} else {
				k.Begin(m, pattern(4096, 3), func(Result) { done = true })
			}
			count := func(n layout.OSDNum) (client, other uint64) {
				st, _ := cl.Snapshot().OSDStats.Get(n)
				return uint64(st.SlowOpsPrimary), uint64(st.SlowOpsSecondary)
			}
			cl.W.Run(35 * time.Second)
			if done {
				t.Fatal("a disk that does not answer was not needed")
			}
			want := c.want
			if !c.own {
				want = fmt.Sprintf(want, slow)
				if n := strings.Count(log.String(), "the disk is slow: a primary's operation waits for it"); n != 3 || !strings.Contains(log.String(), `waits_for="write of the journal"`) {
					t.Errorf("the member said %d times in 35 s that its disk is slow:\n%s", n, log.String())
				}
				if _, n := count(slow); n != 1 {
					t.Errorf("osd/stats of the member counts %d", n)
				}
			}
			if n := strings.Count(log.String(), "a client's operation is slow"); n != 3 || !strings.Contains(log.String(), fmt.Sprintf("waits_for=%q", want)) {
				t.Errorf("the primary said %d times in 35 s, wanted %q:\n%s", n, want, log.String())
			}
			if n, _ := count(primary); n != 1 {
				t.Errorf("osd/stats of the primary counts %d", n)
			}
			cl.W.Disk(cl.Nodes[slow].disk()).Stall(false)
			cl.Wait("the answer", 30*time.Second, func() bool { return done })
			cl.Wait("all PGs clean", 30*time.Second, func() bool { return cl.States(cluster.StateActive) })
		})
	}
}
