package primary

import (
	"holdfast/core/layout"
	"holdfast/core/wire"
)

// Lazy changes of erasure-coded objects are unstable until a sync has made them durable on every member: what one of them may lose must not be stable on another. Until then an object has a chain of versions that wait
// (docs/adr/0021-erasure-coded-writes.md).

// chains are the objects of a PG with versions that every member has taken, and that no sync has covered.
type chains struct {
	newest  map[layout.ObjectID]layout.Version // of each of them; nil as a rule
	since   []wire.Versioned                   // since the last sync began, in order
	syncing []wire.Versioned                   // before that
}

// add takes a version that every member has.
func (c *chains) add(id layout.ObjectID, version layout.Version) {
	if c.newest == nil {
		c.newest = make(map[layout.ObjectID]layout.Version)
	}
	c.newest[id] = version
	c.since = append(c.since, wire.Versioned{OID: id, Version: uint64(version)})
}

// durable notes that a durable change of an object is on every member, and with it all that was before.
func (c *chains) durable(id layout.ObjectID) { delete(c.newest, id) }

// has reports whether something of an object waits.
func (c *chains) has(id layout.ObjectID) bool { return c.newest[id] != 0 }

// begin notes that a sync begins, which covers all that is there.
func (c *chains) begin() { c.syncing, c.since = c.since, c.syncing[:0] }

// failed notes that it has failed.
func (c *chains) failed() { c.since, c.syncing = append(c.syncing, c.since...), nil }

// commitChains has committed what a sync has made durable.
func (q *PG) commitChains() {
	c := &q.lazy.chains
	for i, v := range c.syncing {
		newest := c.newest[v.OID]
		last := i+1 == len(c.syncing) || c.syncing[i+1].OID != v.OID // of several in a row the last will do
		if newest == layout.Version(v.Version) {
			delete(c.newest, v.OID)
		} else if newest == 0 || !last {
			continue
		}
		q.commitLater(v.OID, layout.Version(v.Version))
	}
	c.syncing = c.syncing[:0]
}

// crowded reports whether so much waits for commits in our store that what is ours of it should be made durable and committed.
func (p *Primary) crowded() bool {
	st := p.st.Stats()
	return st.Waiting > st.MaxWaiting/2
}

// makeRoom has committed what is ours of what waits somewhere.
func (p *Primary) makeRoom() {
	if p.unsynced() {
		p.syncs.soon()
	}
}
