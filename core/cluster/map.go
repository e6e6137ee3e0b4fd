package cluster

import (
	"iter"
	"slices"
)

// chunkLen is how many entries a chunk of a Map has at most: a change copies one chunk and the list of chunks, which at 100,000 entries are about as long.
const chunkLen = 256

// Map is an immutable sorted map: With and Without return a changed one that shares all but one chunk with the old. Reading the zero Map finds nothing.
type Map[K, V any] struct {
	compare func(a, b K) int
	chunks  [][]entry[K, V] // none empty
	n       int
}

type entry[K, V any] struct {
	key K
	val V
}

// NewMap is an empty map whose keys are ordered by compare.
func NewMap[K, V any](compare func(a, b K) int) Map[K, V] { return Map[K, V]{compare: compare} }

// Len is the number of entries.
func (m Map[K, V]) Len() int { return m.n }

// Get finds the value of k.
func (m Map[K, V]) Get(k K) (v V, ok bool) {
	if m.n == 0 {
		return v, false
	}
	c := m.chunk(k)
	i, ok := m.search(c, k)
	if ok {
		v = m.chunks[c][i].val
	}
	return v, ok
}

// All yields the entries in the order of their keys.
func (m Map[K, V]) All() iter.Seq2[K, V] { return m.from(0, 0) }

// From yields the entries whose keys are not below k, in order.
func (m Map[K, V]) From(k K) iter.Seq2[K, V] {
	if m.n == 0 {
		return m.from(0, 0)
	}
	c := m.chunk(k)
	i, _ := m.search(c, k)
	return m.from(c, i)
}

func (m Map[K, V]) from(c, i int) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for first := i; c < len(m.chunks); c, first = c+1, 0 {
			for _, e := range m.chunks[c][first:] {
				if !yield(e.key, e.val) {
					return
				}
			}
		}
	}
}

// With is m with k set to v.
func (m Map[K, V]) With(k K, v V) Map[K, V] {
	e := entry[K, V]{k, v}
	if m.n == 0 {
		m.chunks, m.n = [][]entry[K, V]{{e}}, 1
		return m
	}
	c := m.chunk(k)
	i, found := m.search(c, k)
	old := m.chunks[c]
	if found {
		changed := slices.Clone(old)
		changed[i] = e
		return m.replace(c, 0, changed)
	}
	changed := make([]entry[K, V], 0, len(old)+1)
	changed = append(append(append(changed, old[:i]...), e), old[i:]...)
	if len(changed) <= chunkLen {
		return m.replace(c, 1, changed)
	}
	// A chunk that grew at its end is split there, so that keys that come in order leave full chunks behind.
	half := len(changed) / 2
	if i == len(old) {
		half = len(old)
	}
	return m.replace(c, 1, changed[:half:half], changed[half:])
}

// Without is m with k missing.
func (m Map[K, V]) Without(k K) Map[K, V] {
	if m.n == 0 {
		return m
	}
	c := m.chunk(k)
	i, found := m.search(c, k)
	if !found {
		return m
	}
	old := m.chunks[c]
	if len(old) == 1 {
		return m.replace(c, -1)
	}
	changed := make([]entry[K, V], 0, len(old)-1)
	return m.replace(c, -1, append(append(changed, old[:i]...), old[i+1:]...))
}

// replace puts other chunks in the place of chunk c.
func (m Map[K, V]) replace(c, more int, with ...[]entry[K, V]) Map[K, V] {
	chunks := make([][]entry[K, V], 0, len(m.chunks)+1)
	chunks = append(append(append(chunks, m.chunks[:c]...), with...), m.chunks[c+1:]...)
	return Map[K, V]{compare: m.compare, chunks: chunks, n: m.n + more}
}

// chunk is the number of the chunk that holds k, or would. The map is not empty.
func (m Map[K, V]) chunk(k K) int {
	i, found := slices.BinarySearchFunc(m.chunks, k, func(c []entry[K, V], k K) int { return m.compare(c[0].key, k) })
	if found || i == 0 {
		return i
	}
	return i - 1
}

func (m Map[K, V]) search(c int, k K) (int, bool) {
	return slices.BinarySearchFunc(m.chunks[c], k, func(e entry[K, V], k K) int { return m.compare(e.key, k) })
}
