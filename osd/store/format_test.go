package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"holdfast/core/layout"
	"holdfast/core/sim"
)

func TestFormatRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		c    Config
		want string
	}{
		{"block size", Config{BlockSize: 100_000}, "power of two"},
		{"granularity above block", Config{BlockSize: 32 << 10, Granularity: 64 << 10}, "less than bitmap_granularity"},
		{"checksum block", Config{ChecksumBlock: 8192}, "larger than bitmap_granularity"},
		{"checksum type", Config{ChecksumType: 7}, "crc32c or none"},
		{"journal", Config{JournalSize: 4096}, "journal_size"},
		{"small granularity", Config{Granularity: 256}, "sector size"},
		{"identity", Config{Identity: strings.Repeat("x", 200)}, "identity"},
		{"too small", Config{BlockSize: 1 << 20}, "too small"},
		{"two faults", Config{BlockSize: 100_000, ChecksumType: 7}, "data_csum_type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &rig{t: t, w: sim.NewWorld(1)}
			defer r.w.Close()
			r.dev = r.w.NewDisk("d", 16<<20, 512)
			r.process()
			if _, err := r.format(c.c); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("format: %v, want something about %q", err, c.want)
			}
			if err := r.open(); err == nil {
				t.Error("the refused device opens")
			}
		})
	}
}

func TestFormatKeepsAnotherStore(t *testing.T) {
	r := newRig(t, 1, 8<<20, smallConfig)
	id := r.s.Superblock().StoreID
	r.write(1, 0, 1, 0, fill(4096, 'a'))
	r.close()
	_, err := r.format(smallConfig)
	if o, is := errors.AsType[*OccupiedError](err); !is || o.Store != id {
		t.Fatalf("format over a store: %v", err)
	}
	r.mustOpen()
	r.expect(1, "1 a.......")
	r.close()
	c := smallConfig
	c.Force = true
	if sb, err := r.format(c); err != nil || sb.StoreID == id {
		t.Fatalf("forced: %v, id %v", err, sb.StoreID)
	}
	r.mustOpen()
	r.expect(1, "0 ........")
}

func TestLargeEntriesHaveLargerPages(t *testing.T) {
	r := newRig(t, 1, 96<<20, Config{BlockSize: 4 << 20, Granularity: 4096, JournalSize: minJournal(4 << 20)})
	if n := r.s.sb.PageSize; n != 8192 {
		t.Errorf("pages of %d bytes", n)
	}
	r.write(1, 0, 1, 0, fill(4<<20, 'a'))
	r.write(1, 1, 2, 4096, fill(2<<20, 'b'))
	r.crash(sim.CrashDrop)
	r.mustOpen()
	r.close()
	r.mustOpen()
	want := "2 a" + strings.Repeat("b", 512) + strings.Repeat("a", 511)
	r.expect(1, want)
}

func TestBootCounterGrows(t *testing.T) {
	r := newRig(t, 1, 8<<20, smallConfig)
	last := r.s.Superblock().Boot
	for range 3 {
		r.crash(sim.CrashDrop)
		r.mustOpen()
		if b := r.s.Superblock().Boot; b <= last {
			t.Fatalf("boot counter %d after %d", b, last)
		} else {
			last = b
		}
	}
}

// mixed makes a store with a bit of everything.
func mixed(r *rig) {
	r.write(1, 0, 1, 0, fill(32<<10, 'a'))
	r.write(1, 1, 2, 4096, fill(4096, 'b'))
	r.write(2, 0, 5, 8192, fill(8192, 'c'))
	r.write(3, 0, 1, 0, fill(4096, 'd'))
	r.must(&Op{Kind: OpDelete, Object: obj(3), Base: 1, Version: 2, Interval: 7})
	r.must(&Op{Kind: OpWrite, Object: obj(4), Version: 1, Interval: 7, Unstable: true, Len: 4096, Data: r.data(fill(4096, 'e')), Pair: Pair{9, 1}, Low: 1})
	r.must(&Op{Kind: OpZero, Object: obj(5), Version: 1, Interval: 7, Len: 8192, KeepWritten: true})
	r.write(6, 0, 1, 0, fill(4096, 'f'))
	r.must(&Op{Kind: OpVoid, Object: obj(6), Base: 1, BaseInterval: 7})
	done := false
	r.s.PutPG(PGRecord{PG: layout.PGID{Pool: 1, Num: 3}, Interval: 4, Sets: []PGSet{{Interval: 4, Members: []Member{{OSD: 1}}}}}, func(error) { done = true })
	r.until("put", func() bool { return done })
}

func checkMixed(r *rig) {
	r.t.Helper()
	r.expect(1, "2 abaaaaaa")
	r.expect(2, "5 ..cc....")
	r.expect(3, "0 ........")
	r.expect(4, "1 e.......")
	r.expect(5, "1 00......")
	if st, _ := r.s.State(obj(3)); st != (State{2, 7, Tombstone}) {
		r.t.Errorf("object 3 is %+v", st)
	}
	if st, _ := r.s.State(obj(4)); st != (State{1, 7, Unstable}) {
		r.t.Errorf("object 4 is %+v", st)
	}
	if st, _ := r.s.State(obj(6)); st != (State{1, 7, Void}) {
		r.t.Errorf("object 6 is %+v", st)
	}
	if id, v, ok := r.s.FindPair(Pair{9, 1}); !ok || id != obj(4) || v != 1 {
		r.t.Errorf("pair: %v %v %v", id, v, ok)
	}
	if p, ok := r.s.PG(layout.PGID{Pool: 1, Num: 3}); !ok || p.Interval != 4 {
		r.t.Errorf("PG: %+v %v", p, ok)
	}
}

func (r *rig) check() (int, string) {
	r.t.Helper()
	var out bytes.Buffer
	problems, done := -1, false
	Check(r.l, r.disk, &out, nil, func(n int, err error) {
		if err != nil {
			r.t.Errorf("check: %v", err)
		}
		problems, done = n, true
	})
	r.until("check", func() bool { return done })
	return problems, out.String()
}

func TestCheckAndDumpReadWithoutChanging(t *testing.T) {
	r := newRig(t, 1, 8<<20, smallConfig)
	mixed(r)
	r.l.Kill()
	r.process()
	before := make([]byte, r.dev.Size())
	r.dev.Peek(before, 0)
	if n, text := r.check(); n != 0 {
		t.Errorf("%d problems: %s", n, text)
	}
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		done := false
		Dump(r.l, r.disk, &out, asJSON, func(err error) {
			if err != nil {
				t.Error(err)
			}
			done = true
		})
		r.until("dump", func() bool { return done })
		for _, want := range []string{"superblock", "batch", obj(1).String(), "tombstone", "unstable", "void", "summary"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the dump does not mention %q:\n%s", want, out.String())
			}
		}
		if asJSON {
			d := json.NewDecoder(&out)
			for {
				var x map[string]any
				if err := d.Decode(&x); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	after := make([]byte, r.dev.Size())
	r.dev.Peek(after, 0)
	if !bytes.Equal(before, after) {
		t.Error("the device has changed")
	}
	r.mustOpen()
	checkMixed(r)
}
