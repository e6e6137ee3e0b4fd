package e2e

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// toolLimit bounds one run of a client.
const toolLimit = time.Minute

// noise makes a file of random bytes.
func noise(t *testing.T, path string, size int) {
	t.Helper()
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(b) // it can't fail
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
