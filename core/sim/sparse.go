package sim

import "slices"

const pageSize = 16 << 10

// sparse is the content of a disk; what was never written is zero. Clones share pages until one of them writes.
type sparse struct {
	pages map[int64]*page
}

type page struct {
	data   [pageSize]byte
	shared bool // another sparse may hold it too
}

func newSparse() *sparse { return &sparse{pages: map[int64]*page{}} }

func (s *sparse) clone() *sparse {
	c := &sparse{pages: make(map[int64]*page, len(s.pages))}
	for i, p := range s.pages { // order: each page goes to its own place
		p.shared = true
		c.pages[i] = p
	}
	return c
}

func (s *sparse) read(p []byte, off int64) {
	for len(p) > 0 {
		at := int(off % pageSize)
		n := min(len(p), pageSize-at)
		if pg := s.pages[off/pageSize]; pg != nil {
			copy(p[:n], pg.data[at:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+int64(n)
	}
}

func (s *sparse) write(p []byte, off int64) {
	for len(p) > 0 {
		at := int(off % pageSize)
		n := copy(s.own(off / pageSize).data[at:], p)
		p, off = p[n:], off+int64(n)
	}
}

// zero clears [off, off+n).
func (s *sparse) zero(off, n int64) {
	if n/pageSize > int64(len(s.pages)) { // a long range: walk what exists
		var keys []int64
		for i := range s.pages { // order: sorted below
			if (i+1)*pageSize > off && i*pageSize < off+n {
				keys = append(keys, i)
			}
		}
		slices.Sort(keys)
		for _, i := range keys {
			lo, hi := max(off, i*pageSize), min(off+n, (i+1)*pageSize)
			s.zeroPage(i, int(lo-i*pageSize), int(hi-i*pageSize))
		}
		return
	}
	for n > 0 {
		at := off % pageSize
		k := min(n, pageSize-at)
		s.zeroPage(off/pageSize, int(at), int(at+k))
		off, n = off+k, n-k
	}
}

func (s *sparse) zeroPage(i int64, lo, hi int) {
	switch {
	case s.pages[i] == nil:
	case lo == 0 && hi == pageSize:
		delete(s.pages, i)
	default:
		clear(s.own(i).data[lo:hi])
	}
}

// own is page i, for writing.
func (s *sparse) own(i int64) *page {
	p := s.pages[i]
	switch {
	case p == nil:
		p = &page{}
		s.pages[i] = p
	case p.shared:
		c := &page{data: p.data}
		s.pages[i] = c
		p = c
	}
	return p
}
