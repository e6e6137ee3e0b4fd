package wire

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// decoders makes one of each packet.
var decoders = []func() packet{
	func() packet { return new(ReadWrite) }, func() packet { return new(ReadWriteReply) }, func() packet { return new(DeleteReply) },
	func() packet { return new(Sync) }, func() packet { return new(Ping) }, func() packet { return new(PingReply) }, func() packet { return new(BareReply) },
	func() packet { return new(ShowConfig) }, func() packet { return new(List) }, func() packet { return new(ListReply) },
	func() packet { return new(Describe) }, func() packet { return new(DescribeReply) }, func() packet { return new(SecReadWrite) },
	func() packet { return new(SecReadWriteReply) }, func() packet { return new(SecDelete) }, func() packet { return new(SecDeleteReply) },
	func() packet { return new(SecSync) }, func() packet { return new(SecVersions) }, func() packet { return new(SecLock) }, func() packet { return new(SecLockReply) },
	func() packet { return new(Zero) }, func() packet { return new(VersionReply) }, func() packet { return new(SubChange) }, func() packet { return new(Sub) }, func() packet { return new(SubReply) },
	func() packet { return new(SubReadRange) },
}

// checkHeader holds every decoder to the codec laws on one header: no panic, and what was decoded survives encoding.
func checkHeader(t *testing.T, h *Header) {
	for _, fresh := range decoders {
		m := fresh()
		if m.Decode(h) != nil {
			continue
		}
		var again Header
		m.Encode(&again)
		n := fresh()
		if err := n.Decode(&again); err != nil || !reflect.DeepEqual(m, n) {
			t.Fatalf("%+v became %+v (%v)", m, n, err)
		}
	}
	meta, data, err := PayloadLen(h)
	if err == nil && (meta < 0 || meta > MaxMeta || data < 0 || data > MaxData) {
		t.Fatalf("payload of %d + %d bytes", meta, data)
	}
}

func TestEveryPacketSurvivesTheWire(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		var h Header
		for i := 24; i < HeaderSize; i++ {
			if rng.IntN(3) == 0 {
				h[i] = byte(rng.Uint32())
			}
		}
		h.SetMagic([]uint64{RequestMagic, ReplyMagic}[rng.IntN(2)])
		h.SetOp(Opcode(rng.IntN(66)))
		checkHeader(t, &h)
	}
}

func FuzzHeader(f *testing.F) {
	for _, g := range goldens {
		f.Add(loadGolden(f, g.name), []byte{})
		if !strings.Contains(g.name, "_reply") {
			continue
		}
		f.Add(requestOf(g)[:], loadGolden(f, g.name))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var h, r Header
		copy(h[:], a)
		copy(r[:], b)
		checkHeader(t, &h)
		checkHeader(t, &r)
		meta, data, err := ReplyPayloadLen(&h, &r)
		if err == nil && (meta < 0 || meta > MaxMeta || data < 0 || data > MaxData) {
			t.Fatalf("payload of %d + %d bytes", meta, data)
		}
	})
}

func FuzzPayloads(f *testing.F) {
	f.Add(loadGolden(f, "sec_stabilize/one")[HeaderSize:])
	f.Add(loadGolden(f, "describe_reply/one")[HeaderSize:])
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		v, err := DecodeVersioned(nil, b)
		if (err == nil) != (len(b)%VersionedSize == 0) {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		for _, x := range v {
			again = AppendVersioned(again, x)
		}
		if err == nil && string(again) != string(b) {
			t.Fatal("versions differ after encoding")
		}
		again = nil
		items, err := DecodeDescribeItems(nil, b)
		if (err == nil) != (len(b)%DescribeItemSize == 0) {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		for _, x := range items {
			again = AppendDescribeItem(again, x)
		}
		if err == nil && string(again) != string(b) {
			t.Fatal("items differ after encoding")
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"osd_num":1,"features":{"check_sequencing":true},"connect_rdma":"a"}`))
	f.Add([]byte(`{"osd_num":1,"protocol_version":1,"block_size":131072,"holdfast":{"version":1,"instance":"00000000000000ff"}}` + "\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := DecodeConfigRequest(b); err == nil {
			text, err := AppendConfigRequest(nil, q)
			if err != nil {
				t.Fatal(err)
			}
			if q2, err := DecodeConfigRequest(text); err != nil || !reflect.DeepEqual(q, q2) {
				t.Fatalf("%+v became %+v (%v)", q, q2, err)
			}
		}
		if p, err := DecodeConfigReply(b); err == nil {
			text, err := AppendConfigReply(nil, p)
			if err != nil {
				t.Fatal(err)
			}
			if p2, err := DecodeConfigReply(text); err != nil || !reflect.DeepEqual(p, p2) {
				t.Fatalf("%+v became %+v (%v)", p, p2, err)
			}
		}
	})
}

func TestLengthsAreBounded(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(h *Header)
		bad  bool
	}{
		{"largest write", func(h *Header) { (&ReadWrite{Op: OpWrite, Len: MaxData}).Encode(h) }, false},
		{"write", func(h *Header) { (&ReadWrite{Op: OpWrite, Len: MaxData + 1}).Encode(h) }, true},
		{"read has no payload", func(h *Header) { (&ReadWrite{Op: OpRead, Len: 1<<32 - 1}).Encode(h) }, false},
		{"json", func(h *Header) { (&ShowConfig{JSONLen: MaxMeta + 1}).Encode(h) }, true},
		{"json of 2^63", func(h *Header) { (&ShowConfig{JSONLen: 1 << 63}).Encode(h) }, true},
		{"bitmap", func(h *Header) { (&SecReadWrite{Op: OpSecWrite, AttrLen: MaxMeta + 1}).Encode(h) }, true},
		{"chunk", func(h *Header) { (&SecReadWrite{Op: OpSecWriteStable, Len: MaxData + 1}).Encode(h) }, true},
		{"versions", func(h *Header) { (&SecVersions{Op: OpSecStabilize, Len: MaxMeta/24*24 + 24}).Encode(h) }, true},
		{"part of a version", func(h *Header) { (&SecVersions{Op: OpSecReadBmp, Len: 23}).Encode(h) }, true},
		{"own meta", func(h *Header) { h.begin(RequestMagic, 32); h.SetRequestLens(MaxMeta+1, 0) }, true},
		{"own data", func(h *Header) { h.begin(RequestMagic, 63); h.SetRequestLens(0, MaxData+1) }, true},
		{"own, largest", func(h *Header) { h.begin(RequestMagic, 63); h.SetRequestLens(MaxMeta, MaxData) }, false},
		{"a reply", func(h *Header) { h.begin(ReplyMagic, OpRead) }, true},
	} {
		var h Header
		c.set(&h)
		if _, _, err := PayloadLen(&h); (err != nil) != c.bad {
			t.Errorf("%s: error %v", c.name, err)
		} else if _, ok := errors.AsType[*PacketError](err); c.bad && !ok {
			t.Errorf("%s: error of type %T", c.name, err)
		}
	}
}

func TestRepliesMustHaveTheLengthAskedFor(t *testing.T) {
	var read, list, describe, del, own Header
	(&ReadWrite{Op: OpRead, Len: 4096}).Encode(&read)
	(&List{}).Encode(&list)
	(&Describe{}).Encode(&describe)
	(&ReadWrite{Op: OpDelete, Len: 4096}).Encode(&del)
	own.begin(RequestMagic, 40)
	for _, c := range []struct {
		name       string
		request    *Header
		set        func(h *Header)
		meta, data int
		bad        bool
	}{
		{"exact", &read, func(h *Header) { (&ReadWriteReply{Op: OpRead, Retval: 4096, BitmapLen: 4}).Encode(h) }, 4, 4096, false},
		{"error", &read, func(h *Header) { (&ReadWriteReply{Op: OpRead, Retval: EIO, BitmapLen: 4}).Encode(h) }, 0, 0, false},
		{"short", &read, func(h *Header) { (&ReadWriteReply{Op: OpRead, Retval: 512}).Encode(h) }, 0, 0, true},
		{"long", &read, func(h *Header) { (&ReadWriteReply{Op: OpRead, Retval: 1 << 40}).Encode(h) }, 0, 0, true},
		{"bitmap", &read, func(h *Header) { (&ReadWriteReply{Op: OpRead, Retval: 4096, BitmapLen: MaxMeta + 1}).Encode(h) }, 0, 0, true},
		{"other opcode", &read, func(h *Header) { (&ReadWriteReply{Op: OpWrite, Retval: 4096}).Encode(h) }, 0, 0, true},
		{"list", &list, func(h *Header) { (&ListReply{Retval: 3}).Encode(h) }, 0, 72, false},
		{"long list", &list, func(h *Header) { (&ListReply{Retval: 1 << 60}).Encode(h) }, 0, 0, true},
		{"describe", &describe, func(h *Header) { (&DescribeReply{2, 64}).Encode(h) }, 0, 64, false},
		{"describe, bytes and count differ", &describe, func(h *Header) { (&DescribeReply{2, 63}).Encode(h) }, 0, 0, true},
		{"describe, product overflows", &describe, func(h *Header) { (&DescribeReply{1 << 59, 0}).Encode(h) }, 0, 0, true},
		{"too many dead", &del, func(h *Header) { h.beginReply(OpDelete, 0); h[36] = 23 }, 0, 0, true},
		{"own", &own, func(h *Header) { h.beginReply(40, EPIPE); h.SetReplyLens(7, 9) }, 7, 9, false},
		{"own, large", &own, func(h *Header) { h.beginReply(40, 0); h.SetReplyLens(0, MaxData+1) }, 0, 0, true},
	} {
		var h Header
		c.set(&h)
		meta, data, err := ReplyPayloadLen(c.request, &h)
		if (err != nil) != c.bad || meta != c.meta || data != c.data {
			t.Errorf("%s: %d + %d, %v", c.name, meta, data, err)
		}
	}
}

func TestDecodersRefuseOtherPackets(t *testing.T) {
	for _, g := range goldens {
		m := reflect.New(reflect.TypeOf(g.m).Elem()).Interface().(packet) // the goldens are other tests' too
		var h Header
		g.m.Encode(&h)
		h[0] ^= 1
		if err := m.Decode(&h); err == nil {
			t.Errorf("%s: decoded with a wrong magic", g.name)
		}
		g.m.Encode(&h)
		h.SetOp(h.Op() + 64)
		if err := m.Decode(&h); err == nil && g.name != "bare_reply/sync" {
			t.Errorf("%s: decoded with opcode %d", g.name, h.Op())
		}
	}
}

func TestConfigJSON(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{``, "&{OSDNum:0 Features:{CheckSequencing:false} Holdfast:<nil>}"},
		{`{}`, "&{OSDNum:0 Features:{CheckSequencing:false} Holdfast:<nil>}"},
		{`{"osd_num":7,"features":{"check_sequencing":true,"x":1},"connect_rdma":"0001:000002","rdma_max_msg":132096}`, "&{OSDNum:7 Features:{CheckSequencing:true} Holdfast:<nil>}"},
		{`[]`, "not a JSON object"},
		{`null`, "not a JSON object"},
		{`{"osd_num":-1}`, "cannot unmarshal"},
		{`{"osd_num":"1"}`, "cannot unmarshal"},
		{`{"osd_num":1`, "unexpected end"},
		{`{"holdfast":{"instance":"1"}}`, "16 hexadecimal digits"},
		{`{"holdfast":{"instance":"0000000000000001","role":"12345678901234567"}}`, "too long"},
	} {
		q, err := DecodeConfigRequest([]byte(c.text))
		got := fmt.Sprintf("%+v", q)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", c.text, got, c.want)
		}
	}
}

func TestPGStateNames(t *testing.T) {
	s := PGActive | PGDegraded | PGLeftOnDead
	if s.String() != "active+degraded+left_on_dead" || PGScrubbing != 1<<16 {
		t.Errorf("%v, scrubbing is %#x", s, uint64(PGScrubbing))
	}
	if back, ok := ParsePGState(s.Names()); !ok || back != s {
		t.Errorf("parsed %v", back)
	}
	if _, ok := ParsePGState([]string{"active", "asleep"}); ok {
		t.Error("an unknown name was accepted")
	}
}

func TestListStripeLimitExceptions(t *testing.T) {
	for have, want := range map[uint64]uint64{0: 1<<64 - 1, 1<<64 - 1: 0, 4096: 4096} {
		if got := (&List{MaxStripe: have}).LastStripe(); got != want {
			t.Errorf("%#x means %#x, want %#x", have, got, want)
		}
	}
}

func TestOpcodeTable(t *testing.T) {
	if OpRead.String() != "primary_read" || OpSecWriteStable.String() != "write_stable" || Opcode(31).String() != "op_31" || Opcode(1<<63).Access() != Nobody {
		t.Error(OpRead, OpSecWriteStable, Opcode(31), Opcode(1<<63).Access())
	}
	for op := Opcode(1); op <= 19; op++ {
		if op.Access() == Nobody {
			t.Errorf("opcode %d has no name", op)
		}
	}
	if OpSecWrite.Access() != OSDOnly || OpSecLock.Access() != OSDOnly || OpRead.Access() != AnyClient {
		t.Error("access is wrong")
	}
}

func TestCodecAllocatesNothing(t *testing.T) {
	var h Header
	m := ReadWrite{Op: OpWrite, Len: 4096}
	r := ReadWriteReply{Op: OpWrite, Retval: 4096}
	var reply Header
	if n := testing.AllocsPerRun(100, func() {
		m.Encode(&h)
		if m.Decode(&h) != nil {
			t.Fatal("decode")
		}
		r.Encode(&reply)
		if r.Decode(&reply) != nil {
			t.Fatal("decode")
		}
		_, _, _ = PayloadLen(&h)
		_, _, _ = ReplyPayloadLen(&h, &reply)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
