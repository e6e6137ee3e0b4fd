package osd

import (
	"encoding/json"

	"holdfast/core/cluster"
	"holdfast/core/peer"
	"holdfast/core/registry"
	"holdfast/core/wire"
)

// maxTold bounds the fences that are kept until our watch brings them.
const maxTold = 4096

func (f *fences) add(fence *cluster.Fence, rev registry.Revision) {
	if fence.Session != 0 {
		f.sessions[fence.Session] = fence
	}
	if fence.Gateway != 0 {
		f.gateways[fence.Gateway] = fence
	}
	f.revision = max(f.revision, rev)
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
	if registry.Revision(q.Revision) > s.Snapshot().Revision {
		if len(s.fences.told) >= maxTold {
			r.Fail(wire.EBUSY)
			return
		}
		if s.fences.told == nil {
			s.fences.told = map[string]*cluster.FenceRequest{}
		}
		s.fences.told[q.Name] = q
		s.fences.add(&q.Fence, registry.Revision(q.Revision))
		s.watchFenced()
	}
	var h wire.Header
	m := wire.BareReply{Op: wire.OpFence}
	m.Encode(&h)
	r.Reply(&h, nil, nil)
}
