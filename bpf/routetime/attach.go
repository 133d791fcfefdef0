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

// attachment is a program on one device.
type attachment interface {
	// Close detaches it.
	Close() error
	// leave lets it be there without this process.
	leave() error
	// on tells whether the program is still on the device with the index. It goes with its
	// device, whose index may become another's.
	on(index int) bool
}

// SetInterfaces attaches the program that answers and takes in answers to the devices with these indexes, in the calling
// thread's network namespace, and detaches them from all others. A device that is refused
// leaves the others as they should be. Call it again when a device may have been replaced
// by another with the same index.
func (m *Meter) SetInterfaces(indexes []int) error {
	err := errors.Join(m.set(m.attached, indexes, m.attach), m.unpin(indexes, ingress))
	if m.pins == nil || m.swept {
		return err
	}
	m.swept = true
	return errors.Join(err, sweep(indexes))
}

// sweep removes the filters that an earlier Meter left on other devices than these, and at the
// egress of all, where older versions had one: they are in no BPF file system.
func sweep(indexes []int) error {
	devices, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list the devices: %w", err)
	}
	var errs []error
	for _, device := range devices {
		for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
			if parent == netlink.HANDLE_MIN_INGRESS && slices.Contains(indexes, device.Attrs().Index) {
				continue
			}
			filters, err := netlink.FilterList(device, parent)
			if err != nil {
				continue // it has no clsact
			}
			for _, f := range filters {
				if b, is := f.(*netlink.BpfFilter); is && b.Handle == filterHandle && strings.HasPrefix(b.Name, filterName) {
					errs = append(errs, clsact{b}.Close())
				}
			}
		}
	}
	return errors.Join(errs...)
}

// The names of pinned links begin with one of these, and end with the index of the device.
const (
	ingress = "ingress"
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

// Attached tells whether the program is on the device.
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

// tcx is gone with its file descriptor, however the process ends, unless it is pinned.
type tcx struct {
	link  link.Link
	unpin func() error
}

func (t tcx) Close() error { return errors.Join(t.unpin(), t.leave()) }

func (t tcx) leave() error { return t.link.Close() }

func (t tcx) on(index int) bool { return onTCX(t.link, index) }

func onTCX(l link.Link, index int) bool {
	info, err := l.Info()
	return err == nil && info.TCX() != nil && info.TCX().Ifindex == uint32(index)
}

func (m *Meter) attachTCX(index int) (attachment, error) {
	at := pinned(ingress, index)
	l, err := m.pins.Link(at, func(l link.Link) bool { return onTCX(l, index) }, func() (link.Link, error) {
		// First in the chain: what comes after may end it.
		return link.AttachTCX(link.TCXOptions{Interface: index, Anchor: link.Head(),
			Program: m.objects.RoutetimeIngress, Attach: ebpf.AttachTCXIngress})
	})
	if err != nil {
		return nil, fmt.Errorf("tcx: %w", err)
	}
	return tcx{l, func() error { return m.pins.Unlink(at) }}, nil
}

// A clsact filter outlives the process; the next one replaces it, as it has a fixed place. The
// qdisc stays: others may use it too, and by itself it does nothing.
type clsact struct{ filter *netlink.BpfFilter }

const (
	filterPriority = 1
	filterHandle   = Port
	filterName     = "drover_routetime"
)

func (c clsact) Close() error {
	err := netlink.FilterDel(c.filter)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove filter: %w", err)
	}
	return nil
}

func (c clsact) leave() error { return nil }

func (c clsact) on(index int) bool {
	device, err := netlink.LinkByIndex(index)
	if err != nil {
		return false
	}
	there, err := netlink.FilterList(device, c.filter.Parent)
	return err == nil && slices.ContainsFunc(there, func(f netlink.Filter) bool {
		b, is := f.(*netlink.BpfFilter)
		return is && b.Handle == c.filter.Handle && b.Id == c.filter.Id
	})
}

func (m *Meter) attachClsact(index int) (attachment, error) {
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("add clsact qdisc: %w", err)
	}
	info, err := m.objects.RoutetimeIngress.Info()
	if err != nil {
		return nil, fmt.Errorf("identify the program: %w", err)
	}
	id, _ := info.ID() // since Linux 4.13
	f := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS,
			Handle: filterHandle, Priority: filterPriority, Protocol: unix.ETH_P_ALL},
		Fd: m.objects.RoutetimeIngress.FD(), Id: int(id), Name: filterName, DirectAction: true,
	}
	if err := netlink.FilterReplace(f); err != nil {
		return nil, fmt.Errorf("add bpf filter: %w", err)
	}
	return clsact{f}, nil
}
