package sim

import (
	"fmt"
	"strings"
)

// Fault is a kind of fault that the world counts.
type Fault uint8

// The kinds of faults, in the order in which they are printed. Faults that are set as odds are counted each time they strike, the others when they are asked for.
const (
	FaultKill Fault = iota
	FaultPowerOff
	FaultPause
	FaultReboot
	FaultClockDrift
	FaultClockJump
	FaultWallJump

	FaultDiskCrash
	FaultCacheKept   // an un-flushed write survived a crash
	FaultCacheLost   // an un-flushed write was lost in a crash
	FaultCacheTorn   // an un-flushed write was torn by a crash
	FaultReordered   // a crash kept an un-flushed write and lost an older one
	FaultBitFlip     // bits changed on a disk
	FaultLostWrite   // a write was acknowledged and not applied
	FaultMisdirected // a write was acknowledged and applied elsewhere
	FaultReadError
	FaultWriteError
	FaultFlushError
	FaultNoSpace
	FaultDiskStall
	FaultDiskSlow
	FaultDiskGone

	FaultCut
	FaultCutOneWay
	FaultFlap
	FaultReset
	FaultHalfOpen    // a connection ended at one side only
	FaultSilentBreak // a connection ended at neither side: what is sent vanishes
	FaultNetSlow

	FaultRegistryCut
	FaultRegistryDown
	FaultRequestLost
	FaultReplyLost
	FaultRegistrySlow
	FaultWatchBroken
	FaultWatchSlow
	FaultCompaction
	FaultLeaseEnded
	FaultRestore

	NumFaults // how many kinds there are
)

var faultNames = [NumFaults]string{
	"kill", "power off", "pause", "reboot", "clock drift", "clock jump", "wall clock jump",
	"disk crash", "cached write kept", "cached write lost", "cached write torn", "cached writes reordered", "bit flip", "lost write", "misdirected write",
	"read error", "write error", "flush error", "no space", "disk stall", "disk slow", "disk gone",
	"cut", "one-way cut", "flapping link", "reset", "half-open connection", "silently broken connection", "network slow",
	"registry cut off", "registry down", "registry request lost", "registry reply lost", "registry slow", "watch broken", "watch slow", "compaction", "lease ended", "registry restored",
}

func (f Fault) String() string {
	if f < NumFaults {
		return faultNames[f]
	}
	return fmt.Sprintf("fault %d", uint8(f))
}

// FaultCounts is how often each kind of fault happened, by Fault.
type FaultCounts [NumFaults]uint64

// Add adds another world's counts.
func (c *FaultCounts) Add(o FaultCounts) {
	for i, n := range o {
		c[i] += n
	}
}

// String is the kinds that happened, in the table's order: "kill 3, cut 7".
func (c FaultCounts) String() string {
	var b strings.Builder
	for i, n := range c {
		if n > 0 {
			if b.Len() > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%v %d", Fault(i), n)
		}
	}
	return b.String()
}

// Faults is how often each kind of fault has happened so far.
func (w *World) Faults() FaultCounts { return w.faults }

// CountFault counts a fault that is done by other means than the world's.
func (w *World) CountFault(f Fault) { w.strike(f) }

// strike counts a fault and makes it part of the hash.
func (w *World) strike(f Fault) {
	w.faults[f]++
	w.mix(0xfa017<<8 | uint64(f))
}

// inflict counts a fault and writes it to the log.
func (w *World) inflict(f Fault, who, format string, args ...any) {
	w.strike(f)
	if w.trace != nil {
		w.tracef(who, "fault: %v: %s", f, fmt.Sprintf(format, args...))
	}
}
