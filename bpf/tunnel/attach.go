package tunnel

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// mark begins the names of all filters and maps that are Drover's.
const mark = "drover_"

// Side is where a filter sees packets.
type Side uint32

// What comes by a device, and what leaves by it.
const (
	In  Side = netlink.HANDLE_MIN_INGRESS
	Out Side = netlink.HANDLE_MIN_EGRESS
)

// AttachLeft makes the network namespace of h the end that the pod has left; rest are its devices
// besides the tunnel's and the uplink. What leaves by the uplink is attached last.
func (p *Programs) AttachLeft(h *netlink.Handle, uplink, tunnel netlink.Link, rest []netlink.Link) error {
	o := &p.objects
	all := []filter{{tunnel, In, o.DroverLeftBack, "drover_left_back"}}
	for _, r := range rest {
		all = append(all, filter{r, In, o.DroverLeftRest, "drover_left_rest"}, filter{r, Out, o.DroverLeftRest, "drover_left_rest"})
	}
	all = append(all, filter{uplink, In, o.DroverLeftIn, "drover_left_in"}, filter{uplink, Out, o.DroverLeftOut, "drover_left_out"})
	return attach(h, all)
}

// AttachNew makes the network namespace of h the end that the pod is in now; outside are the devices
// by which the pod is in networks.
func (p *Programs) AttachNew(h *netlink.Handle, outside []netlink.Link, tunnel netlink.Link) error {
	o := &p.objects
	all := []filter{{tunnel, In, o.DroverNewFrom, "drover_new_from"}, {tunnel, Out, o.DroverNewTo, "drover_new_to"}}
	for _, d := range outside {
		all = append(all, filter{d, In, o.DroverNewIn, "drover_new_in"}, filter{d, Out, o.DroverNewOut, "drover_new_out"})
	}
	return attach(h, all)
}

type filter struct {
	link    netlink.Link
	side    Side
	program *ebpf.Program
	name    string
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
	return h.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: uint32(f.side), Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:          f.program.FD(), Name: f.name, DirectAction: true,
	})
}

func clsact(index int) netlink.Qdisc {
	return &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
}

// Detach takes Drover's filters off a device, and clsact if nothing else is left there.
func Detach(h *netlink.Handle, link netlink.Link) error {
	others, found := 0, 0
	for _, side := range []Side{In, Out} {
		filters, err := h.FilterList(link, uint32(side))
		if err != nil {
			return fmt.Errorf("list the filters of %s: %w", link.Attrs().Name, err)
		}
		for _, f := range filters {
			if !ours(f) {
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

func ours(f netlink.Filter) bool {
	b, ok := f.(*netlink.BpfFilter)
	return ok && strings.HasPrefix(b.Name, mark)
}
