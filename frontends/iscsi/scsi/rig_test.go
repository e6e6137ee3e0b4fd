package scsi

import (
	"encoding/hex"
	"strings"
	"testing"

	"holdfast/frontends/volume"
	"holdfast/frontends/volume/memory"
	"holdfast/frontends/volume/volumetest"
)

// rig is a unit over a device in memory, with the test as transport.
type rig struct {
	t    testing.TB
	l    *volumetest.Loop
	disk *memory.Device
	h    volume.Handle
	u    *Unit
	res  *MemoryReservations
	evs  *events
	task *Task
	done bool
}

// events records what a nexus is told.
type events struct {
	u      *Unit
	aborts int
}

func (e *events) Raise(a Attention)      { e.u.Raise(a) }
func (e *events) AbortTasks(done func()) { e.aborts++; done() }

func newRig(t testing.TB, o memory.Options) *rig {
	t.Helper()
	if o.Size == 0 {
		o.Size = 64 << 20
	}
	o.Name = "disk"
	return joinRig(t, volumetest.NewLoop(1, nil), memory.New(o), NewMemoryReservations(), "iqn.a,i,0x400000000001")
}

func joinRig(t testing.TB, l *volumetest.Loop, d *memory.Device, res *MemoryReservations, initiator string) *rig {
	t.Helper()
	g := &rig{t: t, l: l, disk: d, res: res, evs: &events{}}
	h, err := d.Attach(l, volume.Session{})
	if err != nil {
		t.Fatal(err)
	}
	g.h = h
	m := res.Join(l, d.Info().ID, Nexus{Initiator: initiator, Port: 1}, g.evs)
	g.u = NewUnit(Config{Info: d.Info(), Port: Port{Name: "iqn.t:disk,t,0x0001", Relative: 1, Group: 1}, Member: m, Alloc: l.Alloc}, PowerOn)
	g.evs.u = g.u
	g.u.pending = 0
	g.task = new(Task)
	g.task.Op.Done = func(*volume.Op) { g.done = true }
	g.task.Change.Done = func(*Change) { g.done = true }
	return g
}

// other is a second nexus to the same unit.
func (g *rig) other() *rig { return joinRig(g.t, g.l, g.disk, g.res, "iqn.b,i,0x400000000002") }

func cdb(s string) (c [16]byte) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil || len(b) > 16 {
		panic("not a CDB: " + s)
	}
	copy(c[:], b)
	return c
}

// run executes a command with its data and returns what the initiator receives.
func (g *rig) run(c [16]byte, out []byte) []byte {
	t := g.task
	t.CDB = c
	g.u.Begin(t, 0)
	t.Offer(uint64(len(out)))
	t.Data = t.Data[:0]
	if t.Take != 0 {
		ref := g.l.Alloc(int(t.Take))
		defer ref.Release()
		copy(ref.Bytes(), out)
		half := int(t.Take) / 2 // in two pieces, as it may arrive
		t.Data = append(t.Data, volume.Piece{Ref: ref, Len: half}, volume.Piece{Ref: ref, Off: half, Len: int(t.Take) - half})
	}
	var in []byte
	for n := 0; ; n++ {
		if n > 10000 {
			g.t.Fatalf("% x does not end", c)
		}
		step := g.u.Next(t)
		if step == Finished {
			break
		}
		g.done = false
		if step == Submit {
			g.h.Submit(&t.Op)
		} else {
			g.u.Membership().Change(&t.Change)
		}
		for !g.done {
			if !g.l.Turn() {
				g.t.Fatalf("% x: step %d does not complete", c, step)
			}
		}
	}
	if t.Streams {
		for _, p := range t.Op.Pieces {
			if p.Ref == nil {
				in = append(in, make([]byte, p.Len)...)
			} else {
				in = append(in, p.Bytes()...)
			}
		}
		t.Op.ReleasePieces()
	} else {
		in = append(in, t.In...)
	}
	if uint64(len(in)) != t.DataIn {
		g.t.Errorf("% x: %d bytes for the initiator, DataIn says %d", c, len(in), t.DataIn)
	}
	return in
}

// good runs a command that must end with GOOD.
func (g *rig) good(c string, out []byte) []byte {
	g.t.Helper()
	in := g.run(cdb(c), out)
	if g.task.Status != Good {
		g.t.Fatalf("%s: status %02xh sense %+v, want GOOD", c, g.task.Status, g.task.Sense)
	}
	return in
}

// bad runs a command that must end with the code, or with the status when code is zero.
func (g *rig) bad(c string, out []byte, status Status, code Code) {
	g.t.Helper()
	g.run(cdb(c), out)
	if g.task.Status != status || g.task.Sense.Code != code {
		g.t.Errorf("%s: status %02xh sense %02x, want %02xh and %02x", c, g.task.Status, g.task.Sense.Code, status, code)
	}
}
