package bench

import (
	"testing"

	"holdfast/tests/stand"
)

type nbdRow struct {
	cell
	raw, nbd figure
}

// measureNBD runs fio over NBD on a cluster of three OSDs in one process, and on a file of the same disk beside.
func measureNBD(t *testing.T, path string) []nbdRow {
	t.Helper()
	u := stand.StartUp(t, "--image", "bench:1G", "--osd-size", "3G")
	uri := u.NBDURI("bench")
	stand.Run(t, "fio", "--name=fill", "--ioengine=nbd", "--uri="+uri, "--rw=write", "--bs=1m", "--iodepth=8", "--size=1g", "--refill_buffers")
	var rows []nbdRow
	for _, c := range []cell{
		{"randwrite", "4k", 1}, {"randwrite", "4k", 32}, {"randread", "4k", 1}, {"randread", "4k", 32},
		{"write", "1m", 4}, {"read", "1m", 4},
	} {
		before := raw(t, c, path, "1g")
		r := nbdRow{cell: c, nbd: fio(t, c, "1g", "--ioengine=nbd", "--uri="+uri)}
		r.raw = mean(before, raw(t, c, path, "1g"))
		t.Logf("NBD: %v: fio %.0f IOPS %v, NBD %.0f IOPS %v", c, r.raw.iops, r.raw.latency, r.nbd.iops, r.nbd.latency)
		rows = append(rows, r)
	}
	if code := u.Stop(stand.UpTime); code != 0 {
		t.Errorf("holdfast up ended with code %d", code)
	}
	return rows
}
