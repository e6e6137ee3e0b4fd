package images_test

import (
	"strings"
	"testing"
	"time"

	"holdfast/core/client/clienttest"
	"holdfast/core/images"
	"holdfast/core/layout"
)

// etcd goes back to an earlier state while a command waits until what it changed is shown here: it says so, instead of waiting for that revision.
func TestChangeThatEtcdForgetsIsNotAwaited(t *testing.T) {
	x := clienttest.New(t, 1, nil)
	backup := x.Store.Backup()
	for range 50 {
		x.Put("other", "x")
	}
	x.Registry.WatchLatency = func() time.Duration { return time.Minute }
	at := x.Store.Revision()
	w := &wait{x: x}
	images.Create(x.Client, images.New{Name: "new", Size: 1 << 20, Pool: "data", Identity: [16]byte{1}}, func(_ layout.Inode, err error) { w.done(err) })
	x.Run("the change", func() bool { return x.Store.Revision() > at })
	x.W.Run(100 * time.Millisecond)
	x.Registry.WatchLatency = nil
	x.Store.Restore(backup, 0)
	if err := w.end(); err == nil || !strings.Contains(err.Error(), "etcd has gone back") {
		t.Errorf("ended with %v", err)
	}
}
