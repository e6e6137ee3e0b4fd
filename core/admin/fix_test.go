package admin

import (
	"slices"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
)

func TestReadObjects(t *testing.T) {
	a, b := layout.ObjectID{Inode: layout.MakeInode(1, 7), Stripe: 131072}, layout.ObjectID{Inode: layout.MakeInode(2, 1)}
	for _, c := range []struct {
		text string
		want []layout.ObjectID
	}{
		{"", nil},
		{"0x1000000000007:0x20000, 0x2000000000001:0x0\n0x1000000000007:0x20000", []layout.ObjectID{a, b}},
		{"281474976710663:131072", []layout.ObjectID{a}},
		{`[{"inode":"0x1000000000007","stripe":"0x20000","osd_num":3},{"inode":562949953421313,"stripe":0}]`, []layout.ObjectID{a, b}},
		{`{"inode":"0x2000000000001","stripe":"0"}`, []layout.ObjectID{b}},
		{`[{"pool_id":1,"pg_num":3,"unclean_objects":[{"inode_id":7,"offset":131072}]},{"pool_id":2,"pg_num":1,"unclean_objects":[]}]`, []layout.ObjectID{a}},
	} {
		if got, err := ReadObjects([]byte(c.text)); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{"0x7:0x20000", `[{"inode":"x","stripe":"0"}]`, `[{"stripe":"0"}]`, `[7]`, `[{"inode":"0x1000000000007","stripe":"0x2"`, `[{"pool_id":0,"unclean_objects":[{"inode_id":7}]}]`} {
		if got, err := ReadObjects([]byte(text)); err == nil {
			t.Errorf("%s is read as %v", text, got)
		}
	}
}

func FuzzReadObjects(f *testing.F) {
	f.Add([]byte("0x1000000000007:0x20000"))
	f.Add([]byte(`[{"inode":"0x1000000000007","stripe":"0x20000"}]`))
	f.Add([]byte(`[{"pool_id":1,"unclean_objects":[{"inode_id":7,"offset":131072}]}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, _ := ReadObjects(text)
		for _, id := range list {
			if id.Inode.Pool() == 0 || id.Inode.Num() == 0 {
				t.Errorf("%v is no object", id)
			}
		}
	})
}

func TestPoolsScrubInterval(t *testing.T) {
	p := &cluster.Pool{Name: "p", Scheme: cluster.Replicated, PGSize: 2, PGMinSize: 1, PGCount: 16}
	text := "7d"
	for _, c := range []struct {
		set  string
		want time.Duration
		ok   bool
	}{{"7d", 7 * 24 * time.Hour, true}, {"", 0, true}, {"soon", 0, false}} {
		text = c.set
		next, err := (&PoolChange{Name: "p", ScrubInterval: &text}).Apply(p)
		if (err == nil) != c.ok {
			t.Errorf("%q: %v", c.set, err)
			continue
		}
		if d, has := time.Duration(0), false; err == nil {
			if d, has = next.ScrubEvery(); d != c.want || has != (c.want != 0) {
				t.Errorf("%q is %v", c.set, d)
			}
		}
	}
}
