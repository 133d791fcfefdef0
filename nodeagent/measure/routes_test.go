package measure

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/bpf/routetime"
	"github.com/drover-project/drover/hack/lab/fabric"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/test/netspace"
)

func refuse() (*routetime.Meter, error) { return nil, errors.New("no programs in this test") }

func TestRoutesInTheKernel(t *testing.T) {
	for name, prefix := range map[string]string{"IPv4": "10.233.0.0/24", "IPv6": "fd00:f::/64"} {
		t.Run(name, func(t *testing.T) { routesInTheKernel(t, netip.MustParsePrefix(prefix)) })
	}
}

func routesInTheKernel(t *testing.T, prefix netip.Prefix) {
	n := newRouteNetOf(t, prefix, "a", "b", "c")
	n.delay(t, "a", "b", 3*time.Millisecond)
	n.delay(t, "a", "c", 9*time.Millisecond)
	a := n.run(t, "a", routetime.Open)
	n.run(t, "b", routetime.Open)
	n.run(t, "c", routetime.Open)

	until(t, "kernel-stamped routes to b and c", func() bool {
		s := a.Snapshot()
		return len(s) == 2 && s["b"].Stamp == model.StampKernel && s["b"].Samples >= 10 &&
			s["c"].Stamp == model.StampKernel && s["c"].Samples >= 10
	})
	s := a.Snapshot()
	t.Logf("b %+v\nc %+v", s["b"], s["c"])
	if s["b"].RTT < 6*time.Millisecond || s["c"].RTT < 18*time.Millisecond {
		t.Errorf("b %v, c %v: sooner than twice the delays 3ms and 9ms", s["b"].RTT, s["c"].RTT)
	}
	if a.Stamp() != model.StampKernel {
		t.Errorf("Stamp: %s", a.Stamp())
	}

	n.delay(t, "a", "b", 30*time.Millisecond)
	until(t, "the new delay to b in its route time", func() bool { return a.Snapshot()["b"].RTT >= 60*time.Millisecond })

	n.delay(t, "a", "b", fabric.Cut)
	until(t, "no route to b once the link is cut", func() bool { _, known := a.Snapshot()["b"]; return !known })
	until(t, "lost probes to b", func() bool {
		return metric(t, a, "drover_route_probes_total", "peer", "b", "result", "lost") > 0
	})
	if _, known := a.Snapshot()["c"]; !known {
		t.Error("the route to c went with the one to b")
	}
	n.delay(t, "a", "b", 0)
	until(t, "the route to b again", func() bool { _, known := a.Snapshot()["b"]; return known })
}

// With or without the kernel on either side there is a route time, and it says what it is.
func TestRoutesInUserSpace(t *testing.T) {
	for _, c := range []struct {
		name, prefix string
		a, b         func() (*routetime.Meter, error)
	}{
		{"neither", "10.233.0.0/24", refuse, refuse},
		{"only the origin", "10.233.0.0/24", routetime.Open, refuse},
		{"only the peer", "10.233.0.0/24", refuse, routetime.Open},
		{"neither, IPv6", "fd00:f::/64", refuse, refuse},
		{"only the origin, IPv6", "fd00:f::/64", routetime.Open, refuse},
		{"only the peer, IPv6", "fd00:f::/64", refuse, routetime.Open},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newRouteNetOf(t, netip.MustParsePrefix(c.prefix), "a", "b")
			n.delay(t, "a", "b", 2*time.Millisecond)
			a := n.run(t, "a", c.a)
			n.run(t, "b", c.b)
			until(t, "a route to b", func() bool { return a.Snapshot()["b"].Samples >= 10 })
			if got := a.Snapshot()["b"]; got.Stamp != model.StampUser || got.RTT < 4*time.Millisecond {
				t.Errorf("route %+v, want stamped in user space, at least 4ms", got)
			}
			if got := metric(t, a, "drover_route_window_samples", "peer", "b", "stamp", "user"); got < 10 {
				t.Errorf("%v samples in the metrics", got)
			}
		})
	}
}

func TestRoutesFollowPeers(t *testing.T) {
	n := newRouteNet(t, "a", "b", "c")
	a, b := n.run(t, "a", routetime.Open), n.run(t, "b", refuse)
	c := n.run(t, "c", refuse)
	until(t, "routes to b and c", func() bool { return len(a.Snapshot()) == 2 })

	// b has never heard of c, so it answers a alone.
	b.SetPeers(map[model.NodeID]netip.Addr{"a": n.address["a"]})
	until(t, "a stranger counted at b", func() bool {
		return metric(t, b, "drover_route_packets_total", "handler", "user", "outcome", "stranger") > 0
	})
	until(t, "no route from c to b", func() bool { _, known := c.Snapshot()["b"]; return !known })

	a.SetPeers(map[model.NodeID]netip.Addr{"c": n.address["c"], "a": n.address["a"], "bad": {}})
	if _, known := a.Snapshot()["c"]; !known {
		t.Error("the route to c was lost by taking b away")
	}
	if len(a.Snapshot()) != 1 {
		t.Errorf("routes %v, want c alone", a.Snapshot())
	}
	a.SetPeers(n.address)
	until(t, "routes to b and c again", func() bool { return len(a.Snapshot()) == 2 })
}

// What comes in on the socket and is no answer to a probe of ours changes no route.
func TestRoutesRefuse(t *testing.T) {
	n := newRouteNet(t, "a", "b")
	a := n.run(t, "a", refuse)
	until(t, "a probe sent", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.flights.byNonce) > 0
	})
	a.mu.Lock()
	var nonce uint64
	for nonce = range a.flights.byNonce {
	}
	a.mu.Unlock()
	err := netspace.In(n.spaces["b"], func() error {
		other, err := net.ListenUDP("udp4", nil) // of a peer, but not from the port
		if err != nil {
			return err
		}
		defer other.Close()
		to := netip.AddrPortFrom(n.address["a"], routetime.Port)
		for _, b := range [][]byte{
			{}, []byte("hello"),
			routetime.Packet{Kind: 9}.Append(nil),
			routetime.Packet{Kind: routetime.Probe}.Append(nil),
			routetime.Packet{Kind: routetime.AnsweredByUser, Nonce: nonce + 1}.Append(nil),
		} {
			if _, err := other.WriteToUDPAddrPort(b, to); err != nil {
				return err
			}
		}
		// From one of the ports, but to one that answers alone go to.
		member, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(n.address["b"], routetime.Port)))
		if err != nil {
			return err
		}
		defer member.Close()
		_, err = member.WriteToUDPAddrPort(routetime.Packet{Kind: routetime.Probe}.Append(nil),
			netip.AddrPortFrom(n.address["a"], routetime.Port+1))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for outcome, want := range map[string]float64{"dropped": 2, "malformed": 1, "stranger": 2, "unknown": 1} {
		until(t, outcome, func() bool {
			return metric(t, a, "drover_route_packets_total", "handler", "user", "outcome", outcome) == want
		})
	}
	if len(a.Snapshot()) > 0 {
		t.Errorf("routes %v from nothing", a.Snapshot())
	}
}

func TestLandTwice(t *testing.T) {
	r := NewRoutes(RoutesConfig{Address: netip.MustParseAddr("10.0.0.1"), Interval: time.Second, Window: time.Minute})
	b, c := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	r.SetPeers(map[model.NodeID]netip.Addr{"b": b, "c": c})
	r.flights.byNonce[1] = flight{b, 0, time.Now()}
	rtt := func(time.Time) time.Duration { return time.Millisecond }
	if r.land(1, c, model.StampUser, rtt) || r.land(2, b, model.StampUser, rtt) {
		t.Error("an answer from another address, or with another nonce, was taken")
	}
	if !r.land(1, b, model.StampUser, rtt) || r.land(1, b, model.StampUser, rtt) {
		t.Error("an answer must be taken once")
	}
	if got := r.Snapshot(); len(got) != 1 || got["b"].Samples != 1 {
		t.Errorf("routes %v, want one sample of b", got)
	}
}

// ring gives what is in it once.
type ring struct {
	samples []routetime.Sample
	bad     []error
	err     error
}

func (g *ring) Samples() ([]routetime.Sample, []error, error) { return g.samples, g.bad, g.err }

// A record that cannot be is passed over: counted each time, logged once, and no reason to end.
func TestAnImpossibleSampleEndsNothing(t *testing.T) {
	var log bytes.Buffer
	r := NewRoutes(RoutesConfig{Address: netip.MustParseAddr("10.0.0.1"), Interval: time.Second, Window: time.Minute,
		Log: slog.New(slog.NewTextHandler(&log, nil))})
	b := netip.MustParseAddr("10.0.0.2")
	r.SetPeers(map[model.NodeID]netip.Addr{"b": b})
	for nonce := range uint64(2) {
		r.flights.byNonce[nonce] = flight{b, 0, time.Now()}
		g := ring{
			samples: []routetime.Sample{{Peer: b, Nonce: nonce, RTT: time.Millisecond, Answered: routetime.AnsweredByKernel}},
			bad:     []error{errors.New("a sample of 2^63 ns"), errors.New("a sample of kind 99")},
		}
		if err := r.take(&g); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.Snapshot()["b"]; got.Samples != 2 || got.RTT != time.Millisecond {
		t.Errorf("%+v, want the two samples that can be", got)
	}
	if got := metric(t, r, "drover_route_packets_total", "handler", "user", "outcome", "impossible"); got != 4 {
		t.Errorf("%v counted, want 4", got)
	}
	if got := strings.Count(log.String(), "2^63"); got != 1 {
		t.Errorf("told %d times, want once:\n%s", got, &log)
	}
	if err := r.take(&ring{err: os.ErrClosed}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a ring that is gone: %v", err)
	}
}

// The programs are closed when the run is over, and not before: what a round that just begins meets then is no fault.
func TestProbingEndsWithTheRun(t *testing.T) {
	meter, err := routetime.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := meter.Close(); err != nil {
		t.Fatal(err)
	}
	r := &Routes{config: RoutesConfig{Interval: RouteInterval, Window: RouteWindow}}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // a round that is due and the end of the run come together: either is seen
		if err := r.probe(over, nil, meter); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.probe(t.Context(), nil, meter); !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v while the run goes on, want %v", err, os.ErrClosed)
	}
}

func TestRoutesConfigRefused(t *testing.T) {
	good := RoutesConfig{Address: netip.MustParseAddr("127.0.0.1"), Interval: RouteInterval, Window: RouteWindow, Open: refuse}
	for want, spoil := range map[string]func(*RoutesConfig){
		"interval 0s":     func(c *RoutesConfig) { c.Interval = 0 },
		"window 1ms":      func(c *RoutesConfig) { c.Window = time.Millisecond },
		"invalid IP":      func(c *RoutesConfig) { c.Address = netip.Addr{} },
		"0.0.0.0":         func(c *RoutesConfig) { c.Address = netip.IPv4Unspecified() },
		"listen on udp 1": func(c *RoutesConfig) { c.Address = netip.MustParseAddr("192.0.2.1") },
	} {
		config := good
		spoil(&config)
		if err := NewRoutes(config).Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// Peers are said every second. Only other ones make Run look for the devices towards them.
func TestSamePeersAreNoChange(t *testing.T) {
	r := NewRoutes(RoutesConfig{Address: netip.MustParseAddr("10.0.0.1"), Interval: RouteInterval, Window: RouteWindow})
	b, c := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	for _, set := range []struct {
		peers map[model.NodeID]netip.Addr
		want  bool
	}{
		{map[model.NodeID]netip.Addr{"b": b}, true},
		{map[model.NodeID]netip.Addr{"b": b}, false},
		{map[model.NodeID]netip.Addr{"b": c}, true},
		{map[model.NodeID]netip.Addr{"b": b, "c": c}, true},
		{map[model.NodeID]netip.Addr{"b": b, "c": c, "self": r.config.Address}, false},
		{nil, true},
	} {
		r.SetPeers(set.peers)
		told := len(r.changed) == 1
		if told {
			<-r.changed
		}
		if told != set.want {
			t.Errorf("peers %v: a change %t, want %t", set.peers, told, set.want)
		}
	}
}

func TestProbesAreSpread(t *testing.T) {
	for probes, want := range map[int]struct {
		together int
		pause    time.Duration
	}{
		0: {0, RouteInterval}, 1: {1, RouteInterval}, 4: {4, RouteInterval},
		5: {3, RouteInterval / 2}, 64: {4, RouteInterval / 16},
		1000: {4, 4 * time.Millisecond}, // 1000 a second
	} {
		if together, pause := spread(probes, RouteInterval); together != want.together || pause != want.pause {
			t.Errorf("%d probes: %d together every %v, want %d every %v", probes, together, pause, want.together, want.pause)
		}
	}
}
