package nfs

import (
	"errors"
	"fmt"
	"testing"

	"holdfast/core/loop/buf"
	"holdfast/frontends/volume"
)

func TestEveryErrorHasAnOutcome(t *testing.T) {
	for _, err := range append(append([]error(nil), volume.Sentinels...), TreeErrors...) {
		o, known := translate(fmt.Errorf("image x: %w", err))
		if !known || o.err != err || o.status == OK != o.silent {
			t.Errorf("%q: %+v, known %v; want a status or silence", err, o, known)
		}
	}
	if o, known := translate(errors.New("something new")); known || o.status != ErrStatIO {
		t.Errorf("an unknown error: %+v, known %v; want IO", o, known)
	}
	if o, known := translate(nil); !known || o.status != OK || o.silent {
		t.Errorf("no error: %+v", o)
	}
	if o, _ := translate(volume.ErrNoSpace); o.status != 28 {
		t.Errorf("no space: %d, want NFS3ERR_NOSPC (28)", o.status)
	}
}

// Handles and numbers of released versions stay good: these bytes must never change.
func TestIdentitiesAreTheSameForEver(t *testing.T) {
	cluster := [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	id := ID{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}
	h := MakeHandle(cluster, id)
	if got, want := fmt.Sprintf("%x", h), goldenHandle; got != want {
		t.Errorf("handle %s, want %s", got, want)
	}
	if got := FileNumber(id); got != goldenFileNumber {
		t.Errorf("fileid %#x, want %#x", got, uint64(goldenFileNumber))
	}
	if FileNumber(Root) != 1 {
		t.Errorf("fileid of the root %d, want 1", FileNumber(Root))
	}
	if got, st := parseHandle(cluster, h[:]); got != id || st != OK {
		t.Errorf("parseHandle = %x, %d", got, st)
	}
	for i := range h {
		bad := h
		bad[i] ^= 0x40
		if _, st := parseHandle(cluster, bad[:]); st != ErrStatBadFH {
			t.Errorf("with byte %d changed: %d, want BADHANDLE", i, st)
		}
		if _, st := parseHandle(cluster, h[:i]); st != ErrStatBadFH {
			t.Errorf("cut to %d bytes: %d, want BADHANDLE", i, st)
		}
	}
	if _, st := parseHandle([16]byte{}, h[:]); st != ErrStatStale {
		t.Errorf("for another cluster: %d, want STALE", st)
	}
}

func TestPieces(t *testing.T) {
	a := buf.NewArena()
	pieces := func(cuts ...string) (p []volume.Piece) {
		for _, c := range cuts {
			ref := a.Alloc(len(c) + 2)
			copy(ref.Bytes()[1:], c)
			p = append(p, volume.Piece{Ref: ref, Off: 1, Len: len(c)})
		}
		return p
	}
	data := pieces("abc", "d", "efghij")
	for from := range 10 {
		for n := range 10 - from {
			got := ""
			for _, p := range slice(nil, data, from, n) {
				got += string(p.Bytes())
			}
			out := make([]byte, n)
			copyOut(out, data, from)
			if want := "abcdefghij"[from : from+n]; got != want || string(out) != want {
				t.Errorf("[%d:+%d] = %q and %q, want %q", from, n, got, out, want)
			}
		}
	}
	for _, tc := range []struct {
		other []volume.Piece
		want  bool
	}{{pieces("abcdefghij"), true}, {pieces("ab", "cdefghi", "j"), true}, {pieces("abcdefghi"), false}, {pieces("abcdefghijk"), false}, {pieces("abXdefghij"), false}, {nil, false}} {
		if sameData(data, tc.other) != tc.want || sameData(tc.other, data) != tc.want {
			t.Errorf("sameData with %d pieces is not %v", len(tc.other), tc.want)
		}
	}
}

const (
	goldenHandle     = "48460001" + "0102030405060708090a0b0c0d0e0f10" + "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf" + "4c068a04"
	goldenFileNumber = 0xac64992cb5054bbb
)
