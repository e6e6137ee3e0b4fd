package nfs

import (
	"bytes"
	"hash/crc32"

	"holdfast/frontends/volume"
)

// slice appends the pieces of data[from:from+n] to dst. References are lent, not added.
func slice(dst, data []volume.Piece, from, n int) []volume.Piece {
	for _, p := range data {
		if n == 0 {
			break
		}
		if from >= p.Len {
			from -= p.Len
			continue
		}
		m := min(n, p.Len-from)
		dst = append(dst, volume.Piece{Ref: p.Ref, Off: p.Off + from, Len: m})
		from, n = 0, n-m
	}
	return dst
}

// copyOut copies data[from:from+len(p)] into p.
func copyOut(p []byte, data []volume.Piece, from int) {
	for _, piece := range data {
		if len(p) == 0 {
			return
		}
		if from >= piece.Len {
			from -= piece.Len
			continue
		}
		n := copy(p, piece.Bytes()[from:])
		p, from = p[n:], 0
	}
}

// checksum is the CRC32C of data.
func checksum(data []volume.Piece) (crc uint32) {
	for _, p := range data {
		crc = crc32.Update(crc, castagnoli, p.Bytes())
	}
	return crc
}

// sameData compares two WRITEs' data, however they are cut.
func sameData(a, b []volume.Piece) bool {
	i, j, ai, bj := 0, 0, 0, 0
	for i < len(a) && j < len(b) {
		x, y := a[i].Bytes()[ai:], b[j].Bytes()[bj:]
		n := min(len(x), len(y))
		if !bytes.Equal(x[:n], y[:n]) {
			return false
		}
		if ai += n; ai == a[i].Len {
			i, ai = i+1, 0
		}
		if bj += n; bj == b[j].Len {
			j, bj = j+1, 0
		}
	}
	return i == len(a) && j == len(b)
}
