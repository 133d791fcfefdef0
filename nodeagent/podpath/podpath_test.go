package podpath

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/drover-project/drover/bpf/routetime"
	"github.com/drover-project/drover/hack/lab/fabric"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/measure"
	"github.com/drover-project/drover/test/netspace"
)

// cri is what a container runtime knows: the processes of the containers.
type cri struct {
	mu   sync.Mutex
	pids map[string][]int
}

func (c *cri) add(p *pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pids[p.Container] = []int{p.process.Process.Pid}
}

func (c *cri) of(container string) ([]int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pids[container], nil
}

func from(address netip.Addr) *measure.Routes {
	return measure.NewRoutes(measure.RoutesConfig{Address: address, Interval: 10 * time.Millisecond,
		Window: time.Second, Open: routetime.Open, Log: slog.New(slog.DiscardHandler)})
}

// node is one node's agent, as far as it measures.
type node struct {
	nodePath *measure.Routes
	podPath  *Path
	runtime  *cri
}

func (o *overlay) agent(t *testing.T, id model.NodeID) *node {
	t.Helper()
	n := &node{nodePath: from(o.address[id]), runtime: &cri{pids: map[string][]int{}}}
	n.podPath = New(Config{Proc: "/proc", Processes: n.runtime.of, Routes: from, Log: slog.New(slog.DiscardHandler)})
	n.nodePath.SetPeers(o.address)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- netspace.In(o.spaces[id], func() error { return n.nodePath.Run(ctx) }) }()
	go func() { ended <- netspace.In(o.spaces[id], func() error { return n.podPath.Run(ctx) }) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
	return n
}

func (n *node) pod() map[model.NodeID]model.RouteTime {
	_, routes := n.podPath.Snapshot()
	return routes
}

// sure tells a route time by the kernel's stamps that nothing from before disturbs.
func sure(r model.RouteTime) bool { return r.Stamp == model.StampKernel && r.Samples >= 10 }

// Both paths are measured at the same time, each by what lies on it alone, and the pod path
// follows a companion that is replaced.
func TestBothPaths(t *testing.T) {
	o := newOverlay(t, "a", "b")
	delay := func(device string, oneWay time.Duration) {
		if err := o.fabric.SetDelay("a-"+device, "b-"+device, oneWay); err != nil {
			t.Fatal(err)
		}
	}
	delay("eth0", 2*time.Millisecond)
	delay("eth1", 15*time.Millisecond)
	a, b := o.agent(t, "a"), o.agent(t, "b")
	podA, podB := o.pod(t, "a"), o.pod(t, "b")
	a.runtime.add(podA)
	b.runtime.add(podB)
	follow := func() {
		peers := map[model.NodeID]netip.Addr{"a": podA.Address, "b": podB.Address}
		a.podPath.Follow(podA.Companion, peers)
		b.podPath.Follow(podB.Companion, peers)
	}
	right := func(node, pod time.Duration) func() bool {
		return func() bool {
			follow()
			n, p := a.nodePath.Snapshot()["b"], a.pod()["b"]
			// Each at least what is set, and on its side of the middle.
			return sure(n) && sure(p) && n.RTT >= node && p.RTT >= pod && (n.RTT < (node+pod)/2) == (node < pod) &&
				(p.RTT < (node+pod)/2) == (pod < node)
		}
	}
	until(t, "4 ms by the node path, 30 ms by the pod path", right(4*time.Millisecond, 30*time.Millisecond))
	t.Logf("node path %v, pod path %v", a.nodePath.Snapshot()["b"].RTT, a.pod()["b"].RTT)
	// The same with the delays changed, so that neither is what the other was.
	delay("eth0", 20*time.Millisecond)
	delay("eth1", 3*time.Millisecond)
	until(t, "40 ms by the node path, 6 ms by the pod path", right(40*time.Millisecond, 6*time.Millisecond))
	t.Logf("node path %v, pod path %v", a.nodePath.Snapshot()["b"].RTT, a.pod()["b"].RTT)

	// Cut for pods alone, as by a policy.
	delay("eth1", fabric.Cut)
	until(t, "the pod path gone", func() bool { follow(); _, known := a.pod()["b"]; return !known })
	if !sure(a.nodePath.Snapshot()["b"]) {
		t.Errorf("the node path %+v went with the pod path", a.nodePath.Snapshot()["b"])
	}
	delay("eth1", 3*time.Millisecond)

	// b's companion is replaced: another namespace, another address.
	podB.kill()
	until(t, "no address while there is no companion", func() bool {
		follow()
		address, routes := b.podPath.Snapshot()
		return !address.IsValid() && len(routes) == 0
	})
	podB = o.pod(t, "b")
	b.runtime.add(podB)
	until(t, "the pod path both ways with the new companion", func() bool {
		follow()
		address, _ := b.podPath.Snapshot()
		return address == podB.Address && sure(a.pod()["b"]) && sure(b.pod()["a"])
	})
	b.podPath.Follow(Companion{}, nil)
	until(t, "no address once there is none", func() bool { address, _ := b.podPath.Snapshot(); return !address.IsValid() })
}

// Both may be in one registry, told apart by a label.
func TestPathsInOneRegistry(t *testing.T) {
	o := newOverlay(t, "a")
	a, p := o.agent(t, "a"), o.pod(t, "a")
	a.runtime.add(p)
	registry := prometheus.NewPedanticRegistry()
	for path, c := range map[string]prometheus.Collector{"node": a.nodePath, "pod": a.podPath} {
		prometheus.WrapRegistererWith(prometheus.Labels{"path": path}, registry).MustRegister(c)
	}
	count := func() int {
		n, err := testutil.GatherAndCount(registry, "drover_route_kernel_stamps")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 1 {
		t.Errorf("%d series without a companion, want the node path's", n)
	}
	until(t, "the pod path's series", func() bool { a.podPath.Follow(p.Companion, nil); return count() == 2 })
}

// What cannot be measured from is refused, with what is wrong.
func TestCompanionsThatAreRefused(t *testing.T) {
	o := newOverlay(t, "a")
	there := o.pod(t, "a")
	ended := o.pod(t, "a")
	ended.kill()
	for want, c := range map[string]struct {
		pids    [][]int // as listed one after the other
		address netip.Addr
	}{
		"has no process":                    {pids: [][]int{{}}},
		"no such file":                      {pids: [][]int{{ended.process.Process.Pid}}},
		"ended while it was looked at":      {pids: [][]int{{there.process.Process.Pid}, {}}},
		"the agent's own network namespace": {pids: [][]int{{os.Getpid()}, {os.Getpid()}}},
		"cannot assign requested address":   {pids: [][]int{{there.process.Process.Pid}, {there.process.Process.Pid}}, address: ipv4(9, 9, 9)},
		"is not a node's own address":       {pids: [][]int{{there.process.Process.Pid}, {there.process.Process.Pid}}, address: netip.IPv4Unspecified()},
	} {
		p := New(Config{Proc: "/proc", Routes: from, Processes: func(string) ([]int, error) {
			next := c.pids[0]
			c.pids = c.pids[1:]
			return next, nil
		}})
		err := p.look(t.Context())
		if err != nil {
			t.Fatalf("without a companion: %v", err)
		}
		p.wanted = Companion{Pod: "drover-system/drover-path-x", Container: strings.Repeat("ab", 32), Address: c.address}
		if err = p.look(t.Context()); err == nil {
			err = p.stop() // by itself
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		if address, _ := p.Snapshot(); address.IsValid() {
			t.Errorf("%s: %v is told", want, address)
		}
	}
}
