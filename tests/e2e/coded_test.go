package e2e

import (
	"testing"
	"time"

	"holdfast/tests/stand"
)

// TestCodedPool writes and reads an image of an erasure-coded pool while one OSD after the other is killed and comes back, and then reads it with any one of them away.
func TestCodedPool(t *testing.T) {
	d := stand.StartPlan(t, stand.Plan{OSDs: 3, Code: "2+1", MinSize: 2, PGs: 16})
	d.CLI("create", "coded", "--size", "256M")
	l := stand.NewLoad(t, 16384, d.Dial("coded")) // 64 MiB
	for n := 1; n <= 3; n++ {
		l.Start(16)
		l.AwaitWrites(500)
		d.KillChild(n)
		l.AwaitWrites(500)
		time.Sleep(time.Second)
		d.AwaitActive(60 * time.Second)
		l.Stop()
		l.Verify()
		gap, slowest := l.Pause()
		t.Logf("OSD %d killed: longest pause %v, slowest request %v, %d writes so far", n, gap.Round(time.Millisecond), slowest.Round(time.Millisecond), l.Writes.Load())
	}
	for n := 1; n <= 3; n++ {
		d.OSDs[n].Kill()
		time.Sleep(time.Second)
		l.Verify()
		d.StartOSD(n)
		d.AwaitActive(60 * time.Second)
	}
	if errs := l.Errors(); len(errs) > 0 {
		t.Errorf("clients saw errors: %v", errs)
	}
}
