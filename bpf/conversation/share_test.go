package conversation

import (
	"io"
	"net"
	"net/netip"
	"testing"
)

// greedy is a listener that many addresses of the other host talk to.
type greedy struct {
	client, server *host
	at             *net.TCPListener
}

func newGreedy(t *testing.T) greedy {
	h := hosts(t, 0, "a", "b")
	return greedy{h[0], h[1], h[1].listen(t, h[1].v4)}
}

// hear has each of some addresses, which end in these numbers, say 10 bytes in a connection that
// ends.
func (g greedy) hear(t *testing.T, from, to byte) (clients []netip.Addr) {
	t.Helper()
	for last := from; last < to; last++ {
		address := netip.AddrFrom4([4]byte{10, 234, 0, last})
		g.client.add(t, address)
		client, server := g.client.dial(t, address, g.at)
		say(t, client, server, 10)
		if err := client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("read %d bytes and %v, want the end", n, err)
		}
		if err := server.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "both ends are closed", func() bool {
			return info(t, client).State == 7 && info(t, server).State == 7 // TCP_CLOSE
		})
		clients = append(clients, address)
	}
	return clients
}

// pairs are those that the listener's address is known to be in.
func (g greedy) pairs(m *ledger) (n int) {
	for p := range m.sums {
		if p.Local == g.server.v4 {
			n++
		}
	}
	return n
}

// One address that talks to very many leaves room for all others: with a quarter of the table for
// it, 150 pairs of others fit into 280.
func TestOneAddressHasItsPart(t *testing.T) {
	g := newGreedy(t)
	m := meter(t, Tracepoint, 280, "")
	clients := g.hear(t, 50, 200)
	m.read(t)
	if got := g.pairs(m); got != 70 || m.lost != 150-70 {
		t.Errorf("%d pairs of one address are known and %d connections are lost, want 70 and 80", got, m.lost)
	}
	for _, c := range clients {
		if got := m.sums[Pair{c, g.server.v4}].Sent; got != 10 {
			t.Errorf("%v sent %d, want 10", c, got)
		}
	}
}

// What is silent makes room for what comes: with half of an address' part in use, and not of the
// table, at the next reading.
func TestAPartIsMadeRoomIn(t *testing.T) {
	g := newGreedy(t)
	m := meter(t, Tracepoint, 600, "") // 150 for one address
	g.hear(t, 50, 150)
	m.read(t)
	m.read(t)
	g.hear(t, 150, 250)
	m.read(t)
	if got := g.pairs(m); got != 200 || m.lost != 0 {
		t.Errorf("%d pairs of one address are known and %d connections are lost, want 200 and none", got, m.lost)
	}
}
