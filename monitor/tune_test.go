package monitor

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/sim"
)

// scene is a monitor and four OSDs that exist by their keys; OSD 4 has been silent for 100 s.
type scene struct {
	t   *testing.T
	w   *sim.World
	st  *memory.Store
	reg *memory.Handle
	l   *sim.Loop
	m   *Monitor
	log bytes.Buffer
}

func newScene(t *testing.T) *scene {
	x := &scene{t: t, w: sim.NewWorld(1)}
	x.w.LogTo(slog.NewTextHandler(&x.log, nil))
	l := x.w.NewLoop("monitor")
	st := memory.New(x.w.NewLoop("registry"))
	x.st, x.l, x.reg = st, l, st.Open(l)
	x.put(cluster.KeyPools, `{"1":{"name":"data","scheme":"replicated","pg_size":3,"pg_minsize":2,"pg_count":8,"failure_domain":"osd"}}`)
	now := l.Wall().Unix()
	for n := 1; n <= 4; n++ {
		at := now
		if n == 4 {
			at -= 100
		} else {
			x.put(cluster.OSDStateKey(layout.OSDNum(n)), fmt.Sprintf(`{"state":"up","addresses":["10.0.0.%d"],"host":"h","port":7000,"primary_enabled":true,"blockstore_enabled":true}`, n))
		}
		x.put(cluster.OSDStatsKey(layout.OSDNum(n)), fmt.Sprintf(`{"time":"%d.000","size":1099511627776,"free":%d,"data_block_size":131072,"bitmap_granularity":4096,"immediate_commit":"all","host":"h"}`, at, 1099511627776/4*n-1))
	}
	x.m = Start(l, Options{Hostname: "h", Registry: x.reg})
	x.wait("the PG map", func() bool { return x.m.follower.Snapshot().PGConfig != nil })
	return x
}

func (x *scene) put(key, value string) {
	x.t.Helper()
	done := false
	x.reg.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: key, Value: []byte(value)}}}, func(_ registry.TxnResult, err error) {
		if done = true; err != nil {
			x.t.Error(err)
		}
	})
	x.wait("a write", func() bool { return done })
}

func (x *scene) wait(what string, cond func() bool) {
	x.t.Helper()
	if !x.w.RunUntil(cond, 30*time.Second) {
		x.t.Fatalf("not within 30 s: %s\n%s", what, x.log.String())
	}
}

// used reports whether any PG is placed on OSD 4.
func (x *scene) used() bool {
	return slices.ContainsFunc(x.m.follower.Snapshot().PGConfig.Pools[1], func(t cluster.PGTarget) bool { return slices.Contains(t.OSDSet, 4) })
}

func TestOutTimeAndNooutChangeWhileLeading(t *testing.T) {
	x := newScene(t)
	if !x.used() {
		t.Fatal("an OSD is out before osd_out_time")
	}
	n := x.m.Tuning()
	n.NoOut = true
	x.m.Tune(n)
	n.OSDOutTime = 50 * time.Second
	x.m.Tune(n)
	x.w.Run(5 * time.Second)
	if !x.used() {
		t.Fatal("an OSD went out in spite of noout")
	}
	n.NoOut = false
	x.m.Tune(n)
	x.wait("the silent OSD to go out", func() bool { return !x.used() })
	n.OSDOutTime = time.Hour
	x.m.Tune(n)
	x.wait("the silent OSD to be used again", x.used)
	if x.m.Tuning() != n {
		t.Errorf("Tuning() = %+v, want %+v", x.m.Tuning(), n)
	}
}

func TestStatsDelayAndNearFullChangeWhileLeading(t *testing.T) {
	x := newScene(t)
	n := x.m.Tuning()
	n.StatsDelay = time.Minute
	x.m.Tune(n)
	x.w.Run(2 * time.Second) // the round that was armed before
	before := x.m.sums.at
	x.w.Run(20 * time.Second)
	if x.m.sums.at != before {
		t.Error("statistics were summed up within a minute")
	}
	n.StatsDelay, n.NearFull = 500*time.Millisecond, 0.6
	x.m.Tune(n)
	x.w.Run(5 * time.Second)
	if time.Duration(x.m.sums.at-before) < 24*time.Second {
		t.Error("statistics are not summed up by the new interval")
	}
	// OSD 1 uses 75 %, OSD 2 half.
	if n := strings.Count(x.log.String(), "nearly full"); n != 1 || !strings.Contains(x.log.String(), "osd=1 ") {
		t.Errorf("%d warnings of full OSDs, want one, of OSD 1:\n%s", n, x.log.String())
	}
	n.NearFull = 0.5
	x.m.Tune(n)
	x.w.Run(2 * time.Second)
	if n := strings.Count(x.log.String(), "nearly full"); n != 2 {
		t.Errorf("%d warnings, want two", n)
	}
}

func TestChangeDelayChangesWhileLeading(t *testing.T) {
	x := newScene(t)
	n := x.m.Tuning()
	n.ChangeDelay = 20 * time.Second
	x.m.Tune(n)
	x.w.Run(3 * time.Second) // what was gathered by the delay of before
	x.put(cluster.OSDConfigKey(4), `{"reweight":0}`)
	x.w.Run(15 * time.Second)
	if !x.used() {
		t.Error("changes are not gathered for mon_change_timeout")
	}
	x.wait("the change", func() bool { return !x.used() })
}
