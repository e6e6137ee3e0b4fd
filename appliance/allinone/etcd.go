package allinone

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// etcdQuota is the most that etcd may keep: a hundred times what a cluster of thousands of images needs.
	etcdQuota = 4 << 30
	// etcdRequest bounds a transaction, as the registry's client does: changing a pool's PGs puts one key for each.
	etcdRequest = 100 << 20
	etcdTxnOps  = 100000
	// etcdHistory is how many revisions a watch may be behind before it has to read everything again.
	etcdHistory = "1000"
	// etcdStart bounds opening the database and electing its only member.
	etcdStart = 30 * time.Second
	// etcdClose bounds its end. All its clients are gone by then, and what it acknowledged is on the disk.
	etcdClose = 3 * time.Second
)

// etcd is the embedded etcd server: one member, reachable at the client addresses only.
type etcd struct {
	server *embed.Etcd
}

// startEtcd opens the database in dir and serves it at the addresses, host:port each.
func startEtcd(ctx context.Context, dir, logFile string, addresses []string) (*etcd, error) {
	c := embed.NewConfig()
	c.Dir = dir
	c.Name = "holdfast"
	urls := func(hosts []string) (out []url.URL) {
		for _, h := range hosts {
			out = append(out, url.URL{Scheme: "http", Host: h})
		}
		return out
	}
	c.ListenClientUrls, c.AdvertiseClientUrls = urls(addresses), urls(addresses)
	// The only member has no peers; it listens on some free loopback port because it has to.
	c.ListenPeerUrls, c.AdvertisePeerUrls = urls([]string{"127.0.0.1:0"}), urls([]string{"127.0.0.1:0"})
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.QuotaBackendBytes, c.MaxRequestBytes, c.MaxTxnOps = etcdQuota, etcdRequest, etcdTxnOps
	c.AutoCompactionMode, c.AutoCompactionRetention = "revision", etcdHistory
	c.SnapshotCount = 10000
	c.Metrics = "basic"
	log, err := etcdLog(logFile)
	if err != nil {
		return nil, err
	}
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)
	server, err := embed.StartEtcd(c)
	if err != nil {
		return nil, err
	}
	e := &etcd{server: server}
	t := time.NewTimer(etcdStart)
	defer t.Stop()
	select {
	case <-server.Server.ReadyNotify():
		return e, nil
	case err = <-server.Err():
	case <-ctx.Done():
		err = ctx.Err()
	case <-t.C:
		err = fmt.Errorf("it was not ready within %v", etcdStart)
	}
	e.close()
	return nil, err
}

// etcdLog makes the log of etcd's own warnings.
func etcdLog(path string) (*zap.Logger, error) {
	c := zap.NewProductionConfig()
	c.OutputPaths, c.ErrorOutputPaths = []string{path}, []string{path}
	c.Level = zap.NewAtomicLevelAt(zapcore.WarnLevel)
	c.DisableStacktrace = true
	return c.Build()
}

// failed tells when the server has ended by itself.
func (e *etcd) failed() <-chan error { return e.server.Err() }

// close ends the server, waiting at most etcdClose; it reports false when it did not end in time.
func (e *etcd) close() bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.server.Close()
	}()
	t := time.NewTimer(etcdClose)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}
