package ec

import (
	"errors"
	"math/rand/v2"
	"testing"
)

// spoil changes a chunk in as many places as told, or in all.
func spoil(chunk []byte, places int, rnd *rand.Rand) {
	for _, at := range rnd.Perm(len(chunk))[:min(places, len(chunk))] {
		chunk[at] ^= byte(1 + rnd.IntN(255))
	}
}

// pick is a set of n chunks of s.
func pick(s Set, n int, rnd *rand.Rand) (out Set) {
	for out.Len() < n {
		if i := rnd.IntN(MaxChunks); s.Has(i) {
			out |= 1 << i
		}
	}
	return out
}

func (s stripe) spoiled(bad Set, places int, rnd *rand.Rand) [][]byte {
	chunks := clone(s.chunks)
	for rest := bad; rest != 0; rest &= rest - 1 {
		spoil(chunks[rest.First()], places, rnd)
	}
	return chunks
}

func TestVerifySeesOneWrongByte(t *testing.T) {
	rnd := rand.New(rand.NewPCG(19, 20))
	for _, n := range [][2]int{{1, 1}, {2, 1}, {4, 2}, {8, 3}, {16, 16}, {31, 1}} {
		for _, size := range []int{1, 4, 200, tile, 2*tile + 5} {
			s := newStripe(t, n[0], n[1], size, rnd)
			for i := range s.chunks {
				present := s.All()
				if s.m > 1 && rnd.IntN(2) == 0 {
					present &^= 1 << ((i + 1) % len(s.chunks))
				}
				if ok, err := s.Verify(s.chunks, present); !ok || err != nil {
					t.Fatalf("%v, %d bytes: %v, %v for right chunks", s, size, ok, err)
				}
				at := rnd.IntN(size)
				s.chunks[i][at]++
				if ok, err := s.Verify(s.chunks, present); ok || err != nil {
					t.Fatalf("%v, %d bytes: %v, %v with chunk %d wrong at %d", s, size, ok, err, i, at)
				}
				s.chunks[i][at]--
			}
		}
	}
}

// TestFindBadNamesTheWrongChunks spoils every set of chunks that is small enough in small codes, and some in large ones, in one place and in many.
func TestFindBadNamesTheWrongChunks(t *testing.T) {
	rnd := rand.New(rand.NewPCG(21, 22))
	check := func(s stripe, present, bad Set, places int) {
		t.Helper()
		if got, err := s.FindBad(s.spoiled(bad, places, rnd), present); got != bad || err != nil {
			t.Fatalf("%v, %d bytes: FindBad among %v = %v, %v, want %v", s, len(s.chunks[0]), present, got, err, bad)
		}
	}
	for _, n := range [][2]int{{1, 1}, {2, 1}, {1, 2}, {2, 2}, {4, 2}, {3, 3}, {4, 3}, {4, 4}, {2, 6}} {
		for _, size := range []int{1, 50} {
			s := newStripe(t, n[0], n[1], size, rnd)
			for bad := Set(0); bad <= s.All(); bad++ {
				if bad.Len() <= s.m/2 {
					check(s, s.All(), bad, 1)
					check(s, s.All(), bad, 20)
				}
			}
		}
	}
	for _, n := range [][2]int{{8, 3}, {16, 4}, {16, 16}, {1, 31}, {29, 3}, {20, 12}} {
		s := newStripe(t, n[0], n[1], 2*tile+100, rnd)
		for range 12 {
			// With some chunks absent, too, and some places many tiles apart.
			present := s.All() &^ pick(s.All(), rnd.IntN(s.m-1), rnd)
			check(s, present, pick(present, rnd.IntN((present.Len()-s.k)/2+1), rnd), 1+rnd.IntN(3)*rnd.IntN(300))
		}
	}
}

// TestFindBadSaysSoWhenItCannotTell: with one parity chunk nothing can be located, and with more wrong than half the parity chunks no answer is right.
func TestFindBadSaysSoWhenItCannotTell(t *testing.T) {
	rnd := rand.New(rand.NewPCG(23, 24))
	for _, n := range [][2]int{{1, 1}, {2, 1}, {31, 1}, {4, 2}, {8, 3}, {16, 4}, {16, 16}} {
		s := newStripe(t, n[0], n[1], 300, rnd)
		for range 20 {
			bad := pick(s.All(), s.m/2+1, rnd)
			if got, err := s.FindBad(s.spoiled(bad, 200, rnd), s.All()); !errors.Is(err, ErrInconsistent) || got != 0 {
				t.Fatalf("%v: FindBad = %v, %v with %v wrong, want %v", s, got, err, bad, ErrInconsistent)
			}
		}
	}
}

// TestFindBadIsBruteForce compares with trying every set of chunks, for bytes drawn at random: the error is unique, or there is none.
func TestFindBadIsBruteForce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(25, 26))
	found := 0
	for _, n := range [][2]int{{1, 2}, {2, 2}, {3, 2}, {2, 3}, {2, 4}, {1, 5}} {
		s := newStripe(t, n[0], n[1], 1, rnd)
		for range 400 {
			for i := range s.data() {
				s.chunks[i][0] = byte(rnd.Uint32())
			}
			if err := s.Encode(s.data(), s.parity()); err != nil {
				t.Fatal(err)
			}
			for range s.m { // near a codeword often enough
				s.chunks[rnd.IntN(len(s.chunks))][0] = byte(rnd.Uint32())
			}
			var want []Set
			for bad := Set(0); bad <= s.All(); bad++ {
				if bad.Len() <= s.m/2 && s.explains(t, bad) {
					want = append(want, bad)
				}
			}
			got, err := s.FindBad(s.chunks, s.All())
			if len(want) == 0 {
				if !errors.Is(err, ErrInconsistent) {
					t.Fatalf("%v %x: FindBad = %v, %v, want none", s, s.chunks, got, err)
				}
				continue
			}
			found++
			smallest := want[0]
			for _, w := range want {
				if w.Len() < smallest.Len() {
					smallest = w
				}
			}
			for _, w := range want {
				if w&smallest != smallest {
					t.Fatalf("%v %x: %v and %v both explain it", s, s.chunks, w, smallest)
				}
			}
			if err != nil || got != smallest {
				t.Fatalf("%v %x: FindBad = %v, %v, want %v", s, s.chunks, got, err, smallest)
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d could be explained", found)
	}
}

// explains reports whether the chunks but those of bad are those of some object.
func (s stripe) explains(t *testing.T, bad Set) bool {
	ok, err := s.Verify(s.chunks, s.All()&^bad)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// TestFindBadIsBounded: everything wrong everywhere in the largest code is one reading.
func TestFindBadIsBounded(t *testing.T) {
	rnd := rand.New(rand.NewPCG(27, 28))
	s := newStripe(t, 16, 16, 4*tile, rnd)
	for i := range s.chunks {
		s.chunks[i] = randomBytes(rnd, 4*tile)
	}
	if got, err := s.FindBad(s.chunks, s.All()); !errors.Is(err, ErrInconsistent) {
		t.Fatalf("FindBad = %v, %v", got, err)
	}
	// A wrong chunk at a time, each further on than the last, is the most work.
	s = newStripe(t, 16, 16, 4*tile, rnd)
	var bad Set
	for i := range 8 {
		s.chunks[3*i][i*tile/2+7]++
		bad |= 1 << (3 * i)
	}
	if got, err := s.FindBad(s.chunks, s.All()); got != bad || err != nil {
		t.Fatalf("FindBad = %v, %v, want %v", got, err, bad)
	}
	if n := len(s.programs.list); n > 40 {
		t.Errorf("it took %d programs", n)
	}
}
