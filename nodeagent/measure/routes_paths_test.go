package measure

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/drover-project/drover/bpf/routetime"
	"github.com/drover-project/drover/hack/lab/fabric"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/test/netspace"
)

// twoPaths is a and b with a router between them that chooses one of two paths to b by the
// source port, as one with ECMP does by a hash of it.
func twoPaths(t *testing.T) *routeNet {
	t.Helper()
	n := &routeNet{
		spaces: map[model.NodeID]netns.NsHandle{"a": netspace.Make(t), "b": netspace.Make(t)},
		address: map[model.NodeID]netip.Addr{
			"a": netip.MustParseAddr("10.235.0.1"), "b": netip.MustParseAddr("10.235.9.2")},
	}
	router := netspace.Make(t)
	in(t, n.spaces["a"], func() error {
		return errors.Join(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"},
			PeerName: "eth0", PeerNamespace: netlink.NsFd(router)}), configure("eth0", "10.235.0.1/24"))
	})
	var ports []fabric.Port
	tap := func(ns netns.NsHandle, port, device, address string, mac byte) {
		in(t, ns, func() error {
			file, err := fabric.OpenTAP(device, net.HardwareAddr{2, 0, 0, 0, 3, mac})
			if err != nil {
				return err
			}
			ports = append(ports, fabric.Port{Name: port, File: file})
			return configure(device, address)
		})
	}
	tap(router, "router-fast", "fast", "10.235.1.254/24", 1)
	tap(router, "router-slow", "slow", "10.235.2.254/24", 2)
	tap(n.spaces["b"], "b-fast", "fast", "10.235.1.2/24", 3)
	tap(n.spaces["b"], "b-slow", "slow", "10.235.2.2/24", 4)
	n.fabric = netspace.Connect(t, fabric.Cut, ports)

	hop := func(gateway string) *netlink.NexthopInfo { return &netlink.NexthopInfo{Gw: net.ParseIP(gateway)} }
	in(t, n.spaces["b"], func() error {
		return errors.Join(configure("lo", "10.235.9.2/32"), looseSource(),
			netlink.RouteAdd(&netlink.Route{Dst: netspace.IPNet(netip.MustParsePrefix("10.235.0.0/24")),
				MultiPath: []*netlink.NexthopInfo{hop("10.235.1.254"), hop("10.235.2.254")}}))
	})
	in(t, router, func() error {
		b, table := netspace.IPNet(netip.MustParsePrefix("10.235.9.2/32")), 100
		upper := netlink.NewRule()
		upper.Table, upper.IPProto = table, 17
		upper.Sport = netlink.NewRulePortRange(routetime.Port+routetime.Paths/2, routetime.Port+routetime.Paths-1)
		return errors.Join(configure("eth0", "10.235.0.254/24"), looseSource(),
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
			netlink.RouteAdd(&netlink.Route{Dst: b, Gw: net.ParseIP("10.235.1.2")}),
			netlink.RouteAdd(&netlink.Route{Dst: b, Gw: net.ParseIP("10.235.2.2"), Table: table}),
			netlink.RuleAdd(upper))
	})
	in(t, n.spaces["a"], func() error { return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP("10.235.0.254")}) })
	return n
}

// looseSource lets packets come in by another device than answers would leave by, in the
// network namespace of the calling thread.
func looseSource() error {
	files, err := filepath.Glob("/proc/sys/net/ipv4/conf/*/rp_filter")
	for _, f := range files {
		err = errors.Join(err, os.WriteFile(f, []byte("0"), 0))
	}
	return err
}

// Both paths are measured, and the route time and its spread tell of both.
func TestRoutesOverTwoPaths(t *testing.T) {
	// Round trips, far longer than what an emulated processor adds to one.
	const fast, slow = 5 * time.Millisecond, 45 * time.Millisecond
	n := twoPaths(t)
	n.delay(t, "router-fast", "b-fast", fast/2)
	n.delay(t, "router-slow", "b-slow", slow/2)
	a := n.run(t, "a", routetime.Open)
	n.run(t, "b", routetime.Open)
	var got model.RouteTime
	until(t, "a route time over both paths", func() bool {
		got = a.Snapshot()["b"]
		return got.Samples >= 50 && got.Stamp == model.StampKernel && got.Spread > (slow-fast)*2/5 && got.RTT < slow*4/5
	})
	if got.RTT < (fast+slow)/2 {
		t.Errorf("%+v: less than the mean of %v and %v", got, fast, slow)
	}
	t.Logf("paths of %v and %v: %+v", fast, slow, got)

	n.delay(t, "router-slow", "b-slow", fast/2)
	until(t, "paths that are alike again", func() bool {
		got = a.Snapshot()["b"]
		return got.RTT < (fast+slow)/2 && got.Spread < (slow-fast)/5
	})
	t.Logf("both of %v: %+v", fast, got)
}

// A source port that another process has costs its paths, and nothing else.
func TestRoutesWithoutAPort(t *testing.T) {
	n := newRouteNet(t, "a", "b")
	var taken *net.UDPConn
	in(t, n.spaces["a"], func() (err error) {
		taken, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(n.address["a"], routetime.Port+2)))
		return err
	})
	defer taken.Close()
	a := n.run(t, "a", routetime.Open)
	n.run(t, "b", routetime.Open)
	until(t, "a route to b", func() bool { return a.Snapshot()["b"].Samples >= 2*routetime.Paths })
	if got := metric(t, a, "drover_route_probes_total", "peer", "b", "result", "failed"); got > 0 {
		t.Errorf("%v probes were not sent", got)
	}
}

// A port from which the kernel cannot be had to stamp probes is measured from in user space.
func TestRoutesWithoutASender(t *testing.T) {
	n := newRouteNet(t, "a", "b")
	var other *routetime.Sender
	in(t, n.spaces["a"], func() (err error) {
		other, err = routetime.NewSender(netip.AddrPortFrom(n.address["a"], routetime.Port+2))
		return err
	})
	defer other.Close()
	a := n.run(t, "a", routetime.Open)
	n.run(t, "b", routetime.Open)
	until(t, "a route to b by the kernel, and samples of user space", func() bool {
		return a.Snapshot()["b"].Samples >= 2*routetime.Paths && a.Snapshot()["b"].Stamp == model.StampKernel &&
			metric(t, a, "drover_route_packets_total", "handler", "kernel", "outcome", "unstamped") > 1
	})
	if got := metric(t, a, "drover_route_probes_total", "peer", "b", "result", "failed"); got > 0 {
		t.Errorf("%v probes were not sent", got)
	}
}
