package ec

// program is how the chunks of one set are computed from those of another.
type program struct {
	in, out Set    // k chunks; others
	coef    []byte // a row of k for each of out; room for m
	used    uint64 // when last, by programs.clock
}

// maxPrograms bounds the programs that a code keeps. One OSD missing in each PG of a pool needs as many as the pool has chunks, for each set of chunks that
// are wanted; the rest is for a second one, and for scrub.
const maxPrograms = 128

// programs keeps the programs used last.
type programs struct {
	list  []program
	clock uint64
}

// program is the one for in and out, computed if it is not kept. in has k chunks, out other ones, at most m. It is valid until the next call.
func (c *Code) program(in, out Set) *program {
	s := &c.programs
	s.clock++
	oldest := 0
	for i := range s.list {
		p := &s.list[i]
		if p.in == in && p.out == out {
			p.used = s.clock
			return p
		}
		if p.used < s.list[oldest].used {
			oldest = i
		}
	}
	if len(s.list) < maxPrograms {
		oldest = len(s.list)
		s.list = append(s.list, program{coef: make([]byte, c.m*c.k)})
	}
	p := &s.list[oldest]
	p.in, p.out, p.used = in, out, s.clock
	c.decode(p.coef, in, out)
	return p
}
