package ec

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// stripe are the chunks of a random object and its code.
type stripe struct {
	*Code
	chunks [][]byte
}

func (s stripe) data() [][]byte   { return s.chunks[:s.k] }
func (s stripe) parity() [][]byte { return s.chunks[s.k:] }

func newStripe(t testing.TB, k, m, size int, rnd *rand.Rand) stripe {
	t.Helper()
	s := stripe{mustGet(t, k, m), make([][]byte, k+m)}
	for i := range s.chunks {
		s.chunks[i] = randomBytes(rnd, size)
	}
	if err := s.Encode(s.data(), s.parity()); err != nil {
		t.Fatal(err)
	}
	return s
}

func randomBytes(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

func clone(chunks [][]byte) [][]byte {
	out := make([][]byte, len(chunks))
	for i := range chunks {
		out[i] = bytes.Clone(chunks[i])
	}
	return out
}

// sizes are lengths of all ways that reedsolomon multiplies, of bitmaps, of blocks, and around tiles.
var sizes = []int{0, 1, 4, 7, 31, 33, 64, 127, 129, 200, 512, 4096, tile - 1, tile, tile + 1, 3*tile + 77}

func TestEncodeIsTheSlowOne(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, n := range [][2]int{{1, 1}, {2, 1}, {3, 1}, {2, 2}, {4, 2}, {8, 3}, {10, 5}, {16, 16}, {31, 1}, {1, 31}, {20, 12}} {
		for _, size := range sizes {
			s := newStripe(t, n[0], n[1], size, rnd)
			for r, p := range s.parity() {
				for j := range p {
					if in := j % tile; in > 200 && in < tile-200 && j < size-200 && j%17 != 0 {
						continue
					}
					if want := slowParity(s.data(), r, j); p[j] != want {
						t.Fatalf("%v, %d bytes: parity %d byte %d = %d, want %d", s, size, r, j, p[j], want)
					}
				}
			}
		}
	}
}

// TestReconstructComputesWhatIsWantedAndNothingElse goes through every set of chunks that is enough for small codes, and every missing chunk alone and together.
func TestReconstructComputesWhatIsWantedAndNothingElse(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, n := range [][2]int{{1, 1}, {2, 1}, {3, 1}, {2, 2}, {4, 2}, {3, 3}, {1, 3}} {
		s := newStripe(t, n[0], n[1], 37, rnd)
		for present := Set(0); present <= s.All(); present++ {
			for wanted := Set(0); wanted <= s.All(); wanted++ {
				if present&wanted == 0 {
					s.checkReconstruct(t, rnd, present, wanted)
				}
			}
		}
	}
	for _, n := range [][2]int{{4, 2}, {8, 3}, {16, 4}, {16, 16}, {31, 1}, {1, 31}} {
		for _, size := range sizes {
			s := newStripe(t, n[0], n[1], size, rnd)
			for range 2 {
				present := s.All()
				for range rnd.IntN(s.m) + 1 {
					present &^= 1 << rnd.IntN(s.k+s.m)
				}
				s.checkReconstruct(t, rnd, present, s.All()&^present)
				s.checkReconstruct(t, rnd, present, (s.All()&^present)&Set(rnd.Uint32()))
			}
		}
	}
}

func (s stripe) checkReconstruct(t *testing.T, rnd *rand.Rand, present, wanted Set) {
	t.Helper()
	got := clone(s.chunks)
	sources, _ := s.Sources(present)
	for i := range got {
		switch {
		case wanted.Has(i):
			got[i] = randomBytes(rnd, len(got[i]))
		case !present.Has(i):
			got[i] = nil
		case !sources.Has(i): // never read
			got[i] = nil
		}
	}
	before := clone(got)
	err := s.Reconstruct(got, present, wanted)
	if few := (*TooFewChunksError)(nil); present.Len() < s.k {
		if !errors.As(err, &few) || few.Have != present.Len() || few.Need != s.k {
			t.Fatalf("%v: %v from %v: error %v, want too few chunks", s, wanted, present, err)
		}
	} else if err != nil {
		t.Fatalf("%v: %v from %v: %v", s, wanted, present, err)
	}
	for i := range got {
		want := before[i]
		if err == nil && wanted.Has(i) {
			want = s.chunks[i]
		}
		if !bytes.Equal(got[i], want) {
			t.Fatalf("%v, %d bytes: %v from %v: chunk %d is not what it was", s, len(s.chunks[0]), wanted, present, i)
		}
	}
}

func TestParityThatIsNotAtHandIsLeftOut(t *testing.T) {
	rnd := rand.New(rand.NewPCG(23, 24))
	for _, size := range sizes {
		s := newStripe(t, 4, 3, size, rnd)
		got := [][]byte{make([]byte, size), nil, make([]byte, size)}
		if err := s.Encode(s.data(), got); err != nil {
			t.Fatal(err)
		}
		if got[1] != nil || !bytes.Equal(got[0], s.parity()[0]) || !bytes.Equal(got[2], s.parity()[2]) {
			t.Errorf("%d bytes: parity 0 and 2 alone are not those of all", size)
		}
	}
}

func TestDeltaIsEncode(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	for _, n := range [][2]int{{1, 1}, {2, 1}, {4, 2}, {8, 3}, {28, 4}} {
		for _, size := range sizes {
			s := newStripe(t, n[0], n[1], size, rnd)
			got := clone(s.parity())
			absent := rnd.IntN(s.m + 1)
			if absent < s.m {
				got[absent] = nil
			}
			for range 3 { // some chunks, some ranges of them
				i := rnd.IntN(s.k)
				from := rnd.IntN(size + 1)
				to := from + rnd.IntN(size+1-from)
				changed := randomBytes(rnd, to-from)
				part := make([][]byte, s.m)
				for r := range part {
					if got[r] != nil {
						part[r] = got[r][from:to]
					}
				}
				if err := s.Delta(i, s.chunks[i][from:to], changed, part); err != nil {
					t.Fatal(err)
				}
				copy(s.chunks[i][from:], changed)
			}
			if err := s.Encode(s.data(), s.parity()); err != nil {
				t.Fatal(err)
			}
			for r, p := range s.parity() {
				if r != absent && !bytes.Equal(got[r], p) {
					t.Fatalf("%v, %d bytes: parity %d differs from Encode's", s, size, r)
				}
			}
		}
	}
}

// TestAnotherParityChunkChangesNothing: data and parity of k+m are those of k+(m+1), the new chunk is computed from any k of the old ones, and the old code is
// still good for the old chunks.
func TestAnotherParityChunkChangesNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 10))
	for _, n := range [][2]int{{2, 1}, {4, 1}, {4, 2}, {8, 3}, {15, 16}, {30, 1}} {
		s := newStripe(t, n[0], n[1], 300, rnd)
		grown := stripe{mustGet(t, n[0], n[1]+1), append(clone(s.chunks), make([]byte, 300))}
		lost := rnd.IntN(s.k + s.m)
		grown.chunks[lost] = make([]byte, 300)
		if err := grown.Reconstruct(grown.chunks, s.All()&^(1<<lost), SetOf(lost, s.k+s.m)); err != nil {
			t.Fatal(err)
		}
		whole := newStripe(t, n[0], n[1]+1, 300, rnd)
		if err := whole.Encode(s.data(), whole.parity()); err != nil {
			t.Fatal(err)
		}
		for r := range whole.parity() {
			if !bytes.Equal(grown.parity()[r], whole.parity()[r]) {
				t.Errorf("%v: parity %d of %v differs", s, r, whole)
			}
		}
		if !bytes.Equal(grown.chunks[lost], s.chunks[lost]) {
			t.Errorf("%v: chunk %d lost while it grew came back different", s, lost)
		}
	}
}

// TestBitmapsFollowTheData: the bitmap of a data chunk is what the bitmaps of others and of parity say, also one of four bits.
func TestBitmapsFollowTheData(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	for _, size := range []int{1, 4, 32} {
		s := newStripe(t, 4, 2, size, rnd)
		if size == 1 {
			for i := range s.data() {
				s.chunks[i][0] &= 0x0F
			}
			if err := s.Encode(s.data(), s.parity()); err != nil {
				t.Fatal(err)
			}
		}
		s.checkReconstruct(t, rnd, SetOf(0, 2, 4, 5), SetOf(1, 3))
	}
}

func TestCodesAreMadeOnce(t *testing.T) {
	var codes Codes
	a, err := codes.Get(4, 2)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := codes.Get(4, 2); b != a || err != nil {
		t.Errorf("Get(4, 2) = %p, %v, want %p", b, err, a)
	}
	if a.K() != 4 || a.M() != 2 || a.Data() != 0b001111 || a.Parity() != 0b110000 || a.String() != "4+2" {
		t.Errorf("%v: %d, %d, %v, %v", a, a.K(), a.M(), a.Data(), a.Parity())
	}
	if full := mustGet(t, 31, 1); full.All() != 1<<32-1 || full.Parity() != 1<<31 {
		t.Errorf("%v: all %v, parity %v", full, full.All(), full.Parity())
	}
	for _, n := range [][2]int{{0, 1}, {1, 0}, {-1, 3}, {3, -1}, {31, 2}, {16, 17}, {1 << 40, 1}, {1, 32}} {
		if _, err := codes.Get(n[0], n[1]); !errors.Is(err, ErrCall) {
			t.Errorf("Get(%d, %d): error %v, want %v", n[0], n[1], err, ErrCall)
		}
	}
}

func TestWrongCallsAreErrors(t *testing.T) {
	c := mustGet(t, 2, 2)
	var block, other [64]byte
	buf := func(n ...int) (out [][]byte) {
		for _, n := range n {
			out = append(out, make([]byte, n))
		}
		return out
	}
	shared := buf(8, 8, 8, 8)
	shared[3] = shared[0]
	for i, c := range []struct {
		err  error
		want string
	}{
		{c.Encode(buf(8), buf(8, 8)), "encode 2+2: chunks do not fit: 1 data and 2 parity chunks"},
		{c.Encode(buf(8, 8), buf(8, 8, 8)), "2 data and 3 parity chunks"},
		{c.Encode(buf(8, 9), buf(8, 8)), "input 1 has 9 bytes, input 0 8"},
		{c.Encode(buf(8, 8), buf(8, 7)), "output 1 has 7 bytes, the inputs 8"},
		{c.Encode(shared[:2], shared[2:]), "output 1 is the memory of another chunk"},
		{c.Encode(shared[1:3], [][]byte{block[:8], block[:8]}), "output 1 is the memory of another chunk"},
		{c.Encode(buf(8, 0), buf(8, 8)), "input 1 has 0 bytes"},
		{c.Delta(2, block[:], other[:], buf(64, 64)), "delta 2+2: chunks do not fit: data chunk 2, 2 parity chunks"},
		{c.Delta(-1, block[:], other[:], buf(64, 64)), "data chunk -1"},
		{c.Delta(0, block[:], other[:], buf(64)), "1 parity chunks"},
		{c.Delta(0, block[:], other[:9], buf(64, 64)), "input 1 has 9 bytes"},
		{c.Delta(0, block[:], other[:], buf(64, 63)), "output 1 has 63 bytes"},
		{c.Delta(0, block[:], other[:], [][]byte{nil, other[:]}), "output 1 is the memory"},
		{c.Reconstruct(buf(8, 8, 8), SetOf(0, 1), SetOf(2)), "reconstruct (2) of 2+2 from (0,1): chunks do not fit: 3 chunks"},
		{c.Reconstruct(buf(8, 8, 8, 8), SetOf(0, 1), SetOf(1)), "chunks do not fit"},
		{c.Reconstruct(buf(8, 8, 8, 8), SetOf(0, 1, 4), SetOf(2)), "chunks do not fit"},
		{c.Reconstruct(buf(8, 8, 8, 8), SetOf(0, 1), SetOf(31)), "chunks do not fit"},
		{c.Reconstruct([][]byte{block[:8], other[:8], nil, nil}, SetOf(0, 1), SetOf(2)), "buffer 0 is nil"},
		{c.Reconstruct([][]byte{nil, other[:8], nil, block[:8]}, SetOf(0, 1), SetOf(3)), "input 1 has 8 bytes, input 0 0"},
		{c.Reconstruct(shared, SetOf(0, 1), SetOf(3)), "is the memory of another chunk"},
		{c.Reconstruct(buf(8, 8, 8, 8), SetOf(3), SetOf(1)), "1 chunks are here, 2 are needed"},
		{second(c.Verify(buf(8, 8, 8, 8), SetOf(1, 3))), "verify (1,3) of 2+2: 2 chunks are here, 3 are needed"},
		{second(c.Verify(buf(8, 8, 8), 7)), "3 chunks"},
		{second(c.Verify(buf(8, 8, 8, 9), 15)), "input 3 has 9 bytes"},
		{second(c.Verify(buf(8, 8, 8, 8), 31)), "chunks do not fit"},
		{second(c.FindBad(buf(8, 8, 8, 9), 15)), "find bad chunks of 2+2 among (0,1,2,3): chunks do not fit: input 3"},
		{second(c.FindBad(nil, 15)), "0 chunks"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("case %d: error %q, want %q", i, c.err, c.want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestProgramsAreBounded(t *testing.T) {
	rnd := rand.New(rand.NewPCG(13, 14))
	s := newStripe(t, 8, 6, 40, rnd)
	for range 3 * maxPrograms {
		wanted := Set(0)
		for wanted.Len() < 1+rnd.IntN(s.m) {
			wanted |= 1 << rnd.IntN(s.k+s.m)
		}
		s.checkReconstruct(t, rnd, s.All()&^wanted, wanted)
	}
	if n := len(s.programs.list); n != maxPrograms {
		t.Errorf("%d programs are kept, want %d", n, maxPrograms)
	}
	// The one that is used all the time stays.
	kept := s.program(s.Data(), s.Parity())
	for i := range 2 * maxPrograms {
		s.program(s.Data(), s.Parity())
		missing := Set(1)<<(i%8) | 1<<((i/8)%8)
		s.program((s.All() &^ missing).Lowest(8), missing)
	}
	if again := s.program(s.Data(), s.Parity()); again != kept {
		t.Error("a program in use was thrown out")
	}
}

func TestNothingAllocates(t *testing.T) {
	rnd := rand.New(rand.NewPCG(15, 16))
	for _, n := range [][2]int{{2, 1}, {4, 2}, {8, 3}, {16, 16}} {
		for _, size := range []int{4, 4096, 3 * tile} {
			s := newStripe(t, n[0], n[1], size, rnd)
			old := bytes.Clone(s.chunks[0])
			bad := clone(s.chunks)
			if size > 4 {
				bad[0][size/2]++
			}
			var codes Codes
			for name, f := range map[string]func() error{
				"Get":         func() error { return second(codes.Get(n[0], n[1])) },
				"Encode":      func() error { return s.Encode(s.data(), s.parity()) },
				"Delta":       func() error { return s.Delta(0, old, s.chunks[0], s.parity()) },
				"Reconstruct": func() error { return s.Reconstruct(s.chunks, s.All()&^1, 1) },
				"parity":      func() error { return s.Reconstruct(s.chunks, s.All()&^s.Parity(), s.Parity()) },
				"Verify":      func() error { return second(s.Verify(s.chunks, s.All())) },
				"FindBad": func() error {
					if s.m == 1 {
						return nil
					}
					return second(s.FindBad(bad, s.All()))
				},
			} {
				allocs := testing.AllocsPerRun(10, func() {
					if err := f(); err != nil {
						t.Fatal(name, err)
					}
				})
				if allocs != 0 {
					t.Errorf("%v, %d bytes: %s allocates %v times", s, size, name, allocs)
				}
			}
		}
	}
}

func TestSetSaysItsChunks(t *testing.T) {
	for _, c := range []struct {
		s    Set
		want string
	}{{0, "()"}, {SetOf(3), "(3)"}, {SetOf(0, 31), "(0,31)"}} {
		if got := c.s.String(); got != c.want {
			t.Errorf("%b = %s, want %s", uint32(c.s), got, c.want)
		}
	}
	for set, want := range map[Set]int{0: -1, SetOf(0): 0, SetOf(1, 4): 4, SetOf(3, 31): 31} {
		if got := set.Last(); got != want {
			t.Errorf("%v.Last() = %d, want %d", set, got, want)
		}
	}
	if got := SetOf(1, 4, 9, 31).Lowest(2); got != SetOf(1, 4) {
		t.Errorf("Lowest(2) = %v", got)
	}
	if got := SetOf(1, 4).Lowest(7); got != SetOf(1, 4) {
		t.Errorf("Lowest(7) = %v", got)
	}
	if first := Set(0).First(); first != MaxChunks {
		t.Errorf("First of none = %d", first)
	}
}

func BenchmarkCode(b *testing.B) {
	rnd := rand.New(rand.NewPCG(17, 18))
	for _, n := range [][2]int{{2, 1}, {4, 2}, {8, 3}} {
		for _, size := range []int{4 << 10, 128 << 10} {
			s := newStripe(b, n[0], n[1], size, rnd)
			old := bytes.Clone(s.chunks[0])
			lost := s.Data().Lowest(min(s.m, 2))
			run := func(op string, bytes int, f func() error) {
				b.Run(fmt.Sprintf("%s/k=%d,m=%d/chunk=%dKiB", op, s.k, s.m, size>>10), func(b *testing.B) {
					b.SetBytes(int64(bytes))
					b.ReportAllocs()
					for b.Loop() {
						if err := f(); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
			run("encode", s.k*size, func() error { return s.Encode(s.data(), s.parity()) })
			run("delta", size, func() error { return s.Delta(0, old, s.chunks[0], s.parity()) })
			run("reconstruct", s.k*size, func() error { return s.Reconstruct(s.chunks, s.All()&^lost, lost) })
			run("verify", s.k*size, func() error { return second(s.Verify(s.chunks, s.All())) })
		}
	}
}
