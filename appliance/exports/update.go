package exports

import (
	"strings"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/frontends/volume"
)

// Update takes over a new snapshot, of which keys changed since prev (cluster.Handler), publishes what is served now, and returns what became of each name.
func (c *Catalog) Update(next *cluster.Snapshot, keys []string) []Change {
	old := c.View()
	v := *old
	v.Revision = next.Revision
	if next.ClusterID != nil {
		v.Cluster = [16]byte(next.ClusterID.ID)
	}
	var inodes []layout.Inode
	all := v.Cluster != old.Cluster
	for _, key := range keys {
		switch {
		case key == cluster.KeyPools, key == cluster.KeyGlobal:
			all = true
		case strings.HasPrefix(key, cluster.PrefixInode):
			if k, ok := cluster.ParseKey(key); ok {
				inodes = append(inodes, k.Inode)
			}
		}
	}
	if all {
		inodes = inodes[:0]
		for id := range old.inodes.All() {
			if _, ok := next.Inodes.Get(id); !ok {
				inodes = append(inodes, id)
			}
		}
		for id := range next.Inodes.All() {
			inodes = append(inodes, id)
		}
	}
	changes := v.replace(old, next, inodes, c.open)
	c.view.Store(&v)
	return changes
}

// replace takes the inodes out of v and puts in again what they are now.
func (v *View) replace(old *View, next *cluster.Snapshot, inodes []layout.Inode, open func(ID) volume.Device) []Change {
	var names []string // that may have changed
	for _, id := range inodes {
		if i, ok := v.inodes.Get(id); ok {
			names = append(names, i.Info.Name)
			v.remove(i)
		}
	}
	for _, id := range inodes {
		inode, ok := next.Inodes.Get(id)
		if !ok || bool(inode.Deleted) || inode.Name == "" {
			continue
		}
		if owner, ok := next.InodeByName.Get(inode.Name); !ok || owner != id {
			continue
		}
		g, err := next.Geometry(id.Pool())
		if err != nil {
			continue // the pool cannot be used; the client says why
		}
		names = append(names, inode.Name)
		v.add(old, v.image(inode, g), open)
	}
	var changes []Change
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		was, _ := old.names.Get(name)
		is, _ := v.names.Get(name)
		if was != is && !seen[name] {
			seen[name] = true
			changes = append(changes, Change{was, is})
		}
	}
	return changes
}

// image is an image as block protocols see it, without its device.
func (v *View) image(i *cluster.Inode, g layout.Geometry) *Image {
	im := &Image{ID: Identity(v.Cluster, i), Inode: i}
	im.Info = info(i, g)
	im.Info.Cluster = v.Cluster
	return im
}

// remove takes an image out.
func (v *View) remove(i *Image) {
	v.inodes = v.inodes.Without(i.Inode.ID)
	v.names = v.names.Without(i.Info.Name)
	if now, ok := v.ids.Get(i.ID); ok && now == i {
		v.ids = v.ids.Without(i.ID)
	}
}

// add puts an image in. Of two with one identity, as a stock tool's snapshot leaves them, the one that can be written keeps it.
func (v *View) add(old *View, i *Image, open func(ID) volume.Device) {
	if other, ok := v.ids.Get(i.ID); ok && other.Inode.ID != i.Inode.ID {
		if bool(i.Inode.ReadOnly) || !bool(other.Inode.ReadOnly) {
			i.ID = derived(v.Cluster, i.Inode.ID)
		} else {
			v.remove(other)
			moved := *other
			moved.ID = derived(v.Cluster, other.Inode.ID)
			v.put(old, &moved, open)
		}
	}
	v.put(old, i, open)
}

func (v *View) put(old *View, i *Image, open func(ID) volume.Device) {
	i.Info.ID = [16]byte(i.ID)
	if was, ok := old.ids.Get(i.ID); ok {
		i.Device = was.Device
	} else {
		i.Device = open(i.ID)
	}
	v.names = v.names.With(i.Info.Name, i)
	v.ids = v.ids.With(i.ID, i)
	v.inodes = v.inodes.With(i.Inode.ID, i)
}
