package sim

import (
	"fmt"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/images"
	"holdfast/core/layout"
	"holdfast/core/registry"
)

// failOver has another gateway, or client, take the place of one that is stopped: once all of that one is fenced. The fault ends when the first goes on, with whatever it has at hand.
func (r *run) failOver(f *PlannedFault) func() {
	s := r.slots[f.N%seedSlots]
	p := s.now
	if p.dead || s.lazy || !p.ready {
		return r.cannot()
	}
	p.stopped = true
	p.l.Pause()
	r.fenceAnd(p, func() { r.succeed(p, "failover to another client") })
	return func() {
		p.stopped = false
		p.l.Resume()
	}
}

// fenceClient has an operator fence a client that runs; it is started again when it has learnt that.
func (r *run) fenceClient(f *PlannedFault) func() {
	s := r.slots[f.N%seedSlots]
	p := s.now
	if p.dead || s.lazy || !p.ready {
		return r.cannot()
	}
	r.fenceAnd(p, func() { r.succeed(p, "client fenced by an operator") })
	return nil
}

// succeed starts a successor of a fenced client, and ends that one when what it had at hand has come to an end.
func (r *run) succeed(p *process, what string) {
	s := p.s
	if p.dead || s.now != p || r.broken {
		return
	}
	r.cover(what)
	s.start()
	var end func()
	end = func() {
		if p.dead {
			return // another fault has ended it, and all that it had at hand
		}
		if p.stopped || len(p.open) > 0 && r.c.W.Elapsed() < r.begun+seedTime+r.plan.Config.Longest+answersWithin/2 {
			r.c.W.After(time.Second, end)
			return
		}
		if len(p.open) > 0 {
			r.fail("%d operations of client %d, which is fenced, do not end", len(p.open), s.n+1)
		}
		p.kill()
	}
	r.c.W.After(8*time.Second, end)
}

// passingPool makes a pool with an image in it, and removes both again; sometimes another one is made under its number, which is empty, and stays.
func (r *run) passingPool(f *PlannedFault) func() {
	c := &r.plan.Config
	id, pgs := layout.PoolID(200+f.ID), 1+int(f.N%2) // no number that "pool made" gives
	n := images.New{Name: fmt.Sprintf("passing%d", f.ID), Size: 4 * uint64(c.Store.BlockSize), Pool: fmt.Sprintf("pool%d", id)}
	copy(n.Identity[:], n.Name)
	busy, made, over := true, false, false
	r.removing++ // the pool
	r.addPool(id, r.besides(), pgs)
	tries := 0
	var create func()
	create = func() {
		images.Create(r.admin, n, func(inode layout.Inode, err error) {
			switch {
			case err != nil && tries < 20 && !over:
				tries++
				r.c.W.After(300*time.Millisecond, func() { r.operator(create) })
			case err != nil:
				busy = false
				r.logf("create image %s: %v", n.Name, err)
			default:
				made = true
				r.scribble(inode, func() { busy = false })
			}
		})
	}
	r.c.W.After(300*time.Millisecond, func() { r.operator(create) })
	return func() {
		over = true
		r.removeLater(n.Name, &busy, &made, func() { r.removePool(id, pgs, f.N&4 != 0) })
	}
}

// removePool removes a pool, and makes another one under its number if that is wanted.
func (r *run) removePool(id layout.PoolID, pgs int, anew bool) {
	if r.broken {
		return
	}
	again := func() { r.c.W.After(300*time.Millisecond, func() { r.removePool(id, pgs, anew) }) }
	if r.adding > 0 { // perhaps this one is still to be made
		again()
		return
	}
	if s := r.c.Snapshot(); !r.removed[id] {
		for _, kv := range r.c.Reg.Dump() {
			if kv.Key != cluster.KeyPools {
				continue
			}
			if pools, _, err := cluster.ReadPools(kv.Value); err == nil && pools[id] == nil {
				r.removed[id], r.passed[id] = true, true
				r.c.pgs -= pgs
				break
			}
			txn, err := cluster.SetPool(&kv, id, nil)
			if err != nil {
				r.Fatal(err)
			}
			r.c.admin.Txn(txn, func(registry.TxnResult, error) {})
		}
		again()
		return
	} else if _, known := s.Identities.Get(id); known {
		again()
		return
	}
	for pg := range r.c.Snapshot().PGStates.All() {
		if pg.Pool == id {
			again()
			return
		}
	}
	r.cover("pool removed")
	r.removing--
	for i := range pgs {
		pg := layout.PGID{Pool: id, Num: uint32(i + 1)}
		delete(r.probes, pg)
		delete(r.recorded, pg)
	}
	for object := range r.versions { // order: deletions commute
		if object.Inode.Pool() == id {
			delete(r.versions, object)
		}
	}
	if anew {
		r.cover("pool made anew")
		delete(r.removed, id)
		r.addPool(id, min(2, r.plan.Config.Replicas), pgs)
	}
}
