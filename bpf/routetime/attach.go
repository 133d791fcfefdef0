package routetime

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// attachment is programs on one device.
type attachment interface {
	// Close detaches them.
	Close() error
	// leave lets them be there without this process.
	leave() error
	// on tells whether the programs are still on the device with the index. They go with
	// their device, and its index may become another's.
	on(index int) bool
}

// SetInterfaces attaches the programs to the devices with these indexes, in the calling
// thread's network namespace, and detaches them from all others. A device that is refused
// leaves the others as they should be. Call it again when a device may have been replaced
// by another with the same index.
func (m *Meter) SetInterfaces(indexes []int) error {
	err := errors.Join(m.set(m.attached, indexes, m.attach), m.unpin(indexes, ingress, egress))
	if m.pins == nil || m.swept {
		return err
	}
	m.swept = true
	return errors.Join(err, sweep(indexes))
}

// sweep removes the filters that an earlier Meter left on other devices than these: they are
// in no BPF file system.
func sweep(indexes []int) error {
	devices, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list the devices: %w", err)
	}
	var c clsact
	for _, device := range devices {
		if slices.Contains(indexes, device.Attrs().Index) {
			continue
		}
		for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
			filters, err := netlink.FilterList(device, parent)
			if err != nil {
				continue // it has no clsact
			}
			for _, f := range filters {
				if b, is := f.(*netlink.BpfFilter); is && b.Handle == filterHandle && strings.HasPrefix(b.Name, filterName) {
					c.filters = append(c.filters, b)
				}
			}
		}
	}
	return c.Close()
}

// The names of pinned links begin with one of these, and end with the index of the device.
const (
	ingress = "ingress"
	egress  = "egress"
	native  = "xdp-native"
	generic = "xdp-generic"
)

func pinned(kind string, index int) string { return fmt.Sprint(kind, "-", index) }

// unpin detaches what an earlier Meter left on other devices than these.
func (m *Meter) unpin(indexes []int, kinds ...string) error {
	names, err := m.pins.Linked()
	errs := []error{err}
	for _, name := range names {
		at := strings.LastIndexByte(name, '-')
		index, err := strconv.Atoi(name[at+1:])
		if at < 0 || err != nil || slices.Contains(kinds, name[:at]) && !slices.Contains(indexes, index) {
			errs = append(errs, m.pins.Unlink(name))
		}
	}
	return errors.Join(errs...)
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

// tcx is gone with its file descriptors, however the process ends, unless it is pinned.
type tcx struct {
	ingress, egress link.Link
	unpin           func() error
}

func (t tcx) Close() error { return errors.Join(t.unpin(), t.leave()) }

func (t tcx) leave() error { return errors.Join(t.ingress.Close(), t.egress.Close()) }

func (t tcx) on(index int) bool { return onTCX(t.ingress, index) && onTCX(t.egress, index) }

func onTCX(l link.Link, index int) bool {
	info, err := l.Info()
	return err == nil && info.TCX() != nil && info.TCX().Ifindex == uint32(index)
}

func (m *Meter) attachTCX(index int) (attachment, error) {
	t := tcx{unpin: func() error {
		return errors.Join(m.pins.Unlink(pinned(ingress, index)), m.pins.Unlink(pinned(egress, index)))
	}}
	attach := func(kind string, program *ebpf.Program, to ebpf.AttachType) (link.Link, error) {
		l, err := m.pins.Link(pinned(kind, index), func(l link.Link) bool { return onTCX(l, index) }, func() (link.Link, error) {
			// First in the chain: what comes after may end it.
			return link.AttachTCX(link.TCXOptions{Interface: index, Anchor: link.Head(), Program: program, Attach: to})
		})
		if err != nil {
			return nil, fmt.Errorf("tcx %s: %w", kind, err)
		}
		return l, nil
	}
	var err error
	if t.ingress, err = attach(ingress, m.objects.RoutetimeIngress, ebpf.AttachTCXIngress); err != nil {
		return nil, err
	}
	if t.egress, err = attach(egress, m.objects.RoutetimeEgress, ebpf.AttachTCXEgress); err != nil {
		return nil, errors.Join(err, t.unpin(), t.ingress.Close())
	}
	return t, nil
}

// clsact filters outlive the process; the next one replaces them, as they have a fixed
// place. The qdisc stays: others may use it too, and by itself it does nothing.
type clsact struct{ filters []*netlink.BpfFilter }

const (
	filterPriority = 1
	filterHandle   = Port
	filterName     = "drover_routetime"
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

func (c clsact) leave() error { return nil }

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
			Fd: at.program.FD(), Id: int(id), Name: filterName, DirectAction: true,
		}
		if err := netlink.FilterReplace(f); err != nil {
			return nil, errors.Join(fmt.Errorf("add bpf filter: %w", err), c.Close())
		}
		c.filters = append(c.filters, f)
	}
	return c, nil
}
