package store

import (
	"math/rand/v2"
	"testing"
)

func TestNextTagFindsWhatASimpleSearchFinds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		tags := make([]uint16, r.IntN(80))
		want := uint16(1 + r.IntN(3))
		for i := range tags {
			if r.IntN(12) == 0 {
				tags[i] = want - 1 + uint16(r.IntN(3))*0x7fff // values beside it, and with the highest bit
			}
			if r.IntN(20) == 0 {
				tags[i] = want
			}
		}
		i := uint64(r.IntN(len(tags) + 1))
		simple := i
		for simple < uint64(len(tags)) && tags[simple] != want {
			simple++
		}
		if got := nextTag(tags, i, want); got != simple {
			t.Fatalf("tag %d from %d on in %v: %d, wanted %d", want, i, tags, got, simple)
		}
	}
}

func BenchmarkNextTag(b *testing.B) {
	tags := make([]uint16, 1<<20)
	b.SetBytes(2 << 20)
	for b.Loop() {
		nextTag(tags, 0, 7)
	}
}
