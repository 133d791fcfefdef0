package edges

import (
	"cmp"
	"iter"
	"math"
	"slices"

	"github.com/drover-project/drover/internal/model"
)

const (
	// mostPeers is how many peers of one workload are of use, mostHosts how many nodes of its pods.
	mostPeers = 16
	mostHosts = 32
)

// Index is what all nodes' edges and ends say together. It is never changed once it was made, and
// reading it makes nothing; a nil one knows nobody.
type Index struct {
	ids   map[model.Workload]int
	names []model.Workload
	peers [][]Peer // by ID, like hosts
	hosts [][]Host
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
	x := &Index{ids: map[model.Workload]int{}}
	sums := map[[2]int]float64{}
	for s := range states {
		for _, e := range s.Edges {
			sums[[2]int{x.id(e.Local), x.id(e.Remote)}] += float64(e.Volume)
		}
		for _, e := range s.Ends {
			x.host(x.id(e.Workload), s.Node)
		}
	}
	for p, volume := range sums {
		local, remote := p[0], p[1]
		if local == remote {
			x.peers[local] = append(x.peers[local], Peer{x.names[local], volume})
			continue
		}
		if more := sums[[2]int{remote, local}]; more > volume || more == volume && remote < local {
			continue
		}
		x.peers[local] = append(x.peers[local], Peer{x.names[remote], volume})
		x.peers[remote] = append(x.peers[remote], Peer{x.names[local], volume})
	}
	for i := range x.names {
		x.peers[i], x.hosts[i] = shares(x.peers[i]), fewest(x.hosts[i])
	}
	return x
}

// id gives a number to a workload.
func (x *Index) id(w model.Workload) int {
	i, known := x.ids[w]
	if !known {
		i = len(x.names)
		x.ids[w], x.names = i, append(x.names, w)
		x.peers, x.hosts = append(x.peers, nil), append(x.hosts, nil)
	}
	return i
}

// host counts a pod. Those of one node follow each other.
func (x *Index) host(id int, node model.NodeID) {
	all := x.hosts[id]
	if last := len(all) - 1; last >= 0 && all[last].Node == node {
		all[last].Pods++
		return
	}
	x.hosts[id] = append(all, Host{node, 1})
}

// shares turns volumes into shares of all, the greatest first, and leaves out the least.
func shares(all []Peer) []Peer {
	slices.SortFunc(all, func(a, b Peer) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Workload, b.Workload))
	})
	sum := 0.0
	for _, p := range slices.Backward(all) {
		sum += p.Share
	}
	if len(all) > mostPeers {
		all = slices.Clone(all[:mostPeers])
	}
	for i := range all {
		all[i].Share /= sum
	}
	return all
}

// fewest leaves of hosts those with most pods.
func fewest(all []Host) []Host {
	slices.SortFunc(all, func(a, b Host) int {
		return cmp.Or(cmp.Compare(b.Pods, a.Pods), cmp.Compare(Lot(a.Node), Lot(b.Node)), cmp.Compare(a.Node, b.Node))
	})
	if len(all) > mostHosts {
		all = slices.Clone(all[:mostHosts])
	}
	return all
}

// Lot orders equal nodes, the same way always: names often tell of zones, each of which is to be as
// frequent as it is. The last letters of a name change few bits of an FNV hash, hence the multiplication.
func Lot(id model.NodeID) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	return h ^ h>>33
}

// Heaviest leaves of nodes with weights those of the greatest, so many at most; of equal ones lots decide. Weights
// that are not greater than 0 or not finite are left out.
func Heaviest(weights map[model.NodeID]float64, most int) map[model.NodeID]float64 {
	type weighed struct {
		id     model.NodeID
		weight float64
		lot    uint64
	}
	all := make([]weighed, 0, len(weights))
	for id, weight := range weights {
		if weight > 0 && !math.IsInf(weight, 0) {
			all = append(all, weighed{id, weight, Lot(id)})
		}
	}
	slices.SortFunc(all, func(a, b weighed) int {
		return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.lot, b.lot), cmp.Compare(a.id, b.id))
	})
	kept := make(map[model.NodeID]float64, min(most, len(all)))
	for _, w := range all[:min(most, len(all))] {
		kept[w.id] = w.weight
	}
	return kept
}

// Peers of a workload, those first that it carries most with. The caller does not change them.
func (x *Index) Peers(of model.Workload) []Peer {
	if x == nil {
		return nil
	}
	if i, known := x.ids[of]; known {
		return x.peers[i]
	}
	return nil
}

// Hosts of a workload's pods, those first that have most. The caller does not change them.
func (x *Index) Hosts(of model.Workload) []Host {
	if x == nil {
		return nil
	}
	if i, known := x.ids[of]; known {
		return x.hosts[i]
	}
	return nil
}
