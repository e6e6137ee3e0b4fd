package ec

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

func mustGet(t testing.TB, k, m int) *Code {
	t.Helper()
	c, err := new(Codes).Get(k, m)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestMatrixIsTheFormat holds matrix and parity to testdata/matrix.txt: what was written is read for ever, whatever reedsolomon does.
func TestMatrixIsTheFormat(t *testing.T) {
	text, err := os.ReadFile("testdata/matrix.txt")
	if err != nil {
		t.Fatal(err)
	}
	rows, parities := 0, 0
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch f[0] {
		case "matrix":
			var got []byte
			for c := range 16 {
				got = append(got, coefficient(rows, c))
			}
			if hex.EncodeToString(got) != f[1] {
				t.Errorf("row %d = %x, want %s", rows, got, f[1])
			}
			rows++
		case "sha256":
			var all []byte
			for r := range 31 {
				for c := range 31 {
					all = append(all, coefficient(r, c))
				}
			}
			if sum := sha256.Sum256(all); hex.EncodeToString(sum[:]) != f[1] {
				t.Errorf("31 x 31 coefficients have the hash %x, want %s", sum, f[1])
			}
		case "parity":
			parities++
			checkGolden(t, f[1], f[2], f[3])
		}
	}
	if rows != 16 || parities != 21 {
		t.Errorf("read %d rows and %d parity chunks", rows, parities)
	}
}

// checkGolden repeats the 24 bytes of the golden file up to a length at which all of reedsolomon's ways to multiply are taken.
func checkGolden(t *testing.T, code, chunk, want string) {
	t.Helper()
	for _, repeat := range []int{1, 3, 1 + tile/24} {
		k, m := number(t, strings.Split(code, "+")[0]), number(t, strings.Split(code, "+")[1])
		c := mustGet(t, k, m)
		data, parity := make([][]byte, k), make([][]byte, m)
		for i := range data {
			for range repeat {
				for j := range 24 {
					data[i] = append(data[i], byte(i*37+j*11+i*j*j+5))
				}
			}
		}
		for r := range parity {
			parity[r] = make([]byte, 24*repeat)
		}
		if err := c.Encode(data, parity); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(parity[number(t, chunk)]); got != strings.Repeat(want, repeat) {
			t.Errorf("%s, %d bytes, parity %s = %.48s…, want %s", code, 24*repeat, chunk, got, want)
		}
	}
}

func number(t *testing.T, s string) (n int) {
	t.Helper()
	for _, d := range s {
		n = n*10 + int(d-'0')
	}
	return n
}

func TestFieldIsTheSlowOne(t *testing.T) {
	for a := range 256 {
		for b := range 256 {
			if got, want := mul(byte(a), byte(b)), slowProducts[a][b]; got != want {
				t.Fatalf("%d * %d = %d, want %d", a, b, got, want)
			}
		}
		if a > 0 && slowProducts[a][inverse(byte(a))] != 1 {
			t.Fatalf("1 / %d = %d", a, inverse(byte(a)))
		}
	}
}

// TestCoefficientsDoNotDependOnTheCode is what lets a pool get another parity chunk while it is in use.
func TestCoefficientsDoNotDependOnTheCode(t *testing.T) {
	var codes Codes
	for k := 1; k < MaxChunks; k++ {
		for m := 1; k+m <= MaxChunks; m++ {
			c, err := codes.Get(k, m)
			if err != nil {
				t.Fatal(err)
			}
			for r := range m {
				for d := range k {
					if c.coef[r*k+d] != slowMatrix[r][d] {
						t.Fatalf("%v: coefficient (%d, %d) = %d, want %d", c, r, d, c.coef[r*k+d], slowMatrix[r][d])
					}
				}
			}
		}
	}
}

func TestFirstParityIsXOR(t *testing.T) {
	for i := range MaxChunks - 1 {
		if slowMatrix[0][i] != 1 || slowMatrix[i][0] != 1 {
			t.Errorf("coefficients (0, %d) = %d and (%d, 0) = %d, want 1", i, slowMatrix[0][i], i, slowMatrix[i][0])
		}
	}
}

// TestMatrixIsCauchy checks the premise of the theorem by which any k chunks of any code determine all: with x_r = r and y_c = 255 XOR c all different, each
// coefficient is u_r * v_c / (x_r + y_c), u and v not 0.
func TestMatrixIsCauchy(t *testing.T) {
	const n = MaxChunks - 1
	var seen [256]bool
	for i := range n {
		for _, p := range []int{i, 255 ^ i} {
			if seen[p] {
				t.Fatalf("point %d is taken twice", p)
			}
			seen[p] = true
		}
	}
	for r := range n {
		for c := range n {
			u, v := slowDiv(byte(255^r), 255), byte(255^c)
			if want := slowDiv(slowMul(u, v), byte(r)^byte(255^c)); u == 0 || v == 0 || slowMatrix[r][c] != want {
				t.Fatalf("coefficient (%d, %d) = %d, want %d / (%d + %d)", r, c, slowMatrix[r][c], slowMul(u, v), r, 255^c)
			}
		}
	}
}

// TestAnyKChunksDetermineAll tries every set of k chunks of every code of at most 16 chunks, and of those of 32 with at most 5 data or 5 parity chunks; of the
// others some. The chunks determine the data if the rows of the parity chunks among them, in the columns of the data chunks that are missing, have an inverse.
// Codes of fewer chunks are contained in these, and since the matrix is symmetric, m+k is in k+m.
func TestAnyKChunksDetermineAll(t *testing.T) {
	patterns := 0
	check := func(k int, chosen Set) {
		patterns++
		var a [MaxChunks][MaxChunks]byte
		n := 0
		for parity := chosen >> k; parity != 0; parity &= parity - 1 {
			col := 0
			for missing := (1<<k - 1) &^ chosen; missing != 0; missing &= missing - 1 {
				a[n][col] = slowMatrix[parity.First()][missing.First()]
				col++
			}
			n++
		}
		if !nonSingular(&a, n) {
			t.Fatalf("%d data chunks: the chunks %v do not determine the data", k, chosen)
		}
	}
	for r := range slowMatrix {
		for c := range slowMatrix {
			if slowMatrix[r][c] != slowMatrix[c][r] {
				t.Fatalf("coefficients (%d, %d) and (%d, %d) differ", r, c, c, r)
			}
		}
	}
	every := func(k, n int) { // all sets of k of n chunks, in ascending order (Gosper)
		for s := uint64(1)<<k - 1; s < 1<<n; {
			check(k, Set(s))
			low := s & -s
			next := s + low
			s = (s^next)>>2/low | next
		}
	}
	for k := range 8 {
		every(k+1, 16)
	}
	for k := range 5 {
		every(k+1, MaxChunks)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		k := 6 + rnd.IntN(21)
		check(k, pick(math.MaxUint32, k, rnd))
	}
	t.Logf("%d sets", patterns)
}
