package store

import "math/bits"

// hash128 maps 128-bit keys to numbers other than 0; open addressing, no pointers, no allocation while its size is steady.
type hash128 struct {
	cells []hashCell
	n     int
}

type hashCell struct {
	a, b  uint64
	value uint32 // 0: free
}

func (h *hash128) home(a, b uint64) int {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xd6e8feb86659fd93)
	hi, lo = bits.Mul64(hi^lo^b, 0xa0761d6478bd642f)
	return int((hi ^ lo) & uint64(len(h.cells)-1))
}

func (h *hash128) find(a, b uint64) (int, bool) {
	if len(h.cells) == 0 {
		return 0, false
	}
	for i := h.home(a, b); ; i = (i + 1) & (len(h.cells) - 1) {
		c := &h.cells[i]
		if c.value == 0 {
			return i, false
		}
		if c.a == a && c.b == b {
			return i, true
		}
	}
}

// get returns the value, or 0.
func (h *hash128) get(a, b uint64) uint32 {
	if i, ok := h.find(a, b); ok {
		return h.cells[i].value
	}
	return 0
}

func (h *hash128) put(a, b uint64, value uint32) {
	if i, ok := h.find(a, b); ok {
		h.cells[i].value = value
		return
	}
	if h.n*4 >= len(h.cells)*3 {
		old := h.cells
		h.cells = make([]hashCell, max(64, 2*len(old)))
		for _, c := range old {
			if c.value != 0 {
				i, _ := h.find(c.a, c.b)
				h.cells[i] = c
			}
		}
	}
	i, _ := h.find(a, b)
	h.cells[i] = hashCell{a, b, value}
	h.n++
}

func (h *hash128) remove(a, b uint64) {
	i, ok := h.find(a, b)
	if !ok {
		return
	}
	h.n--
	mask := len(h.cells) - 1
	for j := i; ; {
		j = (j + 1) & mask
		c := h.cells[j]
		if c.value == 0 {
			break
		}
		if home := h.home(c.a, c.b); (j-home)&mask >= (j-i)&mask {
			h.cells[i] = c
			i = j
		}
	}
	h.cells[i] = hashCell{}
}
