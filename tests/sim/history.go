package sim

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// act is what an operation did to, or saw of, one block.
type act struct {
	block   blockKey
	mask    mask // sectors written or seen
	id      uint32
	kind    actKind
	seen    block // of a read; of a comparison what was expected
	expect  mask  // sectors of seen that are compared
	call    int64 // places in the order of everything that clients did and were told
	ret     int64 // never when it was not told
	slot    int
	at      time.Duration
	end     time.Duration
	what    opKind
	bound   int64 // when not 0: it has taken effect before, or never does
	unknown bool  // nobody was told what became of it
	void    bool  // it certainly had no effect, and nothing was seen
}

type actKind uint8

const (
	actRead     actKind = iota
	actWrite            // writes id into mask, after the block agreed with seen in expect
	actMismatch         // found something else than seen in expect, changed nothing
)

const never = math.MaxInt64

// History is what clients did and were told, in one order: the world runs on one goroutine, so what was told before something was asked is known.
type History struct {
	tick   int64
	acts   []*act
	blocks map[blockKey][]*act
	limit  time.Duration // of the check of one block
}

func newHistory() *History { return &History{blocks: map[blockKey][]*act{}, limit: checkLimit} }

// now is a new place in the order.
func (h *History) now() int64 {
	h.tick++
	return h.tick
}

func (h *History) add(a *act) {
	h.acts = append(h.acts, a)
	h.blocks[a.block] = append(h.blocks[a.block], a)
}

// checkLimit is how long the check of one block may take.
const checkLimit = 60 * time.Second

// blockModel is a block as porcupine sees it: its state is a block, an operation's input its act.
var blockModel = porcupine.Model{
	Init: func() any { return block{} },
	Step: func(state, input, _ any) (bool, any) {
		s, a := state.(block), input.(*act)
		switch a.kind {
		case actRead:
			return s.agrees(a.seen, a.mask), state
		case actMismatch:
			return !s.agrees(a.seen, a.expect), state
		}
		if !s.agrees(a.seen, a.expect) {
			return a.unknown, state // it may have been refused
		}
		return true, s.over(a.id, a.mask)
	},
	Equal: func(a, b any) bool { return a.(block) == b.(block) },
}

// Verdict is the outcome of a check.
type Verdict struct {
	Blocks, Acts int
	Illegal      []string // blocks whose history no order explains
	GaveUp       []string
}

// Check looks for an order of each block's acts that explains what clients were told.
func (h *History) Check() (v Verdict) {
	keys := make([]blockKey, 0, len(h.blocks))
	for k := range h.blocks {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b blockKey) int { return cmp.Or(cmp.Compare(a.image, b.image), cmp.Compare(a.n, b.n)) })
	var ops []porcupine.Operation
	for _, k := range keys {
		acts := relevant(h.blocks[k])
		ops = ops[:0]
		for _, a := range acts {
			ops = append(ops, porcupine.Operation{ClientId: a.slot, Input: a, Call: a.call, Return: a.ret})
		}
		v.Blocks++
		v.Acts += len(acts)
		switch porcupine.CheckOperationsTimeout(blockModel, ops, h.limit) {
		case porcupine.Illegal:
			v.Illegal = append(v.Illegal, describeBlock(k, acts))
		case porcupine.Unknown:
			unknown, mismatches := 0, 0
			for _, a := range acts {
				if a.unknown {
					unknown++
				}
				if a.kind == actMismatch {
					mismatches++
				}
			}
			v.GaveUp = append(v.GaveUp, fmt.Sprintf("the check of block %d of image %d gave up after %v, with %d operations, %d of unknown outcome, and %d comparisons that failed", k.n, k.image, h.limit, len(acts), unknown, mismatches))
		}
	}
	return v
}

// relevant leaves out writes that were not acknowledged and that nobody saw: if an order with such a write explains the rest, the same order without it does, since nothing
// was read between it and the next write of the same sectors. Where somebody was told that the block is not what he expected, he may have seen it: then they stay. A write that was seen did
// take effect; by when, its session's fence says.
func relevant(acts []*act) []*act {
	seen := map[uint32]bool{}
	mismatch := false
	for _, a := range acts {
		if a.void {
			continue
		}
		m := a.mask
		switch a.kind {
		case actMismatch:
			mismatch = true
			continue
		case actWrite:
			m = a.expect
		}
		for i, id := range a.seen {
			if m>>i&1 != 0 {
				seen[id] = true
			}
		}
	}
	var out []*act
	for _, a := range acts {
		unknown := a.kind == actWrite && a.ret == never
		a.unknown = unknown
		switch {
		case a.void, unknown && !mismatch && a.id != 0 && !seen[a.id]:
			continue
		case unknown && a.bound != 0 && a.id != 0 && seen[a.id]:
			b := *a
			b.ret = a.bound
			a = &b
		}
		out = append(out, a)
	}
	return out
}

func (a *act) String() string {
	end := fmt.Sprintf("%12.6f", a.end.Seconds())
	if a.ret == never {
		end = "     unknown"
	}
	var what string
	switch {
	case a.kind == actRead:
		what = fmt.Sprintf("sees %v of sectors %08b", a.seen, a.mask)
	case a.kind == actMismatch:
		what = fmt.Sprintf("finds something else than %v of sectors %08b", a.seen, a.expect)
	case a.expect != 0:
		what = fmt.Sprintf("makes sectors %08b %d, which were %v of %08b", a.mask, a.id, a.seen, a.expect)
	default:
		what = fmt.Sprintf("makes sectors %08b %d", a.mask, a.id)
	}
	return fmt.Sprintf("%12.6f to %s client %d %v: %s", a.at.Seconds(), end, a.slot+1, a.what, what)
}

// around is how many acts are shown before the one that no order explains.
const around = 24

func describeBlock(k blockKey, acts []*act) string {
	var b strings.Builder
	bad := firstWrong(acts)
	fmt.Fprintf(&b, "no order explains what was told of block %d of image %d, first of all:\n  %v\nbefore that:", k.n, k.image, bad)
	var earlier []*act
	for _, a := range acts {
		if a.call < bad.ret && a != bad {
			earlier = append(earlier, a)
		}
	}
	slices.SortStableFunc(earlier, func(a, b *act) int { return cmp.Compare(a.call, b.call) })
	for _, a := range earlier[max(0, len(earlier)-around):] {
		b.WriteString("\n  ")
		b.WriteString(a.String())
	}
	return b.String()
}

// firstWrong is the first act, in the order in which clients were told, without which everything told before can be explained, and with which not.
func firstWrong(acts []*act) *act {
	told := slices.Clone(acts)
	slices.SortStableFunc(told, func(a, b *act) int { return cmp.Compare(a.ret, b.ret) })
	lo, hi := 0, len(told)-1 // told[:hi+1] cannot be explained
	for lo < hi {
		mid := (lo + hi) / 2
		end := told[mid].ret
		var ops []porcupine.Operation
		for _, a := range told {
			switch {
			case a.ret <= end:
				ops = append(ops, porcupine.Operation{ClientId: a.slot, Input: a, Call: a.call, Return: a.ret})
			case a.call < end && a.kind == actWrite:
				pending := *a
				pending.unknown = true
				ops = append(ops, porcupine.Operation{ClientId: a.slot, Input: &pending, Call: a.call, Return: never})
			}
		}
		if porcupine.CheckOperationsTimeout(blockModel, ops, checkLimit) == porcupine.Illegal {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return told[lo]
}
