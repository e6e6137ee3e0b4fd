package stand

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BlockSize is the unit of Load.
const BlockSize = 4096

// Load writes numbered stamps into blocks of an image and knows what each block may hold: the last stamp that was acknowledged, or, when a write ended without an answer, that
// one too. Each block belongs to one worker, which has one request under way; workers share objects.
type Load struct {
	t      testing.TB
	Blocks int
	Pace   time.Duration // each worker's wait after an answer
	salt   uint64
	dial   func() (*NBD, error)
	state  []blockState // each touched by its worker only, by Verify when none runs

	stop   chan struct{}
	wg     sync.WaitGroup
	Writes atomic.Int64 // acknowledged
	Reads  atomic.Int64 // compared
	lost   atomic.Int64 // connections

	mu      sync.Mutex
	fault   error          // guarded by mu; the first wrong answer
	slowest time.Duration  // guarded by mu; of one request
	last    time.Time      // guarded by mu; of any answer
	gap     time.Duration  // guarded by mu; the longest time without any answer
	errs    map[string]int // guarded by mu; of requests, by text
}

type blockState struct {
	acked uint64 // number of the last stamp that was acknowledged or read; 0: zeroes
	tried uint64 // the last one that was sent
	open  bool   // whether tried ended without an answer
}

// NewLoad makes a load over the first blocks of an image that has only zeroes there. dial connects to it.
func NewLoad(t testing.TB, blocks int, dial func() (*NBD, error)) *Load {
	return &Load{t: t, Blocks: blocks, salt: rand.Uint64(), dial: dial, state: make([]blockState, blocks), errs: map[string]int{}}
}

var table = crc64.MakeTable(crc64.ECMA)

// stamp fills a block: salt, block, number, then noise made from them, then a checksum.
func (l *Load) stamp(p []byte, block int, number uint64) {
	if number == 0 {
		clear(p)
		return
	}
	binary.LittleEndian.PutUint64(p, l.salt)
	binary.LittleEndian.PutUint64(p[8:], uint64(block))
	binary.LittleEndian.PutUint64(p[16:], number)
	x := l.salt ^ uint64(block)*0x9e3779b97f4a7c15 ^ number
	for i := 24; i < len(p)-8; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(p[i:], x)
	}
	binary.LittleEndian.PutUint64(p[len(p)-8:], crc64.Checksum(p[:len(p)-8], table))
}

// number says which stamp a block holds.
func (l *Load) number(p []byte, block int) (uint64, error) {
	want := make([]byte, len(p))
	if bytes.Equal(p, want) {
		return 0, nil
	}
	n := binary.LittleEndian.Uint64(p[16:])
	if l.stamp(want, block, n); n != 0 && bytes.Equal(p, want) {
		return n, nil
	}
	return 0, fmt.Errorf("block %d holds no stamp of its own: %x... (its header names block %d, number %d)", block, p[:32], binary.LittleEndian.Uint64(p[8:]), n)
}

// check compares what was read with what may be there.
func (l *Load) check(p []byte, block int) error {
	s := &l.state[block]
	n, err := l.number(p, block)
	switch {
	case err != nil:
		return err
	case n == s.acked && !s.open:
		return nil
	case s.open && (n == s.acked || n == s.tried):
		s.acked, s.open = n, false // what was read once stays read
		return nil
	}
	return fmt.Errorf("block %d holds stamp %d; stamp %d was acknowledged, %d was the last to be sent (unanswered: %v)", block, n, s.acked, s.tried, s.open)
}

// Start lets workers write and read at random until Stop. A worker whose connection ends waits and connects again.
func (l *Load) Start(workers int) {
	l.stop = make(chan struct{})
	l.mu.Lock()
	l.last, l.gap, l.slowest = time.Now(), 0, 0
	l.mu.Unlock()
	for w := range workers {
		l.wg.Go(func() { l.work(w, workers) })
	}
}

// AwaitWrites waits until n more writes have been acknowledged, for what follows needs them, however slow the machine is.
func (l *Load) AwaitWrites(n int64) {
	l.t.Helper()
	from := l.Writes.Load()
	for end := time.Now().Add(time.Minute); l.Writes.Load() < from+n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("%d of %d writes were acknowledged within a minute; errors: %v", l.Writes.Load()-from, n, l.Errors())
		}
	}
}

// Stop ends the workers after their present request.
func (l *Load) Stop() {
	close(l.stop)
	l.wg.Wait()
}

// StopWithin is Stop, and fails the test when a request is not answered within limit.
func (l *Load) StopWithin(limit time.Duration) {
	l.t.Helper()
	ended := make(chan struct{})
	go func() {
		l.Stop()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(limit):
		l.t.Fatalf("a request is not answered within %v of the end of the load", limit)
	}
}

func (l *Load) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// connection is the worker's connection, made again as long as it takes.
func (l *Load) connection() *NBD {
	for !l.stopped() {
		if c, err := l.dial(); err == nil {
			return c
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

func (l *Load) work(w, workers int) {
	rng := rand.New(rand.NewPCG(l.salt, uint64(w)))
	p := make([]byte, BlockSize)
	c := l.connection()
	if c == nil {
		return
	}
	defer func() { c.Close() }()
	for !l.stopped() {
		block := rng.IntN((l.Blocks-w+workers-1)/workers)*workers + w
		s := &l.state[block]
		began := time.Now()
		var err error
		if rng.IntN(4) == 0 || s.open {
			if _, err = c.ReadAt(p, int64(block)*BlockSize); err == nil {
				if e := l.check(p, block); e != nil {
					l.wrong(e)
					return
				}
				l.Reads.Add(1)
			}
		} else {
			s.tried++
			s.open = true
			l.stamp(p, block, s.tried)
			if _, err = c.WriteAt(p, int64(block)*BlockSize); err == nil {
				s.acked, s.open = s.tried, false
				l.Writes.Add(1)
			}
		}
		l.answered(began, err)
		if err == nil {
			time.Sleep(l.Pace)
			continue
		}
		var e NBDError
		if errors.As(err, &e) {
			continue // an answer: it stays open whether the write took effect
		}
		l.lost.Add(1)
		c.Close()
		next := l.connection()
		if next == nil {
			return
		}
		c = next
	}
}

func (l *Load) wrong(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault == nil {
		l.fault = err
	}
}

func (l *Load) answered(began time.Time, err error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, now.Sub(began))
	if err != nil {
		l.errs[err.Error()]++
		return
	}
	l.gap = max(l.gap, now.Sub(l.last))
	l.last = now
}

// Pause is the longest time without any answer, and the slowest single request, since Start.
func (l *Load) Pause() (gap, slowest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.gap, time.Since(l.last)), l.slowest
}

// Errors are the errors that clients saw, with how often.
func (l *Load) Errors() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]int{}
	for k, v := range l.errs {
		out[k] = v
	}
	return out
}

// Fault is the first wrong answer.
func (l *Load) Fault() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault
}

// Verify reads every block, while no worker runs, and fails the test if one holds what it may not.
func (l *Load) Verify() {
	l.t.Helper()
	if err := l.Fault(); err != nil {
		l.t.Fatalf("wrong data under load: %v", err)
	}
	c, err := l.dial()
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.Close()
	const run = 256
	p := make([]byte, run*BlockSize)
	bad := 0
	for block := 0; block < l.Blocks; block += run {
		n := min(run, l.Blocks-block)
		if _, err := c.ReadAt(p[:n*BlockSize], int64(block)*BlockSize); err != nil {
			l.t.Fatalf("read blocks %d to %d: %v", block, block+n, err)
		}
		for i := range n {
			if err := l.check(p[i*BlockSize:(i+1)*BlockSize], block+i); err != nil {
				l.t.Errorf("LOST: %v", err)
				if bad++; bad > 10 {
					l.t.FailNow()
				}
			}
		}
	}
}
