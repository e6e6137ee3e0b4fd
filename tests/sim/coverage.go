package sim

import (
	"errors"
	"maps"
	"slices"

	"holdfast/core/client"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/frontends/volume"
	"holdfast/osd/store"
)

// required is what every 500 seeds must have come across; a count of 0 means that the faults or the operations do not reach it any more.
var required = []string{
	"lost reply answered from a pair", "retry joined the first try", "primary changed", "primary changed with writes in flight", "REPLACE", "tombstone written", "tombstone trimmed",
	"fence complete", "fence hit", "lock ran out", "torn write at a power failure", "torn tail of a journal", "write lost at a power failure", "void", "request waited for its object to be recovered",
	"read waited for the commit of its version", "CAS refused", "comparison refused", "session taken over", "store replaced", "copy repaired on read", "deadline passed",
	"no space", "PG given back", "client answered another time", "image removed", "durability looked at", "OSD ended by itself", "object recovered", "buffers of a client counted",
	"image resized under load", "gateway heard of another size", "what a smaller size cut off is gone", "requests remembered that are never acknowledged",
	"hole told", "written part told", "image written through two gateways", "sync", "writer of unsynced changes dropped", "lazy change written again", "synced change looked at", "blocks of a store counted",
}

// requiredLater is what seeds of a draw must have come across besides, by its number.
var requiredLater = map[int][]string{
	5: {"etcd set back under running daemons", "etcd restored as documented", "disk set back", "failover to another client", "client fenced by an operator", "pool removed", "pool made anew"},
	6: {"chunks of an object compared"},
	7: {"object spoilt on several disks", "write to the journal found to be lost", "write to the metadata found to be lost", "another disk lies", "copies compared by scrub", "scrub found something wrong",
		"everything scrubbed under load", "pg_size changed and changed back"},
}

// requiredOf is what every 500 seeds of a draw must have come across.
func requiredOf(draw int) []string {
	list := slices.Clip(required)
	for i := FirstDraw + 1; i <= draw; i++ {
		list = append(list, requiredLater[i]...)
	}
	return list
}

// collect adds up what an OSD process counted; it is called once in its life, at its end.
func (m *member) collect() {
	n := m.n
	if n.counted == n.boots || n.Store == nil {
		return
	}
	n.counted = n.boots
	c := m.r.report.Coverage
	st := n.Store.Stats()
	if st.TornTail {
		c["torn tail of a journal"]++
	}
	c["REPLACE"] += st.Taken[store.OpReplace]
	c["void"] += st.Taken[store.OpVoid]
	c["tombstone written"] += st.Taken[store.OpDelete]
	c["tombstone trimmed"] += st.Taken[store.OpForget]
	if n.OSD == nil {
		return
	}
	e := n.OSD.Events()
	c["lost reply answered from a pair"] += e.PairAnswers
	c["retry joined the first try"] += e.Joined
	c["primary changed with writes in flight"] += e.Interrupted
	c["lock ran out"] += e.Lapsed
	c["fence hit"] += e.Fenced
	c["request waited for its object to be recovered"] += e.Blocked
	c["read waited for the commit of its version"] += e.ReadWaits
	c["read left to the primary"] += e.Unsettled
	c["copy repaired on read"] += e.Repaired
	c["unreadable change undone"] += e.Undone
	c["deadline passed"] += e.Late
	c["sync"] += e.Syncs
	c["writer of unsynced changes dropped"] += e.Dropped
	c["no space"] += e.Full
	c["change undone since a member had no space"] += e.Unmade
	c["change begun anew since a member had no room for one more version"] += e.Yielded
	c["object recovered"] += n.OSD.RecoveryStat().Objects
}

// collect adds up what a client counted.
func (p *process) collect() {
	if p.c == nil {
		return
	}
	p.s.r.report.Coverage["client answered another time"] += p.c.Stats.Retries
	p.s.r.report.Coverage["lazy change written again"] += p.c.Stats.Replayed
}

// coverErr counts how operations end that do not succeed.
func (r *run) coverErr(err error) {
	if err == nil {
		return
	}
	for _, e := range []struct {
		err  error
		what string
	}{{client.ErrFenced, "operation ended fenced"}, {client.ErrExpired, "operation ended late"}, {client.ErrNoSpace, "no space"}, {volume.ErrFenced, "operation ended fenced"},
		{volume.ErrExpired, "operation ended late"}, {volume.ErrNoSpace, "no space"}} {
		if errors.Is(err, e.err) {
			r.cover(e.what)
		}
	}
}

// operator runs f on the operator's loop.
func (r *run) operator(f func()) { r.admin.Loop().Post(&loop.Task{Run: f}) }

// scribble writes an object of a passing image, then calls done.
func (r *run) scribble(id layout.Inode, done func()) {
	s := r.admin.NewSession(nil)
	ref := r.admin.Loop().Alloc(16 << 10)
	op := &client.Op{Kind: client.Write, Session: s, Inode: id, Offset: uint64(r.plan.Config.Store.BlockSize) - 8<<10, Len: 16 << 10}
	op.Pieces = []client.Piece{{Ref: ref, Len: 16 << 10}}
	op.Done = func(*client.Op) {
		ref.Release()
		s.Close(nil)
		done()
	}
	r.admin.Submit(op)
}

// fill writes whole objects until there is no room or the image is full, then calls done.
func (r *run) fill(id layout.Inode, size uint64, done func()) {
	s := r.admin.NewSession(nil)
	n := uint64(r.plan.Config.Store.BlockSize)
	ref := r.admin.Loop().Alloc(int(n))
	op := &client.Op{Kind: client.Write, Session: s, Inode: id, Len: n}
	op.Pieces = []client.Piece{{Ref: ref, Len: int(n)}}
	op.Done = func(*client.Op) {
		if op.Offset += n; op.Err == nil && op.Offset < size && !r.ending {
			r.admin.Submit(op)
			return
		}
		r.coverErr(op.Err)
		ref.Release()
		s.Close(nil)
		done()
	}
	r.admin.Submit(op)
}

// missing is what was to be come across and was not.
func missing(coverage map[string]uint64, draw int) (list []string) {
	for _, what := range requiredOf(draw) {
		if coverage[what] == 0 {
			list = append(list, what)
		}
	}
	return list
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
