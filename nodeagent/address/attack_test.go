package address

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/test/netspace"
)

// padding is an IPv6 extension header of options that does nothing (RFC 8200, 4.2).
const padding = "\x00\x00\x01\x04\x00\x00\x00\x00"

// wrapped is a datagram as the tunnel's packets bear it: VXLAN (RFC 7348, 5) and a frame.
func (l Lease) wrapped(from, to netip.AddrPort, text string) string {
	return string(binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, l.Network<<8)) + string(datagram(from, to, text))
}

// attacker is a pod beside one end of the tunnel, and how it sends its datagrams.
func (w *world) attacker(t *testing.T, bridge int, options []int) (pod, *net.UDPConn) {
	t.Helper()
	x := w.pod(t, bridge, 9)
	meet(t, x, w.far)
	c := x.udp(t, netip.AddrPortFrom(x.like(w.lease.New), ours))
	raw, err := c.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		for _, o := range options {
			must(t, unix.SetsockoptString(int(fd), unix.IPPROTO_IPV6, o, padding))
		}
	}))
	return x, c
}

// Nobody but the other end puts packets into the tunnel: neither at the new end, whichever of its
// addresses they are sent to, nor by way of the old address, in whatever they are wrapped.
func TestForgedTunnel(t *testing.T) {
	large := strings.Repeat("x", 3000)
	for _, first := range firsts {
		for name, how := range map[string]struct {
			text    string
			options []int
		}{
			"plain":                      {"forged", nil},
			"in fragments":               {"forged" + large, nil},
			"behind options":             {"forged", []int{unix.IPV6_DSTOPTS}},
			"behind options of each hop": {"forged", []int{unix.IPV6_HOPOPTS}},
			"behind both, in fragments":  {"forged" + large, []int{unix.IPV6_HOPOPTS, unix.IPV6_DSTOPTS}},
		} {
			if first == "IPv4" && how.options != nil {
				continue
			}
			t.Run(first+" "+name, func(t *testing.T) {
				w := moved(t, first)
				victim, own := w.new.udp(t, netip.AddrPortFrom(w.left.v4, port)), w.new.udp(t, netip.AddrPortFrom(w.new.like(w.lease.New), 7070))
				heard := func() {
					t.Helper()
					near := w.near.udp(t, netip.AddrPortFrom(w.near.v4, 0))
					send(t, near, netip.AddrPortFrom(w.left.v4, port), "true")
					receive(t, victim, near.LocalAddr().(*net.UDPAddr).AddrPort(), "true")
				}
				heard() // the tunnel stands
				packet := w.lease.wrapped(netip.AddrPortFrom(w.near.v4, ours), netip.AddrPortFrom(w.left.v4, port), how.text)
				// Twice wrapped it gets through the old end and is taken out a second time at the new one.
				for i, at := range []netip.Addr{w.lease.Old[0], w.lease.New} {
					x, c := w.attacker(t, i, how.options)
					for _, a := range []netip.Addr{at, x.everybody(t, at)} {
						if _, err := c.WriteToUDPAddrPort([]byte(packet), netip.AddrPortFrom(a, Port)); err != nil {
							t.Fatalf("send a forged packet to %v: %v", a, err)
						}
					}
					send(t, x.udp(t, netip.AddrPortFrom(x.like(w.lease.New), 7071)), netip.AddrPortFrom(w.lease.New, 7070), "after it")
					receive(t, own, netip.AddrPortFrom(x.like(w.lease.New), 7071), "after it")
					heard()
				}
			})
		}
	}
}

// everybody is the address of all on the pod's bridge, of the family of a.
func (p pod) everybody(t *testing.T, a netip.Addr) netip.Addr {
	t.Helper()
	if a.Is4() {
		b := p.v4.As4()
		b[3] = 255
		return netip.AddrFrom4(b)
	}
	index := 0
	must(t, netspace.In(p.ns, func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			index = link.Attrs().Index
		}
		return err
	}))
	return netip.MustParseAddr("ff02::1").WithZone(strconv.Itoa(index))
}

// What the old sandbox's own stack still has to say stays in it, also when the tunnel's packets leave: the
// end of a connection whose socket was closed there is none for the peer, who talks to the new sandbox.
func TestOldStackIsSilent(t *testing.T) {
	for _, first := range firsts {
		w := moved(t, first)
		for _, a := range w.lease.Old {
			peer := w.near.udp(t, netip.AddrPortFrom(w.near.like(a), ours))
			old := w.left.udp(t, netip.AddrPortFrom(a, port))
			_, _ = old.WriteToUDPAddrPort([]byte("from the old stack"), netip.AddrPortFrom(w.near.like(a), ours))
			send(t, w.new.udp(t, netip.AddrPortFrom(a, port)), netip.AddrPortFrom(w.near.like(a), ours), "by the tunnel")
			receive(t, peer, netip.AddrPortFrom(a, port), "by the tunnel")
		}
	}
}

// A frame whose tags say nothing (VLAN 0 in VLAN 0) is IP to the stack only after the filters have
// seen it.
func TestTagged(t *testing.T) {
	w := moved(t, "IPv4")
	victim := w.new.udp(t, netip.AddrPortFrom(w.left.v4, port))
	tagged(t, w.far, w.new, datagram(netip.AddrPortFrom(w.far.v4, ours), netip.AddrPortFrom(w.left.v4, port), "past the tunnel"))
	own := w.new.udp(t, netip.AddrPortFrom(w.new.v4, port))
	send(t, w.far.udp(t, netip.AddrPortFrom(w.far.v4, ours)), netip.AddrPortFrom(w.new.v4, port), "after it")
	receive(t, own, netip.AddrPortFrom(w.far.v4, ours), "after it")
	near := w.near.udp(t, netip.AddrPortFrom(w.near.v4, ours))
	send(t, near, netip.AddrPortFrom(w.left.v4, port), "by the tunnel")
	receive(t, victim, netip.AddrPortFrom(w.near.v4, ours), "by the tunnel")

	must(t, Hold(w.left.path(), w.lease))
	held := w.left.udp(t, netip.AddrPortFrom(w.left.v4, port))
	tap := w.left.tap(t)
	tagged(t, w.near, w.left, datagram(netip.AddrPortFrom(w.near.v4, ours), netip.AddrPortFrom(w.left.v4, port), "while held"))
	send(t, near, netip.AddrPortFrom(w.left.v4, port), "after it")
	seen(t, tap, bears("after it"))
	must(t, ClearLeft(w.left.path()))
	send(t, near, netip.AddrPortFrom(w.left.v4, port), "when it is not")
	receive(t, held, netip.AddrPortFrom(w.near.v4, ours), "when it is not")
}

// tagged sends a frame from the one pod's eth0 to the other's with two tags of VLAN 0.
func tagged(t *testing.T, from, to pod, frame []byte) {
	t.Helper()
	var dst net.HardwareAddr
	must(t, netspace.In(to.ns, func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			dst = link.Attrs().HardwareAddr
		}
		return err
	}))
	const addresses = 12
	tag := "\x81\x00\x00\x00"
	p := append(append([]byte{}, dst...), frame[6:addresses]...)
	from.sendFrame(t, "eth0", append(append(p, tag+tag...), frame[addresses:]...))
}

// Nobody is told by the new sandbox that it has the old address.
func TestNobodyIsAskedFromOldAddress(t *testing.T) {
	w := moved(t, "IPv4")
	tap := w.far.tap(t)
	for _, from := range []netip.Addr{w.left.v4, w.new.v4} {
		c := w.new.udp(t, netip.AddrPortFrom(from, 0))
		raw, err := c.SyscallConn()
		must(t, err)
		must(t, raw.Control(func(fd uintptr) { must(t, unix.BindToDevice(int(fd), "eth0")) }))
		send(t, c, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 1, 70 + from.As4()[2]}), port), "to nobody")
	}
	asks := func(sender netip.Addr) func([]byte) bool {
		return func(p []byte) bool {
			return len(p) >= 42 && binary.BigEndian.Uint16(p[12:]) == unix.ETH_P_ARP && netip.AddrFrom4([4]byte(p[28:])) == sender
		}
	}
	for _, p := range seen(t, tap, asks(w.new.v4)) {
		if asks(w.left.v4)(p) {
			t.Errorf("the new sandbox asks for a neighbour as if it had the old address: %x", p)
		}
	}
}

// The old end closes by itself as well, and is not opened for longer by being opened again.
func TestOldEndCloses(t *testing.T) {
	w := moved(t, "IPv4")
	for _, a := range w.lease.Old {
		server, own := w.new.udp(t, netip.AddrPortFrom(a, port)), w.new.udp(t, netip.AddrPortFrom(w.new.like(a), 7070))
		c := w.near.udp(t, netip.AddrPortFrom(w.near.like(a), ours))
		to, from := netip.AddrPortFrom(a, port), netip.AddrPortFrom(w.near.like(a), ours)
		send(t, c, to, "in time")
		receive(t, server, from, "in time")
		must(t, Hold(w.left.path(), w.lease))
		must(t, Forward(w.left.path(), w.lease, nil, time.Nanosecond))
		must(t, Forward(w.left.path(), w.lease, nil, time.Hour))
		tap := w.left.tap(t)
		send(t, c, to, "late")
		seen(t, tap, bears("late"))
		// The other way it is closed too.
		_, _ = server.WriteToUDPAddrPort([]byte("late"), from)
		send(t, own, from, "own")
		receive(t, c, netip.AddrPortFrom(w.new.like(a), 7070), "own")
		must(t, Hold(w.left.path(), w.lease))
		must(t, Forward(w.left.path(), w.lease, nil, time.Hour))
		send(t, c, to, "again")
		receive(t, server, from, "again")
	}
}

// When the lease is over, who once asked the old address is answered as everybody is.
func TestAnswersWhenClosed(t *testing.T) {
	w := moved(t, "IPv4")
	server := w.new.udp(t, netip.AddrPortFrom(netip.IPv6Unspecified(), port))
	for _, a := range w.lease.Old {
		c := w.far.udp(t, netip.AddrPortFrom(w.far.like(a), ours))
		must(t, Open(w.new.path(), w.lease, time.Hour))
		send(t, c, netip.AddrPortFrom(a, port), "ask")
		receive(t, server, netip.AddrPortFrom(w.far.like(a), ours), "ask")
		must(t, Open(w.new.path(), w.lease, 0))
		send(t, server, netip.AddrPortFrom(w.far.like(a), ours), "answer")
		receive(t, c, netip.AddrPortFrom(w.new.like(a), port), "answer")
	}
}

// What comes by another device of the new sandbox is no more trusted.
func TestForgedByAnotherDevice(t *testing.T) {
	w := newWorld(t, "IPv4")
	x := pod{ns: netspace.Make(t), v4: netip.MustParseAddr("10.10.0.1")}
	ours, theirs := netip.MustParsePrefix("10.10.0.2/24"), netip.MustParsePrefix("10.10.0.1/24")
	must(t, netspace.In(w.new.ns, func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "net1"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(x.ns)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return netspace.Up("net1", ours)
	}))
	must(t, netspace.In(x.ns, func() error {
		if err := netspace.Up("eth0", theirs); err != nil {
			return err
		}
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: host(w.left.v4), Gw: ours.Addr().AsSlice(), LinkIndex: link.Attrs().Index})
	}))
	w.move(t)
	victim, own := w.new.udp(t, netip.AddrPortFrom(w.left.v4, port)), w.new.udp(t, netip.AddrPortFrom(ours.Addr(), 7070))
	c := x.udp(t, netip.AddrPortFrom(x.v4, 7070))
	send(t, c, netip.AddrPortFrom(ours.Addr(), Port), w.lease.wrapped(netip.AddrPortFrom(w.near.v4, 9090), netip.AddrPortFrom(w.left.v4, port), "forged"))
	send(t, c, netip.AddrPortFrom(w.left.v4, port), "past the tunnel")
	send(t, c, netip.AddrPortFrom(ours.Addr(), 7070), "after it")
	receive(t, own, netip.AddrPortFrom(x.v4, 7070), "after it")
	near := w.near.udp(t, netip.AddrPortFrom(w.near.v4, 9090))
	send(t, near, netip.AddrPortFrom(w.left.v4, port), "true")
	receive(t, victim, netip.AddrPortFrom(w.near.v4, 9090), "true")
}
