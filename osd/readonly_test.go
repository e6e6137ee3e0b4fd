package osd

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
)

// An OSD that is started read-only changes nothing on its disk and is no member of anything: the PG goes on with the others as if it were down, and etcd says why. Started without, it is back.
func TestReadOnlyOSDIsNoMember(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	two := b.osds[2]
	two.kill()
	b.w.Run(10 * time.Second)
	content := func() []byte {
		p := make([]byte, 32<<20)
		b.w.Disk(two.disk()).Peek(p, 0)
		return p
	}
	before, identity := content(), b.get(cluster.OSDIdentityKey(2))
	two.readOnly = true
	two.start()
	b.wait("the reason", func() bool { return b.get(cluster.OSDWaitingKey(2)).Key != "" })
	if text := string(b.get(cluster.OSDWaitingKey(2)).Value); !strings.Contains(text, "read-only") {
		t.Error(text)
	}
	b.never("a read-only OSD is up", 20*time.Second, func() bool { return b.get(cluster.OSDStateKey(2)).Key != "" })
	if !b.serves(1, 1) {
		t.Error("the PG is not served by OSD 1 alone")
	}
	b.place(2, 1, 2) // not even as its primary
	b.never("the PG is taken by a read-only OSD", 20*time.Second, func() bool { return b.serves(2, 2) || b.serves(2, 1) })
	b.place(1, 1, 2)
	stopped := false
	two.run(func() { two.s.Stop(func() { two.st.Close(func() { stopped = true }) }) })
	b.wait("the stop", func() bool { return stopped })
	two.kill()
	if !bytes.Equal(content(), before) || string(b.get(cluster.OSDIdentityKey(2)).Value) != string(identity.Value) {
		t.Error("the disk, or the identity, has changed")
	}
	if b.get(cluster.OSDWaitingKey(2)).Key != "" {
		t.Error("the reason is still there")
	}
	two.readOnly = false
	two.start()
	b.wait("both members", func() bool { return b.serves(1, 2) })
}
