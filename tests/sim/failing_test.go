package sim

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"holdfast/core/loop"
	"holdfast/osd/store"
)

// The disk of one OSD fails one write, sync write or flush: that OSD ends for good, saying which, although the next one would succeed, and the others go on with everything that was acknowledged.
func TestFailedWriteOrFlushEndsTheOSD(t *testing.T) {
	for _, kind := range []loop.DiskKind{loop.DiskWrite, loop.DiskSync, loop.DiskFlush} {
		t.Run(kind.String(), func(t *testing.T) {
			ended := map[*Node]error{}
			var c *Cluster
			c = start(t, Options{Seed: 1, OSDs: 3, Replicas: 3, MinSize: 1, PGs: 4, Down: func(n *Node, err error) {
				if ended[n] == nil {
					c.W.After(time.Millisecond, n.Kill) // as its process ends
				}
				ended[n] = err
			}})
			k := c.NewClient(77)
			n := c.Nodes[2]
			c.W.Disk(n.disk()).Fail(kind, 1, syscall.EIO)
			for i := range 24 {
				k.Write(image, uint64(i)*64<<10, pattern(8192<<(i%4), byte(i)))
				c.W.Run(200 * time.Millisecond)
			}
			c.W.Run(5 * time.Second) // what is in the journal goes to its place
			for i := range 24 {
				k.Write(image, uint64(i)*64<<10, pattern(8192, byte(100+i)))
			}
			c.W.Run(5 * time.Second)
			device, is := errors.AsType[*store.DeviceError](ended[n])
			if !is || device.Op != kind || device.Errno() != syscall.EIO || device.Device != n.disk() || len(ended) != 1 {
				t.Fatalf("ended: %v", ended)
			}
			c.Wait("the others to serve", 30*time.Second, c.Serving)
			for i := range 24 {
				if got, want := k.Read(image, uint64(i)*64<<10, 8192).Data, pattern(8192, byte(100+i)); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("object %d is not what was acknowledged", i)
				}
			}
		})
	}
}
