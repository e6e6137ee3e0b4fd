package wire

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"holdfast/core/layout"
)

var (
	ownEntry = SubEntry{ownObject, 5<<16 | 8, 4, 1}
	ownPair  = SubPair{77, 5, 5<<16 | 8}
)

func TestGoldenPayloadsOfOurOwn(t *testing.T) {
	for _, name := range []string{"sub_void/one", "sub_forget/one", "sub_reply/list"} {
		p := loadGolden(t, name)[HeaderSize:]
		var got []SubEntry
		if err := SubEntries(p, func(e SubEntry) { got = append(got, e) }); err != nil || !slices.Equal(got, []SubEntry{ownEntry}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if b := AppendSubEntry(nil, ownEntry); !bytes.Equal(b, p) {
			t.Errorf("%s: encoded %x", name, b)
		}
	}
	p := loadGolden(t, "sub_replace/meta")[HeaderSize:]
	var pairs []SubPair
	written, present, err := ObjectMeta(p, func(x SubPair) { pairs = append(pairs, x) })
	if err != nil || !bytes.Equal(written, []byte{3, 0, 0, 0}) || !bytes.Equal(present, []byte{1, 0, 0, 0}) || !slices.Equal(pairs, []SubPair{ownPair}) {
		t.Errorf("%x %x %+v, %v", written, present, pairs, err)
	}
	if b := AppendObjectMeta(nil, written, present, 1, func(int) SubPair { return ownPair }); !bytes.Equal(b, p) {
		t.Errorf("encoded %x", b)
	}
}

// TestOurOwnPacketsSurviveTheWire draws every field of every packet of ours.
func TestOurOwnPacketsSurviveTheWire(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	object := func() layout.ObjectID {
		return layout.ObjectID{Inode: layout.Inode(rng.Uint64()), Stripe: rng.Uint64()}
	}
	grant := func() Grant {
		return Grant{layout.PGID{Pool: layout.PoolID(rng.Uint32N(1 << 16)), Num: rng.Uint32()}, layout.Interval(rng.Uint64()), rng.Uint64()}
	}
	version := func() layout.Version { return layout.Version(rng.Uint64()) }
	size := func() int { return int(rng.Uint32()) }
	check := func(m, fresh packet) {
		t.Helper()
		var h Header
		h.SetID(99)
		m.Encode(&h)
		if err := fresh.Decode(&h); err != nil || !reflect.DeepEqual(m, fresh) {
			t.Fatalf("%+v became %+v (%v)", m, fresh, err)
		}
		var again Header
		fresh.Encode(&again)
		if h.SetID(0); again != h {
			t.Fatalf("%+v is encoded in two ways", m)
		}
		// The other kind, or another opcode, is not it.
		bad := h
		bad.SetMagic(RequestMagic ^ ReplyMagic ^ h.Magic())
		if fresh.Decode(&bad) == nil {
			t.Fatalf("%T decodes a packet of the other kind", m)
		}
		bad = h
		bad.SetOp(OpRead)
		if fresh.Decode(&bad) == nil {
			t.Fatalf("%T decodes a READ", m)
		}
	}
	for range 500 {
		check(&Zero{layout.Inode(rng.Uint64()), rng.Uint64(), rng.Uint32(), rng.Uint32(), rng.Uint64(), Trailer{rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64()}}, new(Zero))
		for _, op := range []Opcode{OpZero, OpSubChange, OpSubReplace} {
			check(&VersionReply{op, int64(rng.Uint64()), rng.Uint64(), rng.Uint64()}, new(VersionReply))
		}
		for k := ChangeWrite; k <= ChangeDelete; k++ {
			meta := 0
			if k == ChangeWrite {
				meta = size()
			}
			check(&SubChange{object(), version(), version(), rng.Uint32(), rng.Uint32(), rng.Uint64(), rng.Uint64(), rng.Uint64(), grant(), k, uint8(rng.IntN(3)), rng.Uint64(), rng.IntN(2) == 0, meta}, new(SubChange))
		}
		check(&SubReadRange{object(), version(), rng.Uint32(), rng.Uint32N(MaxData + 1), grant()}, new(SubReadRange))
		check(&SubReply{OpSubReadRange, int64(rng.Uint64()), rng.Uint64(), version(), layout.Interval(rng.Uint64()), object(), rng.Uint32(), size(), size()}, new(SubReply))
		check(&Fix{object(), layout.OSDNum(rng.Uint64()), rng.Uint32()}, new(Fix))
		for _, op := range []Opcode{OpScrub, OpFix} {
			check(&ScrubReply{op, int64(rng.Uint64()), rng.Uint64(), Found(rng.Uint32N(uint32(FoundUnclean) + 1)), rng.Uint32()}, new(ScrubReply))
		}
		for op := OpSubRead; op <= OpSubDigest; op++ {
			if op == OpSubReadRange {
				continue
			}
			check(&Sub{op, object(), version(), version(), layout.Interval(rng.Uint64()), layout.Interval(rng.Uint64()), rng.Uint32(), rng.Uint32(), grant(), size(), size()}, new(Sub))
			check(&SubReply{op, int64(rng.Uint64()), rng.Uint64(), version(), layout.Interval(rng.Uint64()), object(), rng.Uint32(), size(), size()}, new(SubReply))
		}
	}
}

func TestChangesThatAreNoneAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(h *Header){
		"kind 0":               func(h *Header) { h[110] = 0 },
		"kind 5":               func(h *Header) { h[110] = 5 },
		"less data than said":  func(h *Header) { le.PutUint32(h[116:], 4096) },
		"a hole that has data": func(h *Header) { h[110] = byte(ChangeHole) },
		"a hole that has a bitmap": func(h *Header) {
			h[110] = byte(ChangeHole)
			h.SetRequestLens(4, 0)
		},
		"laziness 3": func(h *Header) { h[111] = 3 | changeUnstable },
	} {
		var h Header
		m := ownChange
		m.Encode(&h)
		spoil(&h)
		if err := new(SubChange).Decode(&h); err == nil {
			t.Errorf("%s is decoded", name)
		}
	}
}

func TestReadsOfRangesAreBounded(t *testing.T) {
	var h, a Header
	m := SubReadRange{Len: MaxData + 1}
	m.Encode(&h)
	if err := new(SubReadRange).Decode(&h); err == nil {
		t.Error("more than a packet holds can be read")
	}
	m.Len = 8192
	m.Encode(&h)
	h.SetRequestLens(0, 1)
	if err := new(SubReadRange).Decode(&h); err == nil {
		t.Error("a request to read has data")
	}
	for _, c := range []struct {
		retval int64
		data   int
		ok     bool
	}{{0, 8192, true}, {0, 4096, false}, {0, 0, false}, {0, 12288, false}, {EAGAIN, 0, true}} {
		(&SubReply{Op: OpSubReadRange, Retval: c.retval, Data: c.data}).Encode(&a)
		if _, _, err := ReplyPayloadLen(&h, &a); (err == nil) != c.ok {
			t.Errorf("a reply with retval %d and %d bytes to a read of 8192: %v", c.retval, c.data, err)
		}
	}
}

func TestEveryOpcodeOfOursHasAGolden(t *testing.T) {
	seen := map[Opcode]bool{}
	for _, g := range goldens {
		var h Header
		if g.m.Encode(&h); h.IsRequest() {
			seen[h.Op()] = true
		}
	}
	for op := FirstOwnOp; op <= LastOwnOp; op++ {
		if opTable[op].access != Nobody && !seen[op] {
			t.Errorf("opcode %d (%s) has none", op, opTable[op].name)
		}
	}
}

func TestObjectDescriptionsOfWrongLengthAreErrors(t *testing.T) {
	p := AppendObjectMeta(nil, make([]byte, 4), make([]byte, 4), 2, func(int) SubPair { return ownPair })
	for n := range p {
		if _, _, err := ObjectMeta(p[:n], func(SubPair) { t.Fatal("a pair of a short description") }); err == nil {
			t.Errorf("%d of %d bytes are decoded", n, len(p))
		}
		if n%SubEntrySize != 0 && SubEntries(p[:n], func(SubEntry) { t.Fatal("an entry of a short list") }) == nil {
			t.Errorf("%d bytes are a list", n)
		}
	}
	huge := slices.Clone(p)
	copy(huge[4:], []byte{255, 255, 255, 255})
	if _, _, err := ObjectMeta(huge, func(SubPair) { t.Fatal("a pair") }); err == nil {
		t.Error("2^32-1 pairs are decoded")
	}
}

func FuzzSubPayloads(f *testing.F) {
	f.Add(loadGolden(f, "sub_void/one")[HeaderSize:])
	f.Add(loadGolden(f, "sub_replace/meta")[HeaderSize:])
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		if SubEntries(b, func(e SubEntry) { again = AppendSubEntry(again, e) }) == nil && len(again) != len(b) {
			t.Fatalf("%d bytes of entries became %d", len(b), len(again))
		}
		var pairs []SubPair
		w, p, err := ObjectMeta(b, func(x SubPair) { pairs = append(pairs, x) })
		if err == nil && !bytes.Equal(AppendObjectMeta(nil, w, p, len(pairs), func(i int) SubPair { return pairs[i] }), b) {
			t.Fatal("a description differs after encoding")
		}
	})
}
