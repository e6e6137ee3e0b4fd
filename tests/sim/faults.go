package sim

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/images"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/core/sim"
	"holdfast/osd"
	"holdfast/osd/store"
)

// faultKind is one line of the table of faults.
type faultKind struct {
	weight int
	name   string
	fits   func(*Config) bool // nil: always
	// begin lets it happen, and returns what ends it; nil when it ended at once, run.cannot when it could not happen.
	begin func(r *run, f *PlannedFault) (end func())
}

// faultKinds is everything that may go wrong, in the order of the draws. An issue that adds a fault adds a line to laterFaults for a new draw.
var faultKinds []faultKind

// drawnFaults is how many of them each draw has.
var drawnFaults [NewestDraw + 1]int

func init() {
	faultKinds = []faultKind{
		{10, "OSD killed", nil, func(r *run, f *PlannedFault) func() { return r.fall(f.A, false, sim.CrashPolicy{}) }},
		{4, "OSD killed and started at once", nil, func(r *run, f *PlannedFault) func() {
			if end := r.fall(f.A, false, sim.CrashPolicy{}); end != nil {
				end()
			}
			return nil
		}},
		{6, "power of a host lost", nil, func(r *run, f *PlannedFault) func() { return r.fall(f.A, true, crashes[f.N%3]) }},
		{4, "power of several hosts lost", nil, func(r *run, f *PlannedFault) func() { return r.blackout(f.N|1<<f.A|1<<f.B, crashes[f.N>>8%3]) }},
		{4, "power of all hosts lost", nil, func(r *run, f *PlannedFault) func() { return r.blackout(1<<len(r.nodes)-1, crashes[f.N>>8%3]) }},
		{4, "two OSDs killed", nil, func(r *run, f *PlannedFault) func() {
			return both(r.fall(f.A, false, sim.CrashPolicy{}), r.fall(f.B, false, sim.CrashPolicy{}))
		}},
		{7, "OSD stopped", nil, func(r *run, f *PlannedFault) func() {
			l := r.nodes[f.A].n.Loop
			if !l.Alive() {
				return r.cannot()
			}
			l.Pause()
			return l.Resume
		}},
		{4, "OSD cut off", nil, func(r *run, f *PlannedFault) func() {
			return r.part([]*sim.Loop{r.osd(f.A)}, r.others(f.A, f.N&1 != 0), true, f.N&2 != 0, f.A)
		}},
		{4, "link between OSDs cut", nil, func(r *run, f *PlannedFault) func() {
			return r.part([]*sim.Loop{r.osd(f.A)}, []*sim.Loop{r.osd(f.B)}, true, false, 0)
		}},
		{5, "link between OSDs cut one way", nil, func(r *run, f *PlannedFault) func() {
			return r.part([]*sim.Loop{r.osd(f.A)}, []*sim.Loop{r.osd(f.B)}, false, false, 0)
		}},
		{3, "OSD hears nobody", nil, func(r *run, f *PlannedFault) func() {
			return r.part(r.others(f.A, true), []*sim.Loop{r.osd(f.A)}, false, false, 0)
		}},
		{3, "cluster parted in two", nil, func(r *run, f *PlannedFault) func() {
			var a, b []*sim.Loop
			for i := range r.nodes {
				if f.N>>i&1 != 0 {
					a = append(a, r.osd(i))
				} else {
					b = append(b, r.osd(i))
				}
			}
			return r.part(a, b, true, false, 0)
		}},
		{3, "client cut off from an OSD", nil, func(r *run, f *PlannedFault) func() {
			return r.part([]*sim.Loop{r.slots[f.N%seedSlots].now.l}, []*sim.Loop{r.osd(f.A)}, f.N&64 != 0, false, 0)
		}},
		{4, "link flaps", nil, (*run).flap},
		{6, "connections dropped", nil, func(r *run, f *PlannedFault) func() { return r.drops(f) }},
		{5, "OSD without registry", nil, func(r *run, f *PlannedFault) func() {
			m := r.nodes[f.A]
			m.n.CutRegistry(true)
			return func() { r.reach(m) }
		}},
		{4, "registry lost", nil, func(r *run, f *PlannedFault) func() { return r.loseRegistry() }},
		{3, "registry without a leader", nil, func(r *run, f *PlannedFault) func() {
			r.c.Reg.SetDown(true)
			return func() { r.c.Reg.SetDown(false) }
		}},
		{3, "registry slow", nil, func(r *run, f *PlannedFault) func() {
			most := 20 * time.Millisecond << (f.N % 6)
			r.c.Reg.SetDelay(sim.Delay{Min: time.Millisecond, Max: most})
			r.c.Reg.SetWatchDelay(sim.Delay{Min: time.Millisecond, Max: most})
			r.c.W.CountFault(sim.FaultRegistrySlow)
			r.c.W.CountFault(sim.FaultWatchSlow)
			return func() {
				r.c.Reg.SetDelay(sim.Delay{})
				r.c.Reg.SetWatchDelay(sim.Delay{})
			}
		}},
		{3, "registry loses requests and answers", nil, func(r *run, f *PlannedFault) func() {
			r.c.Reg.SetFaults(sim.RegistryFaults{LoseRequest: 0.1, LoseReply: 0.2, LateRequest: 0.1, BreakWatch: 0.1})
			return func() { r.c.Reg.SetFaults(sim.RegistryFaults{}) }
		}},
		{3, "watches broken", nil, func(r *run, f *PlannedFault) func() {
			r.c.Reg.BreakWatches()
			return nil
		}},
		{2, "leases ended", nil, func(r *run, f *PlannedFault) func() {
			for i, id := range r.c.Reg.Leases() {
				if f.N>>i&1 != 0 {
					r.c.Reg.Expire(id)
				}
			}
			return nil
		}},
		{3, "registry compacted while watches are lost", nil, func(r *run, f *PlannedFault) func() {
			end := r.loseRegistry()
			return func() {
				r.c.Reg.Compact(r.c.Reg.Revision())
				end()
			}
		}},
		{3, "time of day jumps", nil, func(r *run, f *PlannedFault) func() {
			r.osd(f.A).SetWallOffset(time.Duration(int64(f.N%40_000_000_000)) - 20*time.Second)
			return nil
		}},
		{4, "monitor dies", nil, func(r *run, f *PlannedFault) func() { return r.killMonitors(int(f.N%uint64(len(r.c.mons))), 1) }},
		{2, "all monitors die", nil, func(r *run, f *PlannedFault) func() { return r.killMonitors(0, len(r.c.mons)) }},
		{4, "disk slow", nil, func(r *run, f *PlannedFault) func() {
			d := r.disk(f.A)
			d.SetAllLatency(time.Millisecond, 5*time.Millisecond<<(f.N%5))
			r.c.W.CountFault(sim.FaultDiskSlow)
			return func() { usualLatency(d) }
		}},
		{3, "disk hangs", nil, func(r *run, f *PlannedFault) func() {
			d := r.disk(f.A)
			d.Stall(true)
			return func() { d.Stall(false) }
		}},
		{3, "read errors", damageFits, func(r *run, f *PlannedFault) func() {
			r.disk(r.liar(f).i).Fail(loop.DiskRead, 1+int(f.N%4), syscall.EIO)
			return nil
		}},
		{3, "write errors", damageFits, func(r *run, f *PlannedFault) func() {
			m := r.liar(f)
			m.hurts()
			r.disk(m.i).Fail([]loop.DiskKind{loop.DiskWrite, loop.DiskSync, loop.DiskFlush}[f.N%3], 1, syscall.EIO)
			return nil
		}},
		{5, "data damaged", func(c *Config) bool { return damageFits(c) && c.Store.ChecksumType == store.ChecksumCRC32C }, (*run).damage},
		{5, "disk replaced", func(c *Config) bool { return c.Replicas > 1 && !c.Second }, (*run).replaceDisk},
		{3, "disk slow, connections dropped", nil, func(r *run, f *PlannedFault) func() {
			d := r.disk(f.A)
			d.SetAllLatency(20*time.Millisecond, 200*time.Millisecond)
			r.c.W.CountFault(sim.FaultDiskSlow)
			end := r.drops(f)
			return func() {
				end()
				usualLatency(d)
			}
		}},
		{4, "disks filled", func(c *Config) bool { return c.DiskSize < smallDisk }, (*run).fillDisks},
		{3, "client dies behind a cut link", nil, (*run).killBehindCut},
		{6, "client dies", nil, (*run).killClient},
		{2, "client stopped", nil, func(r *run, f *PlannedFault) func() {
			l := r.slots[f.N%seedSlots].now.l
			if !l.Alive() {
				return r.cannot()
			}
			l.Pause()
			return l.Resume
		}},
		{4, "session taken over", func(c *Config) bool { return c.Gateways > 0 }, (*run).takeOver},
		{4, "OSD out, then in", nil, func(r *run, f *PlannedFault) func() {
			r.reweight(f.A, 0)
			return func() { r.reweight(f.A, 1) }
		}},
		{3, "OSD reweighted", nil, func(r *run, f *PlannedFault) func() {
			r.reweight(f.A, float64(f.N%100)/100)
			return func() { r.reweight(f.A, 1) }
		}},
		{3, "image made, written and removed", nil, (*run).passingImage},
		{2, "pool made", nil, func(r *run, f *PlannedFault) func() {
			r.addPool(layout.PoolID(10+f.ID), r.besides(), 1+int(f.N%2))
			return nil
		}},
	}
	drawnFaults[FirstDraw] = len(faultKinds)
	for i := FirstDraw + 1; i <= NewestDraw; i++ {
		faultKinds = append(faultKinds, laterFaults(i)...)
		drawnFaults[i] = len(faultKinds)
	}
}

var crashes = []sim.CrashPolicy{sim.CrashRandom, sim.CrashDrop, sim.CrashTear}

// damageFits says where a damaged copy may not be the only one that has what was acknowledged: each write is on two members at least.
func damageFits(c *Config) bool { return c.MinSize > c.Data() && !c.Second }

// smallDisk is what small disks are below.
const smallDisk = 16 << 20

func (r *run) osd(i int) *sim.Loop  { return r.nodes[i].n.Loop }
func (r *run) disk(i int) *sim.Disk { return r.c.W.Disk(r.nodes[i].n.disk()) }

// strike begins a fault and has it end. It counts it, unless it could not happen.
func (r *run) strike(f *PlannedFault) {
	if r.broken || f.Spare && r.report.enough() {
		return
	}
	r.logf("%v begins", f)
	etcd := 0
	if changesEtcd[f.Kind.name] {
		etcd = 1
	}
	var end func()
	r.making += etcd
	if r.moot = etcd > 0 && r.back.copied != nil; !r.moot {
		end = f.Kind.begin(r, f)
	}
	if r.moot {
		r.logf("%v cannot happen now", f)
		r.report.Moot++
		r.making -= etcd
		return
	}
	r.report.Faults[f.Kind.name]++
	r.report.Struck++
	if r.lasting > 0 {
		r.report.Overlaps++
	}
	if end == nil {
		r.making -= etcd
		return
	}
	r.lasting++
	r.c.W.After(f.For, func() {
		r.logf("%v ends", f)
		r.lasting--
		end()
		r.making -= etcd
	})
}

// cannot is what a fault returns that cannot happen as things are.
func (r *run) cannot() func() {
	r.moot = true
	return nil
}

func both(ends ...func()) func() {
	return func() {
		for _, end := range ends {
			if end != nil {
				end()
			}
		}
	}
}

// member is one OSD of the run, whose process comes and goes.
type member struct {
	r       *run
	i       int
	n       *Node
	holds   int // faults that keep it down
	down    bool
	hurt    bool           // its disk has had errors that it may not start with
	lied    layout.StoreID // the store that was on it then
	seen    layout.StoreID // the store that was opened last,
	strayed uint64         // and what its disk had lost and misdirected when that was new
	tries   int            // starts in a row that could not read it
	opened  layout.StoreID // see store
	back    layout.StoreID // of the store of its disk, which was set back
	heir    *heir          // while its disk cannot be trusted; nil
}

// fall ends an OSD's process, with its host's power or not.
func (r *run) fall(i int, power bool, policy sim.CrashPolicy) func() {
	m := r.nodes[i]
	m.holds++
	m.end(power, policy)
	return func() {
		m.holds--
		m.rise()
	}
}

func (m *member) end(power bool, policy sim.CrashPolicy) {
	if power {
		if !m.down {
			m.store()
			m.collect()
			m.n.reg.Close()
			m.n.Loop.PowerOff()
		}
		m.heir.powerOff()
		m.r.disk(m.i).Crash(policy)
	} else if !m.down {
		m.store()
		m.collect()
		m.n.Kill()
	}
	m.down = true
}

// rise starts the process when nothing keeps it down.
func (m *member) rise() {
	if m.holds > 0 || !m.down || m.r.broken {
		return
	}
	m.down = false
	m.n.Start()
}

// down is told that an OSD's process ends by itself. As systemd would, it is started again; a disk that cannot be opened any more is emptied when nobody needs it.
func (r *run) down(n *Node, err error) {
	m := r.nodes[int(n.Num)-1]
	if m.down {
		return
	}
	r.logf("osd%d ends by itself: %v", n.Num, err)
	r.cover("OSD ended by itself")
	damaged, _ := errors.AsType[*store.DamagedError](err)
	replace := damaged != nil || !m.back.IsZero() && osd.Untrusted(err)
	if damaged != nil && !r.lies(m.i) {
		r.fail("OSD %d cannot use its disk, which nobody has damaged: %v", n.Num, err)
		return
	}
	m.holds++
	m.end(false, sim.CrashPolicy{})
	r.c.W.After(time.Second, func() {
		if replace {
			m.succeed(err, func() {
				m.holds--
				m.rise()
			})
			return
		}
		m.holds--
		m.rise()
	})
}

// newDisk puts an empty disk in the place of a dead OSD's.
func (m *member) newDisk(done func()) {
	m.r.c.W.RemoveDisk(m.n.disk())
	m.n.Store, m.opened = nil, layout.StoreID{}
	m.n.format(done)
}

// blackout takes the power of the hosts in mask at the same moment, and gives it back later.
func (r *run) blackout(mask uint64, policy sim.CrashPolicy) func() {
	return r.blackoutOf(mask, true, policy)
}

// blackoutOf ends the OSDs in mask at the same moment, with their hosts' power or not.
func (r *run) blackoutOf(mask uint64, power bool, policy sim.CrashPolicy) func() {
	var ends []func()
	for i := range r.nodes {
		if mask>>i&1 != 0 {
			ends = append(ends, r.fall(i, power, policy))
		}
	}
	return both(ends...)
}

// others are the processes besides one OSD's: the other OSDs and, if wanted, the clients.
func (r *run) others(but int, clients bool) (list []*sim.Loop) {
	for i := range r.nodes {
		if i != but {
			list = append(list, r.osd(i))
		}
	}
	if clients {
		for _, s := range r.slots {
			list = append(list, s.now.l)
		}
	}
	return list
}

// part cuts everything between two groups, from a to b and, if both, from b to a; registry: OSD osd from the registry, too.
func (r *run) part(a, b []*sim.Loop, both, registry bool, osd int) func() {
	net := r.c.W.Net
	each := func(f func(x, y *sim.Loop)) {
		for _, x := range a {
			for _, y := range b {
				f(x, y)
			}
		}
	}
	each(func(x, y *sim.Loop) {
		if both {
			net.Cut(x, y)
		} else {
			net.CutOneWay(x, y)
		}
	})
	if registry {
		r.nodes[osd].n.CutRegistry(true)
	}
	return func() {
		each(net.Heal)
		if registry {
			r.reach(r.nodes[osd])
		}
	}
}

// flap cuts and heals a link between two OSDs again and again.
func (r *run) flap(f *PlannedFault) func() {
	r.c.W.CountFault(sim.FaultFlap)
	on, cut := true, false
	var step func()
	step = func() {
		a, b := r.osd(f.A), r.osd(f.B)
		switch {
		case !on || cut:
			r.c.W.Net.Heal(a, b)
			cut = false
		case r.rng.IntN(2) == 0:
			r.c.W.Net.CutOneWay(a, b)
			cut = true
		default:
			r.c.W.Net.Cut(a, b)
			cut = true
		}
		if on {
			r.c.W.After(time.Duration(1+r.rng.IntN(800))*time.Millisecond, step)
		}
	}
	step()
	return func() { on = false }
}

// drops breaks connections of an OSD now and then.
func (r *run) drops(f *PlannedFault) func() {
	on := true
	var step func()
	step = func() {
		if !on {
			return
		}
		peers := r.others(f.A, true)
		r.c.W.Net.Reset(r.osd(f.A), peers[r.rng.IntN(len(peers))])
		r.c.W.After(time.Duration(1+r.rng.IntN(400))*time.Millisecond, step)
	}
	step()
	return func() { on = false }
}

// loseRegistry makes the registry unreachable for everybody but the test.
func (r *run) loseRegistry() func() {
	r.regDown++
	for _, h := range r.c.handles {
		if h != r.c.admin {
			h.Unreachable(true)
		}
	}
	return func() {
		if r.regDown--; r.regDown > 0 {
			return
		}
		for _, h := range r.c.handles {
			h.Unreachable(false)
		}
	}
}

// reach ends an OSD's own loss of the registry.
func (r *run) reach(m *member) { m.n.CutRegistry(r.regDown > 0) }

func (r *run) killMonitors(first, n int) func() {
	for i := first; i < first+n; i++ {
		r.c.mons[i].reg.Close()
		r.c.mons[i].loop.Kill()
	}
	return func() {
		for i := first; i < first+n; i++ {
			if !r.c.mons[i].loop.Alive() {
				r.c.startMonitor(i)
			}
		}
	}
}

// usualLatency is what a new disk has.
func usualLatency(d *sim.Disk) {
	d.SetLatency(loop.DiskRead, 20*time.Microsecond, 120*time.Microsecond)
	d.SetLatency(loop.DiskWrite, 10*time.Microsecond, 60*time.Microsecond)
	d.SetLatency(loop.DiskSync, 50*time.Microsecond, 250*time.Microsecond)
	d.SetLatency(loop.DiskFlush, 50*time.Microsecond, 400*time.Microsecond)
	d.SetLatency(loop.DiskDiscard, 10*time.Microsecond, 60*time.Microsecond)
}

// damage inverts bits in what a disk holds: most of all in its data.
func (r *run) damage(f *PlannedFault) func() {
	m := r.liar(f)
	st := m.n.Store
	if refill := r.refilling(); m.down || st == nil || refill {
		return r.cannot() // what the disk holds may be the only copy
	}
	m.hurts()
	d, sb := r.disk(m.i), st.Superblock()
	for range 1 + f.N%3 {
		area := sb.Data
		n := int64(sb.Config.BlockSize) * int64(r.plan.Config.Images*r.plan.Config.Objects+2)
		switch r.rng.IntN(8) {
		case 0:
			area, n = sb.Journal, sb.Journal.Len
		case 1:
			area, n = sb.Meta, sb.Meta.Len
		}
		d.Flip(area.Off+r.rng.Int64N(min(n, area.Len)), byte(1)<<r.rng.IntN(8))
	}
	return nil
}

// replaceDisk puts an empty disk in an OSD's place, if that costs nobody the only copy of anything.
func (r *run) replaceDisk(f *PlannedFault) func() {
	m := r.nodes[f.A]
	if m.holds > 0 || m.down || !r.everythingTwice(f.A) {
		return r.cannot()
	}
	r.cover("store replaced")
	m.holds++
	m.end(false, sim.CrashPolicy{})
	m.newDisk(func() {})
	r.refill = true
	return func() {
		m.holds--
		m.rise()
	}
}

// everythingTwice reports whether every PG serves with all of its members, needs nobody else, and could lose this one: what the records in the registry say, since they are there before
// anything is acknowledged.
func (r *run) everythingTwice(osd int) bool {
	spoilt := r.hurtDisks(osd) // other copies that may be
	if spoilt > 0 && r.plan.Draw < lyingDraw {
		return false
	}
	records := r.records()
	if len(records) != r.c.pgs || !r.clean() || r.unsure() {
		return false
	}
	for _, rec := range records {
		if !rec.Active() || len(rec.Sets) != 1 || len(rec.Sets[0].Members) <= r.dataOf(rec.PG.Pool)+spoilt {
			return false
		}
		for _, mem := range rec.Sets[0].Members {
			if m := r.nodes[int(mem.OSD)-1]; m.i != osd && m.store() != mem.Store {
				return false // its disk was replaced, too, and nobody has noticed yet
			}
		}
	}
	return true
}

// store is the id of the store on an OSD's disk as it was opened last; zero when that disk has been replaced since.
func (m *member) store() layout.StoreID {
	if m.n.Store != nil {
		m.opened, m.tries = m.n.Store.Superblock().StoreID, 0
	}
	if m.opened == m.back {
		return layout.StoreID{} // not the store that was known by that id
	}
	return m.opened
}

type recordOf struct {
	PG layout.PGID
	*cluster.PGRecord
}

// records are the PGs' records as the registry holds them.
func (r *run) records() (list []recordOf) {
	for _, kv := range r.c.Reg.Dump() {
		if k, ok := cluster.ParseKey(kv.Key); ok && k.Kind == cluster.KindPGRecord && !r.removed[k.PG.Pool] {
			list = append(list, recordOf{k.PG, r.decodeRecord(kv.Value)})
		}
	}
	return list
}

// reweight has an operator give an OSD another weight, however often that takes; in earlier draws once, whether etcd has it or not.
func (r *run) reweight(osd int, w float64) {
	f := cluster.Float(w)
	r.back.weights[osd] = w
	key, value := cluster.OSDConfigKey(layout.OSDNum(osd+1)), cluster.Value(&cluster.OSDConfig{Reweight: &f})
	if r.plan.Draw < lyingDraw {
		r.put(key, value)
		return
	}
	r.c.admin.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: key, Value: value}}}, func(_ registry.TxnResult, err error) {
		if err != nil && r.back.weights[osd] == w {
			r.c.W.After(200*time.Millisecond, func() {
				if r.back.weights[osd] == w {
					r.reweight(osd, w)
				}
			})
		}
	})
}

// killClient ends a client's process, has its sessions fenced, and starts another one in its place.
func (r *run) killClient(f *PlannedFault) func() {
	s := r.slots[f.N%seedSlots]
	p := s.now
	if p.dead || s.lazy {
		return r.cannot() // what it has not synced ends with it
	}
	p.kill()
	r.fence(p)
	return func() {
		if s.now == p {
			s.start()
		}
	}
}

// killBehindCut cuts what a client sends, takes its power while that is on its way, and lets it go on when the client has been fenced.
func (r *run) killBehindCut(f *PlannedFault) func() {
	s := r.slots[f.N%seedSlots]
	p := s.now
	if p.dead || s.lazy {
		return r.cannot() // what it has not synced ends with it
	}
	var osds []*sim.Loop
	for i := range r.nodes {
		osds = append(osds, r.osd(i))
	}
	heal := r.part([]*sim.Loop{p.l}, osds, false, false, 0)
	r.c.W.After(min(f.For/2, 300*time.Millisecond), func() {
		if p.dead {
			return
		}
		p.collect()
		p.dead = true
		p.reg.Close()
		p.l.PowerOff()
		r.checked += len(p.open)
		r.fence(p)
	})
	return func() {
		heal()
		if s.now == p && p.dead {
			s.start()
		}
	}
}

// fillDisks writes objects until there is no room, and removes them again.
func (r *run) fillDisks(f *PlannedFault) func() {
	c := &r.plan.Config
	n := images.New{Name: fmt.Sprintf("ballast%d", f.ID), Size: 400 * uint64(c.Store.BlockSize), Pool: "p"}
	copy(n.Identity[:], n.Name)
	busy, made := true, false
	r.operator(func() {
		images.Create(r.admin, n, func(id layout.Inode, err error) {
			if err != nil {
				busy = false
				r.logf("create image %s: %v", n.Name, err)
				return
			}
			made = true
			r.fill(id, n.Size, func() { busy = false })
		})
	})
	return func() { r.removeLater(n.Name, &busy, &made, nil) }
}

// fence has the OSDs refuse a dead client's instance.
func (r *run) fence(p *process) { r.fenceAnd(p, func() {}) }

// fenceAnd has the OSDs refuse a client's instance, and calls done when the fence is complete. It is complete when in each PG a member of the set that serves has heard of it and pg_lock_time has passed (DESIGN section 9): nothing
// that the client had under way takes effect after that.
func (r *run) fenceAnd(p *process, done func()) {
	key := cluster.FenceKey(cluster.FenceGatewayName(p.instance))
	f := &fenced{value: cluster.Value(&cluster.Fence{Gateway: p.instance, Reason: "its process is dead"})}
	r.back.fences[key] = f
	r.writeFence(key)
	var look func()
	look = func() {
		if f.rev == 0 || !r.heard(f.rev) {
			r.c.W.After(50*time.Millisecond, look)
			return
		}
		r.c.W.After(r.plan.Config.LockTime*5/4, func() {
			r.cover("fence complete")
			r.fenced[p.instance] = true
			tick := r.history.now()
			for _, x := range p.open {
				for _, a := range x.acts {
					a.bound = tick
				}
			}
			r.logf("the fence of client %d's instance %d is complete", p.s.n+1, p.instance)
			done()
		})
	}
	look()
}

// heard reports whether in each PG a living member of the last recorded set has applied a revision.
func (r *run) heard(rev registry.Revision) bool {
	for _, rec := range r.records() {
		ok := false
		for _, set := range rec.Sets {
			for _, mem := range set.Members {
				m := r.nodes[int(mem.OSD)-1]
				ok = ok || set.Interval == rec.Activated && !m.down && m.n.OSD != nil && m.n.OSD.Snapshot().Revision >= rev
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// takeOver has a gateway's client come again: its new session takes the old one's place.
func (r *run) takeOver(f *PlannedFault) func() {
	p := r.slots[f.N%uint64(r.plan.Config.Gateways)].now
	if p.dead || !p.ready {
		return r.cannot()
	}
	p.l.Post(&loop.Task{Run: func() {
		for i := range p.handles {
			d, _, ok := p.lane.Catalog().Lookup(r.images[i].name)
			if !ok {
				continue
			}
			old := p.handles[i]
			h, err := d.Attach(p.l, p.session(i))
			if err != nil {
				r.fail("attach again: %v", err)
				return
			}
			r.cover("session taken over")
			p.taken = true
			h.Events(told{r})
			p.handles[i] = h
			old.Detach(func() {})
		}
	}})
	return nil
}

// passingImage makes an image, writes to it, and removes it again.
func (r *run) passingImage(f *PlannedFault) func() {
	c := &r.plan.Config
	n := images.New{Name: fmt.Sprintf("passing%d", f.ID), Size: 4 * uint64(c.Store.BlockSize), Pool: "p"}
	copy(n.Identity[:], n.Name)
	busy, made := true, false
	r.operator(func() {
		images.Create(r.admin, n, func(id layout.Inode, err error) {
			if err != nil {
				busy = false
				r.logf("create image %s: %v", n.Name, err)
				return
			}
			made = true
			r.scribble(id, func() { busy = false })
		})
	})
	return func() { r.removeLater(n.Name, &busy, &made, nil) }
}

// removeLater removes an image when nobody is busy with it any more, however often that takes, and calls then, unless that is nil.
func (r *run) removeLater(name string, busy, made *bool, then func()) {
	r.removing++
	gone := func() {
		if r.removing--; then != nil {
			then()
		}
	}
	var try func()
	try = func() {
		switch {
		case *busy:
			r.c.W.After(100*time.Millisecond, try)
			return
		case !*made:
			gone()
			return
		}
		r.operator(func() {
			images.Remove(r.admin, name, images.Options{}, func(err error) {
				if _, gone := errors.AsType[*images.NotFoundError](err); err != nil && !gone {
					r.logf("remove image %s: %v", name, err)
					r.c.W.After(time.Second, try)
					return
				}
				r.cover("image removed")
				gone()
			})
		})
	}
	try()
}
