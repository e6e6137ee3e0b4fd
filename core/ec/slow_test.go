package ec

// The second version of the arithmetic, which the tests compare with: bit by bit, and nothing shared with the package but the definition of the matrix.

func slowMul(a, b byte) (r byte) {
	for x := uint(a); b != 0; b >>= 1 {
		if b&1 != 0 {
			r ^= byte(x)
		}
		if x <<= 1; x > 255 {
			x ^= 0x11D
		}
	}
	return r
}

// slowProducts is slowMul of all numbers.
var slowProducts = func() (t [256][256]byte) {
	for a := range t {
		for b := range t[a] {
			t[a][b] = slowMul(byte(a), byte(b))
		}
	}
	return t
}()

func slowDiv(a, b byte) byte {
	for q := range 256 {
		if slowProducts[q][b] == a {
			return byte(q)
		}
	}
	panic("division by zero")
}

// slowCoefficient is the formula of docs/formats/erasure.md.
func slowCoefficient(r, c int) byte {
	return slowDiv(slowMul(byte(255^r), byte(255^c)), slowMul(255, byte(255^r^c)))
}

// slowMatrix are the coefficients of 31 x 31.
var slowMatrix = func() (t [MaxChunks - 1][MaxChunks - 1]byte) {
	for r := range t {
		for c := range t[r] {
			t[r][c] = slowCoefficient(r, c)
		}
	}
	return t
}()

// slowParity is the byte of parity chunk r that belongs to the data bytes at a position.
func slowParity(data [][]byte, r, at int) (p byte) {
	for c, d := range data {
		p ^= slowProducts[slowMatrix[r][c]][d[at]]
	}
	return p
}

// nonSingular reports whether the first n rows and columns of a have an inverse. It changes a.
func nonSingular(a *[MaxChunks][MaxChunks]byte, n int) bool {
	for col := range n {
		pivot := col
		for pivot < n && a[pivot][col] == 0 {
			pivot++
		}
		if pivot == n {
			return false
		}
		a[pivot], a[col] = a[col], a[pivot]
		for row := col + 1; row < n; row++ {
			if a[row][col] != 0 {
				by := slowProducts[a[row][col]][slowInverses[a[col][col]]]
				for i := col; i < n; i++ {
					a[row][i] ^= slowProducts[by][a[col][i]]
				}
			}
		}
	}
	return true
}

var slowInverses = func() (t [256]byte) {
	for a := 1; a < 256; a++ {
		t[a] = slowDiv(1, byte(a))
	}
	return t
}()
