package measure

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netns"

	"github.com/drover-project/drover/bpf/routetime"
	"github.com/drover-project/drover/hack/lab/fabric"
	"github.com/drover-project/drover/internal/metricstest"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/test/netspace"
)

// routeNet is a few nodes, each a network namespace with a TAP on the lab's fabric.
type routeNet struct {
	fabric  *fabric.Switch
	spaces  map[model.NodeID]netns.NsHandle
	address map[model.NodeID]netip.Addr
}

func newRouteNet(t *testing.T, nodes ...model.NodeID) *routeNet {
	t.Helper()
	return newRouteNetOf(t, netip.MustParsePrefix("10.233.0.0/24"), nodes...)
}

// newRouteNetOf numbers the nodes in the prefix, of IPv4 or IPv6.
func newRouteNetOf(t *testing.T, prefix netip.Prefix, nodes ...model.NodeID) *routeNet {
	t.Helper()
	n := &routeNet{spaces: map[model.NodeID]netns.NsHandle{}, address: map[model.NodeID]netip.Addr{}}
	var ports []fabric.Port
	for i, id := range nodes {
		last := byte(i + 1)
		number := prefix.Addr().AsSlice()
		number[len(number)-1] = last
		n.address[id], _ = netip.AddrFromSlice(number)
		n.spaces[id] = netspace.Make(t)
		in(t, n.spaces[id], func() error {
			file, err := fabric.OpenTAP("eth0", net.HardwareAddr{2, 0, 0, 0, 2, last})
			if err != nil {
				return err
			}
			ports = append(ports, fabric.Port{Name: string(id), File: file})
			return netspace.Up("eth0", netip.PrefixFrom(n.address[id], prefix.Bits()))
		})
	}
	n.fabric = netspace.Connect(t, 0, ports)
	return n
}

func (n *routeNet) delay(t *testing.T, a, b string, oneWay time.Duration) {
	t.Helper()
	if err := n.fabric.SetDelay(a, b, oneWay); err != nil {
		t.Fatal(err)
	}
}

// run starts a Routes on the node, with all others as peers.
func (n *routeNet) run(t *testing.T, id model.NodeID, open func() (*routetime.Meter, error)) *Routes {
	t.Helper()
	r := NewRoutes(RoutesConfig{Address: n.address[id], Interval: 10 * time.Millisecond,
		Window: time.Second, Open: open, Log: slog.New(slog.DiscardHandler)})
	n.start(t, id, r)
	return r
}

func (n *routeNet) start(t *testing.T, id model.NodeID, r *Routes) {
	t.Helper()
	r.SetPeers(n.address)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- netspace.In(n.spaces[id], func() error { return r.Run(ctx) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run on %s: %v", id, err)
		}
	})
}

// until waits for something that must come; how long it takes is not what is tested.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for patience := time.After(30 * time.Second); !holds(); {
		select {
		case <-tick.C:
		case <-patience:
			t.Fatalf("in vain: %s", what)
		}
	}
}

// metric gives the value of one series, or 0 when there is none.
func metric(t *testing.T, c prometheus.Collector, name string, labels ...string) float64 {
	t.Helper()
	for _, m := range metricstest.Family(t, c, name) {
		var got []string
		for _, l := range m.GetLabel() {
			got = append(got, l.GetName(), l.GetValue())
		}
		slices.Sort(got)
		want := slices.Sorted(slices.Values(labels))
		if slices.Equal(got, want) {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return 0
}
