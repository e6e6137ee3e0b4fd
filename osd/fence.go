package osd

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/registry"
	"holdfast/core/wire"
	"holdfast/osd/peering"
	"holdfast/osd/secondary"
)

const (
	// maxTold bounds the fences that are taken from who wrote them and that etcd does not show.
	maxTold = 4096
	// fencesAtOnce bounds the fences in one answer to a renewal.
	fencesAtOnce = 128
)

// fences are the sessions whose requests are refused.
//
// A fence comes from etcd, from who wrote it there, or with the renewal of our grants from a member that knows it, whichever is first. Once we have said that we know one, each primary that we renew
// gets it with the answer, and applies it before it counts on that. Nobody compares revisions: they mean nothing once etcd has been set back.
type fences struct {
	list     []*fence
	sessions map[uint64][]*cluster.Fence // list by what is fenced
	gateways map[uint64][]*cluster.Fence
	last     uint64            // number of the newest that primaries have to know
	revision registry.Revision // that primaries of earlier versions must have applied
	due      loop.Timer        // when no change of theirs may be under way any more
}

// fence is one of them. One that etcd does not show, as our watch has not brought it or etcd has forgotten it, stays in force until etcd shows it, and removes it.
type fence struct {
	name   string
	fence  *cluster.Fence
	shown  bool              // by etcd
	number uint64            // among those that primaries have to know; 0: it came from a member, which sees to that itself
	told   registry.Revision // that it was written at, as who wrote it says; 0 once etcd has gone back
}

// apply takes over the fences that etcd shows. back says that it has gone back to an earlier state: what it does not have was in force all the same.
func (f *fences) apply(next *cluster.Snapshot, back bool) {
	shown := map[string]bool{}
	f.list = slices.DeleteFunc(f.list, func(k *fence) bool {
		now, ok := next.Fences.Get(k.name)
		switch {
		case ok && !shown[k.name] && k.fence.Within(now) && now.Within(k.fence):
			shown[k.name], k.shown, k.fence = true, true, now
			if k.number == 0 {
				f.pass(k)
			}
			return false
		case ok && k.fence.Within(now):
			return true // one that reaches further takes its place, or the same one
		case k.shown && !back:
			return true
		}
		k.shown = false
		if back {
			k.told = 0
		}
		return back && planted.FencesForgotten
	})
	for name, now := range next.Fences.All() {
		if !shown[name] {
			k := &fence{name: name, fence: now, shown: true}
			f.pass(k)
			f.list = append(f.list, k)
		}
	}
	f.index()
}

// pass has primaries know a fence from now on.
func (f *fences) pass(k *fence) {
	f.last++
	k.number = f.last
}

// index sorts the list by what is fenced.
func (f *fences) index() {
	f.sessions, f.gateways, f.revision = map[uint64][]*cluster.Fence{}, map[uint64][]*cluster.Fence{}, 0
	for _, k := range f.list {
		if k.fence.Session != 0 {
			f.sessions[k.fence.Session] = append(f.sessions[k.fence.Session], k.fence)
		} else {
			f.gateways[k.fence.Gateway] = append(f.gateways[k.fence.Gateway], k.fence)
		}
		f.revision = max(f.revision, k.told)
		if k.shown {
			f.revision = max(f.revision, k.fence.Mod)
		}
	}
}

// hear puts a fence in force whether etcd shows it or not, and returns it.
func (f *fences) hear(n *cluster.NamedFence) *fence {
	for _, k := range f.list {
		if k.name == n.Name && n.Fence.Within(k.fence) {
			return k
		}
	}
	k := &fence{name: n.Name, fence: &n.Fence}
	f.list = append(f.list, k)
	f.index()
	return k
}

// unshown are the fences that etcd does not show.
func (f *fences) unshown() (list []*fence) {
	for _, k := range f.list {
		if !k.shown {
			list = append(list, k)
		}
	}
	return list
}

// fencesOf is what forHolder of another OSD put into an answer.
func fencesOf(a *secondary.RenewReply) (list []cluster.NamedFence, err error) {
	if len(a.Fences) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(a.Fences, &list); err != nil {
		return nil, fmt.Errorf("its fences: %w", err)
	}
	for i := range list {
		if err := list[i].Check(); err != nil {
			return nil, fmt.Errorf("its fence %q: %w", list[i].Name, err)
		}
	}
	return list, nil
}

// forHolder implements secondary.Fences.
func (f *fences) forHolder(q *secondary.RenewRequest, a *secondary.RenewReply) bool {
	switch {
	case planted.FenceRenewed:
		return true
	case q.Fenced == 0:
		return registry.Revision(q.Applied) >= f.revision
	}
	if a.Fenced = q.Fenced - 1; a.Fenced == f.last {
		return true
	} else if a.Fenced > f.last {
		a.Fenced = 0 // it is not of us
	}
	var list []*fence
	for _, k := range f.list {
		if k.number > a.Fenced {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, func(a, b *fence) int { return cmp.Compare(a.number, b.number) })
	n := min(len(list), fencesAtOnce)
	if n > 0 {
		tell := make([]cluster.NamedFence, n)
		for i, k := range list[:n] {
			tell[i] = cluster.NamedFence{Name: k.name, Fence: *k.fence}
		}
		a.Fences, a.Fenced = cluster.Value(tell), list[n-1].number
	}
	if n < len(list) {
		return false
	}
	a.Fenced = f.last
	return true
}

// refuses reports whether a session's requests on a pool are refused.
func (f *fences) refuses(session uint64, pool layout.PoolID) bool {
	of := func(list []*cluster.Fence) bool {
		for _, x := range list {
			if x.Covers(pool) {
				return true
			}
		}
		return false
	}
	return of(f.sessions[session]) || !planted.InstanceUnfenced && of(f.gateways[session>>cluster.SessionBits])
}

// Fenced reports whether a session's requests on a pool are refused.
func (s *OSD) Fenced(session uint64, pool layout.PoolID) bool { return s.fences.refuses(session, pool) }

// applyFences compares the fences that etcd shows with those that are in force.
func (s *OSD) applyFences(prev, next *cluster.Snapshot, back bool) {
	same := prev.Fences.Len() == next.Fences.Len() && s.fences.sessions != nil && !back
	for name, now := range next.Fences.All() {
		old, ok := prev.Fences.Get(name)
		same = same && ok && old == now
	}
	if !same {
		s.fences.apply(next, back)
		s.watchFenced()
	}
}

// fenceNow applies a fence that somebody has written to etcd, before our watch brings it: who fences need not wait for it, nor for our contact with etcd. From the answer on we carry out nothing of what is
// fenced, and prolong no lock of a primary that has not applied the fence.
func (s *OSD) fenceNow(r *peer.Request) {
	q := &cluster.FenceRequest{}
	if json.Unmarshal(r.Meta, q) != nil || q.Check() != nil {
		r.Fail(wire.EINVAL)
		return
	}
	if s.Snapshot().Revision == 0 {
		r.Fail(wire.EAGAIN) // nothing is served yet, and our first look at etcd will bring it
		return
	}
	f := &s.fences
	if len(f.unshown()) >= maxTold {
		r.Fail(wire.EBUSY)
		return
	}
	if k := f.hear(&q.NamedFence); k.number == 0 {
		f.pass(k)
		k.told = registry.Revision(q.Revision)
		f.revision = max(f.revision, k.told)
		s.watchFenced()
	}
	var h wire.Header
	m := wire.BareReply{Op: wire.OpFence}
	m.Encode(&h)
	r.Reply(&h, nil, nil)
}

func (s *OSD) watchFenced() {
	if !s.fences.due.Armed() && len(s.prim.Overdue()) > 0 {
		s.l.Arm(&s.fences.due, s.l.Now().Add(s.o.LockTime/5))
	}
}

// endFenced ends the intervals in which a change is still under way that was begun before its session was fenced. Whoever fences counts on it that after T + T/4 nothing of the session takes
// effect any more (appliance/gateway): a primary without locks has none by then, and this is for those that hold theirs, which may take as long as a disk or a member does not answer. The
// next interval serves only when our store is done with the change, and decides about it.
func (s *OSD) endFenced() {
	if planted.FenceLeavesChanges {
		return
	}
	for _, id := range s.prim.Overdue() {
		if r := s.pgs[id]; r != nil && r.m.Phase == peering.Active {
			s.log.Info("a change of a fenced session is still under way; the interval ends", "pg", id.String())
			r.exec(r.m.Restart())
		}
	}
}
