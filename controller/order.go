package controller

import "github.com/drover-project/drover/api/v1alpha1"

// ReasonNotItsPod: an agent ordered a move of a pod that another node runs.
const ReasonNotItsPod = "NotItsPod"

// admitOrder: an agent moves pods of its own node alone. Who may say for which node it
// orders is held by a ValidatingAdmissionPolicy of the chart; a user says for none.
func admitOrder(m *v1alpha1.PodMigration, f Facts) *Refusal {
	by, ok := m.Annotations[v1alpha1.AnnotationOrderedBy]
	if !ok || by == f.Pod.Spec.NodeName {
		return nil
	}
	return refuse(ReasonNotItsPod, "the agent of node %q ordered this, and pod %s/%s runs on node %q: an agent moves its own node's pods alone",
		by, f.Pod.Namespace, f.Pod.Name, f.Pod.Spec.NodeName)
}
