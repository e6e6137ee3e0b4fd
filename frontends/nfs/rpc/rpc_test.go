package rpc

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"holdfast/frontends/nfs/xdr"
)

// unhex reads hex with comments.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(s) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// libnfsMount is MNT "/" as libnfs 4.0.0 (Debian 12) sends it.
const libnfsMount = `
	8000004c                    # last fragment, 76 bytes
	69de12e0 00000000 00000002  # xid, CALL, RPC version 2
	000186a5 00000003 00000001  # MOUNT, version 3, MNT
	00000001 0000001c           # AUTH_SYS, 28 bytes
	002a12df 00000006 6c69626e66730000  # stamp, "libnfs"
	00000000 00000000 00000000  # uid, gid, no groups
	00000000 00000000           # no verifier
	00000001 2f000000           # "/"
`

func TestDecodeCallOfLibnfs(t *testing.T) {
	b := unhex(t, libnfsMount)
	n, last := Mark(b)
	if n != 76 || !last || len(b) != 80 {
		t.Fatalf("Mark = %d, %v of %d bytes", n, last, len(b))
	}
	var c Call
	head, ok := DecodeCall(b[4:], &c)
	want := Call{XID: 0x69de12e0, RPCVersion: 2, Program: ProgramMount, Version: 3, Procedure: 1, Cred: Credentials{Flavor: AuthSys}}
	if !ok || head != 68 || c != want {
		t.Errorf("DecodeCall = %d, %v, %+v; want 68, %+v", head, ok, c, want)
	}
	for i := range 68 {
		if _, ok := DecodeCall(b[4:4+i], &c); ok && c.Auth == AuthOK {
			t.Errorf("a header cut after %d bytes was accepted", i)
		}
	}
}

func TestCredentialBounds(t *testing.T) {
	call := func(flavor uint32, body []byte, verf int) []byte {
		var e xdr.Encoder
		for _, v := range []uint32{1, 0, 2, ProgramNFS, 3, 0, flavor} {
			e.Uint32(v)
		}
		e.Opaque(body)
		e.Uint32(0)
		e.Opaque(make([]byte, verf))
		return e.B
	}
	sys := func(machine, groups int) []byte {
		var e xdr.Encoder
		e.Uint32(1)
		e.Opaque(make([]byte, machine))
		e.Uint32(1000)
		e.Uint32(100)
		e.Uint32(uint32(groups))
		for i := range groups {
			e.Uint32(uint32(i))
		}
		return e.B
	}
	for _, tc := range []struct {
		name string
		in   []byte
		want AuthStat
	}{
		{"AUTH_NONE", call(0, nil, 0), AuthOK},
		{"AUTH_SYS", call(1, sys(10, 16), 0), AuthOK},
		{"255 bytes of machine name", call(1, sys(255, 16), 0), AuthOK},
		{"256 bytes of machine name", call(1, sys(256, 0), 0), AuthBadCred},
		{"17 groups", call(1, sys(10, 17), 0), AuthBadCred},
		{"cut groups", call(1, sys(10, 16)[:40], 0), AuthBadCred},
		{"400 bytes", call(0, make([]byte, 400), 0), AuthOK},
		{"401 bytes", call(0, make([]byte, 401), 0), AuthBadCred},
		{"verifier of 400 bytes", call(0, nil, 400), AuthOK},
		{"verifier of 401 bytes", call(0, nil, 401), AuthBadVerf},
		{"RPCSEC_GSS", call(6, make([]byte, 20), 0), AuthBadCred},
	} {
		var c Call
		if _, ok := DecodeCall(tc.in, &c); !ok || c.Auth != tc.want {
			t.Errorf("%s: %v, auth_stat %d; want %d", tc.name, ok, c.Auth, tc.want)
		}
		if tc.name == "AUTH_SYS" && (c.Cred.UID != 1000 || c.Cred.GID != 100 || c.Cred.NGroups != 16 || c.Cred.Groups[15] != 15) {
			t.Errorf("credentials %+v", c.Cred)
		}
	}
	if n := len(call(1, make([]byte, 400), 400)); n != MaxCallBytes {
		t.Errorf("the longest header is %d bytes, MaxCallBytes says %d", n, MaxCallBytes)
	}
}

// The values are those of RFC 5531, section 9.
func TestReplies(t *testing.T) {
	for _, tc := range []struct {
		name string
		f    func(*xdr.Encoder)
		want string
	}{
		{"success", func(e *xdr.Encoder) { Accepted(e, 5, Success) }, "00000005 00000001 00000000 00000000 00000000 00000000"},
		{"program unavailable", func(e *xdr.Encoder) { Accepted(e, 5, ProgUnavail) }, "00000005 00000001 00000000 00000000 00000000 00000001"},
		{"program mismatch", func(e *xdr.Encoder) { Mismatch(e, 5, 2, 3) }, "00000005 00000001 00000000 00000000 00000000 00000002 00000002 00000003"},
		{"procedure unavailable", func(e *xdr.Encoder) { Accepted(e, 5, ProcUnavail) }, "00000005 00000001 00000000 00000000 00000000 00000003"},
		{"garbage arguments", func(e *xdr.Encoder) { Accepted(e, 5, GarbageArgs) }, "00000005 00000001 00000000 00000000 00000000 00000004"},
		{"system error", func(e *xdr.Encoder) { Accepted(e, 5, SystemErr) }, "00000005 00000001 00000000 00000000 00000000 00000005"},
		{"RPC mismatch", func(e *xdr.Encoder) { DeniedVersion(e, 5) }, "00000005 00000001 00000001 00000000 00000002 00000002"},
		{"authentication", func(e *xdr.Encoder) { DeniedAuth(e, 5, AuthTooWeak) }, "00000005 00000001 00000001 00000001 00000005"},
	} {
		var e xdr.Encoder
		if tc.f(&e); !bytes.Equal(e.B, unhex(t, tc.want)) {
			t.Errorf("%s: %x, want %s", tc.name, e.B, tc.want)
		}
	}
	mark := make([]byte, 4)
	PutMark(mark, 0x1234)
	if !bytes.Equal(mark, []byte{0x80, 0, 0x12, 0x34}) {
		t.Errorf("mark %x", mark)
	}
}

func FuzzDecodeCall(f *testing.F) {
	f.Add(unhex(f, libnfsMount)[4:])
	f.Fuzz(func(t *testing.T, in []byte) {
		var c Call
		n, ok := DecodeCall(in, &c)
		if n > len(in) || n > MaxCallBytes || c.Cred.NGroups > MaxGroups {
			t.Fatalf("%d of %d bytes, %v, %+v", n, len(in), ok, c)
		}
	})
}
