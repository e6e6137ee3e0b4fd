package scenarios

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// mirror is an image with its contents kept beside it, as fio's -mirror_file does: what it writes it writes into both. Each worker has a part of the image for itself, so that what the
// image must hold is known at every moment. Any error that the image's client sees is a fault.
type mirror struct {
	t     *testing.T
	c     *cluster
	image string
	want  []byte // each part touched by its worker only, by others while none runs
	conn  disk
	seed  uint64
	runs  uint64

	// MinWrite and MaxWrite bound the sizes of writes, bytes [4 KiB and 128 KiB]. FlushEvery is after how many writes one worker flushes.
	MinWrite, MaxWrite, FlushEvery int
	Pace                           time.Duration // each worker's wait after an answer

	stop   atomic.Bool
	wg     sync.WaitGroup
	writes atomic.Int64

	mu      sync.Mutex
	fault   error         // guarded by mu; the first
	slowest time.Duration // guarded by mu; of one request since begin
}

// block is what a mirror works in.
const block = 4096

// newMirror makes an image and connects to it over NBD.
func newMirror(c *cluster, image string, size int) *mirror {
	c.t.Helper()
	return newMirrorOn(c, image, size, func(image string) disk {
		for end := time.Now().Add(settle); ; time.Sleep(10 * time.Millisecond) {
			conn, err := c.Dial(image)()
			if err == nil {
				return conn
			}
			if time.Now().After(end) { // the gateway may hear of the image after the command line has ended
				c.t.Fatal(err)
			}
		}
	})
}

// newLazyMirror makes an image and opens it with the client library: what it writes is durable when it is flushed.
func newLazyMirror(c *cluster, image string, size int) *mirror {
	c.t.Helper()
	return newMirrorOn(c, image, size, c.openLazy)
}

func newMirrorOn(c *cluster, image string, size int, open func(image string) disk) *mirror {
	c.t.Helper()
	c.CLI("create", image, "--size", strconv.Itoa(size))
	m := &mirror{t: c.t, c: c, image: image, want: make([]byte, size), seed: rand.Uint64(), MinWrite: 4 << 10, MaxWrite: 128 << 10, FlushEvery: 256, Pace: 2 * time.Millisecond}
	m.conn = open(image)
	c.t.Cleanup(func() {
		m.stop.Store(true)
		m.conn.Close()
		m.wg.Wait()
	})
	return m
}

// random is a source of its own for each worker of each run.
func (m *mirror) random(worker int) *rand.Rand {
	m.runs++
	return rand.New(rand.NewPCG(m.seed, m.runs<<16|uint64(worker)))
}

// noise makes p unlike everything else.
func noise(rng *rand.Rand, p []byte) {
	for i := 0; i+8 <= len(p); i += 8 {
		x := rng.Uint64()
		for k := range 8 {
			p[i+k] = byte(x >> (8 * k))
		}
	}
}

// write writes noise to a part of both. It returns when the image has answered.
func (m *mirror) write(rng *rand.Rand, off, n int) error {
	noise(rng, m.want[off:off+n])
	_, err := m.conn.WriteAt(m.want[off:off+n], int64(off))
	if err != nil {
		return fmt.Errorf("write %d bytes of %s at %d: %w", n, m.image, off, err)
	}
	return nil
}

// must fails the test for an error.
func (m *mirror) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// fill writes everything.
func (m *mirror) fill() {
	m.t.Helper()
	rng := m.random(0)
	const step = 1 << 20
	for off := 0; off < len(m.want); off += step {
		m.must(m.write(rng, off, min(step, len(m.want)-off)))
	}
}

// trim makes a hole in both.
func (m *mirror) trim(off, n int) {
	m.t.Helper()
	clear(m.want[off : off+n])
	m.must(m.conn.Trim(int64(off), n))
}

// check compares a part of the image with what it must hold.
func (m *mirror) check(off, n int) error {
	got := make([]byte, n)
	if _, err := m.conn.ReadAt(got, int64(off)); err != nil {
		return fmt.Errorf("read %d bytes of %s at %d: %w", n, m.image, off, err)
	}
	want := m.want[off : off+n]
	if bytes.Equal(got, want) {
		return nil
	}
	bad, first := 0, -1
	for i := 0; i < n; i += block {
		if end := min(i+block, n); !bytes.Equal(got[i:end], want[i:end]) {
			if bad++; first < 0 {
				first = i
			}
		}
	}
	return fmt.Errorf("LOST: %s differs from its mirror in %d blocks of 4 KiB among %d bytes from %d on; the first is at %d: %x..., wanted %x...", m.image, bad, n, off, off+first,
		got[first:first+16], want[first:first+16])
}

// compare compares everything.
func (m *mirror) compare(when string) {
	m.t.Helper()
	const step = 1 << 20
	bad := 0
	for off := 0; off < len(m.want) && bad < 3; off += step {
		if err := m.check(off, min(step, len(m.want)-off)); err != nil {
			m.t.Errorf("%s: %v", when, err)
			bad++
		}
	}
	if bad > 0 {
		m.t.FailNow()
	}
}

// begin lets workers write and read at random until end.
func (m *mirror) begin(workers int) {
	m.t.Helper()
	m.stop.Store(false)
	m.mu.Lock()
	m.slowest = 0
	m.mu.Unlock()
	share := len(m.want) / workers / block * block
	for w := range workers {
		rng := m.random(w)
		m.wg.Go(func() { m.work(rng, w*share, share) })
	}
}

func (m *mirror) work(rng *rand.Rand, from, share int) {
	for i := 1; !m.stop.Load(); i++ {
		n := min(m.MinWrite+rng.IntN((m.MaxWrite-m.MinWrite)/block+1)*block, share)
		off := from + rng.IntN((share-n)/block+1)*block
		began := time.Now()
		var err error
		switch {
		case rng.IntN(3) == 0:
			err = m.check(off, n)
		default:
			if err = m.write(rng, off, n); err == nil {
				m.writes.Add(1)
			}
			if err == nil && i%m.FlushEvery == 0 {
				err = m.conn.Flush()
			}
		}
		m.mu.Lock()
		m.slowest = max(m.slowest, time.Since(began))
		if m.fault == nil && err != nil && !m.stop.Load() {
			m.fault = err
		}
		m.mu.Unlock()
		if err != nil {
			return
		}
		time.Sleep(m.Pace)
	}
}

// end stops the workers after their present request. Any fault, and a request that is not answered, fails the test.
func (m *mirror) end() {
	m.t.Helper()
	m.stop.Store(true)
	ended := make(chan struct{})
	go func() {
		m.wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(settle):
		m.t.Fatalf("%s: a request is not answered within %v", m.image, settle)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault != nil {
		m.t.Fatalf("under load: %v", m.fault)
	}
	m.t.Logf("%d writes so far, none failed; the slowest request took %v", m.writes.Load(), m.slowest.Round(time.Millisecond))
}

// progress waits until the workers have written n times more: the image is served.
func (m *mirror) progress(n int64) {
	m.t.Helper()
	from := m.writes.Load()
	for end := time.Now().Add(settle); m.writes.Load() < from+n; time.Sleep(10 * time.Millisecond) {
		m.mu.Lock()
		fault := m.fault
		m.mu.Unlock()
		if fault != nil {
			m.t.Fatalf("under load: %v", fault)
		}
		if time.Now().After(end) {
			m.t.Fatalf("%s: not %d writes within %v", m.image, n, settle)
		}
	}
}
