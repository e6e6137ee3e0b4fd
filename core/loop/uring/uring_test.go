package uring

import (
	"fmt"
	"log/slog"
	"testing"
	"unsafe"

	"holdfast/core/loop"
	"holdfast/core/loop/looptest"
	"holdfast/core/loop/reactor"
)

// TestConformance passes in each mode, since older kernels have only the later ones.
func TestConformance(t *testing.T) {
	all := modes
	defer func() { modes = all }()
	for i := range all {
		modes = all[i:]
		if r, err := newRing(1, 1); err != nil {
			t.Skip(err)
		} else {
			r.close()
		}
		t.Run(fmt.Sprintf("mode=%#x", all[i]), func(t *testing.T) {
			looptest.Run(t, func(t *testing.T) loop.Runner {
				l, err := New(reactor.Options{Name: "test", Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Seed: 1})
				if err != nil {
					t.Fatal(err)
				}
				return l
			})
		})
	}
}

func TestLayoutsAreTheKernels(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"io_uring_params", unsafe.Sizeof(params{}), 120},
		{"io_uring_sqe", unsafe.Sizeof(sqe{}), 64},
		{"io_uring_sqe.user_data", unsafe.Offsetof(sqe{}.userData), 32},
		{"io_uring_cqe", unsafe.Sizeof(cqe{}), 16},
		{"io_uring_getevents_arg", unsafe.Sizeof(waitArg{}), 24},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, c.got, c.want)
		}
	}
}
