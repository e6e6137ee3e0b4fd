package cluster_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/registry/registrytest"
)

// story is a cluster of one loop with a follower that writes down what it is told.
type story struct {
	t     *testing.T
	l     *registrytest.Loop
	store *memory.Store
	h     *memory.Handle // of the follower
	admin *memory.Handle
	f     *cluster.Follower
	lines []string
	last  *cluster.Snapshot
}

func newStory(t *testing.T, before ...string) *story {
	s := &story{t: t, l: registrytest.NewLoop(t, true)}
	s.store = memory.New(s.l)
	s.h, s.admin = s.store.Open(s.l), s.store.Open(s.l)
	s.put(before...)
	s.f = cluster.Follow(s.l, s.h, cluster.ForOSD, s)
	return s
}

func (s *story) Changed(prev, next *cluster.Snapshot, keys []string) {
	if s.last != nil && prev != s.last || s.last == nil && prev.Revision != 0 || next != s.f.Snapshot() {
		s.t.Errorf("Changed(%d, %d) does not follow the call before", prev.Revision, next.Revision)
	}
	s.last = next
	s.lines = append(s.lines, strings.Join(keys, " "))
}
func (s *story) Fault(err *cluster.KeyError) { s.lines = append(s.lines, "fault "+err.Key) }
func (s *story) Unavailable(error)           { s.lines = append(s.lines, "unavailable") }

// put puts "key=value" pairs in one transaction, or deletes "-key".
func (s *story) put(pairs ...string) {
	s.t.Helper()
	var txn registry.Txn
	for _, p := range pairs {
		if key, ok := strings.CutPrefix(p, "-"); ok {
			txn.Then = append(txn.Then, registry.Op{Kind: registry.Delete, Key: key})
			continue
		}
		key, value, _ := strings.Cut(p, "=")
		txn.Then = append(txn.Then, registry.Op{Kind: registry.Put, Key: key, Value: []byte(value)})
	}
	done := false
	s.admin.Txn(txn, func(_ registry.TxnResult, err error) {
		if done = true; err != nil {
			s.t.Fatal(err)
		}
	})
	s.l.Until("a put", time.Minute, func() bool { return done })
}

func (s *story) told(want ...string) {
	s.t.Helper()
	s.l.Run(10 * time.Second)
	if !slices.Equal(s.lines, want) {
		s.t.Fatalf("told %q, want %q", s.lines, want)
	}
	s.lines = nil
}

const (
	poolA = `config/pools={"1":{"name":"a","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":2}}`
	pgsA  = `pg/config={"items":{"1":{"1":{"osd_set":[1,2],"primary":"1"},"2":{"osd_set":[2,1],"primary":2}}}}`
)

func TestOneRevisionIsOneChange(t *testing.T) {
	s := newStory(t, poolA, "osd/stats/1={}", `config/inode/1/1={"name":"img","size":4096}`)
	s.told("config/inode/1/1 config/pools")
	if img, ok := s.last.Image("img"); !ok || img.ID != layout.MakeInode(1, 1) || img.Mod != 2 {
		t.Errorf("image = %+v, %v", img, ok)
	}
	s.put(pgsA, `pg/state/1/1={"primary":1,"state":["active"],"peers":[1,2]}`)
	s.put("osd/stats/1={}", "unknown=1") // not followed
	s.told("pg/config pg/state/1/1")
	pg := layout.PGID{Pool: 1, Num: 1}
	if got := s.last.Primary(pg); got != 1 || s.last.PGConfig.Count(1) != 2 {
		t.Errorf("primary %d, %d PGs", got, s.last.PGConfig.Count(1))
	}
	g, err := s.last.Geometry(1)
	if err != nil || g.BlockSize != 128<<10 || g.PGCount != 2 || g.PGStripeSize != 128<<10 {
		t.Errorf("geometry %+v, %v", g, err)
	}
	before := s.last
	s.put("-pg/state/1/1")
	s.told("pg/state/1/1")
	if s.last.Primary(pg) != 0 || before.Primary(pg) != 1 {
		t.Error("a snapshot changed, or did not")
	}
	s.f.Stop()
	s.put("-config/pools")
	s.told()
}

func TestSnapshotKeepsNamesRightWithinOneRevision(t *testing.T) {
	s := newStory(t, `config/inode/1/1={"name":"img","size":4096}`)
	s.told("config/inode/1/1")
	// What creating img@s does: the new head takes the name before the old layer gives it up.
	s.put(`config/inode/1/2={"name":"img","size":4096,"parent_id":1}`, `config/inode/1/1={"name":"img@s","size":4096,"readonly":true}`)
	s.told("config/inode/1/1 config/inode/1/2")
	head, _ := s.last.Image("img")
	snap, _ := s.last.Image("img@s")
	if head == nil || snap == nil || head.ID.Num() != 2 || head.Parent() != snap.ID || !bool(snap.ReadOnly) {
		t.Errorf("head %+v, snapshot %+v", head, snap)
	}
}

func TestBadKeyLeavesWhatWas(t *testing.T) {
	s := newStory(t, poolA, pgsA)
	s.told("config/pools pg/config")
	s.put("config/pools={", `pg/config={"items":{"1":{"2":{"osd_set":[1],"primary":1}}}}`, `osd/state/1={"state":"up","port":99999,"addresses":["::1"]}`)
	s.told("fault config/pools", "fault pg/config", "fault osd/state/1", "config/pools osd/state/1 pg/config")
	if _, ok := s.last.Pools.Get(1); !ok || s.last.PGConfig.Count(1) != 2 || s.last.Faults.Len() != 3 {
		t.Error("a bad value took the good one away")
	}
	s.put(`config/pools={"1":{"name":"a"},"2":{"name":"b","scheme":"replicated","pg_size":1,"pg_minsize":1,"pg_count":1}}`, "-osd/state/1", pgsA)
	s.told("fault config/pools", "config/pools osd/state/1 pg/config")
	if a, _ := s.last.Pools.Get(1); a == nil || a.PGSize != 2 || s.last.Pools.Len() != 2 || s.last.Faults.Len() != 1 {
		t.Error("one bad pool must keep what it was, and the other be taken")
	}
}

// A value in which it cannot be said what is wrong takes nothing away.
func TestBadIDLeavesEveryPool(t *testing.T) {
	for _, bad := range []string{`{"x":1}`, `{"x":{}}`, `null`, `{"0":{"name":"z"}}`} {
		s := newStory(t, poolA, pgsA)
		s.told("config/pools pg/config")
		s.put("config/pools=" + bad)
		if _, ok := s.last.Pools.Get(1); !ok || s.last.Faults.Len() != 1 {
			t.Errorf("config/pools %s took a pool away", bad)
		}
	}
	for _, bad := range []string{`{"items":{"x":{}}}`, `null`} {
		s := newStory(t, poolA, pgsA)
		s.told("config/pools pg/config")
		s.put("pg/config=" + bad)
		if s.last.PGConfig.Count(1) != 2 || s.last.Faults.Len() != 1 {
			t.Errorf("pg/config %s took PGs away", bad)
		}
	}
}

func TestMissedChangesAreFoundByReadingAgain(t *testing.T) {
	s := newStory(t, poolA, `config/inode/1/1={"name":"a","size":4096}`, `config/inode/1/2={"name":"b","size":4096}`)
	s.told("config/inode/1/1 config/inode/1/2 config/pools")
	s.h.Unreachable(true)
	s.told("unavailable")
	s.put("-config/inode/1/1", `config/inode/1/3={"name":"c","size":4096}`)
	s.put(`config/inode/1/2={"name":"d","size":4096}`)
	s.store.Compact(s.store.Revision())
	s.h.Unreachable(false)
	s.told("config/inode/1/1 config/inode/1/2 config/inode/1/3")
	if _, ok := s.last.Image("a"); ok || s.last.Inodes.Len() != 2 {
		t.Error("the deleted image is still there")
	}
	s.put(`config/inode/1/4={"name":"e","size":4096}`)
	s.told("config/inode/1/4")
}

func TestFollowingStartsWhenTheRegistryComes(t *testing.T) {
	s := &story{t: t, l: registrytest.NewLoop(t, true)}
	s.store = memory.New(s.l)
	s.h, s.admin = s.store.Open(s.l), s.store.Open(s.l)
	s.put(poolA)
	s.h.Unreachable(true)
	s.f = cluster.Follow(s.l, s.h, cluster.ForClient, s)
	s.l.Run(5500 * time.Millisecond) // the first attempt has failed, the second is to come
	s.h.Unreachable(false)
	s.told("unavailable", "config/pools")
}

func TestManyImagesStayCheap(t *testing.T) {
	s := newStory(t)
	s.told("")
	const n = 20000
	for i := 1; i <= n; i += 500 {
		var pairs []string
		for j := i; j < i+500; j++ {
			pairs = append(pairs, fmt.Sprintf(`config/inode/1/%d={"name":"image%d","size":4096}`, j, j))
		}
		s.put(pairs...)
	}
	s.l.Run(time.Second)
	if s.last.Inodes.Len() != n || s.last.InodeByName.Len() != n {
		t.Fatalf("%d inodes, %d names", s.last.Inodes.Len(), s.last.InodeByName.Len())
	}
}

// lateWatch is a registry whose watches show nothing while it is held, and never that it is another copy: nor does etcd when a copy of the same id has come as far as the watch.
type lateWatch struct {
	registry.Registry
	w    registry.Watcher
	held bool
	late []func()
}

func (r *lateWatch) Watch(prefixes []string, from registry.Revision, w registry.Watcher) func() {
	r.w = w
	return r.Registry.Watch(prefixes, from, r)
}

func (r *lateWatch) do(f func()) {
	if r.held {
		r.late = append(r.late, f)
		return
	}
	f()
}

func (r *lateWatch) Events(rev registry.Revision, evs []registry.Event) {
	r.do(func() { r.w.Events(rev, evs) })
}
func (r *lateWatch) Reset(registry.Revision) {}
func (r *lateWatch) Unavailable(error)       {}

// Everything is read again, because changes were compacted, and another copy answers, of which the watch has not told yet.
func TestLoadOfAnotherCopyComesBeforeItsReset(t *testing.T) {
	s := newStory(t)
	s.f.Stop()
	r := &lateWatch{Registry: s.h}
	s.last = nil
	s.f = cluster.Follow(s.l, r, cluster.ForOSD, s)
	s.told("")
	b := s.store.Backup()
	s.put("config/export/1=x", `config/inode/1/1={"name":"old"}`)
	s.put("config/export/2=x")
	s.put("config/export/3=x")
	s.told("config/export/1 config/inode/1/1", "config/export/2", "config/export/3")
	r.held = true
	s.put("config/export/4=x")
	s.l.Run(time.Second)
	s.store.Restore(b, 0)
	s.put(`config/inode/1/1={"name":"new"}`)
	r.w.Reset(s.last.Revision)
	for _, f := range r.late {
		f() // while everything is read
	}
	r.held = false
	s.l.Run(time.Second)
	if _, is := s.last.Image("new"); !is || s.last.Copy != 1 || s.last.Exports.Len() != 0 {
		t.Errorf("copy %d, names %v, %d exports", s.last.Copy, s.last.InodeByName, s.last.Exports.Len())
	}
}
