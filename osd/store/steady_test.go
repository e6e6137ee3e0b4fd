package store

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/loop/system"
	"holdfast/core/sim"
)

// TestSteadyStateAllocatesNothing runs 4 KiB writes, such as wait for a commit too, and reads on a real loop, flusher and page writes included.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	for _, devices := range []int{1, 3} {
		t.Run(fmt.Sprintf("devices=%d", devices), func(t *testing.T) { steady(t, devices) })
	}
}

func steady(t *testing.T, devices int) {
	var paths []string
	for i := range devices {
		paths = append(paths, filepath.Join(t.TempDir(), fmt.Sprint("disk", i)))
		if err := os.WriteFile(paths[i], make([]byte, 64<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := system.New(system.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run() }()
	on := func(f func(done func())) {
		end := make(chan struct{})
		r.Post(&loop.Task{Run: func() { f(func() { close(end) }) }})
		<-end
	}
	var d loop.Disk
	var s *Store
	on(func(done func()) {
		open := [3]Device{}
		for i, path := range paths {
			if d, err = r.OpenDisk(path, loop.DiskOptions{}); err != nil {
				d, err = r.OpenDisk(path, loop.DiskOptions{Buffered: true})
			}
			if err != nil {
				done()
				return
			}
			open[i] = Device{d, path}
		}
		d = Devices{open[0], open[1], open[2]}.Join(r)
		Format(r, d, Config{}, func(_ Superblock, e error) {
			if err = e; err != nil {
				done()
				return
			}
			Open(r, d, Options{Log: slog.New(slog.DiscardHandler)}, func(st *Store, e error) { s, err = st, e; done() })
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	const objects = 128
	w := &load{s: s, kind: OpWrite, objects: objects, versions: make([]layout.Version, objects), busy: make([]bool, objects), rnd: 1}
	u := &load{s: s, kind: OpWrite, objects: objects, versions: w.versions, busy: make([]bool, objects), rnd: 3, waiting: true}
	rd := &load{s: s, kind: OpRead, objects: objects, busy: make([]bool, objects), rnd: 2}
	run := func(l *load, n int) {
		on(func(done func()) {
			l.ops, l.done = l.ops[:0], done
			l.run(16, n, func() []byte { return nil })
		})
	}
	run(w, 8000)
	run(u, 8000)
	run(rd, 500)
	for _, c := range []struct {
		name string
		l    *load
	}{{"write", w}, {"unstable write", u}, {"read", rd}} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const n = 5000
		run(c.l, n)
		runtime.ReadMemStats(&after)
		// A round of page writes makes its announcement: a few objects per thousands of ops.
		if per := float64(after.Mallocs-before.Mallocs) / n; per > 0.05 {
			t.Errorf("%.3f heap objects per %s", per, c.name)
		} else {
			t.Logf("%.3f heap objects per %s", per, c.name)
		}
		if c.l.err != nil {
			t.Error(c.l.err)
		}
	}
	on(func(done func()) { s.Close(func() { d.Close(done) }) })
	r.Stop()
	<-ended
}

// TestMemoryPerObject holds the bound of 64 bytes beside bitmaps and checksums.
func TestMemoryPerObject(t *testing.T) {
	w := sim.NewWorld(1)
	defer w.Close()
	sb, err := layOut(Config{}.withDefaults(8<<30), 8<<30, 512)
	if err != nil {
		t.Fatal(err)
	}
	tab := newTable(w.NewLoop("x"), &sb)
	defer tab.free()
	var total int
	for _, r := range tab.refs {
		total += r.Len()
	}
	total += 4 * int(sb.Slots) // a PG's list, for each slot
	for _, words := range tab.slotFree.levels {
		total += 8 * len(words)
	}
	c := &sb.Config
	per := float64(total)/float64(sb.Slots) - float64(2*c.BitmapLen()+4*c.sums())
	if per > 64 {
		t.Errorf("%.1f bytes per object beside bitmaps and checksums, at most 64 are meant", per)
	}
	t.Logf("%.1f bytes per object", per)
}
