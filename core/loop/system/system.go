// Package system makes the event loop that suits this machine: io_uring where the kernel allows it, else the portable one.
package system

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"holdfast/core/loop"
	"holdfast/core/loop/portable"
	"holdfast/core/loop/reactor"
)

// Environment overrides Kind "auto": uring or portable.
const Environment = "HOLDFAST_LOOP"

// Options say which loop to make.
type Options struct {
	Kind string       // "auto" (also when empty), "uring" or "portable"
	Name string       // attached to log lines
	Log  *slog.Logger // nil: slog.Default
	Seed uint64       // of Rand; 0: drawn at random
}

// New makes a loop. Its Run is to be called on a goroutine of its own.
func New(o Options) (loop.Runner, error) {
	kind, err := choose(o.Kind, os.Getenv(Environment))
	if err != nil {
		return nil, err
	}
	ro := reactor.Options{Name: o.Name, Log: o.Log, Seed: o.Seed}
	if kind == "uring" {
		return nil, errors.New("loop uring: not in this build")
	}
	return portable.New(ro)
}

// choose decides between the option and the environment.
func choose(kind, environment string) (string, error) {
	switch kind {
	case "", "auto":
	case "uring", "portable":
		return kind, nil
	default:
		return "", fmt.Errorf("loop %q is unknown; use auto, uring or portable", kind)
	}
	switch environment {
	case "", "auto":
		return "auto", nil
	case "uring", "portable":
		return environment, nil
	}
	return "", fmt.Errorf("%s=%q is unknown; use uring or portable", Environment, environment)
}
