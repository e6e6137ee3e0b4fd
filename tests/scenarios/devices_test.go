package scenarios

import (
	"testing"

	"holdfast/tests/stand"
)

// writeNoSame: with journal_no_same_sector_overwrites, and everything durable when it is acknowledged, fio writes 4 MiB pieces in order and reads them back. The original writes one disk; here each OSD has its
// journal on a device of its own, small enough to go round several times.
func writeNoSame(t *testing.T) {
	c := start(t, stand.Plan{OSDs: 3, Copies: 2, MinSize: 2, OSDSize: 192 << 20, Journal: 8 << 20, Format: []string{"--journal_size", "4M"},
		OSD: []string{"--journal_no_same_sector_overwrites"}, Pool: []string{"--immediate_commit", "all"}}, "")
	c.CLI("create", "testimg", "--size", "64M")
	uri := "nbd://" + c.NBD + "/testimg"
	verify := []string{"--thread", "--ioengine=nbd", "--uri=" + uri, "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0"}
	for _, flags := range [][]string{
		{"--name=linear", "--bs=4M", "--iodepth=1", "--rw=write", "--size=64M", "--fsync=1"},
		{"--name=small", "--bs=4k", "--iodepth=16", "--rw=randwrite", "--size=16M"},
	} {
		if out, err := c.Client.Try(settle, "fio", append(flags, verify...)...); err != nil {
			t.Fatalf("fio %s: %v\n%s", flags[0], err, out)
		}
	}
	c.quiet()
	c.sameCopies(2)
}
