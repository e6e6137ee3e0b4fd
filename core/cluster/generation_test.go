package cluster

import (
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/registry"
)

func TestGenerationIsTheOneInTheValue(t *testing.T) {
	s := newSnapshot()
	put := func(key, value string, create registry.Revision) *KeyError {
		return s.apply(registry.Event{KV: registry.KV{Key: key, Value: []byte(value), Create: create, Mod: create + 1}})
	}
	for _, c := range []struct {
		value string
		want  int64
	}{
		{`{"name":"a"}`, 7}, // of before
		{`{"name":"a","generation":1234567890123456}`, 1234567890123456},
	} {
		if err := put("pool/identity/1", c.value, 7); err != nil || s.Generation(1) != c.want {
			t.Errorf("%s: generation %d, %v, want %d", c.value, s.Generation(1), err, c.want)
		}
	}
	if err := put("pool/identity/1", `{"name":"a","generation":-1}`, 7); err == nil || s.Generation(1) != 1234567890123456 {
		t.Errorf("a negative one: %v, generation %d", err, s.Generation(1))
	}
	if s.Generation(2) != 0 {
		t.Error("a pool without an identity has a generation")
	}
}

func TestNewGenerationIsAboveAllEarlierOnes(t *testing.T) {
	s := newSnapshot()
	now := time.Unix(1700000000, 0)
	if g := s.NewGeneration(1, now); g != now.UnixMicro() {
		t.Errorf("generation %d, want the clock", g)
	}
	s.Records = s.Records.With(layout.PGID{Pool: 1, Num: 1}, &PGRecord{Generation: now.UnixMicro() + 5}).With(layout.PGID{Pool: 2, Num: 1}, &PGRecord{Generation: 1 << 60})
	if g := s.NewGeneration(1, now); g != now.UnixMicro()+6 {
		t.Errorf("generation %d, want one above that of the pool's records", g)
	}
	if last := s.LastGeneration(1, 9); last != now.UnixMicro()+5 {
		t.Errorf("last generation %d", last)
	}
	s.Records = s.Records.With(layout.PGID{Pool: 1, Num: 2}, &PGRecord{Meta: Meta{Mod: 10}, Generation: now.UnixMicro() + 7})
	for until, want := range map[registry.Revision]int64{9: 5, 10: 7} {
		if last := s.LastGeneration(1, until) - now.UnixMicro(); last != want {
			t.Errorf("last generation up to revision %d: %d after now, want %d", until, last, want)
		}
	}
	s.Revision = 1 << 62
	if g := s.NewGeneration(1, time.Time{}); g != 1<<62+1 {
		t.Errorf("generation %d, want one above the revision", g)
	}
}

func TestForgotIsAGenerationBetweenWhatWasKnownAndWhatWasGiven(t *testing.T) {
	known := func(g int64) *int64 { return &g }
	for _, c := range []struct {
		id   PoolIdentity
		g    int64
		want bool
	}{
		{PoolIdentity{Given: 9}, 5, false}, // of before: it may have known it
		{PoolIdentity{Given: 9, Earlier: known(0)}, 5, true},
		{PoolIdentity{Given: 9, Earlier: known(4)}, 5, true},
		{PoolIdentity{Given: 9, Earlier: known(5)}, 5, false},
		{PoolIdentity{Given: 9, Earlier: known(0)}, 9, false},
		{PoolIdentity{Given: 9, Earlier: known(0)}, 10, false},
	} {
		if have := c.id.Forgot(c.g); have != c.want {
			t.Errorf("%s forgot %d: %v", Value(&c.id), c.g, have)
		}
	}
	if err := (&PoolIdentity{Given: 9, Earlier: known(-1)}).check(); err == nil {
		t.Error("a negative one is taken")
	}
}

// TestRestoringHoldsUpWhoeverCannotReadIt: that it is there is what counts.
func TestRestoringHoldsUpWhoeverCannotReadIt(t *testing.T) {
	for _, v := range []string{`{"id":"1","file":"f"}`, `{`, ``, `[]`} {
		s := newSnapshot()
		s.apply(registry.Event{KV: registry.KV{Key: KeyRestoring, Value: []byte(v), Create: 1, Mod: 1}})
		if s.Restoring == nil {
			t.Errorf("%q is not seen", v)
		}
		s.apply(registry.Event{Deleted: true, KV: registry.KV{Key: KeyRestoring, Mod: 2}})
		if s.Restoring != nil {
			t.Errorf("%q stays", v)
		}
	}
}
