// Package memory is a volume.Device in this process's memory, for tests and benchmarks of what stands above the seam.
//
// It is sparse, may be shared by several loops, and can be told to complete out of order, to fail, to change size and to disappear. Nothing survives the process.
package memory

import (
	"hash/fnv"
	"sync"
	"time"

	"holdfast/core/loop"
	"holdfast/frontends/volume"
)

// Options describe a Device. The zero value of a field asks for the default.
type Options struct {
	Name string
	Size uint64   // bytes, a multiple of 512
	ID   [16]byte // default: drawn from Name, so that it is the same in every run

	OptimalSize uint32 // default 4 MiB
	MaxTransfer uint32 // default 32 MiB
	ReadOnly    bool

	// MaxDelay makes each operation take effect and complete after a time between 0 and MaxDelay that Seed draws, and so out of order. 0: in order, in the same turn.
	MaxDelay time.Duration
	Seed     uint64

	// Fail is asked before an operation takes effect; an error completes it instead. It is called on the handle's loop, and from several loops at once if there are several.
	Fail func(op *volume.Op) error

	// TTL drops writes of a client that has been silent for longer (volume.Session.Alive). 0: never.
	TTL time.Duration
	// SlowZero makes Zero with Fast fail with ErrUnsupported.
	SlowZero bool
}

// Device is one image in memory.
type Device struct {
	o Options

	mu      sync.Mutex
	info    volume.Info        // guarded by mu
	gone    bool               // guarded by mu
	content sparse             // guarded by mu
	nexus   map[string]*handle // guarded by mu: who is not fenced
	handles []*handle          // guarded by mu: all that are attached, oldest first
}

var _ volume.Device = (*Device)(nil)

// New makes an empty device: all of it reads as zeroes.
func New(o Options) *Device {
	if o.ID == ([16]byte{}) {
		h := fnv.New128a()
		_, _ = h.Write([]byte("image " + o.Name)) // a hash takes everything
		h.Sum(o.ID[:0])
	}
	if o.OptimalSize == 0 {
		o.OptimalSize = 4 << 20
	}
	if o.MaxTransfer == 0 {
		o.MaxTransfer = 32 << 20
	}
	return &Device{
		o: o,
		info: volume.Info{
			Name: o.Name, Size: o.Size &^ (sector - 1), BlockSize: sector, PreferredSize: 4096, OptimalSize: o.OptimalSize, MaxTransfer: o.MaxTransfer,
			ReadOnly: o.ReadOnly, ID: o.ID, Cluster: [16]byte{'m', 'e', 'm', 'o', 'r', 'y'}, Generation: 1,
		},
		content: make(sparse),
		nexus:   make(map[string]*handle),
	}
}

// Attach is volume.Device's.
func (d *Device) Attach(l loop.Loop, s volume.Session) (volume.Handle, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone {
		return nil, volume.ErrGone
	}
	h := newHandle(d, l, s)
	if s.Nexus != "" {
		if old := d.nexus[s.Nexus]; old != nil {
			old.fenced = true
		}
		d.nexus[s.Nexus] = h
	}
	d.handles = append(d.handles, h)
	return h, nil
}

// Info is the device as it is now.
func (d *Device) Info() volume.Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.info
}

// Sessions is the number of attached handles.
func (d *Device) Sessions() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.handles)
}

// Resize changes the size and tells every handle. What is cut off is forgotten.
func (d *Device) Resize(size uint64) {
	d.change(volume.Resized, func() {
		if size < d.info.Size {
			d.content.truncate(size)
		}
		d.info.Size = size &^ (sector - 1)
		d.info.Generation++
	})
}

// Remove makes every operation fail with ErrGone from now on and tells every handle.
func (d *Device) Remove() {
	d.change(volume.Gone, func() {
		d.gone = true
		d.content = make(sparse)
	})
}

// Drain tells every handle that the gateway is about to stop.
func (d *Device) Drain() { d.change(volume.Draining, func() {}) }

// Rename changes Info.Name and tells every handle. A Catalog's Rename calls it.
func (d *Device) Rename(name string) {
	d.change(volume.Renamed, func() { d.info.Name = name })
}

func (d *Device) change(e volume.Event, f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	for _, h := range d.handles {
		h.news = append(h.news, e)
		h.l.Post(&h.tell)
	}
}

// ReadAt copies what the device holds at off, for tests. The range must be within the device.
func (d *Device) ReadAt(p []byte, off uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.content.read(p, off)
}

// WriteAt puts p, whose length is a multiple of 512, at off, for tests.
func (d *Device) WriteAt(p []byte, off uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.content.write(p, off)
}
