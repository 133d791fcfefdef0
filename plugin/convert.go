package plugin

import (
	corev1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
)

// names lists the nodes' names, in the memory of ids.
func names(ids []model.NodeID, nodes []fwk.NodeInfo) []model.NodeID {
	ids = ids[:0]
	for _, n := range nodes {
		ids = append(ids, model.NodeID(n.Node().Name))
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

// leaves tells whether a replacement comes from the node and is not ordered back to it, as
// the second step of a pod that keeps its name is.
func leaves(pod *corev1.Pod, node string) bool {
	return sourceOf(pod) == model.NodeID(node) && pod.Annotations[v1alpha1.AnnotationPinned] != string(corev1.NodeSelectorOpIn)+"="+node
}
