package e2e

import (
	"os"
	"strconv"
	"testing"

	"holdfast/tests/stand"
)

// rounds is how often a test repeats its failure: HOLDFAST_TEST_ROUNDS, which `make test-long` sets, or usual.
func rounds(t *testing.T, usual int) int {
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

func TestMain(m *testing.M) { os.Exit(stand.Main(m)) }
