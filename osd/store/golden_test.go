package store

import (
	"bytes"
	"compress/gzip"
	"flag"
	"io"
	"os"
	"testing"

	"holdfast/core/loop"
)

var update = flag.Bool("update", false, "write the golden image of this format version")

// goldenSize is the size of each device.
const goldenSize = 4 << 20

// fakeDisk only says what it is.
type fakeDisk struct{}

func (fakeDisk) Info() loop.DiskInfo    { return loop.DiskInfo{Size: 1 << 40, SectorSize: 512} }
func (fakeDisk) Submit(op *loop.DiskOp) {}
func (fakeDisk) Close(done func())      {}

// TestGoldenImageOpens opens what the first release wrote. A later format adds a file, it does not replace this one.
func TestGoldenImageOpens(t *testing.T) {
	golden(t, "testdata/format-1.gz", smallConfig, split{}, mixed, unmix, checkMixed)
}

// TestGoldenImagesOfSeveralDevicesOpen does so with metadata and journal on one device, and on one each.
func TestGoldenImagesOfSeveralDevicesOpen(t *testing.T) {
	golden(t, "testdata/format-1-two.gz", smallConfig, split{meta: "m"}, mixed, unmix, checkMixed)
	golden(t, "testdata/format-1-three.gz", smallConfig, split{meta: "m", journal: "j"}, mixed, unmix, checkMixed)
}

// unmix undoes what was to be replayed.
func unmix(r *rig) {
	r.expect(2, "6 x.cc....")
	r.write(2, 6, 7, 0, make([]byte, 4096))
	r.must(&Op{Kind: OpReplace, Object: obj(2), Base: 7, BaseInterval: 7, Version: 5, Interval: 7, Bitmap: []byte{0x0c}, Present: []byte{0x0c},
		Data: r.data(append(fill(8192, 0), append(fill(8192, 'c'), fill(16<<10, 0)...)...))})
}

// TestGoldenImageOfFewUnitsOpens does so with blocks of four units: half a byte of a bitmap.
func TestGoldenImageOfFewUnitsOpens(t *testing.T) {
	c := Config{BlockSize: 16 << 10, Granularity: 4096, JournalSize: 1 << 20}
	golden(t, "testdata/format-1-few.gz", c, split{}, few, func(r *rig) {
		r.expect(2, "6 xcc.")
		r.must(&Op{Kind: OpReplace, Object: obj(2), Base: 6, BaseInterval: 7, Version: 5, Interval: 7, Bitmap: []byte{0x06}, Present: []byte{0x06},
			Data: r.data(append(fill(4096, 0), append(fill(8192, 'c'), fill(4096, 0)...)...))})
	}, checkFew)
}

// few makes a store with a bit of everything in objects of four units.
func few(r *rig) {
	r.write(1, 0, 1, 0, fill(16<<10, 'a'))
	r.write(1, 1, 2, 12288, fill(4096, 'b'))
	r.write(2, 0, 5, 4096, fill(8192, 'c'))
	r.must(&Op{Kind: OpWrite, Object: obj(3), Version: 1, Interval: 7, Unstable: true, Len: 4096, Data: r.data(fill(4096, 'e')), Bitmap: []byte{0xa7}}) // of a parity chunk: all its bits count
	r.must(&Op{Kind: OpCommit, Object: obj(3), Version: 1})
	r.must(&Op{Kind: OpZero, Object: obj(4), Version: 1, Interval: 7, Len: 8192, KeepWritten: true})
}

func checkFew(r *rig) {
	r.t.Helper()
	r.expect(1, "2 aaab")
	r.expect(2, "5 .cc.")
	r.expect(3, "1 e00.")
	r.expect(4, "1 00..")
	op := r.must(&Op{Kind: OpRead, Object: obj(3)})
	if !bytes.Equal(op.Bitmap, []byte{0xa7}) || !bytes.Equal(op.Present, []byte{0x01}) {
		r.t.Errorf("the parity chunk's bitmaps are %x and %x, want a7 and 01", op.Bitmap, op.Present)
	}
	if op.Data != nil {
		op.Data.Release()
	}
}

// golden opens an image that was made by fill, and ended while a write of object 2 was to be replayed; change undoes that; check looks at the rest. Of a store on several devices the images lie one behind the other.
func golden(t *testing.T, file string, c Config, p split, fillIt, change, check func(*rig)) {
	t.Helper()
	if *update {
		r := newRigOn(t, 1, goldenSize, c, p)
		fillIt(r)
		r.quiet()
		r.write(2, 5, 6, 0, fill(4096, 'x')) // something to replay
		r.l.Kill()
		var b []byte
		for _, d := range r.used() {
			b = append(b, make([]byte, goldenSize)...)
			d.Peek(b[len(b)-goldenSize:], 0)
		}
		var out bytes.Buffer
		z, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
		if _, err := z.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	r := newRigOn(t, 2, goldenSize, c, p)
	if len(b) != goldenSize*len(r.used()) {
		t.Fatalf("%s has %d bytes", file, len(b))
	}
	r.l.Kill()
	for i, d := range r.used() {
		d.Poke(b[i*goldenSize:(i+1)*goldenSize], 0)
	}
	r.process()
	if n, text := r.check(); n != 0 {
		t.Errorf("check: %s", text)
	}
	r.mustOpen()
	change(r)
	check(r)
	r.close()
	r.mustOpen()
	check(r)
}
