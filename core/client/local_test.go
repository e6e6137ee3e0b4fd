package client_test

import (
	"fmt"
	"testing"
	"time"

	"holdfast/core/client"
	"holdfast/core/client/clienttest"
	"holdfast/core/layout"
	"holdfast/core/wire"
)

// lending is three OSDs that hold all PGs of a pool whose members answer reads; OSD 1 is the primary.
func lending(t *testing.T, how, host string) *clienttest.Cluster {
	x := clienttest.New(t, 3, func(o *client.Options) { o.Host = host })
	x.Put("config/pools", fmt.Sprintf(`{"1":{"name":"data","scheme":"replicated","pg_size":3,"pg_minsize":1,"pg_count":4,"local_reads":"%s"}}`, how))
	for _, o := range x.OSDs {
		o.Lent = o.Num != 1
	}
	members(x, "active")
	x.Do(x.Write(0, 4096, 7))
	return x
}

// members has every PG in a state, with all three OSDs.
func members(x *clienttest.Cluster, state string) {
	for pg := 1; pg <= 4; pg++ {
		x.Put(fmt.Sprintf("pg/state/1/%d", pg), fmt.Sprintf(`{"primary":1,"state":[%s],"peers":[1,2,3]}`, `"`+state+`"`))
	}
}

// asked is how many reads each OSD has been sent while f ran.
func asked(x *clienttest.Cluster, f func()) (n [4]int) {
	for _, o := range x.OSDs {
		o.Seen = nil
	}
	f()
	for _, o := range x.OSDs {
		for _, h := range o.Seen {
			if h.Op() == wire.OpRead {
				n[o.Num]++
			}
		}
	}
	return n
}

func read(x *clienttest.Cluster, times int) func() {
	return func() {
		for range times {
			x.Want(0, 4096, 7)
		}
	}
}

func TestReadsGoToEveryMember(t *testing.T) {
	x := lending(t, "random", "")
	if n := asked(x, read(x, 60)); n[1] < 10 || n[2] < 10 || n[3] < 10 || n[1]+n[2]+n[3] != 60 {
		t.Errorf("of 60 reads %v went to OSDs 1, 2 and 3", n[1:])
	}
	members(x, `active","left_on_dead`)
	if n := asked(x, read(x, 30)); n[2] == 0 || n[3] == 0 {
		t.Errorf("of 30 reads %v went to OSDs 1, 2 and 3", n[1:])
	}
	members(x, `active","has_degraded`)
	if n := asked(x, read(x, 30)); n[1] != 30 || n[2]+n[3] != 0 {
		t.Errorf("when not everything is whole %v went to OSDs 1, 2 and 3", n[1:])
	}
}

func TestReadsGoToTheNearest(t *testing.T) {
	for _, c := range []struct {
		host string
		want layout.OSDNum
	}{{"b", 2}, {"c", 3}, {"d", 3}} {
		x := lending(t, "nearest", c.host)
		for n, host := range map[int]string{1: "a", 2: "b", 3: "c"} {
			x.Put(fmt.Sprintf("osd/state/%d", n), fmt.Sprintf(`{"state":"up","addresses":["%s"],"host":"%s","port":7000}`, x.OSDs[layout.OSDNum(n)].Loop.Host(), host))
		}
		x.Put("config/node_placement", `{"a":{"level":"host","parent":"r1"},"b":{"level":"host","parent":"r1"},"c":{"level":"host","parent":"r2"},"d":{"level":"host","parent":"r2"},"r1":{"level":"rack","parent":"r1"},"r2":{"level":"rack"}}`)
		if n := asked(x, read(x, 20)); n[c.want] != 20 {
			t.Errorf("from host %s %v went to OSDs 1, 2 and 3", c.host, n[1:])
		}
	}
}

func TestMemberThatDoesNotAnswerLeavesItToThePrimary(t *testing.T) {
	x := lending(t, "random", "")
	x.OSDs[2].Errno, x.OSDs[3].Errno = []int64{wire.EAGAIN, wire.EAGAIN}, []int64{wire.EAGAIN}
	before := x.Client.Stats
	n := asked(x, read(x, 40))
	if now := x.Client.Stats; now.Redirected-before.Redirected != 3 || n[1]+n[2]+n[3] != 43 || n[2] < 5 || n[3] < 5 || now.Retries != before.Retries {
		t.Errorf("after three refusals for once %v went to OSDs 1, 2 and 3: %+v", n[1:], now)
	}
	for _, o := range x.OSDs {
		o.Lent = false
	}
	x.W.Run(time.Second)
	start := x.Loop.Now()
	n = asked(x, read(x, 40))
	if took := x.Loop.Now().Sub(start); n[2]+n[3] != 1 || n[1] != 40 || took > 900*time.Millisecond {
		t.Errorf("without a right %v went to OSDs 1, 2 and 3 in %v", n[1:], took)
	}
	x.OSDs[2].Lent, x.OSDs[3].Lent = true, true
	x.W.Run(2 * time.Second)
	if n = asked(x, read(x, 40)); n[2] == 0 || n[3] == 0 {
		t.Errorf("with it again %v went to OSDs 1, 2 and 3", n[1:])
	}
	// What one has been sent and has not answered is asked of the primary when its connection is lost.
	x.OSDs[2].Hold, x.OSDs[3].Hold = true, true
	var ops []*client.Op
	for range 10 {
		op := x.Op(client.Read, 0, 4096)
		x.Client.Submit(op)
		ops = append(ops, op)
	}
	x.W.Run(20 * time.Millisecond)
	if len(x.OSDs[2].Held)+len(x.OSDs[3].Held) == 0 {
		t.Fatal("nothing was asked of the others")
	}
	x.OSDs[2].Reset()
	x.OSDs[3].Reset()
	x.Await(ops...)
	for _, op := range ops {
		if op.Err != nil {
			t.Error(op.Err)
		}
		op.ReleaseParts()
	}
}
