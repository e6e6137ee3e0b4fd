package allinone

import (
	"errors"
	"net"
	"strings"
	"testing"

	"holdfast/appliance/bootstrap"
	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/registry"
)

func kindOf(err error) admin.Kind {
	var e *admin.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

func TestShapeOnlyEverGrows(t *testing.T) {
	made := bootstrap.Shape{Format: 1, OSDs: 3, OSDSize: 1 << 30, Replicas: 2, Ready: true}
	for _, c := range []struct {
		name  string
		fresh bool
		o     Options
		want  bootstrap.Shape
		kind  admin.Kind
	}{
		{"defaults", true, Options{}, bootstrap.Shape{OSDs: 3, OSDSize: DefaultOSDSize, Replicas: 3}, 0},
		{"one OSD", true, Options{OSDs: 1}, bootstrap.Shape{OSDs: 1, OSDSize: DefaultOSDSize, Replicas: 1}, 0},
		{"size is whole sectors", true, Options{OSDSize: 1<<30 + 1}, bootstrap.Shape{OSDs: 3, OSDSize: 1 << 30, Replicas: 3}, 0},
		{"more copies than OSDs", true, Options{OSDs: 2, Replicas: 3}, bootstrap.Shape{}, admin.Usage},
		{"too small", true, Options{OSDSize: 1 << 20}, bootstrap.Shape{}, admin.Usage},
		{"too many", true, Options{OSDs: 1000}, bootstrap.Shape{}, admin.Usage},
		{"as it was", false, Options{}, bootstrap.Shape{OSDs: 3, OSDSize: 1 << 30, Replicas: 2}, 0},
		{"the same said again", false, Options{OSDs: 3, OSDSize: 1 << 30, Replicas: 2}, bootstrap.Shape{OSDs: 3, OSDSize: 1 << 30, Replicas: 2}, 0},
		{"growing", false, Options{OSDs: 5}, bootstrap.Shape{OSDs: 5, OSDSize: 1 << 30, Replicas: 2}, 0},
		{"shrinking", false, Options{OSDs: 2}, made, admin.Refused},
		{"other copies", false, Options{Replicas: 3}, made, admin.Refused},
		{"other size", false, Options{OSDSize: 2 << 30}, made, admin.Refused},
	} {
		d := &bootstrap.Dir{Fresh: c.fresh}
		if !c.fresh {
			d.Shape = made
		}
		err := shape(d, &c.o)
		if kindOf(err) != c.kind || (err == nil) != (c.kind == 0) {
			t.Errorf("%s: %v, want kind %d", c.name, err, c.kind)
			continue
		}
		if got := d.Shape; c.kind == 0 && (got.OSDs != c.want.OSDs || got.OSDSize != c.want.OSDSize || got.Replicas != c.want.Replicas) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if c.kind != 0 && !c.fresh && d.Shape.OSDs != made.OSDs {
			t.Errorf("%s: the shape changed although it was refused", c.name)
		}
	}
}

func TestImageFlag(t *testing.T) {
	if name, size, err := parseImage("vm/a:1.5G"); err != nil || name != "vm/a" || size != 3<<29 {
		t.Errorf("vm/a:1.5G = %q, %d, %v", name, size, err)
	}
	for _, bad := range []string{"demo", "demo:", ":1G", "demo:0", "demo:x", "a\nb:1G", "demo:-1"} {
		if _, _, err := parseImage(bad); kindOf(err) != admin.Usage || !strings.Contains(err.Error(), "NAME:SIZE") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestAddressThatIsTakenNamesWhoHasIt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = checkAddress("nbd", l.Addr().String())
	if kindOf(err) != admin.Refused || !strings.Contains(err.Error(), "--nbd "+l.Addr().String()) || !strings.Contains(err.Error(), "allinone.test") {
		t.Errorf("taken: %v", err)
	}
	if err := checkAddress("nbd", "127.0.0.1:0"); err != nil {
		t.Errorf("free: %v", err)
	}
	if err := checkAddress("nbd", "192.0.2.1:1"); kindOf(err) != admin.Usage {
		t.Errorf("not this host's: %v", err)
	}
	for a, ok := range map[string]bool{"127.0.0.1:2379": true, "127.3.2.1:1": true, "localhost:2379": true, "[::1]:2379": true, "0.0.0.0:2379": false, ":2379": false, "10.0.0.1:2379": false, "x": false} {
		if err := loopbackOnly(a); (err == nil) != ok {
			t.Errorf("loopbackOnly(%s): %v", a, err)
		}
	}
}

func TestServesCountsOnlyThePresentRun(t *testing.T) {
	pg := layout.PGID{Pool: 1, Num: 1}
	snapshot := func(state cluster.StateBits, instance uint64, osdLease, pgLease int64) *cluster.Snapshot {
		s := &cluster.Snapshot{
			Pools:     cluster.NewMap[layout.PoolID, *cluster.Pool](func(a, b layout.PoolID) int { return int(a) - int(b) }),
			PGStates:  cluster.NewMap[layout.PGID, *cluster.PGState](func(a, b layout.PGID) int { return int(a.Num) - int(b.Num) }),
			OSDStates: cluster.NewMap[layout.OSDNum, *cluster.OSDState](func(a, b layout.OSDNum) int { return int(a) - int(b) }),
			PGConfig:  &cluster.PGConfig{Pools: map[layout.PoolID][]cluster.PGTarget{1: {{OSDSet: []layout.OSDNum{1}, Primary: 1}}}},
		}
		s.Pools = s.Pools.With(1, &cluster.Pool{ID: 1})
		st := &cluster.PGState{Primary: 1, State: state}
		st.Lease = registry.LeaseID(pgLease)
		s.PGStates = s.PGStates.With(pg, st)
		o := &cluster.OSDState{Instance: cluster.Number(instance)}
		o.Lease = registry.LeaseID(osdLease)
		s.OSDStates = s.OSDStates.With(1, o)
		return s
	}
	running := map[layout.OSDNum]uint64{1: 9}
	for _, c := range []struct {
		name string
		s    *cluster.Snapshot
		want bool
	}{
		{"active", snapshot(cluster.StateActive|cluster.StateDegraded, 9, 4, 4), true},
		{"peering", snapshot(cluster.StatePeering, 9, 4, 4), false},
		{"the key of the last run", snapshot(cluster.StateActive, 8, 3, 3), false},
		{"under the last run's lease", snapshot(cluster.StateActive, 9, 4, 3), false},
		{"no pool", &cluster.Snapshot{}, false},
	} {
		if got := serves(c.s, running); got != c.want {
			t.Errorf("%s: serves = %v", c.name, got)
		}
	}
}
