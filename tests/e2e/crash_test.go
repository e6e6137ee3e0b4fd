package e2e

import (
	"testing"
	"time"

	"holdfast/tests/stand"
)

// TestAcknowledgedWritesSurviveKillOfEverything kills the whole cluster, all in one process, in the middle of a load, and starts it again on the same folder.
func TestAcknowledgedWritesSurviveKillOfEverything(t *testing.T) {
	u := stand.StartUp(t, "--osd-size", "512M", "--image", "demo:256M")
	l := stand.NewLoad(t, 16384, u.Dial("demo")) // 64 MiB
	for round := range rounds(t, 3) {
		l.Start(16)
		l.AwaitWrites(1)
		time.Sleep(time.Duration(800+round*370%900) * time.Millisecond)
		u.Kill()
		began := time.Now()
		u.Start()
		again := time.Since(began)
		time.Sleep(300 * time.Millisecond)
		l.Stop()
		l.Verify()
		t.Logf("round %d: %d writes acknowledged, %d reads compared, up again after %v", round, l.Writes.Load(), l.Reads.Load(), again.Round(time.Millisecond))
	}
	u.AwaitActive(30 * time.Second)
	if code := u.Stop(30 * time.Second); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	u.Start()
	l.Verify()
}

// TestFioVerifyAcrossKill lets fio write its own stamps over NBD, kills everything, and lets another fio verify what the first one was told is written.
func TestFioVerifyAcrossKill(t *testing.T) {
	u := stand.StartUp(t, "--osd-size", "512M", "--image", "demo:128M")
	job := []string{"--name=v", "--ioengine=nbd", "--uri=" + u.NBDURI("demo"), "--rw=randwrite", "--bs=4k", "--size=64m", "--iodepth=16", "--verify=crc32c", "--randseed=11"}
	// The first pass is whole and is killed after; the second one dies in the middle and leaves each block old or new, with a sum that fits either way.
	stand.Run(t, "fio", append(job, "--do_verify=0")...)
	fio := stand.Start(t, "fio", stand.Tool(t, "fio"), append(job, "--do_verify=0", "--time_based", "--runtime=60", "--randseed=12")...)
	time.Sleep(1500 * time.Millisecond)
	u.Kill()
	fio.Kill()
	u.Start()
	stand.Run(t, "fio", "--name=v", "--ioengine=nbd", "--uri="+u.NBDURI("demo"), "--rw=read", "--bs=4k", "--size=64m", "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1")
}
