package e2e

import (
	"os"
	"testing"

	"holdfast/tests/stand"
)

// rounds is how often a test repeats its failure.
func rounds(t *testing.T, usual int) int {
	t.Helper()
	return stand.Rounds(t, usual)
}

func TestMain(m *testing.M) { os.Exit(stand.Main(m)) }
