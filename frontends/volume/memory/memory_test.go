package memory_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"holdfast/core/loop"
	"holdfast/core/loop/system"
	"holdfast/core/sim"
	"holdfast/frontends/volume"
	"holdfast/frontends/volume/memory"
	"holdfast/frontends/volume/volumetest"
)

func env(t *testing.T, o memory.Options) (*volumetest.Loop, *memory.Device, volumetest.Env) {
	o.Name, o.Size = "disk", 8<<20
	l := volumetest.NewLoop(1, slog.New(slog.NewTextHandler(t.Output(), nil)))
	d := memory.New(o)
	e := volumetest.Manual(l, d)
	e.Resize, e.Remove = d.Resize, d.Remove
	return l, d, e
}

func TestConformance(t *testing.T) {
	for name, o := range map[string]memory.Options{
		"at once":      {},
		"out of order": {MaxDelay: time.Millisecond, Seed: 42, MaxTransfer: 1 << 20, SlowZero: true},
	} {
		t.Run(name, func(t *testing.T) {
			volumetest.Run(t, func(t *testing.T) volumetest.Env {
				_, _, e := env(t, o)
				return e
			})
		})
	}
}

func TestConformanceInTheSimulator(t *testing.T) {
	volumetest.Run(t, func(t *testing.T) volumetest.Env {
		w := sim.NewWorld(1)
		l := w.NewLoop("loop")
		d := memory.New(memory.Options{Name: "disk", Size: 8 << 20, MaxDelay: time.Millisecond})
		return volumetest.Env{
			Loop: l, Device: d, Live: l.Live, On: func(f func()) { f() },
			Wait:   func(cond func() bool) bool { return w.RunUntil(cond, time.Minute) },
			Resize: d.Resize, Remove: d.Remove,
		}
	})
}

func TestConformanceOnThisMachinesLoop(t *testing.T) {
	l, err := system.New(system.Options{Name: "test", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	volumetest.Run(t, func(t *testing.T) volumetest.Env {
		d := memory.New(memory.Options{Name: "disk", Size: 8 << 20, MaxDelay: 10 * time.Microsecond})
		e := volumetest.Running(l, l.(interface{ Lent() int64 }).Lent, d)
		e.Resize, e.Remove = d.Resize, d.Remove
		return e
	})
	l.Stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestFailIsAskedFirst(t *testing.T) {
	boom := errors.New("boom")
	l, d, _ := env(t, memory.Options{Fail: func(op *volume.Op) error {
		if op.Offset == 512 {
			return boom
		}
		return nil
	}})
	h, _ := d.Attach(l, volume.Session{})
	for off, want := range map[uint64]error{0: nil, 512: boom} {
		op := &volume.Op{Kind: volume.Zero, Offset: off, Length: 512, Done: func(*volume.Op) {}}
		h.Submit(op)
		l.Idle(l.Now())
		if op.Err != want {
			t.Errorf("zero at %d: %v, want %v", off, op.Err, want)
		}
	}
}

func TestSilentClientsWriteIsDropped(t *testing.T) {
	l, d, _ := env(t, memory.Options{TTL: time.Second})
	alive := l.Now()
	h, _ := d.Attach(l, volume.Session{Alive: func() loop.Instant { return alive }})
	l.Idle(l.Now().Add(2 * time.Second))
	op := &volume.Op{Kind: volume.Zero, Length: 512, Done: func(*volume.Op) {}}
	h.Submit(op)
	l.Idle(l.Now())
	if !errors.Is(op.Err, volume.ErrExpired) {
		t.Errorf("write of a silent client: %v, want %v", op.Err, volume.ErrExpired)
	}
	op.Kind = volume.Read
	h.Submit(op)
	l.Idle(l.Now())
	if op.Err != nil {
		t.Errorf("read of a silent client: %v", op.Err)
	}
}

func TestCatalogFollowsChanges(t *testing.T) {
	c := memory.NewCatalog(memory.New(memory.Options{Name: "b", Size: 1 << 20}), memory.New(memory.Options{Name: "a", Size: 2 << 20}))
	if got := c.Names(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("Names() = %v", got)
	}
	if !c.Rename("b", "c") || c.Rename("a", "c") {
		t.Error("Rename to a free name is possible, to a taken one is not")
	}
	if _, info, ok := c.Lookup("c"); !ok || info.Name != "c" || info.Size != 1<<20 {
		t.Errorf("Lookup(c) = %+v, %v", info, ok)
	}
	c.Remove("c")
	if _, _, ok := c.Lookup("c"); ok {
		t.Error("a removed device is still there")
	}
}

func TestIdentityDependsOnlyOnTheName(t *testing.T) {
	a, b := memory.New(memory.Options{Name: "x"}).Info().ID, memory.New(memory.Options{Name: "x"}).Info().ID
	if a != b || a == ([16]byte{}) || a == memory.New(memory.Options{Name: "y"}).Info().ID {
		t.Errorf("identities %x and %x", a, b)
	}
}

func TestBlocking(t *testing.T) {
	l, d, _ := env(t, memory.Options{MaxDelay: time.Millisecond, Seed: 1})
	h, _ := d.Attach(l, volume.Session{})
	b := volume.Blocking(h, l)
	result := make(chan error, 1)
	go func() {
		ctx := context.Background()
		result <- func() error {
			p := make([]byte, 3<<20)
			for i := range p {
				p[i] = byte(i * 7)
			}
			if _, err := b.WriteAt(ctx, p, 4096); err != nil {
				return err
			}
			if err := b.Trim(ctx, 4096, 4096); err != nil {
				return err
			}
			clear(p[:4096])
			got := make([]byte, len(p))
			if n, err := b.ReadAt(ctx, got, 4096); err != nil || n != len(p) || !slices.Equal(got, p) {
				return errors.Join(errors.New("what was read differs"), err)
			}
			if _, err := b.ReadAt(ctx, got, 7<<20); !errors.Is(err, volume.ErrRange) {
				return errors.Join(errors.New("read beyond the end"), err)
			}
			canceled, cancel := context.WithCancel(ctx)
			cancel()
			if _, err := b.WriteAt(canceled, p, 0); !errors.Is(err, context.Canceled) {
				return errors.Join(errors.New("canceled write"), err)
			}
			info, err := b.Info(ctx)
			if err != nil || info.Size != 8<<20 {
				return errors.Join(errors.New("info"), err)
			}
			return errors.Join(b.Zero(ctx, 0, 8<<20), b.Flush(ctx))
		}()
	}()
	for {
		select {
		case err := <-result:
			if err != nil {
				t.Error(err)
			}
			if n := l.Live(); n != 0 {
				t.Errorf("%d buffers are still lent", n)
			}
			return
		default:
			l.Turn()
		}
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	l, d, _ := env(t, memory.Options{})
	h, _ := d.Attach(l, volume.Session{})
	b := l.Alloc(4096)
	defer b.Release()
	w := &volume.Op{Kind: volume.Write, Length: 4096, Pieces: []volume.Piece{{Ref: b, Len: 4096}}, Done: func(*volume.Op) {}}
	r := &volume.Op{Kind: volume.Read, Length: 4096, Done: func(op *volume.Op) { op.ReleasePieces() }}
	if n := testing.AllocsPerRun(1000, func() {
		h.Submit(w)
		h.Submit(r)
		l.Idle(l.Now())
	}); n != 0 {
		t.Errorf("a write and a read allocate %v times", n)
	}
}
