package system

import (
	"strings"
	"testing"
)

func TestChoice(t *testing.T) {
	for _, c := range []struct{ kind, env, want, fault string }{
		{"", "", "auto", ""},
		{"auto", "", "auto", ""},
		{"auto", "uring", "uring", ""},
		{"", "portable", "portable", ""},
		{"", "auto", "auto", ""},
		{"portable", "uring", "portable", ""},
		{"uring", "nonsense", "uring", ""},
		{"auto", "nonsense", "", Environment},
		{"threads", "", "", "threads"},
	} {
		got, err := choose(c.kind, c.env)
		if got != c.want || (err != nil) != (c.fault != "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("choose(%q, %q) = %q, %v; want %q and an error with %q", c.kind, c.env, got, err, c.want, c.fault)
		}
	}
}

func TestNewMakesTheKindAskedFor(t *testing.T) {
	t.Setenv(Environment, "")
	for _, kind := range []string{"auto", "portable"} {
		l, err := New(Options{Kind: kind, Name: "test", Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		if kind != "auto" && l.Kind() != kind {
			t.Errorf("New(%s) made %s", kind, l.Kind())
		}
		l.Stop()
		if err := l.Run(); err != nil {
			t.Errorf("Run after Stop: %v", err)
		}
	}
	if l, err := New(Options{Kind: "threads"}); err == nil || l != nil {
		t.Errorf("New(threads) = %v, %v", l, err)
	}
}
