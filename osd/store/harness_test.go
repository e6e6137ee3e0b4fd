package store

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/sim"
)

// rig is a process with a store on a simulated disk.
type rig struct {
	t     testing.TB
	w     *sim.World
	l     *sim.Loop
	dev   *sim.Disk // with the data
	split split
	disk  loop.Disk // all of them
	s     *Store
	c     Config
	o     Options
	n     int
	round int

	session uint64 // of the requests that change makes; 0: 9
}

var smallConfig = Config{BlockSize: 32 << 10, Granularity: 4096, JournalSize: 1 << 20}

// split says which disks a store is on besides "d": those called "m" and "j".
type split struct {
	meta, journal string // "": as Devices has it
}

var splits = []split{{}, {meta: "m"}, {meta: "m", journal: "j"}, {journal: "j"}, {meta: "m", journal: "d"}}

func (p split) String() string { return fmt.Sprintf("metadata %q, journal %q", p.meta, p.journal) }

func newRig(t testing.TB, seed uint64, size int64, c Config) *rig {
	t.Helper()
	return newRigOn(t, seed, size, c, split{})
}

func newRigOn(t testing.TB, seed uint64, size int64, c Config, p split) *rig {
	t.Helper()
	r := &rig{t: t, w: sim.NewWorld(seed), c: c, round: int(seed % 4), split: p}
	t.Cleanup(r.w.Close)
	sector := 512
	if c.Granularity >= 4096 && seed%3 == 0 {
		sector = 4096
	}
	r.dev = r.w.NewDisk("d", size, sector)
	if seed%7 == 0 {
		r.dev.SetWriteThrough()
	}
	for i, name := range []string{"m", "j"} {
		other := r.w.NewDisk(name, size, []int{4096, 512}[i])
		if seed%11 == 0 {
			other.SetWriteThrough()
		}
	}
	r.process()
	if _, err := r.format(c); err != nil {
		t.Fatal(err)
	}
	r.mustOpen()
	return r
}

// process is a new process; the one before must have been killed.
func (r *rig) process() {
	r.t.Helper()
	r.n++
	r.l = r.w.NewLoop(fmt.Sprintf("osd%d", r.n))
	r.disk = r.join(r.split, "d")
	r.o = Options{Log: slog.New(slog.DiscardHandler), roundPages: r.round, secondBatch: 4096 * r.round}
}

// used are the disks that the store is on, by their numbers.
func (r *rig) used() []*sim.Disk {
	all := []*sim.Disk{r.dev}
	for _, name := range []string{r.split.meta, r.split.journal} {
		if name != "" && name != "d" {
			all = append(all, r.w.Disk(name))
		}
	}
	return all
}

// join opens the disks of a store whose data is on the given one.
func (r *rig) join(p split, data string) loop.Disk {
	r.t.Helper()
	open := map[string]Device{"": {}}
	for _, name := range []string{data, p.meta, p.journal} {
		if _, is := open[name]; is {
			continue
		}
		d, err := r.l.OpenDisk(name, loop.DiskOptions{})
		if err != nil {
			r.t.Fatal(err)
		}
		open[name] = Device{d, name}
	}
	return Devices{open[data], open[p.meta], open[p.journal]}.Join(r.l)
}

func (r *rig) until(what string, f func() bool) {
	r.t.Helper()
	if !r.w.RunUntil(f, time.Hour) {
		r.t.Fatalf("%s does not happen", what)
	}
}

func (r *rig) format(c Config) (sb Superblock, err error) {
	r.t.Helper()
	done := false
	Format(r.l, r.disk, c, func(s Superblock, e error) { sb, err, done = s, e, true })
	r.until("format", func() bool { return done })
	return sb, err
}

func (r *rig) open() error {
	r.t.Helper()
	var err error
	done := false
	r.s = nil
	Open(r.l, r.disk, r.o, func(s *Store, e error) { r.s, err, done = s, e, true })
	r.until("open", func() bool { return done })
	return err
}

func (r *rig) mustOpen() {
	r.t.Helper()
	if err := r.open(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) close() {
	r.t.Helper()
	done := false
	r.s.Close(func() { done = true })
	r.until("close", func() bool { return done })
}

// crash kills the process and cuts the power of the disks. What the others than the one with the data keep is theirs.
func (r *rig) crash(p sim.CrashPolicy) {
	r.t.Helper()
	r.l.Kill()
	r.dev.Crash(p)
	for i, name := range []string{"m", "j"} {
		if d := r.w.Disk(name); d != nil {
			d.Crash([]sim.CrashPolicy{p, sim.CrashKeep, sim.CrashDrop, sim.CrashRandom}[(r.n*(i+1)+r.n/3)%4])
		}
	}
	r.process()
}

func (r *rig) data(p []byte) *buf.Ref {
	ref := r.l.Alloc(len(p))
	copy(ref.Bytes(), p)
	return ref
}

// do runs one op to its end.
func (r *rig) do(op *Op) *Op {
	r.t.Helper()
	done := false
	op.Done = func(*Op) { done = true }
	r.s.Submit(op)
	r.until("an op", func() bool { return done })
	return op
}

func (r *rig) must(op *Op) *Op {
	r.t.Helper()
	if r.do(op); op.Err != nil {
		r.t.Fatalf("op %d of %v: %v", op.Kind, op.Object, op.Err)
	}
	return op
}

func obj(n uint64) layout.ObjectID {
	return layout.ObjectID{Inode: layout.MakeInode(1, 1+n>>8), Stripe: n & 0xff << 17}
}

func fill(n int, c byte) []byte { return bytes.Repeat([]byte{c}, n) }

func (r *rig) write(n uint64, base, version layout.Version, off uint32, p []byte) *Op {
	r.t.Helper()
	return r.must(&Op{Kind: OpWrite, Object: obj(n), Base: base, Version: version, Interval: 7, Offset: off, Len: uint32(len(p)), Data: r.data(p)})
}

// letters reads a whole object: one letter per unit, '.' for zeroes, upper case where the unit counts as written but is zero.
func (r *rig) letters(n uint64) string {
	r.t.Helper()
	c := r.s.sb.Config
	op := r.must(&Op{Kind: OpRead, Object: obj(n), Len: c.BlockSize})
	defer op.Data.Release()
	var out []byte
	for u := 0; u < c.units(); u++ {
		b := op.Data.Bytes()[u*int(c.Granularity):][:c.Granularity]
		x := b[0]
		if !bytes.Equal(b, bytes.Repeat(b[:1], len(b))) {
			x = '?'
		} else if x == 0 && hasBit(op.Bitmap, uint32(u)) {
			x = '0'
		} else if x == 0 {
			x = '.'
		}
		out = append(out, x)
	}
	return fmt.Sprintf("%x %s", uint64(op.State.Version), out)
}

func (r *rig) expect(n uint64, want string) {
	r.t.Helper()
	if have := r.letters(n); have != want {
		r.t.Errorf("object %d reads %q, want %q", n, have, want)
	}
}
