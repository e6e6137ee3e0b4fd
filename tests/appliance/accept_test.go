package appliance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/core/admin"
	"holdfast/tests/stand"
)

// TestDiskThatWasSetBackIsRefusedUntilAccepted puts an earlier copy of an OSD's disk back: the OSD does not start on it, however often it is tried, until an operator has accepted it.
func TestDiskThatWasSetBackIsRefusedUntilAccepted(t *testing.T) {
	for _, keep := range []bool{false, true} {
		u := stand.StartUp(t, small...)
		disk := filepath.Join(u.Dir, "osd.1.data")
		u.Stop(20 * time.Second)
		early, err := os.ReadFile(disk)
		if err != nil {
			t.Fatal(err)
		}
		u.With()
		for range 3 {
			u.Start()
			u.Stop(20 * time.Second)
		}
		if err := os.WriteFile(disk, early, 0o600); err != nil {
			t.Fatal(err)
		}
		osd1 := func() bool {
			list := decode[[]admin.OSD](t, on(t, u, "ls-osd", "--json"))
			return len(list) == 3 && list[0].Up
		}
		for range 4 { // more often than it lacks openings
			u.Start()
			if osd1() {
				t.Fatal("OSD 1 runs on a disk that was set back")
			}
			if log := u.Log(); !strings.Contains(log, "disk accept") {
				t.Errorf("the log does not say what to do:\n%s", log)
			}
			if keep {
				break
			}
			u.Stop(20 * time.Second)
		}
		if !keep {
			u.Start()
		}
		var v struct {
			Needed, SetBack bool
			Cluster         struct {
				OSD     int
				Verdict string
			}
			Accepted string
		}
		args := []string{"disk", "accept", "--json", disk}
		r := on(t, u, args...)
		if err := json.Unmarshal([]byte(r.out), &v); err != nil || r.code != 4 || !v.Needed || v.Cluster.OSD != 1 || v.Cluster.Verdict != "older" || v.Accepted != "" {
			t.Fatalf("%v: exit code %d, %s%s", err, r.code, r.out, r.errors)
		}
		args = append(args, "--yes")
		if keep {
			args = append(args, "--keep-id")
		}
		on(t, u, args...).ok(t)
		on(t, u, append(args, "--keep-id")...).ok(t) // nothing is left to accept
		u.Stop(20 * time.Second)
		u.Start()
		for end := time.Now().Add(20 * time.Second); !osd1(); time.Sleep(200 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("OSD 1 does not run on the accepted disk")
			}
		}
		u.Stop(20 * time.Second)
	}
}
