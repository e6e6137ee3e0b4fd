package sim

import (
	"fmt"
	"hash/fnv"
	"io"
)

// Trace writes the event log to out (nil ends it), one line per event: time, process ("-" when none is concerned), what. The same seed and the same code give the same bytes.
// A line is one Write.
func (w *World) Trace(out io.Writer) { w.trace = out }

// TraceTurns has the log show turns that only run timers and tasks, too; they are most of the events and say least.
func (w *World) TraceTurns(on bool) { w.traceTurns = on }

// shows reports whether an event of a loop has a line of its own in the log.
func (w *World) shows(k eventKind) bool { return w.trace != nil && (k < evWake || w.traceTurns) }

// Logf puts a line of the test's own into the event log and the hash; it must be the same in each run of the seed.
func (w *World) Logf(who, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	h := fnv.New64a()
	_, _ = io.WriteString(h, who)
	_, _ = io.WriteString(h, text)
	w.mix(uint64(w.now))
	w.mix(h.Sum64())
	if w.trace != nil {
		w.tracef(who, "%s", text)
	}
}

// Hash is the rolling hash of every event so far, whether they are written anywhere or not: two runs of a seed that differ in anything differ in it.
func (w *World) Hash() uint64 { return w.hash }

func (w *World) mix(v uint64) {
	h := (w.hash ^ v) * 0x9e3779b97f4a7c15
	w.hash = h ^ h>>29
}

// mixEvent makes an event that runs part of the hash.
func (w *World) mixEvent(e *event) {
	who := uint64(0)
	if e.l != nil {
		who = uint64(e.l.id)
	}
	w.mix(uint64(e.at))
	w.mix(who<<40 | uint64(e.kind)<<32 | e.detail())
}

// detail tells events of one kind apart, in 32 bits.
func (e *event) detail() uint64 {
	switch x := e.x.(type) {
	case *conn:
		n := x.id
		if x.in != nil && e.kind == evRead {
			n += x.in.avail << 12
		}
		return uint64(uint32(n))
	case *connError:
		return uint64(uint32(x.c.id))
	case *diskRun:
		failed := int64(0)
		if x.err != nil {
			failed = 1 << 31
		}
		return uint64(uint32(x.off>>9 ^ int64(x.bytes)<<8 ^ failed))
	}
	return 0
}

func (w *World) tracef(who, format string, args ...any) {
	t := w.Elapsed()
	b := fmt.Appendf(w.line[:0], "%d.%09d %s ", t/1e9, t%1e9, who)
	b = append(fmt.Appendf(b, format, args...), '\n')
	w.line = b
	_, _ = w.trace.Write(b) // a log that cannot be written is noticed by whoever compares it
}

// note writes what was done to the process.
func (l *Loop) note(what string) {
	l.w.mix(uint64(len(what))<<32 | uint64(l.id))
	if l.w.trace != nil {
		l.w.tracef(l.name, "%s", what)
	}
}
