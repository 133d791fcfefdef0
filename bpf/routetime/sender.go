package routetime

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Sender sends probes that the programs stamp when they leave, from an address and port at which
// another socket receives.
//
// It asks the kernel for a time stamp when a packet is given to the device (SO_TIMESTAMPING). The
// kernel then puts the packet into the socket's error queue and tells of it, which is what the program
// listens to. The queue would wake who waits on the socket, and takes room from what is received.
// Therefore a Sender has a socket of its own, on an address to which nothing comes, and empties
// its queue.
type Sender struct {
	fd      int
	from    netip.AddrPort
	control []byte // says that it is from there
}

// nowhere are the addresses that a Sender is bound to: one that is never a host's (RFC 7600), and
// one for what is to be discarded (RFC 6666).
var nowhere = struct{ v4, v6 netip.Addr }{netip.MustParseAddr("192.0.0.8"), netip.MustParseAddr("100::")}

// NewSender makes a Sender for probes from an address of this node, in the network namespace of
// the calling thread.
func NewSender(from netip.AddrPort) (*Sender, error) {
	if !from.Addr().IsValid() {
		return nil, fmt.Errorf("open a socket for stamped probes: %s is no address", from)
	}
	s := &Sender{fd: -1, from: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open a socket for stamped probes from %s: %w", from, err), s.Close())
	}
	return s, nil
}

func (s *Sender) open() (err error) {
	family, level, freebind, at := unix.AF_INET, unix.SOL_IP, unix.IP_FREEBIND, nowhere.v4
	if s.from.Addr().Is6() {
		family, level, freebind, at = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_FREEBIND, nowhere.v6
		s.control = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: s.from.Addr().As16()})
	} else {
		s.control = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: s.from.Addr().As4()})
	}
	if s.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, unix.SOF_TIMESTAMPING_TX_SCHED),
		unix.SetsockoptInt(s.fd, level, freebind, 1),
		unix.Bind(s.fd, sockaddr(netip.AddrPortFrom(at, s.from.Port()))))
}

// Send sends a packet to an address' Port.
func (s *Sender) Send(packet []byte, to netip.Addr) error {
	for { // what there is of probes before
		if _, _, _, _, err := unix.Recvmsg(s.fd, nil, nil, unix.MSG_ERRQUEUE); err != nil {
			break
		}
	}
	if _, err := unix.SendmsgN(s.fd, packet, s.control, sockaddr(netip.AddrPortFrom(to, Port)), 0); err != nil {
		return fmt.Errorf("send from %s to %s: %w", s.from, to, err)
	}
	return nil
}

// Close closes the socket. Nothing may be sent then, or meanwhile; to close it again does nothing.
func (s *Sender) Close() error {
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
