package tunnel

import (
	"net"
	"net/netip"
	"testing"
)

// The kernel takes the programs, of one tunnel and of as many as there can be, and lets them share the leases.
// What they do is tested where they are used (nodeagent/address).
func TestLoad(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	for n := 1; n <= Most; n += Most - 1 {
		c := Config{Here: netip.MustParseAddr("10.0.1.1"), Port: 1, Uplink: 1, From: mac, To: mac}
		for i := range n {
			c.Ends[i] = End{Old: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.MustParseAddr("fd00::1")},
				There: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Tunnel: 2 + i}
		}
		p, err := Load(c)
		if err != nil {
			t.Fatalf("with %d tunnels: %v", n, err)
		}
		info, err := p.objects.DroverLease.Info()
		if err != nil || info.MaxEntries != Most {
			t.Errorf("there is room for %d leases (%v), want %d", info.MaxEntries, err, Most)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}
