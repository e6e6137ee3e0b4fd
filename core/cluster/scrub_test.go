package cluster

import (
	"strings"
	"testing"
	"time"

	"holdfast/core/layout"
	"holdfast/core/registry"
)

func TestIntervals(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 30 * 24 * time.Hour, "12h": 12 * time.Hour, "3600": time.Hour, "90s": 90 * time.Second, "1.5m": 90 * time.Second, "1M": 30 * 24 * time.Hour, "1y": 365 * 24 * time.Hour} {
		if got, err := ParseInterval(text); err != nil || got != want {
			t.Errorf("%s is %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "-1d", "0", "1w", "1e300y", "nan", "30d5"} {
		if got, err := ParseInterval(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
	for value, want := range map[any]time.Duration{"7d": 7 * 24 * time.Hour, float64(3600): time.Hour} {
		if got, ok := (&Pool{ScrubInterval: value}).ScrubEvery(); !ok || got != want {
			t.Errorf("a pool's %v is %v, %v", value, got, ok)
		}
	}
	for _, value := range []any{nil, "soon", true, []any{}} {
		if got, ok := (&Pool{ScrubInterval: value}).ScrubEvery(); ok {
			t.Errorf("a pool's %v is %v", value, got)
		}
	}
}

// An image was verified when the last PG of its pool was, or itself, if that is newer; one that has an inconsistent object never was.
func TestWhenAnImageWasVerified(t *testing.T) {
	s := newSnapshot()
	set := func(key, value string) {
		t.Helper()
		value = strings.Replace(value, `"verified"`, `"pg_count":2,"verified"`, 1)
		if err := s.apply(registry.Event{KV: registry.KV{Key: key, Value: []byte(value), Mod: 1, Create: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	i, other := layout.MakeInode(1, 7), layout.MakeInode(1, 8)
	check := func(want, wantOther int64) {
		t.Helper()
		if got, gotOther := s.Verified(i), s.Verified(other); got != want || gotOther != wantOther {
			t.Errorf("verified at %d and %d, want %d and %d", got, gotOther, want, wantOther)
		}
	}
	set(PoolIdentityKey(1), `{"name":"p","generation":4}`)
	set(KeyPGConfig, `{"items":{"1":{"1":{"osd_set":[1],"primary":1},"2":{"osd_set":[1],"primary":1}}}}`)
	check(0, 0)
	set("scrub/pg/1/1", `{"generation":4,"verified":500}`)
	check(0, 0)
	set("scrub/pg/1/2", `{"generation":4,"verified":400}`)
	check(400, 400)
	set(ImageScrubKey(i), `{"verified":300}`)
	check(400, 400)
	set(ImageScrubKey(i), `{"verified":600}`)
	check(600, 400)
	set("scrub/pg/1/2", `{"generation":4,"verified":700}`)
	check(600, 500)
	set("scrub/pg/1/2", `{"generation":4,"verified":700,"inconsistent":[{"inode":281474976710663,"stripe":0}]}`)
	check(0, 500)
	set("scrub/pg/1/2", `{"generation":3,"verified":700}`) // of a pool of before
	check(600, 0)
	set("scrub/pg/1/2", `{"generation":4,"verified":700}`)
	check(600, 500)
	set(KeyPGConfig, `{"items":{"1":{"1":{"osd_set":[1],"primary":1}}}}`) // the PGs hold other objects now
	check(600, 0)
}
