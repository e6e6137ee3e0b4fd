package stand

import (
	"fmt"
	"strconv"
	"testing"
	"time"
)

// Fio is one run of fio that writes each block of an image's beginning once, in a random order, and verifies what it wrote, on and on and at the end. What it writes into a block is
// made of the block's offset and the run's number, so that it also notices what another block, or an earlier run, was given (fio's own checksums in the blocks do not tell runs apart).
type Fio struct {
	*Process
	d    *Daemons
	args []string
}

// fioRate is how many writes a Fio makes in a second, and how many reads.
const fioRate = 300

// FioFor starts a Fio that takes at least this long. The image must be large enough: FioSize.
func (d *Daemons) FioFor(image string, lasts time.Duration) *Fio {
	d.t.Helper()
	d.fios++
	f := &Fio{d: d, args: []string{"--name=v", "--thread", "--minimal", "--ioengine=nbd", "--uri=nbd://" + d.NBD + "/" + image, "--rw=randwrite", "--bs=4k", "--size=" + strconv.FormatInt(FioSize(lasts), 10),
		"--iodepth=8", "--verify=pattern", fmt.Sprintf("--verify_pattern=%%o0x%08x", 0xf1000000+d.fios), "--verify_fatal=1", "--verify_state_save=0",
		"--randseed=" + strconv.Itoa(d.fios)}}
	f.Process = d.Client.Start("fio", Tool(d.t, "fio"), append(f.args, "--do_verify=1", "--verify_backlog=64", "--rate_iops="+strconv.Itoa(fioRate))...)
	return f
}

// FioSize is how many bytes a Fio of this duration writes.
func FioSize(lasts time.Duration) int64 {
	return int64(lasts.Seconds()*fioRate) * 4096
}

// End waits for the end of the run. Any error that fio met, and any block that was not as it had been written, fails the test.
func (f *Fio) End(t testing.TB, limit time.Duration) {
	t.Helper()
	if code := f.Wait(limit); code != 0 {
		t.Errorf("fio ended with code %d:\n%s", code, f.Output())
	}
}

// Check lets another fio read everything that the first one wrote, and says what it finds.
func (f *Fio) Check() error {
	f.d.t.Helper()
	if out, err := f.d.Client.Try(toolTime, "fio", append(f.args, "--verify_only=1")...); err != nil {
		return fmt.Errorf("fio finds what it did not write: %w\n%s", err, out)
	}
	return nil
}
