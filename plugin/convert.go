package plugin

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	configv1alpha1 "github.com/drover-project/drover/api/config/v1alpha1"
	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
)

// paramsFrom turns arguments with their defaults into the formula's parameters.
func paramsFrom(a *configv1alpha1.RouteTimeArgs) placement.Params {
	return placement.Params{
		Alpha:      *a.Alpha,
		Beta:       *a.Beta,
		Tau:        *a.Tau,
		Floor:      a.RouteTimeFloor.Duration,
		Exponent:   *a.RouteTimeExponent,
		StaleAfter: a.StaleAfter.Duration,
	}
}

// names lists the nodes' names.
func names(nodes []fwk.NodeInfo) []model.NodeID {
	ids := make([]model.NodeID, len(nodes))
	for i, n := range nodes {
		ids[i] = model.NodeID(n.Node().Name)
	}
	return ids
}

// refresh sets what the scheduler knows better than gossip: the requests of all pods on
// the node, those just placed included, and what the Node object may give at most.
func refresh(c *placement.Candidate, n fwk.NodeInfo) {
	requested, allocatable := resources(n.GetRequested()), resources(n.GetAllocatable())
	c.Load.Requested = requested
	if !c.LoadKnown {
		c.Load.Allocatable = allocatable
		return
	}
	c.Load.Allocatable.CPU = min(c.Load.Allocatable.CPU, allocatable.CPU)
	c.Load.Allocatable.Memory = min(c.Load.Allocatable.Memory, allocatable.Memory)
}

func resources(r fwk.Resource) model.Resources {
	return model.Resources{
		CPU:    model.Cores(float64(r.GetMilliCPU()) / 1000),
		Memory: model.Bytes(r.GetMemory()),
	}
}

// isReplacement tells whether the pod takes over from one that moves.
func isReplacement(pod *corev1.Pod) bool { return pod.Annotations[v1alpha1.AnnotationMigration] != "" }

// sourceOf is the node that a replacement comes from; empty for other pods.
func sourceOf(pod *corev1.Pod) model.NodeID {
	if !isReplacement(pod) {
		return ""
	}
	return model.NodeID(pod.Annotations[v1alpha1.AnnotationMigratingFrom])
}

// viewpointOf finds the nodes that the pod's peers run on, in the informer's memory. The
// weight of a term is shared by the pods it selects: a client spreads its requests over a
// service's replicas. A malformed annotation has no peers; PreFilter tells the user.
func viewpointOf(pod *corev1.Pod, pods corelisters.PodLister) placement.Viewpoint {
	from := placement.Viewpoint{Source: sourceOf(pod)}
	peers, err := ParsePeers(pod.Annotations[v1alpha1.AnnotationPeers])
	if err != nil || len(peers) == 0 {
		return from
	}
	from.Peers = map[model.NodeID]float64{}
	for _, p := range peers {
		nodes := nodesOf(pod, p, pods)
		for _, id := range nodes {
			from.Peers[id] += p.Weight / float64(len(nodes))
		}
	}
	return from
}

// nodesOf lists, once per pod, the nodes of the pods that a peer term selects.
func nodesOf(pod *corev1.Pod, p Peer, pods corelisters.PodLister) []model.NodeID {
	// Memory cannot fail; if ever it does, nobody is known to be a peer.
	found, _ := pods.Pods(pod.Namespace).List(labels.SelectorFromSet(labels.Set{p.Key: p.Value}))
	var nodes []model.NodeID
	for _, other := range found {
		if other.Spec.NodeName != "" && !over(other) && !sameLineage(pod, other) {
			nodes = append(nodes, model.NodeID(other.Spec.NodeName))
		}
	}
	return nodes
}

// over tells whether a pod has ended or is about to.
func over(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// sameLineage tells whether two pods are one: the same object, or a replacement and the
// pod it takes over from. Nobody is their own peer.
func sameLineage(a, b *corev1.Pod) bool {
	return origin(a) == origin(b)
}

// origin is the UID of the first pod of the lineage.
func origin(pod *corev1.Pod) string {
	if o := pod.Annotations[v1alpha1.AnnotationOrigin]; o != "" {
		return o
	}
	return string(pod.UID)
}
