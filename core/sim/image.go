package sim

// Image is the durable content of a disk, to be copied and changed at little cost: copies share what neither has written. A tester keeps one per point in time and makes disks of
// them. An image and its copies belong to one goroutine.
type Image struct {
	size   int64
	sector int
	s      *sparse
}

// Image is what is durable on the disk now.
func (d *Disk) Image() *Image {
	s := d.m.stable.clone()
	for i := range d.m.cache {
		if c := &d.m.cache[i]; c.durable {
			s.write(c.data, c.off)
		}
	}
	return &Image{d.size, d.m.sector, s}
}

// Clone is an image with the same content.
func (i *Image) Clone() *Image { return &Image{i.size, i.sector, i.s.clone()} }

// Size is the disk's size in bytes.
func (i *Image) Size() int64 { return i.size }

// Sector is the disk's smallest unit of writing in bytes.
func (i *Image) Sector() int { return i.sector }

// ReadAt copies len(p) bytes at off.
func (i *Image) ReadAt(p []byte, off int64) { i.s.read(p, off) }

// WriteAt replaces len(p) bytes at off.
func (i *Image) WriteAt(p []byte, off int64) { i.s.write(p, off) }

// NewDiskFrom makes a disk that holds what the image holds, durably. The image stays as it is.
func (w *World) NewDiskFrom(name string, i *Image) *Disk {
	return w.addDisk(name, i.size, &media{sector: i.sector, stable: i.s.clone(), current: i.s.clone()})
}
