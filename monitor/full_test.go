package monitor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

// uses has an OSD say that it uses so much of its space.
func (x *scene) uses(n layout.OSDNum, percent int) {
	x.t.Helper()
	size := int64(1) << 40
	x.put(cluster.OSDStatsKey(n), fmt.Sprintf(`{"time":"%d.000","size":%d,"free":%d,"data_block_size":131072,"bitmap_granularity":4096,"immediate_commit":"all","host":"h"}`, x.l.Wall().Unix(), size, size/1000*int64(1000-10*percent)))
	x.w.Run(3 * time.Second)
}

// TestFullOSDsAreNamedOncePerCrossing: the log has one line for each ratio that an OSD reaches, and one when it has room again, however long it stays.
func TestFullOSDsAreNamedOncePerCrossing(t *testing.T) {
	x := newScene(t)
	for i, step := range []struct {
		percent           int
		near, full, again int // lines so far
	}{{50, 0, 0, 0}, {96, 1, 0, 0}, {96, 1, 0, 0}, {98, 1, 1, 0}, {99, 1, 1, 0}, {96, 1, 1, 1}, {97, 1, 2, 1}, {40, 1, 2, 2}, {100, 1, 3, 2}} {
		x.uses(2, step.percent)
		x.w.Run(time.Minute)
		text := x.log.String()
		near, full := strings.Count(text, "an OSD is nearly full: add OSDs"), strings.Count(text, "an OSD is full and refuses")
		again := strings.Count(text, "has room again") + strings.Count(text, "takes clients' writes again")
		if near != step.near || full != step.full || again != step.again {
			t.Fatalf("step %d, %d %%: %d lines of nearly full, %d of full, %d of room; want %d, %d, %d:\n%s", i, step.percent, near, full, again, step.near, step.full, step.again, text)
		}
	}
}

// TestPoolsThatWouldFillAnOSDAreListed: what the PGs of an OSD have together decides, by the map as it is to be; a pool that is listed stays so until there is some slack.
func TestPoolsThatWouldFillAnOSDAreListed(t *testing.T) {
	x := newScene(t)
	listed := func() bool { return x.m.follower.Snapshot().PGConfig.IsBackfillfull(1) }
	blocks := (1 << 40) / 131072
	objects := func(part float64) {
		// Each of the 8 PGs has so many that an OSD with 6 of them is filled to that part.
		for i := range 8 {
			x.put(cluster.PGStatsKey(layout.PGID{Pool: 1, Num: uint32(i + 1)}), fmt.Sprintf(`{"object_count":%d}`, int(float64(blocks)*part/6)))
		}
		x.w.Run(5 * time.Second)
	}
	most := 0
	count := map[layout.OSDNum]int{}
	for _, p := range x.m.follower.Snapshot().PGConfig.Pools[1] {
		for _, n := range p.OSDSet {
			count[n]++
			most = max(most, count[n])
		}
	}
	if most != 6 {
		t.Fatalf("an OSD has %d PGs", most)
	}
	for _, step := range []struct {
		part float64
		want bool
	}{{0.5, false}, {0.98, false}, {1.0, true}, {0.985, true}, {0.97, false}, {0.985, false}, {1.2, true}} {
		if objects(step.part); listed() != step.want {
			t.Fatalf("filled to %g: listed %v", step.part, listed())
		}
	}
	n := x.m.Tuning()
	n.BackfillFull = 1
	x.m.Tune(n)
	objects(0.98)
	if listed() {
		t.Error("the ratio cannot be changed")
	}
}
