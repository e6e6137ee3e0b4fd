package sim

import (
	"bytes"
	"testing"
)

// TestWritesLostLate undoes old writes: never one of the newest of the log, never one that another has overwritten, and misdirected ones land where none of those newest lies.
func TestWritesLostLate(t *testing.T) {
	for seed := range uint64(40) {
		w := NewWorld(seed + 1)
		d := w.NewDisk("d", 1<<20, 4096)
		d.Remember(Extent{0, 64 << 10}, Extent{64 << 10, 64 << 10}, 16)
		write := func(off int64, with byte) {
			p := bytes.Repeat([]byte{with}, 4096)
			d.kept.note(d.m, off, len(p))
			d.m.write(off, p, true)
		}
		for i := range int64(8) {
			write(i*4096, byte(i+1))
		}
		write(0, 100) // over the first
		write(80<<10, 50)
		at := func(off int64) byte {
			p := make([]byte, 4096)
			d.Peek(p, off)
			return p[4095]
		}
		astray := seed%2 == 0
		lost, ok := d.LoseLate(true, 4, astray)
		if !ok || lost.Off < 4096 || lost.Off > 4*4096 || at(lost.Off) != 0 && !astray {
			t.Errorf("seed %d: lost is %+v %v, where %d is now", seed, lost, ok, at(lost.Off))
		}
		for i, want := range map[int64]byte{0: 100, 5: 6, 6: 7, 7: 8} { // order: each is looked at
			if have := at(i * 4096); have != want {
				t.Errorf("seed %d: sector %d of the newest holds %d, not %d", seed, i, have, want)
			}
		}
		if rest, ok := d.LoseLate(false, 4, false); !astray && (!ok || rest.Off != 80<<10 || at(80<<10) != 0) {
			t.Errorf("seed %d: of the rest is lost %+v %v", seed, rest, ok)
		}
		w.Close()
	}
}
