package sim

import (
	"math/rand/v2"

	"holdfast/core/loop"
)

// Recording is what was done to a disk since Record, for testers that crash it at every point of it.
type Recording struct {
	// Ops are the writes, sync writes, flushes and discards in order of submission.
	Ops []RecordedOp
	// Log is their submissions and completions in the order in which they happened: a recording of n steps can be cut at 0 to n.
	Log []RecordedStep

	d    *Disk
	base *media // the disk when recording began
}

// RecordedOp is one operation of a recording.
type RecordedOp struct {
	Disk *Disk
	Kind loop.DiskKind
	Off  int64
	Data []byte // of writes; a copy
	Len  int64  // of discards
	Err  error  // once completed
	Lost bool   // it was acknowledged and not applied (DiskFaults)
	At   int64  // where it was applied: Off, unless it was misdirected
}

// RecordedStep is the submission or the completion of one operation.
type RecordedStep struct {
	Op       int // index in Ops
	Complete bool
}

// Record starts a recording of what is submitted from now on; an earlier one ends. Operations should not be in flight.
// The recording also ends when a process dies with operations in flight on this disk: crash the recording instead.
func (d *Disk) Record() *Recording {
	d.rec = &Recording{d: d, base: d.m.clone()}
	return d.rec
}

// Also records another disk into the same log, from now on, for testers that crash several disks at one point. A Player knows the first disk only.
func (rec *Recording) Also(d *Disk) { d.rec = rec }

// StopRecording ends the recording.
func (d *Disk) StopRecording() { d.rec = nil }

func (rec *Recording) submit(r *diskRun) {
	if rec == nil || r.op.Kind == loop.DiskRead {
		return
	}
	op := RecordedOp{Disk: r.d, Kind: r.op.Kind, Off: r.op.Off, At: r.op.Off, Len: r.op.Len, Lost: r.lost}
	if op.Kind == loop.DiskWrite || op.Kind == loop.DiskSync {
		op.Data = make([]byte, 0, r.bytes)
		each(r.op, func(p []byte) { op.Data = append(op.Data, p...) })
	}
	if r.h.o.NoFlush && op.Kind == loop.DiskSync {
		op.Kind = loop.DiskWrite
	}
	rec.Ops = append(rec.Ops, op)
	r.rec = len(rec.Ops)
	rec.Log = append(rec.Log, RecordedStep{Op: r.rec - 1})
}

func (rec *Recording) complete(r *diskRun) {
	if rec == nil || r.rec == 0 || r.rec > len(rec.Ops) {
		return
	}
	op := &rec.Ops[r.rec-1]
	op.Err, op.Lost, op.At = r.err, r.lost, r.off
	rec.Log = append(rec.Log, RecordedStep{Op: r.rec - 1, Complete: true})
}

// Player replays a recording step by step; at each point it can make crashed disks.
type Player struct {
	rec    *Recording
	m      *media
	pos    int
	flight []int          // operations submitted and not completed, in order
	marks  map[int]uint64 // of flushes in flight
}

// Player starts at the recording's beginning.
func (rec *Recording) Player() *Player {
	return &Player{rec: rec, m: rec.base.clone(), marks: map[int]uint64{}}
}

// Pos is how many steps of the log have been replayed.
func (p *Player) Pos() int { return p.pos }

// Step replays one step and reports whether there was one.
func (p *Player) Step() bool {
	if p.pos == len(p.rec.Log) {
		return false
	}
	s := p.rec.Log[p.pos]
	p.pos++
	op := &p.rec.Ops[s.Op]
	if !s.Complete {
		p.flight = append(p.flight, s.Op)
		if op.Kind == loop.DiskFlush {
			p.marks[s.Op] = p.m.writes
		}
		return true
	}
	for i, o := range p.flight {
		if o == s.Op {
			p.flight = append(p.flight[:i], p.flight[i+1:]...)
			break
		}
	}
	switch {
	case op.Err != nil, op.Lost:
	case op.Kind == loop.DiskFlush:
		p.m.flush(p.marks[s.Op])
		delete(p.marks, s.Op)
	case op.Kind == loop.DiskWrite, op.Kind == loop.DiskSync:
		p.m.write(op.At, op.Data, op.Kind == loop.DiskSync)
	}
	return true
}

// Seek replays up to step n of the log.
func (p *Player) Seek(n int) {
	for p.pos < n && p.Step() {
	}
}

// Crash makes a new disk in w with what loss of power at this point leaves by the policy; rng decides. The player stays where it is.
func (p *Player) Crash(w *World, name string, policy CrashPolicy, rng *rand.Rand) *Disk {
	m := p.m.clone()
	m.w = w
	var writes []flying
	for _, o := range p.flight {
		if op := &p.rec.Ops[o]; op.Kind == loop.DiskWrite || op.Kind == loop.DiskSync {
			writes = append(writes, flying{op.Off, op.Data})
		}
	}
	m.crash(policy, rng, writes)
	return w.addDisk(name, p.rec.d.size, m)
}
