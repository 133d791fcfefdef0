// Package fit tells what a pod's spec asks of a node, and which nodes are out of the question for it,
// whatever they have free: for agents, which propose a target, and for people, to whom scores are
// explained. The scheduler has the last word.
package fit

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	helper "k8s.io/component-helpers/resource"
	scheduling "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/drover-project/drover/internal/model"
)

// Requests is what the pod requests, as the scheduler counts it.
func Requests(p *corev1.Pod) model.Resources {
	wants := helper.PodRequests(p, helper.PodResourcesOptions{})
	return model.Resources{CPU: model.Cores(wants.Cpu().AsApproximateFloat64()), Memory: model.Bytes(wants.Memory().Value())}
}

// Barred are the nodes that no scheduler would bind the pod to, whatever they have free.
func Barred(p *corev1.Pod, nodes []corev1.Node) map[model.NodeID]string {
	out := map[model.NodeID]string{}
	for i := range nodes {
		n := &nodes[i]
		taint, untolerated := scheduling.FindMatchingUntoleratedTaint(n.Spec.Taints, p.Spec.Tolerations, func(t *corev1.Taint) bool {
			return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
		})
		fits, err := nodeaffinity.GetRequiredNodeAffinity(p).Match(n)
		switch {
		case n.Spec.Unschedulable:
			out[model.NodeID(n.Name)] = "it is cordoned"
		case untolerated:
			out[model.NodeID(n.Name)] = fmt.Sprintf("the pod does not tolerate its taint %s", taint.ToString())
		case err != nil || !fits:
			out[model.NodeID(n.Name)] = "the pod's node selector or affinity does not allow it"
		}
	}
	return out
}
