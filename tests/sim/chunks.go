package sim

import (
	"bytes"
	"slices"

	"holdfast/core/ec"
	"holdfast/core/layout"
	"holdfast/osd/store"
)

// coded reports whether a pool is erasure-coded: of a run's pools, the first may be.
func (r *run) coded(pool layout.PoolID) bool { return r.plan.Config.Parity > 0 && pool == 1 }

// dataOf is how many members of a pool's PG an object can be read from.
func (r *run) dataOf(pool layout.PoolID) int {
	if r.coded(pool) {
		return r.plan.Config.Data()
	}
	return 1
}

// heldBy is what a store has of an object: its copy, or the newest of its chunks.
func (r *run) heldBy(st *store.Store, object layout.ObjectID) (have store.State) {
	if !r.coded(object.Inode.Pool()) {
		have, _ = st.State(object)
		return have
	}
	for role := range r.nodes { // as many as there are at most, whatever the pool's size is at the moment
		chunk := object.Whole()
		chunk.Stripe |= uint64(role)
		if s, ok := st.State(chunk); ok && s.Version >= have.Version {
			have = s
		}
	}
	return have
}

// chunksAgree checks one object of an erasure-coded pool: there is one chunk of each role, on the OSD that has the role, all of one version, and parity and its bitmaps are those of the data.
func (r *run) chunksAgree(id layout.ObjectID, copies map[layout.ObjectID][]*copyOf) {
	c := &r.plan.Config
	s := r.c.Snapshot()
	g, err := s.Geometry(id.Inode.Pool())
	if err != nil || !slices.ContainsFunc(r.images, func(im *sharedImage) bool { return im.id == id.Inode }) {
		r.fail("object %v belongs to no image", id)
		return
	}
	target, _ := s.PGConfig.Target(layout.PGID{Pool: id.Inode.Pool(), Num: g.PG(id.Stripe)})
	chunks, bitmaps := make([][]byte, c.Replicas), make([][]byte, c.Replicas)
	version := layout.Version(0)
	for role := range c.Replicas {
		chunk := id
		chunk.Stripe |= uint64(role)
		list := copies[chunk]
		var on []layout.OSDNum
		for _, have := range list {
			on = append(on, have.osd)
		}
		if role >= len(target.OSDSet) || len(list) != 1 || list[0].osd != target.OSDSet[role] {
			r.fail("chunk %d of object %v is on OSDs %v, its PG on %v", role, id, on, target.OSDSet)
			return
		}
		op := &list[0].op
		if op.Err != nil {
			if !r.excused(r.nodes[int(list[0].osd)-1]) {
				r.fail("chunk %d of object %v cannot be read on OSD %d: %v", role, id, list[0].osd, op.Err)
			}
			return
		}
		if version == 0 {
			version = op.State.Version
		}
		if op.State.Version != version {
			r.fail("chunk %d of object %v is version %x, chunk 0 is version %x", role, id, op.State.Version, version)
			return
		}
		bitmaps[role] = op.Bitmap
		if chunks[role] = make([]byte, g.BlockSize); op.Data != nil {
			copy(chunks[role], op.Data.Bytes())
		}
	}
	var codes ec.Codes
	code, err := codes.Get(c.Data(), c.Parity)
	if err != nil {
		panic(err) // the configuration is ours
	}
	for what, have := range map[string][][]byte{"its bytes": chunks, "its bitmap": bitmaps} { // order: both are looked at
		parity := make([][]byte, c.Parity)
		for i := range parity {
			parity[i] = make([]byte, len(have[0]))
		}
		if err := code.Encode(have[:c.Data()], parity); err != nil {
			panic(err)
		}
		for i, p := range parity {
			if !bytes.Equal(p, have[c.Data()+i]) {
				r.fail("parity chunk %d of object %v does not go with the data: %s", c.Data()+i, id, what)
			}
		}
	}
	r.cover("chunks of an object compared")
}
