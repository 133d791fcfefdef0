package nodeagent

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
	"github.com/drover-project/drover/nodeagent/podpath"
)

// companionName is the label app.kubernetes.io/name of the companions.
const companionName = "drover-path"

// companion finds the one among the node's pods; while one replaces another, the newer.
func companion(namespace string, pods []corev1.Pod) podpath.Companion {
	var found podpath.Companion
	var newest *corev1.Pod
	for i := range pods {
		p := &pods[i]
		if p.Namespace != namespace || p.Labels["app.kubernetes.io/name"] != companionName || p.Spec.HostNetwork ||
			p.DeletionTimestamp != nil || newest != nil && p.CreationTimestamp.Before(&newest.CreationTimestamp) {
			continue
		}
		address, err := netip.ParseAddr(p.Status.PodIP)
		if err != nil {
			continue // it has none yet
		}
		for _, s := range p.Status.ContainerStatuses {
			if _, id, named := strings.Cut(s.ContainerID, "://"); named && s.State.Running != nil {
				newest, found = p, podpath.Companion{Pod: p.Namespace + "/" + p.Name, Container: id, Address: address.Unmap()}
				break
			}
		}
	}
	return found
}

// podPeers are the ends of the pod path at those nodes. Every node says its own, so that what
// it says is bounded: an address of a node is nobody's, nor is one that two living nodes, or
// another beside the agent itself, call their own.
func podPeers(self model.NodeID, own netip.Addr, peers map[model.NodeID]netip.Addr, known map[model.NodeID]view.Node, nodes []corev1.Node) map[model.NodeID]netip.Addr {
	claims := map[netip.Addr]int{own: 1}
	for _, n := range nodes {
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil {
				claims[ip.Unmap()]++
			}
		}
	}
	ends := map[model.NodeID]netip.Addr{}
	for id, n := range known {
		ip, err := netip.ParseAddr(n.State.PodAddress)
		if ip = ip.Unmap(); err != nil || id == self || !n.Alive || !ip.IsGlobalUnicast() || ip.Zone() != "" {
			continue
		}
		claims[ip]++
		if _, planned := peers[id]; planned {
			ends[id] = ip
		}
	}
	for id, ip := range ends {
		if claims[ip] > 1 {
			delete(ends, id)
		}
	}
	return ends
}
