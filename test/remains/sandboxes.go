package remains

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ends: what there is of old addresses in network namespaces (nodeagent/address): the tunnel's devices,
// filters, and rules and routes. While a lease lives its ends are no remainder, but its record is one
// that has ended and bears its finalizer.
func (n node) ends() ([]string, error) {
	paths, err := n.namespaces()
	if err != nil {
		return nil, err
	}
	var left []string
	for _, path := range paths {
		found, err := endsIn(path)
		if gone(err) || errors.Is(err, unix.EINVAL) { // the sandbox has ended, its file is no namespace any more
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for ends of tunnels in %s: %w", path, err)
		}
		for _, f := range found {
			left = append(left, f+" in "+strings.TrimPrefix(path, n.root))
		}
	}
	slices.Sort(left)
	return slices.Compact(left), nil
}

// Drover's marks in a sandbox: nodeagent/address, bpf/tunnel.
const (
	rulesBy  = 0xd7
	filterBy = "drover_"
	deviceBy = "drover"
)

var tables = []int{7473, 7474, 7475, 7476, 7477}

func endsIn(path string) (left []string, _ error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		name := l.Attrs().Name
		if strings.HasPrefix(name, deviceBy) {
			left = append(left, "device "+name)
		}
		for _, side := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
			filters, err := h.FilterList(l, side)
			if err != nil {
				return nil, err
			}
			for _, f := range filters {
				if b, is := f.(*netlink.BpfFilter); is && strings.HasPrefix(b.Name, filterBy) {
					left = append(left, "filter "+b.Name+" of device "+name)
				}
			}
		}
	}
	rules, err := h.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		if r.Protocol == rulesBy {
			left = append(left, fmt.Sprintf("rule %v", r))
		}
	}
	for _, table := range tables {
		routes, err := h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			left = append(left, fmt.Sprintf("route %v", r))
		}
	}
	return left, nil
}
