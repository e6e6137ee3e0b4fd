package iscsi

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
	"time"

	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/frontends/iscsi/scsi"
	"holdfast/frontends/volume/memory"
	"holdfast/frontends/volume/volumetest"
)

const testTarget = DefaultPrefix + ":disk"

// rig is a server on a loop that the test turns by hand, with connections made of memory.
type rig struct {
	t      testing.TB
	l      *volumetest.Loop
	srv    *Server
	shared *Shared
	disk   *memory.Device
	cat    *memory.Catalog
}

func newRig(t testing.TB, o Options, m memory.Options) *rig {
	t.Helper()
	if m.Size == 0 {
		m.Size = 64 << 20
	}
	m.Name = "disk"
	g := &rig{t: t, l: volumetest.NewLoop(1, nil), disk: memory.New(m), shared: NewShared(nil)}
	g.cat = memory.NewCatalog(g.disk)
	g.srv = New(g.l, o, g.cat, g.shared)
	return g
}

// idle turns the loop until nothing happens within a second.
func (g *rig) idle() { g.l.Idle(g.l.Now().Add(time.Second)) }

// stop closes the server and checks that every buffer came home.
func (g *rig) stop() {
	g.t.Helper()
	closed := false
	g.srv.Close(func() { closed = true })
	g.idle()
	if !closed {
		g.t.Errorf("Close has not called done; %d connections are left", len(g.srv.conns))
	}
	if n := g.l.Live(); n != 0 {
		g.t.Errorf("%d buffers are lent after Close, want 0", n)
	}
	if n := g.disk.Sessions(); n != 0 {
		g.t.Errorf("%d handles are attached after Close, want 0", n)
	}
}

// fakeConn is a loop.Conn whose other end is the test.
type fakeConn struct {
	g      *rig
	h      loop.ConnHandler
	in     []byte // sent by the test, not consumed
	fill   []byte
	out    []byte // sent by the server
	chunk  int    // bytes shown at once; 0: all
	queued int    // what Queued says
	paused bool
	closed bool // Close was called
	after  bool // CloseAfterSend was called
	told   bool
	mute   bool // drop what the server sends
	stuck  bool // nothing that is sent leaves
	pumpT  loop.Task
	shown  int // len(in) at which Received consumed nothing
}

func (g *rig) connect() *fakeConn {
	g.t.Helper()
	c := &fakeConn{g: g}
	c.pumpT.Run = c.pump
	c.h = g.srv.Accepted(c)
	if c.h == nil {
		g.t.Fatal("the connection was refused")
	}
	return c
}

func (c *fakeConn) write(p []byte) {
	c.in = append(c.in, p...)
	c.g.l.Post(&c.pumpT)
}

// pump delivers what was written as a loop would.
func (c *fakeConn) pump() {
	for !c.closed && (!c.after || c.stuck) {
		if c.after {
			return // what is queued has not left
		}
		if c.fill != nil {
			n := copy(c.fill, c.in)
			c.fill, c.in = c.fill[n:], c.in[n:]
			if len(c.fill) != 0 {
				return
			}
			c.fill = nil
			c.h.Filled(c)
			continue
		}
		if c.paused || len(c.in) == 0 {
			return
		}
		p := c.in
		if c.chunk != 0 && len(p) > c.chunk+c.shown {
			p = p[:c.chunk+c.shown]
		}
		n := c.h.Received(c, p)
		c.in = c.in[n:]
		if n != 0 {
			c.shown = 0
		} else if c.fill == nil {
			if len(p) == len(c.in) {
				return
			}
			c.shown = len(p)
		}
	}
	if !c.told {
		c.told = true
		c.h.Closed(c, nil)
	}
}

// hangUp is the initiator's end of the connection.
func (c *fakeConn) hangUp() {
	c.closed = true
	c.g.l.Post(&c.pumpT)
}

func (c *fakeConn) Send(p []byte) {
	if c.stuck {
		c.queued += len(p)
	}
	if !c.mute && !c.closed {
		c.out = append(c.out, p...)
	}
}
func (c *fakeConn) SendRef(b *buf.Ref, off, n int) { c.Send(b.Bytes()[off : off+n]) }
func (c *fakeConn) Queued() int                    { return c.queued }
func (c *fakeConn) Fill(p []byte)                  { c.fill = p }
func (c *fakeConn) Pause()                         { c.paused = true }
func (c *fakeConn) Resume()                        { c.paused = false; c.g.l.Post(&c.pumpT) }
func (c *fakeConn) Close()                         { c.closed = true; c.g.l.Post(&c.pumpT) }
func (c *fakeConn) CloseAfterSend()                { c.after = true; c.g.l.Post(&c.pumpT) }
func (c *fakeConn) Local() loop.Addr               { return loop.Addr{Network: "tcp", Address: "192.0.2.1:3260"} }
func (c *fakeConn) Remote() loop.Addr              { return loop.Addr{Network: "tcp", Address: "192.0.2.2:1000"} }
func (c *fakeConn) LastAck() loop.Instant          { return c.g.l.Now() }
func (c *fakeConn) SetKeepAlive(time.Duration, time.Duration, int) {
}

// packet is one PDU.
type packet struct {
	header
	data []byte
}

func (p *packet) status() byte { return p.header[3] }

// initiator is the test's end of a session.
type initiator struct {
	*fakeConn
	cmdSN   uint32
	nextTag uint32
	hd, dd  bool
}

// frame encodes a PDU.
func (i *initiator) frame(h *header, data []byte) []byte {
	h.setDataLength(len(data))
	b := append([]byte(nil), h[:]...)
	if i.hd {
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	}
	if len(data) == 0 {
		return b
	}
	d := append(append([]byte(nil), data...), padBytes[:padding(len(data))]...)
	b = append(b, d...)
	if i.dd {
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(d, castagnoli))
	}
	return b
}

func (i *initiator) sendPDU(h *header, data []byte) { i.write(i.frame(h, data)) }

// receive takes the next PDU that the server sent, after turning the loop; nil when there is none.
func (i *initiator) receive() *packet {
	i.g.t.Helper()
	if len(i.out) < bhsSize {
		i.g.idle()
	}
	if len(i.out) < bhsSize {
		return nil
	}
	p := new(packet)
	copy(p.header[:], i.out)
	i.out = i.out[bhsSize:]
	if i.hd {
		if crc32.Checksum(p.header[:], castagnoli) != binary.LittleEndian.Uint32(i.out) {
			i.g.t.Fatal("wrong header digest from the target")
		}
		i.out = i.out[4:]
	}
	if n := p.dataLength(); n != 0 {
		all := n + padding(n)
		p.data = bytes.Clone(i.out[:n])
		if i.dd {
			if crc32.Checksum(i.out[:all], castagnoli) != binary.LittleEndian.Uint32(i.out[all:]) {
				i.g.t.Fatal("wrong data digest from the target")
			}
			all += 4
		}
		i.out = i.out[all:]
	}
	return p
}

func (i *initiator) want(opcode byte) *packet {
	i.g.t.Helper()
	p := i.receive()
	if p == nil {
		i.g.t.Fatalf("no PDU, want opcode %02xh", opcode)
		return nil
	}
	if p.opcode() != opcode {
		i.g.t.Fatalf("PDU with opcode %02xh (% x), want %02xh", p.opcode(), p.header[:], opcode)
	}
	return p
}

func text(pairs ...string) []byte {
	var b []byte
	for _, p := range pairs {
		b = append(append(b, p...), 0)
	}
	return b
}

func loginPDU(flags byte, isid byte, tsih uint16, pairs ...string) (header, []byte) {
	var h header
	h.start(opLogin|bitImmediate, flags, 1)
	h[8], h[13] = 0x40, isid
	binary.BigEndian.PutUint16(h[14:], tsih)
	h.putU32(24, 1)
	return h, text(pairs...)
}

// login makes a session with the target, from the operational stage at once.
func (g *rig) login(isid byte, extra ...string) *initiator {
	g.t.Helper()
	i := &initiator{fakeConn: g.connect(), cmdSN: 1, nextTag: 100}
	h, data := loginPDU(0x87, isid, 0, append([]string{"InitiatorName=iqn.2026-11.test:a", "TargetName=" + testTarget, "MaxRecvDataSegmentLength=262144", "InitialR2T=No", "FirstBurstLength=65536"}, extra...)...)
	i.sendPDU(&h, data)
	p := i.want(opLoginReply)
	if p.header[36] != 0 || p.header[37] != 0 {
		g.t.Fatalf("login status %02x%02x, want 0000", p.header[36], p.header[37])
	}
	for _, e := range extra {
		i.hd = i.hd || e == "HeaderDigest=CRC32C"
		i.dd = i.dd || e == "DataDigest=CRC32C"
	}
	return i
}

// ready is login with the first unit attention taken.
func (g *rig) ready(isid byte, extra ...string) *initiator {
	g.t.Helper()
	i := g.login(isid, extra...)
	i.command([]byte{0}, 0, 0, nil)
	if p := i.want(opSCSIResponse); p.status() != byte(scsi.CheckCondition) {
		g.t.Fatalf("status %02xh of the first command, want CHECK CONDITION with the unit attention", p.status())
	}
	return i
}

// command sends a SCSI command with all of data immediate and returns its tag.
func (i *initiator) command(cdb []byte, flags byte, edtl uint32, data []byte) uint32 {
	var h header
	i.nextTag++
	h.start(opSCSICommand, flags|bitFinal|attrSimple, i.nextTag)
	h.putU32(20, edtl)
	h.putU32(24, i.cmdSN)
	i.cmdSN++
	copy(h[32:], cdb)
	i.sendPDU(&h, data)
	return i.nextTag
}

func read10(lba uint32, blocks uint16) []byte  { return cdb10(0x28, lba, blocks) }
func write10(lba uint32, blocks uint16) []byte { return cdb10(0x2a, lba, blocks) }

func cdb10(op byte, lba uint32, blocks uint16) []byte {
	b := []byte{op, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(b[2:], lba)
	binary.BigEndian.PutUint16(b[7:], blocks)
	return b
}

// dataOut sends a Data-Out PDU.
func (i *initiator) dataOut(tag, ttt, sn, offset uint32, final bool, data []byte) {
	var h header
	flags := byte(0)
	if final {
		flags = bitFinal
	}
	h.start(opDataOut, flags, tag)
	h.putU32(20, ttt)
	h.putU32(36, sn)
	h.putU32(40, offset)
	i.sendPDU(&h, data)
}

func (i *initiator) manage(function byte, itt, sn uint32) uint32 {
	var h header
	i.nextTag++
	h.start(opTaskManage|bitImmediate, bitFinal|function, i.nextTag)
	h.putU32(20, itt)
	h.putU32(24, i.cmdSN)
	h.putU32(32, sn)
	i.sendPDU(&h, nil)
	return i.nextTag
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7) ^ byte(i>>8) ^ seed
	}
	return b
}
