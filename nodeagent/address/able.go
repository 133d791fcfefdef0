package address

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/drover-project/drover/internal/thread"
)

// example is a lease of addresses that nobody has (RFC 5737).
var example = Lease{Old: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, New: netip.MustParseAddr("192.0.2.2")}

// Able tries whether this kernel can be an end of a tunnel, in network namespaces of its own. The
// error says what it lacks.
func Able() error {
	for _, end := range []struct {
		has   netip.Addr
		begin func(string, Lease) error
	}{{example.Old[0], Hold}, {example.New, func(path string, l Lease) error { return Arrive(path, l) }}} {
		if err := able(end.has, end.begin); err != nil {
			return fmt.Errorf("this kernel cannot keep the address of a pod that moves (VXLAN, cls_bpf and Linux 5.10 are needed): %w", err)
		}
	}
	return nil
}

func able(has netip.Addr, begin func(string, Lease) error) error {
	var ns netns.NsHandle
	err := thread.Apart(func() (err error) {
		if ns, err = netns.New(); err != nil {
			return err
		}
		const name = "eth0"
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, TxQLen: -1}}); err != nil {
			return err
		}
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: has.AsSlice(), Mask: net.CIDRMask(24, 32)}}); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
	if ns > 0 {
		defer ns.Close()
	}
	if err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	// It goes, with all that is in it, when nobody has it open.
	return begin(fmt.Sprintf("/proc/self/fd/%d", int(ns)), example)
}
