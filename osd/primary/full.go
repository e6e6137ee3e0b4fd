package primary

import (
	"slices"
	"time"

	"holdfast/core/layout"
	"holdfast/core/peer"
	"holdfast/core/planted"
	"holdfast/core/wire"
	"holdfast/osd/pg"
	"holdfast/osd/store"
)

// What a primary does about full disks (docs/adr/0024-full-disks.md). A change that needs space is begun only when every member has said that there is some; in replicated pools it could not be undone. A chunk
// may need space although the object is there, which only its member knows: that one refuses, and the others undo what they have of the change.

// needsBlock reports whether a change takes a block on members for good, as far as we know.
func (o *op) needsBlock(obj *pg.Object) bool {
	switch {
	case o.kind == wire.ChangeDelete:
		return planted.FullDelete
	case obj.Gone:
		return true
	case o.q.coded != nil || o.kind != wire.ChangeWrite:
		return false
	}
	return !o.p.st.HasBlock(o.id)
}

// roomFor is what can be said of the space for a change.
type roomFor uint8

const (
	hasRoom   roomFor = iota
	noRoom            // a member has none
	roomLater         // what there is may be used by changes under way
)

// room says whether every member has space for one more block, by what their last replies said. st is our own store's.
func (q *PG) room(st *store.Stats) roomFor {
	p := q.p
	least := p.sec.ClientRoom(st)
	for _, osd := range q.others {
		if free, known := p.space[osd]; known {
			least = min(least, free)
		}
	}
	switch {
	case least > uint64(p.taking):
		return hasRoom
	case least == 0 || p.taking == 0:
		return noRoom
	}
	return roomLater
}

// Space notes how many changes that need space we may have under way on another OSD, as it said itself.
func (p *Primary) Space(osd layout.OSDNum, blocks uint64) { p.space[osd] = blocks }

// RecoverySpace notes how many objects recovery may bring to another OSD, as it said itself.
func (p *Primary) RecoverySpace(osd layout.OSDNum, blocks uint64) { p.backfill[osd] = blocks }

// taken is the end of a change that needed space.
func (p *Primary) taken() {
	p.taking--
	if len(p.short) > 0 {
		p.l.Defer(&p.again)
	}
}

// tryShort has the changes that waited for others' space try again, oldest first.
func (p *Primary) tryShort() {
	list := p.short
	p.short = nil
	for _, o := range list {
		o.admit()
	}
}

// patience is how long a change holds what it has on some members while others have no room for one more version that waits for its commit.
const patience = 20 * time.Millisecond

// yields reports whether the change is to be undone where it was made, to begin anew later: others may hold what it waits for, and wait for what it holds.
func (o *op) yields() bool {
	o.p.makeRoom()
	o.later = o.later || o.full || o.p.l.Now().Sub(o.sent) > patience
	return o.later
}

// beginAnew has an operation that was undone everywhere try again, after a pause that grows and is another one for each.
func (o *op) beginAnew() {
	p, x := o.p, o.x
	p.Events.Yielded++
	turn := x.turn
	x.reset()
	x.turn, o.later = turn, false
	o.anews = min(o.anews+1, 5)
	p.l.Arm(&o.afresh, p.l.Now().Add(roomPause*time.Duration(1+p.l.Rand().IntN(1<<o.anews))))
}

// undo has every member drop what it has of a change that one of them refused. The object is ours alone, and nobody has read of the change: it was not committed.
func (o *op) undo() {
	p, q, x := o.p, o.q, o.x
	o.left = q.coded.here.Len()
	for role, osd := range q.coded.roles {
		if osd == 0 {
			continue
		}
		back := wire.Versioned{OID: chunk(o.id, role), Version: uint64(x.base)}
		if planted.RefusedKept && osd != p.o.Self {
			back.Version = uint64(o.ch.Version)
		}
		if osd == p.o.Self {
			q.begin()
			p.sec.Rollback(q.ID, []wire.Versioned{back}, func(err error) {
				o.undone(osd, err)
				q.end()
			})
			continue
		}
		meta := wire.AppendVersioned(nil, back)
		m := wire.Sub{Op: wire.OpSubRollback, Grant: q.grant, Meta: len(meta)}
		call := &peer.Call{Meta: meta}
		m.Encode(&call.Header)
		call.Done = func(call *peer.Call) {
			err := call.Err
			if err == nil {
				err = call.Reply.Err()
			}
			o.undone(osd, err)
		}
		p.hub.Call(osd, call)
	}
}

// undone counts one member that has dropped the change; after the last the client is told. A member that did not drop it ends the interval, and peering has it do so.
func (o *op) undone(osd layout.OSDNum, err error) {
	p, q, x := o.p, o.q, o.x
	o.failed = o.failed || err != nil
	if o.left--; o.left == 0 {
		switch {
		case q.stopped:
			p.put(o) // the client was answered when the interval ended
		case o.failed:
			// The interval is about to end and answers the client; committed puts the operation back.
		default:
			q.Table.Retract(&o.ch, x.base, x.gone)
			if !o.full {
				o.beginAnew()
				break
			}
			p.Events.Full++
			p.Events.Unmade++
			p.refuse(o, wire.ENOSPC)
		}
	}
	if err != nil && !q.stopped {
		p.l.Log().Warn("a member failed to undo a change", "pg", q.ID.String(), "peer", uint64(osd), "err", err)
		p.host.Lost(q.ID, osd, false)
	}
}

// noRoomFor reports whether recovery would fill a member beyond its limit with an object.
func (q *PG) noRoomFor(obj *pg.Object) bool {
	u := obj.Unclean
	if u.Truth.Version == 0 || u.Truth.Tombstone {
		return false
	}
	for i := range u.Lacks {
		if l := &u.Lacks[i]; (l.Have.Version == 0 || l.Have.Tombstone) && !q.p.takesRecovery(l.OSD) {
			return true
		}
	}
	return false
}

// hold puts an object aside that a member has no space for.
func (q *PG) hold(id layout.ObjectID) {
	q.held = append(q.held, id)
	q.p.armRetry()
}

// unhold puts what was put aside back into the backlog when there may be space again.
func (q *PG) unhold() {
	if len(q.held) == 0 {
		return
	}
	if obj := q.Table.Get(q.held[0]); obj != nil && obj.Unclean != nil && q.noRoomFor(obj) {
		return
	}
	for _, id := range q.held {
		if obj := q.Table.Get(id); obj != nil && obj.Unclean != nil && !obj.Recovering {
			q.enqueue(obj.Unclean)
		}
	}
	q.held = nil
}

// stays reports whether objects of an urgency are not moved now, see Stay.
func (q *PG) stays(u urgency) bool {
	return u == moves && slices.Contains(q.p.staying, q.ID.Pool)
}

// Stay says of which pools objects are not moved because the monitor sees that an OSD could not hold them all.
func (p *Primary) Stay(pools []layout.PoolID) {
	if !slices.Equal(p.staying, pools) {
		p.staying = pools
		p.kick()
	}
}

// refuseBlocked answers the writes that wait for an object to which a member has no space. Reads and deletions wait on: these need none.
func (q *PG) refuseBlocked(obj *pg.Object) {
	p := q.p
	var list []*op // a rare path: may allocate
	p.slow.All(func(o *op) {
		if o.waits == obj && o.code != wire.OpRead && o.kind != wire.ChangeDelete {
			o.waiter.Left = true
			list = append(list, o)
		}
	})
	if len(list) == 0 {
		return
	}
	obj.Unblock()
	for _, o := range list {
		p.Events.Full++
		p.refuse(o, wire.ENOSPC)
	}
}

// takesRecovery reports whether an OSD has space for what recovery brings.
func (p *Primary) takesRecovery(osd layout.OSDNum) bool {
	if osd == p.o.Self {
		st := p.st.Stats()
		return p.sec.RecoveryRoom(&st) > uint64(p.recovering)
	}
	free, known := p.backfill[osd]
	return !known || free > uint64(p.recovering)
}

// FullFor lists the members that recovery can bring no more objects, while some wait for that.
func (q *PG) FullFor() (list []layout.OSDNum) {
	if len(q.held)+len(q.resting) == 0 {
		return nil
	}
	for _, osd := range q.members {
		if !q.p.takesRecovery(osd) {
			list = append(list, osd)
		}
	}
	slices.Sort(list)
	return list
}
