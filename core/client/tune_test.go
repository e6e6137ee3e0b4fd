package client_test

import (
	"errors"
	"testing"
	"time"

	"holdfast/core/client"
	"holdfast/core/client/clienttest"
	"holdfast/core/wire"
)

func TestTuneReachesWhatWaits(t *testing.T) {
	x := clienttest.New(t, 1, func(o *client.Options) { o.RetryInterval, o.EIORetryInterval = time.Minute, time.Hour })
	x.Do(x.Write(0, 4096, 1))
	x.OSDs[1].Errno = []int64{wire.EIO, wire.EIO}
	op := x.Write(0, 4096, 2)
	x.Client.Submit(op)
	x.W.Run(20 * time.Second)
	if !op.Active() || x.Client.Stats.Retries != 1 {
		t.Fatalf("after 20 s of an hour: %d retries, error %v", x.Client.Stats.Retries, op.Err)
	}
	n := x.Client.Tuning()
	n.EIORetryInterval = time.Second
	x.Client.Tune(n)
	start := x.W.Elapsed()
	x.Await(op)
	if d := x.W.Elapsed() - start; op.Err != nil || d < time.Second || d > 1200*time.Millisecond {
		t.Errorf("done after %v with %v, want one more try at once and one after a second", d, op.Err)
	}
	if got := x.Client.Tuning(); got != n {
		t.Errorf("Tuning() = %+v, want %+v", got, n)
	}
	n.EIORetryInterval = 0
	x.Client.Tune(n)
	x.OSDs[1].Errno = []int64{wire.EIO}
	op = x.Write(0, 4096, 3)
	if x.Finish(op); !errors.Is(op.Err, client.ErrIO) {
		t.Errorf("error %v, want ErrIO", op.Err)
	}
	// The disks are full, and waiting for space is switched off meanwhile.
	for range 100 {
		x.OSDs[1].Errno = append(x.OSDs[1].Errno, wire.ENOSPC)
	}
	op = x.Write(0, 4096, 4)
	x.Client.Submit(op)
	x.W.Run(5 * time.Second)
	if !op.Active() {
		t.Fatalf("a write to full disks ended: %v", op.Err)
	}
	n.RetryENOSPC = false
	x.Client.Tune(n)
	start = x.W.Elapsed()
	if x.Run("the end", func() bool { return !op.Active() }); !errors.Is(op.Err, client.ErrNoSpace) || x.W.Elapsed()-start > 100*time.Millisecond {
		t.Errorf("error %v after %v, want ErrNoSpace at once", op.Err, x.W.Elapsed()-start)
	}
}

// A refusal as late says that no try of the write is begun any more, which holds only while later tries have later deadlines.
func TestShorterOpTTLBringsNoEarlierDeadline(t *testing.T) {
	x := clienttest.New(t, 1, func(o *client.Options) { o.OpTTL = 30 * time.Second })
	x.Do(x.Write(0, 4096, 1))
	osd := x.OSDs[1]
	deadline := func() uint64 {
		var m wire.ReadWrite
		if err := m.Decode(&osd.Seen[len(osd.Seen)-1]); err != nil {
			t.Fatal(err)
		}
		return m.Deadline
	}
	osd.Lose = 1
	op := x.Write(0, 4096, 2)
	x.Client.Submit(op)
	x.Run("the first try", func() bool { return len(osd.Seen) == 2 })
	first := deadline()
	n := x.Client.Tuning()
	n.OpTTL = time.Second
	x.Client.Tune(n)
	x.Await(op)
	if len(osd.Seen) != 3 || deadline() <= first {
		t.Errorf("try %d has deadline %d, the first had %d", len(osd.Seen)-1, deadline(), first)
	}
	x.Do(x.Write(0, 4096, 3))
	if left := time.Duration(deadline() - uint64(osd.Loop.Now())); left > time.Second {
		t.Errorf("a new write may be begun for %v, want at most the new op_ttl", left)
	}
}
