package ec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
)

// FuzzCode lets the input choose a code, a length, and what is done to an object: changes of ranges, losses, damage. A copy of the data is kept beside, and what
// the slow arithmetic makes of it is what the chunks must be.
func FuzzCode(f *testing.F) {
	f.Add([]byte{4, 2, 100, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	f.Add([]byte{1, 1, 0, 0, 0})
	f.Add([]byte{31, 1, 1, 0, 0, 9, 9, 9, 9, 9, 9, 1, 9, 9, 9, 9, 2, 9, 9, 9})
	f.Add([]byte{16, 16, 255, 1, 3, 200, 1, 2, 3, 4, 5, 6, 3, 17, 18, 19, 20, 0, 1, 1, 1, 1, 1, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, in []byte) {
		next := func() int {
			if len(in) == 0 {
				return 0
			}
			b := in[0]
			in = in[1:]
			return int(b)
		}
		k, m, size := next(), next(), next()|next()%8<<8
		var codes Codes
		c, err := codes.Get(k, m)
		if err != nil {
			if k >= 1 && m >= 1 && k+m <= MaxChunks || !errors.Is(err, ErrCall) {
				t.Fatal(err)
			}
			return
		}
		var seed [32]byte
		binary.LittleEndian.PutUint16(seed[:], uint16(next()|next()<<8))
		rnd := rand.New(rand.NewChaCha8(seed))
		s := newStripe(t, k, m, size, rnd)
		s.Code = c
		for turn := 0; len(in) > 0 && turn < 16; turn++ {
			s.act(t, next, rnd)
			for r, p := range s.parity() {
				for j := 0; j < size; j += 1 + j/8 {
					if want := slowParity(s.data(), r, j); p[j] != want {
						t.Fatalf("%v: parity %d byte %d = %d, want %d", s, r, j, p[j], want)
					}
				}
			}
		}
	})
}

// act does one thing that the input says.
func (s stripe) act(t *testing.T, next func() int, rnd *rand.Rand) {
	size := len(s.chunks[0])
	from := (next() | next()<<8) % (size + 1)
	to := from + (next()|next()<<8)%(size+1-from)
	part := make([][]byte, len(s.chunks))
	for i := range part {
		part[i] = s.chunks[i][from:to]
	}
	some := Set(next()|next()<<8|next()<<16|next()<<24) & s.All()
	switch next() % 4 {
	case 0: // a change
		i := next() % s.k
		changed := randomBytes(rnd, to-from)
		if err := s.Delta(i, part[i], changed, part[s.k:]); err != nil {
			t.Fatal(err)
		}
		copy(part[i], changed)
	case 1: // losses
		before := clone(part)
		wanted := some & Set(rnd.Uint32())
		present := s.All() &^ some
		for rest := wanted; rest != 0; rest &= rest - 1 {
			copy(part[rest.First()], randomBytes(rnd, to-from))
		}
		want := clone(part)
		err := s.Reconstruct(part, present, wanted)
		if few := (*TooFewChunksError)(nil); present.Len() >= s.k && err == nil {
			want = before
		} else if present.Len() >= s.k || !errors.As(err, &few) {
			t.Fatal(err)
		}
		for i := range part {
			if !bytes.Equal(part[i], want[i]) {
				t.Fatalf("%v: %v from %v: chunk %d differs", s, wanted, present, i)
			}
			copy(part[i], before[i])
		}
	case 2: // damage
		if to == from {
			return
		}
		bad := some & Set(rnd.Uint32())
		present := s.All() &^ (some & Set(rnd.Uint32()) &^ bad)
		part = stripe{s.Code, part}.spoiled(bad, 1+next(), rnd)
		got, err := s.FindBad(part, present)
		few := (*TooFewChunksError)(nil)
		switch limit := (present.Len() - s.k) / 2; {
		case present.Len() <= s.k:
			if !errors.As(err, &few) {
				t.Fatal(err)
			}
		case bad.Len() <= limit:
			if got != bad || err != nil {
				t.Fatalf("%v: FindBad among %v = %v, %v, want %v", s, present, got, err, bad)
			}
		case err != nil:
			if !errors.Is(err, ErrInconsistent) || got != 0 {
				t.Fatal(got, err)
			}
		default: // more damage than it can tell: if it says something, then something that explains it
			if ok, err := s.Verify(part, present&^got); got.Len() > limit || !ok || err != nil {
				t.Fatalf("%v: FindBad among %v = %v, which explains nothing: %v", s, present, got, err)
			}
		}
	case 3: // arguments that may not fit
		present, wanted := Set(rnd.Uint32()), Set(rnd.Uint32())
		part = clone(part)
		part[some.First()%len(part)] = part[0]
		part[rnd.IntN(len(part))] = randomBytes(rnd, next())
		cut := rnd.IntN(len(part) + 1)
		_ = s.Reconstruct(part[:cut], present, wanted)
		_ = s.Encode(part[:cut], part[cut:])
		_ = s.Delta(rnd.IntN(40)-4, part[0], part[len(part)-1], part[cut:])
		_, _ = s.Verify(part[:cut], present)
		_, _ = s.FindBad(part, present)
	}
}
