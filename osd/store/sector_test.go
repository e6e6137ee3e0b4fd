package store

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"holdfast/core/loop"
	"holdfast/core/sim"
)

// TestStoreMovesBetweenSectorSizes brings a store to a device with other sectors: it works, or is refused with a reason.
func TestStoreMovesBetweenSectorSizes(t *testing.T) {
	fine := Config{BlockSize: 8 << 10, Granularity: 512, ChecksumBlock: 512, JournalSize: 1 << 20}
	for _, c := range []struct {
		name     string
		c        Config
		from, to int
		want     string
	}{
		{"512 to 4096", smallConfig, 512, 4096, ""},
		{"4096 to 512", smallConfig, 4096, 512, ""},
		{"512 to 4096, small units", fine, 512, 4096, "the device has sectors of 4096 bytes, the store was made for 512, with a bitmap_granularity of 512"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &rig{t: t, w: sim.NewWorld(1)}
			defer r.w.Close()
			r.dev = r.w.NewDisk("d", 8<<20, c.from)
			r.process()
			if _, err := r.format(c.c); err != nil {
				t.Fatal(err)
			}
			r.mustOpen()
			r.write(1, 0, 1, 0, fill(4096, 'a'))
			r.l.Kill()
			image := make([]byte, 8<<20)
			r.dev.Peek(image, 0)
			r.w.RemoveDisk("d")
			r.dev = r.w.NewDisk("d", 8<<20, c.to)
			r.dev.Poke(image, 0)
			r.process()
			err := r.open()
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("open: %v", err)
				}
				after := make([]byte, 8<<20)
				if r.dev.Peek(after, 0); string(after) != string(image) {
					t.Error("something was written")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			r.write(1, 1, 2, 4096, fill(8192, 'b'))
			r.close()
			r.mustOpen()
			r.expect(1, "2 abb.....")
		})
	}
}

// TestSectorsThatAreTooLargeAreRefused names the device, whichever of a store's it is.
func TestSectorsThatAreTooLargeAreRefused(t *testing.T) {
	for i, name := range []string{"d", "j"} {
		r := &rig{t: t, w: sim.NewWorld(1), split: split{journal: "j"}}
		r.dev = r.w.NewDisk("d", 16<<20, []int{16 << 10, 512}[i])
		r.w.NewDisk("j", 16<<20, []int{512, 16 << 10}[i])
		r.process()
		_, err := r.format(Config{})
		for _, err := range []error{err, r.open()} {
			if e, is := errors.AsType[*WrongDeviceError](err); !is || e.Name != name || !strings.Contains(e.What, "sectors of 16384 bytes") {
				t.Errorf("%s: %v", name, err)
			}
		}
		r.w.Close()
	}
}

// TestFormatHonoursWhatTheDeviceWritesAtOnce refuses units for which the device writes back what is beside.
func TestFormatHonoursWhatTheDeviceWritesAtOnce(t *testing.T) {
	for _, c := range []struct {
		sector, atOnce int
		c              Config
		want           string
	}{
		{512, 512, Config{Granularity: 512}, ""},
		{512, 0, Config{Granularity: 512}, ""},
		{512, 4096, Config{}, ""},
		{512, 16 << 10, Config{}, ""},
		{4096, 4096, Config{}, ""},
		{512, 4096, Config{Granularity: 512}, "choose bitmap_granularity 4096, or disk_alignment 512"},
		{512, 4096, Config{Granularity: 512, Alignment: 512}, ""},
		{512, 512, Config{Granularity: 2048, Alignment: 4096}, "bitmap_granularity 4096"},
		{4096, 4096, Config{Granularity: 512, Alignment: 512}, "4096, the sector size of the device"},
	} {
		r := &rig{t: t, w: sim.NewWorld(1)}
		r.dev = r.w.NewDisk("d", 16<<20, c.sector)
		r.dev.SetWritesAtOnce(c.atOnce)
		r.process()
		_, err := r.format(c.c)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("sectors of %d, written by %d, %+v: %v", c.sector, c.atOnce, c.c, err)
		}
		r.w.Close()
	}
}

// TestNoJournalSectorIsWrittenTwiceInALap is what journal_no_same_sector_overwrites asks for: batches lie one behind the other, each from a unit of its own on, and the ring begins again only at its end.
func TestNoJournalSectorIsWrittenTwiceInALap(t *testing.T) {
	for seed := uint64(1); seed <= 6; seed++ {
		rng := rand.New(rand.NewPCG(seed, 8))
		c, size := modelConfig(rng, seed)
		r := newRigOn(t, seed, size, c, splits[seed%uint64(len(splits))])
		area := r.s.Superblock().Journal
		dev := r.used()[area.Device]
		rec := dev.Record()
		m := newModel(r, rng, 20)
		m.unstable = true
		for range 4000 {
			m.one()
			if m.running >= 8 {
				r.until("an op", func() bool { return m.running < 8 })
			}
		}
		m.drain()
		r.close()
		written := map[int64]int{} // sector: lap
		lap, end := 1, int64(-1)
		for _, op := range rec.Ops {
			if op.Kind == loop.DiskFlush || op.Off < area.Off || op.Off >= area.Off+area.Len {
				continue
			}
			if end >= 0 && op.Off != end {
				if lap++; op.Off != area.Off {
					t.Fatalf("seed %d: a batch at %d follows one that ends at %d", seed, op.Off, end)
				}
			}
			end = op.Off + int64(len(op.Data))
			for at := op.Off; at < end; at += 512 {
				if written[at] == lap {
					t.Fatalf("seed %d: the sector at %d is written twice in lap %d", seed, at, lap)
				}
				written[at] = lap
			}
		}
		if lap < 3 {
			t.Errorf("seed %d: %d laps", seed, lap)
		}
	}
}
