package admin

import (
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

func TestReportTellsOfSnapshotsOfEtcd(t *testing.T) {
	w := newWorld(t, map[string]string{
		"mon/member/1": `{"hostname":"a","holdfast_etcd_snapshot":{"host":"a","time":1700000000,"file":"/x","revision":7,"keys":3,"error":"no space"}}`,
		"mon/member/2": `{"hostname":"b","holdfast_etcd_snapshot":{"host":"b","time":1700000600,"file":"/y","revision":9,"keys":4}}`,
		"mon/member/3": `{"hostname":"c"}`, "mon/member/4": `{"hostname":"d","holdfast_etcd_snapshot":{"host":"d","error":"read-only"}}`,
	})
	v := Report(w.snapshot())
	if v.Snapshot == nil || *v.Snapshot != (EtcdSaved{"b", "/y", "2023-11-14 22:23:20 UTC", 9, 4}) {
		t.Errorf("Snapshot = %+v", v.Snapshot)
	}
	all := strings.Join(v.Warnings, "\n")
	for _, want := range []string{"host a cannot write snapshots of etcd (the last is of 2023-11-14 22:13:20 UTC): no space", "host d cannot write snapshots of etcd (none since it started): read-only"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
}

func TestReportTellsOfHalfARestore(t *testing.T) {
	v := Report(newWorld(t, map[string]string{"restoring": `{"id":"1","file":"snap.json"}`}).snapshot())
	if v.Health != "down" || !strings.Contains(strings.Join(v.Warnings, "\n"), "snap.json") {
		t.Errorf("health %s, warnings %q", v.Health, v.Warnings)
	}
}

// TestNewPoolKeepsOffForgottenData: OSDs hold objects of pool 2, which a restored etcd does not know.
func TestNewPoolKeepsOffForgottenData(t *testing.T) {
	w := newWorld(t, twoOSDs)
	w.put("osd/space/2", `{"1":{"1":4096},"2":{"1":8192}}`)
	s := w.snapshot()
	p, err := NewPool{Name: "n", Replicas: 2, Force: true}.Pool(s)
	if err != nil {
		t.Fatal(err)
	}
	// What an OSD holds that has not spoken since is not known.
	unheard := *s
	unheard.Restored, unheard.OSDSpace = &cluster.Restored{ID: "1"}, s.OSDSpace.Without(2)
	unheard.Stores = unheard.Stores.With(2, &cluster.OSDIdentity{Store: layout.StoreID{1}})
	refused := false
	CreatePool(w.r, &unheard, p, func(_ layout.PoolID, err error) {
		if refused = true; kind(err) != Refused || !strings.Contains(err.Error(), "OSD 2") {
			t.Errorf("before OSD 2 has spoken: %v", err)
		}
	})
	w.w.RunUntil(func() bool { return refused }, time.Minute)

	done := false
	CreatePool(w.r, s, p, func(id layout.PoolID, err error) {
		if done = true; err != nil || id != 3 {
			t.Errorf("CreatePool = %d, %v, want 3", id, err)
		}
	})
	w.w.RunUntil(func() bool { return done }, time.Minute)
}
