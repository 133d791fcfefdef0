package gossip

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/gossip"
	"github.com/drover-project/drover/internal/gossip/gossiptest"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/model"
)

// member is one node's gossip, Drover's or what it is compared with.
type member interface {
	// run takes part until ctx ends.
	run(ctx context.Context) error
	// tell is called once a second; changed: the load has left its dead band since.
	tell(changed bool) error
	announce(l model.Location) error
	// picture is a digest of what the member holds of each node, itself left out, and of
	// the locations; equal pictures have equal digests.
	picture() (nodes []uint64, locations uint64)
	// lives calls yield for each node that the member knows, until it returns false.
	lives(yield func(node int, alive bool) bool)
}

// heard is what a member has taken in: a report, or an announcement of a location.
type heard func(member int, kind kind, origin int, version uint64, bytes int)

type kind int

const (
	report kind = iota
	location
	told // reports, since they were told: a change may have to wait for that
	other
)

// maker makes the member with this number.
type maker func(i int, seeds func() []string, p *gossiptest.Port, h heard) (member, error)

var key = []byte("0123456789abcdef0123456789abcdef")

func nodeName(i int) model.NodeID { return model.NodeID(fmt.Sprintf("node-%05d.example.internal", i)) }

func nodeNumber(id model.NodeID) int {
	n := 0
	for _, c := range id[len("node-"):min(len(id), len("node-00000"))] {
		n = n*10 + int(c-'0')
	}
	return n
}

// drover makes members of internal/gossip, each with a key and a certificate of its own.
func drover(t testing.TB, n int, seed uint64, told detail) maker {
	ca := identitytest.NewAuthority(t)
	pool, verifier := ca.Pool(), gossiptest.NewVerifier()
	shared, err := gossip.NewShared()
	if err != nil {
		t.Fatal(err)
	}
	return func(i int, seeds func() []string, p *gossiptest.Port, h heard) (member, error) {
		id := ca.Node(t, nodeName(i))
		d := &node{rng: rand.New(rand.NewPCG(seed, uint64(i)+1000)), state: firstState(i, n, told)}
		var err error
		d.Gossip, err = gossip.New(gossip.Config{
			Self: id.Subject, Identity: func() *identity.Identity { return id }, Roots: pool, SecretKey: key, Transport: p,
			Seeds: func(context.Context) ([]string, error) { return seeds(), nil },
			Simulation: &gossip.Simulation{Verifier: verifier, Shared: shared, DrawSpace: told.draws, Accepted: func(r gossip.Record) {
				h(i, kindOf(r.Kind), nodeNumber(r.Origin), r.Version, r.Bytes)
			}},
		})
		return d, err
	}
}

func kindOf(name string) kind {
	switch name {
	case "state", "load":
		return report
	case "location":
		return location
	}
	return other
}

// node is an agent as far as gossip sees it.
type node struct {
	*gossip.Gossip
	rng   *rand.Rand
	state model.NodeState
}

func (d *node) run(ctx context.Context) error { return d.Run(ctx) }

func (d *node) announce(l model.Location) error { return d.Announce(l) }

const cores = 16

// detail is of how many others a node tells the route times, and how many pods, all told
// once, and how often members draw pictures.
type detail struct {
	peers, pods int
	draws       time.Duration
}

var much = detail{peers: 12, pods: 20, draws: time.Second}

// atRest is what clusters do with that nothing happens to, so that large ones fit into memory: once
// told it costs no more than its place among what members compare, of which they tell each
// other a packet's worth however much there is; and nobody looks at the pictures.
func atRest(nodes int) detail {
	const packetful = 500
	if nodes > packetful {
		return detail{draws: time.Hour}
	}
	return detail{peers: 2, pods: 2, draws: time.Hour}
}

// firstState is what a node tells first: routes to as many others as it probes in a cluster of n.
func firstState(i, n int, told detail) model.NodeState {
	s := model.NodeState{
		Address: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), PodAddress: fmt.Sprintf("10.244.%d.%d", i>>8&255, i&255),
		BootID: fmt.Sprintf("4e1c7f6a-0d0b-4c5f-9c1e-%012d", i),
		CPU:    model.CPU{Architecture: "amd64", Features: "3fffbfeb2c8bffff0f"},
		Load: model.Load{
			Allocatable: model.Resources{CPU: cores, Memory: 64 * model.GiB},
			Requested:   model.Resources{CPU: 7.25, Memory: 31 * model.GiB},
			Used:        model.Resources{CPU: 4, Memory: 24 * model.GiB},
			Pressures:   map[model.Resource]float64{model.OnCPU: 0.02, model.OnMemory: 0, model.OnIO: 0.01}, Pressure: 0.02,
		},
		Bandwidth: &model.Bandwidth{Sent: 3e6, Received: 5e6, Capacity: 1.25e9},
		Routes:    map[model.NodeID]model.RouteTime{}, PodRoutes: map[model.NodeID]model.RouteTime{},
	}
	for p := range told.pods {
		s.Pods = append(s.Pods, model.PodID{Namespace: "shop", Name: fmt.Sprintf("cart-6f7c9d5b8-%05d", 100*i+p), UID: fmt.Sprintf("%08x-3f0b-4a77-9d8e-%012d", 7919*(100*i+p), p)})
	}
	for step, peers := 1, 0; peers < min(n-1, told.peers); step, peers = step+1+peers, peers+1 {
		if step%n == 0 {
			continue
		}
		rtt := time.Duration(300+37*step%900) * time.Microsecond
		r := model.RouteTime{RTT: rtt, Spread: rtt / 20, Samples: 300, Stamp: model.StampKernel}
		s.Routes[nodeName((i+step)%n)] = r
		r.RTT += 40 * time.Microsecond
		s.PodRoutes[nodeName((i+step)%n)] = r
	}
	return s
}

// tell publishes what has moved a little, within the dead bands; when changed, the CPU in use
// has moved by a tenth of the node's and more.
func (d *node) tell(changed bool) error {
	if d.state.Load.At.IsZero() {
		d.state.Load.At = time.Now()
	}
	now := time.Now()
	s := d.state
	s.Load.At = now
	if changed {
		level := float64(d.state.Load.Used.CPU)
		level += cores * (0.1 + 0.3*d.rng.Float64())
		if level > cores {
			level -= 0.9 * cores
		}
		d.state.Load.Used.CPU = model.Cores(level)
	}
	s.Load.Used.CPU = d.state.Load.Used.CPU + model.Cores(0.01*cores*(d.rng.Float64()-0.5))
	s.Load.Used.Memory += model.Bytes(d.rng.Float64() * 0.005 * float64(64*model.GiB))
	return d.Publish(s)
}

func (d *node) picture() (nodes []uint64, locations uint64) {
	s := d.Snapshot()
	digest := func(v ...any) uint64 {
		h := fnv.New64a()
		fmt.Fprint(h, v...)
		return h.Sum64()
	}
	for id, n := range s.Nodes {
		i := nodeNumber(id)
		for len(nodes) <= i {
			nodes = append(nodes, 0)
		}
		if id != s.Self {
			l := n.State.Load
			nodes[i] = digest(n.Alive, n.State.BootID, l.Allocatable, l.Requested, l.Used, l.Pressure, l.At.UnixNano(), len(n.State.Routes), len(n.State.PodRoutes), len(n.State.Pods))
		}
	}
	return nodes, digest(s.Locations)
}

func (d *node) lives(yield func(node int, alive bool) bool) {
	for id, n := range d.Snapshot().Nodes {
		if !yield(nodeNumber(id), n.Alive) {
			return
		}
	}
}
