package fabric

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// node is a network namespace with one TAP on the switch under test.
type node struct {
	name string
	addr netip.Addr
	ns   netns.NsHandle
	port Port
}

// in runs f on a thread that is in the node's namespace, and ends that thread.
func (n *node) in(t testing.TB, f func() error) {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := netns.Set(n.ns); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	if err := <-result; err != nil {
		t.Fatalf("in namespace of %s: %v", n.name, err)
	}
}

// newNode makes a namespace with a TAP of the given name and address that is up.
func newNode(t testing.TB, name string, last byte) *node {
	t.Helper()
	n := &node{name: name, addr: netip.AddrFrom4([4]byte{10, 231, 0, last})}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		var err error
		n.ns, err = netns.New()
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { n.ns.Close() })
	n.plug(t, last)
	return n
}

func (n *node) plug(t testing.TB, last byte) {
	t.Helper()
	n.in(t, func() error {
		f, err := OpenTAP("eth0", net.HardwareAddr{2, 0, 0, 0, 0, last})
		if err != nil {
			return err
		}
		n.port = Port{Name: n.name, File: f}
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: n.addr.AsSlice(), Mask: net.CIDRMask(24, 32)}}
		return errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link))
	})
	t.Cleanup(func() { n.port.File.Close() })
}

func run(t testing.TB, s *Switch) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// echo answers datagrams on the node until the test ends.
func (n *node) echo(t *testing.T) netip.AddrPort {
	c := n.listen(t)
	go func() {
		buf := make([]byte, 64)
		for {
			size, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(buf[:size], from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func (n *node) listen(t *testing.T) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	n.in(t, func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(n.addr, 0)))
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// ping exchanges count datagrams one by one and gives their round trips in ascending
// order. A lost one (there is none but on a full or cut link) ends the test.
func ping(t *testing.T, c *net.UDPConn, to netip.AddrPort, count int) []time.Duration {
	t.Helper()
	var all []time.Duration
	for i := range count {
		rtt, err := pingOnce(c, to, uint32(i), 10*time.Second)
		if err != nil {
			t.Fatalf("ping %d of %s: %v", i, to, err)
		}
		all = append(all, rtt)
	}
	slices.Sort(all)
	return all
}

func pingOnce(c *net.UDPConn, to netip.AddrPort, id uint32, patience time.Duration) (time.Duration, error) {
	out := binary.BigEndian.AppendUint32(nil, id)
	start := time.Now()
	if _, err := c.WriteToUDPAddrPort(out, to); err != nil {
		return 0, err
	}
	if err := c.SetReadDeadline(start.Add(patience)); err != nil {
		return 0, err
	}
	in := make([]byte, 64)
	for {
		n, _, err := c.ReadFromUDPAddrPort(in)
		if err != nil {
			return 0, err
		}
		if slices.Equal(in[:n], out) {
			return time.Since(start), nil
		}
	}
}

func TestDelays(t *testing.T) {
	a, b, c := newNode(t, "a", 1), newNode(t, "b", 2), newNode(t, "c", 3)
	s := New([]Port{a.port, b.port, c.port})
	set(t, s, "a", "b", 3*time.Millisecond)
	set(t, s, "c", "a", 11*time.Millisecond)
	want := map[[2]string]time.Duration{
		{"a", "b"}: 3 * time.Millisecond, {"a", "c"}: 11 * time.Millisecond, {"b", "c"}: 0,
	}
	if diff := cmp.Diff(want, s.Delays()); diff != "" {
		t.Errorf("Delays (-want +got):\n%s", diff)
	}
	run(t, s)
	from, toB, toC := a.listen(t), b.echo(t), c.echo(t)
	// The first exchange also resolves addresses, which takes another round trip.
	ping(t, from, toB, 1)
	ping(t, from, toC, 1)
	rttB, rttC := ping(t, from, toB, 21), ping(t, from, toC, 21)
	t.Logf("a-b min %v median %v, a-c min %v median %v", rttB[0], rttB[10], rttC[0], rttC[10])
	if rttB[0] < 6*time.Millisecond || rttC[0] < 22*time.Millisecond {
		t.Errorf("round trips from a: b %v, c %v, sooner than twice the delays 3ms and 11ms", rttB[0], rttC[0])
	}
	// The best of 21 round trips to the near node is shorter than the far one can be.
	if rttB[0] >= rttC[0] {
		t.Errorf("b is not nearer than c: %v and %v", rttB[0], rttC[0])
	}

	set(t, s, "a", "b", 14*time.Millisecond)
	if rtt := ping(t, from, toB, 3); rtt[0] < 28*time.Millisecond {
		t.Errorf("round trip %v after the delay was raised to 14ms", rtt[0])
	}
}

func TestCutAndRestore(t *testing.T) {
	a, b, c := newNode(t, "a", 1), newNode(t, "b", 2), newNode(t, "c", 3)
	s := New([]Port{a.port, b.port, c.port})
	run(t, s)
	from, toB, toC := a.listen(t), b.echo(t), c.echo(t)
	ping(t, from, toB, 1)
	set(t, s, "b", "a", Cut)
	if d := s.Delays()[[2]string{"a", "b"}]; d != Cut {
		t.Errorf("delay of a cut link: %v", d)
	}
	if rtt, err := pingOnce(from, toB, 1000, 100*time.Millisecond); err == nil {
		t.Errorf("answer over a cut link after %v", rtt)
	}
	ping(t, from, toC, 3) // the other links are whole
	set(t, s, "a", "b", 0)
	ping(t, from, toB, 3)

	var cut uint64
	for _, st := range s.Stats() {
		if st.From == "a" && st.To == "b" {
			cut = st.Cut
		}
	}
	if cut == 0 {
		t.Errorf("no frame counted as cut: %+v", s.Stats())
	}
}

// A link that loses some frames carries the others; one that loses all is as good as cut.
func TestLoss(t *testing.T) {
	a, b := newNode(t, "a", 1), newNode(t, "b", 2)
	s := New([]Port{a.port, b.port})
	run(t, s)
	from, to := a.listen(t), b.echo(t)
	ping(t, from, to, 1)
	lose := func(rate float64) {
		t.Helper()
		if err := s.SetLoss("b", "a", rate); err != nil {
			t.Fatal(err)
		}
	}
	lose(0.5)
	answered, id := 0, uint32(0)
	for ; lost(s, "a", "b") == 0 || lost(s, "b", "a") == 0 || answered == 0; id++ {
		if _, err := pingOnce(from, to, 1000+id, 20*time.Millisecond); err == nil {
			answered++
		}
		if id == 10000 {
			t.Fatalf("%d of %d answered, %+v: want some lost and some not", answered, id, s.Stats())
		}
	}
	lose(1)
	if rtt, err := pingOnce(from, to, 20000, 100*time.Millisecond); err == nil {
		t.Errorf("answer over a link that loses all after %v", rtt)
	}
	lose(0)
	ping(t, from, to, 3)
	for _, rate := range []float64{-0.1, 1.1, math.NaN()} {
		if err := s.SetLoss("a", "b", rate); err == nil {
			t.Errorf("SetLoss %g: no error", rate)
		}
	}
	if err := s.SetLoss("a", "x", 0); err == nil {
		t.Error("SetLoss with a port that is not there: no error")
	}
}

func lost(s *Switch, from, to string) uint64 {
	for _, st := range s.Stats() {
		if st.From == from && st.To == to {
			return st.Lost
		}
	}
	return 0
}

func TestPortComesBack(t *testing.T) {
	a, b := newNode(t, "a", 1), newNode(t, "b", 2)
	s := New([]Port{a.port, b.port})
	set(t, s, "a", "b", time.Millisecond)
	run(t, s)
	from := a.listen(t)
	ping(t, from, b.echo(t), 2)

	// b's namespace dies with its device, and a new one takes its name.
	again := newNode(t, "b", 2)
	b.in(t, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	b.port.File.Close()
	if err := s.Attach(again.port); err != nil {
		t.Fatalf("Attach: %v", err)
	}
	if rtt := ping(t, from, again.echo(t), 3); rtt[0] < 2*time.Millisecond {
		t.Errorf("round trip %v: the delay was lost with the port", rtt[0])
	}

	// A port of a new name joins the running switch.
	c := newNode(t, "c", 3)
	if err := s.Attach(c.port); err != nil {
		t.Fatalf("Attach: %v", err)
	}
	ping(t, from, c.echo(t), 1)
	if got := len(s.Delays()); got != 3 {
		t.Errorf("%d pairs, want 3", got)
	}
}

// A learnt address goes to its own port alone.
func TestLearns(t *testing.T) {
	a, b, c := newNode(t, "a", 1), newNode(t, "b", 2), newNode(t, "c", 3)
	s := New([]Port{a.port, b.port, c.port})
	run(t, s)
	from, to := a.listen(t), b.echo(t)
	ping(t, from, to, 1)
	before := frames(s, "a", "c")
	ping(t, from, to, 50)
	// Nodes chatter by themselves (router solicitations), but not 50 times.
	if after := frames(s, "a", "c"); after-before >= 50 {
		t.Errorf("%d frames for b were flooded to c", after-before)
	}
	if got := frames(s, "a", "b"); got < 51 {
		t.Errorf("%d frames counted from a to b, sent at least 51", got)
	}
}

func TestRefuses(t *testing.T) {
	s := New([]Port{{Name: "a"}, {Name: "b"}})
	for _, pair := range [][2]string{{"a", "x"}, {"x", "a"}, {"a", "a"}} {
		if err := s.SetDelay(pair[0], pair[1], 0); err == nil {
			t.Errorf("SetDelay%v: no error", pair)
		}
	}
	if err := s.SetDelay("a", "b", -time.Hour); err != nil || s.Delays()[[2]string{"a", "b"}] != Cut {
		t.Errorf("negative delay is not Cut: %v, %v", err, s.Delays())
	}
}

func set(t testing.TB, s *Switch, a, b string, d time.Duration) {
	t.Helper()
	if err := s.SetDelay(a, b, d); err != nil {
		t.Fatal(err)
	}
}

func frames(s *Switch, from, to string) uint64 {
	for _, st := range s.Stats() {
		if st.From == from && st.To == to {
			return st.Frames
		}
	}
	return 0
}
