package stand

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

var built struct {
	once sync.Once
	dir  string
	path string
	out  []byte
	err  error
}

// Root is the repository's folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatal("no go.mod above the working directory")
	return ""
}

// Binary is the path of the holdfast program: HOLDFAST_TEST_BINARY, or else one that is built once for all tests of the process. Main removes it.
func Binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("HOLDFAST_TEST_BINARY"); path != "" {
		abs, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		return abs
	}
	root := Root(t)
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "holdfast-test-"); built.err != nil {
			return
		}
		built.path = filepath.Join(built.dir, "holdfast")
		cmd := exec.Command("go", "build", "-o", built.path, "./appliance/holdfast")
		cmd.Dir = root
		built.out, built.err = cmd.CombinedOutput()
	})
	if built.err != nil {
		t.Fatalf("go build: %v\n%s", built.err, built.out)
	}
	return built.path
}

// Main runs the tests of a package and removes what Binary built.
func Main(m *testing.M) int {
	defer func() {
		if built.dir != "" {
			os.RemoveAll(built.dir)
		}
	}()
	return m.Run()
}

// Rounds is how often a test repeats its failure: HOLDFAST_TEST_ROUNDS, which `make test-long` sets, or usual.
func Rounds(t testing.TB, usual int) int {
	t.Helper()
	text := os.Getenv("HOLDFAST_TEST_ROUNDS")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("HOLDFAST_TEST_ROUNDS=%s: give a number from 1", text)
	}
	return n
}
