package memory

import (
	"maps"
	"slices"
	"sync"

	"holdfast/frontends/volume"
)

// Catalog is a volume.Catalog over devices in memory. The zero value is empty; it may be used and changed from any goroutine.
type Catalog struct {
	mu      sync.Mutex
	devices map[string]*Device // guarded by mu
}

var _ volume.Catalog = (*Catalog)(nil)

// NewCatalog serves the given devices under their names.
func NewCatalog(devices ...*Device) *Catalog {
	c := new(Catalog)
	for _, d := range devices {
		c.Add(d)
	}
	return c
}

// Add serves d under its name, in place of who had that name.
func (c *Catalog) Add(d *Device) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.devices == nil {
		c.devices = make(map[string]*Device)
	}
	c.devices[d.Info().Name] = d
}

// Remove serves the name no longer and removes its device.
func (c *Catalog) Remove(name string) {
	c.mu.Lock()
	d := c.devices[name]
	delete(c.devices, name)
	c.mu.Unlock()
	if d != nil {
		d.Remove()
	}
}

// Rename serves the device under another name and reports whether that was possible.
func (c *Catalog) Rename(from, to string) bool {
	c.mu.Lock()
	d := c.devices[from]
	if d == nil || c.devices[to] != nil {
		c.mu.Unlock()
		return false
	}
	delete(c.devices, from)
	c.devices[to] = d
	c.mu.Unlock()
	d.Rename(to)
	return true
}

// Lookup is volume.Catalog's.
func (c *Catalog) Lookup(name string) (volume.Device, volume.Info, bool) {
	c.mu.Lock()
	d := c.devices[name]
	c.mu.Unlock()
	if d == nil {
		return nil, volume.Info{}, false
	}
	return d, d.Info(), true
}

// Names is volume.Catalog's.
func (c *Catalog) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.devices))
}
