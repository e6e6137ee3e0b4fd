package sim

import (
	"fmt"
	"slices"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/images"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/core/wire"
)

// stalledClient has a gateway's session write to an image of its own and never say that it has had an answer: OSDs must remember each of its requests, and forget them all when the gateway
// has ended.
func (r *run) stalledClient(f *PlannedFault) func() {
	c := &r.plan.Config
	n := images.New{Name: fmt.Sprintf("stalled%d", f.ID), Size: 4 * uint64(c.Store.BlockSize), Pool: "p"}
	copy(n.Identity[:], n.Name)
	instance := uint64(5000 + f.ID)
	key := cluster.GatewayKey(fmt.Sprintf("stalled.%d", f.ID))
	busy, made, on := true, false, true
	answered, late := false, false
	left := 150 + int(f.N%250)
	var k *Client
	end := func() {
		on = false
		r.c.W.After(6*time.Second, func() { // what it has sent is begun no more then
			late = true
			busy = !answered
		})
		if k != nil {
			k.Loop.Kill()
		}
		r.forget(key)
		r.c.W.After(20*time.Second, func() { r.forget(key) }) // the request that made it may have been on its way so long
		r.removeLater(n.Name, &busy, &made, nil)
	}
	r.operator(func() {
		images.Create(r.admin, n, func(id layout.Inode, err error) {
			answered, busy = true, !late
			if err != nil {
				r.logf("create image %s: %v", n.Name, err)
				return
			}
			made = true
			if !on {
				return
			}
			r.put(key, cluster.Value(&cluster.Gateway{Instance: instance, Host: "stalled"}))
			k = r.c.NewClient(instance<<cluster.SessionBits | 1)
			k.ttl = 4 * time.Second
			sequence := uint64(0)
			var write func(Result)
			write = func(Result) {
				if left--; left < 0 || !on {
					return
				}
				if sequence++; sequence == 200 {
					r.cover("requests remembered that are never acknowledged")
				}
				unit := max(uint64(c.Store.Granularity), blockSize)
				off := r.rng.Uint64N(n.Size/unit) * unit
				k.Begin(wire.ReadWrite{Op: wire.OpWrite, Inode: id, Offset: off, Len: uint32(unit), Trailer: wire.Trailer{Session: k.session, Sequence: sequence, Low: 1}},
					pattern8(unit, byte(sequence)), write)
			}
			for range 8 {
				write(Result{})
			}
		})
	})
	return end
}

// forget deletes a key of the registry, however often that takes.
func (r *run) forget(key string) {
	if !slices.Contains(r.back.forgot, key) {
		r.back.forgot = append(r.back.forgot, key)
	}
	r.c.admin.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Delete, Key: key}}}, func(_ registry.TxnResult, err error) {
		if err != nil {
			r.c.W.After(200*time.Millisecond, func() { r.forget(key) })
		}
	})
}

// pattern8 is n bytes that differ from those of another number.
func pattern8(n uint64, number byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i>>8) ^ number
	}
	return p
}
