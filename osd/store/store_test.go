package store

import (
	"testing"
	"time"

	"holdfast/core/sim"
)

func TestWritesAreReadBack(t *testing.T) {
	for _, how := range []string{"at once", "idle", "reopened", "killed", "crashed"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t, 1, 8<<20, smallConfig)
			r.write(1, 0, 1, 0, fill(4096, 'a'))
			r.write(1, 1, 2, 8192, fill(8192, 'b'))
			r.write(2, 0, 1, 0, fill(32<<10, 'c'))
			r.write(2, 1, 2, 4096, fill(4096, 'd'))
			r.write(3, 0, 9, 4096, fill(20<<10, 'e'))
			r.write(4, 0, 1, 0, fill(32<<10, 'f'))
			r.write(4, 1, 3, 0, fill(32<<10, 'g'))
			switch how {
			case "idle":
				r.w.Run(5 * time.Second)
				if n := r.s.dirtyLen; n != 0 {
					t.Errorf("%d dirty objects after a quiet time", n)
				}
			case "reopened":
				r.close()
				r.mustOpen()
				if n := r.s.dirtyLen; n != 0 {
					t.Errorf("%d dirty objects after a clean close", n)
				}
			case "killed":
				r.l.Kill()
				r.process()
				r.mustOpen()
			case "crashed":
				r.crash(sim.CrashDrop)
				r.mustOpen()
			}
			r.expect(1, "2 a.bb....")
			r.expect(2, "2 cdcccccc")
			r.expect(3, "9 .eeeee..")
			r.expect(4, "3 gggggggg")
			r.expect(5, "0 ........")
			if st := r.s.Stats(); st.Objects != 4 && how != "at once" {
				t.Logf("stats %+v", st)
			}
			if used := r.s.sb.Blocks - r.s.blocks.free; used != 4 {
				t.Errorf("%d blocks in use, want 4", used)
			}
		})
	}
}
