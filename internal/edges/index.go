package edges

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"github.com/drover-project/drover/internal/model"
)

// mostPeers is how many peers of one workload are of use.
const mostPeers = 16

// Index is what all nodes' edges and ends say together. It is never changed once it was made, and
// reading it makes nothing; a nil one knows nobody.
type Index struct {
	peers map[model.Workload][]Peer
	hosts map[model.Workload][]Host
}

// Peer is a workload that another one talks to.
type Peer struct {
	model.Workload
	// Share (0..1) of all that the other's pods were seen to carry.
	Share float64
}

// Host is a node, and how many pods of a workload it has that talk.
type Host struct {
	Node model.NodeID
	Pods int
}

// NewIndex sums up what nodes say. What two workloads carry is said of both ends, by the nodes
// that either's pods are on, and neither may know all: a client of a Service sees the Service's address
// alone, and what a node knew is gone with it. So the end counts that has seen more, and no
// byte counts twice. Where a workload talks to itself, what each of its pods carries counts.
func NewIndex(states iter.Seq[*model.NodeState]) *Index {
	sums := map[pair]float64{}
	x := &Index{peers: map[model.Workload][]Peer{}, hosts: map[model.Workload][]Host{}}
	for s := range states {
		for _, e := range s.Edges {
			sums[pair{e.Local, e.Remote}] += float64(e.Volume)
		}
		pods := map[model.Workload]int{}
		for _, e := range s.Ends {
			pods[e.Workload]++
		}
		for w, n := range pods {
			x.hosts[w] = append(x.hosts[w], Host{s.Node, n})
		}
	}
	for p, volume := range sums {
		other := pair{p.remote, p.local}
		if p == other {
			x.peers[p.local] = append(x.peers[p.local], Peer{p.local, volume})
			continue
		}
		if more := sums[other]; more > volume || more == volume && comparePairs(other, p) < 0 {
			continue
		}
		x.peers[p.local] = append(x.peers[p.local], Peer{p.remote, volume})
		x.peers[p.remote] = append(x.peers[p.remote], Peer{p.local, volume})
	}
	for w, all := range x.peers {
		x.peers[w] = shares(all)
	}
	for _, all := range x.hosts {
		slices.SortFunc(all, func(a, b Host) int { return strings.Compare(string(a.Node), string(b.Node)) })
	}
	return x
}

// shares turns volumes into shares of all, the greatest first, and leaves out the least.
func shares(all []Peer) []Peer {
	slices.SortFunc(all, func(a, b Peer) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), model.CompareWorkloads(a.Workload, b.Workload))
	})
	sum := 0.0
	for _, p := range slices.Backward(all) {
		sum += p.Share
	}
	all = slices.Clone(all[:min(mostPeers, len(all))])
	for i := range all {
		all[i].Share /= sum
	}
	return all
}

// Peers of a workload, those first that it carries most with. The caller does not change them.
func (x *Index) Peers(of model.Workload) []Peer {
	if x == nil {
		return nil
	}
	return x.peers[of]
}

// Hosts of a workload's pods, by name. The caller does not change them.
func (x *Index) Hosts(of model.Workload) []Host {
	if x == nil {
		return nil
	}
	return x.hosts[of]
}
