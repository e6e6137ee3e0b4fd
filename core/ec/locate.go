package ec

import "fmt"

// FindBad tells which of the chunks of present are wrong, when at most half as many are wrong as there are chunks beyond k: (present - k) / 2, so one of 4+2,
// none of 2+1. The answer is then the only one: no other set of that many chunks explains what was read. It is empty when all chunks belong together. A chunk
// that is known to be bad is left out of present, which leaves more to be found. chunks is as in Verify.
//
// The longer the range, the surer is the answer: two chunks that are wrong at the same byte may look like another one that is; over a block they do not. The
// shorter, the more it finds: each range is judged by itself.
//
// Errors: ErrInconsistent, when no set of so few chunks explains it; *TooFewChunksError, when present has no more than k chunks.
func (c *Code) FindBad(chunks [][]byte, present Set) (Set, error) {
	defer c.forget()
	size, err := c.comparable(chunks, present)
	if err != nil {
		return 0, fmt.Errorf("find bad chunks of %v among %v: %w", c, present, err)
	}
	limit := (present.Len() - c.k) / 2
	var bad Set
	// Each turn finds another chunk, so there are limit+1 at most. What lies before from fits together without the bad ones, and without more of them; at from it
	// is seen next whether the suspects explain what is there.
	for from := 0; ; {
		at := c.mismatch(chunks, present&^bad, from, size)
		if at < 0 {
			return bad, nil
		}
		known := bad
		if bad |= c.suspects(chunks, present, at); bad == known || bad.Len() > limit {
			return 0, fmt.Errorf("find bad chunks of %v among %v: %w: more than %d at byte %d and before", c, present, ErrInconsistent, limit, at)
		}
		from = at
	}
}

// point is what makes a chunk a value of a polynomial: there is one polynomial of degree below k whose value at the point at is scale times the chunk's byte,
// for every chunk of an object and each position (see points).
type point struct{ at, scale byte }

// points are those of all chunks. A parity byte is u_r * sum over c of v_c d_c / (x_r + y_c), with u and v as in coefficient. Times Y(x_r) / u_r, where Y is the
// product of all (z + y_c), that is q(x_r), where q(z) = Y(z) * sum over c of v_c d_c / (z + y_c) has a degree below k; and q(y_c) = v_c d_c Y'(y_c),
// Y'(y_c) being the product of all other (y_c + y).
func points(k, m int) []point {
	all := make([]point, 0, k+m)
	product := func(z byte) byte { // of z + y over all y but z
		p := byte(1)
		for d := range k {
			if y := byte(last ^ d); y != z {
				p = mul(p, z^y)
			}
		}
		return p
	}
	for d := range k {
		y := byte(last ^ d)
		all = append(all, point{y, mul(y, product(y))})
	}
	for r := range m {
		x := byte(r)
		all = append(all, point{x, mul(mul(last, product(x)), inverse(last^x))})
	}
	return all
}

// suspects is the set of the chunks of present that are wrong at one position, if at most t are, t being half of the chunks beyond k; otherwise it is any set of
// at most t chunks.
//
// This is the decoder of Welch and Berlekamp. With q as in points and y_i a chunk's byte times its scale, look for two polynomials, not both 0: E of degree at
// most t, and Q of degree below k+t, with Q(p_i) = y_i E(p_i) for each chunk. If at most t chunks are wrong, Q - q E is 0 at the points of all others, which are
// more than its degree, so Q = q E; and so E is 0 at the point of each wrong chunk. The product of all (z + p_i) of wrong chunks is such an E, so one of the lowest
// degree, which kernel finds, is 0 at no other point.
func (c *Code) suspects(chunks [][]byte, present Set, at int) (bad Set) {
	t := (present.Len() - c.k) / 2
	degree, columns := c.k+t, c.k+2*t+1 // Q's coefficients, then E's
	rows, n := &c.equations, 0
	for rest := present; rest != 0; rest &= rest - 1 {
		i := rest.First()
		p := c.points[i]
		q, e := byte(1), mul(p.scale, chunks[i][at])
		for j := range degree {
			rows[n][j] = q
			q = mul(q, p.at)
		}
		for j := degree; j < columns; j++ {
			rows[n][j] = e
			e = mul(e, p.at)
		}
		n++
	}
	solution, ok := kernel(rows[:n], columns)
	if !ok {
		return 0
	}
	locator := solution[degree:columns]
	for rest := present; rest != 0; rest &= rest - 1 {
		value := byte(0)
		for j := len(locator) - 1; j >= 0; j-- {
			value = mul(value, c.points[rest.First()].at) ^ locator[j]
		}
		if value == 0 {
			bad |= rest & -rest
		}
	}
	return bad
}

// kernel is a vector other than 0 that all rows are 0 with, if there is one: of these, one whose last number that is not 0 comes first. It changes rows.
func kernel(rows [][MaxChunks + 1]byte, columns int) (solution [MaxChunks + 1]byte, ok bool) {
	for col := range columns {
		// Rows above col are those of the identity so far.
		pivot := col
		for pivot < len(rows) && rows[pivot][col] == 0 {
			pivot++
		}
		if pivot >= len(rows) { // a free column: choose 1, and the earlier ones follow
			for row := range col {
				solution[row] = rows[row][col]
			}
			solution[col] = 1
			return solution, true
		}
		rows[pivot], rows[col] = rows[col], rows[pivot]
		scale(rows[col][:columns], inverse(rows[col][col]))
		for row := range rows {
			if by := rows[row][col]; row != col && by != 0 {
				multiplyAdd(by, rows[col][:columns], rows[row][:columns])
			}
		}
	}
	return solution, false
}
