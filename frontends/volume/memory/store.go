package memory

import "encoding/binary"

const (
	sector       = 512
	chunkSize    = 64 << 10
	chunkSectors = chunkSize / sector
)

// The states of a sector. In every state but data its bytes in the chunk are zero.
const (
	hole = iota // never written, or trimmed
	zero        // allocated, known to be zero
	data
)

// chunk is an aligned piece of the image with something in it.
type chunk struct {
	state [chunkSectors]uint8
	bytes [chunkSize]byte
}

// sparse is an image's content; what has no chunk is a hole. The Device's mutex guards it.
type sparse map[uint64]*chunk

// run is how many bytes from off, at most n, share one state.
func (s sparse) run(off, n uint64) (state uint8, length uint64) {
	first := true
	for length < n {
		at := off + length
		c := s[at/chunkSize]
		if c == nil {
			if !first && state != hole {
				return state, length
			}
			state, first = hole, false
			length = min(n, (at/chunkSize+1)*chunkSize-off)
			continue
		}
		for i := at % chunkSize / sector; i < chunkSectors && length < n; i++ {
			if !first && c.state[i] != state {
				return state, length
			}
			state, first = c.state[i], false
			length += sector
		}
	}
	return state, length
}

// read copies the bytes at off into p.
func (s sparse) read(p []byte, off uint64) {
	for len(p) > 0 {
		in := off % chunkSize
		n := min(uint64(len(p)), chunkSize-in)
		if c := s[off/chunkSize]; c != nil {
			copy(p[:n], c.bytes[in:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+n
	}
}

// write copies p to off.
func (s sparse) write(p []byte, off uint64) {
	for len(p) > 0 {
		in := off % chunkSize
		n := min(uint64(len(p)), chunkSize-in)
		c := s[off/chunkSize]
		if c == nil {
			c = new(chunk)
			s[off/chunkSize] = c
		}
		copy(c.bytes[in:in+n], p)
		for i := in / sector; i < (in+n)/sector; i++ {
			c.state[i] = data
		}
		p, off = p[n:], off+n
	}
}

// fill makes n bytes at off read as zeroes, as sectors of the given state.
func (s sparse) fill(off, n uint64, state uint8) {
	for n > 0 {
		in := off % chunkSize
		m := min(n, chunkSize-in)
		c := s[off/chunkSize]
		switch {
		case state == hole && m == chunkSize:
			delete(s, off/chunkSize)
		case state == hole && c == nil:
		default:
			if c == nil {
				c = new(chunk)
				s[off/chunkSize] = c
			}
			clear(c.bytes[in : in+m])
			for i := in / sector; i < (in+m)/sector; i++ {
				c.state[i] = state
			}
		}
		off, n = off+m, n-m
	}
}

// differs finds the first byte at off that is not as in want (nil: n zero bytes).
func (s sparse) differs(want []byte, n, off uint64) (at uint64, found bool) {
	var zeroes [sector]byte
	for done := uint64(0); done < n; done += sector {
		have := zeroes[:]
		if c := s[(off+done)/chunkSize]; c != nil {
			in := (off + done) % chunkSize
			have = c.bytes[in : in+sector]
		}
		expect := zeroes[:]
		if want != nil {
			expect = want[done : done+sector]
		}
		for i := 0; i < sector; i += 8 {
			if x := binary.LittleEndian.Uint64(have[i:]) ^ binary.LittleEndian.Uint64(expect[i:]); x != 0 {
				for ; x&0xff == 0; x >>= 8 {
					i++
				}
				return done + uint64(i), true
			}
		}
	}
	return 0, false
}

// truncate forgets everything from size on.
func (s sparse) truncate(size uint64) {
	for n := range s {
		if n*chunkSize >= size {
			delete(s, n)
		}
	}
	if in := size % chunkSize; in != 0 {
		s.fill(size, chunkSize-in, hole)
	}
}
