package store

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
)

// smallWrites has depth clients write small pieces here and there for some time and returns the slowest write of each second, and how many writes there were in the second half.
func smallWrites(t *testing.T, throttle Throttle) (slowest []time.Duration, late int) {
	t.Helper()
	const objects, depth, length = 240, 16, 24 * time.Second
	r := newRigOn(t, 1, 64<<20, Config{BlockSize: 128 << 10, Granularity: 4096, JournalSize: 32 << 20}, split{meta: "m"})
	for n := uint64(0); n < objects; n++ {
		r.write(n, 0, 1, 0, fill(128<<10, 'a'))
	}
	r.w.Run(3 * time.Second)
	// A disk that turns: each of the flusher's 32 writes takes its turn, 150 in a second.
	r.w.Disk("d").SetLatency(loop.DiskWrite, 200*time.Millisecond, 220*time.Millisecond)
	r.w.Disk("d").SetLatency(loop.DiskFlush, 8*time.Millisecond, 12*time.Millisecond)
	r.s.SetThrottle(throttle)
	began := r.l.Now()
	slowest = make([]time.Duration, length/time.Second)
	versions := make([]layout.Version, objects)
	next, running := uint64(0), 0
	var start func()
	start = func() {
		if r.l.Now().Sub(began) >= length {
			return
		}
		n := next * 37 % objects
		unit := uint32(next*7919/objects) % 32
		next++
		versions[n] = max(versions[n], 1) + 1
		at := r.l.Now()
		op := &Op{Kind: OpWrite, Object: obj(n), Base: versions[n] - 1, Version: versions[n], Interval: 7, Offset: unit * 4096, Len: 4096, Data: r.data(fill(4096, 'b'))}
		op.Done = func(op *Op) {
			running--
			op.Data.Release()
			if op.Err != nil {
				t.Fatal(op.Err)
			}
			now := r.l.Now()
			sec := min(int(now.Sub(began)/time.Second), len(slowest)-1)
			slowest[sec] = max(slowest[sec], now.Sub(at))
			if sec >= len(slowest)/2 {
				late++
			}
			start()
		}
		running++
		r.s.Submit(op)
	}
	for range depth {
		start()
	}
	r.until("the writes", func() bool { return running == 0 })
	r.w.Disk("d").SetLatency(loop.DiskWrite, time.Millisecond, time.Millisecond)
	r.close()
	return slowest, late
}

// TestThrottleKeepsLatencyEven writes to a journal that is much faster than the disk behind it: without the throttle it is full after some seconds, and then clients stand still for long.
func TestThrottleKeepsLatencyEven(t *testing.T) {
	worst := func(all []time.Duration) (d time.Duration) {
		for _, s := range all {
			d = max(d, s)
		}
		return d
	}
	without, n := smallWrites(t, Throttle{})
	with, m := smallWrites(t, Throttle{On: true, IOPS: 100, MBs: 100, Parallelism: 1, Threshold: 50 * time.Microsecond})
	t.Logf("without: the slowest write took %v, %d writes in the last half minute; with: %v, %d writes", worst(without), n, worst(with), m)
	if worst(without) < 3*time.Second {
		t.Errorf("without the throttle nobody waits: %v", without)
	}
	if worst(with) > 200*time.Millisecond || m < 1200 {
		t.Errorf("with the throttle: %d writes, by second the slowest took %v", m, with)
	}
}

// pressed makes a store whose flusher stands still, with so much in the journal that replies are held back for hours.
func pressed(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, 1, 8<<20, smallConfig)
	for n := uint64(1); n <= 5; n++ {
		r.write(n, 0, 1, 0, fill(32<<10, 'a'))
	}
	r.s.o.FlushDepth = 1
	r.w.Run(3 * time.Second)
	r.dev.SetLatency(loop.DiskWrite, 1000*time.Hour, 1000*time.Hour)
	for n := layout.Version(1); r.s.pressure() < 1; n++ {
		r.write(4, n, n+1, 4096, fill(4096, 'b')) // its flush is under way for ever,
		r.write(5, n, n+1, 4096, fill(4096, 'b')) // and that of this one waits for it
	}
	r.s.SetThrottle(Throttle{On: true, IOPS: 1, MBs: 1, Parallelism: 1})
	return r
}

func (r *rig) version(n uint64) layout.Version {
	st, _ := r.s.Newest(obj(n))
	return st.Version
}

// TestHeldRepliesKeepTheirOrder: what comes later on an object, whatever it is, is not done before a reply that is held back; on another object it is.
func TestHeldRepliesKeepTheirOrder(t *testing.T) {
	r := pressed(t)
	var done []string
	submit := func(name string, op *Op) {
		op.Interval, op.Base = 7, r.version(uint64(name[0]-'0'))
		op.Object, op.Version = obj(uint64(name[0]-'0')), op.Base+1
		if op.Len > 0 {
			op.Data = r.data(fill(int(op.Len), 'x'))
		}
		op.Done = func(op *Op) {
			if op.Err != nil {
				t.Errorf("%s: %v", name, op.Err)
			}
			done = append(done, name)
		}
		r.s.Submit(op)
	}
	submit("2 small", &Op{Kind: OpWrite, Len: 4096})
	r.w.Run(time.Millisecond)
	submit("2 delete", &Op{Kind: OpDelete})
	submit("3 zero", &Op{Kind: OpZero, Len: 4096})
	r.w.Run(10 * time.Millisecond)
	if have := fmt.Sprint(done); have != "[3 zero]" {
		t.Errorf("at once: %s", have)
	}
	if st, _ := r.s.State(obj(2)); st.Flags&Tombstone == 0 {
		t.Errorf("what is held back is not visible: %+v", st)
	}
	r.w.Run(2 * time.Second)
	submit("3 small", &Op{Kind: OpWrite, Len: 4096})
	r.w.Run(10 * time.Millisecond)
	if have := fmt.Sprint(done); have != "[3 zero 2 small 2 delete]" {
		t.Errorf("after its time: %s", have)
	}
	r.s.SetThrottle(Throttle{})
	r.w.Run(time.Millisecond)
	if have := fmt.Sprint(done); have != "[3 zero 2 small 2 delete 3 small]" {
		t.Errorf("after the throttle was taken away: %s", have)
	}
}

// TestNothingIsHeldBackAtTheEnd closes a store, or lets its device fail, with replies held back.
func TestNothingIsHeldBackAtTheEnd(t *testing.T) {
	for _, how := range []string{"close", "failure"} {
		r := pressed(t)
		done := 0
		for n := uint64(1); n <= 3; n++ {
			v := r.version(n)
			r.s.Submit(&Op{Kind: OpWrite, Object: obj(n), Base: v, Version: v + 1, Interval: 7, Len: 4096, Data: r.data(fill(4096, 'x')), Done: func(op *Op) {
				if done++; op.Err != nil {
					t.Errorf("%s: %v", how, op.Err)
				}
			}})
		}
		r.w.Run(10 * time.Millisecond)
		if done != 0 || r.s.throttle.n != 3 {
			t.Fatalf("%d are done, %d held back", done, r.s.throttle.n)
		}
		if how == "close" {
			r.s.Close(func() {})
		} else {
			r.s.fail(&DeviceError{Err: syscall.EIO})
		}
		r.w.Run(time.Millisecond)
		if done != 3 {
			t.Errorf("%s: %d of 3 are done", how, done)
		}
	}
}
