package routetime

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// xdp is the reflector on one device. It is gone with its file descriptor, unless it is
// pinned.
type xdp struct {
	link  link.Link
	mode  string
	unpin func() error
}

func (x xdp) Close() error { return errors.Join(x.unpin(), x.leave()) }

func (x xdp) leave() error { return x.link.Close() }

func (x xdp) on(index int) bool { return onXDP(x.link, index) }

func onXDP(l link.Link, index int) bool {
	info, err := l.Info()
	return err == nil && info.XDP() != nil && info.XDP().Ifindex == uint32(index)
}

// SetReflectors is SetInterfaces for the XDP program, which turns probes round before the
// network stack sees them. It is of use beside the other programs alone: they stamp. A
// device that has another XDP program keeps that one and is refused. It takes Linux 5.9.
func (m *Meter) SetReflectors(indexes []int) error {
	return errors.Join(m.set(m.reflecting, indexes, m.attachXDP), m.unpin(indexes, native, generic))
}

// Reflecting tells how the XDP program is on the device: "native" in its driver, "generic"
// in front of the stack, or "" when it is not.
func (m *Meter) Reflecting(index int) string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	x, _ := m.reflecting[index].(xdp)
	return x.mode
}

func (m *Meter) attachXDP(index int) (attachment, error) {
	device, err := ethernet(index)
	if err != nil {
		return nil, err
	}
	name := device.Attrs().Name
	modes := []struct {
		name, pin string
		flags     link.XDPAttachFlags
	}{{"native", native, link.XDPDriverMode}, {"generic", generic, link.XDPGenericMode}}
	// A veth drops what its XDP program sends while its peer has neither such a program nor
	// GRO, and with GRO alone before Linux commit f16b8c6a656e.
	if device.Type() == "veth" {
		modes = modes[1:]
	}
	names, err := m.pins.Linked()
	if err != nil {
		return nil, err
	}
	switch x := device.Attrs().Xdp; {
	case slices.Contains(names, pinned(native, index)):
	case slices.Contains(names, pinned(generic, index)):
		slices.Reverse(modes)
	case x != nil && x.Attached:
		return nil, fmt.Errorf("attach XDP to device %s: it has a program already (id %d)", name, x.ProgId)
	}
	var errs []error
	for _, mode := range modes {
		at := pinned(mode.pin, index)
		l, err := m.pins.Link(at, func(l link.Link) bool { return onXDP(l, index) }, func() (link.Link, error) {
			return link.AttachXDP(link.XDPOptions{Program: m.objects.RoutetimeXdp, Interface: index, Flags: mode.flags})
		})
		if err == nil {
			return xdp{l, mode.name, func() error { return m.pins.Unlink(at) }}, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", mode.name, err))
		// Somebody was faster: a link never replaces what is there.
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
			break
		}
	}
	return nil, fmt.Errorf("attach XDP to device %s: %w", name, errors.Join(errs...))
}
