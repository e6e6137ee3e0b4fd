package etcd_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"holdfast/core/registry"
	"holdfast/core/registry/etcd"
	"holdfast/core/registry/registrytest"
)

// patient is the QuickTimeout of tests that are not about it: an etcd in this process answers late when the machine is busy.
const patient = 3 * time.Second

// startEtcd runs a real etcd on free loopback ports and returns its client address.
func startEtcd(t *testing.T) string { return startEtcdWith(t, "etcd-cluster") }

func startEtcdWith(t *testing.T, token string) string {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(t.TempDir(), "etcd")
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	cfg.UnsafeNoFsync = true
	cfg.TickMs, cfg.ElectionMs = 20, 200 // the shortest lease is 1.5 election timeouts
	local := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{local}, []url.URL{local}
	cfg.AdvertiseClientUrls, cfg.AdvertisePeerUrls = []url.URL{local}, []url.URL{local}
	cfg.InitialClusterToken = token
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	srv, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	select {
	case <-srv.Server.ReadyNotify():
	case <-time.After(20 * time.Second):
		t.Fatal("etcd did not start")
	}
	return srv.Clients[0].Addr().String()
}

// proxy is a TCP relay that can be cut.
type proxy struct {
	ln     net.Listener
	target string
	mu     sync.Mutex
	cut    bool
	conns  map[net.Conn]bool
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, target: target, conns: make(map[net.Conn]bool)}
	go p.serve()
	t.Cleanup(func() { ln.Close(); p.set(true) })
	return p
}

func (p *proxy) serve() {
	for {
		in, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target := p.target
		p.mu.Unlock()
		out, err := net.Dial("tcp", target)
		if err != nil {
			in.Close()
			continue
		}
		p.mu.Lock()
		if p.cut {
			in.Close()
			out.Close()
		} else {
			p.conns[in], p.conns[out] = true, true
			go relay(in, out)
			go relay(out, in)
		}
		p.mu.Unlock()
	}
}

func relay(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	to.Close()
	from.Close()
}

func (p *proxy) set(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for c := range p.conns {
			c.Close()
		}
		clear(p.conns)
	}
}

func TestConformance(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) *registrytest.Env {
		direct := startEtcd(t)
		admin, err := clientv3.New(clientv3.Config{Endpoints: []string{direct}, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { admin.Close() })
		l := registrytest.NewLoop(t, false)
		p := newProxy(t, direct)
		return &registrytest.Env{
			Loop: l, TTL: 2 * time.Second, // longer than a busy machine keeps an answer back
			Open: func() registry.Registry {
				r, err := etcd.Open(l, etcd.Options{Endpoints: []string{"http://" + p.ln.Addr().String() + "/v3"}, Prefix: "/conformance", QuickTimeout: patient, Progress: 200 * time.Millisecond})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(r.Close)
				return r
			},
			Cut: p.set,
			Compact: func(rev registry.Revision) {
				if _, err := admin.Compact(context.Background(), int64(rev)); err != nil {
					t.Fatal(err)
				}
			},
			Expire: func(id registry.LeaseID) {
				if _, err := admin.Revoke(context.Background(), clientv3.LeaseID(id)); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

func TestEndpoints(t *testing.T) {
	for _, c := range []struct {
		in   string
		tls  bool
		want string // "" means an error
	}{
		{"10.0.0.1:2379", false, "http://10.0.0.1:2379"},
		{" [::1]:2379/v3 ", false, "http://[::1]:2379"},
		{"http://a:1/v3/", false, "http://a:1"},
		{"a:1", true, "https://a:1"},
		{"https://a:1", true, "https://a:1"},
		{"https://a:1", false, ""},
		{"ftp://a:1", false, ""},
		{"10.0.0.1", false, ""},
		{"", false, ""},
	} {
		got, err := etcd.Endpoints([]string{c.in}, c.tls)
		if (err != nil) != (c.want == "") || err == nil && got[0] != c.want {
			t.Errorf("Endpoints(%q, %v) = %v, %v, want %q", c.in, c.tls, got, err, c.want)
		}
	}
	if _, err := etcd.Endpoints(nil, false); err == nil {
		t.Error("no address at all was accepted")
	}
	if got := etcd.Root("cluster/one/"); got != "/cluster/one/" {
		t.Errorf("Root = %q", got)
	}
}
