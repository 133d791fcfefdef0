package tunnel

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/test/netspace"
)

// The kernel takes the programs, of one tunnel and of as many as there can be, and lets them share the leases.
// What they do is tested where they are used (nodeagent/address).
func TestLoad(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	for n := 1; n <= Most; n += Most - 1 {
		c := Config{Here: netip.MustParseAddr("10.0.1.1"), Port: 1, Uplink: 1, From: mac, To: mac}
		for i := range n {
			c.Ends[i] = End{Old: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.MustParseAddr("fd00::1")},
				There: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Tunnel: 2 + i}
		}
		p, err := Load(c)
		if err != nil {
			t.Fatalf("with %d tunnels: %v", n, err)
		}
		info, err := p.objects.DroverLease.Info()
		if err != nil || info.MaxEntries != Most {
			t.Errorf("there is room for %d leases (%v), want %d", info.MaxEntries, err, Most)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A device that has gone since the sandbox was looked at needs no filters: the end of a lease takes its tunnel
// away while the pod is about to be moved. What the pod is reached by must be there.
func TestAttachWhereADeviceHasGone(t *testing.T) {
	ns := netspace.Make(t)
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	device := func(name string) netlink.Link {
		if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
			t.Fatal(err)
		}
		link, err := h.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	uplink, end, gone := device("eth0"), device("tunnel"), device("gone")
	if err := h.LinkDel(gone); err != nil {
		t.Fatal(err)
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	c := Config{Here: netip.MustParseAddr("10.0.0.1"), Port: 1, Uplink: uplink.Attrs().Index, From: mac, To: mac}
	c.Ends[0] = End{Old: []netip.Addr{c.Here}, There: netip.MustParseAddr("10.0.1.1"), Tunnel: end.Attrs().Index}
	p, err := Load(c)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.AttachLeftIn(h, uplink, end); err != nil {
		t.Error(err)
	}
	if err := p.AttachLeftOut(h, uplink, []netlink.Link{gone}); err != nil {
		t.Errorf("a device besides is gone: %v", err)
	}
	if filters, err := h.FilterList(uplink, uint32(Out)); err != nil || len(filters) != 1 {
		t.Errorf("the uplink has the filters %v, %v; want one", filters, err)
	}
	if p.AttachLeftIn(h, gone, end) == nil || p.AttachLeftOut(h, gone, nil) == nil {
		t.Error("attached to an uplink that is gone")
	}
}
