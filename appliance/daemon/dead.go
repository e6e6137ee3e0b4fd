package daemon

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/peer"
	"holdfast/core/wire"
	"holdfast/osd/secondary"
)

// announceTime bounds telling the other OSDs: who does not hear of a death waits for the grants to run out.
const announceTime = time.Second

// ReportDeath says to the cluster that one run of an OSD is over for certain - its process was reaped, or its thread has ended - so that others take over without waiting for
// leases and grants to run out: the other OSDs are told (SUB_DEAD), and its lease is revoked.
func (k *Link) ReportDeath(ctx context.Context, key []byte, dead secondary.Holder) error {
	s, err := k.Snapshot(ctx, cluster.SectionOSDs|cluster.SectionPGs)
	if err != nil {
		return fmt.Errorf("report the death of OSD %d: %w", dead.OSD, err)
	}
	told := make(chan struct{})
	go func() { // ends within announceTime
		defer close(told)
		k.announce(ctx, key, s, dead)
	}()
	err = k.Bury(ctx, s, dead) // at once: an OSD that cannot be told now must not hold up those that can
	<-told
	return err
}

// Bury revokes the lease of a dead run of an OSD, and with it every key that the run held, also one whose request is still on its way to etcd.
func (k *Link) Bury(ctx context.Context, s *cluster.Snapshot, dead secondary.Holder) error {
	st, ok := s.OSDStates.Get(dead.OSD)
	if !ok || uint64(st.Instance) != dead.Instance || st.Lease == 0 {
		return nil // its keys have gone by themselves, or are those of a later run
	}
	_, err := Await(ctx, k.Thread, func(done func(struct{}, error)) {
		k.Registry.Revoke(st.Lease, func(err error) { done(struct{}{}, err) })
	})
	if err != nil {
		return fmt.Errorf("revoke the lease of OSD %d: %w", dead.OSD, k.Explain(err))
	}
	return nil
}

// announce tells every other OSD, at most announceTime long.
func (k *Link) announce(ctx context.Context, key []byte, s *cluster.Snapshot, dead secondary.Holder) {
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	defer cancel()
	var hub *peer.Hub
	payload := cluster.Value(&dead)
	_, err := Await(ctx, k.Thread, func(done func(struct{}, error)) {
		o := PeerOptions(k.Config)
		o.Self, o.Role, o.Instance, o.Key, o.Client = dead.OSD, peer.RoleParent, Instance(), key, fmt.Sprintf("parent of OSD %d", dead.OSD)
		hub = peer.New(k.Thread, o, nil)
		left := 1
		end := func() {
			if left--; left == 0 {
				done(struct{}{}, nil)
			}
		}
		for n, st := range s.OSDStates.All() {
			if n == dead.OSD {
				continue
			}
			hub.SetPeer(n, osdAddresses(st))
			m := wire.Sub{Op: wire.OpSubDead, Meta: len(payload)}
			c := &peer.Call{Meta: payload}
			m.Encode(&c.Header)
			c.Done = func(c *peer.Call) {
				if err := callError(c); err != nil {
					k.Log().Warn("an OSD was not told of a death", "osd", uint64(n), "dead", uint64(dead.OSD), "err", err)
				}
				end()
			}
			left++
			hub.Call(n, c)
		}
		end()
	})
	if err != nil {
		k.Log().Warn("not every OSD was told of a death in time", "dead", uint64(dead.OSD), "err", err)
	}
	k.Do(func() {
		if hub != nil {
			hub.Close()
		}
	})
}

func callError(c *peer.Call) error {
	if c.Err != nil {
		return c.Err
	}
	if r := c.Reply.Retval(); r < 0 {
		return wire.Errno(r)
	}
	return nil
}

func osdAddresses(st *cluster.OSDState) (out []loop.Addr) {
	for _, a := range st.Addresses {
		out = append(out, loop.Addr{Network: "tcp", Address: net.JoinHostPort(a, strconv.FormatUint(uint64(st.Port), 10))})
	}
	return out
}

// Holder is how others know this run of the OSD.
func (d *OSD) Holder() secondary.Holder {
	return secondary.Holder{OSD: d.Num, Instance: d.Instance, Store: d.StoreID}
}

// HolderOf is the run of an OSD that is registered as up.
func HolderOf(n layout.OSDNum, st *cluster.OSDState) secondary.Holder {
	return secondary.Holder{OSD: n, Instance: uint64(st.Instance), Store: st.Store}
}
