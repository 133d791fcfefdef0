package routetime

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// attachment is programs on one device.
type attachment interface {
	Close() error
	// on tells whether the programs are still on the device with the index. They go with
	// their device, and its index may become another's.
	on(index int) bool
}

// SetInterfaces attaches the programs to the devices with these indexes, in the calling
// thread's network namespace, and detaches them from all others. A device that is refused
// leaves the others as they should be. Call it again when a device may have been replaced
// by another with the same index.
func (m *Meter) SetInterfaces(indexes []int) error {
	return m.set(m.attached, indexes, m.attach)
}

func (m *Meter) set(attached map[int]attachment, indexes []int, attach func(int) (attachment, error)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return os.ErrClosed
	}
	return replace(attached, indexes, attach)
}

// replace makes the devices with these indexes the ones in attached.
func replace(attached map[int]attachment, indexes []int, attach func(int) (attachment, error)) error {
	var errs []error
	for index, a := range attached {
		switch {
		case !a.on(index):
			_ = a.Close() // there is nothing to detach, but there are descriptors
		case !slices.Contains(indexes, index):
			errs = append(errs, a.Close())
		default:
			continue
		}
		delete(attached, index)
	}
	for _, index := range indexes {
		if _, done := attached[index]; done {
			continue
		}
		a, err := attach(index)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		attached[index] = a
	}
	return errors.Join(errs...)
}

// Attached tells whether the programs are on the device.
func (m *Meter) Attached(index int) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, is := m.attached[index]
	return is
}

// ethernet finds a device that the programs understand.
func ethernet(index int) (netlink.Link, error) {
	device, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil, fmt.Errorf("find device %d: %w", index, err)
	}
	if kind := device.Attrs().EncapType; kind != "ether" {
		return nil, fmt.Errorf("device %s is of kind %s: only ethernet is understood", device.Attrs().Name, kind)
	}
	return device, nil
}

func (m *Meter) attach(index int) (attachment, error) {
	device, err := ethernet(index)
	if err != nil {
		return nil, err
	}
	a, err := m.attachTCX(index)
	if errors.Is(err, ebpf.ErrNotSupported) { // before Linux 6.6
		a, err = m.attachClsact(index)
	}
	if err != nil {
		return nil, fmt.Errorf("attach to device %s: %w", device.Attrs().Name, err)
	}
	return a, nil
}

// tcx is gone with its file descriptors, however the process ends.
type tcx struct{ ingress, egress link.Link }

func (t tcx) Close() error { return errors.Join(t.ingress.Close(), t.egress.Close()) }

func (t tcx) on(index int) bool {
	for _, l := range []link.Link{t.ingress, t.egress} {
		info, err := l.Info()
		if err != nil || info.TCX() == nil || info.TCX().Ifindex != uint32(index) {
			return false
		}
	}
	return true
}

func (m *Meter) attachTCX(index int) (attachment, error) {
	var t tcx
	var err error
	// First in the chain: what comes after may end it.
	t.ingress, err = link.AttachTCX(link.TCXOptions{Interface: index, Anchor: link.Head(),
		Program: m.objects.RoutetimeIngress, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return nil, fmt.Errorf("tcx ingress: %w", err)
	}
	t.egress, err = link.AttachTCX(link.TCXOptions{Interface: index, Anchor: link.Head(),
		Program: m.objects.RoutetimeEgress, Attach: ebpf.AttachTCXEgress})
	if err != nil {
		t.ingress.Close()
		return nil, fmt.Errorf("tcx egress: %w", err)
	}
	return t, nil
}

// clsact filters outlive the process; the next one replaces them, as they have a fixed
// place. The qdisc stays: others may use it too, and by itself it does nothing.
type clsact struct{ filters []*netlink.BpfFilter }

const (
	filterPriority = 1
	filterHandle   = Port
)

func (c clsact) Close() error {
	var errs []error
	for _, f := range c.filters {
		err := netlink.FilterDel(f)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("remove filter: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (c clsact) on(index int) bool {
	device, err := netlink.LinkByIndex(index)
	if err != nil {
		return false
	}
	for _, ours := range c.filters {
		there, err := netlink.FilterList(device, ours.Parent)
		if err != nil || !slices.ContainsFunc(there, func(f netlink.Filter) bool {
			b, is := f.(*netlink.BpfFilter)
			return is && b.Handle == ours.Handle && b.Id == ours.Id
		}) {
			return false
		}
	}
	return true
}

func (m *Meter) attachClsact(index int) (attachment, error) {
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("add clsact qdisc: %w", err)
	}
	var c clsact
	for _, at := range []struct {
		parent  uint32
		program *ebpf.Program
	}{
		{netlink.HANDLE_MIN_INGRESS, m.objects.RoutetimeIngress},
		{netlink.HANDLE_MIN_EGRESS, m.objects.RoutetimeEgress},
	} {
		info, err := at.program.Info()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("identify the program: %w", err), c.Close())
		}
		id, _ := info.ID() // since Linux 4.13
		f := &netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: at.parent,
				Handle: filterHandle, Priority: filterPriority, Protocol: unix.ETH_P_ALL},
			Fd: at.program.FD(), Id: int(id), Name: "drover_routetime", DirectAction: true,
		}
		if err := netlink.FilterReplace(f); err != nil {
			return nil, errors.Join(fmt.Errorf("add bpf filter: %w", err), c.Close())
		}
		c.filters = append(c.filters, f)
	}
	return c, nil
}
