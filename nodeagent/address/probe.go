package address

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/thread"
)

// again is after how long a probe that was not answered is sent again.
const again = 100 * time.Millisecond

// Nonce ties an answer to its probe; both agents have it from the move.
type Nonce [16]byte

// Answer answers, in the sandbox at path that the pod is about to leave, probes from the new one
// that bear the nonce, until ctx ends. It is over before Hold. In one that is the end of a tunnel already, or
// was, since the pod has moved before, it takes CAP_NET_RAW.
func Answer(ctx context.Context, path string, l Lease, nonce Nonce) error {
	s, err := l.enter(path)
	if err != nil {
		return err
	}
	defer s.leave()
	if taken, err := s.taken(); err != nil {
		return err
	} else if taken {
		return s.echo(ctx, l, nonce)
	}
	c, err := listen(path, l, l.Old[0])
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for a probe of the network at %v: %w", c.LocalAddr(), err)
		}
		if is(buf[:n], from, l.New, nonce) {
			// One that is lost is asked for again.
			_, _ = c.WriteToUDPAddrPort(buf[:n], from)
		}
	}
}

// Probe finds out, from the new sandbox at path, whether the network carries the tunnel: packets
// between the very addresses and ports, both ways, as large as the device lets them be and with the
// tunnel's headers on top. It asks until all are answered, or ctx ends: then the error says which
// were not.
func Probe(ctx context.Context, path string, l Lease, nonce Nonce) error {
	s, err := enter(path)
	if err != nil {
		return err
	}
	uplink, err := s.holder(l.New)
	s.leave()
	if err != nil {
		return err
	}
	c, err := listen(path, l, l.New)
	if err != nil {
		return err
	}
	defer c.Close()
	headers := 20 + 8
	if l.New.Is6() {
		headers = 40 + 8
	}
	whole := uplink.Attrs().MTU
	for _, size := range []int{whole, whole + l.overhead()} {
		if err := ask(ctx, c, l, nonce, size-headers); err != nil {
			return fmt.Errorf("the network does not carry a packet of %d bytes from %v to %v, UDP port %d, and back: %w",
				size, l.New, l.Old[0], Port, err)
		}
	}
	return nil
}

func ask(ctx context.Context, c *net.UDPConn, l Lease, nonce Nonce, size int) error {
	packet, buf := make([]byte, size), make([]byte, 1<<16)
	copy(packet, nonce[:])
	var last error
	for ctx.Err() == nil {
		if _, err := c.WriteToUDPAddrPort(packet, netip.AddrPortFrom(l.Old[0], Port)); err != nil {
			last = err // a route may come yet
		}
		if err := c.SetReadDeadline(time.Now().Add(again)); err != nil {
			return err
		}
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err == nil && n == size && is(buf[:n], from, l.Old[0], nonce) {
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			last = err
		}
	}
	return errors.Join(context.Cause(ctx), last)
}

// is tells whether a datagram is that of the other end.
func is(b []byte, from netip.AddrPort, end netip.Addr, nonce Nonce) bool {
	return len(b) >= len(nonce) && subtle.ConstantTimeCompare(b[:len(nonce)], nonce[:]) == 1 &&
		from == netip.AddrPortFrom(end, Port)
}

// listen makes a socket at the tunnel's port in the network namespace at path. It may send packets
// that become fragments, as the tunnel does.
func listen(path string, l Lease, at netip.Addr) (c *net.UDPConn, err error) {
	s, err := l.enter(path)
	if err != nil {
		return nil, err
	}
	defer s.leave()
	version, option, level, off := "udp4", unix.IP_MTU_DISCOVER, unix.IPPROTO_IP, unix.IP_PMTUDISC_DONT
	if at.Is6() {
		version, option, level, off = "udp6", unix.IPV6_MTU_DISCOVER, unix.IPPROTO_IPV6, unix.IPV6_PMTUDISC_DONT
	}
	err = thread.Apart(func() error {
		if err := netns.Set(s.ns); err != nil {
			return err
		}
		c, err = net.ListenUDP(version, net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, Port)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen at %v, UDP port %d, in %s: %w", at, Port, path, err)
	}
	if err := set(c, level, option, off); err != nil {
		c.Close()
		return nil, fmt.Errorf("let probes become fragments: %w", err)
	}
	return c, nil
}

func set(c *net.UDPConn, level, option, value int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) })
	return errors.Join(err, failed)
}
