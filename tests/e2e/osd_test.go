package e2e

import (
	"syscall"
	"testing"
	"time"

	"holdfast/tests/stand"
)

// TestOSDKilledUnderLoad kills one of three OSD processes at a time under load: writes go on, no client sees an error, and when it is back everything becomes active again.
//
// Odd rounds kill the child alone: its parent tells the others, and I/O must go on within a second. Even rounds kill both, so that only time tells.
func TestOSDKilledUnderLoad(t *testing.T) {
	d := stand.StartDaemons(t, 3, 512<<20)
	d.CLI("create", "demo", "--size", "256M")
	l := stand.NewLoad(t, 16384, d.Dial("demo"))
	for round := range rounds(t, 2) {
		n := round%3 + 1
		l.Start(16)
		l.AwaitWrites(1)
		time.Sleep(500 * time.Millisecond)
		whole := round%2 == 0
		limit := time.Second
		if whole {
			limit = 6 * time.Second
			d.OSDs[n].Kill()
		} else if err := syscall.Kill(d.Child(n), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		time.Sleep(limit + time.Second)
		l.AwaitWrites(1) // while it is away
		gap, slowest := l.Pause()
		if whole {
			d.StartOSD(n)
		}
		d.AwaitActive(60 * time.Second)
		gapAll, slowestAll := l.Pause()
		l.Stop()
		l.Verify()
		t.Logf("round %d: OSD %d killed (parent too: %v): longest pause %v, slowest request %v; until it was back %v, %v; %d writes so far", round, n, whole,
			gap.Round(time.Millisecond), slowest.Round(time.Millisecond), gapAll.Round(time.Millisecond), slowestAll.Round(time.Millisecond), l.Writes.Load())
		if slowest > limit {
			t.Errorf("round %d: a request took %v, wanted at most %v", round, slowest, limit)
		}
		if errs := l.Errors(); len(errs) > 0 {
			t.Errorf("round %d: clients saw errors: %v", round, errs)
		}
	}
	fioAcrossKill(t, d)
}

// fioAcrossKill lets fio write and verify its own stamps while an OSD is killed and comes back.
func fioAcrossKill(t *testing.T, d *stand.Daemons) {
	t.Helper()
	d.CLI("create", "fio", "--size", "64M")
	fio := stand.Start(t, "fio", stand.Tool(t, "fio"), "--name=v", "--ioengine=nbd", "--uri=nbd://"+d.NBD+"/fio", "--rw=randwrite", "--bs=4k", "--size=64m", "--iodepth=16", "--rate_iops=4000",
		"--verify=crc32c", "--verify_fatal=1", "--do_verify=1")
	time.Sleep(1500 * time.Millisecond)
	if fio.Ended() {
		t.Fatalf("fio ended before the OSD was killed:\n%s", fio.Output())
	}
	if err := syscall.Kill(d.Child(3), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := fio.Wait(3 * time.Minute); code != 0 {
		t.Errorf("fio ended with code %d:\n%s", code, fio.Output())
	}
	d.AwaitActive(60 * time.Second)
	stand.Run(t, "fio", "--name=v", "--ioengine=nbd", "--uri=nbd://"+d.NBD+"/fio", "--rw=read", "--bs=4k", "--size=64m", "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1")
}
