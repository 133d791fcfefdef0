package nodeagent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/traffic"
	"github.com/drover-project/drover/nodeagent/measure"
)

// endpoints says who has which address, as far as the caches of nodes and of the node's own
// pods tell. Pods of other nodes have no names here: reading all pods of the cluster on every
// node would cost the API server more than the names are worth.
type endpoints struct {
	self  model.NodeID
	own   map[netip.Addr]bool // the node's
	pods  map[netip.Addr]model.PodID
	nodes map[netip.Addr]model.NodeID
	ids   map[model.NodeID]bool
	// ranges are the nodes' pods', by prefix; lengths are those of the prefixes.
	ranges  map[netip.Prefix]model.NodeID
	lengths []int
}

// endpoints reads the caches and the node's own addresses anew.
func (a *agent) endpoints(ctx context.Context) (measure.Endpoints, error) {
	pods, err := a.cluster.pods(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the node's pods: %w", err)
	}
	nodes, err := a.cluster.nodes(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the nodes: %w", err)
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the node's own addresses: %w", err)
	}
	e := endpointsOf(model.NodeID(a.cfg.Node), own, pods, nodes)
	a.ranged.Store(len(e.ranges) > 0)
	return e, nil
}

func endpointsOf(self model.NodeID, own []net.Addr, pods []corev1.Pod, nodes []corev1.Node) *endpoints {
	e := &endpoints{self: self, own: map[netip.Addr]bool{}, pods: map[netip.Addr]model.PodID{}, nodes: map[netip.Addr]model.NodeID{},
		ids: map[model.NodeID]bool{}, ranges: map[netip.Prefix]model.NodeID{}}
	for _, o := range own {
		if p, err := netip.ParsePrefix(o.String()); err == nil {
			e.own[p.Addr().Unmap()] = true
		}
	}
	for i := range pods {
		e.addPod(&pods[i])
	}
	for i := range nodes {
		e.addNode(&nodes[i])
	}
	if !e.rangesAreFollowed() {
		clear(e.ranges)
	}
	for p := range e.ranges {
		if !slices.Contains(e.lengths, p.Bits()) {
			e.lengths = append(e.lengths, p.Bits())
		}
	}
	slices.SortFunc(e.lengths, func(a, b int) int { return b - a })
	return e
}

// addPod leaves out pods that have ended, whose address may be another's by now, and those
// that have their node's.
func (e *endpoints) addPod(p *corev1.Pod) {
	if p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return
	}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			e.pods[a.Unmap()] = podID(p)
		}
	}
}

func (e *endpoints) addNode(n *corev1.Node) {
	id := model.NodeID(n.Name)
	e.ids[id] = true
	for _, address := range n.Status.Addresses {
		if a, err := netip.ParseAddr(address.Address); err == nil {
			e.nodes[a.Unmap()] = id
		}
	}
	for _, r := range n.Spec.PodCIDRs {
		if p, err := netip.ParsePrefix(r); err == nil {
			e.ranges[p.Masked()] = id
		}
	}
}

// rangesAreFollowed tells whether pods have addresses of their Node's ranges: some networks
// hand out others, and the ranges say nothing then. The node's own pods show which it is.
func (e *endpoints) rangesAreFollowed() bool {
	for a := range e.pods {
		if !e.inOwnRange(a) {
			return false
		}
	}
	return len(e.pods) > 0
}

func (e *endpoints) inOwnRange(a netip.Addr) bool {
	for p, id := range e.ranges {
		if id == e.self && p.Contains(a) {
			return true
		}
	}
	return false
}

// Local implements measure.Endpoints.
func (e *endpoints) Local(a netip.Addr) (traffic.Endpoint, bool) {
	if pod, ok := e.pods[a]; ok {
		return traffic.Endpoint{Pod: pod, Node: e.self}, true
	}
	return traffic.Endpoint{Node: e.self}, e.own[a]
}

// Remote implements measure.Endpoints.
func (e *endpoints) Remote(a netip.Addr) traffic.Endpoint {
	if local, ok := e.Local(a); ok {
		return local
	}
	if id, ok := e.nodes[a]; ok {
		return traffic.Endpoint{Node: id}
	}
	for _, bits := range e.lengths {
		if p, err := a.Prefix(bits); err == nil {
			if id, ok := e.ranges[p]; ok {
				return traffic.Endpoint{Node: id, Address: a.String()}
			}
		}
	}
	return traffic.Endpoint{Address: a.String()}
}

// IsNode implements measure.Endpoints.
func (e *endpoints) IsNode(id model.NodeID) bool { return e.ids[id] }
