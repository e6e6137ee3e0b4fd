package sim

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"holdfast/appliance/gateway"
	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/buf"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/sim"
	"holdfast/frontends/volume"
)

// slot is one client of the run: a process that carries out its share of the planned operations, and its successors when it is killed.
type slot struct {
	r       *run
	n       int
	gateway bool
	lazy    bool // its changes need not be durable when they are acknowledged
	queue   []*PlannedOp
	next    int
	known   map[blockKey]block // what it last saw or wrote
	now     *process
	lives   int
	done    int
	acked   lazyAck // the last lazy change
}

// process is one life of a slot.
type process struct {
	s        *slot
	l        *sim.Loop
	reg      *memory.Handle
	c        *client.Client
	lane     *gateway.Lane
	instance uint64
	sessions []*client.Session
	handles  []volume.Handle
	timer    loop.Timer
	running  int
	open     []*running // in no order that matters
	ready    bool
	dead     bool
	stopped  bool // by failOver
	taken    bool // a session has been taken over
}

// running is one operation under way.
type running struct {
	p     *process
	o     *PlannedOp
	acts  []*act
	refs  []*buf.Ref
	cop   client.Op
	vop   volume.Op
	image *sharedImage

	synced lazyAck // of a Flush: what was acknowledged before it
}

// sharedImage is a volume that the slots share.
type sharedImage struct {
	n    int
	name string
	id   layout.Inode
	size uint64
}

func (s *slot) start() {
	s.lives++
	r := s.r
	p := &process{s: s, l: r.c.W.NewLoop(fmt.Sprintf("client%d", s.n+1)), instance: uint64(1000*(s.n+1) + s.lives)}
	r.drift(p.l, len(s.r.nodes)+s.n)
	s.now = p
	p.reg = r.c.open(p.l)
	o := client.Defaults()
	o.Registry, o.Key, o.Instance, o.Name = p.reg, r.c.Key, p.instance, p.l.Name()
	o.RetryENOSPC = false
	p.timer.Fire = p.pump
	begin := &loop.Task{Run: func() {
		if s.gateway {
			p.lane = gateway.NewLane(p.l, o, r.plan.Config.LockTime)
			p.c = p.lane.Client()
		} else {
			p.c = client.New(p.l, o)
		}
		p.register()
		p.pump()
	}}
	p.l.Post(begin)
}

// register publishes the instance as a gateway does, so that its end is known.
func (p *process) register() { p.reg.Grant(5*time.Second, registrar{p}) }

type registrar struct{ p *process }

func (g registrar) Granted(l registry.Lease) {
	v := cluster.Gateway{Instance: g.p.instance, Host: g.p.l.Name()}
	key := cluster.GatewayKey(fmt.Sprintf("%s.%d", g.p.l.Name(), g.p.s.lives))
	g.p.reg.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: key, Value: cluster.Value(&v), Lease: l.ID()}}}, func(_ registry.TxnResult, err error) {
		if err != nil && !g.p.dead {
			t := &loop.Timer{Fire: func() { g.Granted(l) }}
			g.p.l.Arm(t, g.p.l.Now().Add(200*time.Millisecond))
		}
	})
}

func (g registrar) Lost(registry.Lease, error) { g.p.register() }

// attach opens the images once they are known here.
func (p *process) attach() bool {
	if p.ready {
		return true
	}
	if !p.c.Ready() {
		return false
	}
	for i := len(p.sessions) + len(p.handles); i < len(p.s.r.images); i++ {
		if !p.s.gateway {
			p.sessions = append(p.sessions, p.c.NewSession(nil))
			continue
		}
		d, _, ok := p.lane.Catalog().Lookup(p.s.r.images[i].name)
		if !ok {
			return false
		}
		h, err := d.Attach(p.l, p.session(i))
		if err != nil {
			return false
		}
		h.Events(told{p.s.r})
		p.handles = append(p.handles, h)
	}
	p.ready = true
	return true
}

func (p *process) session(image int) volume.Session {
	return volume.Session{Protocol: "iscsi", Client: p.l.Name(), Nexus: fmt.Sprintf("%s.%d", p.l.Name(), image)}
}

// pump starts what is due.
func (p *process) pump() {
	s, r := p.s, p.s.r
	if p.dead || s.now != p {
		return
	}
	if !p.attach() {
		p.l.Arm(&p.timer, p.l.Now().Add(20*time.Millisecond))
		return
	}
	for s.next < len(s.queue) && p.running < r.plan.Config.Parallel {
		o := s.queue[s.next]
		if wait := r.begun + o.At - r.c.W.Elapsed(); wait > 0 && !r.ending {
			p.l.Arm(&p.timer, p.l.Now().Add(wait))
			return
		}
		s.next++
		p.begin(o)
	}
}

func (p *process) begin(o *PlannedOp) {
	r := p.s.r
	x := &running{p: p, o: o, image: r.images[o.Image]}
	p.running++
	p.open = append(p.open, x)
	r.logf("client%d: op %d begins: %v of image %d at %d+%d", p.s.n+1, o.ID, o.Kind, o.Image, o.Off, o.Len)
	if p.s.gateway {
		x.viaGateway()
		return
	}
	x.viaClient()
}

// writes records that x may change its range from now on.
func (x *running) writes(id uint32) {
	h := x.p.s.r.history
	call := h.now()
	eachBlock(x.image.n, x.o.Off, x.o.Len, func(k blockKey, m mask) {
		a := &act{block: k, mask: m, id: id, kind: actWrite, call: call, ret: never, slot: x.p.s.n, at: x.p.s.r.elapsed(), what: x.o.Kind}
		a.void = x.p.s.r.fenced[x.p.instance] // the fence is complete
		h.add(a)
		x.acts = append(x.acts, a)
	})
}

// reads records that x asks for its range now.
func (x *running) reads() {
	h := x.p.s.r.history
	call := h.now()
	x.acts = x.acts[:0]
	eachBlock(x.image.n, x.o.Off, x.o.Len, func(k blockKey, m mask) {
		x.acts = append(x.acts, &act{block: k, mask: m, kind: actRead, call: call, slot: x.p.s.n, at: x.p.s.r.elapsed(), what: x.o.Kind})
	})
}

// expects makes the recorded change conditional.
func (x *running) expects(saw func(i int, a *act) block) {
	for i, a := range x.acts {
		a.seen, a.expect = saw(i, a), a.mask
	}
}

// data is a buffer with what x writes.
func (x *running) data(id uint32) *buf.Ref {
	ref := x.p.l.Alloc(int(x.o.Len))
	fill(ref.Bytes(), id, x.image.n, x.o.Off)
	x.refs = append(x.refs, ref)
	return ref
}

// expected is a buffer with what x compares.
func (x *running) expected() *buf.Ref {
	ref := x.p.l.Alloc(int(x.o.Len))
	b := ref.Bytes()
	for i := range len(b) / sectorSize {
		at := x.o.Off + uint64(i)*sectorSize
		a := x.acts[(at/blockSize)-(x.o.Off/blockSize)]
		fillSector(b[i*sectorSize:(i+1)*sectorSize], a.seen[at%blockSize/sectorSize], x.image.n, at/sectorSize)
	}
	x.refs = append(x.refs, ref)
	return ref
}

// take looks at what a read brought: n bytes at off.
func (x *running) take(off uint64, p []byte) {
	for i := 0; i+sectorSize <= len(p); i += sectorSize {
		at := off + uint64(i)
		id, err := identify(p[i:i+sectorSize], x.image.n, at/sectorSize)
		if err != nil {
			x.p.s.r.fail("op %d read rubbish: %v", x.o.ID, err)
			return
		}
		x.acts[(at/blockSize)-(x.o.Off/blockSize)].seen[at%blockSize/sectorSize] = id
	}
}

// unwritten are the units that the bitmaps of a reply call never written, of what was asked for.
func (x *running) unwritten() iter.Seq2[uint64, uint64] {
	return func(yield func(off, n uint64) bool) {
		unit := uint64(x.p.s.r.plan.Config.Store.Granularity)
		for i := range x.cop.Parts {
			part := &x.cop.Parts[i]
			for off, end := part.Offset, part.Offset+uint64(part.Len); off < end; {
				bit := (off - part.Stripe) / unit
				next := min(end, part.Stripe+(bit+1)*unit)
				if !part.Written(int(bit)) && !yield(off, next-off) {
					return
				}
				off = next
			}
		}
	}
}

// holes records what was told of holes: each is zeroes that were seen. Of what is said to be written nothing is known: it may hold zeroes, too.
func (x *running) holes(each iter.Seq2[uint64, uint64]) {
	for _, a := range x.acts {
		a.mask = 0
	}
	for off, n := range each {
		for at := max(off, x.o.Off); at < min(off+n, x.o.Off+x.o.Len); at += sectorSize {
			x.acts[at/blockSize-x.o.Off/blockSize].mask |= 1 << (at % blockSize / sectorSize)
		}
	}
	all := len(x.acts)
	x.acts = slices.DeleteFunc(x.acts, func(a *act) bool { return a.mask == 0 })
	if len(x.acts) > 0 {
		x.p.s.r.cover("hole told")
	}
	if len(x.acts) < all {
		x.p.s.r.cover("written part told")
	}
	x.told()
}

// told records the end of what was asked: reads that brought something, changes that took effect.
func (x *running) told() {
	s, r := x.p.s, x.p.s.r
	ret := r.history.now()
	for _, a := range x.acts {
		a.ret, a.end = ret, r.elapsed()
		k := s.known[a.block]
		switch a.kind {
		case actRead:
			r.history.add(a)
			for i := range k {
				if a.mask>>i&1 != 0 {
					k[i] = a.seen[i]
				}
			}
		case actWrite:
			k = k.over(a.id, a.mask)
		}
		s.known[a.block] = k
	}
}

// nothing records that the change certainly did not happen.
func (x *running) nothing() {
	for _, a := range x.acts {
		a.void = true
	}
}

// mismatch records that the comparison failed: if it spans several blocks, it is not known which one was different.
func (x *running) mismatch() {
	if len(x.acts) != 1 {
		x.nothing()
		return
	}
	ret := x.p.s.r.history.now()
	for _, a := range x.acts {
		a.kind, a.ret, a.end = actMismatch, ret, x.p.s.r.elapsed()
	}
}

// end is the end of the operation.
func (x *running) end(err error) {
	p, s, r := x.p, x.p.s, x.p.s.r
	for _, ref := range x.refs {
		ref.Release()
	}
	x.refs = nil
	p.running--
	for i, o := range p.open {
		if o == x {
			p.open[i] = p.open[len(p.open)-1]
			p.open = p.open[:len(p.open)-1]
			break
		}
	}
	r.checked++
	s.done++
	if err != nil {
		r.logf("client%d: op %d ends: %v", s.n+1, x.o.ID, err)
		r.coverErr(err)
		if len(x.acts) > 0 && x.acts[0].at == r.elapsed() {
			x.nothing() // refused on the spot: nothing was sent
		}
		if !p.allowed(err) {
			r.fail("op %d (%v of image %d at %d+%d) ended with: %v", x.o.ID, x.o.Kind, x.o.Image, x.o.Off, x.o.Len, err)
		}
	} else {
		r.logf("client%d: op %d done", s.n+1, x.o.ID)
		if s.gateway && x.o.Kind == opWrite {
			r.gateways[x.o.Image] |= 1 << s.n
		}
	}
	p.pump()
}

// allowed reports whether an operation may end with err under faults: nobody is fenced or finds no room for no reason.
func (p *process) allowed(err error) bool {
	r := p.s.r
	is := func(list ...error) bool {
		return slices.ContainsFunc(list, func(e error) bool { return errors.Is(err, e) })
	}
	switch {
	case is(client.ErrExpired, volume.ErrExpired):
		return true
	case is(client.ErrFenced, volume.ErrFenced):
		return p.taken || r.back.fences[cluster.FenceKey(cluster.FenceGatewayName(p.instance))] != nil
	case is(client.ErrNoSpace, volume.ErrNoSpace):
		return r.plan.Config.DiskSize < smallDisk || r.hurtDisks(-1) > 0
	}
	return false
}

// viaClient carries x out with core/client.
func (x *running) viaClient() {
	c, o := &x.cop, x.o
	c.Lazy = x.p.s.lazy
	c.Session, c.Inode, c.Offset, c.Len, c.Done = x.p.sessions[o.Image], x.image.id, o.Off, o.Len, func(*client.Op) { x.clientDone() }
	switch o.Kind {
	case opWrite:
		x.writes(o.ID)
		c.Kind, c.Pieces = client.Write, []client.Piece{{Ref: x.data(o.ID), Len: int(o.Len)}}
	case opRead, opCAS:
		x.reads()
		c.Kind = client.Read
	case opZero:
		x.writes(0)
		c.Kind, c.KeepWritten = client.Zero, true
	case opTrim:
		x.writes(0)
		c.Kind = client.Zero
	case opDelete:
		x.writes(0)
		c.Kind = client.Delete
	case opCompare:
		x.writes(o.ID)
		x.expects(x.guess)
		c.Kind, c.Pieces, c.Compare = client.CompareWrite, []client.Piece{{Ref: x.data(o.ID), Len: int(o.Len)}}, []client.Piece{{Ref: x.expected(), Len: int(o.Len)}}
	case opFlush:
		c.Kind, c.Offset, c.Len = client.Flush, 0, 0
		x.synced = x.p.s.acked
	case opExtents:
		x.reads()
		c.Kind = client.ReadBitmap
	}
	x.p.c.Submit(c)
}

// guess is what a comparison expects: what was seen last, or what nobody wrote.
func (x *running) guess(_ int, a *act) block {
	if x.o.Guess {
		return x.p.s.known[a.block]
	}
	return block{}.over(uint32(1<<31)|x.o.ID, a.mask)
}

func (x *running) clientDone() {
	c, o := &x.cop, x.o
	conflict, _ := errors.AsType[*client.ConflictError](c.Err)
	_, miss := errors.AsType[*client.MismatchError](c.Err)
	switch {
	case conflict != nil:
		x.p.s.r.cover("CAS refused")
		x.nothing()
		x.end(nil)
		return
	case miss:
		x.p.s.r.cover("comparison refused")
		x.mismatch()
		x.end(nil)
		return
	case c.Err != nil:
		x.end(c.Err)
		return
	case c.Kind == client.Read:
		for i := range c.Parts {
			x.take(c.Parts[i].Offset, c.Parts[i].Bytes())
		}
		for off, n := range x.unwritten() {
			for at := off; at < off+n; at += sectorSize {
				if x.acts[at/blockSize-o.Off/blockSize].seen[at%blockSize/sectorSize] != 0 {
					x.p.s.r.fail("op %d reads data at %d, and is told that nothing was ever written there", o.ID, at)
				}
			}
		}
		x.told()
		version := c.Version
		c.ReleaseParts()
		if o.Kind == opCAS {
			x.compareAndSwap(version)
			return
		}
	case c.Kind == client.ReadBitmap:
		x.holes(x.unwritten())
		c.ReleaseParts()
	case c.Kind == client.Flush:
		x.flushed()
	default:
		x.told()
		x.acknowledged()
	}
	x.end(nil)
}

// compareAndSwap writes what was read, if the object has still the version that it had.
func (x *running) compareAndSwap(version layout.Version) {
	saw := make([]block, len(x.acts))
	for i, a := range x.acts {
		saw[i] = a.seen
	}
	x.acts = nil
	x.writes(x.o.ID)
	x.expects(func(i int, _ *act) block { return saw[i] })
	c := &x.cop
	c.Kind, c.CAS, c.Pieces = client.Write, version+1, []client.Piece{{Ref: x.data(x.o.ID), Len: int(x.o.Len)}}
	x.p.c.Submit(c)
}

// viaGateway carries x out with the gateway's volume layer.
func (x *running) viaGateway() {
	v, o := &x.vop, x.o
	v.Offset, v.Length, v.Done = o.Off, o.Len, func(*volume.Op) { x.gatewayDone() }
	switch o.Kind {
	case opWrite:
		x.writes(o.ID)
		v.Kind, v.Pieces = volume.Write, []volume.Piece{{Ref: x.data(o.ID), Len: int(o.Len)}}
	case opRead:
		x.reads()
		v.Kind = volume.Read
	case opZero:
		x.writes(0)
		v.Kind, v.NoHole = volume.Zero, true
	case opTrim, opDelete:
		x.writes(0)
		v.Kind = volume.Trim
	case opCompare, opCAS:
		x.writes(o.ID)
		x.expects(x.guess)
		v.Kind, v.Pieces, v.Compare = volume.CompareAndWrite, []volume.Piece{{Ref: x.data(o.ID), Len: int(o.Len)}}, []volume.Piece{{Ref: x.expected(), Len: int(o.Len)}}
	case opFlush:
		v.Kind, v.Offset, v.Length = volume.Flush, 0, 0
	case opExtents:
		x.reads()
		v.Kind = volume.Extents
	}
	x.p.handles[o.Image].Submit(v)
}

func (x *running) gatewayDone() {
	v := &x.vop
	_, miss := errors.AsType[*volume.MiscompareError](v.Err)
	switch {
	case miss:
		x.p.s.r.cover("comparison refused")
		x.mismatch()
	case v.Err != nil:
		x.end(v.Err)
		return
	case v.Kind == volume.Read:
		off := v.Offset
		for _, p := range v.Pieces {
			b := p.Bytes()
			if b == nil {
				b = make([]byte, p.Len)
			}
			x.take(off, b)
			off += uint64(p.Len)
		}
		x.told()
		v.ReleasePieces()
	case v.Kind == volume.Extents:
		x.holes(func(yield func(off, n uint64) bool) {
			off := v.Offset
			for _, e := range v.Extents {
				if e.Hole != e.Zero {
					x.p.s.r.fail("op %d tells of an extent that is a hole (%t) and reads as zeroes (%t)", x.o.ID, e.Hole, e.Zero)
				}
				if e.Hole && !yield(off, e.Length) {
					return
				}
				off += e.Length
			}
		})
	default:
		x.told()
	}
	x.end(nil)
}

// kill ends the process at once; what it had under way may have taken effect or not.
func (p *process) kill() {
	p.collect()
	p.dead = true
	p.reg.Close()
	p.l.Kill()
	p.s.r.checked += len(p.open)
}
