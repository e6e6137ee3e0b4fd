package uring

import (
	"log/slog"
	"testing"

	"holdfast/core/loop"
	"holdfast/core/loop/looptest"
	"holdfast/core/loop/reactor"
)

func TestConformance(t *testing.T) {
	looptest.Run(t, func(t *testing.T) loop.Runner {
		l, err := New(reactor.Options{Name: "test", Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		return l
	})
}
