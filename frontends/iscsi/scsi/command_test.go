package scsi

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"holdfast/frontends/volume"
	"holdfast/frontends/volume/memory"
)

func TestTableIsSortedAndComplete(t *testing.T) {
	for i := range commands {
		c := &commands[i]
		if i > 0 && (c.op < commands[i-1].op || c.op == commands[i-1].op && c.sa <= commands[i-1].sa) {
			t.Errorf("entry %d (%02xh/%d) is out of order", i, c.op, c.sa)
		}
		want := map[byte]int{0: 6, 1: 10, 2: 10, 4: 16, 5: 12}[c.op>>5]
		if c.length() != want {
			t.Errorf("command %02xh has %d bytes of usage data, want %d", c.op, c.length(), want)
		}
	}
}

func TestDecodeBlocks(t *testing.T) {
	for _, c := range []struct {
		cdb         string
		lba, blocks uint64
	}{
		{"08 1f ff ff 00 00", 0x1fffff, 256},
		{"0a 00 00 01 02 00", 1, 2},
		{"28 00 ff ff ff ff 00 ff ff 00", 0xffffffff, 0xffff},
		{"a8 00 00 00 00 01 00 01 00 00 00 00", 1, 0x10000},
		{"88 00 01 02 03 04 05 06 07 08 00 01 02 03 00 00", 0x0102030405060708, 0x10203},
	} {
		b := cdb(c.cdb)
		if lba, blocks := decodeBlocks(&b); lba != c.lba || blocks != c.blocks {
			t.Errorf("decodeBlocks(%s) = %d, %d, want %d, %d", c.cdb, lba, blocks, c.lba, c.blocks)
		}
	}
}

// TestRefusals lists malformed commands and their sense (SPC-4, SBC-3).
func TestRefusals(t *testing.T) {
	g := newRig(t, memory.Options{}) // 131072 blocks
	for _, c := range []struct {
		cdb  string
		out  int
		code Code
	}{
		{"c0 00 00 00 00 00", 0, codeInvalidOpcode},
		{"9e 1f 00 00 00 00 00 00 00 00 00 00 00 00 00 00", 0, codeInvalidField},
		{"00 00 00 00 00 04", 0, codeInvalidField}, // NACA
		{"28 00 00 02 00 00 00 00 01 00", 0, codeLBARange},
		{"28 00 00 01 ff ff 00 00 02 00", 0, codeLBARange},
		{"28 00 00 02 00 00 00 00 00 00", 0, codeLBARange}, // no block at the end
		{"88 00 ff ff ff ff ff ff ff ff 00 00 00 02 00 00", 0, codeLBARange},
		{"28 20 00 00 00 00 00 00 01 00", 0, codeInvalidField}, // RDPROTECT
		{"2a 20 00 00 00 00 00 00 01 00", 512, codeInvalidField},
		{"88 00 00 00 00 00 00 00 00 00 00 01 00 01 00 00", 0, codeInvalidField}, // above the limit
		{"12 00 83 00 ff 00", 0, codeInvalidField},
		{"12 01 ee 00 ff 00", 0, codeInvalidField},
		{"1a 00 ff 00 ff 00", 0, codeNotSaved},
		{"1a 00 05 00 ff 00", 0, codeInvalidField},
		{"1a 00 0a 01 ff 00", 0, codeInvalidField},
		{"a0 00 00 00 00 00 00 00 00 08 00 00", 0, codeInvalidField},
		{"41 10 00 00 00 00 00 00 01 00", 512, codeInvalidField},  // ANCHOR
		{"41 00 00 00 00 00 00 00 00 00", 512, codeInvalidField},  // WSNZ
		{"41 00 00 00 00 00 00 00 01 00", 1024, codeInvalidField}, // not one block
		{"89 00 00 00 00 00 00 00 00 00 00 00 00 02 00 00", 2048, codeInvalidField},
		{"89 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00", 512, codeInvalidField},
		{"42 00 00 00 00 00 00 00 04 00", 4, codeParameterLength},
		{"42 01 00 00 00 00 00 00 18 00", 24, codeInvalidField},
		{"42 00 00 00 00 00 00 00 18 00", 8, codeInformationUnit},
		{"15 00 00 00 04 00", 4, codeInvalidField}, // PF 0
		{"15 10 00 00 02 00", 2, codeParameterLength},
		{"5f 00 10 00 00 00 00 00 18 00", 24, codeInvalidField}, // scope
		{"5f 00 00 00 00 00 00 00 08 00", 8, codeParameterLength},
		{"5f 07 00 00 00 00 00 00 18 00", 24, codeInvalidField}, // REGISTER AND MOVE
		{"9e 12 00 00 00 00 00 02 00 00 00 00 00 18 00 00", 0, codeLBARange},
		{"1b 00 00 00 02 00", 0, codeInvalidField}, // LOEJ
		{"16 01 00 00 00 00", 0, codeInvalidField},
		{"2f 04 00 00 00 00 00 00 01 00", 0, codeInvalidField},
	} {
		g.bad(c.cdb, make([]byte, c.out), CheckCondition, c.code)
	}
	if n := g.l.Live(); n != 0 {
		t.Errorf("%d buffers are lent", n)
	}
}

// TestLengthZero proves that allocation and parameter list lengths of 0 are no error.
func TestLengthZero(t *testing.T) {
	g := newRig(t, memory.Options{})
	for _, c := range []string{
		"12 00 00 00 00 00", "03 00 00 00 00 00", "1a 00 3f 00 00 00", "5a 00 3f 00 00 00 00 00 00 00", "15 10 00 00 00 00", "42 00 00 00 00 00 00 00 00 00",
		"5e 00 00 00 00 00 00 00 00 00", "9e 10 00 00 00 00 00 00 00 00 00 00 00 00 00 00", "28 00 00 00 00 00 00 00 00 00", "2a 00 00 00 00 00 00 00 00 00",
		"a3 0a 00 00 00 00 00 00 00 00 00 00", "2f 02 00 00 00 00 00 00 00 00", "89 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
	} {
		if in := g.good(c, nil); len(in) != 0 {
			t.Errorf("%s: %d bytes, want none", c, len(in))
		}
	}
}

func TestStandardInquiry(t *testing.T) {
	g := newRig(t, memory.Options{})
	want := "000006125b101002" + hex.EncodeToString([]byte("HOLDFASTBLOCK DEVICE    0001"))
	got := g.good("12 00 00 00 60 00", nil)
	if len(got) != 96 || hex.EncodeToString(got[:36]) != want {
		t.Errorf("INQUIRY = %d bytes, % x, want 96 that begin %s", len(got), got[:36], want)
	}
	if got := g.good("12 00 00 00 05 00", nil); len(got) != 5 {
		t.Errorf("%d bytes for an allocation length of 5", len(got))
	}
}

func TestVitalPages(t *testing.T) {
	g := newRig(t, memory.Options{})
	for _, page := range g.good("12 01 00 00 ff 00", nil)[4:] {
		b := g.good(fmt.Sprintf("12 01 %02x 02 00 00", page), nil)
		if b[1] != page || int(binary.BigEndian.Uint16(b[2:])) != len(b)-4 {
			t.Errorf("page %02xh: header % x of %d bytes", page, b[:4], len(b))
		}
	}
	b := g.good("12 01 83 02 00 00", nil)
	info := g.disk.Info()
	naa := NAA(&info)
	if !bytes.Equal(b[8:24], naa[:]) || b[5] != 3 || naa[0]>>4 != 6 {
		t.Errorf("first designator % x, want NAA %x", b[4:24], naa)
	}
	if n := len(g.good("12 01 b0 02 00 00", nil)); n != 64 {
		t.Errorf("Block Limits has %d bytes, want 64", n)
	}
	if b := g.good("12 01 b2 02 00 00", nil); b[5] != 0xe4 || b[6] != 2 {
		t.Errorf("Logical Block Provisioning % x, want LBPU, LBPWS, LBPWS10, LBPRZ and thin", b)
	}
}

// TestIdentityIsTheSameEverywhere: only the cluster's and the image's identity count, not name, size or gateway (spec/clients.md I5).
func TestIdentityIsTheSameEverywhere(t *testing.T) {
	a := volume.Info{Name: "a", Size: 1 << 20, ID: [16]byte{1}, Cluster: [16]byte{2}}
	b := volume.Info{Name: "b", Size: 2 << 20, ID: [16]byte{1}, Cluster: [16]byte{2}, Generation: 9}
	if NAA(&a) != NAA(&b) || Serial(&a) != Serial(&b) {
		t.Error("identity depends on more than ID and Cluster")
	}
	b.Cluster[0]++
	if NAA(&a) == NAA(&b) {
		t.Error("two clusters give one identity")
	}
	a = volume.Info{ID: [16]byte{0: 0xaa, 15: 0xbb}, Cluster: [16]byte{0: 0x11}}
	if got := NAA(&a); hex.EncodeToString(got[:4])[:7] != "6024846" {
		t.Errorf("NAA %x, want it to begin 6024846", got)
	}
}

func TestCapacity(t *testing.T) {
	g := newRig(t, memory.Options{Size: 3 << 40})
	if b := g.good("25 00 00 00 00 00 00 00 00 00", nil); hex.EncodeToString(b) != "ffffffff00000200" {
		t.Errorf("READ CAPACITY (10) of 3 TiB = %x, want ffffffff00000200", b)
	}
	b := g.good("9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00", nil)
	if len(b) != 32 || hex.EncodeToString(b[:16]) != "000000017fffffff000002000003c000" {
		t.Errorf("READ CAPACITY (16) = %x", b)
	}
}

func TestReadWriteEveryForm(t *testing.T) {
	g := newRig(t, memory.Options{})
	for i, c := range []struct{ write, read string }{
		{"0a 00 00 10 02 00", "08 00 00 10 02 00"},
		{"2a 08 00 00 00 10 00 00 02 00", "28 08 00 00 00 10 00 00 02 00"},
		{"aa 00 00 00 00 10 00 00 00 02 00 00", "a8 00 00 00 00 10 00 00 00 02 00 00"},
		{"8a 10 00 00 00 00 00 00 00 10 00 00 00 02 00 00", "88 18 00 00 00 00 00 00 00 10 00 00 00 02 00 00"},
		{"2e 00 00 00 00 10 00 00 02 00", "28 00 00 00 00 10 00 00 02 00"},
		{"ae 02 00 00 00 10 00 00 00 02 00 00", "a8 00 00 00 00 10 00 00 00 02 00 00"},
		{"8e 02 00 00 00 00 00 00 00 10 00 00 00 02 00 00", "88 00 00 00 00 00 00 00 00 10 00 00 00 02 00 00"},
	} {
		data := bytes.Repeat([]byte{byte(i + 1), 0xee, 3}, 400)[:1024]
		g.good(c.write, data)
		if got := g.good(c.read, nil); !bytes.Equal(got, data) {
			t.Errorf("%s does not read what %s wrote", c.read, c.write)
		}
	}
}

func TestVerify(t *testing.T) {
	g := newRig(t, memory.Options{})
	data := bytes.Repeat([]byte{7}, 1024)
	g.good("2a 00 00 00 00 01 00 00 02 00", data)
	g.good("2f 02 00 00 00 01 00 00 02 00", data)
	g.good("2f 06 00 00 00 01 00 00 02 00", data[:512])
	g.good("2f 00 00 00 00 01 00 00 02 00", nil)
	g.good("2f 02 00 00 00 03 00 00 01 00", make([]byte, 512)) // a hole
	data[700] ^= 1
	g.bad("2f 02 00 00 00 01 00 00 02 00", data, CheckCondition, codeMiscompare)
	if g.task.Sense.Info != 700 {
		t.Errorf("INFORMATION %d, want 700", g.task.Sense.Info)
	}
	if n := g.l.Live(); n != 0 {
		t.Errorf("%d buffers are lent", n)
	}
}

// TestWriteSameWrites covers what gotgt answered GOOD to without writing.
func TestWriteSameWrites(t *testing.T) {
	zero := make([]byte, 512)
	block := bytes.Repeat([]byte{0xa5, 1}, 256)
	for _, c := range []struct {
		cdb  string
		out  []byte
		want []byte
		hole bool
	}{
		{"41 00 00 00 00 08 00 10 00 00", block, block, false},
		{"93 00 00 00 00 00 00 00 00 08 00 00 10 00 00 00", block, block, false},
		{"93 08 00 00 00 00 00 00 00 08 00 00 10 00 00 00", block, block, false}, // UNMAP, but the block is not zeroes
		{"93 00 00 00 00 00 00 00 00 08 00 00 10 00 00 00", zero, zero, false},
		{"93 08 00 00 00 00 00 00 00 08 00 00 10 00 00 00", zero, zero, true},
		{"93 01 00 00 00 00 00 00 00 08 00 00 10 00 00 00", nil, zero, false},
		{"93 09 00 00 00 00 00 00 00 08 00 00 10 00 00 00", nil, zero, true},
	} {
		g := newRig(t, memory.Options{MaxTransfer: 100 << 10}) // less than one pattern write
		all := bytes.Repeat([]byte{0x11}, 16<<20)
		g.disk.WriteAt(all, 0)
		g.good(c.cdb, c.out)
		copy(all[8*512:], bytes.Repeat(c.want, 4096))
		got := make([]byte, len(all))
		g.disk.ReadAt(got, 0)
		if !bytes.Equal(got, all) {
			t.Errorf("%s: the device differs from what was asked for", c.cdb)
		}
		b := g.good("9e 12 00 00 00 00 00 00 00 08 00 00 00 18 00 00", nil)
		if hole := b[20]&0x0f == 1; hole != c.hole {
			t.Errorf("%s: deallocated %v, want %v", c.cdb, hole, c.hole)
		}
		if n := g.l.Live(); n != 0 {
			t.Errorf("%s: %d buffers are lent", c.cdb, n)
		}
	}
}

func unmapList(pairs ...uint64) []byte {
	b := make([]byte, 8)
	for i := 0; i < len(pairs); i += 2 {
		b = binary.BigEndian.AppendUint64(b, pairs[i])
		b = binary.BigEndian.AppendUint32(b, uint32(pairs[i+1]))
		b = append(b, 0, 0, 0, 0)
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-8))
	return b
}

func TestUnmap(t *testing.T) {
	g := newRig(t, memory.Options{})
	all := bytes.Repeat([]byte{0x11}, 1<<20)
	g.disk.WriteAt(all, 0)
	list := unmapList(8, 8, 100, 0, 32, 16)
	g.good(fmt.Sprintf("42 00 00 00 00 00 00 00 %02x 00", len(list)), list)
	clear(all[8*512 : 16*512])
	clear(all[32*512 : 48*512])
	got := make([]byte, len(all))
	g.disk.ReadAt(got, 0)
	if !bytes.Equal(got, all) {
		t.Error("UNMAP cleared something else")
	}
	list = unmapList(0, 8, 131072, 1) // the second is out of range: the first must not take effect
	g.bad(fmt.Sprintf("42 00 00 00 00 00 00 00 %02x 00", len(list)), list, CheckCondition, codeLBARange)
	g.disk.ReadAt(got, 0)
	if !bytes.Equal(got, all) {
		t.Error("a refused UNMAP took effect")
	}
	list = unmapList(0, 1<<21)
	g.bad(fmt.Sprintf("42 00 00 00 00 00 00 00 %02x 00", len(list)), list, CheckCondition, codeLBARange)
	list = unmapList(0, 8)
	binary.BigEndian.PutUint16(list[2:], 4096)
	g.bad(fmt.Sprintf("42 00 00 00 00 00 00 00 %02x 00", len(list)), list, CheckCondition, codeInvalidParameter)
}

func TestCompareAndWrite(t *testing.T) {
	g := newRig(t, memory.Options{})
	a, b := bytes.Repeat([]byte{1}, 512), bytes.Repeat([]byte{2}, 512)
	c := "89 00 00 00 00 00 00 00 00 05 00 00 00 01 00 00"
	g.good(c, append(make([]byte, 512), a...))
	g.good(c, append(bytes.Clone(a), b...))
	wrong := append(bytes.Clone(b), a...)
	wrong[17]++
	g.bad(c, wrong, CheckCondition, codeMiscompare)
	if g.task.Sense.Info != 17 {
		t.Errorf("INFORMATION %d, want 17", g.task.Sense.Info)
	}
	got := make([]byte, 512)
	g.disk.ReadAt(got, 5*512)
	if !bytes.Equal(got, b) {
		t.Error("a miscompare changed the block")
	}
}

func TestReadOnlyUnit(t *testing.T) {
	g := newRig(t, memory.Options{ReadOnly: true})
	for _, c := range []struct {
		cdb string
		out int
	}{
		{"2a 00 00 00 00 00 00 00 01 00", 512}, {"42 00 00 00 00 00 00 00 18 00", 24}, {"41 00 00 00 00 00 00 00 01 00", 512},
		{"89 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00", 1024}, {"2e 00 00 00 00 00 00 00 01 00", 512},
	} {
		g.bad(c.cdb, make([]byte, c.out), CheckCondition, codeWriteProtected)
	}
	if b := g.good("1a 00 3f 00 ff 00", nil); b[2]&0x80 == 0 {
		t.Error("MODE SENSE has WP 0")
	}
	g.good("35 00 00 00 00 00 00 00 00 00", nil)
}

func TestModePages(t *testing.T) {
	g := newRig(t, memory.Options{})
	b := g.good("1a 00 3f 00 ff 00", nil)
	if int(b[0]) != len(b)-1 || b[3] != 8 || len(b) != 4+8+12+20+12+12 {
		t.Errorf("MODE SENSE (6) of all pages: %d bytes, header % x", len(b), b[:4])
	}
	b = g.good("5a 10 08 00 00 00 00 00 ff 00", nil)
	if len(b) != 8+16+20 || b[4] != 1 || b[7] != 16 || b[24]&0x3f != 8 || b[26]&0x04 != 0 {
		t.Errorf("MODE SENSE (10) of the caching page: % x", b)
	}
	// D_SENSE can be changed, nothing else.
	control := g.good("1a 08 0a 00 ff 00", nil)
	control[0] = 0
	control[6] |= bitDSense
	g.good(fmt.Sprintf("15 10 00 00 %02x 00", len(control)), control)
	g.bad("28 00 ff ff ff ff 00 00 01 00", nil, CheckCondition, codeLBARange)
	if d := g.u.AppendSense(nil, g.task); d[0] != 0x72 || d[1] != 5 || d[2] != 0x21 || d[7] != 12 || d[8] != 0 || d[10] != 0x80 {
		t.Errorf("descriptor sense % x", d)
	}
	control[6] = 0x40
	g.bad(fmt.Sprintf("15 10 00 00 %02x 00", len(control)), control, CheckCondition, codeInvalidParameter)
	if b := g.good("1a 08 4a 00 ff 00", nil); b[6] != bitDSense {
		t.Errorf("changeable values of the control page % x, want D_SENSE only", b)
	}
}

func TestSenseFormats(t *testing.T) {
	s := Sense{Code: codeInvalidField, Field: 8, Bit: 7, InCDB: true, HasField: true}
	if got := hex.EncodeToString(s.Append(nil, false)); got != "70000500000000"+"0a"+"00000000"+"2400"+"00"+"cf0008" {
		t.Errorf("fixed sense %s", got)
	}
	if got := hex.EncodeToString(s.Append(nil, true)); got != "7205240000000008"+"02060000cf000800" {
		t.Errorf("descriptor sense %s", got)
	}
	s = Sense{Code: codeLBARange, Info: 1 << 33, HasInfo: true}
	if got := s.Append(nil, false); got[0] != 0x70 {
		t.Errorf("fixed sense % x: INFORMATION does not fit and must not be VALID", got)
	}
	if len(s.Append(nil, true)) > maxSenseSize {
		t.Error("sense longer than maxSenseSize")
	}
}

func TestAttentions(t *testing.T) {
	g := newRig(t, memory.Options{})
	g.u.Raise(CapacityChanged)
	g.u.Raise(PowerOn)
	g.good("12 00 00 00 24 00", nil) // INQUIRY does not report it
	g.good("a0 00 00 00 00 00 00 00 00 10 00 00", nil)
	g.bad("00 00 00 00 00 00", nil, CheckCondition, Code{6, 0x29, 0})
	if b := g.good("03 00 00 00 12 00", nil); b[2] != 6 || b[12] != 0x2a || b[13] != 9 {
		t.Errorf("REQUEST SENSE % x, want 2Ah/09h", b)
	}
	g.good("00 00 00 00 00 00", nil)
}

func TestUnknownLUN(t *testing.T) {
	g := newRig(t, memory.Options{})
	t1 := g.task
	for _, c := range []struct {
		cdb    string
		status Status
		first  byte
	}{{"12 00 00 00 24 00", Good, 0x7f}, {"00 00 00 00 00 00", CheckCondition, 0}, {"a0 00 00 00 00 00 00 00 00 10 00 00", Good, 0}, {"03 00 00 00 12 00", Good, 0x70}} {
		t1.CDB = cdb(c.cdb)
		g.u.Begin(t1, 1<<48)
		if t1.Status != c.status || c.first != 0 && t1.In[0] != c.first {
			t.Errorf("%s to LUN 1: status %02xh data % x, want %02xh and %02xh", c.cdb, t1.Status, t1.In, c.status, c.first)
		}
	}
}

// TestErrorTableIsTotal: every sentinel has an outcome, and only ErrGone is permanent device loss (spec/clients.md I11).
func TestErrorTableIsTotal(t *testing.T) {
	for _, err := range volume.Sentinels {
		for _, kind := range []volume.Kind{volume.Read, volume.Write} {
			o, ok := translate(fmt.Errorf("wrapped: %w", err), kind)
			if !ok {
				t.Errorf("%v has no outcome", err)
			}
			if (o.code == codeNoUnit) != (err == volume.ErrGone) {
				t.Errorf("%v translates to %02x", err, o.code)
			}
			if o.status == CheckCondition && o.code == codeNone {
				t.Errorf("%v: CHECK CONDITION without sense", err)
			}
		}
	}
	if len(outcomes) != len(volume.Sentinels) {
		t.Errorf("%d outcomes for %d sentinels", len(outcomes), len(volume.Sentinels))
	}
	if o, ok := translate(errors.New("other"), volume.Read); ok || o.code != codeInternalFailure {
		t.Errorf("an unknown error translates to %02x, want ABORTED COMMAND", o.code)
	}
}

func TestReportOpcodes(t *testing.T) {
	g := newRig(t, memory.Options{})
	b := g.good("a3 0c 00 00 00 00 00 00 ff ff 00 00", nil)
	if int(binary.BigEndian.Uint32(b)) != 8*len(commands) {
		t.Errorf("%d bytes of commands, want %d", binary.BigEndian.Uint32(b), 8*len(commands))
	}
	b = g.good("a3 0c 01 28 00 00 00 00 ff ff 00 00", nil)
	if hex.EncodeToString(b) != "0003000a"+"28f8ffffffff3fffff04" {
		t.Errorf("READ (10): %x", b)
	}
	b = g.good("a3 0c 02 9e 00 10 00 00 ff ff 00 00", nil)
	if b[1] != 3 || b[4] != 0x9e || b[5] != 0x10 {
		t.Errorf("READ CAPACITY (16): %x", b)
	}
	b = g.good("a3 0c 01 c1 00 00 00 00 ff ff 00 00", nil)
	if b[1] != 1 {
		t.Errorf("an unknown command: %x", b)
	}
	g.bad("a3 0c 01 9e 00 00 00 00 ff ff 00 00", nil, CheckCondition, codeInvalidField)
	g.bad("a3 0c 02 28 00 00 00 00 ff ff 00 00", nil, CheckCondition, codeInvalidField)
}

func TestReportPortGroups(t *testing.T) {
	g := newRig(t, memory.Options{})
	g.u.c.Ports = []Port{{Relative: 1, Group: 1}, {Relative: 5, Group: 2}, {Relative: 6, Group: 2}}
	b := g.good("a3 0a 00 00 00 00 00 00 ff ff 00 00", nil)
	if hex.EncodeToString(b) != "0000001c"+"0001000100020001"+"00000001"+"0001000200020002"+"00000005"+"00000006" {
		t.Errorf("REPORT TARGET PORT GROUPS %x", b)
	}
}

// FuzzCommand runs any CDB with any data; nothing may panic, hang or leak, and a unit must go on.
func FuzzCommand(f *testing.F) {
	for i := range commands {
		c := make([]byte, 16)
		c[0] = commands[i].op
		if commands[i].sa >= 0 {
			c[1] = byte(commands[i].sa)
		}
		c[8] = 1
		f.Add(c, make([]byte, 512))
	}
	f.Fuzz(func(t *testing.T, c, out []byte) {
		g := newRig(t, memory.Options{Size: 1 << 20})
		var b [16]byte
		copy(b[:], c)
		g.run(b, out)
		g.good("28 00 00 00 00 00 00 00 01 00", nil)
		if n := g.l.Live(); n != 0 {
			t.Errorf("%d buffers are lent", n)
		}
	})
}
