package iscsi

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"holdfast/frontends/iscsi"
)

// TestReinstatementAcrossLoops: the initiator port that has a session on one loop logs in on another. The first session ends before the second login is answered.
func TestReinstatementAcrossLoops(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			g := start(t, kind, 2, iscsi.Options{}, 1<<20)
			first := login(t, g.portals[0], 1)
			defer first.Close()
			for i := range 20 {
				next := login(t, g.portals[(i+1)%2], 1)
				defer next.Close()
				_ = first.SetReadDeadline(time.Now().Add(5 * time.Second))
				if n, err := first.Read(make([]byte, 1)); err == nil || n != 0 {
					t.Fatalf("login %d: the earlier session's connection gave %d bytes, want its end", i, n)
				} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
					t.Fatalf("login %d: the earlier session goes on", i)
				}
				if n := g.disk.Sessions(); n != 1 {
					t.Fatalf("login %d: %d handles are attached, want 1", i, n)
				}
				first = next
			}
		})
	}
}

// login makes a session by hand.
func login(t *testing.T, portal string, isid byte) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", portal)
	if err != nil {
		t.Fatal(err)
	}
	text := "InitiatorName=iqn.2026-11.test:a\x00TargetName=" + target + "\x00"
	h := make([]byte, 48)
	h[0], h[1] = 0x43, 0x87 // Login, immediate; T, operational to full feature
	h[7] = byte(len(text))
	h[8], h[13] = 0x40, isid
	h = append(h, text...)
	for len(h)%4 != 0 {
		h = append(h, 0)
	}
	if _, err := c.Write(h); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	r := make([]byte, 48)
	if _, err := io.ReadFull(c, r); err != nil {
		t.Fatalf("login: %v", err)
	}
	if status := binary.BigEndian.Uint16(r[36:]); status != 0 {
		t.Fatalf("login status %04xh, want 0", status)
	}
	n := int(r[7])
	if _, err := io.CopyN(io.Discard, c, int64(n+(-n&3))); err != nil {
		t.Fatal(err)
	}
	return c
}
