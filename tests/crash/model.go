package crash

import (
	"errors"
	"slices"

	"holdfast/core/layout"
	"holdfast/osd/store"
)

// version is one version of an object: per unit a number that fills it instead of bytes.
type version struct {
	store.State
	data             []uint64
	written, present []bool
}

// snap is an object between two changes: stack[0] is the newest stable version (version 0: nothing), the others wait for a commit. A snap is never modified.
type snap struct {
	stack []version
	pairs []store.PairVersion
	loose bool // a range was zeroed beside other changes: the object may keep a block that nothing is in
}

func (p snap) top() version { return p.stack[len(p.stack)-1] }

func nothing(units int) version {
	return version{data: make([]uint64, units), written: make([]bool, units), present: make([]bool, units)}
}

func (v version) clone() version {
	v.data, v.written, v.present = slices.Clone(v.data), slices.Clone(v.written), slices.Clone(v.present)
	return v
}

// What the model says of an operation that has no effect.
var (
	errBase        = errors.New("made for another version")
	errVoid        = errors.New("the copy is void")
	errUnsupported = errors.New("not possible")
	errUnsettled   = errors.New("a version waits")
	errNoChange    = errors.New("nothing to do")
)

// after is the object after op, whose data is values per unit (from the first unit of the range; of the whole block for OpReplace).
func (p snap) after(op *store.Op, values []uint64, granularity uint32) (snap, error) {
	top := p.top()
	waits := top.Flags&store.Unstable != 0
	switch op.Kind {
	case store.OpWrite, store.OpZero, store.OpDelete:
		switch {
		case top.Flags&store.Void != 0:
			return p, errVoid
		case op.Base != top.Version:
			return p, errBase
		case waits && !op.Unstable:
			return p, errUnsupported
		}
		return p.written(op, values, granularity), nil
	case store.OpReplace, store.OpVoid:
		if op.Base != top.Version || op.Base != 0 && op.BaseInterval != top.Interval || op.Kind == store.OpVoid && op.Base == 0 {
			return p, errBase
		}
		if waits {
			return p, errUnsettled
		}
		if op.Kind == store.OpReplace {
			return p.replaced(op, values), nil
		}
		v := top.clone()
		v.Flags |= store.Void
		return snap{stack: []version{v}, pairs: p.pairs, loose: p.loose}, nil
	case store.OpForget:
		if op.Base != top.Version || top.Flags&store.Tombstone == 0 || waits {
			return p, errBase
		}
		return snap{stack: []version{nothing(len(top.data))}, pairs: p.pairs}, nil
	case store.OpCommit:
		if op.Version > top.Version {
			return p, errBase
		}
		return p.committed(op.Version)
	case store.OpRollback:
		return p.rolledBack(op.Version)
	}
	return p, errUnsupported
}

func (p snap) written(op *store.Op, values []uint64, granularity uint32) snap {
	next := p.top().clone()
	if next.Flags&store.Tombstone != 0 {
		next = nothing(len(next.data))
	}
	next.State = store.State{Version: op.Version, Interval: op.Interval}
	if op.Unstable {
		next.Flags = store.Unstable
	}
	loose := p.loose
	from := int(op.Offset / granularity)
	switch op.Kind {
	case store.OpWrite:
		for i, v := range values {
			next.data[from+i], next.written[from+i], next.present[from+i] = v, true, true
		}
		if len(op.Bitmap) > 0 {
			next.written = bools(op.Bitmap, len(next.data))
		}
	case store.OpZero:
		n := int(op.Len / granularity)
		for i := from; i < from+n; i++ {
			next.data[i], next.written[i], next.present[i] = 0, op.KeepWritten, false
		}
		loose = n < len(next.data)
	case store.OpDelete:
		next = nothing(len(next.data))
		next.State = store.State{Version: op.Version, Interval: op.Interval, Flags: store.Tombstone}
		if op.Unstable {
			next.Flags |= store.Unstable
		}
		loose = false
	}
	out := snap{pairs: p.pairs, loose: loose}
	if op.Pair.Session != 0 {
		out.pairs = withPair(p.pairs, store.PairVersion{Pair: op.Pair, Version: op.Version})
	}
	if op.Unstable {
		out.stack = append(slices.Clone(p.stack), next)
	} else {
		out.stack = []version{next}
	}
	return out
}

func (p snap) replaced(op *store.Op, values []uint64) snap {
	v := nothing(len(p.top().data))
	if op.Version != 0 {
		v.State = store.State{Version: op.Version, Interval: op.Interval, Flags: op.Flags}
		v.written, v.present = bools(op.Bitmap, len(v.data)), bools(op.Present, len(v.data))
		for i, x := range values {
			if v.present[i] {
				v.data[i] = x
			}
		}
	}
	out := snap{stack: []version{v}} // with the requests that came with it, and no others
	for _, x := range op.Pairs {
		if x.Version <= op.Version {
			out.pairs = withPair(out.pairs, x)
		}
	}
	return out
}

// committed makes the unstable versions up to v stable: the newest of them is what remains.
func (p snap) committed(v layout.Version) (snap, error) {
	k := 0
	for i := 1; i < len(p.stack) && p.stack[i].Version <= v; i++ {
		k = i
	}
	if k == 0 {
		return p, errNoChange
	}
	stable := p.stack[k].clone()
	stable.Flags &^= store.Unstable
	return snap{stack: append([]version{stable}, p.stack[k+1:]...), pairs: p.pairs, loose: p.loose}, nil
}

func (p snap) rolledBack(v layout.Version) (snap, error) {
	if p.stack[0].Version > v {
		return p, errBase
	}
	k := len(p.stack)
	for k > 1 && p.stack[k-1].Version > v {
		k--
	}
	if k == len(p.stack) {
		return p, errNoChange
	}
	return snap{stack: slices.Clone(p.stack[:k]), pairs: pairsUpTo(p.pairs, v), loose: p.loose}, nil
}

func withPair(pairs []store.PairVersion, x store.PairVersion) []store.PairVersion {
	out := slices.DeleteFunc(slices.Clone(pairs), func(p store.PairVersion) bool { return p.Pair == x.Pair })
	return append(out, x)
}

func pairsUpTo(pairs []store.PairVersion, v layout.Version) []store.PairVersion {
	return slices.DeleteFunc(slices.Clone(pairs), func(p store.PairVersion) bool { return p.Version > v })
}

// blocks is how many data blocks the object takes at least and at most.
func (p snap) blocks() (least, most int) {
	for i, v := range p.stack {
		full := slices.Contains(v.present, true)
		switch {
		case i == 0 && full:
			least, most = 1, 1
		case i == 0 && p.loose && v.Version != 0 && v.Flags&store.Tombstone == 0:
			most = 1
		case i > 0 && full:
			least = 1
			most++
		case i > 0:
			most++
		}
	}
	return least, most
}

func bools(b []byte, n int) []bool {
	out := make([]bool, n)
	for i := range out {
		out[i] = b[i/8]>>(i%8)&1 != 0
	}
	return out
}

func bitmapOf(v []bool) []byte {
	b := make([]byte, (len(v)+7)/8)
	for i, x := range v {
		if x {
			b[i/8] |= 1 << (i % 8)
		}
	}
	return b
}
