package sim

import "holdfast/core/cluster"

// raised checks that a PG's record only grows: an interval that was taken or activated is not forgotten, whoever writes late. Where etcd is set back, that begins anew (putBack).
func (r *run) raised(key string) {
	k, ok := cluster.ParseKey(key)
	if !ok || k.Kind != cluster.KindPGRecord {
		return
	}
	now, old := r.record(k.PG), r.recorded[k.PG]
	if now == nil {
		return
	}
	if old != nil && now.Generation == old.Generation && (now.Interval < old.Interval || now.Activated < old.Activated || now.Floor < old.Floor) {
		r.fail("the record of PG %v goes back: it was %+v, and is %+v", k.PG, *old, *now)
	}
	r.recorded[k.PG] = now
}
