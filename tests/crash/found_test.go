package crash

import "testing"

// found are states in which the store was wrong once, and what was.
var found = []struct{ state, what string }{
	{"full/c/Zbiwwuo2pzmzogh2oyZl2oromUFus2UoowphnjZbnZskokkYbohpwbwFZ2dlskF2pgsYPrpFt2bdhms2wd/2@0.0", "a rollback with nothing to do forgot requests of versions before"},
	{"sector/c/zkueismszguZDnbkbUsYog2uuZsemwllpjU2sxrf2sgUFeuxnsdmsUsbiusPfmh2mymie2UszkbgmefnvrDfd2obpwlqfmpEwdpdwgrsPfwotkoo/2@0.0", "the same"},
	{"fine/c/eoguYjf0ou2jbtsdpgsbussZeldjUobZlrPpEpo2kko2xmwYthkbzsopwdsd2Dj2eFfsgs2nrp2UmUosk2f2ZbfwbeyYpuvuzkCdFpmpDh2zreozYptsUZfbsozpoEmzjpso/2@0.0", "the same"},
	{"through/c/eu2xwYr2rjpsgows2gdsooreoet2dz2osDktxloYhjqgmhkgrd2CdurfoZUmtmyrmss/2@0.0", "the same"},
	{"fine/c/uuswszpmlswUxdosxhsmouExFwusl0opfopxreFmbouFosjtbgfwZYwFleCos2moodnokYxswrimzckmszskomqFxmgsupepkhpb2Ytksssof2wbUZxsZhdh2skspglDr/2@0.0", "the same"},
}

func TestStatesThatWereWrongOnce(t *testing.T) {
	for _, f := range found {
		s, err := ParseState(f.state)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Replay(s); err != nil {
			t.Errorf("%s: %v", f.what, &Violation{State: f.state, Err: err})
		}
	}
}

// TestCloseEndsAfterAShortWrite: a batch that had landed before an earlier one, when the store stopped, was waited for without end.
func TestCloseEndsAfterAShortWrite(t *testing.T) {
	if _, err := newWorker().fail("through", "smtnZ", 'c', Fault{"write", "short", 4}); err != nil {
		t.Error(err)
	}
}
