package routetime

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/drover-project/drover/hack/lab/fabric"
	"github.com/drover-project/drover/test/netspace"
)

// patience ends a test that hangs; nothing is measured by it.
const patience = 20 * time.Second

// node is a network namespace with one device, eth0, and its two addresses.
type node struct {
	name   string
	ns     netns.NsHandle
	v4, v6 netip.Addr
	index  int
}

func (n *node) in(t testing.TB, f func() error) {
	t.Helper()
	if err := netspace.In(n.ns, f); err != nil {
		t.Fatalf("on node %s: %v", n.name, err)
	}
}

func newNode(t testing.TB, name string, last byte) *node {
	t.Helper()
	return &node{name: name, ns: netspace.Make(t),
		v4: netip.AddrFrom4([4]byte{10, 232, 0, last}),
		v6: netip.AddrFrom16([16]byte{0xfd, 0, 15: last})}
}

// up gives eth0 its addresses.
func (n *node) up(t testing.TB) {
	t.Helper()
	n.in(t, func() error {
		device, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		n.index = device.Attrs().Index
		return netspace.Up("eth0", netip.PrefixFrom(n.v4, 24), netip.PrefixFrom(n.v6, 64))
	})
}

// vethPair connects two new nodes by a veth pair.
func vethPair(t testing.TB) (*node, *node) {
	t.Helper()
	a, b := newNode(t, "a", 1), newNode(t, "b", 2)
	a.in(t, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"},
			PeerName: "eth0", PeerNamespace: netlink.NsFd(b.ns)})
	})
	a.up(t)
	b.up(t)
	return a, b
}

// tapNodes connects new nodes by the lab's fabric with the given one-way delay.
func tapNodes(t testing.TB, delay time.Duration, names ...string) []*node {
	t.Helper()
	var nodes []*node
	var ports []fabric.Port
	for i, name := range names {
		n := newNode(t, name, byte(i+1))
		n.in(t, func() error {
			f, err := fabric.OpenTAP("eth0", net.HardwareAddr{2, 0, 0, 0, 1, byte(i + 1)})
			ports = append(ports, fabric.Port{Name: name, File: f})
			return err
		})
		n.up(t)
		nodes = append(nodes, n)
	}
	netspace.Connect(t, delay, ports)
	return nodes
}

// meter loads the programs for the node, with the given peers as members.
func (n *node) meter(t testing.TB, peers ...*node) *Meter {
	t.Helper()
	m, err := Open()
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	var addresses []netip.Addr
	for _, p := range peers {
		addresses = append(addresses, p.v4, p.v6)
	}
	if err := m.SetMembers([]netip.Addr{n.v4, n.v6}, addresses); err != nil {
		t.Fatalf("SetMembers: %v", err)
	}
	return m
}

func (n *node) attach(t testing.TB, m *Meter) {
	t.Helper()
	n.in(t, func() error { return m.SetInterfaces([]int{n.index}) })
	if !m.Attached(n.index) {
		t.Fatalf("SetInterfaces gave no error, but %s is not attached", n.name)
	}
}

// endpoint is where a node receives, and sends from what is to be stamped.
type endpoint struct {
	*net.UDPConn
	*Sender
}

func (e *endpoint) Close() error { return errors.Join(e.UDPConn.Close(), e.Sender.Close()) }

func (n *node) socket(t testing.TB, address netip.Addr) *endpoint {
	t.Helper()
	return n.socketAt(t, netip.AddrPortFrom(address, Port))
}

func (n *node) socketAt(t testing.TB, local netip.AddrPort) *endpoint {
	t.Helper()
	var e endpoint
	n.in(t, func() (err error) {
		if e.UDPConn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(local)); err != nil {
			return err
		}
		e.Sender, err = NewSender(local)
		return err
	})
	t.Cleanup(func() { e.Close() })
	if err := e.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &e
}

func send(t testing.TB, e *endpoint, to netip.Addr, b []byte) {
	t.Helper()
	if err := e.Send(b, to); err != nil {
		t.Fatal(err)
	}
}

func probe(nonce uint64) []byte { return Packet{Kind: Probe, Nonce: nonce}.Append(nil) }

// measure sends one probe and returns its sample; any other sample is an error.
func measure(t *testing.T, m *Meter, c *endpoint, to netip.Addr, nonce uint64) Sample {
	t.Helper()
	if err := m.Expect(nonce, to); err != nil {
		t.Fatal(err)
	}
	send(t, c, to, probe(nonce))
	m.ring.SetDeadline(time.Now().Add(patience))
	s, err := m.Read()
	if err != nil {
		t.Fatalf("probe %d to %s: %v; counters %+v", nonce, to, err, stats(t, m))
	}
	if s.Peer != to || s.Nonce != nonce {
		t.Fatalf("sample %+v, want of probe %d to %s", s, nonce, to)
	}
	return s
}

func stats(t testing.TB, m *Meter) Stats {
	t.Helper()
	s, err := m.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVeth(t *testing.T) {
	a, b := vethPair(t)
	ma, mb := a.meter(t, b), b.meter(t, a)
	a.attach(t, ma)
	b.attach(t, mb)
	// Nobody listens on b: only its kernel can answer.
	for nonce, to := range map[uint64]netip.Addr{1: b.v4, 2: b.v6} {
		from := a.v4
		if to.Is6() {
			from = a.v6
		}
		s := measure(t, ma, a.socket(t, from), to, nonce)
		if s.RTT <= 0 || s.RTT > patience || s.Answered != AnsweredByKernel {
			t.Errorf("sample %+v", s)
		}
		t.Logf("to %s in %v", to, s.RTT)
	}
	if got, want := stats(t, ma), (Stats{Stamped: 2, Measured: 2}); got != want {
		t.Errorf("a counted %+v, want %+v", got, want)
	}
	if got, want := stats(t, mb), (Stats{Answered: 2}); got != want {
		t.Errorf("b counted %+v, want %+v", got, want)
	}
}

// Kernels before 6.6 have no tcx; clsact works the same way on all.
func TestClsact(t *testing.T) {
	a, b := vethPair(t)
	ma, mb := a.meter(t, b), b.meter(t, a)
	b.attach(t, mb)
	for nonce := range uint64(2) { // the second round finds the first one's qdisc
		a.in(t, func() (err error) {
			ma.attached[a.index], err = ma.attachClsact(a.index)
			return err
		})
		c := a.socket(t, a.v4)
		if s := measure(t, ma, c, b.v4, nonce); s.Answered != AnsweredByKernel {
			t.Errorf("sample %+v", s)
		}
		c.Close()
		a.in(t, func() error { return ma.SetInterfaces(nil) })
	}
	a.in(t, func() error {
		device, err := netlink.LinkByIndex(a.index)
		if err != nil {
			return err
		}
		for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
			left, err := netlink.FilterList(device, parent)
			if err != nil {
				return err
			}
			if len(left) > 0 {
				t.Errorf("filters left behind: %v", left)
			}
		}
		return nil
	})
}

func TestDelay(t *testing.T) {
	const oneWay = 7 * time.Millisecond
	nodes := tapNodes(t, oneWay, "a", "b")
	a, b := nodes[0], nodes[1]
	ma, mb := a.meter(t, b), b.meter(t, a)
	a.attach(t, ma)
	b.attach(t, mb)
	for i, from := range []netip.Addr{a.v4, a.v6} {
		to := []netip.Addr{b.v4, b.v6}[i]
		c := a.socket(t, from)
		best := patience
		for nonce := range uint64(5) {
			rtt := measure(t, ma, c, to, nonce).RTT
			if rtt < 2*oneWay {
				t.Errorf("round trip to %s in %v, the delay alone is %v", to, rtt, 2*oneWay)
			}
			best = min(best, rtt)
		}
		t.Logf("best of 5 to %s: %v", to, best)
	}
}

// A frame that comes in over a TAP has its checksums verified by the stack, so what the
// program turned round reaches a socket only with both of them right, and the ports turned.
func TestAnswerHasValidChecksums(t *testing.T) {
	nodes := tapNodes(t, 0, "a", "b")
	a, b := nodes[0], nodes[1]
	b.attach(t, b.meter(t, a))
	answersAreValid(t, a, b)
}

func answersAreValid(t *testing.T, a, b *node) {
	t.Helper()
	for i, from := range []netip.AddrPort{
		netip.AddrPortFrom(a.v4, Port), netip.AddrPortFrom(a.v6, Port),
		netip.AddrPortFrom(a.v4, Port+Paths-1), netip.AddrPortFrom(a.v6, Port+Paths-1),
	} {
		to := []netip.Addr{b.v4, b.v6}[i%2]
		c := a.socketAt(t, from)
		send(t, c, to, Packet{Kind: Probe, Nonce: 0xfeedface, Sequence: 9}.Append(nil))
		buf := make([]byte, 100)
		n, sender, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatalf("no answer from %s: %v", to, err)
		}
		got, err := Parse(buf[:n])
		if got.Dwell <= 0 {
			t.Errorf("the answer from %s does not say how long it took", to)
		}
		want := Packet{Kind: AnsweredByKernel, Dwell: got.Dwell, Nonce: 0xfeedface, Sequence: 9}
		if err != nil || got != want || sender != netip.AddrPortFrom(to, Port) {
			t.Errorf("answer %+v from %s (%v), want %+v from %s", got, sender, err, want, to)
		}
	}
}

func TestForgeriesChangeNothing(t *testing.T) {
	nodes := tapNodes(t, 0, "a", "b", "c", "stranger")
	a, b, c, stranger := nodes[0], nodes[1], nodes[2], nodes[3]
	ma, mb := a.meter(t, b, c), b.meter(t, a)
	a.attach(t, ma)
	b.attach(t, mb)
	fromA, fromB, fromC := a.socket(t, a.v4), b.socket(t, b.v4), c.socket(t, c.v4)
	answer := func(nonce uint64) []byte { return Packet{Kind: AnsweredByKernel, Nonce: nonce}.Append(nil) }

	measure(t, ma, fromA, b.v4, 100)
	// Each line is one datagram to a, which must neither give a sample nor end probe 200.
	if err := ma.Expect(200, b.v4); err != nil {
		t.Fatal(err)
	}
	send(t, fromB, a.v4, answer(100))                        // replayed
	send(t, fromB, a.v4, answer(12345))                      // never asked for
	send(t, fromC, a.v4, answer(200))                        // a member, but not the one asked
	send(t, fromB, a.v4, answer(200))                        // before it was sent: to the socket
	send(t, fromB, a.v4, answer(200)[:PacketSize-1])         // truncated: to the socket
	send(t, fromB, a.v4, append(answer(200), 0))             // too long: to the socket
	send(t, stranger.socket(t, stranger.v4), a.v4, probe(1)) // a probe of no member
	for _, n := range []int{PacketSize, PacketSize - 1, PacketSize + 1} {
		buf := make([]byte, 100)
		got, _, err := fromA.ReadFromUDPAddrPort(buf)
		if err != nil || got != n {
			t.Errorf("socket got %d bytes (%v), want %d", got, err, n)
		}
	}
	want := Stats{Stamped: 1, Measured: 1, Unknown: 2, WrongPeer: 1, Unstamped: 1, Stranger: 1}
	got := stats(t, ma)
	for end := time.Now().Add(patience); got != want && time.Now().Before(end); got = stats(t, ma) {
		runtime.Gosched() // the three senders' links may deliver in any order
	}
	if got != want {
		t.Errorf("a counted %+v, want %+v", got, want)
	}

	// Now the probe that was announced goes out, and its own answer is the next sample.
	send(t, fromA, b.v4, probe(200))
	ma.ring.SetDeadline(time.Now().Add(patience))
	if s, err := ma.Read(); err != nil || s.Nonce != 200 || s.Peer != b.v4 {
		t.Errorf("after the forgeries: sample %+v, %v; want of probe 200", s, err)
	}
	measure(t, ma, fromA, b.v4, 300)
}

// A probe that nobody announced is not stamped, and its answer is not believed.
func TestUnannouncedProbe(t *testing.T) {
	a, b := vethPair(t)
	ma, mb := a.meter(t, b), b.meter(t, a)
	a.attach(t, ma)
	b.attach(t, mb)
	c := a.socket(t, a.v4)
	send(t, c, b.v4, probe(7))
	if err := ma.Expect(8, b.v4); err != nil {
		t.Fatal(err)
	}
	if err := ma.Forget(8); err != nil {
		t.Fatal(err)
	}
	send(t, c, b.v4, probe(8))
	measure(t, ma, c, b.v4, 9)
	if got, want := stats(t, ma), (Stats{Stamped: 1, Measured: 1, Unknown: 2}); got != want {
		t.Errorf("a counted %+v, want %+v", got, want)
	}
}

// A probe that was sent otherwise, as by an agent for which no Sender could be had, is answered, and
// left to user space.
func TestUnstampedProbe(t *testing.T) {
	a, b := vethPair(t)
	ma, mb := a.meter(t, b), b.meter(t, a)
	a.attach(t, ma)
	b.attach(t, mb)
	for i, from := range []netip.Addr{a.v4, a.v6} {
		nonce, to := uint64(i), []netip.Addr{b.v4, b.v6}[i]
		if err := ma.Expect(nonce, to); err != nil {
			t.Fatal(err)
		}
		c := a.socket(t, from)
		if _, err := c.WriteToUDPAddrPort(probe(nonce), netip.AddrPortFrom(to, Port)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, _, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := Parse(buf[:n]); err != nil || p.Nonce != nonce || p.Kind != AnsweredByKernel {
			t.Errorf("received %+v (%v), want the answer to probe %d", p, err, nonce)
		}
	}
	if got, want := stats(t, ma), (Stats{Unstamped: 2}); got != want {
		t.Errorf("a counted %+v, want %+v", got, want)
	}
}

// A member that has left is a stranger.
func TestMembersLeave(t *testing.T) {
	a, b := vethPair(t)
	ma, mb := a.meter(t, b), b.meter(t, a)
	a.attach(t, ma)
	b.attach(t, mb)
	c := a.socket(t, a.v4)
	measure(t, ma, c, b.v4, 1)
	if err := mb.SetMembers([]netip.Addr{b.v4}, nil); err != nil {
		t.Fatal(err)
	}
	if err := ma.Expect(2, b.v4); err != nil {
		t.Fatal(err)
	}
	send(t, c, b.v4, probe(2))
	for end := time.Now().Add(patience); stats(t, mb).Stranger == 0; runtime.Gosched() { // it is on its way
		if time.Now().After(end) {
			t.Fatal("the probe of one who left is not counted")
		}
	}
	if err := mb.SetMembers([]netip.Addr{b.v4}, []netip.Addr{a.v4}); err != nil {
		t.Fatal(err)
	}
	measure(t, ma, c, b.v4, 3)
	if got, want := stats(t, mb), (Stats{Answered: 2, Stranger: 1}); got != want {
		t.Errorf("b counted %+v, want %+v", got, want)
	}
}

func TestAttachRefuses(t *testing.T) {
	a, b := vethPair(t)
	ma := a.meter(t, b)
	a.in(t, func() error {
		if err := ma.SetInterfaces([]int{1 /* lo: no ethernet */, 4711, a.index}); err == nil {
			t.Error("no error for the loopback device and for one that does not exist")
		}
		return nil
	})
	if ma.Attached(1) || ma.Attached(4711) || !ma.Attached(a.index) {
		t.Error("a refused device keeps the others from being attached")
	}
}

func TestReadAfterClose(t *testing.T) {
	m, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := m.Read()
		ended <- err
	}()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read after Close: %v, want os.ErrClosed", err)
	}
}
