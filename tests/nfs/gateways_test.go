package nfs_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"holdfast/core/loop"
	"holdfast/frontends/nfs"
	"holdfast/frontends/nfs/memtree"
)

// join makes a second server, on a loop of its own, that shares the address of s.
func (s *served) join(t *testing.T, kind string) *served {
	t.Helper()
	o := serve(t, kind, s.tree, nfs.Options{})
	var err error
	for _, x := range []*served{s, o} {
		x.on(func() {
			var ln loop.Listener
			a := "127.0.0.1:0"
			if x == o {
				a = s.addr.String()
			}
			if ln, err = x.s.Listen(loop.Addr{Network: "tcp", Address: a}, loop.ListenOptions{Share: true}); err == nil && x == s {
				s.addr = addrOf(ln)
			}
		})
		if err != nil {
			t.Fatalf("listen together: %v", err)
		}
	}
	return o
}

// Clients of two loops that share an address write neighbouring bytes of one file, at places that share blocks.
func TestTwoLoopsServeOneFile(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			a := serve(t, kind, memtree.New(memtree.Options{}), nfs.Options{})
			b := a.join(t, kind)
			const writers, size = 8, 64_000
			want := make([]byte, size)
			fill(want, 9)
			if f, err := a.mount(t, "/").OpenFile("/shared", 0o644); err != nil {
				t.Fatal(err)
			} else if _, err := f.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			var files []interface {
				Write([]byte) (int, error)
				Seek(int64, int) (int64, error)
			}
			for range writers {
				f, err := a.mount(t, "/").Open("/shared")
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, f)
			}
			var wg sync.WaitGroup
			for i, f := range files {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(i), 1))
					for at := i * 100; at < size; at += writers * 100 { // every writer its hundreds
						if _, err := f.Seek(int64(at), 0); err != nil {
							t.Error(err)
							return
						}
						n := min(100, size-at)
						if k := 1 + rng.IntN(n); k < n { // in two WRITEs
							if _, err := f.Write(want[at : at+k]); err != nil {
								t.Error(err)
								return
							}
							_, err := f.Seek(int64(at+k), 0)
							if err == nil {
								_, err = f.Write(want[at+k : at+n])
							}
							if err != nil {
								t.Error(err)
							}
							continue
						}
						if _, err := f.Write(want[at : at+n]); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			got := make([]byte, size&^511)
			a.tree.Device("/shared").ReadAt(got, 0)
			if !bytes.Equal(got, want[:len(got)]) {
				t.Error("the file differs from what was written")
			}
			var served [2]uint64
			a.on(func() { served[0] = a.s.Stats().Connections })
			b.on(func() { served[1] = b.s.Stats().Connections })
			t.Log(fmt.Sprint("connections of each loop: ", served))
		})
	}
}
