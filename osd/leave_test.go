package osd

import (
	"testing"
	"time"
)

// All OSDs stop, one after the other. The last one must not be left as the only one who has to be heard when they start again.
func TestOSDsThatLeaveTogetherTakeNothingOver(t *testing.T) {
	b := newBed(t, 2)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	before := *b.record()
	for _, o := range b.osds { // order: any
		o.run(func() { o.s.Leave() })
	}
	stop := func(o *node) {
		stopped := false
		o.run(func() { o.s.Stop(func() { stopped = true }) })
		b.wait("an OSD to stop", func() bool { return stopped })
		o.kill()
	}
	stop(b.osds[2])
	b.place(1, 1)
	b.w.Run(10 * time.Second)
	if now := b.record(); now.Interval != before.Interval {
		t.Errorf("interval %d was begun while everything stopped", now.Interval)
	}
	stop(b.osds[1])
	b.place(2, 1, 2)
	b.osds[2].start()
	b.wait("PG active on OSD 2 alone", func() bool { return b.serves(2, 1) })
}
