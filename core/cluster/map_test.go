package cluster

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestMapMatchesAPlainMap changes both at random; older versions must stay what they were.
func TestMapMatchesAPlainMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	m, plain := NewMap[int, int](cmp.Compare[int]), map[int]int{}
	type version struct {
		m     Map[int, int]
		plain map[int]int
	}
	var old []version
	for i := range 20000 {
		k := rnd.IntN(3000)
		if rnd.IntN(5) < 3 {
			m, plain[k] = m.With(k, i), i
		} else {
			m = m.Without(k)
			delete(plain, k)
		}
		if i%2000 == 1999 {
			old = append(old, version{m, maps.Clone(plain)})
		}
	}
	for _, v := range append(old, version{m, plain}) {
		if v.m.Len() != len(v.plain) {
			t.Fatalf("len = %d, want %d", v.m.Len(), len(v.plain))
		}
		want := slices.Sorted(maps.Keys(v.plain))
		var got []int
		for k, val := range v.m.All() {
			if val != v.plain[k] {
				t.Fatalf("%d = %d, want %d", k, val, v.plain[k])
			}
			got = append(got, k)
		}
		if !slices.Equal(got, want) {
			t.Fatal("keys differ or are out of order")
		}
		for k := range 3000 {
			if val, ok := v.m.Get(k); val != v.plain[k] || ok != has(v.plain, k) {
				t.Fatalf("Get(%d) = %d, %v", k, val, ok)
			}
		}
		from := want[len(want)/2]
		for k := range v.m.From(from) {
			if k != from {
				t.Fatalf("From(%d) starts with %d", from, k)
			}
			break
		}
	}
	var zero Map[int, int]
	if _, ok := zero.Get(1); ok || zero.Without(1).Len() != 0 {
		t.Error("the zero map has something")
	}
}

func has(m map[int]int, k int) bool { _, ok := m[k]; return ok }

func BenchmarkMapWith(b *testing.B) {
	m := NewMap[int, int](cmp.Compare[int])
	for i := range 100000 {
		m = m.With(i, i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m = m.With(i*7919%100000, i)
	}
}
