package sim

import (
	"fmt"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/sim"
)

// What a seed sets back to an earlier state. It is one or the other: a disk that was set back between a copy of etcd and its return is not noticed (docs/adr/0015-etcd-snapshots.md).
const (
	backEtcd  = "etcd"
	backDisks = "disks"
)

// changesEtcd are the faults whose work in etcd must not be forgotten half way: what an operator does between a copy of etcd and its return is to be done again, and these do not know how.
var changesEtcd = map[string]bool{
	"disks filled": true, "image made, written and removed": true, "pool made": true, "client acknowledges nothing": true, "image resized": true, "pool made and removed": true,
}

// etcdBack is what etcd being set back takes.
type etcdBack struct {
	copied  *memory.Backup // to be put back; nil: none is kept
	at      time.Duration  // when the last one was put back
	before  map[layout.PGID]*cluster.PGRecord
	times   int
	weights map[int]float64    // as they were set last
	fences  map[string]*fenced // by key
	forgot  []string           // keys that were deleted
}

// fenced is a fence as it was written.
type fenced struct {
	value []byte
	rev   registry.Revision // 0: it is on its way
}

// copyEtcd keeps a copy of etcd, which is put back when the fault ends: under daemons that run, or, documented, as docs/operating.md has it ("etcd restored from a backup").
func (r *run) copyEtcd(documented bool) func() {
	b := &r.back
	for _, on := range r.resizing {
		if on {
			return r.cannot()
		}
	}
	if b.copied != nil || r.making > 0 || r.removing > 0 || r.adding > 0 || r.unsure() {
		return r.cannot()
	}
	b.copied = r.c.Reg.Backup()
	if !documented {
		return func() {
			r.cover("etcd set back under running daemons")
			r.putBack()
		}
	}
	return func() {
		all := r.blackoutOf(1<<len(r.nodes)-1, false, sim.CrashPolicy{})
		r.c.W.After(time.Second, func() {
			r.cover("etcd restored as documented")
			r.putBack()
			r.declare(all)
		})
	}
}

// putBack puts the copy in etcd's place, and does again what operators had done since.
func (r *run) putBack() {
	b := &r.back
	for _, rec := range r.c.Reg.Dump() {
		if k, ok := cluster.ParseKey(rec.Key); ok && k.Kind == cluster.KindPGRecord {
			b.before[k.PG] = r.decodeRecord(rec.Value)
		}
	}
	r.c.Reg.Restore(b.copied, 0)
	b.copied, b.at = nil, r.c.W.Elapsed()
	b.times++
	clear(r.recorded) // records go back
	for i := range r.nodes {
		if w, ok := b.weights[i]; ok {
			r.reweight(i, w)
		}
	}
	for _, key := range sorted(b.fences) {
		r.writeFence(key)
	}
	for _, key := range b.forgot {
		r.forget(key)
	}
	r.c.W.After(time.Second, r.giveUp)
}

// declare has every store report, and then ends what keeps the OSDs down.
func (r *run) declare(then func()) {
	if r.broken {
		return
	}
	if s := r.c.Snapshot(); r.c.W.Elapsed() > r.back.at+500*time.Millisecond {
		d := cluster.Restored{ID: fmt.Sprintf("operator%d", r.back.times), Time: r.c.adminLoop.Wall().Unix(), Reason: "an operator has put an earlier copy back"}
		r.c.admin.Txn(cluster.DeclareRestored(s, d), func(res registry.TxnResult, err error) {
			if err != nil || !res.Succeeded {
				r.c.W.After(200*time.Millisecond, func() { r.declare(then) })
				return
			}
			then()
		})
		return
	}
	r.c.W.After(100*time.Millisecond, func() { r.declare(then) })
}

// giveUp has etcd give up the stores that a restored etcd waits for and that are gone, as their disks have been replaced or emptied since.
func (r *run) giveUp() {
	s := r.c.Snapshot()
	for _, n := range s.Unreported() {
		m := r.nodes[int(n)-1]
		id, ok := s.Stores.Get(n)
		if now := m.store(); !ok || now.IsZero() || id.Store == now {
			continue
		}
		if txn, ok := cluster.DeclareLost(s, n); ok {
			r.cover("store given up after a restore")
			r.c.admin.Txn(txn, func(registry.TxnResult, error) {})
		}
	}
	if !r.broken && r.unsure() {
		r.c.W.After(time.Second, r.giveUp)
	}
}

// unsure reports whether what etcd says may be old, since it was set back.
func (r *run) unsure() bool {
	b := &r.back
	return b.times > 0 && (len(r.c.Snapshot().Unreported()) > 0 || r.c.W.Elapsed() < b.at+15*time.Second)
}

// writeFence writes a fence, however often that takes.
func (r *run) writeFence(key string) {
	f, times := r.back.fences[key], r.back.times
	f.rev = 0
	r.c.admin.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: key, Value: f.value}}}, func(res registry.TxnResult, err error) {
		switch {
		case times != r.back.times: // it was written again
		case err != nil:
			r.c.W.After(200*time.Millisecond, func() {
				if times == r.back.times {
					r.writeFence(key)
				}
			})
		default:
			f.rev = res.Revision
		}
	})
}

// diskBack takes a copy of an OSD's disk while the OSD is down, and puts it back when the OSD has been up for a while since, if everything is elsewhere then.
func (r *run) diskBack(f *PlannedFault) func() {
	m := r.nodes[f.A]
	if m.down || m.heir != nil || m.hurt || m.store().IsZero() {
		return r.cannot()
	}
	rise := r.fall(f.A, f.N&1 != 0, sim.CrashRandom)
	image, id, boot := r.disk(f.A).Image(), m.opened, uint64(0)
	if own, ok := r.c.Snapshot().Stores.Get(m.n.Num); ok {
		boot = own.Boot
	}
	return func() {
		rise()
		var look func()
		look = func() {
			if r.broken || r.c.W.Elapsed() > r.begun+faultsTo+8*time.Second {
				return
			}
			own, ok := r.c.Snapshot().Stores.Get(m.n.Num)
			if m.down || m.holds > 0 || m.heir != nil || m.store() != id || !ok || own.Store != id || own.Boot <= boot || !r.everythingTwice(f.A) {
				r.c.W.After(300*time.Millisecond, look)
				return
			}
			r.cover("disk set back")
			m.holds++
			m.end(false, sim.CrashPolicy{})
			r.c.W.RemoveDisk(m.n.disk())
			r.c.W.NewDiskFrom(m.n.disk(), image)
			m.n.Store, m.opened, m.back = nil, layout.StoreID{}, id
			r.refill = true
			r.c.W.After(time.Second, func() {
				m.holds--
				m.rise()
			})
		}
		r.c.W.After(time.Second, look)
	}
}
