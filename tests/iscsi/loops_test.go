package iscsi

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"holdfast/frontends/iscsi"
)

// nexus is a session by hand.
type nexus struct {
	t     *testing.T
	c     net.Conn
	cmdSN uint32
}

func (n *nexus) send(h []byte, data []byte) {
	n.t.Helper()
	h[5], h[6], h[7] = byte(len(data)>>16), byte(len(data)>>8), byte(len(data))
	h = append(h, data...)
	for len(h)%4 != 0 {
		h = append(h, 0)
	}
	if _, err := n.c.Write(h); err != nil {
		n.t.Fatal(err)
	}
}

func (n *nexus) receive() (h, data []byte) {
	n.t.Helper()
	_ = n.c.SetReadDeadline(time.Now().Add(5 * time.Second))
	h = make([]byte, 48)
	if _, err := io.ReadFull(n.c, h); err != nil {
		n.t.Fatal(err)
	}
	size := int(h[5])<<16 | int(h[6])<<8 | int(h[7])
	data = make([]byte, size+(-size&3))
	if _, err := io.ReadFull(n.c, data); err != nil {
		n.t.Fatal(err)
	}
	return h, data[:size]
}

// command sends a SCSI command and returns its response.
func (n *nexus) command(cdb []byte, out []byte) (status byte, data []byte) {
	n.t.Helper()
	h := make([]byte, 48)
	h[0], h[1] = 0x01, 0x81
	if out != nil {
		h[1] |= 0x20
	}
	binary.BigEndian.PutUint32(h[16:], n.cmdSN)
	binary.BigEndian.PutUint32(h[20:], uint32(len(out)))
	binary.BigEndian.PutUint32(h[24:], n.cmdSN)
	n.cmdSN++
	copy(h[32:], cdb)
	n.send(h, out)
	h, data = n.receive()
	if h[0] != 0x21 {
		n.t.Fatalf("opcode %02xh, want a SCSI Response", h[0])
	}
	return h[3], data
}

// attention expects the unit attention with the given code on the next command.
func (n *nexus) attention(what string, asc, ascq byte) {
	n.t.Helper()
	status, sense := n.command(make([]byte, 6), nil)
	if status != 2 || len(sense) < 16 || sense[2+2] != 6 || sense[2+12] != asc || sense[2+13] != ascq {
		n.t.Errorf("%s: status %02xh sense % x, want the unit attention %02xh/%02xh", what, status, sense, asc, ascq)
	}
}

func (n *nexus) persistent(action, kind byte, key, service uint64) {
	n.t.Helper()
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], service)
	if status, sense := n.command([]byte{0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0}, list); status != 0 {
		n.t.Fatalf("PERSISTENT RESERVE OUT action %d: status %02xh sense % x", action, status, sense)
	}
}

// TestSessionsOnTwoLoops: resets and reservations reach the sessions on another loop of the gateway.
func TestSessionsOnTwoLoops(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			g := start(t, kind, 2, iscsi.Options{}, 1<<20)
			a := &nexus{t: t, c: login(t, g.portals[0], 1), cmdSN: 0}
			b := &nexus{t: t, c: login(t, g.portals[1], 2), cmdSN: 0}
			defer a.c.Close()
			defer b.c.Close()
			a.attention("first command", 0x29, 0)
			b.attention("first command", 0x29, 0)

			h := make([]byte, 48)
			h[0], h[1] = 0x42, 0x80|5 // LOGICAL UNIT RESET, immediate
			binary.BigEndian.PutUint32(h[16:], 1000)
			binary.BigEndian.PutUint32(h[24:], a.cmdSN)
			a.send(h, nil)
			if h, _ := a.receive(); h[0] != 0x22 || h[2] != 0 {
				t.Fatalf("the reset was answered with opcode %02xh, response %d", h[0], h[2])
			}
			a.attention("after the reset", 0x29, 3)
			b.attention("after the other's reset", 0x29, 3)

			a.persistent(0, 0, 0, 1)
			b.persistent(0, 0, 0, 2)
			a.persistent(1, 3, 1, 0) // exclusive access
			read := []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}
			if status, _ := b.command(read, nil); status != 0x18 {
				t.Errorf("read by the other: status %02xh, want RESERVATION CONFLICT", status)
			}
			b.persistent(5, 3, 2, 1) // PREEMPT AND ABORT
			a.attention("preempted", 0x2a, 5)
			if status, _ := a.command(read, nil); status != 0x18 {
				t.Errorf("read by the loser: status %02xh, want RESERVATION CONFLICT", status)
			}
		})
	}
}
