package measure

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/drover-project/drover/bpf/routetime"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/test/netspace"
)

func in(t *testing.T, ns netns.NsHandle, f func() error) {
	t.Helper()
	if err := netspace.In(ns, f); err != nil {
		t.Fatal(err)
	}
}

// configure gives a device addresses and sets it up.
func configure(name string, addresses ...string) error {
	var all []netip.Prefix
	for _, a := range addresses {
		all = append(all, netip.MustParsePrefix(a))
	}
	return netspace.Up(name, all...)
}

// via makes the route to an address one over the device.
func via(name, address string) error {
	device, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{LinkIndex: device.Attrs().Index, Dst: netspace.IPNet(netip.MustParsePrefix(address))})
}

const (
	aWired, bWired = "10.234.0.1/32", "10.234.0.2/32"
)

// wiredPair is two nodes whose addresses are on no device, with routes to each other over
// eth0, a veth pair.
func wiredPair(t *testing.T) *routeNet {
	t.Helper()
	n := &routeNet{
		spaces: map[model.NodeID]netns.NsHandle{"a": netspace.Make(t), "b": netspace.Make(t)},
		address: map[model.NodeID]netip.Addr{
			"a": netip.MustParsePrefix(aWired).Addr(), "b": netip.MustParsePrefix(bWired).Addr()},
	}
	in(t, n.spaces["a"], func() error { return configure("lo", aWired) })
	in(t, n.spaces["b"], func() error { return configure("lo", bWired) })
	n.wire(t, "eth0", 0)
	n.route(t, "eth0")
	return n
}

// wire connects the nodes; index is that of a's device, or 0.
func (n *routeNet) wire(t *testing.T, name string, index int) {
	t.Helper()
	in(t, n.spaces["a"], func() error {
		return errors.Join(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, Index: index},
			PeerName: name, PeerNamespace: netlink.NsFd(n.spaces["b"])}), configure(name))
	})
	in(t, n.spaces["b"], func() error { return configure(name) })
}

func (n *routeNet) route(t *testing.T, name string) {
	t.Helper()
	in(t, n.spaces["a"], func() error { return via(name, bWired) })
	in(t, n.spaces["b"], func() error { return via(name, aWired) })
}

// runDeaf starts a Routes that looks for changes only when it is told of one.
func (n *routeNet) runDeaf(t *testing.T, id model.NodeID) *Routes {
	t.Helper()
	r := NewRoutes(RoutesConfig{Address: n.address[id], Interval: 10 * time.Millisecond,
		Window: time.Second, Open: routetime.Open, Log: slog.New(slog.DiscardHandler)})
	r.resolveInterval = time.Hour
	n.start(t, id, r)
	return r
}

// Whatever becomes of the device, round trips are soon stamped in the kernel again.
func TestRoutesFollowDevices(t *testing.T) {
	index := func(name string) (i int, err error) {
		device, err := netlink.LinkByName(name)
		if err == nil {
			i = device.Attrs().Index
		}
		return i, err
	}
	remove := func(t *testing.T, n *routeNet) (was int) {
		in(t, n.spaces["a"], func() error {
			device, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			was = device.Attrs().Index
			return netlink.LinkDel(device)
		})
		return was
	}
	for name, change := range map[string]func(t *testing.T, n *routeNet){
		"renamed": func(t *testing.T, n *routeNet) {
			in(t, n.spaces["a"], func() error {
				device, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return errors.Join(netlink.LinkSetDown(device), netlink.LinkSetName(device, "uplink"),
					configure("uplink"), via("uplink", bWired))
			})
		},
		"made again": func(t *testing.T, n *routeNet) {
			was := remove(t, n)
			n.wire(t, "eth0", was+100)
			n.route(t, "eth0")
		},
		"made again with the same index": func(t *testing.T, n *routeNet) {
			was := remove(t, n)
			n.wire(t, "eth0", was)
			n.route(t, "eth0")
			in(t, n.spaces["a"], func() error {
				if now, err := index("eth0"); err != nil || now != was {
					t.Errorf("index %d (%v), want %d", now, err, was)
				}
				return nil
			})
		},
		"another device's route": func(t *testing.T, n *routeNet) {
			n.wire(t, "eth1", 0)
			n.route(t, "eth1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := wiredPair(t)
			a, b := n.runDeaf(t, "a"), n.runDeaf(t, "b")
			measured := func(r *Routes) float64 {
				return metric(t, r, "drover_route_packets_total", "handler", "kernel", "outcome", "measured")
			}
			kernel := func() {
				t.Helper()
				before := map[*Routes]float64{a: measured(a), b: measured(b)}
				for r, n := range before {
					until(t, "kernel-stamped round trips", func() bool {
						return r.Stamp() == model.StampKernel && measured(r) >= n+10
					})
				}
			}
			kernel()
			change(t, n)
			kernel()
		})
	}
}

// A node that chooses between several devices itself measures over all of them.
func TestDevicesOfEqualRoutes(t *testing.T) {
	n := wiredPair(t)
	n.wire(t, "eth1", 0)
	in(t, n.spaces["a"], func() error {
		var want []int
		var hops []*netlink.NexthopInfo
		for _, name := range []string{"eth0", "eth1"} {
			device, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			want = append(want, device.Attrs().Index)
			hops = append(hops, &netlink.NexthopInfo{LinkIndex: device.Attrs().Index})
		}
		handle, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer handle.Close()
		for _, address := range []string{bWired, "fd00:e::2/128"} {
			to := netip.MustParsePrefix(address)
			if to.Addr().Is6() { // IPv6 has equal routes over gateways alone
				for _, hop := range hops {
					hop.Gw = net.ParseIP("fe80::1")
				}
			}
			if err := netlink.RouteReplace(&netlink.Route{Dst: netspace.IPNet(to), MultiPath: hops}); err != nil {
				return err
			}
			got, err := devicesTo(handle, to.Addr())
			slices.Sort(got)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("devices to %s: %v (%v), want %v", to, got, err, want)
			}
		}
		if got, err := devicesTo(handle, netip.MustParseAddr("192.0.2.9")); err == nil {
			t.Errorf("devices %v to an address that no route leads to", got)
		}
		return nil
	})
}
