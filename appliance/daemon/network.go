package daemon

import (
	"net"
	"net/netip"
	"strconv"

	"holdfast/core/admin"
	"holdfast/core/config"
	"holdfast/core/loop"
)

// Bind is where an OSD listens: bind_address, else this host's addresses in osd_network and osd_cluster_network, else all but loopback, else loopback.
func Bind(v *config.Values) ([]loop.Addr, error) {
	hosts := v.List("bind_address")
	if len(hosts) == 0 {
		local, err := localAddresses()
		if err != nil {
			return nil, &admin.Error{Kind: admin.Failed, What: "cannot list this host's addresses", Err: err, Way: "give --bind_address"}
		}
		nets := append(append([]netip.Prefix(nil), v.Networks("osd_network")...), v.Networks("osd_cluster_network")...)
		hosts = inNetworks(local, nets)
		if len(hosts) == 0 && len(nets) > 0 {
			return nil, &admin.Error{Kind: admin.Usage, What: "this host has no address in osd_network or osd_cluster_network", Way: "correct them, or give --bind_address"}
		}
	}
	var out []loop.Addr
	for _, h := range hosts {
		out = append(out, loop.Addr{Network: "tcp", Address: net.JoinHostPort(h, strconv.FormatInt(v.Int("bind_port"), 10))})
	}
	return out, nil
}

// inNetworks picks the addresses that lie in nets; without nets, those that are not loopback, or loopback when there is nothing else.
func inNetworks(local []netip.Addr, nets []netip.Prefix) (hosts []string) {
	for _, a := range local {
		ok := len(nets) == 0 && !a.IsLoopback()
		for _, n := range nets {
			ok = ok || n.Contains(a)
		}
		if ok {
			hosts = append(hosts, a.String())
		}
	}
	if len(hosts) == 0 && len(nets) == 0 {
		return []string{"127.0.0.1"}
	}
	return hosts
}

func localAddresses() (out []netip.Addr, err error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				if ip = ip.Unmap(); !ip.IsLinkLocalUnicast() {
					out = append(out, ip)
				}
			}
		}
	}
	return out, nil
}
