package gateway

import (
	"log/slog"
	"os"
	"strings"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/loop"
	"holdfast/core/registry"
)

// registration keeps gateway/<id> in the registry, under a lease. It belongs to the first loop.
//
// A lost lease does not end the instance: the sessions live on with this process, and OSDs keep an instance's pairs for a minute after its key has gone. So the key is written again with
// the same instance as soon as there is another lease.
type registration struct {
	l     loop.Loop
	r     registry.Registry
	key   string
	ttl   time.Duration
	value cluster.Gateway
	log   *slog.Logger

	lease   registry.Lease
	there   bool              // our key is there, under our lease
	mod     registry.Revision // of it, as far as is known
	writing bool              // an update is under way
	retry   loop.Timer
	said    bool // that another gateway has our name
	stopped bool
}

const registerRetry = time.Second

func newRegistration(l loop.Loop, r registry.Registry, o Options, log *slog.Logger) *registration {
	id := o.Config.String("gateway_id")
	if id == "" {
		id = o.Host
	}
	if id == "" {
		id, _ = os.Hostname() // "" is as good as an error
	}
	id = strings.ReplaceAll(id, "/", "-")
	if id == "" {
		id = "gateway"
	}
	g := &registration{l: l, r: r, key: cluster.GatewayKey(id), ttl: o.Config.Duration("etcd_lease_ttl"), log: log}
	g.value = cluster.Gateway{Instance: o.Instance, Host: o.Host, Version: o.Version}
	g.retry.Fire = func() {
		if g.there {
			g.update()
		} else {
			g.write()
		}
	}
	return g
}

// start registers.
func (g *registration) start(a Addresses) {
	g.value.NBD, g.value.NFS, g.value.ISCSI = a.NBD, a.NFS, a.ISCSI
	if !g.stopped {
		g.lease = g.r.Grant(g.ttl, g)
	}
}

// Granted is registry.LeaseHandler's.
func (g *registration) Granted(registry.Lease) { g.write() }

// Lost is registry.LeaseHandler's.
func (g *registration) Lost(_ registry.Lease, err error) {
	if g.stopped {
		return
	}
	g.there = false
	g.log.Warn("the registration has run out; the gateway goes on serving and registers again", "key", g.key, "err", err)
	g.lease = g.r.Grant(g.ttl, g)
}

// write puts the key, if nobody else's is there: the one of an earlier run vanishes with its lease.
func (g *registration) write() {
	if g.stopped || g.lease.ID() == 0 {
		return
	}
	lease, at := g.lease, g.value.Revision
	put := []registry.Op{{Kind: registry.Put, Key: g.key, Value: cluster.Value(&g.value), Lease: lease.ID()}}
	g.r.Txn(registry.Txn{If: []registry.Compare{registry.Absent(g.key)}, Then: put, Else: []registry.Op{{Kind: registry.Get, Key: g.key}}}, func(res registry.TxnResult, err error) {
		switch {
		case g.stopped || lease != g.lease:
			return
		case err == nil && res.Succeeded:
			g.said = false
			g.written(at, res.Revision)
			return
		case err == nil && ours(res, lease):
			g.written(-1, res.Results[0][0].Mod) // a transaction of ours whose answer was lost
			return
		case err == nil && !g.said:
			g.said = true
			g.log.Warn("another gateway is registered under this name: an earlier run, until its lease runs out, or one with the same gateway_id", "key", g.key)
		case err != nil:
			g.log.Warn("the gateway could not be registered yet", "key", g.key, "err", err)
		}
		g.l.Arm(&g.retry, g.l.Now().Add(registerRetry))
	})
}

// shows says that the images are served as they were at a revision, so that who has made one can wait for it.
func (g *registration) shows(at registry.Revision) {
	g.value.Revision = int64(at)
	g.update()
}

// ours reports whether the key that a transaction found, when its conditions did not hold, is there under the lease.
func ours(res registry.TxnResult, lease registry.Lease) bool {
	return len(res.Results) == 1 && len(res.Results[0]) == 1 && res.Results[0][0].Lease == lease.ID()
}

// written says that our key is there since revision mod, with the revision at; -1 when that is not known.
func (g *registration) written(at int64, mod registry.Revision) {
	g.there, g.mod = true, mod
	if g.value.Revision != at {
		g.update()
	}
}

// update writes the value again, if our key is there. One that was given up may reach the registry after the next: then it must change nothing.
func (g *registration) update() {
	if g.stopped || g.writing || !g.there {
		return
	}
	g.writing = true
	lease, at := g.lease, g.value.Revision
	g.r.Txn(registry.Txn{
		If:   []registry.Compare{registry.HeldBy(g.key, lease.ID()), registry.Unchanged(g.key, g.mod)},
		Then: []registry.Op{{Kind: registry.Put, Key: g.key, Value: cluster.Value(&g.value), Lease: lease.ID()}},
		Else: []registry.Op{{Kind: registry.Get, Key: g.key}},
	}, func(res registry.TxnResult, err error) {
		g.writing = false
		switch {
		case err != nil:
			g.l.Arm(&g.retry, g.l.Now().Add(registerRetry))
		case lease != g.lease:
			g.update()
		case res.Succeeded:
			g.written(at, res.Revision)
		case ours(res, lease):
			g.written(-1, res.Results[0][0].Mod)
		default:
			g.there = false // the key has vanished or is another's
			g.write()
		}
	})
}

// stop gives the registration up.
func (g *registration) stop(done func()) {
	g.stopped = true
	g.l.Disarm(&g.retry)
	if g.lease == nil {
		done()
		return
	}
	g.lease.Revoke(func(error) { done() }) // without an answer the key vanishes by itself
}
