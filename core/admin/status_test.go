package admin

import (
	"slices"
	"strings"
	"testing"

	"holdfast/core/cluster"
)

// Why an OSD has stopped is told as long as it is down; that its disk, or its clients' operations, are slow, while it is up.
func TestStatusTellsWhatIsWrongWithADisk(t *testing.T) {
	up := `{"state":"up","addresses":["10.0.0.1"],"host":"b","port":1}`
	w := newWorld(t, map[string]string{
		"osd/stats/3": `{"size":1000,"free":900,"host":"h","time":"1.0"}`, "osd/stats/4": `{"size":1000,"free":900,"slow_ops_primary":2,"slow_ops_secondary":5}`, "osd/state/4": up, "osd/state/5": up,
		"osd/failure/3": string(cluster.Value(&cluster.OSDFailure{Reason: "flush of /dev/sdb: input/output error; replace the disk", Host: "h", Time: 1700000000, Device: "/dev/sdb", Operation: "flush", Errno: 5})),
		"osd/failure/5": `{"reason":"of before","time":1}`,
	})
	s := w.snapshot()
	v := Report(s)
	for _, want := range []string{
		"OSD 3 on host h stopped at 2023-11-14 22:13:20 UTC: flush of /dev/sdb: input/output error; replace the disk",
		"OSD 4 has 2 slow operations of clients; its log says what they wait for (`a client's operation is slow`)",
		"the disk of OSD 4 (host b) is slow: 5 operations of other OSDs wait for it longer than slow_log_interval; look at the disk",
	} {
		if !slices.Contains(v.Warnings, want) {
			t.Errorf("%q is not among the warnings: %q", want, v.Warnings)
		}
	}
	if strings.Contains(strings.Join(v.Warnings, " "), "of before") {
		t.Errorf("an OSD that is up is said to have stopped: %q", v.Warnings)
	}
	list := OSDs(s)
	if o := list[0]; o.Num != 3 || o.Stopped == nil || o.Stopped.Device != "/dev/sdb" || o.Stopped.Errno != 5 || o.Stopped.Operation != "flush" {
		t.Errorf("OSDs: %+v", o)
	}
}
