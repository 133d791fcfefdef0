package tunnel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// mark begins the names of all maps that are Drover's. Those of filters say besides what of: of an end
// that the pod has left, or of those where it is now.
const (
	mark    = "drover_"
	left    = mark + "left_"
	arrived = mark + "new_"
)

// Where a pod has come to and left again, what the first filters let pass meets the second.
const (
	priorityLeft = 1
	priorityNew  = 2
)

// Side is where a filter sees packets.
type Side uint32

// What comes by a device, and what leaves by it.
const (
	In  Side = netlink.HANDLE_MIN_INGRESS
	Out Side = netlink.HANDLE_MIN_EGRESS
)

// AttachLeftIn makes the network namespace of h the end that the pod is about to leave, as far as what comes goes.
// Where it is such an end already these programs take the place of those, device by device: there is no moment
// without.
func (p *Programs) AttachLeftIn(h *netlink.Handle, uplink, tunnel netlink.Link) error {
	o := &p.objects
	return attach(h, []filter{{tunnel, In, o.DroverLeftBack, back, priorityLeft}, {uplink, In, o.DroverLeftIn, left + "in", priorityLeft}})
}

// AttachLeftOut makes it that end wholly. rest are its devices besides the tunnel's and the uplink, of which some
// may have gone since, with the leases that they were of. What leaves by the uplink is attached last.
func (p *Programs) AttachLeftOut(h *netlink.Handle, uplink netlink.Link, rest []netlink.Link) error {
	o := &p.objects
	for _, r := range rest {
		err := attach(h, []filter{{r, In, o.DroverLeftRest, left + "rest", priorityLeft}, {r, Out, o.DroverLeftRest, left + "rest", priorityLeft}})
		if err != nil && !gone(h, r) {
			return err
		}
	}
	return attach(h, []filter{{uplink, Out, o.DroverLeftOut, left + "out", priorityLeft}})
}

// AttachNew makes the network namespace of h the end of all these tunnels that the pod is in now; outside
// are the devices by which the pod is in networks.
func (p *Programs) AttachNew(h *netlink.Handle, outside, tunnels []netlink.Link) error {
	o := &p.objects
	var all []filter
	for _, d := range tunnels {
		all = append(all, filter{d, In, o.DroverNewFrom, from, priorityNew}, filter{d, Out, o.DroverNewTo, arrived + "to", priorityNew})
	}
	for _, d := range outside {
		all = append(all, filter{d, In, o.DroverNewIn, arrived + "in", priorityNew}, filter{d, Out, o.DroverNewOut, arrived + "out", priorityNew})
	}
	return attach(h, all)
}

// The filters of tunnels' devices by which their leases are found.
const (
	back = left + "back"
	from = arrived + "from"
)

// gone tells that there is no such device any more.
func gone(h *netlink.Handle, link netlink.Link) bool {
	_, err := h.LinkByIndex(link.Attrs().Index)
	return errors.As(err, new(netlink.LinkNotFoundError))
}

type filter struct {
	link     netlink.Link
	side     Side
	program  *ebpf.Program
	name     string
	priority uint16
}

func attach(h *netlink.Handle, all []filter) error {
	for _, f := range all {
		if err := f.attach(h); err != nil {
			return fmt.Errorf("attach %s to %s: %w", f.name, f.link.Attrs().Name, err)
		}
	}
	return nil
}

func (f filter) attach(h *netlink.Handle) error {
	index := f.link.Attrs().Index
	if err := h.QdiscAdd(clsact(index)); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return h.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: uint32(f.side), Handle: 1, Protocol: unix.ETH_P_ALL, Priority: f.priority},
		Fd:          f.program.FD(), Name: f.name, DirectAction: true,
	})
}

func clsact(index int) netlink.Qdisc {
	return &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
}

// DetachLeft takes the filters of an end that the pod has left off a device, and clsact if nothing else is
// left there.
func DetachLeft(h *netlink.Handle, link netlink.Link) error { return detach(h, link, left) }

// DetachNew is the same of ends that the pod is in now.
func DetachNew(h *netlink.Handle, link netlink.Link) error { return detach(h, link, arrived) }

func detach(h *netlink.Handle, link netlink.Link, begin string) error {
	others, found := 0, 0
	for _, side := range []Side{In, Out} {
		filters, err := h.FilterList(link, uint32(side))
		if err != nil {
			return fmt.Errorf("list the filters of %s: %w", link.Attrs().Name, err)
		}
		for _, f := range filters {
			if !named(f, begin) {
				others++
				continue
			}
			found++
			if err := h.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("take %s off %s: %w", f.(*netlink.BpfFilter).Name, link.Attrs().Name, err)
			}
		}
	}
	if found == 0 || others > 0 {
		return nil
	}
	if err := h.QdiscDel(clsact(link.Attrs().Index)); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("take clsact off %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// Attached tells that filters of Drover's are on a device.
func Attached(h *netlink.Handle, link netlink.Link) (bool, error) {
	for _, side := range []Side{In, Out} {
		filters, err := h.FilterList(link, uint32(side))
		if err != nil {
			return false, fmt.Errorf("list the filters of %s: %w", link.Attrs().Name, err)
		}
		if slices.ContainsFunc(filters, func(f netlink.Filter) bool { return named(f, mark) }) {
			return true, nil
		}
	}
	return false, nil
}

func named(f netlink.Filter, begin string) bool {
	b, ok := f.(*netlink.BpfFilter)
	return ok && strings.HasPrefix(b.Name, begin)
}
