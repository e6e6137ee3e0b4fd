package e2e

import (
	"math/rand/v2"
	"strconv"
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

// TestKillCoded kills as many OSDs as an erasure-coded pool may lose, at any moment of a verified load, and starts them in any order.
func TestKillCoded(t *testing.T) {
	for _, c := range []struct {
		code        string
		data, total int
	}{{"2+1", 2, 3}, {"4+2", 4, 6}} {
		t.Run(c.code, func(t *testing.T) {
			const verified = 4 * time.Second
			d := stand.StartPlan(t, stand.Plan{OSDs: c.total, Code: c.code, MinSize: c.data, PGs: 16})
			d.CLI("create", "coded", "--size", "64M")
			d.CLI("create", "fio", "--size", strconv.FormatInt(stand.FioSize(verified), 10))
			l := stand.NewLoad(t, 8192, d.Dial("coded")) // 32 MiB
			// The moments are others each time: what goes wrong once is in the log.
			r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(c.total)))
			moment := func(most time.Duration) { time.Sleep(time.Duration(r.Int64N(int64(most)))) }
			for round := range rounds(t, 2) {
				fio := d.FioFor("fio", verified)
				l.Start(8)
				l.AwaitWrites(50)
				lost := r.Perm(c.total)[:c.total-c.data]
				for _, n := range lost {
					moment(time.Second)
					d.OSDs[n+1].Kill()
				}
				moment(4 * time.Second)
				again := r.Perm(len(lost))
				for _, i := range again {
					moment(time.Second)
					d.StartOSD(lost[i] + 1)
				}
				d.AwaitActive(time.Minute)
				fio.End(t, time.Minute)
				l.Stop()
				l.Verify()
				if err := fio.Check(); err != nil {
					t.Error(err)
				}
				gap, slowest := l.Pause()
				t.Logf("round %d: OSDs %v (from 0) killed, started in the order %v: longest pause %v, slowest request %v, %d writes so far", round, lost, again, gap.Round(time.Millisecond), slowest.Round(time.Millisecond), l.Writes.Load())
				if errs := l.Errors(); t.Failed() || len(errs) > 0 {
					t.Fatalf("clients saw errors: %v", errs)
				}
			}
			// Each set of chunks that is enough reads the same.
			for n := range c.total {
				for i := range c.total - c.data {
					d.OSDs[(n+i)%c.total+1].Kill()
				}
				time.Sleep(time.Second)
				l.Verify()
				for i := range c.total - c.data {
					d.StartOSD((n+i)%c.total + 1)
				}
				d.AwaitActive(time.Minute)
			}
		})
	}
}
