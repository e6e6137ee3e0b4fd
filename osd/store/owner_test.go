package store

import (
	"bytes"
	"errors"
	"testing"

	"holdfast/core/layout"
)

// A store becomes whose it is when it is first opened, stays that, also when it is emptied, and nobody else opens or changes it.
func TestStoreIsOpenedByItsOwnerOnly(t *testing.T) {
	cluster, other := layout.StoreID{1}, layout.StoreID{2}
	r := newRig(t, 1, 8<<20, smallConfig)
	if o := r.s.Superblock().Owner; o != (Owner{}) {
		t.Fatalf("a new store belongs to %v", o)
	}
	r.close()
	open := func(o Owner) error {
		r.l.Kill()
		r.process()
		r.o.Owner = o
		return r.open()
	}
	if err := open(Owner{OSD: 3}); err != nil {
		t.Fatal(err)
	}
	r.write(1, 0, 1, 0, fill(4096, 'a'))
	r.close()
	if err := open(Owner{cluster, 3}); err != nil { // of a release that did not know the cluster
		t.Fatal(err)
	}
	r.close()
	content := func() []byte {
		b := make([]byte, 8<<20)
		r.dev.Peek(b, 0)
		return b
	}
	before := content()
	for _, o := range []Owner{{cluster, 4}, {other, 3}, {other, 4}, {OSD: 4}, {Cluster: other}} {
		err := open(o)
		if e, is := errors.AsType[*OwnerError](err); !is || e.Has != (Owner{cluster, 3}) || e.Want != o {
			t.Errorf("opened by %v: %v", o, err)
		}
	}
	if !bytes.Equal(content(), before) {
		t.Error("somebody else's opening has changed the disk")
	}
	r.o.Owner = Owner{}
	if err := r.accept(false); err != nil {
		t.Fatal(err)
	}
	if err := open(Owner{cluster, 4}); err == nil {
		t.Error("a store that was emptied is anybody's")
	}
	if err := open(Owner{cluster, 3}); err != nil {
		t.Fatal(err)
	}
	r.close()
}
