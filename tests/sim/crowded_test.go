package sim

import (
	"testing"
	"time"

	"holdfast/core/wire"
	"holdfast/osd/store"
)

// TestStalledSessionCostsItselfOnly has a session write that never says that it has had an answer, so that OSDs must remember each of its requests. When they can remember no more, it is
// refused, and others go on: what they write, and what is recovered.
func TestStalledSessionCostsItselfOnly(t *testing.T) {
	c := start(t, Options{Seed: 9, OSDs: 3, Replicas: 2, MinSize: 1, PGs: 1, DiskSize: 40 << 20, Store: store.Config{BlockSize: 32 << 10, Granularity: 4096, JournalSize: 768 << 10}})
	defer c.W.Close()
	k := c.NewClient(5<<24 | 1)
	refused, sent := 0, 0
	for i := range 1600 {
		m := wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: uint64(i%64) * 4096, Len: 4096, Trailer: wire.Trailer{Session: k.session, Sequence: uint64(i + 1), Low: 1}}
		r, ok := k.Do(m, pattern(4096, byte(i)), 10*time.Second)
		if !ok {
			t.Fatalf("write %d is not answered: %s", i, c.describe())
		}
		sent++
		if r.Retval < 0 {
			refused++
			break
		}
	}
	if refused == 0 {
		t.Errorf("%d writes, of which no answer is ever said to have come, are all remembered", sent)
	}
	other := c.NewClient(6<<24 | 1)
	for i := range 20 {
		r, ok := other.Do(wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: 1<<20 + uint64(i)*4096, Len: 4096}, pattern(4096, byte(i)), 10*time.Second)
		if !ok || r.Retval != 4096 {
			t.Fatalf("another client's write %d: %+v, answered %v", i, r, ok)
		}
	}
}

// TestOldestRequestIsNeverCrowdedOut has sessions wait for the answer to their first request, while others after it are done until OSDs can remember no more. The first requests are done all the same; then what came
// after them is forgotten, and everybody goes on.
func TestOldestRequestIsNeverCrowdedOut(t *testing.T) {
	c := start(t, Options{Seed: 9, OSDs: 3, Replicas: 2, MinSize: 1, PGs: 1, DiskSize: 40 << 20, Store: store.Config{BlockSize: 32 << 10, Granularity: 4096, JournalSize: 768 << 10}})
	defer c.W.Close()
	var clients []*Client
	send := func(k *Client, sequence, low uint64) int64 {
		m := wire.ReadWrite{Op: wire.OpWrite, Inode: image, Offset: sequence % 64 * 4096, Len: 4096, Trailer: wire.Trailer{Session: k.session, Sequence: sequence, Low: low}}
		r, ok := k.Do(m, pattern(4096, byte(sequence)), 10*time.Second)
		if !ok {
			t.Fatalf("request %d of session %x is not answered: %s", sequence, k.session, c.describe())
		}
		return r.Retval
	}
	for i := range uint64(5) {
		k := c.NewClient((10+i)<<24 | 1)
		clients = append(clients, k)
		sequence := uint64(2)
		for send(k, sequence, 1) >= 0 {
			sequence++
		}
	}
	for _, k := range clients {
		if r := send(k, 1, 1); r != 4096 {
			t.Errorf("the oldest request of session %x is answered %d", k.session, r)
		}
	}
	for _, k := range clients {
		if r := send(k, 5000, 5000); r != 4096 {
			t.Errorf("a request of session %x, which has had all answers, is answered %d", k.session, r)
		}
	}
	if r := send(clients[0], 5001, 5000); r != 4096 {
		t.Errorf("a request that is not the oldest is answered %d", r)
	}
}
