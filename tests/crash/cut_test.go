package crash

import (
	"math/rand/v2"
	"slices"
	"testing"

	"holdfast/core/loop"
	"holdfast/core/sim"
)

// device is a disk whose operations the test times itself.
type device struct {
	t *testing.T
	w *sim.World
	l *sim.Loop
	d *sim.Disk
	h loop.Disk
}

func newDevice(t *testing.T) *device {
	v := &device{t: t, w: sim.NewWorld(1)}
	t.Cleanup(v.w.Close)
	v.d = v.w.NewDisk("d", 1<<20, 512)
	v.l = v.w.NewLoop("l")
	var err error
	if v.h, err = v.l.OpenDisk("d", loop.DiskOptions{}); err != nil {
		t.Fatal(err)
	}
	return v
}

// start submits an operation; the function returned waits for it.
func (v *device) start(kind loop.DiskKind, off int64, sectors int, with byte) func() {
	ref := v.l.Alloc(max(1, sectors) * 512)
	for i := range ref.Bytes() {
		ref.Bytes()[i] = with
	}
	done := false
	op := &loop.DiskOp{Kind: kind, Off: off, Data: ref.Bytes()[:sectors*512], Done: func(*loop.DiskOp) { done = true }}
	v.h.Submit(op)
	return func() { v.w.RunUntil(func() bool { return done }, patience) }
}

func (v *device) do(kind loop.DiskKind, off int64, sectors int, with byte) {
	v.start(kind, off, sectors, with)()
}

// outcomes are the different contents of some sectors after many cuts at the end.
func (v *device) outcomes(rec *sim.Recording, before *sim.Image, sectors int) []string {
	tp, err := newTape(images{before}, rec, []*sim.Disk{v.d})
	if err != nil {
		v.t.Fatal(err)
	}
	var all []string
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range uint64(2000) {
		image, _ := tp.cut(tp.steps, i, rng, nil)
		b := make([]byte, sectors*512)
		image[0].ReadAt(b, 0)
		var s []byte
		for i := 0; i < len(b); i += 512 {
			if !slices.Equal(b[i:i+512], slices.Repeat(b[i:i+1], 512)) {
				v.t.Fatal("a sector is torn")
			}
			s = append(s, max(b[i], '.'))
		}
		all = append(all, string(s))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestCutsLeaveWhatIsPromisedAndEverythingElseThatMayBe(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(v *device)
		want []string
	}{
		{"flushed", func(v *device) { v.do(loop.DiskWrite, 0, 2, 'a'); v.do(loop.DiskFlush, 0, 0, 0) }, []string{"aa"}},
		{"sync", func(v *device) { v.do(loop.DiskSync, 0, 2, 'a') }, []string{"aa"}},
		{"not flushed", func(v *device) { v.do(loop.DiskWrite, 0, 2, 'a') }, []string{"..", ".a", "a.", "aa"}},
		{"flush under way", func(v *device) { v.do(loop.DiskWrite, 0, 1, 'a'); v.start(loop.DiskFlush, 0, 0, 0) }, []string{".", "a"}},
		{"written beside the flush", func(v *device) {
			wait := v.start(loop.DiskFlush, 0, 0, 0)
			v.do(loop.DiskWrite, 0, 1, 'a')
			wait()
		}, []string{".", "a"}},
		{"a later sync write does not flush", func(v *device) { v.do(loop.DiskWrite, 0, 1, 'a'); v.do(loop.DiskSync, 512, 1, 'b') }, []string{".b", "ab"}},
		{"one after the other", func(v *device) { v.do(loop.DiskWrite, 0, 1, 'a'); v.do(loop.DiskWrite, 0, 1, 'b') }, []string{".", "a", "b"}},
		{"over a durable one", func(v *device) { v.do(loop.DiskWrite, 0, 1, 'a'); v.do(loop.DiskSync, 0, 1, 'b') }, []string{"b"}},
		{"two under way at one place", func(v *device) { v.start(loop.DiskSync, 0, 1, 'a'); v.start(loop.DiskSync, 0, 1, 'b') }, []string{".", "a", "b"}},
		{"under way over a durable one", func(v *device) { v.do(loop.DiskSync, 0, 2, 'a'); v.start(loop.DiskWrite, 0, 2, 'b') }, []string{"aa", "ab", "ba", "bb"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newDevice(t)
			before := v.d.Image()
			rec := v.d.Record()
			c.do(v)
			if have := v.outcomes(rec, before, len(c.want[0])); !slices.Equal(have, c.want) {
				t.Errorf("a cut leaves %q, want %q", have, c.want)
			}
		})
	}
}

func TestStatesAreReadAsTheyAreWritten(t *testing.T) {
	s := State{Case{"wrap", 'c', "smE", 7}, 12, 99}
	if have, err := ParseState(s.String()); err != nil || have != s {
		t.Errorf("ParseState(%v) = %v, %v", s, have, err)
	}
	for _, bad := range []string{"", "wrap/c/s/1", "wrap/c/s/1@", "nowhere/c/s/1@0.0", "wrap/x/s/1@0.0", "wrap/c/!/1@0.0", "wrap/c/s/x@0.0", "wrap/c/s/1@-1.0", "wrap/c/s/1@1.x"} {
		if s, err := ParseState(bad); err == nil {
			t.Errorf("ParseState(%q) = %v", bad, s)
		}
	}
}

func TestReplayOfAStateIsTheSame(t *testing.T) {
	once(t)
	s := State{Case{"dirty", 'g', "s2mwzuUrlq", 3}, 20, 77}
	first, err := Replay(s)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Replay(s); err != nil || !slices.Equal(first, again) {
		t.Errorf("replayed again: %v; the logs differ", err)
	}
}
