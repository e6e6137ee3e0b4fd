package store

import (
	"errors"
	"strings"
	"testing"

	"holdfast/core/layout"
	"holdfast/core/sim"
)

// TestLostWriteOfAPageIsFoundWhenTheJournalHasPassedIt loses the newest write of a page after the journal has gone round: both copies are good and follow each other, so that only the sum of all generations tells.
func TestLostWriteOfAPageIsFoundWhenTheJournalHasPassedIt(t *testing.T) {
	for _, lost := range []bool{false, true} {
		r := newRig(t, 2, 24<<20, smallConfig)
		const objects = 60 // on several pages
		for i := range uint64(objects) {
			r.write(i, 0, 1, 0, fill(4096, 'a'))
		}
		r.quiet()
		_, slot, _, _ := r.s.lookup(obj(0))
		page := r.s.t.page(slot)
		change := func(v layout.Version) (gen uint32) {
			r.write(0, v-1, v, 0, fill(4096, 'b'))
			r.quiet()
			return r.s.t.pageGen[page]
		}
		gen := change(2)
		at := r.s.sb.pageOff(page, int((gen+1)&1))
		old := make([]byte, r.s.sb.PageSize)
		r.dev.Peek(old, at)
		if now := change(3); now != gen+1 {
			t.Fatalf("the page has generation %d, and had %d", now, gen)
		}
		for v := range layout.Version(4) { // the journal goes round
			for i := range uint64(objects) {
				if _, slot, _, _ := r.s.lookup(obj(i)); r.s.t.page(slot) != page {
					r.write(i, v+1, v+2, 0, fill(8192, 'c'))
				}
			}
			r.quiet()
		}
		if now := r.s.t.pageGen[page]; now != gen+1 {
			t.Fatalf("the page was written again: it has generation %d, and had %d", now, gen+1)
		}
		if lost {
			r.dev.Poke(old, at)
		}
		r.crash(sim.CrashKeep)
		err := r.open()
		if damage, is := errors.AsType[*DamagedError](err); is != lost || lost && !strings.Contains(damage.What, "lost a write") {
			t.Errorf("a write lost: %v; the opening says %v", lost, err)
		}
	}
}
