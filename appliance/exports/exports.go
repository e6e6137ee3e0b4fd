// Package exports says which image is served under which name: every image of every pool, by its name, on every protocol.
//
// A Catalog follows the cluster's snapshots on one loop; what it publishes is an immutable View that every loop reads without a lock. An image is known by its identity (DESIGN
// section 11), which survives rename and snapshot; its Device is the same object for as long as the image exists. Export configuration of its own is a later issue.
package exports

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"sync/atomic"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/frontends/volume"
)

// Sector is the unit in which block protocols see an image, bytes.
const Sector = 512

// MaxTransfer is Info.MaxTransfer of every image, bytes.
const MaxTransfer = 32 << 20

// ID is an image's identity.
type ID [16]byte

// Image is one image at one moment. It never changes.
type Image struct {
	ID     ID
	Inode  *cluster.Inode
	Info   volume.Info // as block protocols see it: Size is rounded down to Sector
	Device volume.Device
}

// View is what is served at one revision. It never changes.
type View struct {
	Revision registry.Revision // of the newest change that it shows
	Cluster  [16]byte

	names  cluster.Map[string, *Image]
	ids    cluster.Map[ID, *Image]
	inodes cluster.Map[layout.Inode, *Image]
}

// Names are the images by name.
func (v *View) Names() cluster.Map[string, *Image] { return v.names }

// Image finds an image by its name.
func (v *View) Image(name string) (*Image, bool) { return v.names.Get(name) }

// ByID finds an image by its identity.
func (v *View) ByID(id ID) (*Image, bool) { return v.ids.Get(id) }

// Change is what became of one name: Old is nil when it is new, New when it is gone. An image that was renamed is two changes.
type Change struct {
	Old, New *Image
}

// Catalog is volume.Catalog over the images of a cluster. Update is called on one loop, everything else from any.
type Catalog struct {
	open func(ID) volume.Device
	view atomic.Pointer[View]
}

var _ volume.Catalog = (*Catalog)(nil)

// New makes an empty catalog. open makes the device of an image that was not served before.
func New(open func(ID) volume.Device) *Catalog {
	c := &Catalog{open: open}
	c.view.Store(empty())
	return c
}

func empty() *View {
	return &View{
		names:  cluster.NewMap[string, *Image](strings.Compare),
		ids:    cluster.NewMap[ID, *Image](func(a, b ID) int { return bytes.Compare(a[:], b[:]) }),
		inodes: cluster.NewMap[layout.Inode, *Image](cmp.Compare[layout.Inode]),
	}
}

// View is what is served now.
func (c *Catalog) View() *View { return c.view.Load() }

// Lookup is volume.Catalog's.
func (c *Catalog) Lookup(name string) (volume.Device, volume.Info, bool) {
	i, ok := c.View().names.Get(name)
	if !ok {
		return nil, volume.Info{}, false
	}
	return i.Device, i.Info, true
}

// Names is volume.Catalog's.
func (c *Catalog) Names() []string {
	v := c.View()
	names := make([]string, 0, v.names.Len())
	for name := range v.names.All() {
		names = append(names, name)
	}
	return names
}

// Identity is an image's identity: the one that was drawn for it, or, for an image that a stock tool made, one that derives from the cluster and the inode.
func Identity(clusterID [16]byte, i *cluster.Inode) ID {
	if id, err := layout.ParseStoreID(i.Identity()); err == nil && id != (layout.StoreID{}) {
		return ID(id)
	}
	return derived(clusterID, i.ID)
}

func derived(clusterID [16]byte, i layout.Inode) ID {
	h := sha256.New()
	h.Write([]byte("holdfast image "))
	h.Write(clusterID[:])
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(i)))
	return ID(h.Sum(nil)[:16])
}
