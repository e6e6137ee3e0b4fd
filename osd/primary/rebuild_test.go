package primary

import (
	"testing"

	"holdfast/core/layout"
	"holdfast/core/loop/buf"
	"holdfast/core/wire"
	"holdfast/osd/peering"
)

// What another OSD says a chunk to be is computed with only if it is a whole one.
func TestChunksThatAreNotWholeAreNotUsed(t *testing.T) {
	arena := buf.NewArena()
	defer arena.Close()
	const block, n = 64 << 10, 2
	for _, c := range []struct {
		data, bitmaps int
		ok            bool
	}{{block, n, true}, {0, n, false}, {block / 2, n, false}, {block, 0, false}, {block, 2 * n, false}} {
		q := &PG{ID: pgNum(1), Geometry: layout.Geometry{BlockSize: block, Granularity: 4096, DataChunks: 2}, coded: &coding{stripes: stripes{k: 2, m: 1, block: block}}}
		j := &copyJob{q: q, u: peering.Unclean{Truth: peering.Entry{Version: 5, Interval: 1}}}
		b := j.rebuild()
		b.left = 2 // another one is under way
		r := b.at(1)
		m := wire.SubReply{Op: wire.OpSubRead, Version: 5, Written: 1, Data: c.data}
		r.call.ReplyMeta = wire.AppendObjectMeta(nil, make([]byte, c.bitmaps), make([]byte, c.bitmaps), 0, nil)
		m.Meta = len(r.call.ReplyMeta)
		m.Encode(&r.call.Reply)
		if c.data > 0 {
			r.call.ReplyData = arena.Alloc(c.data)
		}
		r.fetched()
		if b.have.Has(1) != c.ok {
			t.Errorf("%d bytes with bitmaps of %d: used %v", c.data, c.bitmaps, b.have.Has(1))
		}
		b.reset()
	}
}
