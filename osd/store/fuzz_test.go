package store

import (
	"bytes"
	"encoding/hex"
	"hash/crc32"
	"reflect"
	"testing"

	"holdfast/core/layout"
	"holdfast/core/sim"
)

// sample makes a store with a bit of everything and returns its device's bytes and superblock.
func sample(t testing.TB) ([]byte, Superblock) {
	r := newRig(t, 1, 8<<20, smallConfig)
	mixed(r)
	r.close()
	r.mustOpen()
	r.write(7, 0, 1, 0, fill(4096, 'g'))
	r.must(&Op{Kind: OpReplace, Object: obj(8), Version: 4, Bitmap: []byte{3}, Present: []byte{1}, Data: r.data(fill(32<<10, 'h')), Pairs: []PairVersion{{Pair{9, 8}, 3}}})
	r.s.EndSession(9)
	r.s.DropPG(layout.PGID{Pool: 1, Num: 3}, nil)
	r.write(9, 0, 1, 0, fill(4096, 'g'))
	r.crash(sim.CrashDrop)
	b := make([]byte, r.dev.Size())
	r.dev.Peek(b, 0)
	sb, err := decodeSuperblock(b)
	if err != nil {
		t.Fatal(err)
	}
	return b, sb
}

// The fuzz targets mend the checksums, so that what is behind them is reached. Their seeds leave out what is zero or does not matter: the fuzzer takes each interesting input to pieces byte by
// byte, which for one of some kilobytes takes longer than a whole run.

func FuzzSuperblock(f *testing.F) {
	dev, _ := sample(f)
	f.Add(bytes.TrimRight(dev[:superSize], "\x00"))
	r := newRigOn(f, 1, 8<<20, smallConfig, split{meta: "m", journal: "j"})
	for device := range uint32(maxDevices) {
		b := make([]byte, superSize)
		r.s.sb.encode(b, device)
		f.Add(bytes.TrimRight(b, "\x00"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(bytes.Clone(b), make([]byte, superSize)...)[:superSize]
		copy(b, superMagicText)
		le.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
		sb, err := decodeSuperblock(b)
		if err != nil {
			return
		}
		c := make([]byte, superSize)
		sb.encode(c, sb.device)
		again, err := decodeSuperblock(c)
		if err != nil || again != sb {
			t.Errorf("%+v becomes %+v, %v", sb, again, err)
		}
	})
}

func FuzzPage(f *testing.F) {
	dev, sb := sample(f)
	w := sim.NewWorld(1)
	defer w.Close()
	l := w.NewLoop("x")
	for i := range 2 {
		f.Add(bytes.TrimRight(dev[sb.pageOff(0, i):][:sb.PageSize], "\x00"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(bytes.Clone(b), make([]byte, sb.PageSize)...)[:sb.PageSize]
		le.PutUint32(b, pageMagic)
		le.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
		s := newStore(l, fakeDisk{}, Options{}, sb)
		s.t = newTable(s.l, &s.sb)
		defer s.t.free()
		p := &opening{s: s}
		_ = p.loadPage(0, [2][]byte{b, b}, [2]error{}) // any error, no panic
	})
}

func FuzzBatch(f *testing.F) {
	dev, sb := sample(f)
	mem := dev[sb.Journal.Off : sb.Journal.Off+sb.Journal.Len]
	for pos := uint64(0); pos < uint64(len(mem)); pos += journalAlign {
		if h, err := decodeBatch(mem[pos:], &sb, pos); err == nil {
			f.Add(mem[pos : pos+uint64(h.headerLen)]) // the data is zeroes then
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(bytes.Clone(b), make([]byte, batchHeader)...)
		if end := uint64(le.Uint32(b[104:])) + uint64(le.Uint32(b[108:])); end <= 256<<10 && end > uint64(len(b)) {
			b = append(b, make([]byte, int(end)-len(b))...)
		}
		le.PutUint64(b, batchMagic)
		le.PutUint32(b[12:], FormatVersion)
		copy(b[16:], sb.secret[:])
		le.PutUint64(b[80:], 0)
		if n := le.Uint32(b[100:]); int(n) <= len(b) && n >= batchHeader {
			// Mend the entries, as far as their sizes make sense, and then the header.
			for at := batchHeader; at+entryHeader <= int(n); {
				size := int(le.Uint32(b[at:]))
				if size < entryHeader || at+size > int(n) {
					break
				}
				sealEntry(b[at:], size)
				at += size
			}
			le.PutUint32(b[8:], crc32.Checksum(b[12:n], castagnoli))
		}
		h, err := decodeBatch(b, &sb, 0)
		if err != nil {
			return
		}
		_ = h.checkData(b)
		_ = h.entries(b, &sb, func(e *entry, at uint32) error { return nil })
	})
}

func TestEntriesSurviveTheirEncoding(t *testing.T) {
	_, sb := sample(t)
	rec := PGRecord{PG: layout.PGID{Pool: 3, Num: 9}, Generation: 1, Interval: 2, Primary: 3, Instance: 4, PrimaryStore: layout.StoreID{5}, TookPart: 7, Floor: 10, Participants: []Member{{5, layout.StoreID{6}}}, Sets: []PGSet{{7, []Member{{8, layout.StoreID{9}}}}}}
	for _, b := range [][]byte{encodePG(&rec), encodePGDrop(rec.PG), encodePair(obj(1), Pair{2, 3}, 4), encodeSessionEnd(5)} {
		sealEntry(b, len(b))
		var e entry
		if n, err := decodeEntry(b, &sb, 4096, &e); err != nil || n != len(b) {
			t.Errorf("%s: %v", hex.EncodeToString(b), err)
		}
		for n := range b {
			if _, err := decodeEntry(b[:n], &sb, 4096, &e); err == nil {
				t.Errorf("%d of %d bytes decode", n, len(b))
			}
		}
	}
	var e entry
	b := encodePG(&rec)
	sealEntry(b, len(b))
	if _, err := decodeEntry(b, &sb, 4096, &e); err != nil || !reflect.DeepEqual(e.pg, rec) {
		t.Errorf("%+v, %v", e.pg, err)
	}
}
