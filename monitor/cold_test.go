package monitor

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

func (x *scene) come(n int) {
	x.put(cluster.OSDStateKey(layout.OSDNum(n)), fmt.Sprintf(`{"state":"up","addresses":["10.0.0.%d"],"host":"h","port":7000,"primary_enabled":true,"blockstore_enabled":true}`, n))
	x.put(cluster.OSDStatsKey(layout.OSDNum(n)), fmt.Sprintf(`{"time":"%d.000","size":1099511627776,"free":1,"data_block_size":131072,"bitmap_granularity":4096,"immediate_commit":"all","host":"h"}`, x.l.Wall().Unix()))
}

// sets are the PGs of pool 1 without their primaries.
func (x *scene) sets() (all [][]layout.OSDNum) {
	for _, t := range x.pgs(1) {
		all = append(all, t.OSDSet)
	}
	return all
}

// TestWholeClusterThatWasAwayKeepsItsPlaces: everything was off for longer than osd_out_time, or etcd holds what was true long ago. The OSDs come back one by one.
func TestWholeClusterThatWasAwayKeepsItsPlaces(t *testing.T) {
	x := newScene(t)
	x.come(4)
	x.w.Run(3 * time.Second)
	before := x.sets()
	stopped := false
	x.m.Stop(func() { stopped = true })
	x.wait("the monitor to stop", func() bool { return stopped })
	for n := 1; n <= 4; n++ {
		x.delete(cluster.OSDStateKey(layout.OSDNum(n)))
	}
	x.w.Run(time.Hour)
	b, _ := x.second()
	x.wait("a leader", b.Leading)
	for n := 1; n <= 4; n++ {
		x.w.Run(20 * time.Second)
		if !reflect.DeepEqual(x.sets(), before) {
			t.Fatalf("before OSD %d is back PGs are at %v, want %v", n, x.sets(), before)
		}
		if n < 4 {
			x.come(n)
		}
	}
	// One that stays away does so from when the monitor began to lead.
	if !x.w.RunUntil(func() bool { return !strings.Contains(fmt.Sprint(x.sets()), "4") }, 700*time.Second) {
		t.Error("OSD 4 does not go out")
	}
}
