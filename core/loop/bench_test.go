package loop_test

import (
	"testing"

	"holdfast/core/loop"
	"holdfast/core/loop/looptest"
	"holdfast/core/loop/system"
)

func BenchmarkLoop(b *testing.B) {
	for _, kind := range []string{"portable", "uring"} {
		b.Run("kind="+kind, func(b *testing.B) {
			looptest.Bench(b, func(b *testing.B) loop.Runner {
				l, err := system.New(system.Options{Kind: kind, Seed: 1})
				if err != nil {
					b.Skip(err)
				}
				return l
			})
		})
	}
}
