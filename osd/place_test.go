package osd

import (
	"errors"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

// refusedPlace waits until an OSD has ended because it must not run, and returns what it says.
func (b *bed) refusedPlace(o *node) string {
	b.t.Helper()
	b.wait("the OSD to be refused", func() bool { return o.err != nil })
	if _, is := errors.AsType[*PlaceError](o.err); !is {
		b.t.Fatalf("it ended with %v", o.err)
	}
	return o.err.Error()
}

// The disk of an OSD that is down is started under another number: nothing of either changes, though neither superblock names an owner.
func TestDiskOfAnotherOSDIsRefused(t *testing.T) {
	b := newBed(t, 3)
	three, two := b.get(cluster.OSDIdentityKey(3)), b.get(cluster.OSDIdentityKey(2))
	b.osds[2].kill()
	b.osds[3].kill()
	wrong := &node{b: b, num: 3, boot: 7, from: 2}
	wrong.start()
	if said := b.refusedPlace(wrong); !strings.Contains(said, "is that of OSD 2; start OSD 2 on it, and OSD 3 on its own disk") {
		t.Error(said)
	}
	wrong.kill()
	if string(b.get(cluster.OSDIdentityKey(3)).Value) != string(three.Value) || string(b.get(cluster.OSDIdentityKey(2)).Value) != string(two.Value) {
		t.Error("an identity has changed")
	}
	b.osds[2].start()
	b.osds[3].start()
	b.wait("both on their own disks", func() bool {
		return b.osds[2].s != nil && b.osds[2].s.leaseUp && b.osds[3].s != nil && b.osds[3].s.leaseUp
	})
}

// A second OSD under a number that is up ends, whether its disk is another one or a copy; the first goes on. It is asked itself, for a key in etcd may be of one that died a moment ago.
func TestNumberThatIsUpIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		from layout.OSDNum // whose disk is copied; 0: an empty one
		want string
	}{
		{"another disk", 0, "another OSD 2 runs on host h2"},
		{"a copy of its disk", 2, "is in use by OSD 2, which runs on host h2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, 2)
			b.place(2, 1, 2)
			b.wait("PG active", func() bool { return b.serves(2, 2) })
			second := &node{b: b, num: 2, boot: 7, from: 9, at: 9}
			if c.from == 0 {
				(&node{b: b, num: 9}).format()
			} else {
				b.w.NewDiskFrom("disk9", b.w.Disk("disk2").Image())
			}
			second.start()
			if said := b.refusedPlace(second); !strings.Contains(said, c.want) {
				t.Error(said)
			}
			second.kill()
			b.w.Run(20 * time.Second)
			if o := b.osds[2]; o.err != nil || !b.serves(2, 2) {
				t.Errorf("the OSD that was up: %v, serves: %v", o.err, b.serves(2, 2))
			}
		})
	}
}

// A run that was killed a moment ago is still in etcd: the next one does not wait for that lease.
func TestNumberOfADeadRunIsTakenAtOnce(t *testing.T) {
	b := newBed(t, 1)
	o := b.osds[1]
	o.kill()
	o.start()
	if !b.w.RunUntil(func() bool { return o.s != nil && o.s.leaseUp }, time.Second) {
		t.Error("not up within a second")
	}
}
