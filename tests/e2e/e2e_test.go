package e2e

import (
	"flag"
	"os"
	"testing"

	"holdfast/tests/e2e/stand"
)

var long = flag.Bool("long", false, "more rounds: an hour rather than minutes")

// rounds is how often a test repeats its failure.
func rounds(short, many int) int {
	if *long {
		return many
	}
	return short
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(stand.Main(m))
}
