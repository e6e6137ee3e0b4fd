package cluster

import (
	"testing"

	"holdfast/core/layout"
)

// Stores do not know who may have lent reads: where etcd does not say it of the same interval, anybody may have.
func TestNewerRecordSaysWhoMayHaveLent(t *testing.T) {
	lender := PGLender{OSD: 3, Instance: 7}
	known := func(activated layout.Interval, needs int, lender PGLender) PGRecord {
		return PGRecord{Interval: 9, Activated: activated, Lender: lender, Participants: make([]PGMember, needs)}
	}
	for _, c := range []struct {
		name        string
		etcd, store PGRecord
		want        PGLender
	}{
		{"the store knows a later interval", known(4, 1, lender), known(5, 1, AnyLender), AnyLender},
		{"the store knows an earlier interval", known(5, 1, lender), known(4, 1, AnyLender), lender},
		{"the store knows that the interval became clean", known(5, 2, lender), known(5, 1, AnyLender), lender},
		{"so it does, and nobody could lend", known(5, 2, PGLender{}), known(5, 1, AnyLender), PGLender{}},
	} {
		if got := c.etcd.Newer(c.store).Lender; got != c.want {
			t.Errorf("%s: %+v may have lent, want %+v", c.name, got, c.want)
		}
	}
}

func TestLaterThan(t *testing.T) {
	old := &Restored{ID: "a", Time: 5}
	for _, c := range []struct {
		name    string
		r, prev *Restored
		want    bool
	}{
		{"none", nil, nil, false},
		{"it is gone", nil, old, false},
		{"the first", old, nil, true},
		{"the same", &Restored{ID: "a", Time: 6}, old, false},
		{"an older one, in the copy", &Restored{ID: "b", Time: 4}, old, false},
		{"another", &Restored{ID: "b", Time: 6}, old, true},
	} {
		if have := c.r.LaterThan(c.prev); have != c.want {
			t.Errorf("%s: %v", c.name, have)
		}
	}
}
