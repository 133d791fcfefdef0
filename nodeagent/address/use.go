package address

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/bpf/tunnel"
	"github.com/drover-project/drover/internal/thread"
)

// Addresses are those by which the sandbox at path is known outside, in the kernel's order.
func Addresses(path string) ([]netip.Addr, error) {
	s, err := enter(path)
	if err != nil {
		return nil, err
	}
	defer s.leave()
	all, err := s.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the addresses in %s: %w", path, err)
	}
	var found []netip.Addr
	for _, a := range all {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap().IsGlobalUnicast() {
			found = append(found, ip.Unmap())
		}
	}
	return found, nil
}

// Stands is ErrNoEnd if the sandbox at path is not the old end any more: its device has the old
// addresses no more, or its tunnel is gone.
func Stands(path string, l Lease) error {
	s, err := l.enter(path)
	if err != nil {
		return err
	}
	defer s.leave()
	for _, a := range l.Old {
		if _, err := s.holder(a); errors.Is(err, errNobody) {
			return fmt.Errorf("%w: %w", ErrNoEnd, err)
		} else if err != nil {
			return err
		}
	}
	_, err = s.end(l)
	return err
}

// Left is the lease of which the sandbox at path is an end that the pod has left; ErrNoEnd: of none.
func Left(path string) (Lease, error) {
	all, err := leases(path, true)
	if err == nil && len(all) == 0 {
		err = ErrNoEnd
	}
	if err != nil {
		return Lease{}, err
	}
	return all[len(all)-1], nil // one that was being turned has two: what comes goes to the later one
}

// Arrived are the leases of which the sandbox at path is the end where the pod is now.
func Arrived(path string) ([]Lease, error) { return leases(path, false) }

func leases(path string, left bool) ([]Lease, error) {
	s, err := enter(path)
	if err != nil {
		return nil, err
	}
	defer s.leave()
	return s.ends(left)
}

// Use is what there is of a lease in the new sandbox.
type Use struct {
	// Connections are TCP's from or to an old address, by the kernel's cookies, but for those of which
	// nothing but a last answer is left (TIME-WAIT).
	Connections []uint64
	// Peers have sent datagrams to an old address of late.
	Peers int
	// Left is for how long the kernel lets packets through yet; 0: it does not.
	Left time.Duration
	// Held: it never did.
	Held bool
}

// Used tells what still uses the old addresses in the new sandbox at path; a peer is one that has
// sent something in the last so long.
func Used(path string, l Lease, within time.Duration) (Use, error) {
	s, err := l.enter(path)
	if err != nil {
		return Use{}, err
	}
	defer s.leave()
	u, err := s.used(l, within)
	if err != nil {
		return Use{}, fmt.Errorf("look for what uses %v in %s: %w", l.Old, path, err)
	}
	return u, nil
}

func (s *sandbox) used(l Lease, within time.Duration) (u Use, err error) {
	lease, err := s.newLease(l)
	if err != nil {
		return Use{}, err
	}
	defer lease.Close()
	left, opened, err := lease.Left()
	if err != nil {
		return Use{}, err
	}
	u.Left, u.Held = left, !opened
	if u.Peers, err = lease.Peers(within); err != nil {
		return Use{}, err
	}
	all, err := s.connections(l)
	for _, c := range all {
		u.Connections = append(u.Connections, uint64(c.ID.Cookie[1])<<32|uint64(c.ID.Cookie[0]))
	}
	return u, err
}

// Leave ends the lease in the new sandbox at path: when it returns nil nothing passes from or to the
// old addresses, and nothing will. Connections that are left are ended, so that both ends hear of
// it, where the kernel can (CONFIG_INET_DIAG_DESTROY); where it cannot, what their sockets still
// send is lost.
func Leave(path string, l Lease) error {
	s, err := l.enter(path)
	if err != nil {
		return err
	}
	defer s.leave()
	if err := s.quit(l); err != nil && !errors.Is(err, ErrNoEnd) {
		return fmt.Errorf("leave %v in %s: %w", l.Old, path, err)
	}
	return nil
}

func (s *sandbox) quit(l Lease) error {
	lease, err := s.newLease(l)
	if err != nil {
		return err
	}
	defer lease.Close()
	// Asked of a kernel that cannot do this, or say what there is, this comes to nothing.
	if tcp, err := s.sockets(l, unix.IPPROTO_TCP); err == nil {
		_ = s.destroy(slices.DeleteFunc(tcp, func(c *netlink.Socket) bool { return c.State == netlink.TCP_LISTEN }))
	}
	if err := lease.Shut(); err != nil {
		return err
	}
	if err := s.unlead(func(a netip.Addr) bool { return slices.Contains(l.Old, a) }); err != nil {
		return err
	}
	if err := s.remove(l.isOf); err != nil {
		return err
	}
	others, err := s.ends(false)
	if err != nil || len(others) > 0 {
		return err // the filters at the other devices are those of the others, too
	}
	return s.unfilter()
}

// unfilter takes the new ends' filters off. They stay where a socket is left: it would send from an address
// which is not the pod's any more.
func (s *sandbox) unfilter() error {
	if !s.unbound() {
		return nil
	}
	return s.detach(tunnel.DetachNew)
}

// connections are the TCP sockets with an old address as their own that may still say something.
func (s *sandbox) connections(l Lease) ([]*netlink.Socket, error) {
	all, err := s.sockets(l, unix.IPPROTO_TCP)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(c *netlink.Socket) bool {
		return c.State == netlink.TCP_LISTEN || c.State == netlink.TCP_TIME_WAIT || c.State == netlink.TCP_CLOSE
	}), nil
}

// Accepted returns when no connection in the sandbox at path waits to be accepted, which a dump would lose, or
// after so long.
func Accepted(path string, patience time.Duration) error {
	s, err := enter(path)
	if err != nil {
		return err
	}
	defer s.leave()
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(time.Millisecond) {
		all, err := s.socketsOf(unix.IPPROTO_TCP, func(netip.Addr) bool { return true })
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(all, func(c *netlink.Socket) bool { return c.State == netlink.TCP_LISTEN && c.RQueue > 0 }) {
			break
		}
	}
	return nil
}

// unbound tells that no socket has an address as its own that none of the sandbox's devices has.
func (s *sandbox) unbound() bool {
	all, err := s.AddrList(nil, netlink.FAMILY_ALL)
	has := func(a netip.Addr) bool {
		return !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() ||
			slices.ContainsFunc(all, func(own netlink.Addr) bool { return addr(own.IPNet) == a })
	}
	for _, protocol := range []int{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		if err == nil {
			var strays []*netlink.Socket
			strays, err = s.socketsOf(protocol, func(a netip.Addr) bool { return !has(a) })
			if len(strays) > 0 {
				return false
			}
		}
	}
	return err == nil
}

// sockets lists those with an old address as their own.
func (s *sandbox) sockets(l Lease, protocol int) ([]*netlink.Socket, error) {
	return s.socketsOf(protocol, func(a netip.Addr) bool { return slices.Contains(l.Old, a) })
}

// socketsOf lists those with such an address as their own. One of a socket for both families is IPv6's to
// the kernel.
func (s *sandbox) socketsOf(protocol int, is func(netip.Addr) bool) ([]*netlink.Socket, error) {
	var found []*netlink.Socket
	err := s.inside(func() error {
		list := netlink.SocketDiagTCP
		if protocol == unix.IPPROTO_UDP {
			list = netlink.SocketDiagUDP
		}
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			all, err := list(family)
			if err != nil {
				return fmt.Errorf("list the sockets in %s: %w", s.path, err)
			}
			found = append(found, slices.DeleteFunc(all, func(c *netlink.Socket) bool {
				a, _ := netip.AddrFromSlice(c.ID.Source)
				return !is(a.Unmap())
			})...)
		}
		return nil
	})
	return found, err
}

// inside calls f on a thread that is in the sandbox.
func (s *sandbox) inside(f func() error) error {
	return thread.Apart(func() error {
		if err := netns.Set(s.ns); err != nil {
			return fmt.Errorf("enter %s: %w", s.path, err)
		}
		return f()
	})
}

// destroy has the kernel end connections: the peer gets a reset, the program an error.
func (s *sandbox) destroy(all []*netlink.Socket) error {
	return s.inside(func() error {
		for _, c := range all {
			req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
			req.AddData((*connection)(c))
			if _, err := req.Execute(unix.NETLINK_INET_DIAG, 0); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("end the connection from %v:%d to %v:%d: %w", c.ID.Source, c.ID.SourcePort, c.ID.Destination, c.ID.DestinationPort, err)
			}
		}
		return nil
	})
}

// connection is one as the kernel is asked for it: struct inet_diag_req_v2 (linux/inet_diag.h).
type connection netlink.Socket

func (c *connection) Len() int { return 56 }

func (c *connection) Serialize() []byte {
	b := make([]byte, 0, c.Len())
	b = append(b, c.Family, unix.IPPROTO_TCP, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, 1<<c.State)
	b = binary.BigEndian.AppendUint16(b, c.ID.SourcePort)
	b = binary.BigEndian.AppendUint16(b, c.ID.DestinationPort)
	for _, a := range [][]byte{c.ID.Source, c.ID.Destination} {
		if c.Family == unix.AF_INET {
			a = append(slices.Clone(a[len(a)-4:]), make([]byte, 12)...)
		}
		b = append(b, a...)
	}
	b = binary.NativeEndian.AppendUint32(b, c.ID.Interface)
	b = binary.NativeEndian.AppendUint32(b, c.ID.Cookie[0])
	return binary.NativeEndian.AppendUint32(b, c.ID.Cookie[1])
}
