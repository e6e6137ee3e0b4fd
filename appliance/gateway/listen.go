package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"holdfast/core/client"
	"holdfast/core/config"
	"holdfast/core/loop"
	"holdfast/frontends/iscsi"
	"holdfast/frontends/nbd"
	"holdfast/frontends/nfs"
)

// ports are the addresses to listen on.
type ports struct {
	nbd, nfs, iscsi []loop.Addr
}

// readPorts reads the addresses from the configuration. When several loops are going to share them it makes sure that nobody else has them, which sharing would hide, and replaces port 0
// by a free one.
func readPorts(v *config.Values, shared bool) (p ports, err error) {
	var errs []error
	read := func(param string) (out []loop.Addr) {
		for _, text := range v.List(param) {
			a := loop.Addr{Network: "tcp", Address: text}
			if path, ok := strings.CutPrefix(text, "unix:"); ok && param == "nbd_address" {
				a = loop.Addr{Network: "unix", Address: path}
			} else if _, err := netip.ParseAddrPort(text); err != nil {
				errs = append(errs, fmt.Errorf("%s %q: want ADDRESS:PORT, with an IPv6 address in brackets%s", param, text, map[bool]string{true: ", or unix:PATH"}[param == "nbd_address"]))
				continue
			}
			if a.Network == "tcp" && shared {
				var err error
				if a.Address, err = probe(a.Address); err != nil {
					errs = append(errs, inUse(param, text, err))
				}
			}
			out = append(out, a)
		}
		return out
	}
	p.nbd, p.nfs, p.iscsi = read("nbd_address"), read("nfs_address"), read("iscsi_address")
	return p, errors.Join(errs...)
}

// probe takes an address for itself and gives it back.
func probe(address string) (string, error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return address, err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// inUse says which parameter has to change.
func inUse(param, address string, err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%s: %s is in use: stop what listens there, or set %s to another address: %w", param, address, param, err)
	}
	return fmt.Errorf("%s: listen on %s: %w", param, address, err)
}

// serve makes the servers and listens, on every loop.
func (g *Gateway) serve(p ports) error {
	v := g.o.Config
	shared := iscsi.NewShared(nil)
	for i := range g.lanes {
		var err error
		g.on(i, func() {
			s := g.lanes[i]
			s.filters = map[string]*filter{}
			s.nbd = nbd.New(s.l, nbd.Options{Log: g.log}, g.im.catalog)
			s.nfs = nfs.New(s.l, nfs.Options{Allow: v.Networks("nfs_allow")}, g.tree)
			s.iscsi = iscsi.New(s.l, iscsi.Options{TargetPrefix: v.String("iscsi_target_prefix")}, g.im.catalog, shared)
			first := i == 0
			share := loop.ListenOptions{Share: len(g.lanes) > 1}
			listen := func(param string, list []loop.Addr, to *[]string, listen func(loop.Addr, loop.ListenOptions) (loop.Addr, error)) {
				for _, a := range list {
					o := share
					if a.Network == "unix" {
						if !first {
							continue // a unix socket has one listener
						}
						o.Share = false
					}
					if err != nil {
						return
					}
					var bound loop.Addr
					if bound, err = listen(a, o); err != nil {
						err = inUse(param, a.Address, err)
					} else if first {
						*to = append(*to, shown(bound))
					}
				}
			}
			filtered := func(param string, h loop.ListenHandler) func(loop.Addr, loop.ListenOptions) (loop.Addr, error) {
				f := &filter{h: h, allow: v.Networks(param), param: param, s: s, g: g}
				s.filters[param] = f
				return func(a loop.Addr, o loop.ListenOptions) (loop.Addr, error) {
					ln, err := s.l.Listen(a, o, f)
					if err != nil {
						return loop.Addr{}, err
					}
					s.listeners = append(s.listeners, ln)
					return ln.Addr(), nil
				}
			}
			listen("nbd_address", p.nbd, &g.address.NBD, filtered("nbd_allow", s.nbd))
			listen("iscsi_address", p.iscsi, &g.address.ISCSI, filtered("iscsi_allow", s.iscsi))
			listen("nfs_address", p.nfs, &g.address.NFS, func(a loop.Addr, o loop.ListenOptions) (loop.Addr, error) {
				ln, err := s.nfs.Listen(a, o)
				if err != nil {
					return loop.Addr{}, err
				}
				return ln.Addr(), nil
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func shown(a loop.Addr) string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return a.Address
}

// Allow is which networks the clients of each protocol may come from.
type Allow struct {
	NBD, NFS, ISCSI []netip.Prefix
}

// SetAllow changes who may connect to a lane from now on. It is called on the lane's loop.
func (g *Gateway) SetAllow(lane int, a Allow) {
	s := g.lanes[lane]
	s.filters["nbd_allow"].allow, s.filters["iscsi_allow"].allow = a.NBD, a.ISCSI
	s.nfs.SetAllow(a.NFS)
}

// Allow is who may connect to a lane. It is called on the lane's loop.
func (g *Gateway) Allow(lane int) Allow {
	s := g.lanes[lane]
	return Allow{s.filters["nbd_allow"].allow, s.nfs.Allow(), s.filters["iscsi_allow"].allow}
}

// Client is a lane's client, which belongs to the lane's loop.
func (g *Gateway) Client(lane int) *client.Client { return g.lanes[lane].c }

// filter refuses clients by their address before a server sees them.
type filter struct {
	h     loop.ListenHandler
	allow []netip.Prefix
	param string
	s     *served
	g     *Gateway
}

// Accepted is loop.ListenHandler's.
func (f *filter) Accepted(c loop.Conn) loop.ConnHandler {
	if f.s.draining {
		return nil
	}
	if remote := c.Remote(); remote.Network == "tcp" {
		ap, err := netip.ParseAddrPort(remote.Address)
		if err != nil || !contains(f.allow, ap.Addr().Unmap().WithZone("")) {
			f.g.log.Debug("client refused: not in the allowed networks", "client", remote.Address, "parameter", f.param)
			return nil
		}
	}
	return f.h.Accepted(c)
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
