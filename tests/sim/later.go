package sim

import (
	"fmt"
	"time"

	"holdfast/core/sim"
	"holdfast/osd/store"
)

// laterFaults are the lines that a draw has besides those of earlier ones.
func laterFaults(draw int) []faultKind {
	switch draw {
	case 2:
		return []faultKind{
			{4, "all links slow", nil, (*run).slowNet},
			{4, "link slow", nil, func(r *run, f *PlannedFault) func() {
				a, b := r.osd(f.A), r.anyPeer(f)
				most := 5 * time.Millisecond << (f.N % 7)
				r.c.W.Net.SetDelayBetween(a, b, sim.Delay{Min: most / 8, Max: most})
				return func() { r.c.W.Net.SetDelayBetween(a, b, sim.Delay{}) }
			}},
			{3, "link narrow", nil, func(r *run, f *PlannedFault) func() {
				a, b := r.osd(f.A), r.anyPeer(f)
				r.c.W.Net.SetBandwidth(a, b, 50_000<<(f.N%6))
				return func() { r.c.W.Net.SetBandwidth(a, b, 0) }
			}},
			{4, "connections half open", nil, func(r *run, f *PlannedFault) func() { return r.breaks(f, sim.BreakOne) }},
			{4, "connections silently broken", nil, func(r *run, f *PlannedFault) func() { return r.breaks(f, sim.BreakSilent) }},
			{3, "client hears no OSD", nil, func(r *run, f *PlannedFault) func() {
				return r.part(r.osds(), []*sim.Loop{r.slots[f.N%seedSlots].now.l}, false, false, 0)
			}},
			{3, "client acknowledges nothing", nil, (*run).stalledClient},
			{6, "image resized", nil, (*run).resizeImage},
			{3, "writes of a disk lost", astrayFits, func(r *run, f *PlannedFault) func() {
				return r.astray(f, func(d *sim.Disk) { d.LoseWrites(1 + int(f.N%3)) })
			}},
			{3, "writes of a disk misdirected", astrayFits, func(r *run, f *PlannedFault) func() {
				return r.astray(f, func(d *sim.Disk) { d.MisdirectWrites(1 + int(f.N%2)) })
			}},
			{3, "device without space", damageFits, func(r *run, f *PlannedFault) func() {
				m := r.liar(f)
				m.hurts()
				d := r.disk(m.i)
				d.SetSpace(d.Used())
				return func() { d.SetSpace(0) }
			}},
			{4, "power of a host lost, its clock starts anew", nil, func(r *run, f *PlannedFault) func() {
				m := r.nodes[f.A]
				if m.down {
					return r.cannot()
				}
				end := r.fall(f.A, true, crashes[f.N%3])
				r.c.W.Reboot(m.n.Loop.Host())
				return end
			}},
			// What OSDs grant goes by their clocks, so those must not jump while they run (DESIGN section 9).
			{3, "clock of a client jumps", nil, func(r *run, f *PlannedFault) func() {
				r.slots[f.N%seedSlots].now.l.JumpClock(time.Duration(f.N>>8) % (20 * time.Second))
				return nil
			}},
			{2, "clock of a monitor jumps", nil, func(r *run, f *PlannedFault) func() {
				r.c.mons[f.N%uint64(len(r.c.mons))].loop.JumpClock(time.Duration(f.N>>8) % (20 * time.Second))
				return nil
			}},
			{4, "client dies while a disk hangs", nil, func(r *run, f *PlannedFault) func() {
				d := r.disk(f.A)
				d.Stall(true)
				var start func()
				r.c.W.After(min(f.For/4, 300*time.Millisecond), func() { start = r.killClient(f) })
				return func() { both(func() { d.Stall(false) }, start)() }
			}},
			{3, "monitor stopped", nil, func(r *run, f *PlannedFault) func() {
				l := r.c.mons[f.N%uint64(len(r.c.mons))].loop
				if !l.Alive() {
					return r.cannot()
				}
				l.Pause()
				return l.Resume
			}},
		}
	case 3, 4: // another configuration and spare faults, and no kind of their own
		return nil
	case 5:
		back := func(what string) func(*Config) bool { return func(c *Config) bool { return c.Back == what } }
		return []faultKind{
			{8, "etcd set back under running daemons", back(backEtcd), func(r *run, _ *PlannedFault) func() { return r.copyEtcd(false) }},
			{8, "etcd restored as documented", back(backEtcd), func(r *run, _ *PlannedFault) func() { return r.copyEtcd(true) }},
			{14, "disk set back", func(c *Config) bool { return c.Back == backDisks && c.Replicas > 1 && !c.Second }, (*run).diskBack},
			{6, "disk replaced in a run of its own", func(c *Config) bool { return c.Replicas > 1 && !c.Second }, (*run).replaceDisk},
			{6, "client stopped, another one takes over", nil, (*run).failOver},
			{4, "client fenced by an operator", nil, (*run).fenceClient},
			{5, "pool made and removed", nil, (*run).passingPool},
			{3, "two OSDs out, then in", nil, func(r *run, f *PlannedFault) func() {
				r.reweight(f.A, 0)
				r.reweight(f.B, 0)
				return func() {
					r.reweight(f.A, 1)
					r.reweight(f.B, 1)
				}
			}},
			{3, "OSD out and in again and again", nil, func(r *run, f *PlannedFault) func() {
				for i := range 4 {
					r.c.W.After(f.For*time.Duration(i)/4, func() { r.reweight(f.A, float64(i%2)) })
				}
				return nil
			}},
		}
	case 6: // another configuration
		return nil
	case 7:
		return lyingFaults()
	}
	panic(fmt.Sprintf("there is no draw %d", draw))
}

// astrayFits says where writes may be lost without a trace: checksums must tell, and each write is on another disk, too.
func astrayFits(c *Config) bool { return damageFits(c) && c.Store.ChecksumType == store.ChecksumCRC32C }

func (r *run) osds() (list []*sim.Loop) {
	for i := range r.nodes {
		list = append(list, r.osd(i))
	}
	return list
}

// anyPeer is another OSD than f.A, or a client.
func (r *run) anyPeer(f *PlannedFault) *sim.Loop {
	peers := r.others(f.A, true)
	return peers[f.N>>16%uint64(len(peers))]
}

// usualNet is the network when nothing is wrong with it.
func (r *run) usualNet() {
	d := r.plan.Config.Net
	if d == (sim.Delay{}) {
		d = sim.Delay{Min: 50 * time.Microsecond, Max: 200 * time.Microsecond}
	}
	r.c.W.Net.SetDelay(d)
}

// slowNet makes everything take longer on the network, now and then much longer.
func (r *run) slowNet(f *PlannedFault) func() {
	most := 2 * time.Millisecond << (f.N % 8)
	r.c.W.Net.SetDelay(sim.Delay{Min: most / 16, Max: most, Worst: 4 * most, Rare: 0.02})
	r.c.W.CountFault(sim.FaultNetSlow)
	r.netSlow++
	return func() {
		if r.netSlow--; r.netSlow == 0 {
			r.usualNet()
		}
	}
}

// breaks ends connections of an OSD now and then at one side only, or at none.
func (r *run) breaks(f *PlannedFault, how sim.Break) func() {
	on := true
	var step func()
	step = func() {
		if !on {
			return
		}
		peers := r.others(f.A, true)
		a, b := r.osd(f.A), peers[r.rng.IntN(len(peers))]
		if r.rng.IntN(2) == 0 {
			a, b = b, a
		}
		r.c.W.Net.Break(a, b, how)
		r.c.W.After(time.Duration(1+r.rng.IntN(1200))*time.Millisecond, step)
	}
	step()
	return func() { on = false }
}

// astray has a disk acknowledge writes that it does not do, or does elsewhere: of data, where checksums in the metadata tell. A batch of the journal that is lost with nothing behind it looks
// like one that was never written, and metadata that was not overwritten like metadata that did not change: no single disk can tell those.
func (r *run) astray(f *PlannedFault, begin func(d *sim.Disk)) func() {
	return r.astrayOn(f, func(d *sim.Disk, off, n int64) {
		d.Confine(off, n)
		begin(d)
	})
}

// astrayOn calls begin with a disk that may lie, and where its data is.
func (r *run) astrayOn(f *PlannedFault, begin func(d *sim.Disk, off, n int64)) func() {
	m := r.liar(f)
	if m.down || m.n.Store == nil || r.plan.Draw >= lyingDraw && !r.spoils(m) {
		return r.cannot()
	}
	m.hurts()
	area := m.n.Store.Superblock().Data
	begin(r.disk(m.i), area.Off, area.Len)
	return nil
}
