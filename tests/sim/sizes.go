package sim

import (
	"time"

	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
)

// sizesFit says which pools changePoolSize can change.
func sizesFit(c *Config) bool { return !c.XOR && c.osds() > max(c.MinSize, c.Data()+1) }

// changePoolSize is an operator who gives the first pool another number of copies, or of parity chunks, and in the end the one that it had. As many as it takes to serve stay as many: so every
// acknowledged change is on as many disks as ever.
func (r *run) changePoolSize(f *PlannedFault) func() {
	c := &r.plan.Config
	least := max(c.MinSize, c.Data()+1)
	if r.sizing {
		return r.cannot()
	}
	to := least + int(f.N%uint64(c.osds()-least))
	if to >= c.Replicas {
		to++ // another one than it has
	}
	if to > c.osds() {
		return r.cannot()
	}
	r.sizing = true
	r.removing++
	under := true // way
	r.resizePool(to, func() { under = false })
	var back func()
	back = func() {
		if under {
			r.c.W.After(100*time.Millisecond, back)
			return
		}
		r.resizePool(c.Replicas, func() { r.sized(c.Replicas) })
	}
	return back
}

// resizePool changes the pool, however often that takes.
func (r *run) resizePool(to int, done func()) {
	c := &r.plan.Config
	change := &admin.PoolChange{Name: "p", Replicas: to, MinSize: c.MinSize, Force: true}
	if c.Parity > 0 {
		change.Replicas, change.Data, change.Parity = 0, c.Data(), to-c.Data()
	}
	r.c.adminLoop.Post(&loop.Task{Run: func() {
		admin.ModifyPool(r.c.admin, r.c.Snapshot(), change, func(_ *cluster.Pool, err error) {
			if err != nil {
				r.logf("make pg_size %d: %v", to, err)
				r.c.W.After(300*time.Millisecond, func() { r.resizePool(to, done) })
				return
			}
			r.logf("pg_size is %d", to)
			done()
		})
	}})
}

// sized waits until the PG map has it, too.
func (r *run) sized(size int) {
	for i := range r.plan.Config.PGs {
		if t, _ := r.c.Snapshot().PGConfig.Target(layout.PGID{Pool: 1, Num: uint32(i + 1)}); len(t.OSDSet) != size {
			r.c.W.After(100*time.Millisecond, func() { r.sized(size) })
			return
		}
	}
	r.cover("pg_size changed and changed back")
	r.sizing = false
	r.removing--
}
