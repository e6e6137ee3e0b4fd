package memtree_test

import (
	"testing"

	"holdfast/frontends/nfs/memtree"
	"holdfast/frontends/nfs/treetest"
	"holdfast/frontends/volume/volumetest"
)

func TestSuite(t *testing.T) {
	treetest.Run(t, func(t *testing.T) treetest.Env {
		l := volumetest.NewLoop(1, nil)
		e := volumetest.Manual(l, nil)
		return treetest.Env{Tree: memtree.New(memtree.Options{}), Loop: l, On: e.On, Wait: e.Wait}
	})
}
