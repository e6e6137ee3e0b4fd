package ec

// The matrix is a Cauchy matrix: parity chunk r has the number x = r, data chunk c the number y = 255 XOR c, all different as long as r + c < 255, and the
// coefficient is 1 / (x + y), its row and its column scaled so that the first row and the first column are all ones. So the first parity chunk is the XOR of
// the data chunks; every square submatrix of a Cauchy matrix is non-singular, scaled or not, and so any k chunks determine all.
// docs/formats/erasure.md has it in full, docs/adr/0020-erasure-matrix.md why.
const last = 255

// coefficient is that of data chunk c in parity chunk r.
func coefficient(r, c int) byte {
	x, y := byte(r), byte(last^c)
	return mul(mul(last^x, y), inverse(mul(last, x^y)))
}

// decode fills coef (len(out) rows of k) with the coefficients of k chunks (in, ascending) that give other chunks (out).
func (c *Code) decode(coef []byte, in, out Set) {
	// a is the matrix that makes the chunks of in from the data; it and the identity beside it go through the same steps until a is the identity.
	var a, inv [MaxChunks][MaxChunks]byte
	k, rest := c.k, in
	for row := range k {
		c.row(a[row][:k], rest.First())
		inv[row][row] = 1
		rest &= rest - 1
	}
	for col := range k {
		pivot := col
		for a[pivot][col] == 0 { // ends: the matrix is not singular
			pivot++
		}
		a[pivot], a[col], inv[pivot], inv[col] = a[col], a[pivot], inv[col], inv[pivot]
		by := inverse(a[col][col])
		scale(a[col][:k], by)
		scale(inv[col][:k], by)
		for row := range k {
			if by := a[row][col]; row != col && by != 0 {
				multiplyAdd(by, a[col][:k], a[row][:k])
				multiplyAdd(by, inv[col][:k], inv[row][:k])
			}
		}
	}
	// inv now makes the data from the chunks of in: out is made from the data.
	var made [MaxChunks]byte
	for ; out != 0; out &= out - 1 {
		c.row(made[:k], out.First())
		row := coef[:k]
		clear(row)
		for d, by := range made[:k] {
			multiplyAdd(by, inv[d][:k], row)
		}
		coef = coef[k:]
	}
}

// row sets dst to the coefficients of the data chunks in a chunk.
func (c *Code) row(dst []byte, chunk int) {
	if chunk < c.k {
		clear(dst)
		dst[chunk] = 1
		return
	}
	copy(dst, c.coef[(chunk-c.k)*c.k:])
}

func scale(row []byte, by byte) {
	for i, b := range row {
		row[i] = mul(b, by)
	}
}
