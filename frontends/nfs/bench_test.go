package nfs_test

import (
	"testing"

	"holdfast/frontends/nfs"
	"holdfast/frontends/nfs/rpc"
)

// BenchmarkCall is what the server itself costs: no sockets, a device in memory.
func BenchmarkCall(b *testing.B) {
	n := newBench(b, nil, nfs.Options{})
	defer n.close()
	p := n.local()
	f := p.create(root, "f")
	p.write(f, 0, pattern(1<<20, 1))
	for _, tc := range []struct {
		name  string
		proc  uint32
		args  []byte
		bytes int
	}{
		{"GETATTR", 1, args(f), 0},
		{"READ/size=4KiB", 6, args(f, uint64(8192), 4096), 4096},
		{"READ/size=1MiB", 6, args(f, uint64(0), 1<<20), 1 << 20},
		{"WRITE/size=4KiB", 7, args(f, uint64(4096), 4096, 2, pattern(4096, 2)), 4096},
		{"WRITE/size=100B", 7, args(f, uint64(1000), 100, 2, pattern(100, 2)), 100},
		{"WRITE/size=1MiB", 7, args(f, uint64(0), 1<<20, 2, pattern(1<<20, 2)), 1 << 20},
	} {
		b.Run(tc.name, func(b *testing.B) {
			msg := record(message(1, rpc.ProgramNFS, 3, tc.proc, tc.args))
			xid := uint32(1)
			p.c.out = make([]byte, 0, 2<<20)
			b.SetBytes(int64(tc.bytes))
			b.ReportAllocs()
			for b.Loop() {
				xid++ // a repeated one would be answered from memory
				msg[4], msg[5], msg[6], msg[7] = byte(xid>>24), byte(xid>>16), byte(xid>>8), byte(xid)
				p.c.in = msg
				p.c.deliver()
				n.l.settle()
				p.c.out = p.c.out[:0]
			}
		})
	}
}
