package iscsi

import (
	"bytes"
	"testing"
	"time"

	"holdfast/core/loop"
	"holdfast/frontends/iscsi/scsi"
	"holdfast/frontends/volume"
	"holdfast/frontends/volume/memory"
)

// readAll collects the Data-In of a command and its status.
func (i *initiator) readAll(tag uint32) ([]byte, byte) {
	i.g.t.Helper()
	var all []byte
	for {
		p := i.receive()
		if p == nil {
			i.g.t.Fatalf("no end of command %d after %d bytes", tag, len(all))
			return nil, 0
		}
		switch p.opcode() {
		case opDataIn:
			if int(p.u32(40)) != len(all) {
				i.g.t.Fatalf("Data-In at offset %d, want %d", p.u32(40), len(all))
			}
			all = append(all, p.data...)
			if p.header[1]&bitStatus != 0 {
				return all, p.status()
			}
		case opSCSIResponse:
			return all, p.status()
		default:
			i.g.t.Fatalf("opcode %02xh within a read", p.opcode())
		}
	}
}

func TestReadReturnsWhatWasWritten(t *testing.T) {
	for _, extra := range [][]string{nil, {"HeaderDigest=CRC32C"}, {"DataDigest=CRC32C"}, {"HeaderDigest=CRC32C", "DataDigest=CRC32C"}, {"MaxRecvDataSegmentLength=512"}, {"MaxBurstLength=3072"}} {
		for _, chunk := range []int{0, 1, 49, 4000} {
			g := newRig(t, Options{}, memory.Options{})
			i := g.ready(1, extra...)
			i.chunk = chunk
			data := pattern(5*512, byte(chunk))
			i.command(write10(3, 5), bitWrite, uint32(len(data)), data)
			if p := i.want(opSCSIResponse); p.status() != 0 || p.header[1] != bitFinal {
				t.Fatalf("%v: write status %02xh flags %02xh, want 0 and F", extra, p.status(), p.header[1])
			}
			got, status := i.readAll(i.command(read10(2, 7), bitRead, 7*512, nil))
			want := append(append(make([]byte, 512), data...), make([]byte, 512)...)
			if status != 0 || !bytes.Equal(got, want) {
				t.Errorf("%v chunk %d: read status %02xh and %d bytes that differ", extra, chunk, status, len(got))
			}
			g.stop()
		}
	}
}

// TestWriteInEveryWay sends the same data immediate, unsolicited and solicited in pieces.
func TestWriteInEveryWay(t *testing.T) {
	const total = 3 << 20
	data := pattern(total, 1)
	for _, immediate := range []int{0, 512, 65536} {
		for _, unsolicited := range []int{0, 4096, 65536 - 512} {
			if immediate+unsolicited > 65536 {
				continue
			}
			g := newRig(t, Options{}, memory.Options{})
			i := g.ready(1)
			var h header
			h.start(opSCSICommand, bitWrite|attrSimple, 9)
			if unsolicited == 0 {
				h[1] |= bitFinal
			}
			h.putU32(20, total)
			h.putU32(24, i.cmdSN)
			copy(h[32:], write10(0, total/512))
			i.sendPDU(&h, data[:immediate])
			at := uint32(immediate)
			for sn := uint32(0); at < uint32(immediate+unsolicited); sn++ {
				n := min(uint32(immediate+unsolicited)-at, 1000)
				i.dataOut(9, reserved, sn, at, at+n == uint32(immediate+unsolicited), data[at:at+n])
				at += n
			}
			for at < total {
				p := i.want(opR2T)
				if p.u32(40) != at || p.u32(44) > 1<<20 {
					t.Fatalf("R2T for %d bytes at %d, want at most 1 MiB at %d", p.u32(44), p.u32(40), at)
				}
				end := at + p.u32(44)
				for sn := uint32(0); at < end; sn++ {
					n := min(end-at, 200001)
					i.dataOut(9, p.targetTag(), sn, at, at+n == end, data[at:at+n])
					at += n
				}
			}
			if p := i.want(opSCSIResponse); p.status() != 0 || p.header[1] != bitFinal {
				t.Fatalf("immediate %d unsolicited %d: status %02xh flags %02xh", immediate, unsolicited, p.status(), p.header[1])
			}
			got := make([]byte, total)
			g.disk.ReadAt(got, 0)
			if !bytes.Equal(got, data) {
				t.Errorf("immediate %d unsolicited %d: the device has other bytes", immediate, unsolicited)
			}
			g.stop()
		}
	}
}

func TestResiduals(t *testing.T) {
	for _, c := range []struct {
		name  string
		cdb   []byte
		flags byte
		edtl  uint32
		bits  byte
		count uint32
	}{
		{"read, exact", read10(0, 2), bitRead, 1024, 0, 0},
		{"read, too much expected", read10(0, 2), bitRead, 2048, bitUnderflow, 1024},
		{"read, too little expected", read10(0, 2), bitRead, 512, bitOverflow, 512},
		{"read, none expected", read10(0, 1), bitRead, 0, bitOverflow, 512},
		{"write, too much expected", write10(0, 1), bitWrite, 2048, bitUnderflow, 1536},
		{"write, too little expected", write10(0, 2), bitWrite, 512, bitOverflow, 512},
		{"no data, some expected", []byte{0}, bitRead, 100, bitUnderflow, 100},
		{"error, some expected", read10(0xffffffff, 1), bitRead, 512, bitUnderflow, 512},
	} {
		g := newRig(t, Options{}, memory.Options{})
		i := g.ready(1)
		var data []byte
		if c.flags == bitWrite {
			data = make([]byte, c.edtl)
		}
		i.command(c.cdb, c.flags, c.edtl, data)
		p := i.receive()
		if p == nil || p.header[1]&(bitOverflow|bitUnderflow) != c.bits || p.u32(44) != c.count {
			t.Errorf("%s: %v, want residual bits %02xh and count %d", c.name, p, c.bits, c.count)
		}
		g.stop()
	}
}

func TestCommandsCompleteInAnyOrder(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{MaxDelay: 10 * time.Millisecond, Seed: 7})
	i := g.ready(1)
	for lba := range uint32(64) {
		block := bytes.Repeat([]byte{byte(lba + 1)}, 512)
		g.disk.WriteAt(block, uint64(lba)*512)
	}
	tags := map[uint32]byte{}
	for lba := range uint32(64) {
		tags[i.command(read10(lba, 1), bitRead, 512, nil)] = byte(lba + 1)
	}
	ordered, last := true, uint32(0)
	for len(tags) != 0 {
		p := i.want(opDataIn)
		want, ok := tags[p.tag()]
		if !ok || p.data[0] != want || p.data[511] != want {
			t.Fatalf("data %02xh for command %d, want %02xh", p.data[0], p.tag(), want)
		}
		delete(tags, p.tag())
		ordered = ordered && p.tag() > last
		last = p.tag()
	}
	if ordered {
		t.Error("64 commands with random delays completed in order: they ran one by one")
	}
	g.stop()
}

func TestWindowBoundsCommandsUnderWay(t *testing.T) {
	g := newRig(t, Options{QueueDepth: 4}, memory.Options{MaxDelay: time.Millisecond})
	i := g.ready(1)
	first := i.cmdSN
	for range 6 {
		i.command(read10(0, 1), bitRead, 512, nil)
	}
	for n := range 4 {
		p := i.want(opDataIn)
		if max := p.u32(32); max > first+4+uint32(n) {
			t.Errorf("MaxCmdSN %d after %d of 4 commands, want at most %d", max, n+1, first+4+uint32(n))
		}
	}
	if p := i.receive(); p != nil {
		t.Errorf("an answer to a command beyond MaxCmdSN: % x", p.header[:])
	}
	i.cmdSN = first + 4 // the window has moved on: the initiator may send them again
	i.command(read10(0, 1), bitRead, 512, nil)
	i.want(opDataIn)
	g.stop()
}

func TestCommandsAreTakenInCmdSNOrder(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{})
	i := g.ready(1)
	sn := i.cmdSN
	i.cmdSN = sn + 1
	second := i.command(read10(0, 1), bitRead, 512, nil)
	if p := i.receive(); p != nil {
		t.Fatalf("an answer before the gap was filled: % x", p.header[:])
	}
	i.cmdSN = sn
	first := i.command(read10(0, 1), bitRead, 512, nil)
	if a, b := i.want(opDataIn), i.want(opDataIn); a.tag() != first || b.tag() != second {
		t.Errorf("answers to %d, %d, want %d, %d", a.tag(), b.tag(), first, second)
	}
	g.stop()
}

func TestOrderedCommandWaitsForEarlierOnes(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{MaxDelay: 5 * time.Millisecond, Seed: 3})
	i := g.ready(1)
	var want []uint32
	for range 8 {
		i.command(read10(0, 1), bitRead, 512, nil)
	}
	var h header
	h.start(opSCSICommand, bitFinal|bitRead|attrOrdered, 5000)
	h.putU32(20, 512)
	h.putU32(24, i.cmdSN)
	i.cmdSN++
	copy(h[32:], read10(0, 1))
	i.sendPDU(&h, nil)
	i.command(read10(0, 1), bitRead, 512, nil)
	for range 10 {
		want = append(want, i.want(opDataIn).tag())
	}
	if want[8] != 5000 {
		t.Errorf("order of completion %v, want the ORDERED command 5000 as the ninth", want)
	}
	g.stop()
}

// TestSlowReaderStopsTheServer proves that an initiator that does not take answers is not read from.
func TestSlowReaderStopsTheServer(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{})
	i := g.ready(1)
	i.queued = loop.HighWater + 1
	i.command([]byte{0}, 0, 0, nil)
	i.want(opSCSIResponse)
	if !i.paused {
		t.Fatal("the server still reads with its output above the high-water mark")
	}
	i.command(read10(0, 1), bitRead, 512, nil)
	if p := i.receive(); p != nil {
		t.Fatalf("an answer while the output is full: % x", p.header[:])
	}
	i.queued = 0
	i.h.Drained(i.fakeConn)
	i.want(opDataIn)
	g.stop()
}

// TestReadsWaitForTheBudget proves that the bytes being read are bounded, and that all reads end.
func TestReadsWaitForTheBudget(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{MaxDelay: time.Millisecond})
	i := g.ready(1)
	var s *session
	for x := range g.srv.conns {
		s = x.s
	}
	most := 0
	for range 40 {
		i.command(read10(0, 2048), bitRead, 1<<20, nil)
	}
	i.mute = true
	for g.l.Turn() && s.tasks != 0 {
		most = max(most, s.reading)
	}
	if most == 0 || most > readBudget || s.tasks != 0 {
		t.Errorf("%d bytes were being read at once and %d commands are left, want at most %d and 0", most, s.tasks, readBudget)
	}
	g.stop()
}

// TestReadsWaitForASlowReader proves that what is read for an initiator that takes nothing is bounded, and that it goes on when the output drains.
func TestReadsWaitForASlowReader(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{})
	i := g.ready(1)
	i.stuck, i.mute = true, true
	for range 40 {
		i.command(read10(0, 2048), bitRead, 1<<20, nil)
	}
	rounds := 0
	for g.idle(); i.queued != 0; g.idle() {
		if i.queued > loop.HighWater+readBudget+1<<20 {
			t.Fatalf("%d bytes wait in the output, want at most %d", i.queued, loop.HighWater+readBudget+1<<20)
		}
		rounds++
		i.queued = 0
		i.h.Drained(i.fakeConn)
	}
	if rounds < 4 || g.srv.busy() {
		t.Errorf("40 MiB left in %d rounds, commands under way: %v; want at least 4 and none", rounds, g.srv.busy())
	}
	g.stop()
}

func TestNopIsAnsweredWhileCommandsAreStuck(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{MaxDelay: time.Hour, Seed: 1})
	i := g.ready(1)
	i.command(read10(0, 1), bitRead, 512, nil)
	var h header
	h.start(opNopOut|bitImmediate, bitFinal, 77)
	h.putU32(20, reserved)
	i.sendPDU(&h, []byte("hello"))
	p := i.want(opNopIn)
	if p.tag() != 77 || string(p.data) != "hello" {
		t.Errorf("NOP-In tag %d data %q, want 77 and hello", p.tag(), p.data)
	}
	g.stop()
}

func TestSilentInitiatorIsPingedThenDropped(t *testing.T) {
	g := newRig(t, Options{PingInterval: 10 * time.Second}, memory.Options{})
	i := g.ready(1)
	g.l.Idle(g.l.Now().Add(11 * time.Second))
	p := i.want(opNopIn)
	if p.tag() != reserved || p.targetTag() == reserved {
		t.Errorf("NOP-In with tags %08x, %08x, want a target transfer tag only", p.tag(), p.targetTag())
	}
	var h header
	h.start(opNopOut|bitImmediate, bitFinal, reserved)
	h.putU32(20, p.targetTag())
	i.sendPDU(&h, nil)
	g.l.Idle(g.l.Now().Add(9 * time.Second))
	if i.told {
		t.Fatal("the session ended although the ping was answered")
	}
	g.l.Idle(g.l.Now().Add(31 * time.Second))
	if !i.told {
		t.Error("the session of a silent initiator goes on")
	}
	g.stop()
}

func TestVolumeErrorReachesTheInitiator(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{Fail: func(op *volume.Op) error {
		if op.Kind == volume.Read {
			return volume.ErrIO
		}
		return nil
	}})
	i := g.ready(1)
	i.command(read10(0, 1), bitRead, 512, nil)
	p := i.want(opSCSIResponse)
	if p.status() != byte(scsi.CheckCondition) || len(p.data) < 16 || p.data[2+2] != 3 || p.data[2+12] != 0x11 {
		t.Errorf("status %02xh, sense % x, want MEDIUM ERROR 11h", p.status(), p.data)
	}
	g.stop()
}

func TestFencedSessionIsDropped(t *testing.T) {
	fenced := false
	g := newRig(t, Options{}, memory.Options{Fail: func(*volume.Op) error {
		if fenced {
			return volume.ErrFenced
		}
		return nil
	}})
	i := g.ready(1)
	fenced = true
	i.command(write10(0, 1), bitWrite, 512, make([]byte, 512))
	if p := i.receive(); p != nil || !i.told {
		t.Errorf("answer %v and closed %v, want no answer and a closed connection", p, i.told)
	}
	g.stop()
}

func TestDataOutOutOfOrderFailsTheCommandOnly(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{})
	i := g.ready(1)
	tag := i.command(write10(0, 4), bitWrite, 2048, nil)
	r := i.want(opR2T)
	i.dataOut(tag, r.targetTag(), 1, 0, false, make([]byte, 512))
	if p := i.want(opSCSIResponse); p.status() != byte(scsi.CheckCondition) || p.data[2+12] != 0x47 {
		t.Errorf("status %02xh sense % x, want PROTOCOL SERVICE CRC ERROR", p.status(), p.data)
	}
	i.dataOut(tag, r.targetTag(), 2, 512, true, make([]byte, 1536)) // on its way already: skipped
	i.command([]byte{0}, 0, 0, nil)
	if p := i.want(opSCSIResponse); p.status() != 0 {
		t.Errorf("status %02xh of the next command, want GOOD", p.status())
	}
	g.stop()
}

func TestWrongDigestEndsTheConnection(t *testing.T) {
	for _, at := range []int{20, 48, 60, 48 + 4 + 512} { // header, header digest, data, data digest
		g := newRig(t, Options{}, memory.Options{})
		i := g.ready(1, "HeaderDigest=CRC32C", "DataDigest=CRC32C")
		var h header
		h.start(opSCSICommand, bitFinal|bitWrite|attrSimple, 9)
		h.putU32(20, 512)
		h.putU32(24, i.cmdSN)
		copy(h[32:], write10(0, 1))
		b := i.frame(&h, pattern(512, 9))
		b[at] ^= 1
		i.write(b)
		if p := i.receive(); p != nil || !i.told {
			t.Errorf("byte %d flipped: answer %v and closed %v, want a closed connection", at, p, i.told)
		}
		got := make([]byte, 512)
		g.disk.ReadAt(got, 0)
		if !bytes.Equal(got, make([]byte, 512)) {
			t.Errorf("byte %d flipped: the write took effect", at)
		}
		g.stop()
	}
}

func TestConnectionLossMidWriteWritesNothing(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{})
	i := g.ready(1)
	var h header
	h.start(opSCSICommand, bitFinal|bitWrite|attrSimple, 9)
	h.putU32(20, 65536)
	h.putU32(24, i.cmdSN)
	copy(h[32:], write10(0, 128))
	b := i.frame(&h, bytes.Repeat([]byte{1}, 65536))
	i.write(b[:len(b)-100])
	g.idle()
	i.hangUp()
	g.idle()
	got := make([]byte, 65536)
	g.disk.ReadAt(got, 0)
	if !bytes.Equal(got, make([]byte, 65536)) {
		t.Error("a write whose data did not all arrive took effect")
	}
	g.stop()
}

// TestSteadyStateAllocatesNothing covers a read and a write with immediate data, from PDU to PDU.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{})
	i := g.ready(1)
	read := i.frameCommand(read10(0, 8), bitRead, 4096, nil)
	write := i.frameCommand(write10(0, 8), bitWrite, 4096, make([]byte, 4096))
	i.out = make([]byte, 0, 1<<20)
	in := make([]byte, 0, 64<<10)
	round := func() {
		i.out = i.out[:0]
		for _, b := range [][]byte{read, write} {
			putCmdSN(b, i.cmdSN)
			i.cmdSN++
			i.in = append(in[:0], b...)
			i.pump()
			for g.srv.busy() {
				g.l.Turn()
			}
		}
		if len(i.out) != 48+4096+48 {
			t.Fatalf("%d bytes of answers, want %d", len(i.out), 48+4096+48)
		}
	}
	for range 100 {
		round()
	}
	if n := testing.AllocsPerRun(200, round); n > 0 {
		t.Errorf("%v allocations per read and write, want 0", n)
	}
	g.stop()
}

// busy reports whether a command is under way.
func (s *Server) busy() bool {
	for x := range s.conns {
		if x.s != nil && x.s.tasks != 0 {
			return true
		}
	}
	return false
}

func (i *initiator) frameCommand(cdb []byte, flags byte, edtl uint32, data []byte) []byte {
	var h header
	h.start(opSCSICommand, flags|bitFinal|attrSimple, 7)
	h.putU32(20, edtl)
	copy(h[32:], cdb)
	return i.frame(&h, data)
}

func putCmdSN(b []byte, sn uint32) {
	b[24], b[25], b[26], b[27] = byte(sn>>24), byte(sn>>16), byte(sn>>8), byte(sn)
}
