package routetime

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Probes from every one of the ports come back to it, and those from the ports beside them,
// or to them, are not ours.
func TestSourcePorts(t *testing.T) {
	a, b := vethPair(t)
	ma, mb := a.meter(t, b), b.meter(t, a)
	a.attach(t, ma)
	b.attach(t, mb)
	var nonce uint64
	for i, from := range []netip.Addr{a.v4, a.v6} {
		to := []netip.Addr{b.v4, b.v6}[i]
		for port := uint16(Port); port < Port+Paths; port++ {
			nonce++
			c := a.socketAt(t, netip.AddrPortFrom(from, port))
			if s := measure(t, ma, c, to, nonce); s.Answered != AnsweredByKernel {
				t.Errorf("from port %d: sample %+v", port, s)
			}
			c.Close()
		}
	}
	want := uint64(2 * Paths)
	if got := stats(t, ma); got != (Stats{Stamped: want, Measured: want}) {
		t.Errorf("a counted %+v, want %d stamped and measured", got, want)
	}

	listening := b.socket(t, b.v4) // what the program lets pass arrives here
	for _, port := range []uint16{Port - 1, Port + Paths} {
		if err := ma.Expect(uint64(port), b.v4); err != nil {
			t.Fatal(err)
		}
		send(t, a.socketAt(t, netip.AddrPortFrom(a.v4, port)), b.v4, probe(uint64(port)))
		buf := make([]byte, 100)
		if _, from, err := listening.ReadFromUDPAddrPort(buf); err != nil || from.Port() != port {
			t.Errorf("a probe from port %d: got one from %s (%v)", port, from, err)
		}
	}
	other := b.socketAt(t, netip.AddrPortFrom(b.v4, Port+1))
	c := a.socket(t, a.v4)
	if _, err := c.WriteToUDPAddrPort(probe(1), netip.AddrPortFrom(b.v4, Port+1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := other.ReadFromUDPAddrPort(make([]byte, 100)); err != nil {
		t.Errorf("a probe to port %d did not pass: %v", Port+1, err)
	}
	if got := stats(t, ma); got.Stamped != want {
		t.Errorf("a stamped %d, want %d as before", got.Stamped, want)
	}
	if got := stats(t, mb); got != (Stats{Answered: want}) {
		t.Errorf("b counted %+v, want %d answered", got, want)
	}
}

// UDP over IPv6 has a checksum: a probe without one gets no answer.
func TestIPv6WithoutChecksum(t *testing.T) {
	a, b := vethPair(t)
	ma, mb := a.meter(t, b), b.meter(t, a)
	a.attach(t, ma)
	b.attach(t, mb)
	c := a.socket(t, a.v6)
	if err := control(c.UDPConn, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_TX, 1)
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteToUDPAddrPort(probe(1), netip.AddrPortFrom(b.v6, Port)); err != nil {
		t.Fatal(err)
	}
	measure(t, ma, c, b.v6, 2)
	if got, want := stats(t, mb), (Stats{Answered: 1}); got != want {
		t.Errorf("b counted %+v, want %+v", got, want)
	}
}
