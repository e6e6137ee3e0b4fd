package cluster

import (
	"errors"
	"fmt"
	"time"

	"holdfast/core/layout"
	"holdfast/core/registry"
)

// PoolIdentity is pool/identity/<pool>, ours: it exists once for each life of a pool's number, and tells the generation of the pool's PGs, by which a store knows an earlier pool of the
// same number. The generation is in the value, so that it stays the same when the keys are put into another etcd, whose revisions are other ones.
type PoolIdentity struct {
	Meta  `json:"-"`
	Name  string `json:"name"`                 // the pool's name when it was made
	Given int64  `json:"generation,omitempty"` // 0 in clusters of before: then it is Create

	// Earlier is the highest generation that an earlier pool of the number had, as far as etcd knew when the generation was given; nil: that was not written down.
	Earlier *int64 `json:"earlier,omitempty"`

	// How images are cut, which is for life: a pool that says otherwise is not served, since nothing would be found where it is looked for. 0: not written down yet.
	Data   Number `json:"data_chunks,omitempty"`
	Stripe Number `json:"pg_stripe_size,omitempty"` // bytes
}

// fits says whether a pool is cut as it was.
func (id *PoolIdentity) fits(g layout.Geometry) error {
	switch {
	case id.Data != 0 && uint64(id.Data) != uint64(g.DataChunks):
		return fmt.Errorf("its objects are cut into %d chunks of data, and by its pg_size and parity_chunks into %d: correct them", id.Data, g.DataChunks)
	case id.Stripe != 0 && uint64(id.Stripe) != g.PGStripeSize:
		return fmt.Errorf("%d bytes of an image follow each other in one PG, and by its pg_stripe_size, or block_size, %d: correct that", id.Stripe, g.PGStripeSize)
	}
	return nil
}

// cut writes down how a pool is cut, if that is known.
func (id *PoolIdentity) cut(g layout.Geometry) {
	if g.DataChunks != 0 {
		id.Data, id.Stripe = Number(g.DataChunks), Number(g.PGStripeSize)
	}
}

func (id *PoolIdentity) check() error {
	if id.Given < 0 || id.Earlier != nil && *id.Earlier < 0 {
		return errors.New("generation is negative")
	}
	return nil
}

// Forgot reports whether the identity was made by an etcd that had been set back, and had forgotten a pool of the number with that generation: whatever PG of one a store has ever been locked for
// had a record before, which only goes with an etcd that is set back. The two may be one pool.
func (id *PoolIdentity) Forgot(generation int64) bool {
	return id.Earlier != nil && *id.Earlier < generation && generation < id.Generation()
}

// Generation is that of the pool's PGs, above 0.
func (id *PoolIdentity) Generation() int64 {
	if id.Given != 0 {
		return id.Given
	}
	return int64(id.Create)
}

// CreatePoolIdentity is the step that begins a pool's life; it goes into the transaction that first puts the pool's PGs into pg/config, with Absent of its key. A generation of 0 stands
// for the revision of that transaction; earlier is LastGeneration, nil if it is not known; g is what the pool is cut by, zero if it is not known.
func CreatePoolIdentity(p *Pool, generation int64, earlier *int64, g layout.Geometry) registry.Op {
	id := PoolIdentity{Name: p.Name, Given: generation, Earlier: earlier}
	id.cut(g)
	return registry.Op{Kind: registry.Put, Key: PoolIdentityKey(p.ID), Value: mustJSON(id)}
}

// UnknownGeneration is the identity of a pool in a snapshot that was taken before the pool had one: etcd forgot how the pool's life began. Its generation is above those of the number's
// earlier pools in records, and not above that which the pool was really given; stores that know that one put it in when they report. It has no name, by which it is known.
func UnknownGeneration(records []PGRecord) PoolIdentity {
	id := PoolIdentity{Given: 1}
	for i := range records {
		id.Given = max(id.Given, records[i].Generation+1)
	}
	return id
}

// NewGeneration is a generation for a pool that begins its life: above those of every earlier pool of the number. The records tell of those that etcd remembers, the clock (microseconds) is above
// those that it has forgotten: no etcd has made a revision every microsecond. s must hold SectionRecords.
func (s *Snapshot) NewGeneration(pool layout.PoolID, now time.Time) int64 {
	return max(now.UnixMicro(), int64(s.Revision)+1, s.LastGeneration(pool, s.Revision)+1)
}

// LastGeneration is the highest generation in the records of a number's PGs that were written up to a revision, 0 if there is none. s must hold SectionRecords.
func (s *Snapshot) LastGeneration(pool layout.PoolID, until registry.Revision) (last int64) {
	for pg, r := range s.Records.All() {
		if pg.Pool == pool && r.Mod <= until {
			last = max(last, r.Generation)
		}
	}
	return last
}

// KeepGeneration is the transaction part that writes into the identity of a pool of before its generation, and what it is cut by. ok is false when these are there.
func KeepGeneration(pool layout.PoolID, id *PoolIdentity, g layout.Geometry) (op registry.Op, unchanged registry.Compare, ok bool) {
	next := *id
	next.Given = id.Generation()
	if id.Data == 0 {
		next.cut(g)
	}
	key := PoolIdentityKey(pool)
	return registry.Op{Kind: registry.Put, Key: key, Value: mustJSON(&next)}, registry.Unchanged(key, id.Mod), id.Given == 0 || id.Data != next.Data
}
