package scenarios

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/core/client"
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/tests/stand"
)

// write: fio writes in five ways, checking what it wrote, and qemu-img reads the whole image and writes it back. immediate_commit is none; as our gateway's writes are durable all the same, a
// client that keeps copies writes as well. The original repeats it with erasure codes, which come later.
func write(t *testing.T) {
	c := start(t, stand.Plan{OSDs: 3, Copies: 2, MinSize: 2, OSDSize: 192 << 20, Pool: noCommit}, "")
	beside := newLazyMirror(c, "beside", 8<<20)
	beside.FlushEvery = 32
	beside.begin(2)
	const size = 64 << 20
	c.CLI("create", "testimg", "--size", "64M")
	uri := "nbd://" + c.NBD + "/testimg"
	for _, way := range []struct {
		name  string
		flags string
	}{
		{"4k in order, 16 at once", "--bs=4k --iodepth=16 --rw=write --size=16M"},
		{"68k at random, 16 jobs with 4 at once", "--bs=68k --iodepth=4 --rw=randwrite --numjobs=16 --size=1360k --offset_increment=4M"},
		{"4k at random, 64 jobs, each flushes", "--bs=4k --iodepth=1 --rw=randwrite --numjobs=64 --size=64k --offset_increment=1M --fsync=1"},
		{"4M in order, each flushed", "--bs=4M --iodepth=1 --rw=write --size=64M --fsync=1"},
		{"4k at random, every 32nd flushed", "--bs=4k --iodepth=16 --rw=randwrite --size=8M --fsync=32"},
	} {
		args := append([]string{"--name=test", "--thread", "--minimal", "--ioengine=nbd", "--uri=" + uri, "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0"}, strings.Fields(way.flags)...)
		if out, err := c.Client.Try(settle, "fio", args...); err != nil {
			t.Fatalf("fio, %s: %v\n%s", way.name, err, out)
		}
	}
	file := filepath.Join(t.TempDir(), "copy.raw")
	stand.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", uri, file)
	want, err := os.ReadFile(file)
	if err != nil || len(want) != size {
		t.Fatalf("qemu-img read %d bytes, wanted %d (%v)", len(want), size, err)
	}
	m := &mirror{t: t, c: c, image: "testimg", want: want}
	if m.conn, err = c.Dial("testimg")(); err != nil {
		t.Fatal(err)
	}
	defer m.conn.Close()
	m.compare("as qemu-img read it")
	if bytes.Equal(want[:block], make([]byte, block)) {
		t.Error("fio left zeroes")
	}
	// The image is overwritten with other data first, so that what qemu-img writes back can be told from what was there.
	rng := m.random(0)
	other := make([]byte, 1<<20)
	for off := 0; off < size; off += len(other) {
		noise(rng, other)
		if _, err := m.conn.WriteAt(other, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if m.check(0, 1<<20) == nil {
		t.Fatal("the mirror does not notice that the image was overwritten")
	}
	stand.Run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file, uri)
	m.compare("as qemu-img wrote it back")
	beside.end()
	beside.must(beside.conn.Flush())
	beside.compare("written lazily")
	c.quiet()
	c.sameCopies(2)
}

// cas: a write that names the version after the present one is done, and the same again is refused (EINTR in the protocol, *client.ConflictError here) and changes nothing.
func cas(t *testing.T) {
	c := start(t, stand.Plan{OSDs: 3, Copies: 3, MinSize: 2, PGs: 1, NoGate: true}, "")
	c.CLI("create", "testimg", "--size", "1M")
	ctx, cancel := context.WithTimeout(t.Context(), settle)
	defer cancel()
	conn := c.library()
	defer conn.Close()
	image, err := conn.OpenImage("testimg")
	if err != nil {
		t.Fatal(err)
	}
	// do runs one operation on the image's first block and returns the object's version and what was read.
	do := func(kind client.Kind, cas layout.Version, data byte) (version layout.Version, got []byte, err error) {
		err = conn.Do(ctx, func(cl *client.Client, s *client.Session, done func(error)) {
			op := &client.Op{Kind: kind, Session: s, Inode: image.Inode, Len: block, CAS: cas}
			if kind == client.Write {
				r := cl.Loop().(loop.Runner).Alloc(block)
				copy(r.Bytes(), bytes.Repeat([]byte{data}, block))
				op.Pieces = []client.Piece{{Ref: r, Len: block}}
			}
			op.Done = func(op *client.Op) {
				version = op.Version
				for i := range op.Parts {
					got = append(got, op.Parts[i].Bytes()...)
				}
				op.ReleaseParts()
				for _, p := range op.Pieces {
					p.Ref.Release()
				}
				done(op.Err)
			}
			cl.Submit(op)
		})
		return version, got, err
	}
	holds := func(version layout.Version, data byte) {
		t.Helper()
		got, b, err := do(client.Read, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got != version || !bytes.Equal(b, bytes.Repeat([]byte{data}, block)) {
			t.Fatalf("the object has version %d and holds %x..., wanted version %d and %x", got, b[:8], version, data)
		}
	}
	swap := func(to layout.Version, data byte) {
		t.Helper()
		got, _, err := do(client.Write, to, data)
		if err != nil {
			t.Fatalf("write version %d: %v", to, err)
		}
		if got != to {
			t.Fatalf("the write that was to make version %d made %d", to, got)
		}
	}
	refused := func(to layout.Version, data byte, have layout.Version) {
		t.Helper()
		_, _, err := do(client.Write, to, data)
		if e, ok := errors.AsType[*client.ConflictError](err); !ok || e.Version != have {
			t.Fatalf("write version %d over %d: %v, wanted it refused", to, have, err)
		}
	}
	first, _, err := do(client.Write, 0, 0xa0)
	if err != nil {
		t.Fatal(err)
	}
	holds(first, 0xa0)
	swap(first+1, 0xa1)
	holds(first+1, 0xa1)
	swap(first+2, 0xa2)
	holds(first+2, 0xa2)
	refused(first+2, 0xa3, first+2)
	holds(first+2, 0xa2)
	// The same with another primary.
	old := c.awaitClean()[0].Primary
	c.kill(old, false)
	c.until("another primary serves", func(list []pg) bool { return list[0].Primary != old && list[0].has("active") })
	refused(first+2, 0xa4, first+2)
	got, _, err := do(client.Write, first+3, 0xa5)
	if err != nil || got <= first+2 { // versions of a new interval begin above all that were
		t.Fatalf("write version %d under another primary: version %d, %v", first+3, got, err)
	}
	holds(got, 0xa5)
}

// rm: an image with data goes, and its space with it.
func rm(t *testing.T) {
	c := start(t, stand.Plan{OSDs: 3, Copies: 2, MinSize: 2, OSDSize: 192 << 20}, "")
	m := newMirror(c, "testimg", 128<<20)
	rng := m.random(0)
	for off := 0; off < len(m.want); off += 256 << 10 {
		m.must(m.write(rng, off, 64<<10))
	}
	keep := newMirror(c, "other", 4<<20)
	keep.fill()
	c.counted(64<<20 + 4<<20)
	c.hold(2, 64<<20+4<<20)
	m.conn.Close()
	c.CLI("rm", "testimg")
	if list := c.images(); list != "other" {
		t.Errorf("after rm the images are: %s", list)
	}
	if out, err := c.TryCLI("rm", "testimg"); err == nil {
		t.Errorf("it can be removed twice:\n%s", out)
	}
	c.hold(2, 4<<20)
	keep.compare("after the other one was removed")
	keep.conn.Close()
	c.CLI("rm", "other")
	c.hold(2, 0)
	c.quiet()
	c.nothingLeft()
}

// images are the names of all images.
func (c *cluster) images() string {
	c.t.Helper()
	list, err := read[[]struct{ Name string }](c, "ls")
	if err != nil {
		c.t.Fatal(err)
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return strings.Join(names, " ")
}

// nothingLeft stops the OSDs and fails the test for every object on their disks.
func (c *cluster) nothingLeft() {
	c.t.Helper()
	for n, disk := range c.stopAndDump() {
		if len(disk) > 0 {
			for id, o := range disk {
				c.t.Errorf("OSD %d still has %d objects of images that were removed: %s %+v ...", n, len(disk), id, o)
				break
			}
		}
	}
}

// rmDegraded: an OSD is dead (its state removed, or just dead) while an image is removed and another one is trimmed. The original wants the removal to fail and the image to stay listed; ours
// removes it, and nothing of it is there again when the OSD returns. The original has a pool with XOR, which comes with erasure codes.
func rmDegraded(t *testing.T) {
	for _, tell := range []bool{true, false} {
		t.Run(map[bool]string{true: "state_removed", false: "just_dead"}[tell], func(t *testing.T) {
			t.Parallel()
			c := start(t, stand.Plan{OSDs: 3, Copies: 3, MinSize: 1, PGs: 4}, `,"etcd_lease_ttl":3`)
			m, keep := newMirror(c, "testimg", 8<<20), newMirror(c, "other", 8<<20)
			m.fill()
			keep.fill()
			m.conn.Close()
			c.counted(16 << 20)
			c.hold(3, 16<<20)
			c.OSDs[3].Kill()
			if tell {
				c.Delete("osd/state/3")
			}
			c.CLI("rm", "testimg")
			if list := c.images(); list != "other" {
				t.Errorf("after rm the images are: %s", list)
			}
			keep.trim(0, 4<<20)
			keep.must(keep.write(keep.random(0), 1<<20, 64<<10)) // deleted, and there again
			c.every("every PG is active without OSD 3", func(p pg) bool { return p.has("active") && !slices.Contains(p.Peers, 3) })
			c.revive(3)
			c.hold(3, 4<<20+128<<10)
			keep.compare("with all OSDs")
			// The one that was away serves alone: what it missed it must have learned.
			c.kill(1, true)
			c.kill(2, true)
			c.every("every PG is served by OSD 3", func(p pg) bool { return p.is("active", "degraded") && p.Primary == 3 })
			keep.compare("on the OSD that was away")
			c.revive(1)
			c.revive(2)
			c.awaitClean()
			keep.compare("with all OSDs again")
			keep.conn.Close()
			c.CLI("rm", "other")
			c.hold(3, 0)
			c.quiet()
			c.nothingLeft()
		})
	}
}

// etcdFail: five members of etcd are killed and started one after the other, then two at once, then three, which leaves no quorum until one is back, all while small writes run that are
// flushed one by one. No client sees an error. The half with antietcd is not ours: our monitors hold no etcd.
func etcdFail(t *testing.T) {
	const members = 5
	c := start(t, stand.Plan{OSDs: 3, Copies: 3, MinSize: 2, Etcds: members, Monitors: 2}, `,"etcd_lease_ttl":3`)
	m := newMirror(c, "testimg", 8<<20)
	m.MaxWrite, m.FlushEvery = block, 1
	m.begin(4)
	m.progress(50)
	kill := func(all ...int) {
		t.Helper()
		for _, n := range all {
			c.Etcds[n].Kill()
		}
		m.progress(50)
		if members-len(all) > members/2 {
			c.AwaitEtcd(settle)
		} else if _, err := c.Etcdctl("put", "holdfast-test", "y"); err == nil {
			t.Errorf("etcd writes without members %v", all)
		} // that took longer than the leases last
		m.progress(50)
		for _, n := range all {
			c.StartEtcd(n)
		}
		c.AwaitEtcd(settle)
		m.progress(50)
	}
	for n := 1; n <= members; n++ {
		kill(n)
	}
	kill(c.EtcdLeader())
	kill(1, 2)
	kill(3, 4, 5)
	m.end()
	c.awaitClean()
	m.compare("after etcd's troubles")
	// Everything goes on as before: a loss is noticed and made up for.
	m.begin(2)
	c.kill(2, false)
	c.every("every PG is active without OSD 2", func(p pg) bool { return p.has("active") && !slices.Contains(p.Peers, 2) })
	m.progress(50)
	c.revive(2)
	c.awaitClean()
	m.end()
	m.compare("at last")
	c.quiet()
}
