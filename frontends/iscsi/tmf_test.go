package iscsi

import (
	"bytes"
	"testing"
	"time"

	"holdfast/frontends/iscsi/scsi"
	"holdfast/frontends/volume/memory"
)

func TestAbortTaskAnswersOnceTheCommandIsOver(t *testing.T) {
	g := newRig(t, Options{PingInterval: 10 * time.Hour}, memory.Options{MaxDelay: time.Hour, Seed: 2})
	i := g.ready(1)
	sn := i.cmdSN
	tag := i.command(write10(0, 1), bitWrite, 512, bytes.Repeat([]byte{1}, 512))
	g.l.Turn()
	m := i.manage(tmfAbortTask, tag, sn)
	p := i.want(opTaskResponse)
	if p.tag() != m || p.header[2] != tmfComplete {
		t.Errorf("response %d to %d, want 0 to %d", p.header[2], p.tag(), m)
	}
	g.l.Idle(g.l.Now().Add(2 * time.Hour))
	got := make([]byte, 512)
	g.disk.ReadAt(got, 0)
	if !bytes.Equal(got, make([]byte, 512)) {
		t.Error("the write took effect after ABORT TASK was answered")
	}
	i.manage(tmfAbortTask, tag, sn)
	if p := i.want(opTaskResponse); p.header[2] != tmfNoTask {
		t.Errorf("response %d for a command that is over, want 1", p.header[2])
	}
	g.stop()
}

func TestAbortTaskThatWaitsForData(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{})
	i := g.ready(1)
	sn := i.cmdSN
	tag := i.command(write10(0, 8), bitWrite, 4096, nil)
	r := i.want(opR2T)
	i.manage(tmfAbortTask, tag, sn)
	if p := i.want(opTaskResponse); p.header[2] != tmfComplete {
		t.Errorf("response %d, want 0", p.header[2])
	}
	i.dataOut(tag, r.targetTag(), 0, 0, true, make([]byte, 4096)) // was on its way
	i.command([]byte{0}, 0, 0, nil)
	if p := i.want(opSCSIResponse); p.status() != 0 {
		t.Errorf("status %02xh after the abort, want GOOD", p.status())
	}
	g.stop()
}

func TestUnitResetEndsCommandsOfEverySession(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{MaxDelay: time.Hour, Seed: 2})
	a, b := g.ready(1), g.ready(2)
	a.command(read10(0, 1), bitRead, 512, nil)
	theirs := b.command(read10(0, 1), bitRead, 512, nil)
	g.l.Turn()
	a.manage(tmfUnitReset, reserved, 0)
	if p := a.want(opTaskResponse); p.header[2] != tmfComplete {
		t.Errorf("response %d, want 0", p.header[2])
	}
	if p := b.want(opSCSIResponse); p.tag() != theirs || p.status() != byte(scsi.TaskAborted) {
		t.Errorf("the other session's command ended with status %02xh, want TASK ABORTED", p.status())
	}
	b.command([]byte{0}, 0, 0, nil)
	if p := b.want(opSCSIResponse); p.status() != byte(scsi.CheckCondition) || p.data[2+12] != 0x29 || p.data[2+13] != 0x03 {
		t.Errorf("sense % x, want the unit attention 29h/03h", p.data)
	}
	g.stop()
}

func TestAbortTaskSetWithParkedCommands(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{MaxDelay: time.Hour, Seed: 2})
	i := g.ready(1)
	for n := range 6 {
		var h header
		h.start(opSCSICommand, bitFinal|bitRead|attrOrdered, 900+uint32(n))
		h.putU32(20, 512)
		h.putU32(24, i.cmdSN)
		i.cmdSN++
		copy(h[32:], read10(0, 1))
		i.sendPDU(&h, nil)
	}
	i.command([]byte{0}, 0, 0, nil) // would end at once if it started
	g.l.Turn()
	i.manage(tmfAbortTaskSet, reserved, 0)
	if p := i.want(opTaskResponse); p.header[2] != tmfComplete {
		t.Errorf("response %d, want 0", p.header[2])
	}
	i.command([]byte{0}, 0, 0, nil)
	if p := i.want(opSCSIResponse); p.status() != 0 {
		t.Errorf("status %02xh after ABORT TASK SET, want GOOD", p.status())
	}
	g.stop()
}

func TestOtherFunctions(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{})
	i := g.ready(1)
	for function, want := range map[byte]byte{tmfClearACA: tmfNotSupported, tmfColdReset: tmfNotSupported, tmfReassign: tmfNoReassign, 14: tmfNotSupported, tmfWarmReset: tmfComplete, tmfClearTaskSet: tmfComplete} {
		i.manage(function, reserved, 0)
		if p := i.want(opTaskResponse); p.header[2] != want {
			t.Errorf("function %d answered %d, want %d", function, p.header[2], want)
		}
	}
	g.stop()
}

func TestLogoutAnswersAfterTheCommands(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{MaxDelay: time.Hour, Seed: 2})
	i := g.ready(1)
	i.command(write10(0, 1), bitWrite, 512, make([]byte, 512))
	var h header
	h.start(opLogout|bitImmediate, bitFinal, 600)
	h.putU32(24, i.cmdSN)
	i.sendPDU(&h, nil)
	if p := i.want(opLogoutReply); p.header[2] != 0 || p.tag() != 600 {
		t.Errorf("logout response %d, want 0", p.header[2])
	}
	g.idle()
	if !i.told {
		t.Error("the connection is open after the logout")
	}
	g.stop()
}

// TestPeerThatDoesNotTakeItsLastAnswerIsClosed covers CloseAfterSend towards a peer that reads nothing.
func TestPeerThatDoesNotTakeItsLastAnswerIsClosed(t *testing.T) {
	g := newRig(t, Options{LoginTimeout: 5 * time.Second, PingInterval: 5 * time.Second}, memory.Options{})
	i := g.ready(1)
	i.stuck = true
	var h header
	h.start(opLogout|bitImmediate, bitFinal, 600)
	i.sendPDU(&h, nil)
	j := &initiator{fakeConn: g.connect()}
	j.stuck = true
	l, data := loginPDU(0x87, 1, 0)
	j.sendPDU(&l, data)
	g.idle()
	if i.told || j.told {
		t.Fatal("closed before the answer left")
	}
	g.l.Idle(g.l.Now().Add(12 * time.Second))
	if !i.told || !j.told {
		t.Errorf("after 12 s closed %v after a logout and %v after a refused login, want both", i.told, j.told)
	}
	g.stop()
}

func TestResizeAndDrainAreTold(t *testing.T) {
	g := newRig(t, Options{}, memory.Options{})
	i := g.ready(1)
	g.disk.Resize(128 << 20)
	g.idle()
	i.command([]byte{0}, 0, 0, nil)
	if p := i.want(opSCSIResponse); p.status() != byte(scsi.CheckCondition) || p.data[2+12] != 0x2a || p.data[2+13] != 0x09 {
		t.Errorf("sense % x, want CAPACITY DATA HAS CHANGED", p.data)
	}
	g.disk.Drain()
	if p := i.want(opAsync); p.header[36] != asyncLogout {
		t.Errorf("asynchronous event %d, want a request to log out", p.header[36])
	}
	g.disk.Remove()
	g.idle()
	i.command(read10(0, 1), bitRead, 512, nil)
	if p := i.want(opSCSIResponse); p.data[2+2] != 5 || p.data[2+12] != 0x25 {
		t.Errorf("sense % x of a removed image, want LOGICAL UNIT NOT SUPPORTED", p.data)
	}
	g.stop()
}

// FuzzServer feeds whatever to a connection, in the login phase and in full feature phase. Nothing may panic, hang or be left behind, and another session must go on.
func FuzzServer(f *testing.F) {
	h, data := loginPDU(0x87, 9, 0, "InitiatorName=iqn.2026-11.test:b", "TargetName="+testTarget)
	i := &initiator{}
	f.Add(i.frame(&h, data), false, uint8(0))
	var c header
	c.start(opSCSICommand, bitFinal|bitRead, 7)
	c.putU32(20, 512)
	c.putU32(24, 2)
	copy(c[32:], read10(0, 1))
	f.Add(i.frame(&c, nil), true, uint8(7))
	c[1] = bitWrite
	copy(c[32:], write10(0, 1))
	f.Add(append(i.frame(&c, make([]byte, 256)), i.frame(&c, nil)...), true, uint8(0))
	for op := range 0x40 {
		var x header
		x.start(byte(op), bitFinal, 7)
		x.putU32(24, 2)
		f.Add(append(i.frame(&x, []byte("SendTargets=All\x00")), i.frame(&x, nil)...), true, uint8(50))
	}
	f.Fuzz(func(t *testing.T, b []byte, full bool, chunk uint8) {
		g := newRig(t, Options{QueueDepth: 8}, memory.Options{Size: 1 << 20})
		good := g.ready(1)
		bad := &initiator{fakeConn: g.connect()}
		if full {
			bad = g.ready(2)
		}
		bad.chunk = int(chunk)
		bad.write(b)
		g.l.Idle(g.l.Now().Add(time.Second))
		good.command(read10(1, 1), bitRead, 512, nil)
		for p := good.receive(); ; p = good.receive() {
			if p == nil {
				t.Fatal("another session's read is not answered")
			}
			if p.opcode() == opDataIn || p.opcode() == opSCSIResponse {
				break
			}
		}
		g.stop()
	})
}
