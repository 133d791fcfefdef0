package address

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/bpf/tunnel"
)

// sandbox is the network namespace of a pod.
type sandbox struct {
	*netlink.Handle
	path string
	ns   netns.NsHandle
}

// enter opens the network namespace at path (as /proc/PID/ns/net). The node's own is an error: a
// pod on the host's network has no address to lease.
func enter(path string) (*sandbox, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	if err := apart(path); err != nil {
		ns.Close()
		return nil, err
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("speak to network namespace %s: %w", path, err)
	}
	return &sandbox{Handle: h, path: path, ns: ns}, nil
}

// enter is the same for a lease that is as it must be.
func (l Lease) enter(path string) (*sandbox, error) {
	if err := l.Valid(); err != nil {
		return nil, err
	}
	return enter(path)
}

// apart is an error if path names the namespace of the agent, which is the node's.
func apart(path string) error {
	theirs, err := os.Stat(path)
	if err != nil {
		return err
	}
	ours, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("look for the node's network namespace: %w", err)
	}
	if os.SameFile(theirs, ours) {
		return fmt.Errorf("%s is the node's own network namespace: the pod must not have hostNetwork", path)
	}
	return nil
}

func (s *sandbox) leave() {
	s.Close()
	s.ns.Close()
}

// holder finds the device that has the address.
func (s *sandbox) holder(a netip.Addr) (netlink.Link, error) {
	addrs, err := s.AddrList(nil, family(a))
	if err != nil {
		return nil, fmt.Errorf("list the addresses in %s: %w", s.path, err)
	}
	for _, found := range addrs {
		if found.IP.Equal(a.AsSlice()) {
			return s.LinkByIndex(found.LinkIndex)
		}
	}
	return nil, fmt.Errorf("%w %v: in %s", errNobody, a, s.path)
}

// errNobody: an address is not in the sandbox.
var errNobody = errors.New("no device has the address")

// end finds the tunnel's device if it is complete and this lease's; ErrNoEnd: it is not.
func (s *sandbox) end(l Lease) (netlink.Link, error) {
	link, err := s.LinkByName(l.device())
	if errors.As(err, new(netlink.LinkNotFoundError)) || err == nil && link.Attrs().Alias != l.String() {
		return nil, ErrNoEnd
	}
	return link, err
}

// leftLease finds what can be changed of this lease's end here, which the pod has left.
func (s *sandbox) leftLease(l Lease) (*tunnel.Lease, error) {
	link, err := s.end(l)
	if err != nil {
		return nil, err
	}
	return tunnel.FindLeft(s.Handle, link)
}

// newLease is the same where the pod is now.
func (s *sandbox) newLease(l Lease) (*tunnel.Lease, error) {
	link, err := s.end(l)
	if err != nil {
		return nil, err
	}
	return tunnel.FindNew(s.Handle, link, l.place())
}

// ours are the devices that Drover has made here, the oldest first.
func (s *sandbox) ours() ([]netlink.Link, error) {
	all, err := s.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the devices in %s: %w", s.path, err)
	}
	all = slices.DeleteFunc(all, func(d netlink.Link) bool { return !strings.HasPrefix(d.Attrs().Name, mark) })
	slices.SortFunc(all, func(a, b netlink.Link) int { return cmp.Compare(a.Attrs().Index, b.Attrs().Index) })
	return all, nil
}

// isLeft tells of a device of Drover's that it is of an end that the pod has left; others are of ends
// where it is now.
func isLeft(d netlink.Link) bool {
	return d.Type() == "bridge" || bytes.Equal(d.Attrs().HardwareAddr, leftMAC)
}

// ends are the leases of which the sandbox is a complete end, as one that the pod has left, or not.
func (s *sandbox) ends(left bool) (all []Lease, _ error) {
	ours, err := s.ours()
	if err != nil {
		return nil, err
	}
	for _, d := range ours {
		if d.Type() == "bridge" || isLeft(d) != left {
			continue
		}
		l, err := parse(d.Attrs().Alias)
		if errors.Is(err, ErrNoEnd) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// makeTunnel makes the tunnel's device and sets it up; it is not marked as complete.
func (s *sandbox) makeTunnel(l Lease, here, there netip.Addr, mtu int, mac net.HardwareAddr) (netlink.Link, error) {
	device := l.device()
	err := s.LinkAdd(&netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: device, MTU: mtu, HardwareAddr: mac, TxQLen: -1},
		VxlanId:   int(l.Network), SrcAddr: here.AsSlice(), Group: there.AsSlice(), Port: Port,
	})
	if err != nil {
		return nil, fmt.Errorf("make a VXLAN device from %v to %v, UDP port %d, in %s: %w", here, there, Port, s.path, err)
	}
	link, err := s.LinkByName(device)
	if err != nil {
		return nil, err
	}
	// Nobody is asked for neighbours, and IPv6 announces no address of the device itself.
	if err := s.LinkSetARPOff(link); err != nil {
		return nil, fmt.Errorf("have %s go without neighbours: %w", device, err)
	}
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	if err := s.LinkSetIP6AddrGenMode(link, none); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, fmt.Errorf("have %s go without an address of its own: %w", device, err)
	}
	if err := s.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set %s up: %w", device, err)
	}
	return link, nil
}

// complete marks the tunnel's device: everything else is done.
func (s *sandbox) complete(link netlink.Link, l Lease) error {
	if err := s.LinkSetAlias(link, l.String()); err != nil {
		return fmt.Errorf("mark %s as complete: %w", l.device(), err)
	}
	return nil
}

// remove takes away devices of Drover's, with the addresses that are on them.
func (s *sandbox) remove(is func(netlink.Link) bool) error {
	ours, err := s.ours()
	if err != nil {
		return err
	}
	for _, d := range ours {
		if !is(d) {
			continue
		}
		if err := s.LinkDel(d); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove %s: %w", d.Attrs().Name, err)
		}
	}
	return nil
}

// detach takes filters off every device.
func (s *sandbox) detach(off func(*netlink.Handle, netlink.Link) error) error {
	links, err := s.LinkList()
	if err != nil {
		return fmt.Errorf("list the devices in %s: %w", s.path, err)
	}
	for _, link := range links {
		if err := off(s.Handle, link); err != nil {
			return err
		}
	}
	return nil
}

// clearLeft takes away all that makes the sandbox an end that the pod has left, of whatever lease and
// however much of it is there. What lets packets through goes last.
func (s *sandbox) clearLeft() error {
	if err := s.remove(isLeft); err != nil {
		return err
	}
	return s.detach(tunnel.DetachLeft)
}

// clearNew is the same of the ends where the pod is now, or would have been: a copy that was killed has left
// connections that are its source's still.
func (s *sandbox) clearNew() error {
	all, err := s.ends(false)
	if err != nil {
		return err
	}
	for _, l := range all {
		if err := s.quit(l); err != nil {
			return err
		}
	}
	if err := s.unlead(func(netip.Addr) bool { return true }); err != nil {
		return err
	}
	if err := s.remove(func(d netlink.Link) bool { return !isLeft(d) }); err != nil {
		return err
	}
	return s.unfilter()
}

// ClearLeft takes away all that makes the sandbox at path, which may be gone, an end that the pod has left.
// It is then as it was before, the new end of earlier addresses too.
func ClearLeft(path string) error { return clearing(path, (*sandbox).clearLeft) }

// ClearNew takes away all that makes it an end, of any lease, where the pod is now. Connections that are left are
// ended as Leave does it, and nothing that their sockets still send gets out.
func ClearNew(path string) error { return clearing(path, (*sandbox).clearNew) }

func clearing(path string, clear func(*sandbox) error) error {
	s, err := enter(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.leave()
	if err := clear(s); err != nil {
		return fmt.Errorf("end the lease of an address in %s: %w", path, err)
	}
	return nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// host is the prefix of the one address.
func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
