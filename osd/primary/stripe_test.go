package primary

import (
	"math/rand/v2"
	"slices"
	"testing"

	"holdfast/core/ec"
)

func TestTouched(t *testing.T) {
	s := stripes{k: 3, m: 2, block: 100}
	for _, c := range []struct {
		off, len uint32
		want     ec.Set
	}{{0, 0, 0}, {0, 1, 1}, {99, 1, 1}, {99, 2, 3}, {100, 100, 2}, {0, 300, 7}, {199, 2, 6}, {299, 1, 4}} {
		if got := s.touched(c.off, c.len); got != c.want {
			t.Errorf("%d+%d touches %b, want %b", c.off, c.len, got, c.want)
		}
	}
}

func TestBands(t *testing.T) {
	s := stripes{k: 3, m: 2, block: 100}
	for _, c := range []struct {
		name     string
		off, len uint32
		want     []band
	}{
		{"nothing", 0, 0, nil},
		{"one chunk", 110, 20, []band{{part{10, 20}, 2}}},
		{"all", 0, 300, []band{{part{0, 100}, 7}}},
		{"two that overlap", 20, 150, []band{{part{0, 20}, 2}, {part{20, 50}, 3}, {part{70, 30}, 1}}},
		{"two that do not", 70, 50, []band{{part{0, 20}, 2}, {part{20, 50}, 0}, {part{70, 30}, 1}}},
		{"two that meet", 50, 100, []band{{part{0, 50}, 2}, {part{50, 50}, 1}}},
		{"three", 70, 150, []band{{part{0, 20}, 6}, {part{20, 50}, 2}, {part{70, 30}, 3}}},
		{"from the start", 0, 130, []band{{part{0, 30}, 3}, {part{30, 70}, 1}}},
		{"to the end", 170, 130, []band{{part{0, 70}, 4}, {part{70, 30}, 6}}},
	} {
		if got := s.bands(nil, c.off, c.len); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Whatever is changed, the bands are next to each other and each byte that is overwritten is in the one that says so, and no other.
func TestBandsCoverExactly(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		s := stripes{k: 1 + r.IntN(6), m: 1, block: uint32(1 + r.IntN(12))}
		size := uint32(s.k) * s.block
		off := r.Uint32N(size)
		length := 1 + r.Uint32N(size-off)
		list := s.bands(nil, off, length)
		if len(list) == 0 || len(list) > 3 || list[0].over == 0 || list[len(list)-1].over == 0 {
			t.Fatalf("%+v %d+%d: %v", s, off, length, list)
		}
		for i, b := range list {
			if b.len == 0 || i > 0 && b.off != list[i-1].end() {
				t.Fatalf("%+v %d+%d: %v", s, off, length, list)
			}
		}
		for role := range s.k {
			p := s.part(role, off, length)
			for x := range s.block {
				over := x >= p.off && x < p.end()
				i := slices.IndexFunc(list, func(b band) bool { return x >= b.off && x < b.end() })
				if says := i >= 0 && list[i].over.Has(role); says != over {
					t.Fatalf("%+v %d+%d: byte %d of chunk %d is overwritten: %v; the bands say %v", s, off, length, x, role, over, says)
				}
			}
		}
	}
}

func TestReadsBeforeWriting(t *testing.T) {
	data := func(over ec.Set) band { return band{part{0, 10}, over} }
	for _, c := range []struct {
		name string
		s    stripes
		over ec.Set
		here ec.Set
		want reading
		ok   bool
	}{
		{"whole stripes", stripes{2, 1, 100}, 3, 7, reading{}, true},
		{"whole stripes, one chunk away", stripes{2, 1, 100}, 3, 6, reading{}, true},
		{"2+1, one chunk: the other one", stripes{2, 1, 100}, 1, 7, reading{fromData, 2}, true},
		{"8+3, one chunk: it and the parity", stripes{8, 3, 100}, 1, 1<<11 - 1, reading{fromDelta, 1 | 7<<8}, true},
		{"8+3, five chunks: the other three", stripes{8, 3, 100}, 31, 1<<11 - 1, reading{fromData, 7 << 5}, true},
		{"no parity here", stripes{2, 1, 100}, 1, 3, reading{}, true},
		{"what is overwritten is away: the others", stripes{2, 1, 100}, 1, 6, reading{fromData, 2}, true},
		{"another one is away: what is overwritten, and the parity", stripes{2, 1, 100}, 1, 5, reading{fromDelta, 5}, true},
		{"both kinds are away: any k", stripes{4, 2, 100}, 1, 1<<6 - 1 - 1 - 2, reading{fromAny, 4 | 8 | 16 | 32}, true},
		{"too few", stripes{4, 2, 100}, 1, 4 | 8 | 16, reading{fromAny, 4 | 8 | 16}, false},
		{"nothing is overwritten: the parity stays", stripes{4, 2, 100}, 0, 1<<6 - 1, reading{fromDelta, 3 << 4}, true},
	} {
		got, ok := c.s.read(data(c.over), c.here)
		if got != c.want || ok != c.ok {
			t.Errorf("%s: %+v %v, want %+v %v", c.name, got, ok, c.want, c.ok)
		}
	}
}
