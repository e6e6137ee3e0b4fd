package exports

import (
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/frontends/volume"
)

// info is what block protocols see of an image. An image may have any number of bytes, as a file; a disk has whole sectors, so the bytes of an unfinished last one are seen by NFS only.
//
// Generation is the revision of the image's configuration: it grows with each change of Size or ReadOnly, and is the same on every gateway.
func info(i *cluster.Inode, g layout.Geometry) volume.Info {
	return volume.Info{
		Name: i.Name, Size: uint64(i.Size) &^ (Sector - 1), BlockSize: Sector, PreferredSize: g.Granularity, OptimalSize: uint32(min(g.ObjectSize(), 1<<31)), MaxTransfer: MaxTransfer,
		ReadOnly: bool(i.ReadOnly), Generation: uint64(i.Mod),
	}
}
