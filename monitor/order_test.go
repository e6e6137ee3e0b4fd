package monitor

import (
	"slices"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/loop"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/registry/registrytest"
)

// elects picks the transactions that would make somebody the leader.
func elects(t registry.Txn) bool {
	return slices.ContainsFunc(t.Then, func(op registry.Op) bool { return op.Kind == registry.Put && op.Key == cluster.KeyMonMaster })
}

// run calls f on the monitor's loop and waits for it.
func (x *scene) run(f func()) {
	x.t.Helper()
	done := false
	x.l.Post(&loop.Task{Run: func() { f(); done = true }})
	x.wait("a turn of the monitor's loop", func() bool { return done })
}

// The answer to an election that was won comes when the key is gone again and another monitor leads.
func TestElectionIsAnsweredWhenAnotherOneLeads(t *testing.T) {
	x := newScene(t)
	reg := &registrytest.Late{Registry: x.m.o.Registry}
	late := reg.Answer(elects)
	x.run(func() { x.m.o.Registry = reg })
	x.delete(cluster.KeyMonMaster)
	x.wait("the election", func() bool { return late.Done && x.key(cluster.KeyMonMaster).Lease == x.m.lease.ID() })
	b, _ := x.second()
	x.w.Run(time.Second)
	x.delete(cluster.KeyMonMaster)
	x.wait("the second one to lead", b.Leading)
	x.run(late.Release)
	x.w.Run(time.Second)
	if x.m.Leading() {
		t.Error("both lead")
	}
}

// etcd goes back to before the election, with the monitor's lease in it.
func TestLeaderOfAnEtcdThatWentBackIsElectedAgain(t *testing.T) {
	x := newScene(t)
	reg := &registrytest.Late{Registry: x.m.o.Registry}
	var before *memory.Backup
	reg.Catch = func(txn registry.Txn, done func(registry.TxnResult, error)) bool {
		if before == nil && elects(txn) {
			before = x.st.Backup()
		}
		return false
	}
	x.run(func() { x.m.o.Registry = reg })
	x.delete(cluster.KeyMonMaster)
	x.wait("the election", func() bool { return before != nil && x.m.Leading() })
	for range 20 {
		x.put("x", "1")
	}
	x.st.Restore(before, 0)
	x.wait("it to lead again", func() bool { return x.key(cluster.KeyMonMaster).Lease == x.m.lease.ID() && x.m.Leading() })
}

// The lease is lost while an election is under way: its answer is of no use, but the next lease must stand.
func TestElectionUnderALeaseThatIsOver(t *testing.T) {
	x := newScene(t)
	reg := &registrytest.Late{Registry: x.m.o.Registry}
	var late func()
	reg.Catch = func(txn registry.Txn, done func(registry.TxnResult, error)) bool {
		if late != nil || !elects(txn) {
			return false
		}
		late = func() { done(registry.TxnResult{}, registry.ErrUnavailable) }
		return true
	}
	x.run(func() { x.m.o.Registry = reg })
	x.delete(cluster.KeyMonMaster)
	x.wait("the election", func() bool { return late != nil })
	old := x.m.lease
	x.st.Expire(old.ID())
	x.wait("another lease", func() bool { return x.m.lease != old && x.m.lease.ID() != 0 })
	x.run(late)
	x.wait("it to lead", x.m.Leading)
}

// The key of the pools is removed: that, too, is a state that decisions are compared with.
func TestDecisionsWithoutPools(t *testing.T) {
	x := newScene(t)
	x.delete(cluster.KeyPools)
	x.wait("an empty PG map", func() bool { return len(x.pgs(1)) == 0 && x.key(cluster.PoolIdentityKey(1)).Key == "" })
}
