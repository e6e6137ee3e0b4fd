package store

import "testing"

// A store held a change that was never acknowledged, and gets what all others have, which is newer: it must not answer for the request that made the former, neither now nor after a restart.
func TestAReplacedCopyAnswersForNothing(t *testing.T) {
	false_, true_ := Pair{7, 1}, Pair{8, 1}
	for _, voided := range []bool{false, true} {
		r := newRig(t, 1, 8<<20, smallConfig)
		r.must(&Op{Kind: OpWrite, Object: obj(1), Version: 2, Interval: 7, Len: 4096, Data: r.data(fill(4096, 'a')), Pair: false_})
		if voided {
			r.must(&Op{Kind: OpVoid, Object: obj(1), Base: 2, BaseInterval: 7})
		}
		r.must(&Op{Kind: OpReplace, Object: obj(1), Base: 2, BaseInterval: 7, Version: 5, Interval: 9, Bitmap: []byte{0}, Present: []byte{0}, Pairs: []PairVersion{{true_, 4}}})
		for _, when := range []string{"now", "after a restart"} {
			if _, v, ok := r.s.FindPair(false_); ok {
				t.Errorf("voided %v, %s: the request of the copy that was replaced is known, as version %x", voided, when, v)
			}
			if _, v, ok := r.s.FindPair(true_); !ok || v != 4 {
				t.Errorf("voided %v, %s: the request that came with the replacement: %v, version %x", voided, when, ok, v)
			}
			r.close()
			r.mustOpen()
		}
	}
}
