package osd

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/core/client"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/osd/primary"
)

// told is what DESCRIBE says of objects, one line for each: "OBJECT STATE: OSD STATE OF ITS COPY, ...".
func told(list []client.Unclean) (out []string) {
	for _, u := range list {
		var copies []string
		for _, c := range u.Copies {
			copies = append(copies, fmt.Sprintf("%d %d", c.OSD, c.State))
		}
		out = append(out, fmt.Sprintf("%d %d: %s", u.Object.Stripe>>17, u.State, strings.Join(copies, ", ")))
	}
	return out
}

// A PG of two copies moves from OSDs 1,2 to 1,3; 8 objects are not whole. They are told of page by page, each in one piece.
func TestDescribeTellsOfObjectsThatAreNotWhole(t *testing.T) {
	b := newBed(t, 3)
	b.place(1, 1, 2)
	b.wait("PG active", func() bool { return b.serves(1, 2) })
	interval := b.record().Interval
	object := func(i uint64) layout.ObjectID { return layout.ObjectID{Inode: layout.MakeInode(1, 1), Stripe: i << 17} }
	for i := range uint64(8) {
		put(b.osds[1], object(i), interval)
		if i%2 == 1 {
			put(b.osds[2], object(i), interval)
		}
	}
	b.tune(func(t *primary.Tuning) { t.NoRecovery = true })
	b.place(1, 1, 3)
	b.wait("the counts in etcd", func() bool { return b.stats().RecoveryLeft == 8 })

	l := b.w.NewLoop("client")
	c := client.New(l, client.Options{Registry: b.reg.Open(l), Instance: 5})
	ask := func(q client.Query) (list []string, more bool) {
		t.Helper()
		done := false
		c.Describe(pg1, q, func(items []client.Unclean, m bool, err error) {
			if err != nil {
				t.Error(err)
			}
			list, more, done = told(items), m, true
		})
		b.wait("an answer", func() bool { return done })
		return list, more
	}
	var want, moves []string
	for i := range uint64(8) {
		if i%2 == 1 {
			want = append(want, fmt.Sprintf("%d %d: 1 0, 2 0, 3 4", i, client.Misplaced))
			moves = append(moves, want[i])
		} else {
			want = append(want, fmt.Sprintf("%d %d: 1 0, 3 4", i, client.Degraded))
		}
	}
	first := object(3)
	for _, a := range []struct {
		name string
		q    client.Query
		want []string
		more bool
	}{
		{"all", client.Query{}, want, false},
		{"in pages of at most 5 copies", client.Query{Page: 5}, want, false},
		{"in pages too small for an object", client.Query{Page: 1}, want, false},
		{"three", client.Query{Page: 4, Most: 3}, want[:3], true},
		{"eight", client.Query{Most: 8}, want, false},
		{"those that are misplaced", client.Query{States: client.Misplaced, Page: 3}, moves, false},
		{"from the fourth on", client.Query{From: first}, want[3:], false},
		{"up to the fourth", client.Query{To: first}, want[:4], false},
		{"of another image", client.Query{From: layout.ObjectID{Inode: first.Inode + 1}}, nil, false},
	} {
		if got, more := ask(a.q); strings.Join(got, "\n") != strings.Join(a.want, "\n") || more != a.more {
			t.Errorf("%s: got (more %v)\n%s\nwant\n%s", a.name, more, strings.Join(got, "\n"), strings.Join(a.want, "\n"))
		}
	}
	var failed error
	c.Describe(layout.PGID{Pool: 1, Num: 7}, client.Query{}, func(_ []client.Unclean, _ bool, err error) { failed = err })
	b.wait("the end of the tries", func() bool { return failed != nil })
	b.tune(func(t *primary.Tuning) { t.NoRecovery = false })
	b.wait("the PG whole", func() bool { return b.stats().RecoveryLeft == 0 })
	if got, _ := ask(client.Query{}); got != nil {
		t.Errorf("when everything is whole: %v", got)
	}
	stopped := c.Describe(pg1, client.Query{}, func([]client.Unclean, bool, error) { t.Error("a question that was given up is answered") })
	l.Post(&loop.Task{Run: stopped.Stop})
	b.w.Run(time.Second)
}
