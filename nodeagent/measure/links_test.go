package measure

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/traffic"
	"github.com/drover-project/drover/test/netspace"
)

func TestCapacityIsWhatHardwareTells(t *testing.T) {
	sys := t.TempDir()
	device := func(name, speed string, entries ...string) {
		dir := filepath.Join(sys, "class/net", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if err := os.Mkdir(filepath.Join(dir, e), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if speed != "" {
			if err := os.WriteFile(filepath.Join(dir, "speed"), []byte(speed+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	device("eth0", "10000", "device")
	device("eth1", "25000", "device")
	device("virtio", "-1", "device")
	device("xen", "", "device")
	device("odd", "fast", "device")
	device("veth", "10000")
	device("bond0", "35000", "lower_eth0", "lower_eth1")
	device("vlan", "35000", "lower_bond0")
	device("bridge", "10000", "lower_eth0", "lower_veth")
	device("loop", "1", "lower_loop")
	for name, want := range map[string]struct {
		mbit    model.Rate
		unknown string
	}{
		"eth0": {10000, ""}, "bond0": {35000, ""}, "vlan": {35000, ""},
		"virtio": {0, "it tells no speed"}, "xen": {0, "it tells no speed"}, "odd": {0, "it tells no speed"},
		"veth": {0, "it is no hardware"}, "bridge": {0, "it is no hardware"}, "loop": {0, "it is no hardware"}, "gone": {0, "it is no hardware"},
	} {
		if rate, unknown := capacity(sys, name); rate != want.mbit*125_000 || unknown != want.unknown {
			t.Errorf("%s: %v, %q", name, rate, unknown)
		}
	}
}

func TestSumOfLinks(t *testing.T) {
	if sum(nil) != nil {
		t.Error("of no links something is known")
	}
	both := sum([]traffic.Link{{Sent: 1, Received: 20, Capacity: 100}, {Sent: 2, Received: 30, Capacity: 50}})
	if spare, known := both.Spare(); !known || *both != (model.Bandwidth{Sent: 3, Received: 50, Capacity: 150}) || spare != 100 {
		t.Errorf("%+v, %v to spare", both, spare)
	}
	if one := sum([]traffic.Link{{Sent: 1, Capacity: 100}, {Sent: 2}}); one.Capacity != 0 || one.Sent != 3 {
		t.Errorf("one of two capacities is known: %+v", one)
	}
}

// The rates are what the device that leads to the peers has carried, as the kernel counts it.
func TestLinksCarryWhatTheKernelCounts(t *testing.T) {
	n := newRouteNet(t, "n1", "n2")
	routes := NewRoutes(RoutesConfig{Address: n.address["n1"], Interval: time.Second, Window: time.Second})
	routes.SetPeers(n.address)
	links := NewLinks(t.TempDir(), time.Minute, routes)
	begin := time.Now()
	read := func(at time.Time) (b *model.Bandwidth) {
		if err := netspace.In(n.spaces["n1"], func() (err error) {
			b, err = links.Read(at)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return b
	}
	count := func() (device netlink.LinkStatistics) {
		if err := netspace.In(n.spaces["n1"], func() error {
			eth0, err := netlink.LinkByName("eth0")
			if err == nil {
				device = *eth0.Attrs().Statistics
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return device
	}
	before := count()
	first := read(begin)
	if first != nil {
		t.Errorf("after one reading: %+v", first)
	}
	talk(t, n, 1000, 200_000, 5)
	got := read(begin.Add(10 * time.Second))
	after := count()
	sent, received := float64(after.TxBytes-before.TxBytes)/10, float64(after.RxBytes-before.RxBytes)/10
	if got == nil || float64(got.Sent) > sent || float64(got.Received) > received || float64(got.Sent) < 500 || float64(got.Received) < 100_000 {
		t.Errorf("%+v; the kernel counts at most %v and %v", got, sent, received)
	}
	if l := links.Links(); len(l) != 1 || l[0].Name != "eth0" || l[0].Capacity != 0 || l[0].Unknown == "" {
		t.Errorf("%+v", l)
	}
	if v := metric(t, links, "drover_node_network_bytes_per_second", "device", "eth0", "direction", "received"); v != float64(got.Received) {
		t.Errorf("the metric is %v", v)
	}
}

// Devices of the default routes count as well; one on top of another is in it already.
func TestOutwardDevices(t *testing.T) {
	n := newRouteNet(t, "n1")
	err := netspace.In(n.spaces["n1"], func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		above := &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "above", ParentIndex: eth0.Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE}
		if err := netlink.LinkAdd(above); err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetUp(above),
			netlink.AddrAdd(above, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 240, 0, 1), Mask: net.CIDRMask(24, 32)}}),
			netlink.RouteAdd(&netlink.Route{Gw: net.IPv4(10, 240, 0, 2)})); err != nil {
			return err
		}
		handle, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer handle.Close()
		check := func(want ...int) error {
			got, err := outward(handle, nil)
			if err != nil {
				return err
			}
			if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
				t.Errorf("devices %v, want %v", got, want)
			}
			return nil
		}
		if err := check(above.Index); err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{Gw: net.IPv4(10, 233, 0, 200), Priority: 9}); err != nil {
			return err
		}
		return check(eth0.Attrs().Index)
	})
	if err != nil {
		t.Fatal(err)
	}
}
