package sim

import (
	"testing"
	"time"
)

const whole = mask(0xff)

func of(id uint32) block { return block{}.over(id, whole) }

// TestHistoriesThatNoOrderExplains has the checker tell histories of one block that may be from those that may not.
func TestHistoriesThatNoOrderExplains(t *testing.T) {
	write := func(id uint32, call, ret int64) *act {
		return &act{kind: actWrite, mask: whole, id: id, call: call, ret: ret}
	}
	part := func(id uint32, m mask, call, ret int64) *act {
		return &act{kind: actWrite, mask: m, id: id, call: call, ret: ret}
	}
	read := func(saw block, call, ret int64) *act {
		return &act{kind: actRead, mask: whole, seen: saw, call: call, ret: ret, slot: 1}
	}
	swap := func(old, id uint32, call, ret int64) *act {
		return &act{kind: actWrite, mask: whole, id: id, seen: of(old), expect: whole, call: call, ret: ret, slot: 2}
	}
	differs := func(expected uint32, call, ret int64) *act {
		return &act{kind: actMismatch, mask: whole, seen: of(expected), expect: whole, call: call, ret: ret, slot: 2}
	}
	late := write(1, 1, never)
	late.bound = 2
	refused := write(1, 1, never)
	refused.void = true
	for _, c := range []struct {
		name string
		ok   bool
		acts []*act
	}{
		{"what was written is read", true, []*act{write(1, 1, 2), read(of(1), 3, 4)}},
		{"an acknowledged write is lost", false, []*act{write(1, 1, 2), read(of(0), 3, 4)}},
		{"an older write is read", false, []*act{write(1, 1, 2), write(2, 3, 4), read(of(1), 5, 6)}},
		{"either of two at once", true, []*act{write(1, 1, 4), write(2, 2, 3), read(of(1), 5, 6)}},
		{"first the one, then the other", false, []*act{write(1, 1, 4), write(2, 2, 3), read(of(1), 5, 6), read(of(2), 7, 8)}},
		{"half of a write", false, []*act{write(1, 1, 2), write(2, 3, 4), read(of(1).over(2, 0x0f), 5, 6)}},
		{"half of a write that goes on", false, []*act{write(1, 1, 2), write(2, 3, 6), read(of(1).over(2, 0x0f), 4, 5)}},
		{"a write of half a block", true, []*act{write(1, 1, 2), part(2, 0x0f, 3, 4), read(of(1).over(2, 0x0f), 5, 6)}},
		{"an unanswered write is there", true, []*act{write(1, 1, never), read(of(1), 3, 4)}},
		{"an unanswered write is not there", true, []*act{write(1, 1, never), read(of(0), 3, 4)}},
		{"an unanswered write comes late", true, []*act{write(1, 1, never), read(of(0), 3, 4), read(of(1), 5, 6)}},
		{"a read is taken back", false, []*act{write(1, 1, never), read(of(1), 3, 4), read(of(0), 5, 6)}},
		{"a write comes after its session's fence", false, []*act{late, read(of(0), 3, 4), read(of(1), 5, 6)}},
		{"a refused write is there", false, []*act{refused, read(of(1), 3, 4)}},
		{"nobody wrote that", false, []*act{write(1, 1, 2), read(of(7), 3, 4)}},
		{"a zero brings back nothing", false, []*act{write(1, 1, 2), write(0, 3, 4), read(of(1), 5, 6)}},
		{"a swap after what it expects", true, []*act{write(1, 1, 2), swap(1, 2, 3, 4), read(of(2), 5, 6)}},
		{"two swaps of the same", false, []*act{write(1, 1, 2), swap(1, 2, 3, 4), swap(1, 3, 5, 6)}},
		{"a swap over another's write", false, []*act{write(1, 1, 2), write(2, 3, 4), swap(1, 3, 5, 6)}},
		{"a comparison fails rightly", true, []*act{write(1, 1, 2), differs(0, 3, 4)}},
		{"a comparison fails wrongly", false, []*act{write(1, 1, 2), differs(1, 3, 4)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &run{history: newHistory(), report: &Report{}}
			for _, a := range c.acts {
				r.history.add(a)
			}
			if r.judge(); len(r.report.Violations) == 0 != c.ok || r.report.GaveUp {
				t.Errorf("allowed: %t, want %t (gave up: %t): %q", len(r.report.Violations) == 0, c.ok, r.report.GaveUp, r.report.Violations)
			}
			if r.report.Acts == 0 {
				t.Error("nothing was looked at")
			}
		})
	}
}

// TestCheckThatGivesUpFails gives the checker 40 writes at once, whose orders nobody can try one after the other, and a moment.
func TestCheckThatGivesUpFails(t *testing.T) {
	r := &run{history: newHistory(), report: &Report{}}
	r.history.limit = 20 * time.Millisecond
	for i := range 40 {
		r.history.add(&act{kind: actWrite, mask: 1 << (i % 8), id: uint32(i + 1), call: 1, ret: 2, slot: i})
	}
	r.history.add(&act{kind: actRead, mask: whole, seen: of(100), call: 3, ret: 4})
	r.judge()
	if !r.report.GaveUp || len(r.report.Violations) == 0 || !r.broken {
		t.Errorf("gave up: %t, violations %q", r.report.GaveUp, r.report.Violations)
	}
}
