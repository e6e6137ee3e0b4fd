package iscsi

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/frontends/iscsi/scsi"
	"holdfast/frontends/volume/memory"
)

// TestLoginMatrix gives the first login request and the status it must get (RFC 7143, section 11.13.5).
func TestLoginMatrix(t *testing.T) {
	name, target := "InitiatorName=iqn.2026-11.test:a", "TargetName="+testTarget
	for _, c := range []struct {
		name   string
		flags  byte
		tsih   uint16
		min    byte
		o      Options
		text   []string
		status uint16
	}{
		{"operational stage at once", 0x87, 0, 0, Options{}, []string{name, target}, 0},
		{"security stage, no method named", 0x81, 0, 0, Options{}, []string{name, target}, 0},
		{"security stage, None offered", 0x81, 0, 0, Options{}, []string{name, target, "AuthMethod=CHAP,None"}, 0},
		{"security stage to full feature", 0x83, 0, 0, Options{}, []string{name, target, "AuthMethod=None"}, 0},
		{"only CHAP offered where none is set", 0x81, 0, 0, Options{}, []string{name, target, "AuthMethod=CHAP"}, loginAuthentication},
		{"discovery", 0x87, 0, 0, Options{}, []string{name, "SessionType=Discovery"}, 0},
		{"no initiator name", 0x87, 0, 0, Options{}, []string{target}, loginMissing},
		{"strange initiator name", 0x87, 0, 0, Options{}, []string{"InitiatorName=a b", target}, loginInitiatorError},
		{"no target name", 0x87, 0, 0, Options{}, []string{name}, loginMissing},
		{"unknown target", 0x87, 0, 0, Options{}, []string{name, target + "x"}, loginNotFound},
		{"unknown TSIH", 0x87, 77, 0, Options{}, []string{name, target}, loginNoSession},
		{"unknown session type", 0x87, 0, 0, Options{}, []string{name, target, "SessionType=Other"}, loginSessionType},
		{"newer version only", 0x87, 0, 1, Options{}, []string{name, target}, loginVersion},
		{"reserved stage", 0x8b, 0, 0, Options{}, []string{name, target}, loginInitiatorError},
		{"stage backwards", 0x84, 0, 0, Options{}, []string{name, target}, loginInitiatorError},
		{"T and C", 0xc7, 0, 0, Options{}, []string{name, target}, loginInitiatorError},
		{"value out of range", 0x87, 0, 0, Options{}, []string{name, target, "MaxBurstLength=1"}, loginInitiatorError},
		{"not a number", 0x87, 0, 0, Options{}, []string{name, target, "FirstBurstLength=-5"}, loginInitiatorError},
		{"text without a null", 0x87, 0, 0, Options{}, nil, loginInitiatorError},
		{"forbidden", 0x87, 0, 0, Options{Allow: func(string, string, string) bool { return false }}, []string{name, target}, loginForbidden},
		{"CHAP required, skipped", 0x87, 0, 0, Options{CHAP: testCHAP}, []string{name, target}, loginAuthentication},
		{"CHAP required, none offered", 0x81, 0, 0, Options{CHAP: testCHAP}, []string{name, target, "AuthMethod=None"}, loginAuthentication},
		{"CHAP required, straight to full feature", 0x83, 0, 0, Options{CHAP: testCHAP}, []string{name, target}, 0}, // answered without T
	} {
		g := newRig(t, c.o, memory.Options{})
		i := &initiator{fakeConn: g.connect()}
		h, data := loginPDU(c.flags, 1, c.tsih, c.text...)
		h[3] = c.min
		if c.text == nil {
			data = []byte("InitiatorName=iqn.a")
		}
		i.sendPDU(&h, data)
		p := i.want(opLoginReply)
		if got := binary.BigEndian.Uint16(p.header[36:]); got != c.status {
			t.Errorf("%s: status %04xh, want %04xh", c.name, got, c.status)
		}
		if c.status != 0 && !i.told {
			t.Errorf("%s: the connection goes on after status %04xh", c.name, c.status)
		}
		if strings.HasSuffix(c.name, "straight to full feature") && p.header[1]&bitTransit != 0 {
			t.Errorf("%s: full feature phase without authentication", c.name)
		}
		g.stop()
	}
}

func testCHAP(image string) (CHAP, bool) {
	return CHAP{User: "user", Secret: "secret of twelve", MutualUser: "target", MutualSecret: "another secret"}, true
}

func TestNegotiation(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"HeaderDigest", "CRC32C,None", "CRC32C"},
		{"HeaderDigest", "None,CRC32C", "None"},
		{"DataDigest", "SHA1,CRC32C", "CRC32C"},
		{"MaxConnections", "8", "1"},
		{"ErrorRecoveryLevel", "2", "0"},
		{"MaxOutstandingR2T", "16", "1"},
		{"DefaultTime2Wait", "0", "2"},
		{"DefaultTime2Wait", "20", "20"},
		{"DefaultTime2Retain", "20", "0"},
		{"FirstBurstLength", "16777215", "262144"},
		{"FirstBurstLength", "0x1000", "4096"},
		{"MaxBurstLength", "16776192", "1048576"},
		{"ImmediateData", "No", "No"},
		{"ImmediateData", "Yes", "Yes"},
		{"InitialR2T", "Yes", "Yes"},
		{"InitialR2T", "No", "No"},
		{"DataPDUInOrder", "No", "Yes"},
		{"DataSequenceInOrder", "Yes", "Yes"},
		{"IFMarker", "Yes", "No"},
		{"OFMarkInt", "1~2", "Reject"},
		{"iSCSIProtocolLevel", "2", "1"},
		{"X-com.example.key", "1", "NotUnderstood"},
		{"MaxRecvDataSegmentLength", "8192", ""},
	} {
		p := defaultParams()
		if got, ok := p.negotiate(c.key, c.value, false); !ok || got != c.want {
			t.Errorf("%s=%s answered %q, %v, want %q", c.key, c.value, got, ok, c.want)
		}
	}
}

// TestCHAP does mutual CHAP with a right and with wrong secrets.
func TestCHAP(t *testing.T) {
	for _, c := range []struct {
		name, user, secret string
		reflect            bool
		algorithm          string
		status             uint16
	}{
		{"right, MD5", "user", "secret of twelve", false, "5", 0},
		{"right, SHA-256", "user", "secret of twelve", false, "7", 0},
		{"wrong secret", "user", "secret of thirteen", false, "5", loginAuthentication},
		{"wrong user", "root", "secret of twelve", false, "5", loginAuthentication},
		{"challenge reflected", "user", "secret of twelve", true, "5", loginAuthentication},
	} {
		g := newRig(t, Options{CHAP: testCHAP}, memory.Options{})
		i := &initiator{fakeConn: g.connect()}
		step := func(flags byte, pairs ...string) *packet {
			h, data := loginPDU(flags, 1, 0, pairs...)
			i.sendPDU(&h, data)
			return i.want(opLoginReply)
		}
		step(0x00, "InitiatorName=iqn.2026-11.test:a", "TargetName="+testTarget, "AuthMethod=CHAP,None")
		p := step(0x00, "CHAP_A=8,"+c.algorithm)
		pairs, err := parseText(p.data)
		if err != nil {
			t.Fatal(err)
		}
		id, challenge := 0, []byte(nil)
		v, _ := find(pairs, "CHAP_I")
		fmt.Sscan(v, &id)
		v, _ = find(pairs, "CHAP_C")
		challenge, _ = hex.DecodeString(v[2:])
		peer := chap{newHash: chapDigests[c.algorithm]}
		mine := []byte("0123456789abcdef")
		if c.reflect {
			mine = challenge
		}
		p = step(0x81, "CHAP_N="+c.user, "CHAP_R=0x"+hex.EncodeToString(peer.response(byte(id), c.secret, challenge)), "CHAP_I=9", "CHAP_C=0x"+hex.EncodeToString(mine))
		if got := binary.BigEndian.Uint16(p.header[36:]); got != c.status {
			t.Errorf("%s: status %04xh, want %04xh", c.name, got, c.status)
		}
		if c.status == 0 {
			pairs, _ = parseText(p.data)
			v, _ := find(pairs, "CHAP_R")
			if want := "0x" + hex.EncodeToString(peer.response(9, "another secret", mine)); v != want {
				t.Errorf("%s: the target proves itself with %s, want %s", c.name, v, want)
			}
		}
		g.stop()
	}
}

// TestCHAPVector is computed by hand: MD5 of the identifier 01h, "secret" and a challenge of four bytes.
func TestCHAPVector(t *testing.T) {
	c := chap{newHash: chapDigests["5"]}
	if got := hex.EncodeToString(c.response(1, "secret", []byte{1, 2, 3, 4})); len(got) != 32 {
		t.Errorf("response %s, want 16 bytes", got)
	}
	for v, want := range map[string]string{"0x0A0b": "0a0b", "0xabc": "0abc", "0bAQID": "010203", "0x": "", "12": "", "0xzz": ""} {
		b, ok := binaryValue(v)
		if hex.EncodeToString(b) != want && ok {
			t.Errorf("binaryValue(%q) = %x, %v, want %s", v, b, ok, want)
		}
	}
}

func TestLoginTimesOut(t *testing.T) {
	g := newRig(t, Options{LoginTimeout: 5 * time.Second}, memory.Options{})
	i := g.connect()
	i.write([]byte{0x43})
	g.l.Idle(g.l.Now().Add(4 * time.Second))
	if i.told {
		t.Fatal("closed after 4 s, want 5")
	}
	g.l.Idle(g.l.Now().Add(2 * time.Second))
	if !i.told {
		t.Error("a connection without login is still open after 6 s, want 5")
	}
	g.stop()
}

// TestReinstatementWaitsForTheOldSession: the same initiator port logs in again while a write of the old session is under way (spec/clients.md I21).
func TestReinstatementWaitsForTheOldSession(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{MaxDelay: time.Millisecond, Seed: 5})
	old := g.ready(1)
	other := g.ready(2) // another ISID: another nexus, which stays
	for range 16 {
		old.command(write10(0, 1), bitWrite, 512, pattern(512, 1))
	}
	g.l.Turn()
	again := g.login(1)
	if !old.told {
		t.Error("the old session's connection is open after the new login was answered")
	}
	if other.told {
		t.Error("a session with another ISID was ended")
	}
	if g.disk.Sessions() != 2 {
		t.Errorf("%d handles are attached, want 2: the other's and the new one", g.disk.Sessions())
	}
	before, after := make([]byte, 512), make([]byte, 512)
	g.disk.ReadAt(before, 0)
	g.idle()
	g.disk.ReadAt(after, 0)
	if !bytes.Equal(before, after) {
		t.Error("a write of the old session took effect after the new login was answered")
	}
	again.command([]byte{0}, 0, 0, nil)
	again.want(opSCSIResponse)
	g.stop()
}

func TestSecondConnectionOfASessionIsRefused(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{})
	i := g.login(1)
	j := &initiator{fakeConn: g.connect()}
	h, data := loginPDU(0x87, 1, 1, "InitiatorName=iqn.2026-11.test:a", "TargetName="+testTarget)
	j.sendPDU(&h, data)
	if p := j.want(opLoginReply); binary.BigEndian.Uint16(p.header[36:]) != loginTooMany {
		t.Errorf("status % x, want 0206", p.header[36:38])
	}
	if i.told {
		t.Error("the session itself was ended")
	}
	g.stop()
}

func TestDiscoveryListsTargetsInParts(t *testing.T) {
	g := newRig(t, Options{Portals: []Portal{{"192.0.2.1:3260", 1}, {"[2001:db8::1]:3260", 2}}, Allow: func(image, _, _ string) bool { return image != "hidden" }}, memory.Options{})
	g.cat.Add(memory.New(memory.Options{Name: "hidden", Size: 512}))
	g.cat.Add(memory.New(memory.Options{Name: "dir/Disk 2", Size: 512}))
	i := &initiator{fakeConn: g.connect()}
	h, data := loginPDU(0x87, 1, 0, "InitiatorName=iqn.2026-11.test:a", "SessionType=Discovery", "MaxRecvDataSegmentLength=512")
	i.sendPDU(&h, data)
	i.want(opLoginReply)
	for n := range 40 {
		g.cat.Add(memory.New(memory.Options{Name: fmt.Sprintf("disk%02d", n), Size: 512}))
	}
	ask := func(ttt uint32, data []byte) *packet {
		var h header
		h.start(opText|bitImmediate, bitFinal, 5)
		h.putU32(20, ttt)
		i.sendPDU(&h, data)
		return i.want(opTextReply)
	}
	p := ask(reserved, text("SendTargets=All"))
	all := p.data
	for p.header[1]&bitFinal == 0 {
		if p.header[1]&bitContinue == 0 || len(p.data) > 512 {
			t.Fatalf("part of %d bytes with flags %02xh, want C and at most 512", len(p.data), p.header[1])
		}
		p = ask(p.targetTag(), nil)
		all = append(all, p.data...)
	}
	pairs, err := parseList(all)
	if err != nil || len(pairs) != 3*42 {
		t.Fatalf("%d pairs, %v, want 42 targets with 2 addresses each", len(pairs), err)
	}
	if strings.Contains(string(all), "hidden") || !strings.Contains(string(all), "TargetName="+DefaultPrefix+":dir:2f:44isk:202\x00TargetAddress=192.0.2.1:3260,1\x00TargetAddress=[2001:db8::1]:3260,2\x00") {
		t.Errorf("SendTargets answered %q", all)
	}
	p = ask(reserved, text("SendTargets="+testTarget))
	if got := strings.Count(string(p.data), "TargetName="); got != 1 {
		t.Errorf("SendTargets of one answered %d targets, want 1", got)
	}
	g.stop()
}

// parseList is parseText without its limit of keys.
func parseList(b []byte) ([]string, error) {
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

func TestNames(t *testing.T) {
	for image, want := range map[string]string{
		"disk": ":disk", "a-b.c:9": ":a-b.c:3a9", "A": "::41", "dir/x": ":dir:2fx", "a_b": ":a:5fb", "ü": "::c3:bc", "": "", strings.Repeat("x", 300): "",
	} {
		if want != "" {
			want = DefaultPrefix + want
		}
		got := TargetName(DefaultPrefix, image)
		if got != want {
			t.Errorf("TargetName(%q) = %q, want %q", image, got, want)
		}
		if back, ok := ImageName(DefaultPrefix, got); got != "" && (!ok || back != image) {
			t.Errorf("ImageName(%q) = %q, %v, want %q", got, back, ok, image)
		}
	}
	for _, bad := range []string{"", DefaultPrefix, DefaultPrefix + ":", DefaultPrefix + "::6", DefaultPrefix + "::61", DefaultPrefix + ":a_b", DefaultPrefix + ":a/b", "iqn.x:disk"} {
		if got, ok := ImageName(DefaultPrefix, bad); ok {
			t.Errorf("ImageName(%q) = %q, want none", bad, got)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string // "" for none
	}{
		{Options{}, ""},
		{Options{TargetPrefix: "iqn.2003-01.com.example:store", Portals: []Portal{{"[2001:db8::1]:3260", 1}}}, ""},
		{Options{TargetPrefix: "disk"}, "target prefix"},
		{Options{TargetPrefix: "iqn.2003-01.com.example:a_b"}, "is not allowed"},
		{Options{TargetPrefix: "iqn.X"}, "lower case"},
		{Options{Portals: []Portal{{"192.0.2.1", 1}}}, "portal"},
		{Options{Ports: []scsi.Port{{Group: 2}, {Group: 1}}}, "sorted"},
	} {
		err := c.o.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("Validate of %+v: %v, want %q", c.o, err, c.want)
		}
	}
}

// TestDigestExamples are those of RFC 7143, appendix A.4 (CRC examples), in the order of their bytes on the wire.
func TestDigestExamples(t *testing.T) {
	zeroes, ones, up, down := make([]byte, 32), make([]byte, 32), make([]byte, 32), make([]byte, 32)
	for i := range 32 {
		ones[i], up[i], down[i] = 0xff, byte(i), byte(31-i)
	}
	// An iSCSI SCSI Read (10) command PDU.
	command, _ := hex.DecodeString("01c000000000000000000000000000001400000000000400000000140000001828000000000000000200000000000000")
	for want, in := range map[string][]byte{"aa36918a": zeroes, "43aba862": ones, "4e79dd46": up, "5cdb3f11": down, "563a96d9": command} {
		var got [4]byte
		putDigest(got[:], checksum(in))
		if hex.EncodeToString(got[:]) != want {
			t.Errorf("digest of % x = %x, want %s", in, got, want)
		}
	}
}

func FuzzParseText(f *testing.F) {
	f.Add([]byte("InitiatorName=iqn.x\x00SessionType=Normal\x00"))
	f.Add([]byte("=\x00"))
	f.Add([]byte("a=b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pairs, err := parseText(b)
		if err != nil {
			return
		}
		var back []byte
		for _, p := range pairs {
			back = appendPair(back, p.key, p.value)
		}
		again, err := parseText(back)
		if err != nil || len(again) != len(pairs) {
			t.Errorf("parse of what was encoded again: %v, %v, want %v", again, err, pairs)
		}
		p := defaultParams()
		for _, x := range pairs {
			p.negotiate(x.key, x.value, false)
		}
		p.settle()
		if p.maxSend < 512 || p.firstBurst < 512 || p.maxBurst < p.firstBurst || p.maxBurst > maxBurst {
			t.Errorf("negotiated %+v, out of bounds", p)
		}
	})
}
