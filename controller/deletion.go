package controller

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/drover-project/drover/api/v1alpha1"
)

// Reasons of the condition SourceTerminating.
const (
	// ReasonDeletion: somebody or the owner wanted the pod gone.
	ReasonDeletion = "Deletion"
	// ReasonDisruption: it is evicted, or its node is cordoned, not ready or gone.
	ReasonDisruption = "Disruption"
)

// witness writes into the record why the source goes, as long as it can be seen: a pod
// that is gone tells no more whether it was deleted or evicted. The first answer counts,
// for those who evict mark a pod before they delete it. After the replacement is its
// owner's the source goes because of the move, which is no news.
func (r *Reconciler) witness(ctx context.Context, m *v1alpha1.PodMigration, f Facts) error {
	source, p := f.source(m), f.replacement(m)
	if source == nil || source.DeletionTimestamp == nil || released(m, source) || p == nil || p.Labels[v1alpha1.LabelReplacement] == "" || holdsName(m) ||
		meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionSourceTerminating) {
		return nil
	}
	why := whyTerminating(f, source)
	setCondition(m, f.Now, v1alpha1.ConditionSourceTerminating, true, why.Reason, why.Message)
	note(m, f.Now, "SourceTerminating", why.Message)
	return r.save(ctx, m)
}

func whyTerminating(f Facts, source *corev1.Pod) *Refusal {
	switch {
	case podCondition(source, corev1.DisruptionTarget):
		return refuse(ReasonDisruption, "pod %s is evicted from node %s", source.Name, source.Spec.NodeName)
	case f.SourceNode != nil && f.SourceNode.Spec.Unschedulable:
		// kubectl drain --disable-eviction deletes, and marks nothing but the node.
		return refuse(ReasonDisruption, "pod %s goes, and node %s is cordoned", source.Name, source.Spec.NodeName)
	case f.SourceNode == nil || !nodeReady(f.SourceNode):
		return refuse(ReasonDisruption, "pod %s goes, and node %s is gone or not ready", source.Name, source.Spec.NodeName)
	}
	return refuse(ReasonDeletion, "pod %s was deleted", source.Name)
}

// deletedByUser tells that somebody or its owner wanted the source pod gone, and was seen
// to. A pod that goes because its node goes, or is evicted, is not meant: that is what
// moves are for. Nor is one that went unseen: the replacement is the only copy by now,
// and is not thrown away for what nobody knows.
func deletedByUser(m *v1alpha1.PodMigration) bool {
	c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionSourceTerminating)
	return c != nil && c.Reason == ReasonDeletion
}
