package client

import (
	"bytes"
	"testing"

	"holdfast/core/layout"
)

// The bitmaps of chunks with fewer than 8 units come in a byte each, and are put together without gaps.
func TestBitmapsOfChunksAreOne(t *testing.T) {
	for _, c := range []struct {
		name   string
		g      layout.Geometry
		reply  []byte
		bitmap []byte
	}{
		{"copies", layout.Geometry{BlockSize: 16 << 10, Granularity: 4096, DataChunks: 1}, []byte{0b1010}, []byte{0b1010}},
		{"two chunks of 4", layout.Geometry{BlockSize: 16 << 10, Granularity: 4096, DataChunks: 2}, []byte{0b1010, 0b0110}, []byte{0b01101010}},
		{"three of 4", layout.Geometry{BlockSize: 16 << 10, Granularity: 4096, DataChunks: 3}, []byte{0b0001, 0b1000, 0b1111}, []byte{0b10000001, 0b1111}},
		{"three of 1", layout.Geometry{BlockSize: 4 << 10, Granularity: 4096, DataChunks: 3}, []byte{1, 0, 1}, []byte{0b101}},
		{"bits behind the last unit are not looked at", layout.Geometry{BlockSize: 8 << 10, Granularity: 4096, DataChunks: 2}, []byte{0xfd, 0xfe}, []byte{0b1001}},
		{"whole bytes", layout.Geometry{BlockSize: 32 << 10, Granularity: 4096, DataChunks: 2}, []byte{0x12, 0x34}, []byte{0x12, 0x34}},
		{"of another length than it should have", layout.Geometry{BlockSize: 16 << 10, Granularity: 4096, DataChunks: 2}, []byte{0b1010}, []byte{0b1010}},
		{"none", layout.Geometry{BlockSize: 16 << 10, Granularity: 4096, DataChunks: 2}, nil, nil},
	} {
		x := &Client{pools: map[layout.PoolID]*pool{1: {g: c.g}}}
		if got := x.appendBits([]byte{7}, c.reply, 1); !bytes.Equal(got[1:], c.bitmap) || got[0] != 7 {
			t.Errorf("%s: %08b, want %08b", c.name, got[1:], c.bitmap)
		}
	}
	x := &Client{pools: map[layout.PoolID]*pool{1: {err: errReply}}}
	if got := x.appendBits(nil, []byte{5}, 1); !bytes.Equal(got, []byte{5}) {
		t.Errorf("of a pool that is not known any more: %v", got)
	}
}
