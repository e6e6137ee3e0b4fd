package scenarios

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/appliance/daemon"
	"holdfast/core/client"
	"holdfast/core/config"
	"holdfast/tests/stand"
)

// shortOfSpace is an image that is larger than its pool, and what it must hold.
type shortOfSpace struct {
	t    *testing.T
	conn disk
	want []byte
	may  []byte // of blocks whose last write was refused, what they may hold instead: a large write goes to several objects, some of which may have had space
	set  []byte // by block: unknown once its write was refused, else what it holds
}

// What a block holds.
const (
	nothing   = iota
	asWritten // want
	either    // want or may
)

// piece is how much is written at once at first, as in the original.
const piece = 4 << 20

// full reports whether an error says that there is no space, as a client sees it.
func full(err error) bool { return errors.Is(err, stand.ENOSPC) || errors.Is(err, client.ErrNoSpace) }

// write writes noise, n workers at once, each a part of the image at an offset that next gives; -1: no more. It ends with the first that is refused, as fio does, and returns how many were done and refused.
func (s *shortOfSpace) write(workers, size int, next func() int) (done, refused int64) {
	s.t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex // guards next
	var ok, no atomic.Int64
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), uint64(size)))
			data := make([]byte, size)
			for no.Load() == 0 {
				mu.Lock()
				off := next()
				mu.Unlock()
				if off < 0 {
					return
				}
				noise(rng, data)
				_, err := s.conn.WriteAt(data, int64(off))
				switch {
				case err == nil:
					ok.Add(1)
					copy(s.want[off:], data)
					for b := off / block; b < (off+size)/block; b++ {
						s.set[b] = asWritten
					}
				case full(err):
					no.Add(1)
					copy(s.may[off:], data)
					for b := off / block; b < (off+size)/block; b++ {
						s.set[b] = either
					}
				default:
					s.t.Errorf("write %d bytes at %d: %v, wanted it done or refused for lack of space", size, off, err)
					no.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return ok.Load(), no.Load()
}

// inOrder gives each piece once.
func (s *shortOfSpace) inOrder() func() int {
	off := -piece
	return func() int {
		if off += piece; off+piece > len(s.want) {
			return -1
		}
		return off
	}
}

// compare reads the image, and takes over what refused writes have left.
func (s *shortOfSpace) compare(when string) {
	s.t.Helper()
	got, zero := make([]byte, 1<<20), make([]byte, block)
	for off := 0; off < len(s.want); off += len(got) {
		if _, err := s.conn.ReadAt(got, int64(off)); err != nil {
			s.t.Fatalf("%s: read at %d: %v", when, off, err)
		}
		for i := 0; i < len(got); i += block {
			have, want, may := got[i:i+block], s.want[off+i:off+i+block], s.may[off+i:off+i+block]
			switch s.set[(off+i)/block] {
			case nothing:
				want = zero
			case either:
				if bytes.Equal(have, may) {
					copy(want, may)
				}
				s.set[(off+i)/block] = asWritten
			}
			if !bytes.Equal(have, want) {
				s.t.Fatalf("LOST: %s: at %d is neither what was acknowledged nor what was refused since", when, off+i)
			}
		}
	}
}

// impatient opens an image with the client library so that writes do not wait for space.
func (c *cluster) impatient(image string) disk {
	c.t.Helper()
	v, err := config.Load(config.Sources{Flags: map[string]string{"etcd_address": c.Etcd, "client_retry_enospc": "false"}})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), settle)
	defer cancel()
	conn, err := daemon.OpenClient(ctx, v, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		c.t.Fatal(err)
	}
	i, err := conn.OpenImage(image)
	if err != nil {
		_ = conn.Close()
		c.t.Fatal(err)
	}
	return &lazyDisk{conn, i.Inode}
}

// enospcs are the pools that are filled.
func enospcs(t *testing.T) {
	for _, code := range []string{"", "2+1"} {
		for _, commit := range []string{"all", "small", "none"} {
			t.Run(fmt.Sprintf("%s,commit=%s", map[string]string{"": "copies=2", "2+1": "xor=2+1"}[code], commit), func(t *testing.T) {
				t.Parallel()
				enospc(t, stand.Plan{OSDs: 3, Copies: 2, Code: code, MinSize: 2, OSDSize: 200 << 20, Sparse: true, PGs: 16, Pool: []string{"--immediate_commit", commit}, Gateway: []string{"--client_retry_enospc=false"}}, commit)
			})
		}
	}
}

// enospc: OSDs of 200 MiB, and 500 MiB are written: it fails for lack of space, with 4 pieces at once, and with 32 over objects that are partly written. After that 4k writes over what is there are done: whatever was
// begun and refused has been undone. Ours also looks at what is there, asks what `status` says, and removes the image.
func enospc(t *testing.T, plan stand.Plan, commit string) {
	c := start(t, plan, "")
	const size = 500 << 20
	c.CLI("create", "testimg", "--size", "500M")
	s := &shortOfSpace{t: t, want: make([]byte, size), may: make([]byte, size), set: make([]byte, size/block)}
	if commit == "all" {
		s.conn = newMirrorOn(c, "small", 1<<20, c.impatient).conn // over NBD it needs to be there
		s.conn.Close()
		conn, err := c.Dial("testimg")()
		if err != nil {
			t.Fatal(err)
		}
		s.conn = conn
	} else {
		s.conn = c.impatient("testimg")
	}
	defer func() { s.conn.Close() }()
	for _, depth := range []int{4, 32} {
		done, refused := s.write(depth, piece, s.inOrder())
		if refused == 0 {
			t.Fatalf("%d pieces at once: all of 500 MiB went into OSDs of 200 MiB", depth)
		}
		t.Logf("%d pieces at once: %d were written before one was refused", depth, done)
		_ = s.conn.Flush()
		s.compare(fmt.Sprintf("with %d pieces at once", depth))
	}
	// What is there can be overwritten.
	var there []int
	for b, set := range s.set {
		if set == asWritten && !bytes.Equal(s.want[b*block:(b+1)*block], make([]byte, block)) {
			there = append(there, b*block)
		}
	}
	left := 4000
	rng := rand.New(rand.NewPCG(1, 2))
	rng.Shuffle(len(there), func(i, k int) { there[i], there[k] = there[k], there[i] })
	done, refused := s.write(32, block, func() int {
		if left--; left < 0 || left >= len(there) {
			return -1
		}
		return there[left]
	})
	if refused > 0 || done < 4000 {
		t.Errorf("%d writes over what is there were done and %d refused", done, refused)
	}
	if err := s.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	s.compare("overwritten")
	c.every("every PG is whole", pg.clean)
	c.warned("full (")   // or nearly: the last blocks of an OSD may be of no use for want of others
	if plan.Code != "" { // a third of what is read is computed
		c.kill(1, true)
		c.every("every PG is active", func(p pg) bool { return p.has("active") })
		s.compare("without OSD 1")
		c.revive(1)
		c.awaitClean()
	}
	s.conn.Close()
	c.CLI("rm", "testimg")
	m := newMirror(c, "after", 64<<20)
	for end := time.Now().Add(settle); ; time.Sleep(100 * time.Millisecond) {
		_, err := m.conn.WriteAt(m.want[:block], 0)
		if err == nil {
			break
		}
		if !full(err) || time.Now().After(end) {
			t.Fatalf("write after the image was removed: %v", err)
		}
	}
	m.fill()
	m.compare("written after the image was removed")
	m.conn.Close()
	c.quiet()
	if plan.Code == "" {
		c.sameCopies(plan.Copies)
	}
}

// warned waits until `status` warns of something.
func (c *cluster) warned(text string) {
	c.t.Helper()
	var last []string
	for end := time.Now().Add(settle); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		v, err := read[struct{ Warnings []string }](c, "status")
		if last = v.Warnings; err == nil && strings.Contains(strings.Join(last, "\n"), text) {
			return
		}
	}
	c.t.Errorf("not within %v: a warning with %q; there are: %q", settle, text, last)
}
