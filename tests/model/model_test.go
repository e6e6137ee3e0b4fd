package model

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"holdfast/appliance/daemon"
	"holdfast/core/blocking"
	"holdfast/core/client"
	"holdfast/core/config"
	"holdfast/core/images"
	"holdfast/core/layout"
	"holdfast/tests/stand"
)

// fixedSeeds have every value of every part of a layout between them.
var fixedSeeds = []uint64{66, 67, 68, 69, 70, 71}

const (
	drawnSeeds = 4   // beside them
	steps      = 300 // of a sequence
	// opLimit bounds one step, also while OSDs are started anew.
	opLimit = 60 * time.Second
)

var one = flag.Int64("seed", -1, "run this seed alone")

func TestMain(m *testing.M) { os.Exit(stand.Main(m)) }

func generator(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x686f6c64)) }

// TestClusterAgreesWithASlice runs the sequences.
func TestClusterAgreesWithASlice(t *testing.T) {
	var seeds []uint64
	if *one >= 0 {
		seeds = append(seeds, uint64(*one))
	} else {
		seeds = append(seeds, fixedSeeds...)
		for range stand.Rounds(t, drawnSeeds) {
			seeds = append(seeds, rand.Uint64N(1<<40))
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel() // most of the time is spent waiting for OSDs that start
			t.Logf("again: go test -v ./tests/model -seed %d", seed)
			run(t, seed)
		})
	}
}

// model is an image and what it should hold.
type model struct {
	t    *testing.T
	rng  *rand.Rand
	s    setup
	d    *stand.Daemons
	conn *blocking.Conn
	id   layout.Inode
	want []byte // as long as the image
	past []string
	ops  int // client operations that were compared
}

const image = "model"

func run(t *testing.T, seed uint64) {
	rng := generator(seed)
	s := draw(rng)
	t.Log(s)
	m := &model{t: t, rng: rng, s: s, d: s.start(t)}
	objects := 3 + rng.IntN(6)
	m.want = make([]byte, uint64(objects)*s.blockSize)
	m.d.CLI("create", image, "--size", fmt.Sprint(len(m.want)))
	m.open()
	defer func() { m.close() }()
	began := time.Now()
	for step := range steps {
		if t.Failed() {
			break
		}
		switch x := rng.IntN(1000); {
		case x < 12:
			m.resize()
		case x < 16:
			n := rng.IntN(s.osds) + 1
			m.note("kill OSD %d", n)
			m.d.KillChild(n)
		case x < 17:
			m.note("kill all OSDs")
			for n := 1; n <= s.osds; n++ {
				m.d.KillChild(n)
			}
		case x < 20:
			m.check("of the whole image")
		case x < 22:
			m.note("connect anew")
			m.close()
			m.open()
		case x < 200:
			m.batch(2 + rng.IntN(14))
		default:
			m.batch(1)
		}
		if step == steps/2 { // at least once
			n := rng.IntN(s.osds) + 1
			m.note("kill OSD %d", n)
			m.d.KillChild(n)
		}
	}
	m.check("at the end of the sequence")
	m.restart()
	m.check("after all OSDs were started anew")
	m.eachCopy()
	t.Logf("%d operations in %v", m.ops, time.Since(began).Round(time.Millisecond))
}

// note remembers what was done, for messages.
func (m *model) note(format string, args ...any) {
	m.past = append(m.past, fmt.Sprintf(format, args...))
	if testing.Verbose() && *one >= 0 {
		m.t.Log(m.past[len(m.past)-1])
	}
}

// wrong fails the test with what was done at last.
func (m *model) wrong(format string, args ...any) {
	m.t.Helper()
	m.t.Errorf("%s\nthe last steps were:", fmt.Sprintf(format, args...))
	for _, p := range m.past[max(0, len(m.past)-25):] {
		m.t.Log(p)
	}
	m.t.FailNow()
}

func (m *model) open() {
	m.t.Helper()
	v, err := config.Load(config.Sources{Flags: map[string]string{"etcd_address": m.d.Etcd, "loop": m.s.loop}})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(m.t.Context(), opLimit)
	defer cancel()
	if m.conn, err = daemon.OpenClient(ctx, v, slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
		m.t.Fatal(err)
	}
	i, err := m.conn.OpenImage(image)
	if err != nil {
		m.t.Fatal(err)
	}
	if m.id = i.Inode; i.Size != uint64(len(m.want)) {
		m.wrong("the image has %d bytes, wanted %d", i.Size, len(m.want))
	}
}

func (m *model) close() {
	if m.conn == nil {
		return
	}
	if err := m.conn.Close(); err != nil {
		m.t.Errorf("close the client: %v", err)
	}
	m.conn = nil
}

// do runs f on the client's loop, which calls done once.
func (m *model) do(f func(c *client.Client, s *client.Session, done func(error))) error {
	ctx, cancel := context.WithTimeout(m.t.Context(), opLimit)
	defer cancel()
	return m.conn.Do(ctx, f)
}

// resize changes the image's size; what lies beyond the smaller one is zeroes when it grows again.
func (m *model) resize() {
	m.t.Helper()
	size := uint64(len(m.want)) + m.s.blockSize/2
	if m.rng.IntN(2) == 0 || size > 12*m.s.blockSize {
		size = m.s.blockSize + m.rng.Uint64N(uint64(len(m.want)))
	}
	size = size / 4096 * 4096
	m.note("resize from %d to %d", len(m.want), size)
	if err := m.do(func(c *client.Client, _ *client.Session, done func(error)) {
		images.Resize(c, image, size, images.ResizeOptions{Shrink: true}, done)
	}); err != nil {
		m.wrong("resize to %d: %v", size, err)
	}
	next := make([]byte, size)
	copy(next, m.want)
	m.want = next
}

// check reads the whole image.
func (m *model) check(when string) {
	m.t.Helper()
	m.note("read all %s", when)
	ctx, cancel := context.WithTimeout(m.t.Context(), opLimit)
	defer cancel()
	got := make([]byte, len(m.want))
	if err := m.conn.ReadAt(ctx, m.id, got, 0); err != nil {
		m.wrong("%s: %v", when, err)
	}
	for i := range got {
		if got[i] != m.want[i] {
			m.wrong("%s: byte %d (object %d, %d in it) is %#x, wanted %#x", when, i, uint64(i)/m.s.blockSize, uint64(i)%m.s.blockSize, got[i], m.want[i])
		}
	}
}

// restart stops and starts every OSD, half of them by kill -9.
func (m *model) restart() {
	m.t.Helper()
	m.note("start all OSDs anew")
	m.close()
	m.d.AwaitActive(opLimit)
	for n := 1; n <= m.s.osds; n++ {
		if m.rng.IntN(2) == 0 {
			m.d.OSDs[n].Kill()
		} else if code := m.d.OSDs[n].Stop(30 * time.Second); code != 0 {
			m.t.Errorf("OSD %d ended with code %d after SIGTERM", n, code)
		}
	}
	for n := 1; n <= m.s.osds; n++ {
		m.d.StartOSD(n)
	}
	m.d.AwaitActive(opLimit)
	m.open()
}

// eachCopy reads the image while one OSD at a time answers alone, where each of them has a copy of everything.
func (m *model) eachCopy() {
	if m.s.copies < 2 || m.s.copies != m.s.osds {
		return
	}
	alone := m.rng.IntN(m.s.osds) + 1
	m.note("only OSD %d stays", alone)
	for n := 1; n <= m.s.osds; n++ {
		if n != alone {
			m.d.OSDs[n].Signal(syscall.SIGTERM)
		}
	}
	for n := 1; n <= m.s.osds; n++ {
		if n != alone {
			m.d.OSDs[n].Wait(30 * time.Second)
		}
	}
	m.check(fmt.Sprintf("from OSD %d alone", alone))
}

// expected says whether an Op may end like this.
func expected(got error, mismatch int64) error {
	var e *client.MismatchError
	switch {
	case mismatch < 0:
		return got
	case !errors.As(got, &e):
		return fmt.Errorf("ended with %v, wanted a mismatch at %d", got, mismatch)
	case e.Offset != uint64(mismatch):
		return fmt.Errorf("the mismatch is said to be at %d, it is at %d", e.Offset, mismatch)
	}
	return nil
}
