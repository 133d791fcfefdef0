package address

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// What was sent while the address was held arrives once, in order, and before what comes later;
// what was kept beyond the limit is lost, and nothing else is kept than what is for the address.
func TestKeep(t *testing.T) {
	for _, first := range firsts {
		t.Run(first, func(t *testing.T) {
			w := newWorld(t, first)
			for _, a := range w.lease.Old {
				must(t, Hold(w.left.path(), w.lease))
				k, err := Keep(w.left.path(), w.lease, 10_000)
				must(t, err)
				tap := w.left.tap(t)
				if a.Is4() == w.lease.New.Is4() { // a packet of the tunnel's
					beside := w.new.udp(t, netip.AddrPortFrom(w.lease.New, 7070))
					send(t, beside, netip.AddrPortFrom(a, port), "of the new end")
					seen(t, tap, bears("of the new end"))
				}
				must(t, Arrive(w.new.path(), w.lease))
				server := w.new.udp(t, netip.AddrPortFrom(a, port))
				c := w.near.udp(t, netip.AddrPortFrom(w.near.like(a), ours))
				to, from := netip.AddrPortFrom(a, port), netip.AddrPortFrom(w.near.like(a), ours)
				for _, text := range []string{"one", "two", strings.Repeat("x", 1200), "three"} {
					send(t, c, to, text)
				}
				for range 8 {
					send(t, c, to, strings.Repeat("y", 1200))
				}
				send(t, c, to, strings.Repeat("y", 1200)+"too much")
				seen(t, tap, bears("too much"))
				must(t, Open(w.new.path(), w.lease, time.Hour))
				must(t, Forward(w.left.path(), w.lease, k, time.Hour))
				send(t, c, to, "later")
				for _, text := range []string{"one", "two", strings.Repeat("x", 1200), "three"} {
					receive(t, server, from, text)
				}
				kept := 0
				for {
					must(t, server.SetReadDeadline(time.Now().Add(patience)))
					buf := make([]byte, 2000)
					n, _, err := server.ReadFromUDPAddrPort(buf)
					must(t, err)
					if buf[0] != 'y' {
						if string(buf[:n]) != "later" {
							t.Errorf("got %q", buf[:n])
						}
						break
					}
					kept++
				}
				if kept == 0 || kept >= 8 {
					t.Errorf("%d of 8 large ones were kept, want some and not all", kept)
				}
				server.Close()
				c.Close()
			}
		})
	}
}

// Dropped is dropped.
func TestKeepAndClose(t *testing.T) {
	w := newWorld(t, "IPv4")
	must(t, Hold(w.left.path(), w.lease))
	k, err := Keep(w.left.path(), w.lease, 10_000)
	must(t, err)
	must(t, k.Close())
	if _, err := Keep(w.near.path(), w.lease, 10_000); err == nil {
		t.Error("kept what comes to a sandbox that has not the address")
	}
}
