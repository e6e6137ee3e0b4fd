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

// fakeDisk only says what it is.
type fakeDisk struct{}

func (fakeDisk) Info() loop.DiskInfo    { return loop.DiskInfo{Size: 1 << 40, SectorSize: 512} }
func (fakeDisk) Submit(op *loop.DiskOp) {}
func (fakeDisk) Close(done func())      {}

const goldenFile = "testdata/format-1.gz"

// TestGoldenImageOpens opens what the first release wrote. A later format adds a file, it does not replace this one.
func TestGoldenImageOpens(t *testing.T) {
	if *update {
		r := newRig(t, 1, 4<<20, smallConfig)
		mixed(r)
		r.quiet()
		r.write(2, 5, 6, 0, fill(4096, 'x')) // something to replay
		r.l.Kill()
		b := make([]byte, r.dev.Size())
		r.dev.Peek(b, 0)
		var out bytes.Buffer
		z, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
		if _, err := z.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goldenFile, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(goldenFile)
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
	r := newRig(t, 2, int64(len(b)), smallConfig)
	r.l.Kill()
	r.dev.Poke(b, 0)
	r.process()
	if n, text := r.check(); n != 0 {
		t.Errorf("check: %s", text)
	}
	r.mustOpen()
	r.expect(2, "6 x.cc....")
	r.write(2, 6, 7, 0, make([]byte, 4096))
	r.must(&Op{Kind: OpReplace, Object: obj(2), Base: 7, BaseInterval: 7, Version: 5, Interval: 7, Bitmap: []byte{0x0c}, Present: []byte{0x0c},
		Data: r.data(append(fill(8192, 0), append(fill(8192, 'c'), fill(16<<10, 0)...)...))})
	checkMixed(r)
	r.close()
	r.mustOpen()
	checkMixed(r)
}
