package etcdsnapshot

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestOldOnesGo writes a snapshot every 10 minutes for ten days.
func TestOldOnesGo(t *testing.T) {
	start := time.Date(2026, 11, 1, 0, 3, 0, 0, time.UTC)
	var list []Entry
	var now time.Time
	most := 0
	for i := range 10 * 24 * 6 {
		now = start.Add(time.Duration(i) * 10 * time.Minute)
		list = append(list, Entry{Time: now})
		gone := map[time.Time]bool{}
		for _, e := range Expired(list, now, 7) {
			gone[e.Time] = true
		}
		kept := list[:0:0]
		for _, e := range list {
			if !gone[e.Time] {
				kept = append(kept, e)
			}
		}
		list = kept
		most = max(most, len(list))
		// Whatever moment of the last days is asked for, there is one from not long before it.
		for _, c := range []struct{ back, gap time.Duration }{{time.Hour, 10 * time.Minute}, {20 * time.Hour, 2 * time.Hour}, {6 * 24 * time.Hour, 48 * time.Hour}} {
			at := now.Add(-c.back)
			if at.Before(start) {
				continue
			}
			ok := false
			for _, e := range list {
				ok = ok || !e.Time.After(at) && at.Sub(e.Time) <= c.gap
			}
			if !ok {
				t.Fatalf("at %v: nothing is kept of the %v before %v", now, c.gap, at)
			}
		}
	}
	if most > 7+24+8 {
		t.Errorf("%d are kept at once", most)
	}
	if gone := Expired([]Entry{{Time: start}}, start.Add(1000*time.Hour), 1); len(gone) != 0 {
		t.Error("the only one is not kept")
	}
	if gone := Expired([]Entry{{Time: start}, {Time: start.Add(time.Hour)}}, start.Add(-time.Hour), 1); len(gone) != 0 {
		t.Error("after the clock was set back snapshots are not kept")
	}
}

func TestFolderKeepsItsOwn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	s := sample()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	others := []string{"etcd-ffffffff-20200101T000000Z-r5.json", "etcd-01234567-20200101T000000Z-r5.json.bak", "notes"}
	for _, name := range others {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := sample()
	old.Time = s.Time.AddDate(0, 0, -30)
	for _, one := range []*Snapshot{old, s, s} { // twice: two monitors on one host
		if _, err := Add(dir, one, 7); err != nil {
			t.Fatal(err)
		}
	}
	list, err := List(dir, s.Cluster)
	if err != nil || len(list) != 1 || list[0].Revision != 40 || !list[0].Time.Equal(s.Time) {
		t.Errorf("List = %+v, %v", list, err)
	}
	for _, name := range others {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}
