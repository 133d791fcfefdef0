package routetime

import (
	"net/netip"
	"strings"
	"testing"
)

// The kernel's stamps, which nobody reads, do not get in the way of the next.
func TestSenderGoesOn(t *testing.T) {
	a, b := vethPair(t)
	m := a.meter(t, b)
	b.attach(t, b.meter(t))
	const many = 1000
	for i, from := range []netip.Addr{a.v4, a.v6} {
		c, to := a.socket(t, from), []netip.Addr{b.v4, b.v6}[i]
		for nonce := range uint64(many) {
			if err := m.Expect(nonce, to); err != nil {
				t.Fatal(err)
			}
			send(t, c, to, probe(nonce))
			if err := m.Forget(nonce); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Each first one waits for the neighbour's address, and may be forgotten before it leaves.
	if got := stats(t, m).Stamped; got < 2*(many-1) {
		t.Errorf("%d stamped of %d", got, 2*many)
	}
}

func TestSenderRefused(t *testing.T) {
	a, b := vethPair(t)
	stranger := netip.MustParseAddrPort("10.232.0.77:7948")
	a.in(t, func() error {
		s, err := NewSender(stranger) // which it is, is seen when it sends
		if err != nil {
			return err
		}
		defer s.Close()
		if err := s.Send(probe(1), b.v4); err == nil || !strings.Contains(err.Error(), "from 10.232.0.77:7948 to 10.232.0.2") {
			t.Errorf("error %v, want one with both addresses", err)
		}
		if _, err := NewSender(netip.AddrPort{}); err == nil {
			t.Error("no address: no error")
		}
		return nil
	})
}

// What it costs the agent to announce a probe and send it, to a peer that drops it.
func BenchmarkProbe(b *testing.B) {
	near, far := vethPair(b)
	m := near.meter(b, far)
	near.attach(b, m)
	far.attach(b, far.meter(b))
	c := near.socket(b, near.v4)
	var packet [PacketSize]byte
	for nonce := uint64(0); b.Loop(); nonce++ {
		if err := m.Expect(nonce, far.v4); err != nil {
			b.Fatal(err)
		}
		send(b, c, far.v4, Packet{Kind: Probe, Nonce: nonce}.Append(packet[:0]))
		if err := m.Forget(nonce); err != nil {
			b.Fatal(err)
		}
	}
	if got := stats(b, m).Stamped; got < uint64(b.N)-1 {
		b.Errorf("%d stamped of %d", got, b.N)
	}
}
